//! Why the node's network is not as it should be.

use std::io;
use std::path::PathBuf;

use k3sd_netlink::NetlinkError;
use thiserror::Error;

/// What went wrong.
#[derive(Debug, Error)]
pub enum NetworkError {
    /// A file.
    #[error("{what} {path}")]
    File {
        /// What was being done, as "write".
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// The kernel refused. Without a feature that is missing there is no network for pods.
    #[error("{what}")]
    Kernel {
        /// What was being done.
        what: &'static str,
        /// Why it failed.
        #[source]
        source: NetlinkError,
    },
    /// Addresses can't be freed, in the words of the plugin that keeps them.
    #[error("{0}")]
    Addresses(String),
}
