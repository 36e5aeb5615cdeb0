//! Lists in strategic merge patches: items found by a key, and the order in which they come out.
//!
//! Order is decided three times: items of the patch come in the order that the patch states; items that only the object
//! has keep the order of the object; and of two such items, one of each, the object's order decides if it knows both,
//! else the patch's item comes first.

use std::collections::HashMap;

use serde_json::{Map, Value};

use super::PatchError;
use super::strategic::{PATCH, as_item, as_value, malformed, merge_maps, unknown_directive};
use crate::schema::SchemaRef;
use crate::status::go;

/// What is known of a list that merges.
#[derive(Clone, Copy)]
pub(super) struct List<'a> {
    /// Its items.
    pub(super) item: Option<SchemaRef<'a>>,
    /// The field that tells items apart; none if they are scalars.
    pub(super) key: Option<&'a str>,
}

/// Where each item stands, by what tells it apart. Of equal ones the first counts.
struct Positions(HashMap<String, usize>);

impl Positions {
    fn of(items: &[Value], key: Option<&str>) -> Result<Self, PatchError> {
        let mut positions = HashMap::with_capacity(items.len());
        for (position, item) in items.iter().enumerate() {
            positions.entry(identity(item, key)?).or_insert(position);
        }
        Ok(Self(positions))
    }

    fn get(&self, identity: &str) -> Option<usize> {
        self.0.get(identity).copied()
    }
}

/// What tells an item apart: the value of its key, or all of it.
fn identity(item: &Value, key: Option<&str>) -> Result<String, PatchError> {
    let Some(key) = key else { return Ok(item.to_string()) };
    match item.get(key) {
        Some(value) => Ok(value.to_string()),
        None => Err(malformed(format!("map: {} does not contain declared merge key: {key}", go::plain(item)))),
    }
}

/// Whether the items are maps. They are all of one type, and none of them is a list.
fn are_maps<'i>(items: impl Iterator<Item = &'i Value>) -> Result<bool, PatchError> {
    let mut kind = None;
    for item in items {
        if item.is_array() {
            return Err(PatchError::Unfit("lists of lists are not supported".to_owned()));
        }
        let this = std::mem::discriminant(item);
        if *kind.get_or_insert((this, item.is_object())) != (this, item.is_object()) {
            return Err(malformed("list element types are not identical"));
        }
    }
    Ok(kind.is_some_and(|(_, is_map)| is_map))
}

/// Merges a patch's list into an object's.
pub(super) fn merge_lists(old: Vec<Value>, new: Vec<Value>, list: List<'_>) -> Result<Vec<Value>, PatchError> {
    if !are_maps(old.iter().chain(&new))? {
        return merge_scalars(&old, &new);
    }
    let Some(key) = list.key else { return Err(malformed("cannot merge lists without merge key for type map")) };
    let (server, new) = match apply_directives(old, new, key)? {
        Directed::Merge { old, new } => (old, new),
        Directed::Replace(items) => return Ok(items),
    };
    let mut merged = server.clone();
    let mut positions = Positions::of_known(&merged, key);
    for item in &new {
        let id = identity(item, Some(key))?;
        let Value::Object(change) = item.clone() else { continue };
        match positions.get(&id) {
            Some(position) => {
                let target = as_map(std::mem::take(&mut merged[position]));
                merged[position] = Value::Object(merge_maps(target, change, list.item)?);
            }
            None => {
                positions.0.insert(id, merged.len());
                merged.push(as_value(Value::Object(change)));
            }
        }
    }
    arrange(merged, &new, &server, Some(key))
}

impl Positions {
    /// Like [`of`](Self::of), for items of an object: one without the key is never found.
    fn of_known(items: &[Value], key: &str) -> Self {
        let mut positions = HashMap::with_capacity(items.len());
        for (position, item) in items.iter().enumerate() {
            if let Some(value) = item.get(key) {
                positions.entry(value.to_string()).or_insert(position);
            }
        }
        Self(positions)
    }
}

fn as_map(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(fields) => fields,
        _ => Map::new(),
    }
}

fn merge_scalars(old: &[Value], new: &[Value]) -> Result<Vec<Value>, PatchError> {
    let mut seen = std::collections::HashSet::new();
    let merged = old.iter().chain(new).filter(|item| seen.insert(item.to_string())).cloned().collect();
    arrange(merged, new, old, None)
}

