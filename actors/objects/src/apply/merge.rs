//! Merging an applied configuration into an object.
//!
//! The configuration wins wherever it says something; what it doesn't mention stays. Lists with items that can be told
//! apart merge item by item, and come out in an order that keeps both: items of the configuration as it lists them,
//! others between them where they were.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::element::PathElement;
use super::types::{Shape, Type};

/// The object with the configuration merged into it.
pub(super) fn merge(old: &Value, config: &Value, of: Type<'_>) -> Value {
    match of.shape(config) {
        Shape::Map => {
            let (old_fields, new_fields) = (old.as_object(), config.as_object());
            match (old_fields.filter(|fields| !fields.is_empty()), new_fields) {
                (None, _) => config.clone(),
                (Some(_), None) => old.clone(),
                (Some(old_fields), Some(new_fields)) => Value::Object(merge_fields(old_fields, new_fields, of)),
            }
        }
        Shape::List => {
            let (old_items, new_items) = (old.as_array(), config.as_array());
            match (old_items.filter(|items| !items.is_empty()), new_items) {
                (None, _) => config.clone(),
                (Some(_), None) => old.clone(),
                (Some(old_items), Some(new_items)) => {
                    let merged = merge_items(old_items, new_items, of).unwrap_or_else(|| new_items.clone());
                    Value::Array(merged)
                }
            }
        }
        Shape::AtomicMap | Shape::AtomicList | Shape::Scalar => config.clone(),
    }
}

fn merge_fields(old: &Map<String, Value>, config: &Map<String, Value>, of: Type<'_>) -> Map<String, Value> {
    let mut merged = old.clone();
    for (name, new) in config {
        let value = match old.get(name) {
            Some(old) => merge(old, new, of.field(name)),
            None => new.clone(),
        };
        merged.insert(name.clone(), value);
    }
    merged
}

/// Two lists, and what is known of their items.
struct Items<'v> {
    old: Vec<PathElement>,
    new: Vec<PathElement>,
    /// Items of the object; of those that nothing tells apart none is the one to merge with.
    old_by_element: BTreeMap<PathElement, Option<&'v Value>>,
    new_by_element: BTreeMap<PathElement, &'v Value>,
}

impl<'v> Items<'v> {
    /// `None` if there are items that nothing tells apart from any other.
    fn of(old: &'v [Value], new: &'v [Value], of: Type<'_>) -> Option<Self> {
        let elements = |items: &[Value]| items.iter().map(|item| of.element(item).ok()).collect::<Option<Vec<_>>>();
        let (old_elements, new_elements) = (elements(old)?, elements(new)?);
        let mut old_by_element = BTreeMap::new();
        for (element, item) in old_elements.iter().zip(old) {
            old_by_element.entry(element.clone()).and_modify(|known| *known = None).or_insert(Some(item));
        }
        let new_by_element = new_elements.iter().cloned().zip(new).collect();
        Some(Self { old: old_elements, new: new_elements, old_by_element, new_by_element })
    }

    fn merged(&self, element: &PathElement, of: Type<'_>) -> Option<Value> {
        let new = self.new_by_element.get(element)?;
        Some(match self.old_by_element.get(element) {
            Some(Some(old)) => merge(old, new, of),
            _ => (*new).clone(),
        })
    }
}

fn merge_items(old: &[Value], new: &[Value], of: Type<'_>) -> Option<Vec<Value>> {
    let items = Items::of(old, new, of)?;
    let mut shared = items.new.iter().filter(|element| items.old_by_element.contains_key(*element)).peekable();
    let mut done: BTreeSet<&PathElement> = BTreeSet::new();
    let mut merged = Vec::with_capacity(old.len().max(new.len()));
    let (mut left, mut right) = (0, 0);
    while left < items.old.len() || right < items.new.len() {
        if let (Some(old_element), Some(new_element)) = (items.old.get(left), items.new.get(right)) {
            if old_element == new_element {
                merged.extend(items.merged(new_element, of.item()));
                done.insert(new_element);
                shared.next();
                (left, right) = (left + 1, right + 1);
                continue;
            }
            let is_wanted_later = items.new_by_element.contains_key(old_element);
            if is_wanted_later && shared.peek().is_some_and(|next| *next != old_element) {
                left += 1; // Shared, but the configuration has another one before it.
                continue;
            }
        }
        if let Some(old_element) = items.old.get(left) {
            if !items.new_by_element.contains_key(old_element) {
                merged.push(old[left].clone());
                left += 1;
                continue;
            }
            if done.contains(old_element) {
                left += 1; // The configuration had it earlier.
            }
        }
        if let Some(new_element) = items.new.get(right) {
            merged.extend(items.merged(new_element, of.item()));
            done.insert(new_element);
            right += 1;
            shared.next_if(|next| *next == new_element);
        }
    }
    Some(merged)
}
