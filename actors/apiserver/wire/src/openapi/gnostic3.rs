//! The newer edition as protobuf: the messages of `openapi.v3`, by their published numbers.
//!
//! As for the older edition each part is written from the JSON that the other form is made of.

use k3sd_objects::protobuf::{put_bytes, put_double, put_message, put_number};
use serde_json::{Map, Value};

use super::gnostic::{put_any, put_extensions, put_named, put_text, put_texts, put_truth};

/// Numbers of `Schema` by the kind of field.
const SCHEMA_TEXT: &[(&str, u32)] = &[("title", 9), ("pattern", 17), ("type", 25), ("description", 34), ("format", 35)];
const SCHEMA_DOUBLE: &[(&str, u32)] = &[("multipleOf", 10), ("maximum", 11), ("minimum", 13)];
const SCHEMA_TRUTH: &[(&str, u32)] = &[
    ("nullable", 1),
    ("readOnly", 3),
    ("writeOnly", 4),
    ("deprecated", 8),
    ("exclusiveMaximum", 12),
    ("exclusiveMinimum", 14),
    ("uniqueItems", 20),
];
const SCHEMA_COUNT: &[(&str, u32)] = &[
    ("maxLength", 15),
    ("minLength", 16),
    ("maxItems", 18),
    ("minItems", 19),
    ("maxProperties", 21),
    ("minProperties", 22),
];
const SCHEMA_LISTS: &[(&str, u32)] = &[("allOf", 26), ("oneOf", 27), ("anyOf", 28)];

/// Deepest nesting of schemas that is followed; what lies deeper is left out.
const DEPTH_MAX: usize = 128;

/// Appends the fields of a `SchemaOrReference`.
fn put_schema_or_reference(out: &mut Vec<u8>, value: &Value, depth: usize) {
    match value.get("$ref") {
        Some(target) => put_message(out, 2, |out| put_text(out, 1, Some(target))),
        None => put_message(out, 1, |out| put_schema(out, value, depth)),
    }
}

/// Appends the fields of a `Schema`.
fn put_schema(out: &mut Vec<u8>, value: &Value, depth: usize) {
    let Value::Object(map) = value else { return };
    if depth > DEPTH_MAX {
        return;
    }
    let below = depth + 1;
    SCHEMA_TEXT.iter().for_each(|(name, number)| put_text(out, *number, map.get(*name)));
    SCHEMA_TRUTH.iter().for_each(|(name, number)| put_truth(out, *number, map.get(*name)));
    for (name, number) in SCHEMA_DOUBLE {
        if let Some(value) = map.get(*name).and_then(Value::as_f64) {
            put_double(out, *number, value);
        }
    }
    for (name, number) in SCHEMA_COUNT {
        if let Some(count) = map.get(*name).and_then(Value::as_i64) {
            put_number(out, *number, count);
        }
    }
    if let Some(Value::Object(documents)) = map.get("externalDocs") {
        put_message(out, 6, |out| {
            put_text(out, 1, documents.get("description"));
            put_text(out, 2, documents.get("url"));
        });
    }
    if let Some(example) = map.get("example") {
        put_any(out, 7, example);
    }
    put_texts(out, 23, map.get("required"));
    for value in map.get("enum").and_then(Value::as_array).into_iter().flatten() {
        put_any(out, 24, value);
    }
    for (name, number) in SCHEMA_LISTS {
        for schema in map.get(*name).and_then(Value::as_array).into_iter().flatten() {
            put_message(out, *number, |out| put_schema_or_reference(out, schema, below));
        }
    }
    if let Some(schema) = map.get("not") {
        put_message(out, 29, |out| put_schema(out, schema, below));
    }
    if let Some(items) = map.get("items") {
        put_message(out, 30, |out| put_message(out, 1, |out| put_schema_or_reference(out, items, below)));
    }
    if let Some(Value::Object(properties)) = map.get("properties") {
        put_message(out, 31, |out| {
            for (name, schema) in properties {
                put_named(out, 1, name, |out| put_schema_or_reference(out, schema, below));
            }
        });
    }
    match map.get("additionalProperties") {
        Some(Value::Bool(allowed)) => put_message(out, 32, |out| put_number(out, 2, i64::from(*allowed))),
        Some(schema) => {
            put_message(out, 32, |out| put_message(out, 1, |out| put_schema_or_reference(out, schema, below)));
        }
        None => {}
    }
    if let Some(default) = map.get("default") {
        put_message(out, 33, |out| put_default(out, default));
    }
    put_extensions(out, 36, map);
}

