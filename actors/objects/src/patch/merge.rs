//! JSON merge patch (RFC 7386).
//!
//! One difference is upstream's: nulls vanish from objects inside lists too, where the RFC would keep them.

use serde_json::{Map, Value};

use super::{PatchError, type_name};

/// Merges a patch into an object.
///
/// # Errors
///
/// Fails if the patch is no object: what it would leave is none of ours.
pub fn apply_merge_patch(object: Value, patch: Value) -> Result<Value, PatchError> {
    let Value::Object(patch) = patch else {
        let name = type_name(&patch);
        return Err(PatchError::Malformed(format!(
            "error decoding patch: json: cannot unmarshal {name} into Go value of type map[string]interface {{}}"
        )));
    };
    Ok(merge_object(object, patch))
}

fn merge_object(target: Value, patch: Map<String, Value>) -> Value {
    let mut target = match target {
        Value::Object(fields) => fields,
        _ => Map::new(),
    };
    for (name, change) in patch {
        let merged = match change {
            Value::Null => {
                target.remove(&name);
                continue;
            }
            Value::Object(fields) => merge_object(target.remove(&name).unwrap_or_default(), fields),
            mut other => {
                drop_nulls(&mut other);
                other
            }
        };
        target.insert(name, merged);
    }
    Value::Object(target)
}

/// Removes fields that are null, at any depth. A null in a list is an item like others.
pub(super) fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, value| !value.is_null());
            fields.values_mut().for_each(drop_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}
