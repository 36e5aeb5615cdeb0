//! Fills in what an object left out.
//!
//! Built-in kinds get upstream's defaults: rows of `data/defaults.txt` by type, and code for what depends on more than
//! one place. Custom resources get the defaults of their schema. Both run on every object that is decoded or patched,
//! and again after admission changed it, so doing it twice changes nothing.
//!
//! What is deliberately absent: whatever is decided once, when an object is created (names, addresses, phases of pods).

mod kinds;
mod plan;
mod pods;
mod structural;
mod table;
#[cfg(test)]
mod tests;

use serde_json::{Map, Value};

use crate::decode::normalize;
use crate::quantity::Quantity;
use crate::schema::{Kind, Presence, SchemaRef, builtin};

/// Fills in the defaults of an object that was decoded by the schema, and brings it into upstream's form.
pub fn apply(value: &mut Value, schema: SchemaRef<'_>) {
    normalize(value, schema);
    if std::ptr::eq(schema.arena(), builtin()) {
        walk(value, schema, false);
    } else {
        structural::apply(value, schema);
    }
}

/// The smallest part of a quantity in a list of resources is a thousandth.
const RESOURCE_SCALE: i32 = -3;

/// Defaults of a value and then of what is in it. `resources` is whether a map of quantities here is a list of
/// resources of core, whose amounts are rounded up.
fn walk(value: &mut Value, schema: SchemaRef<'_>, resources: bool) {
    let step = plan::step(schema);
    if !step.busy {
        return;
    }
    match (schema.kind(), value) {
        (Kind::Object, Value::Object(map)) => {
            table::apply(step.rows, map, schema);
            if let Some(hook) = step.hook {
                hook.before(map);
            }
            for (key, value) in map.iter_mut() {
                if let Some(property) = schema.property(key) {
                    walk(value, property.schema, step.of_core);
                }
            }
            if let Some(hook) = step.hook {
                hook.after(map);
            }
        }
        (Kind::Map, Value::Object(map)) => {
            let Some(values) = schema.values() else { return };
            let round = resources && values.kind() == Kind::Quantity;
            for value in map.values_mut() {
                if round { round_up(value) } else { walk(value, values, false) }
            }
        }
        (Kind::Array, Value::Array(items)) => {
            let Some(item) = schema.item() else { return };
            items.iter_mut().for_each(|value| walk(value, item, false));
        }
        _ => {}
    }
}

fn round_up(value: &mut Value) {
    if let Ok(quantity) = Quantity::from_json(value) {
        let (rounded, _) = quantity.round_up(RESOURCE_SCALE);
        *value = Value::String(rounded.to_string());
    }
}

/// Whether a default may take the place of what is there.
fn is_absent(value: Option<&Value>, presence: Presence) -> bool {
    match value {
        None | Some(Value::Null) => true,
        Some(_) if presence == Presence::Given => false,
        Some(Value::String(text)) => text.is_empty(),
        Some(Value::Number(number)) => number.as_i64() == Some(0),
        Some(Value::Bool(value)) => !value,
        Some(Value::Array(items)) => items.is_empty(),
        Some(Value::Object(_)) => false,
    }
}

/// Puts a value in if there is none.
fn fill(map: &mut Map<String, Value>, field: &str, value: impl Into<Value>) {
    if is_absent(map.get(field), Presence::Given) {
        map.insert(field.to_owned(), value.into());
    }
}

/// The object under a field, made if there is none.
fn part<'a>(map: &'a mut Map<String, Value>, field: &str) -> Option<&'a mut Map<String, Value>> {
    fill(map, field, Map::new());
    map.get_mut(field)?.as_object_mut()
}
