//! Small readers over objects: what stands at a place, and what is wrong with it.
//!
//! Types were checked when the object was decoded. What is absent reads as Go's zero value, and so does, instead of a
//! panic, whatever has another type after all.

use k3sd_objects::names::Faults;
use k3sd_objects::quantity::Quantity;
use k3sd_objects::status::field::{Error, Path};
use serde_json::Value;

/// What is wrong, in the order of finding.
pub(super) type Errors = Vec<Error>;

/// What stands where nothing stands.
static ABSENT: Value = Value::Null;

/// A place in an object, with what stands there. Names of fields below it may be empty: the place itself.
#[derive(Clone, Debug)]
pub(super) struct At<'a> {
    pub(super) value: &'a Value,
    pub(super) path: Path,
}

impl<'a> At<'a> {
    /// The whole object.
    pub(super) fn root(value: &'a Value) -> Self {
        Self { value, path: Path::root() }
    }

    /// A field, set or not.
    pub(super) fn field(&self, name: &str) -> Self {
        Self { value: self.get(name), path: self.place(name) }
    }

    /// A field that is set.
    pub(super) fn set(&self, name: &str) -> Option<Self> {
        self.has(name).then(|| self.field(name))
    }

    /// The path of a field.
    pub(super) fn place(&self, name: &str) -> Path {
        if name.is_empty() { self.path.clone() } else { self.path.child(name) }
    }

