//! What the node's network is started with.

use std::path::PathBuf;

use k3sd_netlink::Cidr;

use crate::plugin::{DATA_DIR, STATE_DIR, SUBNET_FILE};

/// How pods of different nodes reach each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    /// Somebody else's business: the plugins are installed, and nothing else is done.
    None,
    /// Not at all: the pods of this node are on one bridge, and what leaves it is routed as the host does.
    Bridge,
}

/// The node's network. Nothing here changes while it runs.
#[derive(Debug, Clone)]
pub struct NetworkConfig {
    /// Where the container runtime looks for network configurations.
    pub cni_conf_dir: PathBuf,
    /// Where it looks for plugins; links to `binary` are made there.
    pub cni_bin_dir: PathBuf,
    /// This program.
    pub binary: PathBuf,
    /// A network configuration to use instead of the one that is made here, as `--flannel-cni-conf` has it.
    pub cni_conf: Option<PathBuf>,
    /// Where the node's subnets are written for the plugins; [`NetworkConfig::new`] has K3s's place.
    pub subnet_env: PathBuf,
    /// Where plugins remember addresses; [`NetworkConfig::new`] has everybody's place.
    pub networks_dir: PathBuf,
    /// Where the flannel plugin remembers what it called; [`NetworkConfig::new`] has everybody's place.
    pub flannel_dir: PathBuf,
    /// The networks of all pods of the cluster; what goes there is not masqueraded.
    pub cluster_cidrs: Vec<Cidr>,
    /// How pods of different nodes reach each other.
    pub backend: Backend,
    /// Whether IPv4 is masqueraded when it leaves the cluster.
    pub masquerade_ipv4: bool,
    /// Whether IPv6 is; as in K3s, only if it is asked for.
    pub masquerade_ipv6: bool,
    /// The bridge's name.
    pub bridge: String,
    /// The network namespace of the node, for several nodes on one machine; the process's own if none is given.
    pub namespace: Option<PathBuf>,
}

impl NetworkConfig {
    /// K3s's defaults for a program and the directories of its container runtime.
    #[must_use]
    pub fn new(binary: PathBuf, cni_conf_dir: PathBuf, cni_bin_dir: PathBuf) -> Self {
        Self {
            cni_conf_dir,
            cni_bin_dir,
            binary,
            cni_conf: None,
            subnet_env: SUBNET_FILE.into(),
            networks_dir: DATA_DIR.into(),
            flannel_dir: STATE_DIR.into(),
            cluster_cidrs: Vec::new(),
            backend: Backend::Bridge,
            masquerade_ipv4: true,
            masquerade_ipv6: false,
            bridge: "cni0".to_owned(),
            namespace: None,
        }
    }
}
