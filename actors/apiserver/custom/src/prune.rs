//! Fields that a schema doesn't name.

use k3sd_apiserver_store::Resource;
use k3sd_objects::schema::{Kind, SchemaRef};
use serde_json::Value;

/// Dropped fields that are named in full; a body of nothing else must not fill the memory twice.
const DROPPED_MAX: usize = 100;

/// Removes the fields of an instance that its schema neither names nor preserves. Answers with their paths, such as
/// `spec.parts[0].colour`, at most a hundred of them. Doing it twice changes nothing. Decoding already does this; it is
/// for what comes from elsewhere: patches, webhooks, a store that was written under another schema.
pub fn prune(value: &mut Value, resource: &Resource) -> Vec<String> {
    let mut dropped = Vec::new();
    prune_by(value, resource.schema.get(), &mut String::new(), &mut dropped);
    dropped
}

/// The same along any schema. `path` is where the value stands.
pub(crate) fn prune_by(value: &mut Value, schema: SchemaRef<'_>, path: &mut String, dropped: &mut Vec<String>) {
    let length = path.len();
    match value {
        Value::Object(map) if schema.kind() == Kind::Object => {
            map.retain(|key, _| {
                let known = schema.preserves_unknown() || schema.property(key).is_some();
                if !known && dropped.len() < DROPPED_MAX {
                    dropped.push(joined(path, key));
                }
                known
            });
            for (key, value) in map {
                let Some(property) = schema.property(key) else { continue };
                push(path, key);
                prune_by(value, property.schema, path, dropped);
                path.truncate(length);
            }
        }
        Value::Object(map) => {
            let Some(values) = schema.values() else { return };
            for (key, value) in map {
                push(path, key);
                prune_by(value, values, path, dropped);
                path.truncate(length);
            }
        }
        Value::Array(items) => {
            let Some(item) = schema.item() else { return };
            for (index, value) in items.iter_mut().enumerate() {
                path.push_str(&format!("[{index}]"));
                prune_by(value, item, path, dropped);
                path.truncate(length);
            }
        }
        _ => {}
    }
}

fn push(path: &mut String, key: &str) {
    if !path.is_empty() {
        path.push('.');
    }
    path.push_str(key);
}

fn joined(path: &str, key: &str) -> String {
    let mut whole = path.to_owned();
    push(&mut whole, key);
    whole
}
