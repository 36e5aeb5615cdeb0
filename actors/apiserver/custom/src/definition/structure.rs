//! Whether a schema is structural: every place has one type, and what combines schemas only narrows values.

use std::collections::{BTreeSet, HashSet};

use k3sd_objects::schema::Pattern;
use k3sd_objects::status::field::{Error, Path};
use serde_json::{Value, json};

use super::schema::below;

/// Where a schema stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Level {
    Root,
    Item,
    Field,
}

/// What isn't structural in a schema, sorted by what is said of it.
pub(super) fn validate(schema: &Value, path: &Path) -> Vec<Error> {
    let mut errors = Vec::new();
    validate_node(schema, Level::Root, path, &mut errors);
    validate_complete(schema, path, &mut errors);
    Patterns { seen: HashSet::new(), left: Some(PATTERNS_BYTES_MAX) }.validate(schema, path, &mut errors);
    errors.sort_by_cached_key(ToString::to_string);
    errors
}

fn text<'s>(schema: &'s Value, name: &str) -> &'s str {
    schema[name].as_str().unwrap_or_default()
}

fn has(schema: &Value, name: &str) -> bool {
    schema[name] == true
}

const EMBEDDED: &str = "x-kubernetes-embedded-resource";
const PRESERVE: &str = "x-kubernetes-preserve-unknown-fields";
const INT_OR_STRING: &str = "x-kubernetes-int-or-string";

fn validate_node(schema: &Value, level: Level, path: &Path, errors: &mut Vec<Error>) {
    let of = text(schema, "type");
    let items = schema.get("items").filter(|items| !items.is_null());
    match items {
        None if of == "array" => errors.push(Error::required(&path.child("items"), "must be specified")),
        None => {}
        Some(items) => validate_node(items, Level::Item, &path.child("items"), errors),
    }
    let properties = schema["properties"].as_object();
    for (name, field) in properties.into_iter().flatten() {
        validate_node(field, Level::Field, &path.child("properties").key(name), errors);
    }
    let additional = schema.get("additionalProperties").filter(|additional| !additional.is_null());
    if let Some(additional) = additional {
        let at = path.child("additionalProperties");
        if level == Level::Root {
            errors.push(Error::forbidden(&at, "must not be used at the root"));
        }
        if additional.is_object() {
            validate_node(additional, Level::Field, &at, errors);
        }
    }
    validate_extensions(schema, path, errors);
    validate_values(schema, Alternatives::of(schema), path, errors);
    validate_type(schema, level, path, errors);
    if has(schema, EMBEDDED) && additional.is_some() {
        let detail = format!("must not be used if {EMBEDDED} is set");
        errors.push(Error::forbidden(&path.child("additionalProperties"), detail));
    }
    validate_meta(schema, level, path, errors);
    let empty = properties.is_none_or(serde_json::Map::is_empty);
    if has(schema, EMBEDDED) && !has(schema, PRESERVE) && empty {
        let detail = format!("must not be empty if {EMBEDDED} is true without {PRESERVE}");
        errors.push(Error::required(&path.child("properties"), detail));
    }
}

fn validate_extensions(schema: &Value, path: &Path, errors: &mut Vec<Error>) {
    if !has(schema, INT_OR_STRING) {
        return;
    }
    for name in [PRESERVE, EMBEDDED] {
        if has(schema, name) {
            let detail = format!("must be false if {INT_OR_STRING} is true");
            errors.push(Error::invalid(&path.child(name), true, detail));
        }
    }
}

fn validate_type(schema: &Value, level: Level, path: &Path, errors: &mut Vec<Error>) {
    let (of, at) = (text(schema, "type"), path.child("type"));
    if has(schema, EMBEDDED) && of != "object" {
        let detail = format!("must be object if {EMBEDDED} is true");
        errors.push(if of.is_empty() { Error::required(&at, detail) } else { Error::invalid(&at, of, detail) });
    } else if of.is_empty() && !has(schema, INT_OR_STRING) && !has(schema, PRESERVE) {
        let detail = match level {
            Level::Root => "must not be empty at the root",
            Level::Item => "must not be empty for specified array items",
            Level::Field => "must not be empty for specified object fields",
        };
        errors.push(Error::required(&at, detail));
    }
    if level == Level::Root && !of.is_empty() && of != "object" {
        errors.push(Error::invalid(&at, of, "must be object at the root"));
    }
}

