//! What may stand in a schema at all, wherever it stands.

use k3sd_objects::status::field::{Error, Path};
use serde_json::{Map, Value};

use super::{DEPTH_MAX, lists};
use crate::rules::fields;

/// Types of values, sorted.
const TYPES: &[&str] = &["array", "boolean", "integer", "number", "object", "string"];

/// What the root of a schema may have when there is a status subresource, by upstream's names of it.
const AT_ROOT: &[(&str, &str)] = &[
    ("description", "Description"),
    ("type", "Type"),
    ("format", "Format"),
    ("title", "Title"),
    ("maximum", "Maximum"),
    ("exclusiveMaximum", "ExclusiveMaximum"),
    ("minimum", "Minimum"),
    ("exclusiveMinimum", "ExclusiveMinimum"),
    ("maxLength", "MaxLength"),
    ("minLength", "MinLength"),
    ("pattern", "Pattern"),
    ("maxItems", "MaxItems"),
    ("minItems", "MinItems"),
    ("uniqueItems", "UniqueItems"),
    ("multipleOf", "MultipleOf"),
    ("required", "Required"),
    ("items", "Items"),
    ("properties", "Properties"),
    ("externalDocs", "ExternalDocs"),
    ("example", "Example"),
    ("x-kubernetes-preserve-unknown-fields", "XPreserveUnknownFields"),
    ("x-kubernetes-validations", "XValidations"),
];

/// What is not supported, with the value that counts as absent.
const UNSUPPORTED: &[&str] = &["id", "additionalItems", "patternProperties", "definitions", "dependencies", "$ref"];

/// The schemas directly below one, with their place.
pub(super) fn below<'s>(schema: &'s Value, path: &Path) -> Vec<(&'s Value, Path)> {
    let mut found = Vec::new();
    for name in ["additionalProperties", "items", "not"] {
        if let Some(inner) = schema.get(name).filter(|inner| inner.is_object()) {
            found.push((inner, path.child(name)));
        }
    }
    for name in ["properties", "definitions", "patternProperties"] {
        let inner = schema.get(name).and_then(Value::as_object).into_iter().flatten();
        found.extend(inner.map(|(key, inner)| (inner, path.child(name).key(key))));
    }
    for name in ["allOf", "anyOf", "oneOf"] {
        let inner = schema.get(name).and_then(Value::as_array).into_iter().flatten().enumerate();
        found.extend(inner.map(|(index, inner)| (inner, path.child(name).index(index))));
    }
    found
}

/// A text if schemas are nested so deep that nobody should walk them. Doesn't go deeper itself.
pub(super) fn too_deep(schema: &Value) -> Option<String> {
    let mut level = vec![schema];
    for _ in 0..DEPTH_MAX {
        // No paths are made here: they would be as long as the nesting is deep.
        level = level.into_iter().flat_map(|schema| below(schema, &Path::root())).map(|(inner, _)| inner).collect();
        if level.is_empty() {
            return None;
        }
    }
    Some(format!("the schema is nested deeper than {DEPTH_MAX} levels"))
}

/// What is special to the root of a schema.
pub(super) fn validate_root(schema: &Value, status: bool, path: &Path) -> Vec<Error> {
    let mut errors = Vec::new();
    let empty = Map::new();
    let map = schema.as_object().unwrap_or(&empty);
    if status {
        let of = map.get("type").and_then(Value::as_str).unwrap_or_default();
        let extra = map.keys().any(|key| AT_ROOT.iter().all(|(name, _)| name != key));
        if !of.is_empty() && of != "object" {
            let detail =
                "only \"object\" is allowed as the type at the root of the schema if the status subresource is enabled";
            errors.push(Error::invalid(&path.child("type"), of, detail));
        } else if extra {
            let names: Vec<&str> = AT_ROOT.iter().map(|(_, name)| *name).collect();
            let detail = format!(
                "only [{}] fields are allowed at the root of the schema if the status subresource is enabled",
                names.join(" ")
            );
            errors.push(Error::invalid(path, schema.clone(), detail));
        }
    }
    if map.get("nullable") == Some(&Value::Bool(true)) {
        errors.push(Error::forbidden(&path.child("nullable"), "nullable cannot be true at the root"));
    }
    errors
}

/// What is wrong with a whole schema, whose root is at `path`.
pub(super) fn validate(schema: &Value, path: &Path) -> Vec<Error> {
    let mut errors = Vec::new();
    walk(schema, path, &Place { root: true, ..Place::default() }, &mut errors);
    errors
}

/// Where the walk is.
#[derive(Clone, Default)]
struct Place {
    root: bool,
    /// Below the metadata of a whole object.
    in_metadata: bool,
    /// Why there may be no defaults.
    no_defaults: Option<String>,
}

