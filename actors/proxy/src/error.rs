//! Why the proxy can't be put together, or the kernel not be brought in order.

use std::net::SocketAddr;

use k3sd_client::arguments::ArgumentError;
use k3sd_netlink::NetlinkError;
use thiserror::Error;

/// What goes wrong.
#[derive(Debug, Error)]
pub enum ProxyError {
    /// An argument means nothing.
    #[error(transparent)]
    Argument(#[from] ArgumentError),
    /// A network of the cluster is none.
    #[error("{0}/{1} is no network of pods")]
    ClusterCidr(std::net::IpAddr, u8),
    /// A port is taken.
    #[error("listen on {address}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The kernel refused.
    #[error("{what}")]
    Kernel {
        /// What was asked of it.
        what: &'static str,
        /// Why not.
        #[source]
        source: NetlinkError,
    },
    /// The kernel refused the rules of an IP family.
    #[error("write the services' rules of {family}")]
    Rules {
        /// The family, as the API calls it.
        family: &'static str,
        /// Why not.
        #[source]
        source: NetlinkError,
    },
}

impl From<NetlinkError> for ProxyError {
    fn from(source: NetlinkError) -> Self {
        Self::Kernel { what: "enter the node's network", source }
    }
}
