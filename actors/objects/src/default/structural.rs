//! The defaults of a custom resource's schema.
//!
//! A null that the schema does not allow is the same as absence: it goes, and a default may take its place.

use serde_json::{Map, Value};

use crate::schema::{Kind, SchemaRef, builtin};

/// Fills in defaults, from the outside in: what a default brings gets the defaults of its own fields.
pub(super) fn apply(value: &mut Value, schema: SchemaRef<'_>) {
    // The metadata within is that of every object, and has no defaults.
    if std::ptr::eq(schema.arena(), builtin()) {
        return;
    }
    match (schema.kind(), value) {
        (Kind::Object, Value::Object(map)) => apply_to_fields(map, schema),
        (Kind::Map, Value::Object(map)) => {
            let Some(values) = schema.values() else { return };
            if let Some(default) = values.default().filter(|_| !values.is_nullable()) {
                map.values_mut().filter(|value| value.is_null()).for_each(|value| *value = default.clone());
            }
            map.retain(|_, value| !value.is_null() || values.is_nullable());
            map.values_mut().for_each(|value| apply(value, values));
        }
        (Kind::Array, Value::Array(items)) => {
            let Some(item) = schema.item() else { return };
            for value in items {
                if let Some(default) = item.default().filter(|_| value.is_null() && !item.is_nullable()) {
                    *value = default.clone();
                }
                apply(value, item);
            }
        }
        _ => {}
    }
}

fn apply_to_fields(map: &mut Map<String, Value>, schema: SchemaRef<'_>) {
    for property in schema.properties() {
        if map.get(property.name).is_some_and(Value::is_null) && !property.schema.is_nullable() {
            map.remove(property.name);
        }
        if let Some(default) = property.schema.default() {
            map.entry(property.name).or_insert_with(|| default.clone());
        }
        if let Some(value) = map.get_mut(property.name) {
            apply(value, property.schema);
        }
    }
}
