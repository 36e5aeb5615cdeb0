//! What the proxy is told.

use std::net::IpAddr;
use std::path::PathBuf;

use k3sd_client::api::Connect;
use k3sd_runtime::Clock;

/// What the proxy of a node is told from outside.
#[derive(Debug, Clone)]
pub struct ProxyConfig {
    /// The node's name.
    pub node_name: String,
    /// `--kube-proxy-arg`, each as `name=value`.
    pub arguments: Vec<String>,
    /// Where pods are: the first address of each network, and its bits. Who isn't there comes from outside.
    pub cluster_cidrs: Vec<(IpAddr, u8)>,
    /// Whether the node is a load balancer itself: a Service that names one of the node's addresses as where it is balanced
    /// is reached on its port at every address of the node.
    pub local_load_balancer: bool,
    /// The file of the network namespace in which the node is; the process's own without.
    pub namespace: Option<PathBuf>,
}

/// Whom the proxy depends on.
#[derive(Debug, Clone)]
pub struct ProxyDeps {
    /// The API, as `system:kube-proxy`.
    pub connect: Connect,
    /// Time.
    pub clock: Clock,
}
