//! `application/vnd.kubernetes.protobuf`: objects of built-in kinds as protobuf, both ways, by schema.
//!
//! ```text
//! 6b 38 73 00   Unknown { typeMeta { apiVersion, kind }, raw, contentEncoding, contentType }
//!                                                        └─▶ the message of the kind, without apiVersion and kind
//! ```
//!
//! What comes in is brought into the form that upstream's structures would write as JSON: on the wire they send all
//! fields that are no pointers, empty or not.

mod decode;
mod encode;
#[cfg(test)]
mod tests;
mod wire;

pub use self::decode::{Envelope, decode, decode_message};
pub use self::encode::{encode, encode_message, envelope, watch_event};
pub use self::wire::{put_bytes, put_double, put_message, put_number, put_varint};

/// What every body begins with.
pub const MAGIC: &[u8] = b"k8s\0";

/// Fields of `Unknown`, `TypeMeta`, and of the messages that stand for special kinds of values.
mod tag {
    pub(super) const UNKNOWN_TYPE: u32 = 1;
    pub(super) const UNKNOWN_RAW: u32 = 2;
    pub(super) const UNKNOWN_ENCODING: u32 = 3;
    pub(super) const UNKNOWN_CONTENT_TYPE: u32 = 4;
    pub(super) const TYPE_API_VERSION: u32 = 1;
    pub(super) const TYPE_KIND: u32 = 2;
    /// Keys and values of maps.
    pub(super) const KEY: u32 = 1;
    pub(super) const VALUE: u32 = 2;
    /// Times.
    pub(super) const SECONDS: u32 = 1;
    pub(super) const NANOS: u32 = 2;
    /// Quantities, lists in a message of their own, raw values: all have one field.
    pub(super) const ONLY: u32 = 1;
    /// Numbers or text.
    pub(super) const FORM: u32 = 1;
    pub(super) const NUMBER: u32 = 2;
    pub(super) const TEXT: u32 = 3;
    /// A schema, or one of the others.
    pub(super) const SCHEMA: u32 = 1;
    pub(super) const SEVERAL: u32 = 2;
    /// The one where the order is the other way round.
    pub(super) const ALLOWS: u32 = 1;
    pub(super) const ALLOWED_SCHEMA: u32 = 2;
    /// Events of a watch.
    pub(super) const EVENT_TYPE: u32 = 1;
    pub(super) const EVENT_OBJECT: u32 = 2;
}
