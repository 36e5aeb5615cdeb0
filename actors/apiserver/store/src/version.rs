//! Objects between the versions of their kind.

use k3sd_objects::convert::{ConvertError, convert};
use k3sd_objects::decode::{self, DecodeError};
use k3sd_objects::default;
use k3sd_objects::schema::SchemaRef;
use serde_json::Value;
use thiserror::Error;

/// Why an object can't be had in another version.
#[derive(Debug, Error)]
pub enum VersionError {
    /// A built-in kind that nothing leads to that version.
    #[error(transparent)]
    Convert(#[from] ConvertError),
    /// A custom resource that doesn't fit the types of that version.
    #[error(transparent)]
    Decode(#[from] DecodeError),
}

/// Brings an object, whatever its version, into `to`, of which `schema` is the schema. What one version leaves open, the
/// other may settle, so defaults are filled in. One that has the version already stays as it is.
///
/// # Errors
/// See [`VersionError`].
pub fn to_version(mut value: Value, to: &str, schema: SchemaRef<'_>, is_custom: bool) -> Result<Value, VersionError> {
    if value.get("apiVersion").and_then(Value::as_str) == Some(to) {
        return Ok(value);
    }
    if is_custom {
        // Without a webhook, versions of a custom resource differ in their name and in what their schemas know.
        if let Some(fields) = value.as_object_mut() {
            fields.insert("apiVersion".to_owned(), Value::from(to));
        }
        value = decode::check(value, schema)?.value;
    } else {
        value = convert(value, to)?;
    }
    default::apply(&mut value, schema);
    Ok(value)
}
