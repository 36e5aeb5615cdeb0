//! From a value to the set of its fields, and back: which paths a value has, and the value without some of them.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::element::{Path, PathElement};
use super::set::{Node, Set};
use super::types::{Shape, Type};

/// The paths of a value that somebody who says it owns: its scalars, atomic maps and lists, empty maps and nulls, keys of
/// maps, and items of lists.
pub(super) fn field_set(value: &Value, of: Type<'_>) -> Set {
    let mut set = Set::default();
    collect(value, of, &mut Vec::new(), &mut set);
    set
}

/// The paths that a value has: those of [`field_set`] and the structures above them, and lists without items too.
pub(super) fn presence(value: &Value, of: Type<'_>) -> Set {
    let mut set = field_set(value, of);
    collect_empty_lists(value, of, &mut Vec::new(), &mut set);
    with_named_fields(&set, of)
}

fn collect_empty_lists(value: &Value, of: Type<'_>, path: &mut Path, set: &mut Set) {
    match value {
        Value::Array(items) if items.is_empty() => set.insert(path),
        Value::Array(items) if of.shape(value) == Shape::List => {
            for item in items {
                if let Ok(element) = of.element(item) {
                    path.push(element);
                    collect_empty_lists(item, of.item(), path, set);
                    path.pop();
                }
            }
        }
        Value::Object(fields) if of.shape(value) == Shape::Map => {
            for (name, below) in fields {
                path.push(PathElement::field(name));
                collect_empty_lists(below, of.field(name), path, set);
                path.pop();
            }
        }
        _ => {}
    }
}

fn collect(value: &Value, of: Type<'_>, path: &mut Path, set: &mut Set) {
    match of.shape(value) {
        Shape::Scalar | Shape::AtomicMap | Shape::AtomicList => set.insert(path),
        Shape::Map => {
            for (name, below) in value.as_object().into_iter().flatten() {
                path.push(PathElement::field(name));
                collect(below, of.field(name), path, set);
                let is_bare = below.is_null() || below.as_object().is_some_and(Map::is_empty);
                if is_bare || !of.names_field(name) {
                    set.insert(path);
                }
                path.pop();
            }
        }
        Shape::List => collect_items(value, of, path, set),
    }
}

fn collect_items(value: &Value, of: Type<'_>, path: &mut Path, set: &mut Set) {
    let Some(items) = value.as_array() else { return };
    let mut elements = BTreeMap::new();
    for item in items {
        if let Ok(element) = of.element(item) {
            elements.entry(element).or_insert_with(Vec::new).push(item);
        }
    }
    for (element, items) in elements {
        path.push(element);
        // Items that nothing tells apart are owned together.
        if let [item] = items.as_slice() {
            collect(item, of.item(), path, set);
        }
        set.insert(path);
        path.pop();
    }
}

/// The object without what the set holds.
pub(super) fn remove_from_object(object: Value, gone: &Set, of: Type<'_>) -> Value {
    remove(object, gone, of).unwrap_or_else(|| Value::Object(Map::new()))
}

/// The value without what the set holds. Structures and lists stay, if need be empty, unless they are in the set
/// themselves. `None` if the set has paths into what has one owner as a whole, which only an older schema can have left.
fn remove(value: Value, gone: &Set, of: Type<'_>) -> Option<Value> {
    match (of.shape(&value), value) {
        (Shape::Map, Value::Object(fields)) => {
            let mut kept = Map::new();
            for (name, below) in fields {
                let element = PathElement::Field(name);
                if let Some(below) = remove_at(below, gone.node(&element), of.step(&element))
                    && let PathElement::Field(name) = element
                {
                    kept.insert(name, below);
                }
            }
            Some(Value::Object(kept))
        }
        (Shape::List, Value::Array(items)) => {
            let kept = items.into_iter().filter_map(|item| match of.element(&item) {
                Ok(element) => remove_at(item, gone.node(&element), of.item()),
                Err(_) => Some(item),
            });
            Some(Value::Array(kept.collect()))
        }
        (Shape::AtomicMap | Shape::AtomicList, _) => None,
        (_, value) => Some(value),
    }
}

fn remove_at(value: Value, gone: Option<&Node>, of: Type<'_>) -> Option<Value> {
    match gone {
        None => Some(value),
        Some(node) if node.member => None,
        Some(node) => remove(value, &node.children, of),
    }
}

/// The set with the structures that lead to its paths. An owner of `a.b.c` owns `a` and `a.b` as long as they are
/// fields that the schema names; keys of maps and items of lists have to be owned for themselves.
pub(super) fn with_named_fields(set: &Set, of: Type<'_>) -> Set {
    let mut named = Set::default();
    for (element, node) in set.nodes() {
        let is_named = matches!(element, PathElement::Field(name) if of.names_field(name));
        let member = node.member || is_named && !node.children.is_empty();
        let children = with_named_fields(&node.children, of.step(element));
        named.put(element.clone(), Node { member, children });
    }
    named
}

/// The set as it would be under today's schema: what has become atomic since is owned as a whole.
pub(super) fn reconcile(set: Set, of: Type<'_>) -> Set {
    if !has_split_atoms(&set, of) {
        return set;
    }
    let mut reconciled = Set::default();
    for (element, node) in set.nodes() {
        let node = match below(element, of) {
            Some(below) if is_split(node, below) => Node::leaf(),
            Some(below) => Node { member: node.member, children: reconcile(node.children.clone(), below) },
            None => node.clone(),
        };
        reconciled.put(element.clone(), node);
    }
    reconciled
}

/// The type behind a step, where a schema has one.
fn below<'a>(element: &PathElement, of: Type<'a>) -> Option<Type<'a>> {
    let below = match (of, element) {
        (Type::Deduced, _) => None,
        (Type::Known(_), PathElement::Field(name)) => of.declared_field(name),
        (Type::Known(_), _) => Some(of.item()),
    };
    below.filter(|below| matches!(below, Type::Known(_)))
}

/// Whether parts are owned of what has one owner as a whole.
fn is_split(node: &Node, of: Type<'_>) -> bool {
    !node.children.is_empty() && matches!(of.shape(&Value::Null), Shape::AtomicMap | Shape::AtomicList)
}

fn has_split_atoms(set: &Set, of: Type<'_>) -> bool {
    set.nodes().any(|(element, node)| {
        below(element, of).is_some_and(|below| is_split(node, below) || has_split_atoms(&node.children, below))
    })
}
