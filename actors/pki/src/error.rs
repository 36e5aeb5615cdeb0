//! What can go wrong with keys, certificates and the files that hold them.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

/// Why the files could not be brought in order.
#[derive(Debug, Error)]
pub enum PkiError {
    /// A file or directory could not be read or changed.
    #[error("cannot {action} {}", path.display())]
    File {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// An authority that an operator put there is unusable. It is never replaced: an operator has to.
    #[error("the certificate authority in {} cannot be used", path.display())]
    Authority {
        /// Its certificate.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: MaterialError,
    },
    /// The keys of service accounts are unusable. They are never replaced: tokens would stop working.
    #[error("the keys in {} cannot be used", path.display())]
    Keys {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: MaterialError,
    },
    /// A file that was there a moment ago, or was just written, is not as it has to be.
    #[error("{} cannot be used", path.display())]
    Material {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: MaterialError,
    },
    /// A token of the configuration is none.
    #[error("the {what} cannot be used")]
    Token {
        /// Which one.
        what: &'static str,
        /// What is wrong with it.
        #[source]
        source: crate::token::TokenError,
    },
    /// The group of `--write-kubeconfig-group` does not exist.
    #[error("there is no group {name:?}")]
    Group {
        /// As configured.
        name: String,
    },
}

/// Why some bytes are no key or no certificate.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum MaterialError {
    /// The PEM holds nothing of the kind.
    #[error("no {what} is in it")]
    Absent {
        /// What should be.
        what: &'static str,
    },
    /// The PEM is damaged.
    #[error("the PEM is damaged: {0}")]
    Pem(String),
    /// The certificate is no X.509 certificate in DER.
    #[error("not a certificate: {0}")]
    Certificate(String),
    /// The bytes are no request for a certificate, or it asks for what there isn't.
    #[error("not a usable request for a certificate: {0}")]
    Request(String),
    /// The key is of a kind, or a size, that can't be used.
    #[error("not a usable key: {0}")]
    Key(String),
    /// Key and certificate have nothing to do with each other.
    #[error("the key is not that of the certificate")]
    Mismatch,
    /// A signature of another certificate was not made with the key it should have been made with.
    #[error("the signature is wrong, or of an unknown kind")]
    Signature,
    /// The operating system gave no random numbers.
    #[error("no random numbers could be had")]
    Random,
}