/// The metadata of a whole object is that of every object; a schema may only narrow its names.
fn validate_meta(schema: &Value, level: Level, path: &Path, errors: &mut Vec<Error>) {
    let whole = level == Level::Root || has(schema, EMBEDDED);
    let field = |name: &str| schema["properties"].get(name).map(|field| (field, path.child("properties").key(name)));
    for name in ["kind", "apiVersion"] {
        if let Some((field, at)) = field(name).filter(|(field, _)| whole && text(field, "type") != "string") {
            errors.push(Error::invalid(&at.child("type"), text(field, "type"), "must be string"));
        }
    }
    let Some((metadata, at)) = field("metadata") else { return };
    if whole && text(metadata, "type") != "object" {
        errors.push(Error::invalid(&at.child("type"), text(metadata, "type"), "must be object"));
    }
    let plain = metadata.as_object().is_none_or(|metadata| {
        metadata.iter().all(|(key, value)| match key.as_str() {
            "type" | "default" => true,
            "properties" => {
                value.as_object().is_none_or(|names| names.keys().all(|name| name == "name" || name == "generateName"))
            }
            _ => false,
        })
    });
    if level == Level::Root && !plain {
        let detail = "must not specify anything other than name and generateName, but metadata is implicitly specified";
        errors.push(Error::forbidden(&at, detail));
    }
}

/// Where upstream's own way of writing "integer or string" stands, which is not structural and allowed.
#[derive(Clone, Copy, Default)]
struct Alternatives {
    any_of: bool,
    first_all_of: bool,
}

impl Alternatives {
    fn of(schema: &Value) -> Self {
        let wanted = json!([{ "type": "integer" }, { "type": "string" }]);
        Self { any_of: schema["anyOf"] == wanted, first_all_of: schema["allOf"][0]["anyOf"] == wanted }
    }
}

fn list<'s>(schema: &'s Value, name: &str) -> &'s [Value] {
    schema[name].as_array().map_or(&[], Vec::as_slice)
}

fn validate_values(schema: &Value, skip: Alternatives, path: &Path, errors: &mut Vec<Error>) {
    for name in ["anyOf", "allOf", "oneOf"] {
        if name == "anyOf" && skip.any_of {
            continue;
        }
        for (index, inner) in list(schema, name).iter().enumerate() {
            let inside =
                Alternatives { any_of: name == "allOf" && index == 0 && skip.first_all_of, first_all_of: false };
            validate_nested(inner, inside, &path.child(name).index(index), errors);
        }
    }
    if schema["not"].is_object() {
        validate_nested(&schema["not"], Alternatives::default(), &path.child("not"), errors);
    }
}

/// Bytes that all patterns of a schema may take once they are compiled. Compiling is slow, and this bounds it to a second
/// or so.
const PATTERNS_BYTES_MAX: usize = 16 << 20;

/// What a pattern counts for: the least of these that it fits into. Nearly all fit into the first; one that doesn't fit
/// into the last is refused.
const PATTERN_BYTES: &[usize] = &[16 << 10, 64 << 10, 256 << 10, 1 << 20];

/// Patterns seen so far, and what is left for others; nothing once there were too many.
struct Patterns<'s> {
    seen: HashSet<&'s str>,
    left: Option<usize>,
}

impl<'s> Patterns<'s> {
    /// Adds what is wrong with patterns, wherever they stand.
    fn validate(&mut self, schema: &'s Value, path: &Path, errors: &mut Vec<Error>) {
        let expression = text(schema, "pattern");
        if !expression.is_empty() && self.seen.insert(expression) {
            errors.extend(self.compile(expression, &path.child("pattern")));
        }
        for (inner, at) in below(schema, path) {
            if self.left.is_some() {
                self.validate(inner, &at, errors);
            }
        }
    }

    fn compile(&mut self, expression: &str, path: &Path) -> Option<Error> {
        let mut wrong = None;
        for bytes in PATTERN_BYTES {
            match Pattern::compile_within(expression, *bytes) {
                Ok(_) => return self.take(*bytes, path),
                Err(error) => wrong = Some(error),
            }
        }
        let why = wrong.as_ref().and_then(std::error::Error::source).map(ToString::to_string).unwrap_or_default();
        let why = why.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
        let detail = format!("must be a valid regular expression, but isn't: {why}");
        let error = Error::invalid(path, expression, detail);
        // Those that are refused were work too.
        let last = PATTERN_BYTES.last().copied().unwrap_or_default();
        Some(self.take(last, path).unwrap_or(error))
    }

