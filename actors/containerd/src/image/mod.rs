//! Images: made from files, read from archives, put into the engine.
//!
//! [`ImageBuilder`] makes images for which no registry is needed: the sandbox's own ([`pause`]), and those of tests
//! ([`busybox`]). The same importer takes them and what users put into the images directory.

pub(crate) mod archive;
mod builder;
pub(crate) mod engine;
pub(crate) mod import;
pub(crate) mod index;
mod pause;
pub(crate) mod reference;
pub(crate) mod unpack;

use ring::digest;

pub use self::builder::{BuiltImage, ImageBuilder, busybox};
pub(crate) use self::pause::names as pause_names;
pub use self::pause::{PAUSE_NAMES, pause};

/// Bytes in hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The digest of a blob, as images name it.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    format!("sha256:{}", hex(digest::digest(&digest::SHA256, bytes).as_ref()))
}
