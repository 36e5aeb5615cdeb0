//! What has to be done so that a stored role or binding grants at least what it should.

use serde_json::{Map, Value, json};

use super::super::cover::missing;
use super::super::rule::PolicyRule;
use super::AUTOUPDATE;

/// What to do about one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Nothing: it is as it should be, or its owner forbade changes.
    Leave,
    /// Write this in its place.
    Update(Value),
    /// Delete it, then create this: what a binding hands out can't be changed.
    Recreate(Value),
}

/// Compares a role with the expected one of the same name. Rules that only the stored one has are kept.
#[must_use]
pub fn reconcile_role(expected: &Value, stored: &Value) -> Action {
    if is_protected(stored) {
        return Action::Leave;
    }
    let mut wanted = stored.clone();
    merge_metadata(&mut wanted, expected);
    match expected.pointer("/aggregationRule/clusterRoleSelectors").and_then(Value::as_array) {
        // Its rules are somebody else's work; only who may contribute is ours.
        Some(selectors) => {
            add_missing(&mut wanted, "/aggregationRule/clusterRoleSelectors", selectors, |left, right| left == right);
        }
        None => {
            let stored_rules = PolicyRule::list_of(stored);
            let lacking = missing(&stored_rules, &PolicyRule::list_of(expected));
            let lacking: Vec<Value> = lacking.iter().map(PolicyRule::to_value).collect();
            add_missing(&mut wanted, "/rules", &lacking, |_, _| false);
        }
    }
    if wanted == *stored { Action::Leave } else { Action::Update(wanted) }
}

/// Compares a binding with the expected one of the same name. Subjects that only the stored one has are kept.
#[must_use]
pub fn reconcile_binding(expected: &Value, stored: &Value) -> Action {
    if is_protected(stored) {
        return Action::Leave;
    }
    let mut wanted = stored.clone();
    merge_metadata(&mut wanted, expected);
    let subjects = expected.get("subjects").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    add_missing(&mut wanted, "/subjects", subjects, same_subject);
    if expected.get("roleRef") != stored.get("roleRef") {
        wanted["roleRef"] = expected["roleRef"].clone();
        if let Some(metadata) = wanted.get_mut("metadata").and_then(Value::as_object_mut) {
            // A new object: it gets its own.
            for field in ["resourceVersion", "uid", "creationTimestamp", "managedFields"] {
                metadata.remove(field);
            }
        }
        return Action::Recreate(wanted);
    }
    if wanted == *stored { Action::Leave } else { Action::Update(wanted) }
}

fn is_protected(stored: &Value) -> bool {
    stored["metadata"]["annotations"][AUTOUPDATE] == "false"
}

fn same_subject(left: &Value, right: &Value) -> bool {
    ["kind", "apiGroup", "name", "namespace"].iter().all(|field| left.get(field) == right.get(field))
}

/// Adds labels and annotations that aren't there; where both have a value, the stored one stays.
fn merge_metadata(wanted: &mut Value, expected: &Value) {
    for place in ["labels", "annotations"] {
        let Some(from) = expected["metadata"][place].as_object() else { continue };
        let Some(metadata) = wanted.get_mut("metadata").and_then(Value::as_object_mut) else { continue };
        let into = metadata.entry(place).or_insert_with(|| json!({}));
        if into.is_null() {
            *into = json!({});
        }
        let Some(into) = into.as_object_mut() else { continue };
        for (key, value) in from {
            into.entry(key).or_insert_with(|| value.clone());
        }
    }
}

/// Appends the items that a list lacks; makes the list if it isn't there.
fn add_missing(wanted: &mut Value, pointer: &str, items: &[Value], same: impl Fn(&Value, &Value) -> bool) {
    let mut place = wanted;
    let mut fields = pointer.split('/').skip(1).peekable();
    while let Some(field) = fields.next() {
        if !place.is_object() {
            *place = Value::Object(Map::new());
        }
        let last = fields.peek().is_none();
        let lacks_list = last && !place[field].is_array();
        if lacks_list && items.is_empty() {
            return;
        }
        if lacks_list {
            place[field] = json!([]);
        }
        place = &mut place[field];
    }
    let Some(list) = place.as_array_mut() else { return };
    for item in items {
        if !list.iter().any(|there| same(there, item)) {
            list.push(item.clone());
        }
    }
}
