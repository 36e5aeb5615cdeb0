//! Where the programs of others are.

use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use crate::config::ContainerdConfig;
use crate::error::ContainerdError;

/// Places beside `$PATH` where installers put runtimes.
const RUNTIME_DIRS: [&str; 2] = ["/usr/local/nvidia/toolkit", "/opt/kwasm/bin"];
/// The search path where the environment names none.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Finds `containerd`, `crictl`, `ctr`, `kubectl`...: bundled below the data directory, or else on the path; never this
/// very program under another name.
///
/// # Errors
/// There is none.
pub fn find_program(name: &str, config: &ContainerdConfig) -> Result<PathBuf, ContainerdError> {
    let bundled = bundled(config);
    let own = config.own_binary.as_deref().and_then(|path| path.canonicalize().ok());
    let path = search_path(config);
    let places = std::iter::once(bundled.clone()).chain(std::env::split_paths(&path));
    find(name, places, own.as_deref()).ok_or_else(|| ContainerdError::NoProgram { name: name.to_owned(), bundled })
}

/// Finds a runtime, which may be where its installer put it.
pub(crate) fn find_runtime(name: &str, config: &ContainerdConfig) -> Option<PathBuf> {
    let path = search_path(config);
    let places = RUNTIME_DIRS.iter().map(PathBuf::from).chain([bundled(config)]).chain(std::env::split_paths(&path));
    find(name, places, None)
}

/// The search path that the engine gets: what is bundled comes first.
pub(crate) fn engine_path(config: &ContainerdConfig) -> OsString {
    let mut path = bundled(config).into_os_string();
    path.push(":");
    path.push(search_path(config));
    path
}

fn bundled(config: &ContainerdConfig) -> PathBuf {
    config.data_dir.join("data/current/bin")
}

fn search_path(config: &ContainerdConfig) -> OsString {
    config.variable("PATH").filter(|path| !path.is_empty()).cloned().unwrap_or_else(|| PATH.into())
}

fn find(name: &str, places: impl Iterator<Item = PathBuf>, own: Option<&Path>) -> Option<PathBuf> {
    places.filter(|place| place.is_absolute()).map(|place| place.join(name)).find(|file| is_program(file, own))
}

/// Whether it can be run, and is not `own`.
fn is_program(file: &Path, own: Option<&Path>) -> bool {
    let Ok(meta) = file.metadata() else { return false };
    let runs = meta.is_file() && meta.permissions().mode() & 0o111 != 0;
    runs && own.is_none_or(|own| file.canonicalize().is_ok_and(|real| real != own))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn program(path: &Path, mode: u32) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "x").unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_bundled_program_comes_before_the_path_and_our_own_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let mut config = ContainerdConfig::new(dir.path().join("data"), dir.path().join("run"));
        let (first, second) = (dir.path().join("first"), dir.path().join("second"));
        let path = std::env::join_paths([PathBuf::from("relative"), first.clone(), second.clone()]).unwrap();
        config.environment.push(("PATH".into(), path));
        assert!(find_program("crictl", &config).unwrap_err().to_string().contains("crictl"));
        let own = dir.path().join("k3sd");
        program(&own, 0o755);
        fs::create_dir_all(&first).unwrap();
        std::os::unix::fs::symlink(&own, first.join("crictl")).unwrap();
        config.own_binary = Some(own);
        assert!(find_program("crictl", &config).is_err(), "it is ourselves");
        program(&second.join("crictl"), 0o644);
        assert!(find_program("crictl", &config).is_err(), "it can't be run");
        program(&second.join("crictl"), 0o755);
        assert_eq!(find_program("crictl", &config).unwrap(), second.join("crictl"));
        let bundled = dir.path().join("data/data/current/bin/crictl");
        program(&bundled, 0o755);
        assert_eq!(find_program("crictl", &config).unwrap(), bundled);
    }
}
