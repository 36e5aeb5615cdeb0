//! The walk through an object and its schema that finds what is wrong.

use std::collections::HashSet;

use serde_json::{Map, Number, Value};

use crate::schema::{Kind, ListType, Rules, SchemaRef};
use crate::status::field::{Error, Path};
use crate::validate::{ERRORS_MAX, format};

/// What was found, and where the walk is.
#[derive(Debug, Default)]
pub(super) struct Walk {
    pub(super) errors: Vec<Error>,
    path: String,
}

impl Walk {
    /// The whole object. Its metadata is that of every object; the schema may only narrow its names.
    pub(super) fn object(&mut self, value: &Value, old: Option<&Value>, schema: SchemaRef<'_>) {
        self.check_value(value, old, schema, true);
    }

    /// A walk that begins somewhere else than at the root.
    pub(super) fn at_path(path: &Path) -> Self {
        let path = if path.is_root() { String::new() } else { path.to_string() };
        Self { errors: Vec::new(), path }
    }

    /// A value below the root.
    pub(super) fn part(&mut self, value: &Value, schema: SchemaRef<'_>) {
        self.check_value(value, None, schema, false);
    }

    fn here(&self) -> Path {
        if self.path.is_empty() { Path::root() } else { Path::new(&self.path) }
    }

    fn push(&mut self, error: Error) {
        if self.errors.len() < ERRORS_MAX {
            self.errors.push(error);
        }
    }

    /// "place in body" and what is wrong there.
    fn body(&self, what: impl std::fmt::Display) -> String {
        format!("{} in body {what}", self.path)
    }

    fn invalid(&mut self, value: impl Into<Value>, what: impl std::fmt::Display) {
        let error = Error::invalid(&self.here(), value, self.body(what));
        self.push(error);
    }

    fn at<T>(&mut self, step: &str, visit: impl FnOnce(&mut Self) -> T) -> T {
        let length = self.path.len();
        self.path.push_str(step);
        let result = visit(self);
        self.path.truncate(length);
        result
    }

    fn at_field<T>(&mut self, name: &str, visit: impl FnOnce(&mut Self) -> T) -> T {
        let dot = if self.path.is_empty() { "" } else { "." };
        self.at(&format!("{dot}{name}"), visit)
    }

    fn check_value(&mut self, value: &Value, old: Option<&Value>, schema: SchemaRef<'_>, whole: bool) {
        // What an update leaves alone may stay wrong.
        if old == Some(value) || self.errors.len() >= ERRORS_MAX {
            return;
        }
        if value.is_null() && schema.is_nullable() {
            return;
        }
        if !is_of_kind(value, schema.kind()) {
            let (wanted, found) = (wanted(schema.kind()), type_of(value));
            let detail = self.body(format_args!("must be of type {wanted}: \"{found}\""));
            let error = Error::type_invalid(&self.here(), found, detail);
            return self.push(error);
        }
        if let Some(rules) = schema.rules() {
            self.check_rules(value, schema, rules);
        }
        match value {
            Value::Object(map) => self.check_fields(map, old.and_then(Value::as_object), schema, whole),
            Value::Array(items) => self.check_items(items, old.and_then(Value::as_array), schema),
            _ => {}
        }
    }

    fn check_fields(
        &mut self,
        map: &Map<String, Value>,
        old: Option<&Map<String, Value>>,
        schema: SchemaRef<'_>,
        whole: bool,
    ) {
        if schema.is_embedded() && !whole {
            for name in ["apiVersion", "kind"] {
                if map.get(name).and_then(Value::as_str).is_none_or(str::is_empty) {
                    self.at_field(name, |walk| {
                        let error = Error::required(&walk.here(), "must not be empty");
                        walk.push(error);
                    });
                }
            }
        }
        for (name, value) in map {
            // Not the metadata of every object, which is checked elsewhere, but what the schema says of it.
            let Some(schema) = schema.own_field(name) else { continue };
            let old = old.and_then(|old| old.get(name));
            self.at_field(name, |walk| walk.check_value(value, old, schema, false));
        }
    }

    fn check_items(&mut self, items: &[Value], old: Option<&Vec<Value>>, schema: SchemaRef<'_>) {
        let keys: Vec<&str> = schema.list_keys().collect();
        match schema.list_type() {
            ListType::Set => self.check_unique(items.iter().cloned()),
            ListType::Map => self.check_unique(items.iter().map(|item| key_of(item, &keys))),
            ListType::Atomic => {}
        }
        let Some(schema_of_item) = schema.item() else { return };
        for (index, value) in items.iter().enumerate() {
            let old = match schema.list_type() {
                ListType::Map => {
                    let key = key_of(value, &keys);
                    old.and_then(|old| old.iter().find(|old| key_of(old, &keys) == key))
                }
                // An item of another list has no past of its own.
                _ => None,
            };
            self.at(&format!("[{index}]"), |walk| walk.check_value(value, old, schema_of_item, false));
        }
    }