fn walk(schema: &Value, path: &Path, place: &Place, errors: &mut Vec<Error>) {
    validate_node(schema, path, place, errors);
    let whole = place.root || schema["x-kubernetes-embedded-resource"] == true;
    for (inner, at) in below(schema, path) {
        let mut below = Place { root: false, ..place.clone() };
        let within = at.to_string()[path.to_string().len()..].to_owned();
        if within.starts_with(".additionalProperties") && place.in_metadata {
            below.no_defaults = Some("inside additionalProperties applying to object metadata".to_owned());
        }
        let meta = ["metadata", "kind", "apiVersion"].into_iter().find(|name| within == format!(".properties[{name}]"));
        if let Some(name) = meta.filter(|_| whole) {
            below.in_metadata = true;
            if place.root {
                below.no_defaults = Some(format!("in top-level {name}"));
            }
        }
        walk(inner, &at, &below, errors);
    }
}

fn validate_node(schema: &Value, path: &Path, place: &Place, errors: &mut Vec<Error>) {
    let of = schema["type"].as_str().unwrap_or_default();
    let forbid = |name: &str, detail: &str| Error::forbidden(&path.child(name), detail);
    if of == "null" {
        errors.push(Error::not_supported(&path.child("type"), of, TYPES));
        errors.push(forbid("type", "type cannot be set to null, use nullable as an alternative"));
    } else if !of.is_empty() && !TYPES.contains(&of) {
        errors.push(Error::not_supported(&path.child("type"), of, TYPES));
    }
    if let Some(why) = &place.no_defaults
        && schema.get("default").is_some()
    {
        errors.push(forbid("default", &format!("must not be set {why}")));
    }
    for name in UNSUPPORTED {
        let there = match schema.get(*name) {
            None | Some(Value::Null) => false,
            Some(Value::String(text)) => !text.is_empty() || *name == "$ref",
            Some(Value::Object(map)) => !map.is_empty() || *name == "dependencies",
            Some(_) => true,
        };
        if there {
            errors.push(forbid(name, &format!("{name} is not supported")));
        }
    }
    if schema["items"].is_array() {
        errors.push(forbid("items", "items must be a schema object and not an array"));
    }
    if place.in_metadata && schema["x-kubernetes-embedded-resource"] == true {
        errors.push(forbid("x-kubernetes-embedded-resource", "must not be used inside of resource meta"));
    }
    if schema["uniqueItems"] == true {
        let detail = "uniqueItems cannot be set to true since the runtime complexity becomes quadratic";
        errors.push(forbid("uniqueItems", detail));
    }
    let properties = schema["properties"].as_object().is_some_and(|properties| !properties.is_empty());
    // `true` says nothing, and may stand beside properties.
    if properties && schema.get("additionalProperties").is_some_and(|additional| *additional != true) {
        errors.push(forbid("additionalProperties", "additionalProperties and properties are mutual exclusive"));
    }
    if schema["x-kubernetes-preserve-unknown-fields"] == false {
        let at = path.child("x-kubernetes-preserve-unknown-fields");
        errors.push(Error::invalid(&at, false, "must be true or undefined"));
    }
    lists::validate(schema, path, errors);
    let rules = schema["x-kubernetes-validations"].as_array().into_iter().flatten().enumerate();
    for (index, rule) in rules {
        let at = path.child("x-kubernetes-validations").index(index);
        validate_rule(rule, schema, &at, errors);
    }
}

/// What is wrong with a rule before anybody reads its expression.
fn validate_rule(rule: &Value, schema: &Value, path: &Path, errors: &mut Vec<Error>) {
    const REASONS: &[&str] = &["FieldValueDuplicate", "FieldValueForbidden", "FieldValueInvalid", "FieldValueRequired"];
    let text = |name: &str| rule[name].as_str().unwrap_or_default();
    let broken = |text: &str| text.contains('\n');
    let (expression, message) = (text("rule").trim(), text("message").trim());
    let at = path.child("message");
    if expression.is_empty() {
        errors.push(Error::required(&path.child("rule"), "rule is not specified"));
    } else if !text("message").is_empty() && message.is_empty() {
        errors.push(Error::invalid(&at, text("message"), "message must be non-empty if specified"));
    } else if broken(message) {
        errors.push(Error::invalid(&at, text("message"), "message must not contain line breaks"));
    } else if broken(expression) && message.is_empty() {
        errors.push(Error::required(&at, "message must be specified if rule contains line breaks"));
    }
    if !text("messageExpression").is_empty() && text("messageExpression").trim().is_empty() {
        let detail = "messageExpression must be non-empty if specified";
        errors.push(Error::required(&path.child("messageExpression"), detail));
    }
    if let Some(reason) = rule["reason"].as_str().filter(|reason| !REASONS.contains(reason)) {
        errors.push(Error::not_supported(&path.child("reason"), reason, REASONS));
    }
    let (field, at) = (text("fieldPath"), path.child("fieldPath"));
    if field.is_empty() {
        return;
    }
    if field.trim().is_empty() {
        errors.push(Error::invalid(&at, field, "fieldPath must be non-empty if specified"));
    }
    if broken(field) {
        errors.push(Error::invalid(&at, field, "fieldPath must not contain line breaks"));
    }
    if fields::follow(field, schema, true).is_err() {
        errors.push(Error::invalid(&at, field, "fieldPath must be a valid path"));
    }
}
