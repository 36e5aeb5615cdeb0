//! `metadata` of objects as trees: the few fields that every verb reads and writes.

use serde_json::{Map, Value};

/// A text in `metadata`; empty if there is none.
pub(crate) fn text<'a>(object: &'a Value, name: &str) -> &'a str {
    get(object, name).and_then(Value::as_str).unwrap_or_default()
}

/// A field in `metadata`, unless it is null.
pub(crate) fn get<'a>(object: &'a Value, name: &str) -> Option<&'a Value> {
    object.get("metadata")?.get(name).filter(|value| !value.is_null())
}

/// A number in `metadata`.
pub(crate) fn number(object: &Value, name: &str) -> Option<i64> {
    get(object, name)?.as_i64()
}

/// `metadata` to write to, made if there is none. `None` if the object is none.
pub(crate) fn of(object: &mut Value) -> Option<&mut Map<String, Value>> {
    let metadata = object.as_object_mut()?.entry("metadata").or_insert_with(|| Value::Object(Map::new()));
    if !metadata.is_object() {
        *metadata = Value::Object(Map::new());
    }
    metadata.as_object_mut()
}

/// Sets a field in `metadata`.
pub(crate) fn set(object: &mut Value, name: &str, value: impl Into<Value>) {
    if let Some(metadata) = of(object) {
        metadata.insert(name.to_owned(), value.into());
    }
}

/// Removes a field from `metadata`.
pub(crate) fn remove(object: &mut Value, name: &str) {
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove(name);
    }
}

/// Gives a field in `metadata` the value that it has in another object, or none if it has none there.
pub(crate) fn copy(object: &mut Value, from: &Value, name: &str) {
    match get(from, name) {
        Some(value) => set(object, name, value.clone()),
        None => remove(object, name),
    }
}

/// Gives a field of the object the value that it has in another one, or none if it has none there.
pub(crate) fn copy_field(object: &mut Value, from: &Value, name: &str) {
    let Some(fields) = object.as_object_mut() else { return };
    match from.get(name) {
        Some(value) => fields.insert(name.to_owned(), value.clone()),
        None => fields.remove(name),
    };
}

/// Who must agree before the object goes.
pub(crate) fn finalizers(object: &Value) -> impl Iterator<Item = &str> {
    get(object, "finalizers").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str)
}

/// Sets `finalizers`; an empty list is none.
pub(crate) fn set_finalizers(object: &mut Value, finalizers: Vec<String>) {
    if finalizers.is_empty() {
        remove(object, "finalizers");
    } else {
        set(object, "finalizers", finalizers);
    }
}

/// Adds one to `generation`, if the kind counts.
pub(crate) fn next_generation(object: &mut Value) {
    if let Some(generation) = number(object, "generation").filter(|generation| *generation > 0) {
        set(object, "generation", generation.saturating_add(1));
    }
}

/// Drops what only the server may say about a new object.
pub(crate) fn wipe(object: &mut Value) {
    for name in ["creationTimestamp", "uid", "deletionTimestamp", "deletionGracePeriodSeconds", "selfLink"] {
        remove(object, name);
    }
}

/// The text of a field of the object itself, such as `kind`.
pub(crate) fn field<'a>(object: &'a Value, name: &str) -> &'a str {
    object.get(name).and_then(Value::as_str).unwrap_or_default()
}

/// Something deep in an object: `at(pod, &["spec", "nodeName"])`.
pub(crate) fn at<'a>(object: &'a Value, path: &[&str]) -> Option<&'a Value> {
    path.iter().try_fold(object, |value, step| value.get(step)).filter(|value| !value.is_null())
}

/// The object under a field, made if there is none.
pub(crate) fn part<'a>(object: &'a mut Value, name: &str) -> Option<&'a mut Map<String, Value>> {
    let part = object.as_object_mut()?.entry(name).or_insert_with(|| Value::Object(Map::new()));
    if part.is_null() {
        *part = Value::Object(Map::new());
    }
    part.as_object_mut()
}
