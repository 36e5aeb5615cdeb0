//! What is sent of a status: a strategic merge patch with the differences alone.

use k8s_openapi::api::core::v1::NodeStatus;
use serde_json::{Map, Value, json};

/// Fields that are maps: single entries are sent, and `null` for those that are gone.
const MAPS: [&str; 2] = ["capacity", "allocatable"];
/// Fields of which somebody else is the owner.
const FOREIGN: [&str; 2] = ["volumesAttached", "config"];

/// The difference of two statuses.
#[derive(Clone, Debug, PartialEq)]
pub struct Difference {
    /// The patch, around `status`; none if nothing at all differs.
    pub patch: Option<Value>,
    /// Whether more than the time of a heartbeat differs.
    pub is_news: bool,
}

/// Compares what the API has with what is so.
#[must_use]
pub fn difference(before: &NodeStatus, now: &NodeStatus) -> Difference {
    let (before, now) = (fields(before), fields(now));
    let mut patch = Map::new();
    let mut is_news = false;
    let names = before.keys().chain(now.keys().filter(|name| !before.contains_key(*name)));
    for name in names.filter(|name| !FOREIGN.contains(&name.as_str())) {
        let (old, new) = (before.get(name), now.get(name));
        if old == new {
            continue;
        }
        let value = match (name.as_str(), old, new) {
            ("conditions", old, Some(new)) => {
                let changed = changed_conditions(old, new);
                is_news |= changed.iter().any(|(_, is_news)| *is_news);
                json!(changed.into_iter().map(|(condition, _)| condition).collect::<Vec<_>>())
            }
            ("addresses", _, Some(new)) => {
                // Its merge key is the type, of which there may be several: only a whole list is what was meant.
                let mut list = new.as_array().cloned().unwrap_or_default();
                list.push(json!({"$patch": "replace"}));
                is_news = true;
                Value::Array(list)
            }
            (name, Some(Value::Object(old)), Some(Value::Object(new))) if MAPS.contains(&name) => {
                is_news = true;
                let gone = old.keys().filter(|key| !new.contains_key(*key)).map(|key| (key.clone(), Value::Null));
                let other = new.iter().filter(|(key, value)| old.get(*key) != Some(*value));
                gone.chain(other.map(|(key, value)| (key.clone(), value.clone()))).collect()
            }
            (_, _, new) => {
                is_news = true;
                new.cloned().unwrap_or(Value::Null)
            }
        };
        patch.insert(name.clone(), value);
    }
    let patch = (!patch.is_empty()).then(|| json!({ "status": patch }));
    Difference { patch, is_news }
}

fn fields(status: &NodeStatus) -> Map<String, Value> {
    match serde_json::to_value(status) {
        Ok(Value::Object(map)) => map,
        _ => Map::new(),
    }
}

/// Conditions that differ, each with whether more than its heartbeat does.
fn changed_conditions(before: Option<&Value>, now: &Value) -> Vec<(Value, bool)> {
    let old = |type_: &Value| {
        let all = before.and_then(Value::as_array).into_iter().flatten();
        all.clone().find(|condition| condition["type"] == *type_)
    };
    let without_beat = |condition: &Value| {
        let mut condition = condition.clone();
        if let Some(map) = condition.as_object_mut() {
            map.remove("lastHeartbeatTime");
        }
        condition
    };
    let all = now.as_array().into_iter().flatten();
    all.filter_map(|condition| match old(&condition["type"]) {
        Some(old) if old == condition => None,
        Some(old) => Some((condition.clone(), without_beat(old) != without_beat(condition))),
        None => Some((condition.clone(), true)),
    })
    .collect()
}
