//! What can go wrong before the first request is answered.

use thiserror::Error;
use tokio_rustls::rustls;

/// Why a handshake can't be prepared.
#[derive(Debug, Error)]
pub enum TlsError {
    /// `--kube-apiserver-arg tls-min-version`.
    #[error("TLS version {0:?} is not supported; use VersionTLS12 or VersionTLS13")]
    Version(String),
    /// `--kube-apiserver-arg tls-cipher-suites`.
    #[error("cipher suite {0:?} is not supported")]
    Suite(String),
    /// Versions and suites leave nothing that both sides could speak.
    #[error("set up TLS")]
    Setup(#[source] rustls::Error),
}

/// Why the keys of service accounts can't be used.
#[derive(Debug, Error)]
pub enum KeysError {
    /// There is none.
    #[error("there is no key to sign the tokens of service accounts with")]
    None,
    /// One of them is unreadable.
    #[error("read a key of service accounts")]
    Key(#[source] k3sd_apiserver_access::authn::service_account::KeyError),
}

/// Why a server can't be put together.
#[derive(Debug, Error)]
pub enum SetupError {
    /// See [`TlsError`].
    #[error("set up TLS")]
    Tls(#[from] TlsError),
    /// A network of services.
    #[error("use {cidr:?} for services")]
    ServiceRange {
        /// As configured.
        cidr: String,
        /// What is wrong with it.
        #[source]
        source: k3sd_apiserver_registry::special::RangeError,
    },
    /// The ports that Services may open on nodes.
    #[error("use the range of node ports")]
    NodePorts(#[source] k3sd_apiserver_registry::special::PortRangeError),
    /// Names of admission plugins.
    #[error("choose admission plugins")]
    Admission(#[source] k3sd_apiserver_admission::ConfigError),
}
