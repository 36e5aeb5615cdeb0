//! Rules along an object, within a budget.
//!
//! A rule that doesn't speak of `oldSelf` is about a state. What an update leaves as it was may stay as wrong as it was.

use std::collections::HashMap;

use k3sd_apiserver_cel::{EvalError, Given, Outcome};
use k3sd_objects::schema::{Kind, ListType, MapType, SchemaRef, ValidationRule};
use k3sd_objects::status::field::{Error, Path};
use serde_json::Value;

use super::{CALL_COST_MAX, Node, OBJECT_COST_MAX, Rule, below, type_word};

/// Longest message that an expression may make, in bytes.
const MESSAGE_BYTES_MAX: usize = 5 * 1024;

/// Errors that are reported for one object.
const ERRORS_MAX: usize = 200;

/// What rules find wrong with an object.
pub(super) fn object(root: &Node, schema: SchemaRef<'_>, value: &Value, old: Option<&Value>) -> Vec<Error> {
    let mut walk = Walk { errors: Vec::new(), budget: OBJECT_COST_MAX, over: false };
    walk.visit(root, schema, value, old, &Path::root());
    walk.errors
}

struct Walk {
    errors: Vec<Error>,
    budget: u64,
    /// Nothing more is evaluated.
    over: bool,
}

impl Walk {
    fn visit(&mut self, node: &Node, schema: SchemaRef<'_>, value: &Value, old: Option<&Value>, path: &Path) {
        // Rules about values that may be null stand around them.
        if self.over || value.is_null() {
            return;
        }
        let old = old.filter(|old| !old.is_null());
        for rule in &node.rules {
            if self.over || self.errors.len() >= ERRORS_MAX {
                return;
            }
            self.evaluate(rule, schema, value, old, path);
        }
        match (schema.kind(), value) {
            (Kind::Object, Value::Object(map)) => {
                let old = old.filter(|_| schema.map_type() == MapType::Granular);
                for (name, inner) in &node.fields {
                    let (Some(value), Some(below_schema)) = (map.get(name), schema.property(name)) else { continue };
                    let old = old.and_then(|old| old.get(name));
                    self.visit(inner, below_schema.schema, value, old, &below(path, name));
                }
            }
            (Kind::Map, Value::Object(map)) => {
                let (Some(inner), Some(values)) = (&node.inner, schema.values()) else { return };
                let old = old.filter(|_| schema.map_type() == MapType::Granular);
                for (name, value) in map {
                    let old = old.and_then(|old| old.get(name));
                    self.visit(inner, values, value, old, &path.key(name));
                }
            }
            (Kind::Array, Value::Array(items)) => {
                let (Some(inner), Some(item)) = (&node.inner, schema.item()) else { return };
                let past = Past::of(schema, old);
                for (index, value) in items.iter().enumerate() {
                    self.visit(inner, item, value, past.find(value), &path.index(index));
                }
            }
            _ => {}
        }
    }

    fn evaluate(&mut self, rule: &Rule, schema: SchemaRef<'_>, value: &Value, old: Option<&Value>, path: &Path) {
        let of = type_word(schema);
        let invalid = |detail: String| Error::invalid(path, of, detail);
        let program = match &rule.program {
            Ok(program) => program,
            Err(why) => return self.errors.push(invalid(format!("rule compile error: {why}"))),
        };
        let optional = rule.source.optional_old_self == Some(true);
        if rule.uses_old && old.is_none() && !optional {
            return;
        }
        if self.budget == 0 {
            return self.out_of_budget(path, of);
        }
        let given = [
            Given { name: "self", schema, value: Some(value), optional: false },
            Given { name: "oldSelf", schema, value: old, optional },
        ];
        // Without an old value there is no variable of it, unless it is optional.
        let given = if old.is_some() || optional { &given[..] } else { &given[..1] };
        let (answer, cost) = program.run(given, CALL_COST_MAX);
        if cost > self.budget {
            return self.out_of_budget(path, of);
        }
        self.budget -= cost;
        let text = rule_text(&rule.source);
        let unchanged = old == Some(value) && !rule.uses_old;
        match answer {
            Ok(Outcome::Bool(true)) => {}
            Ok(_) | Err(EvalError::NoSuchOverload | EvalError::NoSuchKey(_) | EvalError::Other(_)) if unchanged => {}
            Ok(_) => self.failed(rule, given, of, path),
            Err(error @ EvalError::NoSuchOverload) => self.errors.push(invalid(format!(
                "'{error}': call arguments did not match a supported operator, function or macro signature for rule: {text}"
            ))),
            Err(error @ EvalError::CostLimit) => {
                self.errors.push(invalid(format!(
                    "'{error}': no further validation rules will be run due to call cost exceeds limit for rule: {text}"
                )));
                self.over = true;
            }
            Err(error) => self.errors.push(invalid(format!("{error} evaluating rule: {text}"))),
        }
    }

    fn out_of_budget(&mut self, path: &Path, of: &str) {
        let detail = "validation failed due to running out of cost budget, no further validation rules will be run";
        self.errors.push(Error::invalid(path, of, detail));
        self.over = true;
    }

    /// A rule said no.
    fn failed(&mut self, rule: &Rule, given: &[Given<'_>], of: &str, path: &Path) {
        let path = if rule.field.is_empty() { path.clone() } else { below(path, &rule.field) };
        let made = rule.message.as_ref().and_then(|message| {
            let (answer, cost) = message.run(given, CALL_COST_MAX.min(self.budget));
            self.budget = self.budget.saturating_sub(cost);
            match answer {
                Ok(Outcome::Text(text)) => Some(text.trim().to_owned()),
                _ => None,
            }
        });
        let made = made.filter(|text| !text.is_empty() && text.len() <= MESSAGE_BYTES_MAX && !text.contains('\n'));
        let detail = made.unwrap_or_else(|| match rule.source.message.as_deref() {
            Some(message) if !message.is_empty() => message.trim().to_owned(),
            _ => format!("failed rule: {}", rule_text(&rule.source)),
        });
        self.errors.push(match rule.source.reason.as_deref() {
            Some("FieldValueForbidden") => Error::forbidden(&path, detail),
            Some("FieldValueRequired") => Error::required(&path, detail),
            Some("FieldValueDuplicate") => Error::duplicate(&path, of),
            _ => Error::invalid(&path, of, detail),
        });
    }
}

/// How errors name a rule.
fn rule_text(rule: &ValidationRule) -> &str {
    match rule.message.as_deref() {
        Some(message) if !message.is_empty() => message.trim(),
        _ => rule.rule.trim(),
    }
}

/// The items of a list before a change, by their keys. Items of other lists have no past.
struct Past<'v> {
    keys: Vec<String>,
    items: HashMap<String, &'v Value>,
}

impl<'v> Past<'v> {
    fn of(schema: SchemaRef<'_>, old: Option<&'v Value>) -> Self {
        let keyed = schema.list_type() == ListType::Map;
        let keys: Vec<String> = schema.list_keys().filter(|_| keyed).map(str::to_owned).collect();
        let old = old.and_then(Value::as_array).filter(|_| keyed);
        let items = old.into_iter().flatten().map(|item| (key(item, &keys), item)).collect();
        Self { keys, items }
    }

    fn find(&self, item: &Value) -> Option<&'v Value> {
        if self.items.is_empty() { None } else { self.items.get(&key(item, &self.keys)).copied() }
    }
}

fn key(item: &Value, keys: &[String]) -> String {
    let parts: Vec<&Value> = keys.iter().map(|key| item.get(key).unwrap_or(&Value::Null)).collect();
    serde_json::to_string(&parts).unwrap_or_default()
}
