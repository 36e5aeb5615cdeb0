//! Types of the places in a schema, with how great values there can be.

use std::rc::Rc;

use k3sd_objects::schema::{Kind, SchemaRef};

use crate::names::unescape;
use crate::types::{Type, UNKNOWN};

/// The greatest request: nothing in an object is greater.
pub(crate) const REQUEST_BYTES_MAX: u64 = 3 << 20;

/// Bytes of a character at most.
const CHARACTER_BYTES: u64 = 4;

/// The type of a place; `None` if nothing is known of its values, so that no expression can use them.
pub(crate) fn type_of(schema: SchemaRef<'_>) -> Option<Type<'_>> {
    Some(match schema.kind() {
        Kind::Object => Type::Object(schema),
        Kind::Map => {
            let values = schema.values()?;
            Type::Map(Rc::new(Type::Text(REQUEST_BYTES_MAX - 2)), Rc::new(type_of(values)?), count(schema))
        }
        Kind::Array => Type::List(Rc::new(type_of(schema.item()?)?), count(schema)),
        Kind::String => match format(schema) {
            "date" | "date-time" => Type::Timestamp,
            "duration" => Type::Duration,
            "byte" => Type::Bytes(text_max(schema)),
            _ => Type::Text(text_max(schema)),
        },
        Kind::Int32 | Kind::Int64 => Type::Int,
        Kind::Number => Type::Double,
        Kind::Bool => Type::Bool,
        Kind::IntOrString => Type::Dyn,
        Kind::Bytes => Type::Bytes(REQUEST_BYTES_MAX - 2),
        Kind::Time | Kind::MicroTime => Type::Timestamp,
        Kind::Quantity => Type::Text(UNKNOWN),
        _ => return None,
    })
}

/// The type of a field, by its name as expressions write it. Of the metadata of objects only the names can be used.
pub(crate) fn field_type<'s>(schema: SchemaRef<'s>, name: &str) -> Option<Type<'s>> {
    let name = unescape(name);
    if schema.type_name() == Some("meta.v1.ObjectMeta") && !["name", "generateName"].contains(&name.as_str()) {
        return None;
    }
    crate::names::escape(&name)?;
    type_of(schema.property(&name)?.schema)
}

fn format(schema: SchemaRef<'_>) -> &str {
    schema.rules().and_then(|rules| rules.format.as_deref()).unwrap_or_default()
}

/// The greatest text.
fn text_max(schema: SchemaRef<'_>) -> u64 {
    let Some(rules) = schema.rules() else { return REQUEST_BYTES_MAX - 2 };
    if let Some(max) = rules.max_length {
        return max.saturating_mul(CHARACTER_BYTES);
    }
    let listed = rules.enumeration.iter().filter_map(|value| value.as_str()).map(str::len).max();
    listed.map_or(REQUEST_BYTES_MAX - 2, |longest| longest as u64)
}

/// The most items of a list or entries of a map.
pub(crate) fn count(schema: SchemaRef<'_>) -> u64 {
    let rules = schema.rules();
    match schema.kind() {
        Kind::Array => rules.and_then(|rules| rules.max_items).unwrap_or_else(|| {
            let least = schema.item().map_or(1, least_bytes);
            (REQUEST_BYTES_MAX - 2) / (least + 1)
        }),
        Kind::Map => rules.and_then(|rules| rules.max_properties).unwrap_or_else(|| {
            // A name between quotes, a colon, a comma.
            let least = schema.values().map_or(1, least_bytes);
            (REQUEST_BYTES_MAX - 2) / (least + 6)
        }),
        _ => 1,
    }
}

/// The fewest bytes that a value takes in a request.
pub(crate) fn least_bytes(schema: SchemaRef<'_>) -> u64 {
    match schema.kind() {
        Kind::Object => {
            let required = schema.rules().map_or(&[][..], |rules| &rules.required);
            let fields = required.iter().filter_map(|name| schema.property(name));
            let fields = fields.filter(|field| field.schema.default().is_none());
            2 + fields.map(|field| field.name.len() as u64 + least_bytes(field.schema) + 4).sum::<u64>()
        }
        Kind::Array | Kind::Map | Kind::String => 2,
        Kind::Bool => 4,
        _ => 1,
    }
}