/// Appends the one field of a `DefaultType`. It has none for lists and objects, of which it only tells that there is one.
fn put_default(out: &mut Vec<u8>, default: &Value) {
    match default {
        Value::Number(number) => put_double(out, 1, number.as_f64().unwrap_or_default()),
        Value::Bool(truth) => put_number(out, 2, i64::from(*truth)),
        Value::String(text) => put_bytes(out, 3, text.as_bytes()),
        _ => {}
    }
}

/// Appends a model to the fields of `SchemasOrReferences`.
pub(super) fn put_model(out: &mut Vec<u8>, name: &str, schema: &Value) {
    put_named(out, 1, name, |out| put_schema_or_reference(out, schema, 0));
}

/// Appends a path to the fields of `Paths`.
pub(super) fn put_path(out: &mut Vec<u8>, path: &str, item: &Value) {
    const METHODS: [(&str, u32); 7] =
        [("get", 4), ("put", 5), ("post", 6), ("delete", 7), ("options", 8), ("head", 9), ("patch", 10)];
    put_named(out, 1, path, |out| {
        for (method, number) in METHODS {
            if let Some(operation) = item.get(method).and_then(Value::as_object) {
                put_message(out, number, |out| put_operation(out, operation));
            }
        }
        put_parameters(out, 13, item.get("parameters"));
    });
}

fn put_operation(out: &mut Vec<u8>, operation: &Map<String, Value>) {
    put_texts(out, 1, operation.get("tags"));
    put_text(out, 3, operation.get("description"));
    put_text(out, 5, operation.get("operationId"));
    put_parameters(out, 6, operation.get("parameters"));
    if let Some(body) = operation.get("requestBody") {
        // `RequestBodyOrReference` holds a `RequestBody`.
        put_message(out, 7, |out| {
            put_message(out, 1, |out| {
                put_text(out, 1, body.get("description"));
                put_content(out, 2, body.get("content"));
                put_truth(out, 3, body.get("required"));
            });
        });
    }
    put_message(out, 8, |out| {
        for (code, response) in operation.get("responses").and_then(Value::as_object).into_iter().flatten() {
            put_named(out, 2, code, |out| {
                put_message(out, 1, |out| {
                    put_text(out, 1, response.get("description"));
                    put_content(out, 3, response.get("content"));
                });
            });
        }
    });
    put_extensions(out, 13, operation);
}

/// Appends `MediaTypes`.
fn put_content(out: &mut Vec<u8>, number: u32, content: Option<&Value>) {
    let Some(Value::Object(content)) = content else { return };
    put_message(out, number, |out| {
        for (media, of) in content {
            put_named(out, 1, media, |out| {
                if let Some(schema) = of.get("schema") {
                    put_message(out, 1, |out| put_schema_or_reference(out, schema, 0));
                }
            });
        }
    });
}

fn put_parameters(out: &mut Vec<u8>, number: u32, parameters: Option<&Value>) {
    for parameter in parameters.and_then(Value::as_array).into_iter().flatten() {
        // `ParameterOrReference` holds a `Parameter`.
        put_message(out, number, |out| {
            put_message(out, 1, |out| {
                put_text(out, 1, parameter.get("name"));
                put_text(out, 2, parameter.get("in"));
                put_text(out, 3, parameter.get("description"));
                put_truth(out, 4, parameter.get("required"));
                if let Some(schema) = parameter.get("schema") {
                    put_message(out, 10, |out| put_schema_or_reference(out, schema, 0));
                }
            });
        });
    }
}

/// The `Document` around the fields of `Paths` and of `SchemasOrReferences`.
pub(super) fn document(version: &str, paths: &[u8], models: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(paths.len() + models.len() + 256);
    put_bytes(&mut out, 1, b"3.0.0");
    put_message(&mut out, 2, |out| {
        put_bytes(out, 1, b"Kubernetes");
        put_bytes(out, 6, version.as_bytes());
    });
    put_bytes(&mut out, 4, paths);
    put_message(&mut out, 5, |out| {
        put_bytes(out, 1, models);
        put_message(out, 7, |out| {
            put_named(out, 1, "BearerToken", |out| {
                put_message(out, 1, |out| {
                    put_bytes(out, 1, b"apiKey");
                    put_bytes(out, 2, super::TOKEN.as_bytes());
                    put_bytes(out, 3, b"authorization");
                    put_bytes(out, 4, b"header");
                });
            });
        });
    });
    out
}
