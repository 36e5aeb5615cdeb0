//! Settings of the DNS.

use std::net::IpAddr;
use std::path::PathBuf;

use k3sd_client::api::Connect;
use k3sd_runtime::Clock;

/// How a node's DNS is set up.
#[derive(Clone, Debug)]
pub struct DnsConfig {
    /// Where it is reached: the addresses of the Service `kube-dns`. They are added to the loopback link, and stay there.
    pub addresses: Vec<IpAddr>,
    /// The port; 53 but in tests.
    pub port: u16,
    /// The domain of the cluster.
    pub cluster_domain: String,
    /// The resolv.conf that names the servers for all other names: the one that pods with the policy `Default` get.
    pub resolv_conf: PathBuf,
    /// The name of this node, for Events.
    pub node_name: String,
    /// Whether the addresses are kept on the loopback link; not where somebody else sees to that, as in tests.
    pub adds_addresses: bool,
    /// Sockets per address and protocol, each with an actor of its own.
    pub workers: usize,
}

/// Actors that answer, at most: DNS isn't what a node is for.
const WORKERS_MAX: usize = 4;

impl DnsConfig {
    /// With the standards of everything else.
    #[must_use]
    pub fn new(addresses: Vec<IpAddr>, cluster_domain: &str, resolv_conf: PathBuf, node_name: &str) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            addresses,
            port: 53,
            cluster_domain: cluster_domain.to_owned(),
            resolv_conf,
            node_name: node_name.to_owned(),
            adds_addresses: true,
            workers: cores.min(WORKERS_MAX),
        }
    }
}

/// What it needs of others.
#[derive(Clone, Debug)]
pub struct DnsDeps {
    /// The API, as somebody who may list and watch Services, EndpointSlices and Namespaces everywhere and the ConfigMaps
    /// `coredns` and `coredns-custom` in `kube-system`, and may write Events there. The service account
    /// `kube-system/coredns` may, once the manifest is there; until then it is asked again and again.
    pub connect: Connect,
    /// Time and randomness.
    pub clock: Clock,
}
