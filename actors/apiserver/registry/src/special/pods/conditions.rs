//! Conditions in the status of an object.

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::special::read::{items, map_mut, text};

/// A moment as objects say it, in whole seconds.
pub(crate) fn time(now: Timestamp) -> String {
    jiff::Timestamp::from_second(now.as_second()).unwrap_or(now).to_string()
}

/// Whether the condition of this type is `True`.
pub(crate) fn is_true(object: &Value, kind: &str) -> bool {
    items(object, "/status/conditions").iter().any(|one| text(one, "/type") == kind && text(one, "/status") == "True")
}

/// Sets a condition of a pod. The time of the last change stays if the condition is what it was.
pub(crate) fn set(pod: &mut Value, kind: &str, status: &str, because: Option<(&str, &str)>, now: Timestamp) {
    let before = items(pod, "/status/conditions").iter().find(|one| text(one, "/type") == kind);
    let since = before.filter(|one| text(one, "/status") == status).map(|one| text(one, "/lastTransitionTime"));
    let since = since.filter(|since| !since.is_empty()).map_or_else(|| time(now), str::to_owned);
    let mut condition = json!({"type": kind, "status": status, "lastProbeTime": null, "lastTransitionTime": since});
    if let Some((reason, message)) = because {
        condition["reason"] = reason.into();
        condition["message"] = message.into();
    }
    let status = map_mut(pod, "status");
    let list = status.entry("conditions").or_insert_with(|| json!([]));
    if !list.is_array() {
        *list = json!([]);
    }
    let Some(list) = list.as_array_mut() else { return };
    match list.iter_mut().find(|one| text(one, "/type") == kind) {
        Some(place) => *place = condition,
        None => list.push(condition),
    }
}
