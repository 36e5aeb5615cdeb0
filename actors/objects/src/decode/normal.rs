//! The form in which upstream keeps a built-in object, which is what its structures write back.
//!
//! Zero values are dropped where the structure has no room to tell them from nothing, and parts that always exist are
//! written, if need be empty. Clients see both: `hostNetwork: false` is gone, `resources: {}` has come.

use serde_json::{Map, Value};

use crate::schema::{Kind, Presence, Property, SchemaRef, builtin};

/// Brings an object of a built-in kind into upstream's form. Values of custom resources stay as they are.
///
/// Twice is the same as once.
pub fn normalize(value: &mut Value, schema: SchemaRef<'_>) {
    if !std::ptr::eq(schema.arena(), builtin()) {
        // Of a custom resource only the metadata is a structure of Go.
        let metadata = schema.property("metadata").filter(|_| schema.is_embedded());
        if let (Some(property), Some(metadata)) = (metadata, value.get_mut("metadata")) {
            normalize(metadata, property.schema);
        }
        return;
    }
    match (schema.kind(), value) {
        (Kind::Object, Value::Object(map)) => normalize_object(map, schema),
        (Kind::Map, Value::Object(map)) => {
            if let Some(schema) = schema.values() {
                map.values_mut().for_each(|value| normalize(value, schema));
            }
        }
        (Kind::Array, Value::Array(items)) => {
            if let Some(schema) = schema.item() {
                items.iter_mut().for_each(|item| normalize(item, schema));
            }
        }
        (Kind::SchemaOrArray | Kind::SchemaOrBool | Kind::SchemaOrStrings, value) => {
            let Some(schema) = schema.nested_schema() else { return };
            match value {
                Value::Object(_) => normalize(value, schema),
                Value::Array(items) => items.iter_mut().for_each(|item| normalize(item, schema)),
                _ => {}
            }
        }
        _ => {}
    }
}

fn normalize_object(map: &mut Map<String, Value>, schema: SchemaRef<'_>) {
    let stays = |value: &Value, property: &Property<'_>| match property.presence {
        Presence::Given => !value.is_null(),
        Presence::NonZero => !is_zero(value, property.schema.kind()),
        Presence::Always => true,
    };
    let mut all_stay = true;
    for (key, value) in map.iter_mut() {
        let Some(property) = schema.property(key) else { continue };
        normalize(value, property.schema);
        all_stay &= stays(value, &property);
    }
    // Objects are brought into form several times on their way, and nearly always are in it already.
    if !all_stay {
        map.retain(|key, value| schema.property(key).is_none_or(|property| stays(value, &property)));
    }
    for property in schema.always() {
        if !map.contains_key(property.name) {
            map.insert(property.name.to_owned(), zero(property.schema));
        }
    }
}

/// Whether Go would leave the value out.
fn is_zero(value: &Value, kind: Kind) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(value) => !value,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.is_empty() && matches!(kind, Kind::Map | Kind::Fields),
    }
}

/// What Go writes for a part that nobody set.
fn zero(schema: SchemaRef<'_>) -> Value {
    match schema.kind() {
        Kind::String => Value::from(""),
        Kind::Int32 | Kind::Int64 | Kind::Number | Kind::IntOrString => Value::from(0),
        Kind::Bool => Value::from(false),
        Kind::Quantity => Value::from("0"),
        Kind::Object => {
            let mut value = Value::Object(Map::new());
            normalize(&mut value, schema);
            value
        }
        _ => Value::Null,
    }
}
