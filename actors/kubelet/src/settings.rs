//! From flags and files to what the parts of a node are told. Runs once, before anything starts, and may block.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use k3sd_client::arguments::flag;
use k3sd_kubelet_cgroups::{CgroupSources, Cgroups, Driver};
use k3sd_kubelet_node::config::{K3sDefaults, KubeletSettings, apply, k3s_defaults, load, load_with};
use k3sd_kubelet_node::identity::{CloudAnnotations, HostAddresses, Identity, NodeIps, node_annotations};
use k3sd_kubelet_node::prepare::{Preparation, load_modules, set_sysctls};
use k3sd_kubelet_node::status::architecture;
use k3sd_objects::names::{label_value, qualified_name};
use k8s_openapi::api::core::v1::Taint;

use crate::config::KubeletConfig;
use crate::error::KubeletError;
use crate::resolv;

/// The drop-in file that we write.
const DEFAULTS_FILE: &str = "00-k3s-defaults.conf";
/// Where files of `--kubelet-arg config=` and `config-dir=` are copied to, so that they come after ours.
const USER_FILE: &str = "10-cli-config.conf";
const USER_DIR: &str = "20-cli-config-dir";

/// What was found and decided.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) settings: KubeletSettings,
    pub(crate) identity: Identity,
    pub(crate) ips: NodeIps,
    /// The node's addresses, given or found.
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) cgroups: Arc<Cgroups>,
}

fn failed<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> KubeletError + 'a {
    move |source| KubeletError::File { action, path: path.to_owned(), source }
}

/// What users say about their node, before anything else is known.
#[derive(Clone, Copy, Debug)]
pub struct NodeFlags<'a> {
    /// `--node-ip`.
    pub ips: &'a [IpAddr],
    /// `--node-label`, each `name=value`.
    pub labels: &'a [String],
    /// `--node-taint`, each `key=value:effect`.
    pub taints: &'a [String],
    /// `--kubelet-arg`, each `name=value`.
    pub kubelet_arguments: &'a [String],
    /// The root of the host's files, `/`.
    pub host_root: &'a Path,
}

/// Whether a node could be put together with this. Reads files that arguments name and the host's addresses, writes
/// nothing, and opens nothing: it is for the moment before a datastore is touched.
///
/// # Errors
/// The first thing that is wrong.
pub fn check(flags: NodeFlags<'_>) -> Result<(), KubeletError> {
    flags.taints.iter().try_for_each(|text| taint(text).map(drop))?;
    flags.labels.iter().try_for_each(|text| label(text).map(drop))?;
    let (file, folder) = (given(flags.kubelet_arguments, "config"), given(flags.kubelet_arguments, "config-dir"));
    if let Some(folder) = &folder {
        fs::read_dir(folder).map_err(failed("read directory", folder))?;
    }
    let config = load_with(file.as_deref(), folder.as_deref()).map_err(KubeletError::Config)?.config;
    let mut settings = KubeletSettings { config, ..KubeletSettings::default() };
    let rest = flags.kubelet_arguments.iter().map(String::as_str).filter(|text| !is_of_files(text));
    apply(&mut settings, rest).map_err(KubeletError::Argument)?;
    let texts = match settings.node_ips.is_empty() {
        true => flags.ips.iter().map(ToString::to_string).collect(),
        false => settings.node_ips,
    };
    let ips = NodeIps::parse(&texts).map_err(KubeletError::Address)?;
    if ips.specified().next().is_some() {
        // Without one the host may yet come by an address.
        HostAddresses::read(&flags.host_root.join("proc")).choose(&ips).map_err(KubeletError::Address)?;
    }
    Ok(())
}

