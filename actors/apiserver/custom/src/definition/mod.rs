//! Whether a CustomResourceDefinition may be stored, and what the server fills in.
//!
//! Metadata is checked by whoever checks everybody's; here is what is special to the kind. Values are in upstream's
//! form: decoded by the built-in schema of the kind, with its defaults.

mod prepare;

pub use self::prepare::{CLEANUP_FINALIZER, prepare_create, prepare_delete, prepare_update, update_status};

use k3sd_objects::status::field::Error;
use serde_json::Value;

/// What is wrong with a new definition.
pub fn validate_create(_definition: &Value) -> Vec<Error> {
    Vec::new()
}

/// What is wrong with a changed definition.
pub fn validate_update(_definition: &Value, _old: &Value) -> Vec<Error> {
    Vec::new()
}

/// What is wrong with a changed status.
pub fn validate_status(_definition: &Value, _old: &Value) -> Vec<Error> {
    Vec::new()
}
