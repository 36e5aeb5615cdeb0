//! Everything that has to be in its place before the engine starts.

use std::ffi::{CString, OsString};
use std::fs::{self, DirBuilder, OpenOptions, Permissions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use ring::digest;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use super::core::{Launch, MARK, environment};
use crate::config::ContainerdConfig;
use crate::error::ContainerdError;
use crate::host::Host;
use crate::program::{engine_path, find_program, find_runtime};
use crate::render::{self, FILE_BYTES_MAX, Format, Registries, Settings};
use crate::runtimes::{default_runtime, find_runtimes};
use crate::template;

/// What can be started.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub launch: Launch,
    pub version: String,
}

/// Writes all files and says what to start.
pub(crate) fn prepare(config: &ContainerdConfig) -> Result<Prepared, ContainerdError> {
    let program = find_program("containerd", config)?;
    let program = program.canonicalize().map_err(|error| ContainerdError::file("find", program, error))?;
    let (version, format) = version(&program)?;
    for dir in [config.root_dir(), config.etc_dir(), config.certs_dir()] {
        directory(&dir, 0o700)?;
    }
    // The root directories of containers are below it, also of those whose root is somebody else.
    directory(&config.state_dir, 0o711)?;
    check_snapshotter(config)?;
    let registries = registries(config)?;
    if !version.contains("-k3s") && registries.mirrors.values().any(|mirror| !mirror.rewrites.is_empty()) {
        tracing::warn!(%version, "rewrites of mirrors are only known to the containerd that K3s brings");
    }
    let runtimes = find_runtimes(config);
    let etc = config.etc_dir();
    let mut host = Host::look(config.variable("INVOCATION_ID").is_some());
    // The node names cgroups as one of the two understands.
    host.systemd_cgroups = config.systemd_cgroups.unwrap_or(host.systemd_cgroups);
    let settings = Settings {
        root: config.root_dir(),
        state: config.state_dir.clone(),
        socket: config.socket(),
        stream_port: config.stream_port,
        selinux: config.selinux,
        nonroot_devices: config.nonroot_devices,
        snapshotter: config.snapshotter.clone(),
        sandbox_image: config.sandbox_image(),
        cni: config.cni.clone(),
        default_runtime: default_runtime(config, &runtimes)?,
        runtimes,
        registries,
        host,
        blockio_file: Some(etc.join("blockio_config.yaml")).filter(|file| file.exists()),
        rdt_file: Some(etc.join("rdt_config.yaml")).filter(|file| file.exists()),
        no_default_endpoint: config.disable_default_registry_endpoint,
        etc,
    };
    let (text, format) = configuration(&settings, format)?;
    // It may hold passwords of registries.
    write(&config.config_file(), &text, 0o600)?;
    write_hosts(config, &settings.registries)?;
    write(&config.crictl_file(), &crictl(config), 0o600)?;
    let launch = launch(config, program, &version, format, &text)?;
    Ok(Prepared { launch, version })
}

/// Runs the program once.
fn version(program: &Path) -> Result<(String, Format), ContainerdError> {
    let failed = |reason: String| ContainerdError::Version { program: program.to_owned(), reason };
    let mut command = Command::new(program);
    command.arg("--version").env_clear().stdin(Stdio::null());
    let output = command.output().map_err(|error| failed(error.to_string()))?;
    let printed = String::from_utf8_lossy(&output.stdout);
    render::parse_version(&printed).ok_or_else(|| failed(format!("it printed {:?}", printed.trim())))
}

/// Makes a directory; one that is there stays as it is.
fn directory(path: &Path, mode: u32) -> Result<(), ContainerdError> {
    let made = DirBuilder::new().recursive(true).mode(mode).create(path);
    made.map_err(|error| ContainerdError::file("make the directory", path, error))
}

/// Replaces a file as a whole, unless it says the same already.
fn write(path: &Path, text: &str, mode: u32) -> Result<(), ContainerdError> {
    if fs::read(path).is_ok_and(|old| old == text.as_bytes()) {
        return Ok(());
    }
    let failed = |error| ContainerdError::file("write", path, error);
    directory(path.parent().unwrap_or(Path::new("/")), 0o700)?;
    let mut half = path.as_os_str().to_owned();
    half.push(".partial");
    let half = PathBuf::from(half);
    let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(mode).open(&half).map_err(failed)?;
    file.set_permissions(Permissions::from_mode(mode)).map_err(failed)?;
    file.write_all(text.as_bytes()).map_err(failed)?;
    fs::rename(&half, path).map_err(failed)
}

