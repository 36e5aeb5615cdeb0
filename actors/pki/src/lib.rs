//! Certificate authorities, leaf certificates, tokens and kubeconfigs of a server, and their renewal.
//!
//! ```text
//! pki                 rest_for_one
//! ├─ renewal          brings the files in order, publishes them, and does so again before a certificate ends
//! └─ serving          the certificate of the supervisor's listener, which learns the names that clients use
//! ```
//!
//! What there is, is data (`table`); what has to be made is decided without IO (`plan`) and carried out one file after the
//! other (`keeper`), so that a start which is cut short anywhere is finished by the next. Those in this process get key and
//! certificate from a snapshot ([`Certificates`]) that is replaced as a whole; rustls asks for it at each handshake, so a
//! renewal closes no connection and restarts nobody. Those in other processes read the files.
//!
//! What is deliberately absent: a way to replace an authority. One whose certificate and key are there stays, whatever is
//! wrong with them, until an operator exchanges it.

mod config;
mod credentials;
mod error;
mod files;
mod keeper;
mod key;
mod kubeconfig;
mod passwd;
mod plan;
mod publish;
mod renewal;
mod rsa;
mod serving;
mod table;
pub mod token;
mod tree;
mod x509;

pub use crate::config::{AdminKubeconfig, NodeNames, PkiConfig, ServerNames, TokenConfig};
pub use crate::error::{MaterialError, PkiError};
pub use crate::key::PrivateKey;
pub use crate::publish::{AuthorityPair, Certificates, KeyPair, Snapshot};
pub use crate::renewal::{RenewalHandle, RenewalStatus};
pub use crate::serving::{NameFilter, ServingHandle};
pub use crate::table::{Authority, Leaf};
pub use crate::tree::{PkiTree, ServingCertificate, renewal, tree};
pub use crate::x509::{Certificate, CertificateRequest, San, Terms, Usage, requested_key};
