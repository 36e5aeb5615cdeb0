//! Rules in CEL: `x-kubernetes-validations`.

pub(crate) mod fields;

use std::sync::Arc;

use k3sd_apiserver_store::CustomRules;
use k3sd_objects::schema::Arena;
use k3sd_objects::status::field::{Error, Path};
use serde_json::Value;

pub(crate) fn compile(_arena: &Arc<Arena>) -> Option<Arc<dyn CustomRules>> {
    None
}

pub(crate) fn validate(_arena: &Arena, _source: &Value, _path: &Path) -> Vec<Error> {
    Vec::new()
}