    fn take(&mut self, bytes: usize, path: &Path) -> Option<Error> {
        self.left = self.left?.checked_sub(bytes);
        let too_many = || Error::forbidden(path, "the patterns of a schema are too large together");
        self.left.is_none().then(too_many)
    }
}

/// What may not stand where schemas are combined: how to say so, and when it is there.
const FORBIDDEN: &[(&str, &str)] = &[
    ("type", "must be empty to be structural"),
    ("additionalProperties", "must be undefined to be structural"),
    ("default", "must be undefined to be structural"),
    ("title", "must be empty to be structural"),
    ("description", "must be empty to be structural"),
    ("nullable", "must be false to be structural"),
    ("externalDocs", "must be undefined to be structural"),
    (PRESERVE, "must be false to be structural"),
    (EMBEDDED, "must be false to be structural"),
    (INT_OR_STRING, "must be false to be structural"),
    ("x-kubernetes-list-map-keys", "must be empty to be structural"),
    ("x-kubernetes-list-type", "must be undefined to be structural"),
    ("x-kubernetes-map-type", "must be undefined to be structural"),
    ("x-kubernetes-validations", "must be empty to be structural"),
];

fn validate_nested(schema: &Value, skip: Alternatives, path: &Path, errors: &mut Vec<Error>) {
    validate_values(schema, skip, path, errors);
    if schema["items"].is_object() {
        validate_nested(&schema["items"], Alternatives::default(), &path.child("items"), errors);
    }
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        validate_nested(field, Alternatives::default(), &path.child("properties").key(name), errors);
    }
    for (name, detail) in FORBIDDEN {
        let there = match schema.get(*name) {
            None | Some(Value::Null | Value::Bool(false)) => *name == "additionalProperties" && schema[*name] == false,
            Some(Value::String(text)) => !text.is_empty() || *name == "default",
            Some(Value::Array(items)) => !items.is_empty() || *name == "default",
            Some(_) => true,
        };
        if there {
            errors.push(Error::forbidden(&path.child(name), *detail));
        }
    }
    if schema["properties"].get("metadata").is_some() {
        let at = path.child("properties").key("metadata");
        errors.push(Error::forbidden(&at, "must not be specified in a nested context"));
    }
}

/// What combined schemas speak of must be specified outside of them too.
fn validate_complete(schema: &Value, path: &Path, errors: &mut Vec<Error>) {
    let mut missing = BTreeSet::new();
    complete_values(schema, Some(schema), path, path, &mut missing);
    errors.extend(missing.into_iter().map(|(at, because)| Error {
        field: at,
        ..Error::required(&Path::root(), format!("because it is defined in {because}"))
    }));
}

/// `values` are combined schemas or what they are in; `schema` is what stands for the same place outside of them.
fn complete_values(
    values: &Value,
    schema: Option<&Value>,
    at: &Path,
    because: &Path,
    missing: &mut BTreeSet<(String, String)>,
) {
    if schema.is_none() {
        missing.insert((at.to_string(), because.to_string()));
        return;
    }
    let mut nested = |inner: &Value, because: Path| {
        complete_values(inner, schema, at, &because, missing);
        complete_nested(inner, schema, at, &because, missing);
    };
    for name in ["allOf", "anyOf", "oneOf"] {
        for (index, inner) in list(values, name).iter().enumerate() {
            nested(inner, because.child(name).index(index));
        }
    }
    if values["not"].is_object() {
        nested(&values["not"], because.child("not"));
    }
}

fn complete_nested(
    values: &Value,
    schema: Option<&Value>,
    at: &Path,
    because: &Path,
    missing: &mut BTreeSet<(String, String)>,
) {
    let outside = |name: &str| schema.and_then(|schema| schema.get(name)).filter(|found| !found.is_null());
    if values["items"].is_object() {
        let (at, because) = (at.child("items"), because.child("items"));
        complete_values(&values["items"], outside("items"), &at, &because, missing);
        complete_nested(&values["items"], outside("items"), &at, &because, missing);
    }
    for (name, field) in values["properties"].as_object().into_iter().flatten() {
        let (at, because) = (at.child("properties").key(name), because.child("properties").key(name));
        let outside = outside("properties").and_then(|properties| properties.get(name));
        complete_values(field, outside, &at, &because, missing);
        if outside.is_some() {
            complete_nested(field, outside, &at, &because, missing);
        }
    }
}