    /// Reports what came before.
    fn check_unique(&mut self, values: impl Iterator<Item = Value>) {
        let mut seen = HashSet::new();
        for (index, value) in values.enumerate() {
            if !seen.insert(value.to_string()) {
                self.at(&format!("[{index}]"), |walk| {
                    let error = Error::duplicate(&walk.here(), value);
                    walk.push(error);
                });
            }
        }
    }

    fn check_rules(&mut self, value: &Value, schema: SchemaRef<'_>, rules: &Rules) {
        match value {
            Value::Number(number) => self.check_number(number, rules),
            Value::String(text) => self.check_text(text, rules),
            Value::Array(items) => self.check_list(items, rules),
            Value::Object(map) => self.check_structure(map, rules),
            Value::Null | Value::Bool(_) => {}
        }
        if !rules.enumeration.is_empty() && !rules.enumeration.contains(value) {
            let supported: Vec<String> = rules
                .enumeration
                .iter()
                .map(|allowed| allowed.as_str().map_or_else(|| allowed.to_string(), str::to_owned))
                .collect();
            let supported: Vec<&str> = supported.iter().map(String::as_str).collect();
            let error = Error::not_supported(&self.here(), value.clone(), &supported);
            self.push(error);
        }
        self.check_combined(value, schema, rules);
    }

    fn check_number(&mut self, number: &Number, rules: &Rules) {
        let value = number.as_f64().unwrap_or_default();
        if let Some(minimum) = rules.minimum {
            let bound = go_number(minimum);
            if rules.exclusive_minimum && value <= minimum {
                self.invalid(number.clone(), format_args!("should be greater than {bound}"));
            } else if value < minimum {
                self.invalid(number.clone(), format_args!("should be greater than or equal to {bound}"));
            }
        }
        if let Some(maximum) = rules.maximum {
            let bound = go_number(maximum);
            if rules.exclusive_maximum && value >= maximum {
                self.invalid(number.clone(), format_args!("should be less than {bound}"));
            } else if value > maximum {
                self.invalid(number.clone(), format_args!("should be less than or equal to {bound}"));
            }
        }
        if let Some(factor) = rules.multiple_of.filter(|factor| *factor > 0.0 && !is_multiple(value, *factor)) {
            self.invalid(number.clone(), format_args!("should be a multiple of {}", go_number(factor)));
        }
    }

    fn check_text(&mut self, text: &str, rules: &Rules) {
        let length = text.chars().count() as u64;
        if let Some(max) = rules.max_length.filter(|max| length > *max) {
            let error = Error::too_long(&self.here(), usize::try_from(max).unwrap_or(usize::MAX));
            self.push(error);
        }
        if let Some(min) = rules.min_length.filter(|min| length < *min) {
            self.invalid(text, format_args!("should be at least {min} chars long"));
        }
        if let Some(pattern) = rules.pattern.as_ref().filter(|pattern| !pattern.matches(text)) {
            self.invalid(text, format_args!("should match '{}'", pattern.text));
        }
        if let Some(name) = rules.format.as_ref().filter(|name| !format::fits(name, text)) {
            let detail = self.body(format_args!("must be of type {name}: {text:?}"));
            let error = Error::type_invalid(&self.here(), text, detail);
            self.push(error);
        }
    }

    fn check_list(&mut self, items: &[Value], rules: &Rules) {
        let count = items.len();
        if let Some(max) = rules.max_items.filter(|max| count as u64 > *max) {
            let error = Error::too_many(&self.here(), count, usize::try_from(max).unwrap_or(usize::MAX));
            self.push(error);
        }
        if let Some(min) = rules.min_items.filter(|min| (count as u64) < *min) {
            self.invalid(count, format_args!("should have at least {min} items"));
        }
        let mut seen = HashSet::new();
        if rules.unique_items && !items.iter().all(|item| seen.insert(item.to_string())) {
            self.invalid(Value::Null, "shouldn't contain duplicates");
        }
    }

    fn check_structure(&mut self, map: &Map<String, Value>, rules: &Rules) {
        let count = map.len();
        if let Some(max) = rules.max_properties.filter(|max| count as u64 > *max) {
            let error = Error::too_many(&self.here(), count, usize::try_from(max).unwrap_or(usize::MAX));
            self.push(error);
        }
        if let Some(min) = rules.min_properties.filter(|min| (count as u64) < *min) {
            self.invalid(count, format_args!("should have at least {min} properties"));
        }
        for name in rules.required.iter().filter(|name| !map.contains_key(*name)) {
            self.at_field(name, |walk| {
                let error = Error::required(&walk.here(), "");
                walk.push(error);
            });
        }
    }

