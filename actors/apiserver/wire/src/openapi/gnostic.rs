//! The older edition as protobuf: the messages into which clients of Go read it.
//!
//! The numbers are those of the published message definitions of `openapi.v2`. Each part is written from the JSON that
//! the other form is made of, so that the two say the same.

use k3sd_objects::protobuf::{put_bytes, put_double, put_message, put_number};
use serde_json::{Map, Value};

/// Appends a field that is text, unless it is absent.
pub(super) fn put_text(out: &mut Vec<u8>, number: u32, value: Option<&Value>) {
    if let Some(text) = value.and_then(Value::as_str) {
        put_bytes(out, number, text.as_bytes());
    }
}

pub(super) fn put_texts(out: &mut Vec<u8>, number: u32, value: Option<&Value>) {
    for text in value.and_then(Value::as_array).into_iter().flatten() {
        put_text(out, number, Some(text));
    }
}

pub(super) fn put_truth(out: &mut Vec<u8>, number: u32, value: Option<&Value>) {
    if value.and_then(Value::as_bool) == Some(true) {
        put_number(out, number, 1);
    }
}

/// Any value: `Any.yaml`, and JSON is YAML.
pub(super) fn put_any(out: &mut Vec<u8>, number: u32, value: &Value) {
    put_message(out, number, |out| put_bytes(out, 2, format!("{value}\n").as_bytes()));
}

/// Fields whose names begin with `x-`, as `NamedAny`.
pub(super) fn put_extensions(out: &mut Vec<u8>, number: u32, map: &Map<String, Value>) {
    for (name, value) in map.iter().filter(|(name, _)| name.starts_with("x-")) {
        put_message(out, number, |out| {
            put_bytes(out, 1, name.as_bytes());
            put_any(out, 2, value);
        });
    }
}

/// A name and a message.
pub(super) fn put_named(out: &mut Vec<u8>, number: u32, name: &str, write: impl FnOnce(&mut Vec<u8>)) {
    put_message(out, number, |out| {
        put_bytes(out, 1, name.as_bytes());
        put_message(out, 2, write);
    });
}

/// Numbers of `Schema` by the kind of field.
const SCHEMA_TEXT: &[(&str, u32)] = &[("$ref", 1), ("format", 2), ("title", 3), ("description", 4), ("pattern", 13)];
const SCHEMA_DOUBLE: &[(&str, u32)] = &[("multipleOf", 6), ("maximum", 7), ("minimum", 9)];
const SCHEMA_TRUTH: &[(&str, u32)] = &[("exclusiveMaximum", 8), ("exclusiveMinimum", 10), ("uniqueItems", 16)];
const SCHEMA_COUNT: &[(&str, u32)] = &[
    ("maxLength", 11),
    ("minLength", 12),
    ("maxItems", 14),
    ("minItems", 15),
    ("maxProperties", 17),
    ("minProperties", 18),
];

/// Appends the fields of a `Schema`.
fn put_schema(out: &mut Vec<u8>, value: &Value) {
    let Value::Object(map) = value else { return };
    SCHEMA_TEXT.iter().for_each(|(name, number)| put_text(out, *number, map.get(*name)));
    for (name, number) in SCHEMA_DOUBLE {
        if let Some(value) = map.get(*name).and_then(Value::as_f64) {
            put_double(out, *number, value);
        }
    }
    SCHEMA_TRUTH.iter().for_each(|(name, number)| put_truth(out, *number, map.get(*name)));
    for (name, number) in SCHEMA_COUNT {
        if let Some(count) = map.get(*name).and_then(Value::as_i64) {
            put_number(out, *number, count);
        }
    }
    if let Some(default) = map.get("default") {
        put_any(out, 5, default);
    }
    put_texts(out, 19, map.get("required"));
    for value in map.get("enum").and_then(Value::as_array).into_iter().flatten() {
        put_any(out, 20, value);
    }
    match map.get("additionalProperties") {
        Some(Value::Bool(allowed)) => put_message(out, 21, |out| put_number(out, 2, i64::from(*allowed))),
        Some(schema) => put_message(out, 21, |out| put_message(out, 1, |out| put_schema(out, schema))),
        None => {}
    }
    if map.contains_key("type") {
        put_message(out, 22, |out| put_text(out, 1, map.get("type")));
    }
    if let Some(items) = map.get("items") {
        put_message(out, 23, |out| put_message(out, 1, |out| put_schema(out, items)));
    }
    for schema in map.get("allOf").and_then(Value::as_array).into_iter().flatten() {
        put_message(out, 24, |out| put_schema(out, schema));
    }
    if let Some(Value::Object(properties)) = map.get("properties") {
        put_message(out, 25, |out| {
            properties.iter().for_each(|(name, schema)| put_named(out, 1, name, |out| put_schema(out, schema)));
        });
    }
    put_extensions(out, 31, map);
}