/// Gets the machine ready, writes the configuration's drop-in files, and reads them back with those of the user.
pub(crate) fn prepare(config: &KubeletConfig) -> Result<Prepared, KubeletError> {
    let has = |is_ipv6: bool| config.cluster_cidrs.iter().any(|(address, _)| address.is_ipv6() == is_ipv6);
    let wanted = Preparation {
        ipv4: has(false),
        ipv6: has(true),
        bridges: config.has_network,
        protects_defaults: config.protects_kernel_defaults,
    };
    let proc = config.host_root.join("proc");
    let mut warnings = load_modules(&wanted);
    warnings.extend(set_sysctls(&wanted, &proc).map_err(KubeletError::Prepare)?);
    for (folder, mode) in [(config.drop_in_dir(), 0o700), (config.manifests_dir(), 0o750)] {
        make_dir(&folder, mode)?;
    }
    let driver = if config.systemd_cgroups { Driver::Systemd } else { Driver::Cgroupfs };
    let cgroups = Cgroups::detect(&CgroupSources::default(), driver, "").map_err(KubeletError::Cgroups)?;
    let taints = config.taints.iter().map(|text| taint(text)).collect::<Result<Vec<_>, _>>()?;
    write_drop_ins(config, &cgroups, taints.clone())?;
    let loaded = load(&config.drop_in_dir()).map_err(KubeletError::Config)?;
    warnings.extend(loaded.warnings);
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    let mut settings = KubeletSettings { config: loaded.config, ..KubeletSettings::default() };
    settings.is_cloud_external = config.has_cloud;
    let rest = config.kubelet_arguments.iter().map(String::as_str);
    apply(&mut settings, rest.filter(|text| !is_of_files(text))).map_err(KubeletError::Argument)?;
    make_dir(&settings.root_dir, 0o750)?;
    let cgroups = again(cgroups, &settings)?;
    let ips = if settings.node_ips.is_empty() {
        NodeIps { given: config.ips.clone() }
    } else {
        NodeIps::parse(&settings.node_ips).map_err(KubeletError::Address)?
    };
    let addresses = HostAddresses::read(&proc).choose(&ips).map_err(KubeletError::Address)?;
    let identity = identity(config, &settings, (&ips, &addresses), taints)?;
    Ok(Prepared { settings, identity, ips, addresses, cgroups: Arc::new(cgroups) })
}

/// The cgroups with the root and driver that files and arguments ask for in the end.
fn again(found: Cgroups, settings: &KubeletSettings) -> Result<Cgroups, KubeletError> {
    let kubelet = &settings.config;
    let driver = if kubelet.cgroup_driver == Driver::Systemd.word() { Driver::Systemd } else { Driver::Cgroupfs };
    if driver == found.driver() && matches!(kubelet.cgroup_root.as_str(), "" | "/") {
        return Ok(found);
    }
    Cgroups::detect(&CgroupSources::default(), driver, &kubelet.cgroup_root).map_err(KubeletError::Cgroups)
}

fn make_dir(path: &Path, mode: u32) -> Result<(), KubeletError> {
    DirBuilder::new().recursive(true).mode(mode).create(path).map_err(failed("make directory", path))
}

/// Writes a file whole or not at all.
pub(crate) fn write(path: &Path, text: &[u8], mode: u32) -> Result<(), KubeletError> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let beside = PathBuf::from(beside);
    fs::write(&beside, text).map_err(failed("write", path))?;
    fs::set_permissions(&beside, Permissions::from_mode(mode)).map_err(failed("change mode of", path))?;
    fs::rename(&beside, path).map_err(failed("write", path))
}

