//! Strategic merge patch: a merge patch that knows how lists merge.
//!
//! Beside values, a patch holds directives, in fields whose names begin with a dollar sign:
//!
//! | directive | says |
//! |---|---|
//! | `$patch: replace` | the rest of this map is the new value; as an item of a list, the rest of the list is |
//! | `$patch: delete` | this map is emptied; as an item with its key, that item is removed |
//! | `$retainKeys: [..]` | only these fields stay |
//! | `$deleteFromPrimitiveList/x: [..]` | these values leave the list `x` |
//! | `$setElementOrder/x: [..]` | the order of the list `x` |
//!
//! None of them reaches the object.

use serde_json::{Map, Value};

use super::list::{List, merge_lists, order_list};
use super::merge::drop_nulls;
use super::{PatchError, type_name};
use crate::schema::SchemaRef;
use crate::status::go;

/// What a map or an item is to become.
pub(super) const PATCH: &str = "$patch";
/// The fields that stay.
const RETAIN_KEYS: &str = "$retainKeys";
/// Begins the name of a list of values to remove.
const DELETE_FROM: &str = "$deleteFromPrimitiveList";
/// Begins the name of a list of items in order.
const ELEMENT_ORDER: &str = "$setElementOrder";

/// Applies a strategic merge patch to an object that the schema describes.
///
/// # Errors
///
/// Fails if the patch is no object, or one of its directives or lists can't be understood.
pub fn apply_strategic_patch(object: Value, patch: Value, schema: SchemaRef<'_>) -> Result<Value, PatchError> {
    let (Value::Object(object), Value::Object(patch)) = (object, patch) else {
        return Err(malformed("invalid JSON document"));
    };
    merge_maps(object, patch, Some(schema)).map(Value::Object)
}

pub(super) fn malformed(text: impl Into<String>) -> PatchError {
    PatchError::Malformed(text.into())
}

fn wrong_type(wanted: &str, found: &Value) -> PatchError {
    malformed(format!("expected a {wanted}, but received a {}", type_name(found)))
}

/// How the value of a field merges. What no schema describes merges like a merge patch.
#[derive(Clone, Copy)]
struct Field<'a> {
    schema: Option<SchemaRef<'a>>,
}

impl<'a> Field<'a> {
    fn of(parent: Option<SchemaRef<'a>>, name: &str) -> Self {
        Self { schema: parent.and_then(|parent| parent.field(name)) }
    }

    fn is_replaced(self) -> bool {
        self.schema.is_some_and(|schema| schema.patch_strategy().replace)
    }

    /// The list's item and key, if it merges.
    fn list(self) -> Option<List<'a>> {
        let schema = self.schema.filter(|schema| schema.patch_strategy().merge)?;
        Some(List { item: schema.item(), key: schema.merge_key() })
    }
}

/// Merges two maps.
pub(super) fn merge_maps(
    mut target: Map<String, Value>,
    mut patch: Map<String, Value>,
    schema: Option<SchemaRef<'_>>,
) -> Result<Map<String, Value>, PatchError> {
    if let Some(directive) = patch.get(PATCH) {
        return match directive.as_str() {
            Some("replace") => Ok(without_directives(patch)),
            Some("delete") => Ok(Map::new()),
            _ => Err(unknown_directive(&directive.clone(), &patch)),
        };
    }
    retain_keys(&mut target, &mut patch)?;
    order_elements(&mut target, &mut patch, schema)?;
    for (name, change) in patch {
        let (name, is_deletion) = match list_behind(&name, DELETE_FROM)? {
            Some(list) => (list.to_owned(), true),
            None => (name, false),
        };
        if change.is_null() {
            target.remove(&name);
            continue;
        }
        let field = Field::of(schema, &name);
        let merged = match (target.remove(&name), change) {
            (Some(old), Value::Array(values)) if is_deletion => delete_values(old, &values),
            (old, _) if is_deletion => match old {
                Some(old) => old,
                None => continue,
            },
            (Some(Value::Object(old)), Value::Object(new)) if !field.is_replaced() => {
                Value::Object(merge_maps(old, new, field.schema)?)
            }
            (Some(Value::Array(old)), Value::Array(new)) => Value::Array(merge_list_field(old, new, field)?),
            (_, new) => as_value(new),
        };
        target.insert(name, merged);
    }
    Ok(target)
}

fn merge_list_field(old: Vec<Value>, new: Vec<Value>, field: Field<'_>) -> Result<Vec<Value>, PatchError> {
    match field.list() {
        Some(list) => merge_lists(old, new, list),
        None => Ok(new.into_iter().filter_map(as_item).collect()),
    }
}