/// Reads a small file; `None` when it is not there.
fn read(path: &Path) -> Result<Option<Vec<u8>>, ContainerdError> {
    let failed = |error| ContainerdError::file("read", path, error);
    let file = match fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(failed(io::ErrorKind::FileTooLarge.into()));
    }
    Ok(Some(bytes))
}

fn registries(config: &ContainerdConfig) -> Result<Registries, ContainerdError> {
    let path = &config.private_registry;
    let bytes = read(path)?.unwrap_or_default();
    Registries::parse(&bytes).map_err(|reason| ContainerdError::Registries { path: path.clone(), reason })
}

/// The configuration, from a user's template if there is one. A template of the newer form is only for an engine that
/// reads it; one of the older form is read by both.
fn configuration(settings: &Settings, format: Format) -> Result<(String, Format), ContainerdError> {
    let older = (settings.etc.join("config.toml.tmpl"), Format::V2);
    let newer = (settings.etc.join("config-v3.toml.tmpl"), Format::V3);
    let candidates = if format == Format::V3 { vec![newer, older] } else { vec![older] };
    for (path, format) in candidates {
        let Some(bytes) = read(&path)? else { continue };
        let base = render::base(settings, format);
        let text = String::from_utf8_lossy(&bytes);
        let made = template::execute(&text, &base, &settings.template_data());
        let made = made.map_err(|source| ContainerdError::Template { path, source })?;
        return Ok((render::tidy(&made), format));
    }
    Ok((render::tidy(&render::base(settings, format)), format))
}

/// Writes the hosts of registries, and removes those of ours that are not wanted any more.
fn write_hosts(config: &ContainerdConfig, registries: &Registries) -> Result<(), ContainerdError> {
    let dir = config.certs_dir();
    let hosts = render::plan(registries, config.disable_default_registry_endpoint);
    for warning in &hosts.warnings {
        tracing::warn!(file = %config.private_registry.display(), "{warning}");
    }
    let listed = fs::read_dir(&dir).map_err(|error| ContainerdError::file("list", &dir, error))?;
    for entry in listed.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let text = fs::read_to_string(entry.path().join("hosts.toml")).unwrap_or_default();
        let ours = text.lines().next() == Some(render::HEADER);
        if ours && !hosts.files.iter().any(|(host, _)| *host == name) {
            let removed = fs::remove_dir_all(entry.path());
            removed.map_err(|error| ContainerdError::file("remove", entry.path(), error))?;
        }
    }
    hosts.files.iter().try_for_each(|(host, text)| write(&dir.join(host).join("hosts.toml"), text, 0o644))
}

fn crictl(config: &ContainerdConfig) -> String {
    let mut text = format!("runtime-endpoint: unix://{}\n", config.socket().display());
    if let Some(socket) = render::image_service(&config.snapshotter) {
        text.push_str(&format!("image-endpoint: unix://{socket}\n"));
    }
    text
}

fn launch(
    config: &ContainerdConfig,
    program: PathBuf,
    version: &str,
    format: Format,
    text: &str,
) -> Result<Launch, ContainerdError> {
    let (mut variables, level) = environment(&config.environment);
    let mut arguments: Vec<OsString> = vec!["-c".into(), config.config_file().into()];
    if format == Format::V2 {
        arguments.extend(["-a".into(), config.socket().into()]);
        arguments.extend(["--state".into(), config.state_dir.clone().into()]);
        arguments.extend(["--root".into(), config.root_dir().into()]);
    }
    if let Some(level) = level.or_else(|| config.debug.then(|| "debug".to_owned())) {
        arguments.extend(["--log-level".into(), level.into()]);
    }
    let mut hash = digest::Context::new(&digest::SHA256);
    let mut add = |bytes: &[u8]| {
        hash.update(&(bytes.len() as u64).to_le_bytes());
        hash.update(bytes);
    };
    add(program.as_os_str().as_bytes());
    add(version.as_bytes());
    add(text.as_bytes());
    arguments.iter().for_each(|argument| add(argument.as_bytes()));
    // Of the environment only what an engine acts on: the rest differs with each way to start us.
    let mut proxies: Vec<_> = variables.iter().filter(|(key, _)| is_proxy(key.as_bytes())).collect();
    proxies.sort();
    for (key, value) in proxies {
        add(key.as_bytes());
        add(value.as_bytes());
    }
    let drop_ins = config.etc_dir().join(if format == Format::V2 { "config.toml.d" } else { "config-v3.toml.d" });
    let mut files: Vec<PathBuf> = fs::read_dir(drop_ins).into_iter().flatten().flatten().map(|e| e.path()).collect();
    files.retain(|file| file.extension().is_some_and(|ending| ending == "toml"));
    files.sort();
    for file in files {
        add(&read(&file)?.unwrap_or_default());
    }
    let mark = crate::image::hex(hash.finish().as_ref());
    variables.retain(|(key, _)| key != "PATH" && key != MARK);
    variables.push(("PATH".into(), engine_path(config)));
    variables.push((MARK.into(), mark.clone().into()));
    Ok(Launch { program, arguments, environment: variables, mark })
}