fn write_drop_ins(config: &KubeletConfig, cgroups: &Cgroups, taints: Vec<Taint>) -> Result<(), KubeletError> {
    let resolv_conf = match config.resolv_conf.clone().or_else(|| resolv::usable(&config.host_root)) {
        Some(path) => path,
        None => {
            tracing::warn!("no resolv.conf of this host names servers that pods could reach; they get public ones");
            write(&config.stub_file(), resolv::STUB.as_bytes(), 0o644)?;
            config.stub_file()
        }
    };
    let is_ipv6 = config.cluster_cidrs.first().is_some_and(|(address, _)| address.is_ipv6());
    let text = k3s_defaults(&K3sDefaults {
        agent_dir: config.agent_dir.clone(),
        listen_address: config.listen_address,
        is_ipv6,
        cluster_dns: config.cluster_dns.clone(),
        cluster_domain: config.cluster_domain.clone(),
        resolv_conf,
        systemd_cgroups: config.systemd_cgroups,
        cgroup_root: None,
        has_cpu_controller: cgroups.layout().controllers().contains(&"cpu"),
        protect_kernel_defaults: config.protects_kernel_defaults,
        node_taints: taints,
        runtime_socket: config.runtime_socket.clone(),
        image_endpoint: config.image_endpoint.clone(),
    });
    let folder = config.drop_in_dir();
    write(&folder.join(DEFAULTS_FILE), text.as_bytes(), 0o600)?;
    match given(&config.kubelet_arguments, "config") {
        Some(path) => {
            let text = fs::read(&path).map_err(failed("read", &path))?;
            write(&folder.join(USER_FILE), &text, 0o600)?;
        }
        None => remove(&folder.join(USER_FILE))?,
    }
    let copy = folder.join(USER_DIR);
    remove(&copy)?;
    let Some(path) = given(&config.kubelet_arguments, "config-dir") else { return Ok(()) };
    make_dir(&copy, 0o700)?;
    for entry in fs::read_dir(&path).map_err(failed("read directory", &path))? {
        let entry = entry.map_err(failed("read directory", &path))?;
        if entry.path().extension().is_some_and(|ending| ending == "conf") {
            let text = fs::read(entry.path()).map_err(failed("read", &path))?;
            write(&copy.join(entry.file_name()), &text, 0o600)?;
        }
    }
    Ok(())
}

/// Removes what an earlier start may have copied.
fn remove(path: &Path) -> Result<(), KubeletError> {
    let removed = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("remove", path)(error)),
        _ => Ok(()),
    }
}

/// The path that the last argument of this name gives.
fn given(arguments: &[String], name: &str) -> Option<PathBuf> {
    let found = arguments.iter().map(|text| flag(text)).rfind(|(own, _)| *own == name);
    found.map(|(_, value)| PathBuf::from(value))
}

/// Whether an argument names files, which were copied before.
fn is_of_files(argument: &str) -> bool {
    matches!(flag(argument).0, "config" | "config-dir")
}

fn label(text: &str) -> Result<(&str, &str), KubeletError> {
    let wrong = |problem: String| KubeletError::Label { text: text.to_owned(), problem };
    let (name, value) = text.split_once('=').ok_or_else(|| wrong("write name=value".to_owned()))?;
    match qualified_name(name).into_iter().chain(label_value(value)).next() {
        Some(fault) => Err(wrong(fault)),
        None => Ok((name, value)),
    }
}

fn taint(text: &str) -> Result<Taint, KubeletError> {
    let wrong = || KubeletError::Taint { text: text.to_owned() };
    let (rest, effect) = text.rsplit_once(':').ok_or_else(wrong)?;
    let (key, value) = rest.split_once('=').map_or((rest, None), |(key, value)| (key, Some(value)));
    if key.is_empty() || !matches!(effect, "NoSchedule" | "PreferNoSchedule" | "NoExecute") {
        return Err(wrong());
    }
    let value = value.filter(|value| !value.is_empty()).map(str::to_owned);
    Ok(Taint { key: key.to_owned(), value, effect: effect.to_owned(), time_added: None })
}

