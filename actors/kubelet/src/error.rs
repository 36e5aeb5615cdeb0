//! Why a node can't be put together.

use std::io;
use std::path::PathBuf;

use k3sd_kubelet_cgroups::CgroupError;
use k3sd_kubelet_node::NodeError;
use k3sd_kubelet_node::config::{ConfigError, KubeletArgumentError};
use k3sd_kubelet_node::identity::AddressError;
use k3sd_kubelet_node::prepare::PrepareError;
use k3sd_kubelet_pods::credentials::config::CredentialError;
use thiserror::Error;

/// Why a node can't be put together on this machine.
#[derive(Debug, Error)]
pub enum KubeletError {
    /// A directory or file of the node.
    #[error("{action} {path:?}")]
    File {
        /// What was to be done.
        action: &'static str,
        /// With what.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// `--node-label`.
    #[error("--node-label {text:?}: {problem}")]
    Label {
        /// As given.
        text: String,
        /// What is wrong with it.
        problem: String,
    },
    /// `--node-taint`.
    #[error("--node-taint {text:?}: write key=value:effect, with NoSchedule, PreferNoSchedule or NoExecute")]
    Taint {
        /// As given.
        text: String,
    },
    /// `--node-ip`.
    #[error("--node-ip")]
    Address(#[source] AddressError),
    /// A file of the kubelet's configuration.
    #[error("the kubelet's configuration")]
    Config(#[source] ConfigError),
    /// `--kubelet-arg`.
    #[error("--kubelet-arg")]
    Argument(#[source] KubeletArgumentError),
    /// Programs that know credentials for registries.
    #[error("use the credential providers for images")]
    Credentials(#[source] CredentialError),
    /// The kernel's settings.
    #[error("prepare this machine for pods")]
    Prepare(#[source] PrepareError),
    /// The cgroups of this machine.
    #[error("use the cgroups of this machine")]
    Cgroups(#[source] CgroupError),
    /// The node's settings make no sense together.
    #[error("set up the node")]
    Node(#[source] NodeError),
    /// The sockets of the node's server.
    #[error("listen on {address}; is another kubelet running here?")]
    Listen {
        /// As configured.
        address: std::net::SocketAddr,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}