/// What is left of two lists after the patch's directives.
enum Directed {
    /// Two lists to merge.
    Merge { old: Vec<Value>, new: Vec<Value> },
    /// The patch's list is the new one.
    Replace(Vec<Value>),
}

fn apply_directives(mut old: Vec<Value>, new: Vec<Value>, key: &str) -> Result<Directed, PatchError> {
    let mut plain = Vec::with_capacity(new.len());
    let mut deleted = std::collections::HashSet::new();
    let mut replace = false;
    for item in new {
        let Some(directive) = item.get(PATCH) else {
            plain.push(item);
            continue;
        };
        match directive.as_str() {
            Some("delete") => {
                deleted.insert(identity(&item, Some(key))?);
            }
            Some("replace") => replace = true,
            Some("merge") => return Err(malformed("merging lists cannot yet be specified in the patch")),
            _ => return Err(unknown_directive(directive, item.as_object().unwrap_or(&Map::new()))),
        }
    }
    if replace {
        return Ok(Directed::Replace(plain.into_iter().filter_map(as_item).collect()));
    }
    if !deleted.is_empty() {
        old.retain(|item| item.get(key).is_none_or(|value| !deleted.contains(&value.to_string())));
    }
    Ok(Directed::Merge { old, new: plain })
}

/// Merges two lists and puts the outcome into the order that `$setElementOrder` states.
pub(super) fn order_list(
    old: &[Value],
    new: Option<&[Value]>,
    order: &[Value],
    key: Option<&str>,
    merge: impl FnOnce() -> Result<Vec<Value>, PatchError>,
) -> Result<Vec<Value>, PatchError> {
    are_maps(order.iter())?;
    check_order(new.unwrap_or_default(), order, key)?;
    arrange(merge()?, order, old, key)
}

/// The patch's own items must come in the order that it states.
fn check_order(new: &[Value], order: &[Value], key: Option<&str>) -> Result<(), PatchError> {
    if new.is_empty() || order.is_empty() {
        return Ok(());
    }
    let mut places = order.iter();
    for item in new.iter().filter(|item| item.get(PATCH).is_none()) {
        let id = identity(item, key)?;
        let mut found = false;
        for place in places.by_ref() {
            if identity(place, key)? == id {
                found = true;
                break;
            }
        }
        if !found {
            let (new, order) = (Value::Array(new.to_vec()), Value::Array(order.to_vec()));
            return Err(malformed(format!(
                "The order in patch list:\n{}\n doesn't match $setElementOrder list:\n{}\n",
                go::plain(&new),
                go::plain(&order)
            )));
        }
    }
    Ok(())
}

/// Puts merged items in order: those of `wanted` as it lists them, the others as the object had them, both interleaved.
fn arrange(
    merged: Vec<Value>,
    wanted: &[Value],
    server: &[Value],
    key: Option<&str>,
) -> Result<Vec<Value>, PatchError> {
    let wanted = Positions::of(wanted, key)?;
    let server = match key {
        Some(key) => Positions::of_known(server, key),
        None => Positions::of(server, None)?,
    };
    let (mut patch_items, mut server_items) = (Vec::new(), Vec::new());
    for item in merged {
        let id = identity(&item, key)?;
        let place = server.get(&id);
        match wanted.get(&id) {
            Some(position) => patch_items.push((position, place, item)),
            None => server_items.push((place.unwrap_or(usize::MAX), place, item)),
        }
    }
    patch_items.sort_by_key(|(position, ..)| *position);
    server_items.sort_by_key(|(position, ..)| *position);
    let mut arranged = Vec::with_capacity(patch_items.len() + server_items.len());
    let (mut left, mut right) = (server_items.into_iter().peekable(), patch_items.into_iter().peekable());
    while let (Some((_, left_place, _)), Some((_, right_place, _))) = (left.peek(), right.peek()) {
        let is_left = matches!((left_place, right_place), (Some(left), Some(right)) if left < right);
        let next = if is_left { left.next() } else { right.next() };
        arranged.extend(next.map(|(.., item)| item));
    }
    arranged.extend(left.chain(right).map(|(.., item)| item));
    Ok(arranged)
}
