//! What can go wrong here, apart from what the store says.

use thiserror::Error;

/// The store was not there in time: it is being opened, or could not be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the datastore is not open")]
pub struct StoreAbsent;

/// An address that nobody can listen on.
#[derive(Debug, Error)]
pub enum ListenAddressError {
    /// A unix socket without a name.
    #[error("unix:// needs a path behind it")]
    NoPath,
    /// Neither a unix socket nor TCP.
    #[error("scheme {scheme:?} is not supported; use unix://, tcp://, or with TLS unixs:// or https://")]
    Scheme {
        /// As written.
        scheme: String,
    },
    /// Not an IP address and a port.
    #[error("{text:?} is not an IP address and a port")]
    Address {
        /// As written.
        text: String,
        /// What the parser said.
        #[source]
        source: std::net::AddrParseError,
    },
}
