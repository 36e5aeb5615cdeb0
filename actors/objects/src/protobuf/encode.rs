//! JSON values to protobuf.

use serde_json::{Map, Value};

use crate::decode::base64;
use crate::decode::time::Moment;
use crate::decode::to_bytes;
use crate::protobuf::wire::{put_bytes, put_double, put_message, put_number};
use crate::protobuf::{MAGIC, tag};
use crate::schema::node::Wire;
use crate::schema::{Kind, SchemaRef, kind_schema};

/// An object of a built-in kind with its envelope; its kind is what it says itself. None for kinds that have no message.
pub fn encode(value: &Value) -> Option<Vec<u8>> {
    let api_version = value["apiVersion"].as_str()?;
    let kind = value["kind"].as_str()?;
    let schema = kind_schema(api_version, kind)?;
    Some(envelope(api_version, kind, &encode_message(value, schema)?))
}

/// Wraps the message of an object.
pub fn envelope(api_version: &str, kind: &str, message: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(message.len() + api_version.len() + kind.len() + 32);
    out.extend_from_slice(MAGIC);
    put_message(&mut out, tag::UNKNOWN_TYPE, |out| {
        put_bytes(out, tag::TYPE_API_VERSION, api_version.as_bytes());
        put_bytes(out, tag::TYPE_KIND, kind.as_bytes());
    });
    put_bytes(&mut out, tag::UNKNOWN_RAW, message);
    put_bytes(&mut out, tag::UNKNOWN_ENCODING, b"");
    put_bytes(&mut out, tag::UNKNOWN_CONTENT_TYPE, b"");
    out
}

/// One event of a watch with its length before it; `object` is an object with its envelope.
pub fn watch_event(event_type: &str, object: &[u8]) -> Vec<u8> {
    let mut out = vec![0; 4];
    put_bytes(&mut out, tag::EVENT_TYPE, event_type.as_bytes());
    put_message(&mut out, tag::EVENT_OBJECT, |out| put_bytes(out, tag::ONLY, object));
    let length = u32::try_from(out.len() - 4).unwrap_or(u32::MAX);
    out[..4].copy_from_slice(&length.to_be_bytes());
    out
}

/// A value as the message of its schema, without envelope. None when the schema has no message.
///
/// The value is expected to fit the schema; what does not fit is left out.
pub fn encode_message(value: &Value, schema: SchemaRef<'_>) -> Option<Vec<u8>> {
    let message = schema.message()?;
    let mut out = Vec::new();
    if let Value::Object(map) = value {
        put_object(&mut out, map, schema, message);
    }
    Some(out)
}

fn put_object(out: &mut Vec<u8>, map: &Map<String, Value>, schema: SchemaRef<'_>, message: u32) {
    // Each field is looked up by name once, and then by its place: messages name all the fields that there could be.
    let mut present = vec![None; schema.field_count()];
    for (name, value) in map {
        if let Some(offset) = schema.field_offset(name) {
            present[offset] = Some(value).filter(|value| !value.is_null());
        }
    }
    put_fields(out, &present, schema, message);
}

/// The fields of an object and of the messages that are inlined in it.
fn put_fields(out: &mut Vec<u8>, present: &[Option<&Value>], schema: SchemaRef<'_>, message: u32) {
    for field in schema.message_fields(message) {
        let number = u32::from(field.tag);
        if field.wire == Wire::Inline {
            put_message(out, number, |out| put_fields(out, present, schema, field.target));
        } else if let Some(value) = present[field.target as usize] {
            let schema = schema.property_number(field.target).schema;
            if field.wire == Wire::Wrapped {
                put_wrapped(out, number, value, schema);
            } else {
                put_value(out, number, value, schema);
            }
        }
    }
}

/// A list within a message of its own.
fn put_wrapped(out: &mut Vec<u8>, number: u32, value: &Value, schema: SchemaRef<'_>) {
    put_message(out, number, |out| put_value(out, tag::ONLY, value, schema));
}