    /// The value of a field, null if it isn't set.
    pub(super) fn get(&self, name: &str) -> &'a Value {
        if name.is_empty() { self.value } else { self.value.get(name).unwrap_or(&ABSENT) }
    }

    /// Whether a field is set.
    pub(super) fn has(&self, name: &str) -> bool {
        !self.get(name).is_null()
    }

    /// A string, empty if absent.
    pub(super) fn text(&self, name: &str) -> &'a str {
        self.get(name).as_str().unwrap_or_default()
    }

    /// A whole number, if set.
    pub(super) fn number(&self, name: &str) -> Option<i64> {
        self.get(name).as_i64()
    }

    /// Whether a flag is set and true.
    pub(super) fn flag(&self, name: &str) -> bool {
        self.get(name).as_bool().unwrap_or_default()
    }

    /// Members of a list or map.
    pub(super) fn count(&self, name: &str) -> usize {
        match self.get(name) {
            Value::Array(items) => items.len(),
            Value::Object(fields) => fields.len(),
            _ => 0,
        }
    }

    /// The items of a list.
    pub(super) fn items(&self, name: &str) -> impl Iterator<Item = Self> + use<'a> {
        let path = self.place(name);
        let items = self.get(name).as_array().map(Vec::as_slice).unwrap_or_default();
        items.iter().enumerate().map(move |(index, value)| Self { value, path: path.index(index) })
    }

    /// The strings of a list.
    pub(super) fn texts(&self, name: &str) -> impl Iterator<Item = &'a str> + use<'a> {
        let items = self.get(name).as_array().map(Vec::as_slice).unwrap_or_default();
        items.iter().filter_map(Value::as_str)
    }

    /// The entries of a map, in order of their keys.
    pub(super) fn entries(&self, name: &str) -> impl Iterator<Item = (&'a str, Self)> + use<'a> {
        let path = self.place(name);
        let entries = self.get(name).as_object().into_iter().flatten();
        entries.map(move |(key, value)| (key.as_str(), Self { value, path: path.key(key) }))
    }

    /// A quantity, if set and well-formed.
    pub(super) fn quantity(&self, name: &str) -> Option<Quantity> {
        self.has(name).then(|| Quantity::from_json(self.get(name)).ok()).flatten()
    }

    /// What a message shows of a field: the empty string for one that is absent.
    fn shown(&self, name: &str) -> Value {
        if self.has(name) { self.get(name).clone() } else { Value::from("") }
    }

    /// A field is malformed.
    pub(super) fn invalid(&self, name: &str, detail: impl Into<String>) -> Error {
        Error::invalid(&self.place(name), self.shown(name), detail)
    }

    /// A number is malformed; absent ones show as 0.
    pub(super) fn invalid_number(&self, name: &str, detail: impl Into<String>) -> Error {
        Error::invalid(&self.place(name), self.number(name).unwrap_or_default(), detail)
    }

    /// A field has to be set.
    pub(super) fn required(&self, name: &str, detail: &str) -> Error {
        Error::required(&self.place(name), detail)
    }

    /// A field may not be set.
    pub(super) fn forbidden(&self, name: &str, detail: impl Into<String>) -> Error {
        Error::forbidden(&self.place(name), detail)
    }

    /// A field has to be unique.
    pub(super) fn duplicate(&self, name: &str) -> Error {
        Error::duplicate(&self.place(name), self.shown(name))
    }

    /// A field has none of the values there are.
    pub(super) fn unsupported(&self, name: &str, supported: &[&str]) -> Error {
        Error::not_supported(&self.place(name), self.shown(name), supported)
    }

    /// Puts a string to a rule of syntax.
    pub(super) fn syntax(&self, name: &str, rule: impl Fn(&str) -> Faults, out: &mut Errors) {
        let text = self.text(name);
        out.extend(rule(text).into_iter().map(|fault| self.invalid(name, fault)));
    }

    /// A string that has to be set and to meet a rule of syntax.
    pub(super) fn name(&self, name: &str, rule: impl Fn(&str) -> Faults, out: &mut Errors) {
        if self.text(name).is_empty() {
            out.push(self.required(name, ""));
        } else {
            self.syntax(name, rule, out);
        }
    }

    /// A string that meets a rule of syntax if it is set.
    pub(super) fn optional(&self, name: &str, rule: impl Fn(&str) -> Faults, out: &mut Errors) {
        if !self.text(name).is_empty() {
            self.syntax(name, rule, out);
        }
    }

    /// A string that is one of several, empty counting as any other.
    pub(super) fn one_of(&self, name: &str, supported: &[&str], out: &mut Errors) {
        if !supported.contains(&self.text(name)) {
            out.push(self.unsupported(name, supported));
        }
    }

    /// A string that is one of several and has to be set.
    pub(super) fn required_of(&self, name: &str, supported: &[&str], out: &mut Errors) {
        if self.text(name).is_empty() {
            out.push(self.required(name, ""));
        } else {
            self.one_of(name, supported, out);
        }
    }

    /// A string that is one of several if it is set.
    pub(super) fn optional_of(&self, name: &str, supported: &[&str], out: &mut Errors) {
        if self.has(name) {
            self.one_of(name, supported, out);
        }
    }

    /// A number of at least 0.
    pub(super) fn not_negative(&self, name: &str, out: &mut Errors) {
        if self.number(name).unwrap_or_default() < 0 {
            out.push(self.invalid_number(name, NOT_NEGATIVE));
        }
    }

    /// A number within bounds, both included.
    pub(super) fn in_range(&self, name: &str, least: i64, most: i64, out: &mut Errors) {
        let faults = k3sd_objects::names::in_range(self.number(name).unwrap_or_default(), least, most);
        out.extend(faults.into_iter().map(|fault| self.invalid_number(name, fault)));
    }

    /// A field that keeps the value that it had, absent and Go's zero being the same.
    pub(super) fn immutable(&self, old: &At<'_>, name: &str, out: &mut Errors) {
        if !same(self.get(name), old.get(name)) {
            out.push(self.invalid(name, IMMUTABLE));
        }
    }
}

/// What is said of numbers below 0.
pub(super) const NOT_NEGATIVE: &str = "must be greater than or equal to 0";

/// What is said of fields that may not change.
pub(super) const IMMUTABLE: &str = "field is immutable";

/// Whether two values mean the same: what is absent equals what is empty, in maps at any depth.
pub(super) fn same(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Object(a), Value::Object(b)) => {
            let covers = |a: &serde_json::Map<String, Value>, b: &serde_json::Map<String, Value>| {
                a.iter().all(|(key, value)| same(value, b.get(key).unwrap_or(&ABSENT)))
            };
            covers(a, b) && covers(b, a)
        }
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        _ => left == right || (is_empty(left) && is_empty(right)),
    }
}

/// Whether a value is what Go has for an absent map, list or pointer.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        Value::String(text) => text.is_empty(),
        Value::Bool(_) | Value::Number(_) => false,
    }
}