    /// `allOf`, `anyOf`, `oneOf` and `not`.
    fn check_combined(&mut self, value: &Value, schema: SchemaRef<'_>, rules: &Rules) {
        let shown = || if value.is_object() || value.is_array() { Value::from(type_of(value)) } else { value.clone() };
        for part in schema.among(&rules.all_of) {
            let errors = self.apart(value, part);
            if !errors.is_empty() {
                self.invalid(shown(), "must validate all the schemas (allOf)");
                errors.into_iter().for_each(|error| self.push(error));
            }
        }
        let any: Vec<Vec<Error>> = schema.among(&rules.any_of).map(|part| self.apart(value, part)).collect();
        if !any.is_empty() && !any.iter().any(Vec::is_empty) {
            self.invalid(shown(), "must validate at least one schema (anyOf)");
            self.push_closest(any);
        }
        let one: Vec<Vec<Error>> = schema.among(&rules.one_of).map(|part| self.apart(value, part)).collect();
        let fitting = one.iter().filter(|errors| errors.is_empty()).count();
        if !one.is_empty() && fitting != 1 {
            let found = if fitting == 0 { "none valid".to_owned() } else { format!("{fitting} valid alternatives") };
            self.invalid(shown(), format_args!("must validate one and only one schema (oneOf). Found {found}"));
            if fitting == 0 {
                self.push_closest(one);
            }
        }
        let not = rules.not.and_then(|not| schema.among(&[not]).next());
        if not.is_some_and(|not| self.apart(value, not).is_empty()) {
            self.invalid(shown(), "must not validate the schema (not)");
        }
    }

    /// The errors of the alternative that has the fewest.
    fn push_closest(&mut self, alternatives: Vec<Vec<Error>>) {
        let closest = alternatives.into_iter().min_by_key(Vec::len);
        closest.into_iter().flatten().for_each(|error| self.push(error));
    }

    /// The errors of a value under another schema at the same place.
    fn apart(&self, value: &Value, schema: SchemaRef<'_>) -> Vec<Error> {
        let mut walk = Self { errors: Vec::new(), path: self.path.clone() };
        walk.check_value(value, None, schema, true);
        walk.errors
    }
}

/// The fields that tell an item of a list apart, with the defaults of absent ones left out as they are.
fn key_of(item: &Value, keys: &[&str]) -> Value {
    let found = keys.iter().filter_map(|key| Some(((*key).to_owned(), item.get(*key)?.clone())));
    Value::Object(found.collect())
}

fn is_of_kind(value: &Value, kind: Kind) -> bool {
    match kind {
        Kind::Any | Kind::Json => true,
        Kind::Object | Kind::Map | Kind::RawExtension | Kind::Fields => value.is_object(),
        Kind::Array => value.is_array(),
        Kind::String | Kind::Bytes | Kind::Time | Kind::MicroTime | Kind::Quantity => value.is_string(),
        Kind::Int32 => value.as_i64().is_some_and(|value| i32::try_from(value).is_ok()),
        Kind::Int64 => value.is_i64() || value.is_u64(),
        Kind::Number => value.is_number(),
        Kind::Bool => value.is_boolean(),
        Kind::IntOrString => value.is_i64() || value.is_u64() || value.is_string(),
        Kind::SchemaOrArray => value.is_object() || value.is_array(),
        Kind::SchemaOrBool => value.is_object() || value.is_boolean(),
        Kind::SchemaOrStrings => value.is_object() || value.is_array(),
    }
}

fn wanted(kind: Kind) -> &'static str {
    match kind {
        Kind::Array => "array",
        Kind::String | Kind::Bytes | Kind::Time | Kind::MicroTime | Kind::Quantity => "string",
        Kind::Int32 | Kind::Int64 => "integer",
        Kind::Number => "number",
        Kind::Bool => "boolean",
        Kind::IntOrString => "integer,string",
        _ => "object",
    }
}

fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// Whether a number is a whole multiple of another, but for what floats round.
fn is_multiple(value: f64, factor: f64) -> bool {
    const ROUNDING: f64 = 1e-9;
    let times = value / factor;
    (times - times.round()).abs() <= ROUNDING * times.abs().max(1.0)
}

/// A bound as Go prints it: without a fraction when there is none.
fn go_number(value: f64) -> String {
    /// From here on Go changes to an exponent.
    const PLAIN_MAX: f64 = 1e21;
    if value.abs() < PLAIN_MAX { format!("{value}") } else { format!("{value:e}").replace('e', "e+") }
}
