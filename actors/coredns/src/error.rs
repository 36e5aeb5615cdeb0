//! What keeps the DNS from starting.

use std::net::SocketAddr;

use thiserror::Error;

/// Why there is no DNS.
#[derive(Debug, Error)]
pub enum DnsError {
    /// Somebody else is on the port, or it isn't allowed.
    #[error("listen on {address} by {protocol}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// `UDP` or `TCP`.
        protocol: &'static str,
        /// What the kernel says.
        #[source]
        source: std::io::Error,
    },
    /// The domain of the cluster is no name.
    #[error("{0:?} is no domain of a cluster")]
    Domain(String),
}
