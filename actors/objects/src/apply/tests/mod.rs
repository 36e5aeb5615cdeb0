//! Server-side apply: by example, and against a model.

mod examples;
mod managed;
mod model;
mod pieces;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::*;
use crate::schema::{Arena, SchemaRef, builtin, structural};

/// A kind with one version.
struct OneVersion<'a> {
    api_version: &'a str,
    schema: SchemaRef<'a>,
}

impl Versions for OneVersion<'_> {
    fn schema(&self, api_version: &str) -> Option<SchemaRef<'_>> {
        (api_version == self.api_version).then_some(self.schema)
    }

    fn convert(&self, _object: &Value, from: &str, to: &str) -> Result<Value, String> {
        Err(format!("no way from {from} to {to}"))
    }
}

fn built_in(api_version: &'static str, type_name: &str) -> OneVersion<'static> {
    OneVersion { api_version, schema: builtin().type_named(type_name).unwrap() }
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

/// An object and the endpoint that writes it.
struct Bench<'a> {
    versions: &'a dyn Versions,
    api_version: &'a str,
    ignored: Set,
    live: Value,
    second: i64,
}

impl<'a> Bench<'a> {
    fn new(versions: &'a OneVersion<'a>) -> Self {
        Self { versions, api_version: versions.api_version, ignored: Set::default(), live: json!({}), second: 0 }
    }

    fn tracker(&self) -> Tracker<'_> {
        Tracker { versions: self.versions, api_version: self.api_version, subresource: "", ignored: &self.ignored }
    }

    /// An object of the kind with these fields.
    fn object(&self, fields: &Value) -> Value {
        let mut whole = json!({"apiVersion": self.api_version, "kind": "Thing", "metadata": {"name": "x"}});
        merge_into(&mut whole, fields.clone());
        whole
    }

    /// Stores what came out, with the uid that the server gives.
    fn store(&mut self, mut object: Value) {
        object["metadata"]["uid"] = json!("u");
        self.live = object;
    }

    fn apply(&mut self, manager: &str, fields: Value) {
        self.try_apply(manager, fields, false).unwrap_or_else(|error| panic!("{error}"));
    }

    fn force(&mut self, manager: &str, fields: Value) {
        self.try_apply(manager, fields, true).unwrap_or_else(|error| panic!("{error}"));
    }

    fn try_apply(&mut self, manager: &str, fields: Value, force: bool) -> Result<(), ApplyError> {
        self.second += 1;
        let config = self.object(&fields);
        let object = self.tracker().apply(&self.live, &config, manager, force, at(self.second))?;
        self.store(object);
        Ok(())
    }

    /// Somebody writes the object with these fields merged in.
    fn update(&mut self, manager: &str, fields: Value) {
        let whole = self.object(&json!({}));
        let mut new = if self.live == json!({}) { whole } else { self.live.clone() };
        new = crate::patch::apply_merge_patch(new, fields).unwrap();
        self.put(manager, new);
    }

    /// Somebody writes this object.
    fn put(&mut self, manager: &str, new: Value) {
        self.second += 1;
        let object = self.tracker().update(&self.live, new, manager, at(self.second));
        self.store(object);
    }

    fn managers(&self) -> Managers {
        Managers::decode(self.live["metadata"].get("managedFields")).unwrap()
    }

    /// The fields of a manager as `fieldsV1`, or null if there is no such manager.
    fn fields(&self, manager: &str) -> Value {
        let entry = self.entry(manager);
        entry.get("fieldsV1").cloned().unwrap_or_default()
    }

    fn entry(&self, manager: &str) -> Value {
        let list = self.live["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
        list.into_iter().find(|entry| entry["manager"] == manager).unwrap_or_default()
    }
}

fn merge_into(whole: &mut Value, part: Value) {
    match (whole, part) {
        (Value::Object(whole), Value::Object(part)) => {
            for (name, value) in part {
                merge_into(whole.entry(name).or_insert(Value::Null), value);
            }
        }
        (whole, part) => *whole = part,
    }
}

/// A custom kind with one of everything that merges.
fn thing() -> Arena {
    let text = json!({"type": "string"});
    let item = json!({"type": "object", "properties": {"k": text, "v": text, "w": text}});
    structural(&json!({
        "type": "object",
        "properties": {"spec": {"type": "object", "properties": {
            "a": text,
            "n": {"type": "integer"},
            "s": {"type": "object", "properties": {"b": text, "c": text}},
            "m": {"type": "object", "additionalProperties": text},
            "l": {
                "type": "array",
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["k"],
                "items": item,
            },
            "t": {"type": "array", "x-kubernetes-list-type": "set", "items": text},
            "atoms": {"type": "array", "items": text},
            "whole": {"type": "object", "x-kubernetes-map-type": "atomic", "additionalProperties": text},
            "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
        }}},
    }))
    .unwrap()
}
