//! YAML in and out; here the crate for it is named.
//!
//! Clients write the YAML of Go's older library: `yes` and `on` are true, `0644` is a mode in octal, and keys are text
//! whatever they look like. What comes out reads the same under old and new rules.

use serde::de::DeserializeSeed;
use serde_json::Value;
use serde_saphyr::options::{DuplicateKeyPolicy, NonFiniteFloatPolicy};

use crate::decode::Decoded;
use crate::decode::error::DecodeError;
use crate::decode::json::settle;
use crate::decode::seed::{Place, Seed, Walk, is_depth};
use crate::schema::SchemaRef;

/// Reads one YAML document; JSON is YAML too. Aliases are bounded by the reader's own limits.
pub fn yaml(bytes: &[u8], schema: Option<SchemaRef<'_>>) -> Result<Decoded, DecodeError> {
    let text = String::from_utf8_lossy(bytes);
    let options = serde_saphyr::options! {
        with_snippet: false,
        legacy_octal_numbers: true,
        duplicate_keys: DuplicateKeyPolicy::LastWins,
        non_finite_float_policy: NonFiniteFloatPolicy::Reject,
    };
    let mut walk = Walk::default();
    let place = Place::root(schema);
    let read = serde_saphyr::with_deserializer_from_str_with_options(&text, options, |deserializer| {
        Seed { walk: &mut walk, place }.deserialize(deserializer)
    });
    match read {
        Ok(value) => settle(value, walk),
        Err(error) => {
            let message = error.to_string();
            let deep = walk.too_deep || is_depth(&message);
            Err(if deep { DecodeError::TooDeep } else { DecodeError::Yaml(message) })
        }
    }
}

/// A value as one YAML document.
pub fn to_yaml(value: &Value) -> String {
    serde_saphyr::to_string(value).expect("a value has string keys and finite numbers")
}
