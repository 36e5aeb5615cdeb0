//! The annotation that says what was applied last, from which follows what has left an object since.
//!
//! It is JSON, packed and in base64, with long strings cut; in old clusters it is the JSON itself.

use std::io::{Read as _, Write as _};

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use k3sd_objects::status::go;
use serde_json::{Map, Value};

/// The annotation.
pub(super) const ANNOTATION: &str = "objectset.rio.cattle.io/applied";

/// Strings are cut to so many bytes.
const TEXT_BYTES_MAX: usize = 64;
/// What tells items of lists apart isn't cut.
const LIST_KEYS: [&str; 10] =
    ["apiVersion", "containerPort", "devicePath", "ip", "kind", "mountPath", "name", "port", "topologyKey", "type"];
/// The longest annotation that is unpacked: somebody may have written another one than ours.
const JSON_BYTES_MAX: u64 = 16 << 20;

/// Base64 without padding; padding that somebody added is borne.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_encode_padding(false).with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// What is to be remembered of an object that is applied.
pub(super) fn remembered(object: &Value) -> Value {
    match object {
        Value::Object(fields) => cut_map(fields, false),
        other => other.clone(),
    }
}

fn cut_map(fields: &Map<String, Value>, in_list: bool) -> Value {
    let cut = fields.iter().map(|(name, value)| {
        let value = match value {
            Value::Object(fields) => cut_map(fields, false),
            Value::Array(items) => cut_list(items),
            Value::String(text) if !(in_list && LIST_KEYS.contains(&name.as_str())) => cut_text(text).into(),
            other => other.clone(),
        };
        (name.clone(), value)
    });
    Value::Object(cut.collect())
}

fn cut_list(items: &[Value]) -> Value {
    let cut = items.iter().map(|item| match item {
        Value::Object(fields) => cut_map(fields, true),
        Value::Array(items) => cut_list(items),
        other => other.clone(),
    });
    Value::Array(cut.collect())
}

/// The first bytes; each byte of a character that was cut in two becomes a sign that stands for it.
fn cut_text(text: &str) -> String {
    if text.len() <= TEXT_BYTES_MAX {
        return text.to_owned();
    }
    let whole = text.floor_char_boundary(TEXT_BYTES_MAX);
    let broken = "\u{fffd}".repeat(TEXT_BYTES_MAX - whole);
    format!("{}{broken}", &text[..whole])
}

/// The annotation for what is remembered.
pub(super) fn pack(remembered: &Value) -> String {
    let json = go::json(remembered);
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    let packed = encoder.write_all(json.as_bytes()).and_then(|()| encoder.finish());
    packed.map_or(json, |packed| BASE64.encode(packed))
}

/// What an annotation remembers; `None` for what can't be read, which is as good as nothing.
pub(super) fn unpack(annotation: &str) -> Option<Value> {
    if annotation.starts_with('{') {
        return serde_json::from_str(annotation).ok();
    }
    let packed = BASE64.decode(annotation).ok()?;
    let mut json = Vec::new();
    let read = GzDecoder::new(packed.as_slice()).take(JSON_BYTES_MAX + 1).read_to_end(&mut json).ok()?;
    (read as u64 <= JSON_BYTES_MAX).then(|| serde_json::from_slice(&json).ok())?
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn strings_are_cut_but_not_what_tells_items_apart() {
        let long = "x".repeat(100);
        let object = json!({"data": {"a": long, "name": long}, "list": [{"name": long, "image": long}, long, [long]]});
        let short = &long[..64];
        assert_eq!(
            remembered(&object),
            json!({"data": {"a": short, "name": short}, "list": [{"name": long, "image": short}, long, [long]]})
        );
        assert_eq!(cut_text(&"ä".repeat(32)), "ä".repeat(32));
        assert_eq!(cut_text(&format!("{}ä", "x".repeat(63))), format!("{}\u{fffd}", "x".repeat(63)));
        assert_eq!(cut_text(&format!("{}€", "x".repeat(62))), format!("{}\u{fffd}\u{fffd}", "x".repeat(62)));
    }

    #[test]
    fn annotations_are_read_in_each_of_their_forms() {
        let value = json!({"a": "<b>", "c": [1, null]});
        let packed = pack(&value);
        assert!(!packed.contains('=') && packed.starts_with("H4sI"));
        assert_eq!(unpack(&packed), Some(value.clone()));
        assert_eq!(unpack(r#"{"a":"\u003cb\u003e","c":[1,null]}"#), Some(value));
        assert_eq!(unpack(GO), Some(json!({"apiVersion": "v1", "kind": "ConfigMap"})));
        for broken in ["", "{", "H4sI", "!!", "aGVsbG8"] {
            assert_eq!(unpack(broken), None, "{broken}");
        }
    }

    #[test]
    fn a_bomb_is_not_unpacked() {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        let piece = vec![b' '; 1 << 20];
        for _ in 0..=(JSON_BYTES_MAX >> 20) {
            encoder.write_all(&piece).unwrap();
        }
        assert_eq!(unpack(&BASE64.encode(encoder.finish().unwrap())), None);
    }

    /// Ends with an empty block, as Go's library writes it.
    const GO: &str = "H4sIAAAAAAAA/6pWSizIDEstKs7Mz1OyUiozVNJRys7MSwGynfPz0jLTfRMLlGoBAAAA//8BAAD//0NfPK8mAAAA";
}