pub(super) fn unknown_directive(directive: &Value, patch: &Map<String, Value>) -> PatchError {
    let patch = Value::Object(patch.clone());
    malformed(format!("unknown patch type: {} in map: {}", go::plain(directive), go::plain(&patch)))
}

/// The list that a directive `prefix/list` is about.
fn list_behind<'n>(name: &'n str, prefix: &str) -> Result<Option<&'n str>, PatchError> {
    let Some(rest) = name.strip_prefix(prefix) else { return Ok(None) };
    let what = if prefix == DELETE_FROM { "primitive list" } else { "setElementOrder list" };
    rest.strip_prefix('/').map(Some).ok_or_else(|| malformed(format!("invalid patch format of {what}")))
}

/// Removes what `$retainKeys` does not list. The patch may only set what it lists.
fn retain_keys(target: &mut Map<String, Value>, patch: &mut Map<String, Value>) -> Result<(), PatchError> {
    let Some(kept) = patch.remove(RETAIN_KEYS) else { return Ok(()) };
    let wrong = || malformed("invalid patch format of retainKeys");
    let kept = kept.as_array().ok_or_else(wrong)?;
    let is_kept = |name: &str| kept.iter().any(|kept| kept.as_str() == Some(name));
    for (name, change) in &*patch {
        let is_directive = name.starts_with(DELETE_FROM) || name.starts_with(ELEMENT_ORDER);
        if !change.is_null() && !is_directive && !is_kept(name) {
            return Err(wrong());
        }
    }
    target.retain(|name, _| is_kept(name));
    Ok(())
}

/// Merges the lists whose order the patch states, and takes them out of it.
fn order_elements(
    target: &mut Map<String, Value>,
    patch: &mut Map<String, Value>,
    schema: Option<SchemaRef<'_>>,
) -> Result<(), PatchError> {
    let directives: Vec<String> = patch.keys().filter(|name| name.starts_with(ELEMENT_ORDER)).cloned().collect();
    for directive in directives {
        let order = match patch.remove(&directive) {
            Some(Value::Array(order)) => order,
            other => return Err(wrong_type("array", &other.unwrap_or_default())),
        };
        let Some(name) = list_behind(&directive, ELEMENT_ORDER)? else { continue };
        // A list that is to go needs no order.
        if patch.get(name).is_some_and(Value::is_null) {
            continue;
        }
        let as_list = |value: Option<Value>| match value {
            None => Ok(None),
            Some(Value::Array(items)) => Ok(Some(items)),
            Some(other) => Err(wrong_type("array", &other)),
        };
        let (old, new) = (as_list(target.remove(name))?, as_list(patch.remove(name))?);
        if old.is_none() && new.is_none() {
            continue;
        }
        let field = Field::of(schema, name);
        let list = field.list().unwrap_or(List { item: None, key: None });
        let old = old.unwrap_or_default();
        let merged = order_list(&old, new.as_deref(), &order, list.key, || match &new {
            Some(new) => merge_list_field(old.clone(), new.clone(), field),
            None => Ok(old.clone()),
        })?;
        target.insert(name.to_owned(), Value::Array(merged));
    }
    Ok(())
}

/// Removes values from a list of scalars.
fn delete_values(list: Value, values: &[Value]) -> Value {
    match list {
        Value::Array(items) => {
            let gone: std::collections::BTreeSet<String> = values.iter().map(ToString::to_string).collect();
            Value::Array(items.into_iter().filter(|item| !gone.contains(&item.to_string())).collect())
        }
        other => other,
    }
}

/// A value that meets nothing to merge with: without directives and nulls.
pub(super) fn as_value(value: Value) -> Value {
    match value {
        Value::Object(fields) => Value::Object(without_directives(fields)),
        Value::Array(items) => Value::Array(items.into_iter().filter_map(as_item).collect()),
        mut other => {
            drop_nulls(&mut other);
            other
        }
    }
}

/// An item that meets nothing to merge with; nothing if it is a directive only.
pub(super) fn as_item(item: Value) -> Option<Value> {
    let directive = item.get(PATCH).and_then(Value::as_str);
    let is_marker = directive == Some("delete")
        || directive == Some("replace") && item.as_object().is_some_and(|fields| fields.len() == 1);
    (!is_marker).then(|| as_value(item))
}

fn without_directives(fields: Map<String, Value>) -> Map<String, Value> {
    if fields.get(PATCH).and_then(Value::as_str) == Some("delete") {
        return Map::new();
    }
    let is_directive = |name: &str| {
        name == PATCH || name == RETAIN_KEYS || name.starts_with(DELETE_FROM) || name.starts_with(ELEMENT_ORDER)
    };
    let kept = fields.into_iter().filter(|(name, value)| !value.is_null() && !is_directive(name));
    kept.map(|(name, value)| (name, as_value(value))).collect()
}
