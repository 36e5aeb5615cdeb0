//! CustomResourceDefinitions: from what a user declares to resources that are served like built-in ones.
//!
//! ```text
//! definition   whether a definition may be stored: names, versions, structural schemas, rules (pure)
//! controller   an actor: conditions, names in use, what is published in the catalog, deletion of instances
//! prune        unknown fields of instances
//! rules        what instances must fulfil beyond their schema, in CEL
//! scale        the scale subresource of instances
//! ```
//!
//! The registry calls [`prune`], [`validate`] and [`scale`] for instances, and [`definition`] for definitions; both take
//! the same path as any other object otherwise. What is deliberately absent: conversion by webhook. A definition that
//! asks for it is stored, and its condition says that only its storage version is served.

mod controller;
pub mod definition;
mod prune;
mod rules;
pub mod scale;
#[cfg(test)]
mod tests;
mod tree;

pub use self::prune::prune;
pub use self::tree::tree;

use k3sd_apiserver_store::Resource;
use k3sd_objects::status::field::{Error, ErrorKind, Path};
use serde_json::Value;

/// What a client reads in place of the rules' findings when an object is too wrong for rules.
const RULES_SKIPPED: &str = "some validation rules were not checked because the object was invalid; correct the existing \
                             errors to complete validation";

/// What is wrong with an instance: first by its schema, then, if it has the right shape, by its rules.
///
/// Both objects are in the version of `resource`, with defaults and without unknown fields. What `new` leaves as it was
/// in `old` may stay wrong, so that a definition can become stricter while instances exist. Built-in kinds have no
/// errors here.
pub fn validate(new: &Value, old: Option<&Value>, resource: &Resource) -> Vec<Error> {
    let Some(custom) = &resource.custom else { return Vec::new() };
    let mut errors = k3sd_objects::validate::validate(new, old, resource.schema.get());
    let Some(rules) = &custom.rules else { return errors };
    let blocking = [ErrorKind::Required, ErrorKind::TooLong, ErrorKind::TooMany, ErrorKind::TypeInvalid];
    if errors.iter().any(|error| blocking.contains(&error.kind)) {
        errors.push(Error::invalid(&Path::root(), Value::Null, RULES_SKIPPED));
    } else {
        errors.extend(rules.check(new, old));
    }
    errors
}
