//! Who makes a request: what a connection and its headers show, checked against keys and objects.

mod authenticator;
mod keys;
mod uses;

pub(crate) use self::authenticator::{Authenticator, CERTIFICATE, TokenMemory};
pub(crate) use self::keys::{Keys, KeysArgs};
pub use self::keys::{ServiceAccountKeys, TokenKeys};
pub(crate) use self::uses::{Uses, noting};
