//! Whether a custom resource is what its schema says: kinds of values, limits, required fields, unique items.
//!
//! The words are those of upstream's validator, which people have in their scripts. Rules in CEL are for somebody else;
//! so is what built-in kinds demand beyond their structure.

mod format;
#[cfg(test)]
mod tests;
mod walk;

use serde_json::Value;

use crate::schema::SchemaRef;
use crate::status::field::{Error, Path};

use self::walk::Walk;

/// Errors that are reported for one object; a list of a million wrong items is one answer, not a million.
pub const ERRORS_MAX: usize = 200;

/// What is wrong with an object, in the order of its fields.
///
/// `old` is the object before the change, if there is one: what it did not change may stay as wrong as it was, so that
/// a schema can be tightened while objects exist.
pub fn validate(value: &Value, old: Option<&Value>, schema: SchemaRef<'_>) -> Vec<Error> {
    let mut walk = Walk::default();
    walk.object(value, old, schema);
    walk.errors
}

/// What is wrong with a value that is a part of something else, such as a default within a schema. Errors name places
/// below `path`.
pub fn validate_at(value: &Value, schema: SchemaRef<'_>, path: &Path) -> Vec<Error> {
    let mut walk = Walk::at_path(path);
    walk.part(value, schema);
    walk.errors
}
