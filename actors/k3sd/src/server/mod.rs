//! A server, from its configuration to the subtrees that it is made of.

mod addons;
mod apiserver;
mod host;
mod loops;
mod pki;
mod scheduler;
mod signer;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use k3sd_apiserver::{SetupError, StaticTokenError};
use k3sd_client::arguments::ArgumentError;
use k3sd_runtime::{Clock, TypeMismatch};
use thiserror::Error;

use crate::config::ServerConfig;

pub(crate) use self::addons::packaged;
pub(crate) use self::apiserver::apiserver;
pub(crate) use self::loops::{LoopsArgs, loops};
use self::pki::loopback;
pub(crate) use self::pki::{name_filter, pki_config};

/// Where the id of `--with-node-id` is kept; K3s's.
const NODE_ID_FILE: &str = "/etc/rancher/node/id";

/// Why a server can't be put together on this machine.
#[derive(Debug, Error)]
pub enum ServerError {
    /// Nobody said under which address the server is reached, and the machine doesn't say so either.
    #[error("no default route tells which address this server is reached under; write one with --advertise-address")]
    NoAddress,
    /// The cluster can't reach a server under this address.
    #[error("--advertise-address: {address} reaches nobody from another host; write an address of this machine")]
    AdvertisedLoopback {
        /// As configured.
        address: IpAddr,
    },
    /// The socket that clients of the API use.
    #[error("listen on {address}; is another server running there?")]
    Listen {
        /// As configured.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// `--kube-apiserver-arg`.
    #[error("--kube-apiserver-arg")]
    Argument(#[source] ArgumentError),
    /// `--kube-controller-manager-arg` or `--kube-cloud-controller-manager-arg`.
    #[error("an argument for controllers")]
    ControllerArgument(#[source] ArgumentError),
    /// `--kube-scheduler-arg`.
    #[error("--kube-scheduler-arg")]
    SchedulerArgument(#[source] ArgumentError),
    /// The file of `--kube-scheduler-arg config` can't be read, or makes no sense.
    #[error("use the scheduler's configuration in {path:?}: {why}")]
    SchedulerConfig {
        /// As configured.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The scheduler's configuration makes no sense as a whole.
    #[error("set up the scheduler")]
    Scheduler(#[source] k3sd_scheduler::SetupError),
    /// The file of `--kube-apiserver-arg token-auth-file` can't be read.
    #[error("read the tokens of users from {path:?}")]
    TokenFile {
        /// As configured.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// That file makes no sense.
    #[error("use the tokens of users in {path:?}")]
    Tokens {
        /// As configured.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: StaticTokenError,
    },
    /// The settings of the API server make no sense together.
    #[error("set up the API server")]
    ApiServer(#[source] SetupError),
    /// Another actor is where the certificate actor belongs.
    #[error("find the certificate actor")]
    Path(#[source] TypeMismatch),
    /// The id of `--with-node-id`.
    #[error("--with-node-id: keep the id in {path:?}")]
    NodeId {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// What deploys itself.
    #[error("set up the deployment of manifests")]
    Manifests(#[source] k3sd_manifests::ManifestsError),
    /// `--helm-controller-arg`.
    #[error("--helm-controller-arg")]
    HelmArgument(#[source] ArgumentError),
    /// How kubelets are reached.
    #[error("connect to nodes over TLS")]
    NodeTls(#[source] tokio_rustls::rustls::Error),
    /// A network of services is too small.
    #[error("--service-cidr: {network} has no address for the API server; write a larger network")]
    ServiceNetwork {
        /// The network.
        network: String,
    },
}

/// How this server is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    /// The name of its node, also when it runs none.
    pub(crate) node_name: String,
    /// Under which address the cluster reaches it.
    pub(crate) advertise_address: IpAddr,
    /// Addresses of the node.
    pub(crate) node_addresses: Vec<IpAddr>,
    /// The first address of each network of services: the API's inside the cluster.
    pub(crate) service_addresses: Vec<IpAddr>,
}

impl Identity {
    /// What was configured, and the machine's own where nothing was.
    pub(crate) fn new(config: &ServerConfig, clock: &Clock) -> Result<Self, ServerError> {
        let node = config.node.as_ref();
        let mut node_addresses: Vec<IpAddr> = node.map_or_else(Vec::new, |node| node.ips.clone());
        let external = node.and_then(|node| node.external_ips.first().copied());
        let own = node_addresses.first().copied().or_else(host::address);
        if node_addresses.is_empty() {
            node_addresses.extend(own);
        }
        node_addresses.extend(node.into_iter().flat_map(|node| node.external_ips.iter().copied()));
        let bound = config.listen.bind_address.filter(|bound| !bound.is_unspecified() && !bound.is_loopback());
        let advertise = config.listen.advertise_address.or(external).or(own).or(bound).ok_or(ServerError::NoAddress)?;
        // The Service `kubernetes` sends clients there, and its endpoints can't be loopback.
        if advertise.is_loopback() || advertise.is_unspecified() {
            return Err(ServerError::AdvertisedLoopback { address: advertise });
        }
        let service_addresses =
            config.network.service_cidrs.iter().map(|network| {
                network.nth(1).ok_or_else(|| ServerError::ServiceNetwork { network: network.to_string() })
            });
        let mut node_name = node.and_then(|node| node.name.clone()).unwrap_or_else(host::name);
        if node.is_some_and(|node| node.with_node_id) {
            let id = host::node_id(Path::new(NODE_ID_FILE), clock.rng("node/id").next_u64());
            let id = id.map_err(|source| ServerError::NodeId { path: NODE_ID_FILE.into(), source })?;
            node_name = format!("{node_name}-{id}");
        }
        Ok(Self {
            node_name,
            advertise_address: advertise,
            node_addresses,
            service_addresses: service_addresses.collect::<Result<_, _>>()?,
        })
    }
}
