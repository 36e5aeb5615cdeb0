//! JSON in and out.

use std::borrow::Cow;

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
    // Nearly always it is UTF-8, and to see that is quicker than to look for what isn't.
    let text = std::str::from_utf8(bytes).map_or_else(|_| String::from_utf8_lossy(bytes), Cow::Borrowed);
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
    let mut bytes = Vec::with_capacity(size(value));
    write(value, &mut bytes);
    bytes
}

/// Writes what serde_json would, but text without escapes, which is nearly all of an object, in one go.
fn write(value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::String(text) => write_text(text, out),
        Value::Array(items) => {
            out.push(b'[');
            for (number, item) in items.iter().enumerate() {
                if number > 0 {
                    out.push(b',');
                }
                write(item, out);
            }
            out.push(b']');
        }
        Value::Object(map) => {
            out.push(b'{');
            for (number, (key, value)) in map.iter().enumerate() {
                if number > 0 {
                    out.push(b',');
                }
                write_text(key, out);
                out.push(b':');
                write(value, out);
            }
            out.push(b'}');
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {
            serde_json::to_writer(out, value).expect("memory takes all");
        }
    }
}

fn write_text(text: &str, out: &mut Vec<u8>) {
    // Without a way out of the loop the compiler looks at many bytes at once.
    let is_plain = text.bytes().fold(true, |plain, byte| plain & (byte >= b' ') & (byte != b'"') & (byte != b'\\'));
    if is_plain {
        out.push(b'"');
        out.extend_from_slice(text.as_bytes());
        out.push(b'"');
    } else {
        serde_json::to_writer(out, text).expect("memory takes all");
    }
}

/// The bytes that compact JSON of a value takes, as long as nothing has to be escaped.
fn size(value: &Value) -> usize {
    match value {
        Value::Null | Value::Bool(true) => 4,
        Value::Bool(false) => 5,
        Value::Number(number) => match (number.as_u64(), number.as_i64()) {
            (Some(whole), _) => digits(whole),
            (_, Some(whole)) => 1 + digits(whole.unsigned_abs()),
            _ => 20,
        },
        Value::String(text) => text.len() + 2,
        // Each item has a comma or the closing bracket behind it; each field its name, quotes and a colon before it.
        Value::Array(items) => 1 + items.iter().map(|item| size(item) + 1).sum::<usize>().max(1),
        Value::Object(map) => 1 + map.iter().map(|(key, value)| key.len() + size(value) + 4).sum::<usize>().max(1),
    }
}

fn digits(number: u64) -> usize {
    number.checked_ilog10().unwrap_or_default() as usize + 1
}
