//! JSON in and out.

use serde::de::DeserializeSeed;
use serde_json::Value;

use crate::decode::Decoded;
use crate::decode::error::DecodeError;
use crate::decode::seed::{Place, Seed, Walk, is_depth};
use crate::schema::SchemaRef;

/// Deepest nesting of lists and objects. Far beyond any real object (a schema within a definition may have fifty
/// levels), and shallow enough for the stacks of the workers.
pub const DEPTH_MAX: usize = 127;

/// Reads JSON. Without a schema everything is known and kept.
///
/// Bytes that are no UTF-8 become the replacement character, as upstream has it.
pub fn json(bytes: &[u8], schema: Option<SchemaRef<'_>>) -> Result<Decoded, DecodeError> {
    let text = String::from_utf8_lossy(bytes);
    let mut walk = Walk::default();
    let mut deserializer = serde_json::Deserializer::from_str(&text);
    let place = Place::root(schema);
    let read = Seed { walk: &mut walk, place }.deserialize(&mut deserializer);
    let value = read.and_then(|value| deserializer.end().map(|()| value));
    finish(value, walk)
}

/// Puts a value through the same checks, for values that patches made.
pub fn check(value: Value, schema: SchemaRef<'_>) -> Result<Decoded, DecodeError> {
    let mut walk = Walk::default();
    let place = Place::root(Some(schema));
    let value = Seed { walk: &mut walk, place }.deserialize(value);
    finish(value, walk)
}

fn finish(value: Result<Value, serde_json::Error>, walk: Walk) -> Result<Decoded, DecodeError> {
    let value = value.map_err(|error| {
        let message = error.to_string();
        if walk.too_deep || is_depth(&message) {
            DecodeError::TooDeep
        } else if error.is_eof() {
            DecodeError::Json("unexpected end of JSON input".to_owned())
        } else {
            DecodeError::Json(message)
        }
    })?;
    settle(value, walk)
}

/// A document that could be read: fine, unless some value was of a wrong kind.
pub(super) fn settle(value: Value, walk: Walk) -> Result<Decoded, DecodeError> {
    match walk.type_error {
        Some(message) => Err(DecodeError::Type(message)),
        None => Ok(Decoded { value, strict: walk.strict }),
    }
}

/// Compact JSON.
pub fn to_bytes(value: &Value) -> Vec<u8> {
    serde_json::to_vec(value).expect("a value has string keys and finite numbers")
}
