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
use k3sd_kubelet_node::config::{K3sDefaults, KubeletSettings, apply, k3s_defaults, load};
use k3sd_kubelet_node::identity::{CloudAnnotations, HostAddresses, Identity, NodeIps, node_annotations};
use k3sd_kubelet_node::prepare::{Preparation, load_modules, set_sysctls};
use k3sd_kubelet_node::status::architecture;
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
    let given = |name: &str| {
        let found = config.kubelet_arguments.iter().map(|text| flag(text)).rfind(|(own, _)| *own == name);
        found.map(|(_, value)| PathBuf::from(value))
    };
    match given("config") {
        Some(path) => {
            let text = fs::read(&path).map_err(failed("read", &path))?;
            write(&folder.join(USER_FILE), &text, 0o600)?;
        }
        None => remove(&folder.join(USER_FILE))?,
    }
    let copy = folder.join(USER_DIR);
    remove(&copy)?;
    let Some(path) = given("config-dir") else { return Ok(()) };
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

/// Whether an argument names files, which were copied before.
fn is_of_files(argument: &str) -> bool {
    matches!(flag(argument).0, "config" | "config-dir")
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
        let (name, value) = text.split_once('=').ok_or_else(|| KubeletError::Label { text: text.clone() })?;
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
}
