//! Small readers and writers over objects.
//!
//! Types were checked when the object was decoded. What is absent reads as Go's zero value, and so does, instead of a
//! panic, whatever has another type after all; writing into such a thing does nothing.

use std::collections::BTreeMap;

use crate::object::Object;
use crate::quantity::Quantity;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

/// Amounts by the name of the resource, in the order of names.
pub type Amounts = BTreeMap<String, Quantity>;

/// What stands where nothing stands.
static ABSENT: Value = Value::Null;

/// A field, null if it isn't set.
pub fn field<'a>(value: &'a Value, name: &str) -> &'a Value {
    value.get(name).unwrap_or(&ABSENT)
}

/// A field of a field of it, and so on.
pub fn at<'a>(value: &'a Value, path: &[&str]) -> &'a Value {
    path.iter().fold(value, |value, name| field(value, name))
}

/// A string, empty if absent.
pub fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    field(value, name).as_str().unwrap_or_default()
}

/// Whether a field is set.
pub fn has(value: &Value, name: &str) -> bool {
    !field(value, name).is_null()
}

/// The items of a list.
pub fn items<'a>(value: &'a Value, name: &str) -> &'a [Value] {
    field(value, name).as_array().map(Vec::as_slice).unwrap_or_default()
}

/// The strings of a list.
pub fn texts<'a>(value: &'a Value, name: &str) -> impl Iterator<Item = &'a str> + use<'a> {
    items(value, name).iter().filter_map(Value::as_str)
}

/// The entries of a map.
pub fn entries<'a>(value: &'a Value, name: &str) -> impl Iterator<Item = (&'a str, &'a Value)> + use<'a> {
    field(value, name).as_object().into_iter().flatten().map(|(key, value)| (key.as_str(), value))
}

/// Whether a map has no entry, or isn't there.
pub fn is_empty(value: &Value) -> bool {
    match value {
        Value::Object(map) => map.is_empty(),
        Value::Array(list) => list.is_empty(),
        other => other.is_null(),
    }
}

/// Whether two maps or lists are the same, absent ones being empty.
pub fn same(one: &Value, other: &Value) -> bool {
    one == other || (is_empty(one) && is_empty(other))
}

/// The amounts of a map; those that are no quantities are left out.
pub fn amounts(value: &Value, name: &str) -> Amounts {
    amounts_of(field(value, name))
}

/// The amounts in a map itself.
pub fn amounts_of(map: &Value) -> Amounts {
    let read = |(key, value): (&String, &Value)| Some((key.clone(), Quantity::from_json(value).ok()?));
    map.as_object().into_iter().flatten().filter_map(read).collect()
}

/// One amount of a map.
pub fn amount(value: &Value, name: &str, resource: &str) -> Option<Quantity> {
    Quantity::from_json(field(field(value, name), resource)).ok().filter(|_| has(field(value, name), resource))
}

/// The annotation of an object, if it is set.
pub fn annotation<'a>(object: &'a Value, key: &str) -> Option<&'a str> {
    at(object, &["metadata", "annotations", key]).as_str()
}

/// A map to write to; it is made if it isn't there.
pub fn map_mut<'a>(value: &'a mut Value, name: &str) -> Option<&'a mut Map<String, Value>> {
    let slot = value.as_object_mut()?.entry(name).or_insert(Value::Null);
    if slot.is_null() {
        *slot = Value::Object(Map::new());
    }
    slot.as_object_mut()
}

/// A list to write to; it is made if it isn't there.
pub fn list_mut<'a>(value: &'a mut Value, name: &str) -> Option<&'a mut Vec<Value>> {
    let slot = value.as_object_mut()?.entry(name).or_insert(Value::Null);
    if slot.is_null() {
        *slot = Value::Array(Vec::new());
    }
    slot.as_array_mut()
}

/// The items of a list that is there, to write to.
pub fn items_mut<'a>(value: &'a mut Value, name: &str) -> &'a mut [Value] {
    value.get_mut(name).and_then(Value::as_array_mut).map(Vec::as_mut_slice).unwrap_or_default()
}

/// Sets a field.
pub fn set(value: &mut Value, name: &str, to: impl Into<Value>) {
    if let Some(fields) = value.as_object_mut() {
        fields.insert(name.to_owned(), to.into());
    }
}

/// The fields of a stored object that a structure names, without a tree of the rest. What a foreign store holds may be
/// anything; it reads as the default.
pub fn parsed<T: DeserializeOwned + Default>(object: &Object) -> T {
    serde_json::from_slice(object.bytes()).unwrap_or_default()
}