fn put_value(out: &mut Vec<u8>, number: u32, value: &Value, schema: SchemaRef<'_>) {
    match (schema.kind(), value) {
        (Kind::String, Value::String(text)) => put_bytes(out, number, text.as_bytes()),
        (Kind::Bytes, Value::String(text)) => put_bytes(out, number, &base64::decode(text).unwrap_or_default()),
        (Kind::Int32 | Kind::Int64, Value::Number(value)) => {
            put_number(out, number, value.as_i64().unwrap_or_default());
        }
        (Kind::Number, Value::Number(value)) => put_double(out, number, value.as_f64().unwrap_or_default()),
        (Kind::Bool, Value::Bool(value)) => put_number(out, number, i64::from(*value)),
        (Kind::Time | Kind::MicroTime, Value::String(text)) => {
            put_message(out, number, |out| put_time(out, text));
        }
        (Kind::Quantity, Value::String(text)) => {
            put_message(out, number, |out| put_bytes(out, tag::ONLY, text.as_bytes()));
        }
        (Kind::IntOrString, value) => put_message(out, number, |out| put_number_or_text(out, value)),
        (Kind::RawExtension | Kind::Fields | Kind::Json, value) => {
            put_message(out, number, |out| put_bytes(out, tag::ONLY, &to_bytes(value)));
        }
        (Kind::Any, _) => put_message(out, number, |_| {}),
        (Kind::Object, Value::Object(map)) => {
            if let Some(message) = schema.message() {
                put_message(out, number, |out| put_object(out, map, schema, message));
            }
        }
        (Kind::Array, Value::Array(items)) => {
            let Some(item) = schema.item() else { return };
            items.iter().for_each(|value| put_value(out, number, value, item));
        }
        (Kind::Map, Value::Object(map)) => {
            let Some(values) = schema.values() else { return };
            for (key, value) in map {
                put_message(out, number, |out| put_entry(out, key, value, values));
            }
        }
        (Kind::SchemaOrArray | Kind::SchemaOrBool | Kind::SchemaOrStrings, value) => {
            put_message(out, number, |out| put_schema_or(out, value, schema));
        }
        _ => {}
    }
}

fn put_entry(out: &mut Vec<u8>, key: &str, value: &Value, schema: SchemaRef<'_>) {
    put_bytes(out, tag::KEY, key.as_bytes());
    if schema.kind() == Kind::Array {
        put_wrapped(out, tag::VALUE, value, schema);
    } else {
        put_value(out, tag::VALUE, value, schema);
    }
}

fn put_time(out: &mut Vec<u8>, text: &str) {
    if let Some(moment) = Moment::parse(text) {
        put_number(out, tag::SECONDS, moment.seconds);
        put_number(out, tag::NANOS, i64::from(moment.nanos));
    }
}

fn put_number_or_text(out: &mut Vec<u8>, value: &Value) {
    put_number(out, tag::FORM, i64::from(value.is_string()));
    put_number(out, tag::NUMBER, value.as_i64().unwrap_or_default());
    put_bytes(out, tag::TEXT, value.as_str().unwrap_or_default().as_bytes());
}

fn put_schema_or(out: &mut Vec<u8>, value: &Value, schema: SchemaRef<'_>) {
    let Some(nested) = schema.nested_schema() else { return };
    let bool_first = schema.kind() == Kind::SchemaOrBool;
    match value {
        Value::Object(_) if bool_first => {
            put_number(out, tag::ALLOWS, 1);
            put_value(out, tag::ALLOWED_SCHEMA, value, nested);
        }
        Value::Object(_) => put_value(out, tag::SCHEMA, value, nested),
        Value::Bool(allows) => put_number(out, tag::ALLOWS, i64::from(*allows)),
        Value::Array(items) => {
            for item in items {
                match item {
                    Value::String(text) => put_bytes(out, tag::SEVERAL, text.as_bytes()),
                    item => put_value(out, tag::SEVERAL, item, nested),
                }
            }
        }
        _ => {}
    }
}
