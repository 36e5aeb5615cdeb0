//! From the bytes of a request to a value that fits its schema.
//!
//! ```text
//! JSON ─┐
//! YAML ─┼─▶ typed ─▶ value, fields that nobody knows, fields that came twice      ─▶ normal ─▶ as upstream keeps it
//! value ┘            (or the first value of a wrong kind)
//! ```
//!
//! For a built-in kind a value of the wrong kind is an error at once, as it is for upstream's structures. A custom
//! resource keeps it, and [`validate`](crate::validate) says what is wrong; only its metadata is that of every object.

pub(crate) mod base64;
mod error;
mod json;
mod normal;
mod seed;
pub(crate) mod time;
mod yaml;

pub use self::error::{DecodeError, StrictError, strict_message};
pub use self::json::{DEPTH_MAX, check, json, to_bytes};
pub use self::normal::normalize;
pub use self::yaml::{to_yaml, yaml};

use serde_json::Value;

/// What a request's body holds.
#[derive(Debug, Clone, PartialEq)]
pub struct Decoded {
    /// The value, without unknown fields. Of a field that came twice the last one counts.
    pub value: Value,
    /// What strict validation refuses and others warn of, in the order of the document.
    pub strict: Vec<StrictError>,
}

#[cfg(test)]
mod tests;