fn identity(
    config: &KubeletConfig,
    settings: &KubeletSettings,
    (ips, addresses): (&NodeIps, &[IpAddr]),
    taints: Vec<Taint>,
) -> Result<Identity, KubeletError> {
    let mut labels: BTreeMap<String, String> = settings.node_labels.clone();
    for text in &config.labels {
        let (name, value) = label(text)?;
        labels.insert(name.to_owned(), value.to_owned());
    }
    let hostname = settings.hostname_override.clone().unwrap_or_else(|| config.name.clone());
    let list = |addresses: &[IpAddr]| addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    let cloud = config.has_cloud.then(|| CloudAnnotations {
        internal_ip: list(addresses),
        external_ip: list(&config.external_ips),
        internal_dns: config.internal_dns.join(","),
        external_dns: config.external_dns.join(","),
        hostname: hostname.clone(),
    });
    let variables = config.variables.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let mut all = settings.config.register_with_taints.clone();
    all.extend(taints.into_iter().filter(|taint| !settings.config.register_with_taints.contains(taint)));
    Ok(Identity {
        name: config.name.clone(),
        hostname,
        architecture: architecture().to_owned(),
        labels,
        annotations: node_annotations(&config.arguments, variables),
        taints: all,
        cloud,
        provided_ips: ips.annotation(),
        controller_attaches: settings.config.enable_controller_attach_detach,
        ..Identity::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn taints_are_read_as_flags_write_them() {
        let read = |text: &str| taint(text).ok().map(|taint| (taint.key, taint.value, taint.effect));
        let of = |key: &str, value: Option<&str>, effect: &str| {
            Some((key.to_owned(), value.map(str::to_owned), effect.to_owned()))
        };
        for (text, wanted) in [
            ("a=b:NoSchedule", of("a", Some("b"), "NoSchedule")),
            ("a:NoExecute", of("a", None, "NoExecute")),
            ("a=:PreferNoSchedule", of("a", None, "PreferNoSchedule")),
            ("a=b", None),
            ("=b:NoSchedule", None),
            ("a=b:Never", None),
        ] {
            assert_eq!(read(text), wanted, "{text}");
        }
    }

    #[test]
    fn what_makes_no_node_is_refused_before_anything_is_done() {
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("kubelet.yaml");
        fs::write(&file, "imageGCLowThresholdPercent: 60\n").unwrap();
        let of_file = format!("config={}", file.display());
        let absent = format!("config={}/none", place.path().display());
        let found = |ips: &[&str], labels: &[&str], taints: &[&str], arguments: &[&str]| {
            let texts = |all: &[&str]| all.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
            let ips: Vec<IpAddr> = ips.iter().map(|ip| ip.parse().unwrap()).collect();
            let (labels, taints, arguments) = (texts(labels), texts(taints), texts(arguments));
            let flags = NodeFlags {
                ips: &ips,
                labels: &labels,
                taints: &taints,
                kubelet_arguments: &arguments,
                host_root: Path::new("/"),
            };
            check(flags).err().map(|error| {
                let source = std::error::Error::source(&error).map(|source| format!(": {source}"));
                format!("{error}{}", source.unwrap_or_default())
            })
        };
        assert_eq!(found(&[], &["a=b", "example.com/c="], &["k=v:NoSchedule"], &["max-pods=9"]), None);
        assert_eq!(found(&["0.0.0.0"], &[], &[], &[]), None, "only a family");
        // Each is right only with the other.
        assert_eq!(found(&[], &[], &[], &[&of_file, "image-gc-high-threshold=70"]), None);
        let refused = |found: Option<String>, text: &str| {
            let found = found.expect(text);
            assert!(found.contains(text), "{found}");
        };
        refused(found(&[], &["bare"], &[], &[]), "--node-label \"bare\": write name=value");
        refused(found(&[], &["a b=c"], &[], &[]), "--node-label \"a b=c\": name part");
        refused(found(&[], &["a=b c"], &[], &[]), "--node-label \"a=b c\": a valid label");
        refused(found(&[], &[], &["k=v:Never"], &[]), "--node-taint \"k=v:Never\"");
        refused(found(&[], &[], &[], &["nonsense=1"]), "kubelet has no flag --nonsense");
        refused(found(&[], &[], &[], &["max-pods=many"]), "--max-pods: \"many\"");
        refused(found(&[], &[], &[], &["image-gc-high-threshold=70"]), "imageGCLowThresholdPercent");
        refused(found(&[], &[], &[], &[&absent]), "the kubelet's configuration: reading");
        refused(found(&["127.0.0.1"], &[], &[], &[]), "nodeIP can't be loopback address");
        refused(found(&["203.0.113.77"], &[], &[], &[]), "not found in the host's network interfaces");
        refused(found(&[], &[], &[], &["node-ip=10.0.0.1,10.0.0.2"]), "dual-stack pair");
    }
}
