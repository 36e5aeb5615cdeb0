//! Why the kernel, or a namespace, did not do as asked.

use std::io;
use std::path::PathBuf;

use rustix::io::Errno;
use thiserror::Error;

/// Why an operation had no effect.
#[derive(Debug, Error)]
pub enum NetlinkError {
    /// The kernel refused a request.
    #[error("the kernel refused to {what}")]
    Refused {
        /// What was asked, as "add link veth0".
        what: String,
        /// Its reason.
        #[source]
        errno: Errno,
    },
    /// The socket itself does not work.
    #[error("netlink socket: {what}")]
    Socket {
        /// What was being done.
        what: &'static str,
        /// Why it failed.
        #[source]
        errno: Errno,
    },
    /// The kernel's answer can't be understood.
    #[error("malformed netlink answer: {0}")]
    Malformed(&'static str),
    /// The request can't be written down: a name or a text is too long, a number out of range.
    #[error("cannot ask for that: {0}")]
    Invalid(String),
    /// A network namespace can't be opened or entered.
    #[error("network namespace {path}")]
    Namespace {
        /// The file that stands for it.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// A file below /proc/sys can't be read or written.
    #[error("sysctl {key}")]
    Sysctl {
        /// The key, with slashes.
        key: String,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// What is there keeps changing under our hands, or can't become what is wanted.
    #[error("{0} did not settle")]
    Unsettled(String),
}

impl NetlinkError {
    /// The kernel's reason, if it was the kernel who refused.
    #[must_use]
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::Refused { errno, .. } | Self::Socket { errno, .. } => Some(*errno),
            _ => None,
        }
    }

    /// Whether the kernel says that the thing is there already.
    #[must_use]
    pub fn is_exists(&self) -> bool {
        self.errno() == Some(Errno::EXIST)
    }

    /// Whether the kernel says that there is no such thing.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        matches!(self.errno(), Some(Errno::NOENT | Errno::NODEV | Errno::NXIO | Errno::SRCH | Errno::ADDRNOTAVAIL))
    }
}
