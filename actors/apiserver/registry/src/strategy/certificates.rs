//! Requests for certificates: who asked is the server's to say, and approval is a matter of its own.

use serde_json::{Map, Value, json};

use super::Context;
use crate::meta;

/// Conditions that only the approval endpoint writes.
const APPROVALS: &[&str] = &["Approved", "Denied"];

pub(super) fn create(request: &mut Value, context: &Context<'_>) {
    let Some(spec) = meta::part(request, "spec") else { return };
    for name in ["username", "uid", "groups", "extra"] {
        spec.remove(name);
    }
    let user = context.user;
    let mut set = |name: &str, value: Value, is_empty: bool| {
        if !is_empty {
            spec.insert(name.to_owned(), value);
        }
    };
    set("username", json!(user.name), user.name.is_empty());
    set("uid", json!(user.uid), user.uid.is_empty());
    set("groups", json!(user.groups), user.groups.is_empty());
    set("extra", json!(user.extra), user.extra.is_empty());
}

pub(super) fn update(new: &mut Value, old: &Value, _: &Context<'_>) {
    meta::copy_field(new, old, "spec");
}

/// Approvals stay as they were; everything else in `status` may change.
pub(super) fn update_status(new: &mut Value, old: &Value, context: &Context<'_>) {
    let others = conditions(new).into_iter().filter(|condition| !is_approval(condition));
    let kept = conditions(old).into_iter().filter(is_approval);
    let merged: Vec<Value> = kept.chain(others).collect();
    set_conditions(new, old, merged, context);
}

/// Only approvals may change.
pub(super) fn update_approval(new: &mut Value, old: &Value, context: &Context<'_>) {
    let approvals = conditions(new).into_iter().filter(is_approval);
    let kept = conditions(old).into_iter().filter(|condition| !is_approval(condition));
    let merged: Vec<Value> = kept.chain(approvals).collect();
    meta::copy_field(new, old, "spec");
    meta::copy_field(new, old, "status");
    set_conditions(new, old, merged, context);
}

fn conditions(request: &Value) -> Vec<Value> {
    meta::at(request, &["status", "conditions"]).and_then(Value::as_array).cloned().unwrap_or_default()
}

fn is_approval(condition: &Value) -> bool {
    APPROVALS.contains(&meta::field(condition, "type"))
}

fn set_conditions(new: &mut Value, old: &Value, mut conditions: Vec<Value>, context: &Context<'_>) {
    let before = self::conditions(old);
    for condition in &mut conditions {
        let status = |condition: &Value| {
            (meta::field(condition, "type").to_owned(), meta::field(condition, "status").to_owned())
        };
        let same = before.iter().find(|found| status(found) == status(condition));
        let Some(fields) = condition.as_object_mut() else { continue };
        let absent = |fields: &Map<String, Value>, name: &str| fields.get(name).is_none_or(Value::is_null);
        if absent(fields, "lastUpdateTime") {
            fields.insert("lastUpdateTime".to_owned(), json!(context.now));
        }
        if absent(fields, "lastTransitionTime") {
            let since = same.and_then(|same| same.get("lastTransitionTime")).cloned();
            fields.insert("lastTransitionTime".to_owned(), since.unwrap_or_else(|| json!(context.now)));
        }
    }
    let Some(status) = meta::part(new, "status") else { return };
    if conditions.is_empty() {
        status.remove("conditions");
    } else {
        status.insert("conditions".to_owned(), Value::Array(conditions));
    }
}