/// Appends a model to the fields of `Definitions`.
pub(super) fn put_definition(out: &mut Vec<u8>, name: &str, schema: &Value) {
    put_named(out, 1, name, |out| put_schema(out, schema));
}

/// Appends a path to the fields of `Paths`.
pub(super) fn put_path(out: &mut Vec<u8>, path: &str, item: &Value) {
    const METHODS: [(&str, u32); 7] =
        [("get", 2), ("put", 3), ("post", 4), ("delete", 5), ("options", 6), ("head", 7), ("patch", 8)];
    put_named(out, 2, path, |out| {
        for (method, number) in METHODS {
            if let Some(operation) = item.get(method).and_then(Value::as_object) {
                put_message(out, number, |out| put_operation(out, operation));
            }
        }
        put_parameters(out, 9, item.get("parameters"));
    });
}

fn put_operation(out: &mut Vec<u8>, operation: &Map<String, Value>) {
    put_texts(out, 1, operation.get("tags"));
    put_text(out, 3, operation.get("description"));
    put_text(out, 5, operation.get("operationId"));
    put_texts(out, 6, operation.get("produces"));
    put_texts(out, 7, operation.get("consumes"));
    put_parameters(out, 8, operation.get("parameters"));
    put_message(out, 9, |out| {
        for (code, response) in operation.get("responses").and_then(Value::as_object).into_iter().flatten() {
            put_named(out, 1, code, |out| put_message(out, 1, |out| put_response(out, response)));
        }
    });
    put_texts(out, 10, operation.get("schemes"));
    put_extensions(out, 13, operation);
}

fn put_response(out: &mut Vec<u8>, response: &Value) {
    put_text(out, 1, response.get("description"));
    if let Some(schema) = response.get("schema") {
        put_message(out, 2, |out| put_message(out, 1, |out| put_schema(out, schema)));
    }
}

fn put_parameters(out: &mut Vec<u8>, number: u32, parameters: Option<&Value>) {
    for parameter in parameters.and_then(Value::as_array).into_iter().flatten() {
        // `ParametersItem` holds a `Parameter`.
        put_message(out, number, |out| put_message(out, 1, |out| put_parameter(out, parameter)));
    }
}

fn put_parameter(out: &mut Vec<u8>, parameter: &Value) {
    let get = |name: &str| parameter.get(name);
    if parameter["in"] == "body" {
        put_message(out, 1, |out| {
            put_text(out, 1, get("description"));
            put_text(out, 2, get("name"));
            put_text(out, 3, get("in"));
            put_truth(out, 4, get("required"));
            if let Some(schema) = get("schema") {
                put_message(out, 5, |out| put_schema(out, schema));
            }
        });
        return;
    }
    // Parameters of queries and of paths have messages of their own, which differ in the numbers behind the name.
    let (kind, shift) = if parameter["in"] == "path" { (4, 0) } else { (3, 1) };
    put_message(out, 2, |out| {
        put_message(out, kind, |out| {
            put_truth(out, 1, get("required"));
            put_text(out, 2, get("in"));
            put_text(out, 3, get("description"));
            put_text(out, 4, get("name"));
            put_text(out, 5 + shift, get("type"));
            put_truth(out, 19 + shift, get("uniqueItems"));
        });
    });
}

/// The `Document` around the fields of `Paths` and `Definitions`.
pub(super) fn document(version: &str, paths: &[u8], definitions: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(paths.len() + definitions.len() + 256);
    put_bytes(&mut out, 1, b"2.0");
    put_message(&mut out, 2, |out| {
        put_bytes(out, 1, b"Kubernetes");
        put_bytes(out, 2, version.as_bytes());
    });
    put_bytes(&mut out, 8, paths);
    put_bytes(&mut out, 9, definitions);
    put_message(&mut out, 12, |out| put_named(out, 1, "BearerToken", |_| {}));
    put_message(&mut out, 13, |out| {
        put_named(out, 1, "BearerToken", |out| {
            put_message(out, 2, |out| {
                put_bytes(out, 1, b"apiKey");
                put_bytes(out, 2, b"authorization");
                put_bytes(out, 3, b"header");
                put_bytes(out, 4, super::TOKEN.as_bytes());
            });
        });
    });
    out
}
