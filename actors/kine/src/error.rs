//! What can go wrong here, apart from what the store says.

use thiserror::Error;

/// The store was not there in time: it is being opened, or could not be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the datastore is not open")]
pub struct StoreAbsent;

/// A datastore endpoint that can't be used. Never holds the text, which may have a password in it.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum EndpointError {
    /// It can't be understood.
    #[error(transparent)]
    Dsn(#[from] k3sd_datastore::DsnError),
    /// It names a store that is not built yet.
    #[error("{store} is not supported by this build")]
    Store {
        /// Which one.
        store: &'static str,
    },
}

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
