//! Bringing files and the kernel in order. Runs on the actor's thread.

use std::fs;
use std::io;
use std::path::Path;

use k3sd_netlink::nft::{Hook, Netfilter, News};
use k3sd_netlink::route::{Route, State};
use k3sd_netlink::{Cidr, Namespace, NetlinkError, write_sysctl};

use super::core;
use crate::config::{Backend, NetworkConfig};
use crate::error::NetworkError;
use crate::install;

/// What was done to bring everything in order.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Applied {
    /// Changes to the table; none on a healthy kernel.
    pub(crate) table_changes: usize,
    /// Files that were written; none when they were right.
    pub(crate) files_written: usize,
    /// Bytes of the longest packet.
    pub(crate) mtu: u32,
    /// What may keep pods' packets from getting through, for people.
    pub(crate) warnings: Vec<String>,
}

impl From<NetlinkError> for NetworkError {
    fn from(source: NetlinkError) -> Self {
        Self::Kernel { what: "enter the node's network", source }
    }
}

/// Does something in the node's network namespace.
pub(super) fn inside<T: Send>(
    config: &NetworkConfig,
    work: impl FnOnce() -> Result<T, NetworkError> + Send,
) -> Result<T, NetworkError> {
    match &config.namespace {
        None => work(),
        Some(path) => Namespace::open(path)?.enter(work),
    }
}

/// Starts to hear of changes to tables.
pub(super) fn listen(config: &NetworkConfig) -> Result<News, NetworkError> {
    let failed = |source| NetworkError::Kernel { what: "hear of changes to nftables", source };
    inside(config, || News::open().map_err(failed))
}

/// Everything in order; what is in order is not touched.
pub(super) fn apply(config: &NetworkConfig, pod_cidrs: &[Cidr]) -> Result<Applied, NetworkError> {
    install(&config.cni_bin_dir, &config.binary)?;
    if config.backend == Backend::None || pod_cidrs.is_empty() {
        return Ok(Applied::default());
    }
    let mut applied = inside(config, || in_namespace(config, pod_cidrs))?;
    let env = core::subnet_env(config, pod_cidrs, applied.mtu);
    applied.files_written += usize::from(write(&config.subnet_env, &env)?);
    // The configuration last: when it is there, the runtime starts to call plugins.
    let list = read_conflist(config)?;
    applied.files_written += usize::from(write(&config.cni_conf_dir.join(core::CONF_FILE), &list)?);
    Ok(applied)
}

/// The configuration for the runtime: the operator's, or ours.
pub(super) fn read_conflist(config: &NetworkConfig) -> Result<String, NetworkError> {
    let Some(path) = &config.cni_conf else { return Ok(core::conflist(config)) };
    let failed = |source| NetworkError::File { what: "read", path: path.clone(), source };
    fs::read_to_string(path).map_err(failed)
}

fn in_namespace(config: &NetworkConfig, pod_cidrs: &[Cidr]) -> Result<Applied, NetworkError> {
    let mut applied = Applied::default();
    for key in core::sysctls(pod_cidrs) {
        if let Err(error) = write_sysctl(key, "1") {
            let source = std::error::Error::source(&error).map(|source| format!(": {source}")).unwrap_or_default();
            applied.warnings.push(format!("{error}{source}"));
        }
    }
    let failed = |what| move |source| NetworkError::Kernel { what, source };
    let mut route = Route::open().map_err(failed("ask the kernel for links"))?;
    let links = route.links().map_err(failed("list links"))?;
    let routes = route.routes().map_err(failed("list routes"))?;
    applied.mtu = core::mtu(&State { links, addresses: Vec::new(), routes });
    let table = core::table(config, pod_cidrs);
    let mut netfilter = Netfilter::open().map_err(failed("ask the kernel for nftables"))?;
    let kept = netfilter.converge(&table);
    // What the kernel says of a missing feature is "no such file".
    let what = "keep the nftables table of pods (needs nf_tables with inet, nat and masq)";
    applied.table_changes = kept.map_err(failed(what))?;
    // Ours accepts what is forwarded for pods, which counts for nothing in the tables of others.
    for chain in netfilter.dropping(Hook::Forward).map_err(failed("list chains"))? {
        applied.warnings.push(format!("the nftables chain {chain} drops what is forwarded; let pods' packets through"));
    }
    Ok(applied)
}

/// Writes a file at one moment, unless it is as it should be. Says whether it did.
fn write(path: &Path, text: &str) -> Result<bool, NetworkError> {
    if fs::read(path).is_ok_and(|there| there == text.as_bytes()) {
        return Ok(false);
    }
    let failed = |source: io::Error| NetworkError::File { what: "write", path: path.to_owned(), source };
    let dir = path.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(dir).map_err(failed)?;
    let mut unfinished = path.as_os_str().to_owned();
    // Not an ending that a container runtime takes for a configuration.
    unfinished.push(".unfinished");
    fs::write(&unfinished, text).and_then(|()| fs::rename(&unfinished, path)).map_err(failed)?;
    Ok(true)
}