fn is_proxy(name: &[u8]) -> bool {
    name.to_ascii_uppercase().ends_with(b"_PROXY")
}

/// Whether the snapshotter works on this machine, as far as that can be said before it is tried.
fn check_snapshotter(config: &ContainerdConfig) -> Result<(), ContainerdError> {
    let name = config.snapshotter.as_str();
    let failed = |reason: String| ContainerdError::Snapshotter { name: name.to_owned(), reason };
    match name {
        "overlayfs" => try_overlay(&config.root_dir()).map_err(|error| failed(format!("mounting failed: {error}"))),
        "fuse-overlayfs" | "stargz" if !Path::new("/dev/fuse").exists() => Err(failed("there is no /dev/fuse".into())),
        "fuse-overlayfs" if find_runtime("fuse-overlayfs", config).is_none() => {
            Err(failed("there is no program fuse-overlayfs".into()))
        }
        "nix" if find_runtime("nix-store", config).is_none() => Err(failed("there is no program nix-store".into())),
        _ => Ok(()),
    }
}

/// Mounts an overlay below `root`, and takes it away again.
fn try_overlay(root: &Path) -> io::Result<()> {
    let dir = root.join("check-overlay");
    // A mount that an earlier check left behind.
    unmount(dir.join("merged"), UnmountFlags::DETACH).ok();
    for part in ["lower1", "lower2", "merged"] {
        fs::create_dir_all(dir.join(part))?;
    }
    let path = dir.to_string_lossy().replace('\\', "\\\\").replace([',', ':'], "\\$0");
    let options = CString::new(format!("lowerdir={path}/lower2:{path}/lower1")).map_err(io::Error::other)?;
    let mounted = mount("overlay", dir.join("merged"), "overlay", MountFlags::RDONLY, Some(options.as_c_str()));
    if mounted.is_ok() {
        unmount(dir.join("merged"), UnmountFlags::DETACH)?;
    }
    fs::remove_dir_all(&dir)?;
    mounted.map_err(io::Error::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_that_are_ours_are_replaced_and_others_stay() {
        let dir = tempfile::tempdir().unwrap();
        let config = ContainerdConfig::new(dir.path(), dir.path().join("run"));
        let certs = config.certs_dir();
        write(&certs.join("old.example/hosts.toml"), &format!("{}\n", render::HEADER), 0o644).unwrap();
        write(&certs.join("user.example/hosts.toml"), "server = \"x\"\n", 0o644).unwrap();
        let registries = Registries::parse(b"mirrors: {new.example: {endpoint: [a]}}").unwrap();
        write_hosts(&config, &registries).unwrap();
        assert!(!certs.join("old.example").exists());
        assert!(certs.join("user.example/hosts.toml").exists());
        let written = fs::read_to_string(certs.join("new.example/hosts.toml")).unwrap();
        assert!(written.contains("[host.\"https://a/v2\"]"), "{written}");
    }

    #[test]
    fn an_older_engine_never_gets_the_newer_template() {
        let dir = tempfile::tempdir().unwrap();
        let settings = Settings { etc: dir.path().into(), ..render::settings_for_tests() };
        let made = |format| configuration(&settings, format).unwrap();
        assert!(made(Format::V3).0.contains("version = 3") && made(Format::V2).0.contains("version = 2"));
        fs::write(dir.path().join("config.toml.tmpl"), "older = {{ .Program }}\n").unwrap();
        // A newer engine reads the older form, too.
        for format in [Format::V2, Format::V3] {
            assert_eq!(made(format), ("older = k3s\n".to_owned(), Format::V2));
        }
        fs::write(dir.path().join("config-v3.toml.tmpl"), "newer = 1\n{{ template \"base\" . }}\n").unwrap();
        assert_eq!(made(Format::V2), ("older = k3s\n".to_owned(), Format::V2));
        let (text, format) = made(Format::V3);
        assert!(text.starts_with("newer = 1\n") && text.contains("version = 3"), "{text}");
        assert_eq!(format, Format::V3);
    }

    #[test]
    fn a_large_or_absent_file_is_no_surprise() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("f");
        assert_eq!(read(&file).unwrap(), None);
        fs::write(&file, vec![b' '; FILE_BYTES_MAX as usize + 1]).unwrap();
        assert!(read(&file).is_err());
    }
}
