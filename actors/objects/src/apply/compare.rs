//! What differs between two states of an object, as sets of fields.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::element::{Path, PathElement, equal};
use super::set::{Node, Set};
use super::types::{Shape, Type};

/// The fields that two states do not share. Numbers that are written otherwise are no difference.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Comparison {
    /// Were there and are gone.
    pub(super) removed: Set,
    /// Have another value.
    pub(super) modified: Set,
    /// Are new.
    pub(super) added: Set,
}

impl Comparison {
    /// The comparison as if some fields did not exist.
    pub(super) fn without(self, ignored: &Set) -> Self {
        if ignored.is_empty() {
            return self;
        }
        Self {
            removed: self.removed.difference_below(ignored),
            modified: self.modified.difference_below(ignored),
            added: self.added.difference_below(ignored),
        }
    }
}

/// Compares an older with a newer state.
pub(super) fn compare(old: &Value, new: &Value, of: Type<'_>) -> Comparison {
    let mut comparer = Comparer::default();
    comparer.visit(Some(old), Some(new), of);
    comparer.found
}

#[derive(Default)]
struct Comparer {
    path: Path,
    found: Comparison,
}

impl Comparer {
    /// Compares what stands at the current path; at least one side is there.
    fn visit(&mut self, old: Option<&Value>, new: Option<&Value>, of: Type<'_>) {
        let (old, new) = match (old, new) {
            (Some(old), Some(new)) => (old, new),
            // What came or went is there as a whole: no path has to be looked up.
            (None, Some(new)) => return self.found.added.graft(&self.path, whole(new, of)),
            (Some(old), None) => return self.found.removed.graft(&self.path, whole(old, of)),
            (None, None) => return,
        };
        // Most of an object does not change, and to see that takes no paths.
        if old == new {
            return;
        }
        let (old_shape, new_shape) = (of.shape(old), of.shape(new));
        if old_shape != new_shape {
            // The parts of what it was are gone; it itself has changed.
            self.walk(old_shape, old, new, of);
        }
        self.walk(new_shape, old, new, of);
    }

    /// Walks through both sides.
    fn walk(&mut self, shape: Shape, old: &Value, new: &Value, of: Type<'_>) {
        match shape {
            Shape::Map => {
                let (old_fields, new_fields) = (old.as_object(), new.as_object());
                let is_empty = |fields: Option<&Map<String, Value>>| fields.is_none_or(Map::is_empty);
                if is_empty(old_fields) && is_empty(new_fields) {
                    return self.leaf(old, new);
                }
                for (name, old) in old_fields.into_iter().flatten() {
                    let new = new_fields.and_then(|fields| fields.get(name));
                    self.visit_field(name, Some(old), new, of);
                }
                for (name, new) in new_fields.into_iter().flatten() {
                    if old_fields.is_none_or(|fields| !fields.contains_key(name)) {
                        self.visit_field(name, None, Some(new), of);
                    }
                }
            }
            Shape::List => {
                let (old_items, new_items) = (items(old), items(new));
                if old_items.is_empty() && new_items.is_empty() {
                    return self.leaf(old, new);
                }
                match (index(old_items, of), index(new_items, of)) {
                    (Some(old_items), Some(new_items)) => self.visit_items(&old_items, &new_items, of.item()),
                    // An item that nothing tells apart: the list is one value, whatever the schema says.
                    _ => self.leaf(old, new),
                }
            }
            Shape::AtomicMap | Shape::AtomicList | Shape::Scalar => self.leaf(old, new),
        }
    }

    /// Compares what a field holds; at least one side has it.
    fn visit_field(&mut self, name: &str, old: Option<&Value>, new: Option<&Value>, of: Type<'_>) {
        // Asked here too: a step of the path is an allocation.
        if old == new {
            return;
        }
        self.path.push(PathElement::field(name));
        self.visit(old, new, of.field(name));
        self.path.pop();
    }

    fn leaf(&mut self, old: &Value, new: &Value) {
        if !equal(old, new) {
            self.found.modified.insert(&self.path);
        }
    }

    fn visit_items(&mut self, old: &Index<'_>, new: &Index<'_>, of: Type<'_>) {
        for element in old.keys().chain(new.keys()).collect::<BTreeSet<_>>() {
            let none = Vec::new();
            let (old, new) = (old.get(element).unwrap_or(&none), new.get(element).unwrap_or(&none));
            self.path.push(element.clone());
            match (old.as_slice(), new.as_slice()) {
                ([] | [_], [] | [_]) => self.visit(old.first().copied(), new.first().copied(), of),
                // Items that nothing tells apart are one value together.
                ([_, _, ..], [_, _, ..]) => {
                    let same = old.len() == new.len() && old.iter().zip(new).all(|(old, new)| equal(old, new));
                    if !same {
                        self.found.modified.insert(&self.path);
                    }
                }
                ([_, _, ..], _) => {
                    if let Some(new) = new.first() {
                        self.visit(None, Some(new), of);
                    }
                    self.found.removed.insert(&self.path);
                }
                (_, [_, _, ..]) => {
                    if let Some(old) = old.first() {
                        self.visit(Some(old), None, of);
                    }
                    self.found.added.insert(&self.path);
                }
            }
            self.path.pop();
        }
    }
}

/// The items of a list by what tells them apart.
type Index<'v> = BTreeMap<PathElement, Vec<&'v Value>>;

fn items(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// A value that has nothing to be compared with: it and all its parts. Items that nothing tells apart have none.
fn whole(value: &Value, of: Type<'_>) -> Node {
    let mut children = Set::default();
    match of.shape(value) {
        Shape::Map => {
            for (name, below) in value.as_object().into_iter().flatten() {
                children.put(PathElement::field(name), whole(below, of.field(name)));
            }
        }
        Shape::List => {
            for (element, items) in index(items(value), of).into_iter().flatten() {
                let node = if let [item] = items.as_slice() { whole(item, of.item()) } else { Node::leaf() };
                children.put(element, node);
            }
        }
        Shape::AtomicMap | Shape::AtomicList | Shape::Scalar => {}
    }
    Node { member: true, children }
}

fn index<'v>(items: &'v [Value], of: Type<'_>) -> Option<Index<'v>> {
    let mut index = Index::new();
    for item in items {
        index.entry(of.element(item).ok()?).or_default().push(item);
    }
    Some(index)
}
