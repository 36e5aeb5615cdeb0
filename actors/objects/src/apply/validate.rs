//! What an applied configuration must be before anything is done with it: made of declared fields, of the right types,
//! with items that can be told apart, none of them twice.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use serde_json::Value;

use super::element::{Path, PathElement, print_path};
use super::types::{Shape, Type};
use crate::schema::Kind;
use crate::status::go;

/// What is wrong, in upstream's words; `None` if nothing is.
pub(super) fn faults(value: &Value, of: Type<'_>) -> Option<String> {
    let mut validator = Validator::default();
    validator.visit(value, of);
    match validator.faults.as_slice() {
        [] => None,
        [only] => Some(only.clone()),
        several => Some(several.iter().fold("errors:".to_owned(), |mut text, fault| {
            write!(text, "\n  {fault}").expect("writing to a string always succeeds");
            text
        })),
    }
}

#[derive(Default)]
struct Validator {
    path: Path,
    faults: Vec<String>,
}

impl Validator {
    fn fault(&mut self, text: &str) {
        let path = print_path(&self.path);
        self.faults.push(if path.is_empty() { text.to_owned() } else { format!("{path}: {text}") });
    }

    fn visit(&mut self, value: &Value, of: Type<'_>) {
        match (of.shape(value), value) {
            (_, Value::Null) => {}
            (Shape::Map | Shape::AtomicMap, Value::Object(fields)) => {
                for (name, below) in fields {
                    self.path.push(PathElement::field(name));
                    match of.declared_field(name) {
                        Some(field) => self.visit(below, field),
                        None => self.fault("field not declared in schema"),
                    }
                    self.path.pop();
                }
            }
            (Shape::Map | Shape::AtomicMap, other) => self.fault(&format!("expected map, got {}", shown(other))),
            (Shape::AtomicList, Value::Array(items)) => {
                for (index, item) in items.iter().enumerate() {
                    self.path.push(PathElement::Index(i64::try_from(index).unwrap_or(i64::MAX)));
                    self.visit(item, of.item());
                    self.path.pop();
                }
            }
            (Shape::List, Value::Array(items)) => self.visit_items(items, of),
            (Shape::List | Shape::AtomicList, other) => self.fault(&format!("expected list, got {}", shown(other))),
            (Shape::Scalar, value) => self.visit_scalar(value, of),
        }
    }

    fn visit_items(&mut self, items: &[Value], of: Type<'_>) {
        let mut seen = BTreeSet::new();
        for (index, item) in items.iter().enumerate() {
            let element = match of.element(item) {
                Ok(element) => element,
                Err(error) => return self.fault(&format!("element {index}: {error}")),
            };
            if !seen.insert(element.clone()) {
                self.fault(&format!("duplicate entries for key {element}"));
            }
            self.path.push(element);
            self.visit(item, of.item());
            self.path.pop();
        }
    }

    fn visit_scalar(&mut self, value: &Value, of: Type<'_>) {
        let (fits, wanted) = match of.kind() {
            Some(Kind::Int32 | Kind::Int64 | Kind::Number) => (value.is_number(), "numeric (int or float)"),
            Some(Kind::Bool) => (value.is_boolean(), "boolean"),
            Some(Kind::String | Kind::Bytes | Kind::Time | Kind::MicroTime) => (value.is_string(), "string"),
            _ => (!value.is_array() && !value.is_object(), "any scalar"),
        };
        if !fits {
            self.fault(&format!("expected {wanted}, got {}", shown(value)));
        }
    }
}

/// A value of the wrong type, cut where it gets long.
fn shown(value: &Value) -> String {
    const CHARACTERS_MAX: usize = 100;
    let text = go::plain(value);
    if text.chars().count() <= CHARACTERS_MAX {
        return text;
    }
    text.chars().take(CHARACTERS_MAX).chain("...".chars()).collect()
}
