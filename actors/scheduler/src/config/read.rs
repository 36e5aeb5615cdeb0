//! Reading a document field by field: what isn't known is refused with its place.

use serde_json::{Map, Value};

use crate::error::ConfigError;

/// An object of the document, and where it is.
pub(super) struct Object<'a> {
    map: &'a Map<String, Value>,
    path: String,
}

/// A refusal.
pub(super) fn wrong<T>(path: &str, problem: impl Into<String>) -> Result<T, ConfigError> {
    Err(ConfigError { path: path.to_owned(), problem: problem.into() })
}

impl<'a> Object<'a> {
    /// An object that has none but these fields.
    pub(super) fn new(value: &'a Value, path: &str, known: &[&str]) -> Result<Self, ConfigError> {
        let Some(map) = value.as_object() else { return wrong(path, "must be an object") };
        if let Some(unknown) = map.keys().find(|key| !known.contains(&key.as_str())) {
            return wrong(&join(path, unknown), "unknown field");
        }
        Ok(Self { map, path: path.to_owned() })
    }

    /// Where a field is.
    pub(super) fn at(&self, field: &str) -> String {
        join(&self.path, field)
    }

    /// A field, if it is set.
    pub(super) fn get(&self, field: &str) -> Option<&'a Value> {
        self.map.get(field).filter(|value| !value.is_null())
    }

    pub(super) fn text(&self, field: &str) -> Result<Option<&'a str>, ConfigError> {
        let Some(value) = self.get(field) else { return Ok(None) };
        value.as_str().map_or_else(|| wrong(&self.at(field), "must be text"), |text| Ok(Some(text)))
    }

    /// A whole number between two.
    pub(super) fn number(&self, field: &str, least: i64, most: i64) -> Result<Option<i64>, ConfigError> {
        let Some(value) = self.get(field) else { return Ok(None) };
        match value.as_i64() {
            Some(number) if (least..=most).contains(&number) => Ok(Some(number)),
            _ => wrong(&self.at(field), format!("must be a whole number from {least} to {most}")),
        }
    }

    pub(super) fn boolean(&self, field: &str) -> Result<Option<bool>, ConfigError> {
        let Some(value) = self.get(field) else { return Ok(None) };
        value.as_bool().map_or_else(|| wrong(&self.at(field), "must be true or false"), |flag| Ok(Some(flag)))
    }

    /// The elements of a list, each with its place; none if it isn't set.
    pub(super) fn list(&self, field: &str) -> Result<Vec<(&'a Value, String)>, ConfigError> {
        let Some(value) = self.get(field) else { return Ok(Vec::new()) };
        let path = self.at(field);
        let Some(list) = value.as_array() else { return wrong(&path, "must be a list") };
        Ok(list.iter().enumerate().map(|(index, value)| (value, format!("{path}[{index}]"))).collect())
    }

    /// A list of texts.
    pub(super) fn texts(&self, field: &str) -> Result<Vec<String>, ConfigError> {
        let one = |(value, path): (&Value, String)| {
            value.as_str().map_or_else(|| wrong(&path, "must be text"), |text| Ok(text.to_owned()))
        };
        self.list(field)?.into_iter().map(one).collect()
    }
}

fn join(path: &str, field: &str) -> String {
    if path.is_empty() { field.to_owned() } else { format!("{path}.{field}") }
}
