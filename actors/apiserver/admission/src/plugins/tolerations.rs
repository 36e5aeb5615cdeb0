//! Taints and tolerations: `TaintNodesByCondition`, `DefaultTolerationSeconds`, `ExtendedResourceToleration`.

use std::collections::BTreeSet;

use k3sd_objects::quota::is_device;
use serde_json::{Value, json};

use crate::attributes::{Attributes, Operation};
use crate::config::AdmissionConfig;
use crate::read::{entries, field, items, list_mut, map_mut, same, text};

const NOT_READY: &str = "node.kubernetes.io/not-ready";
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
const NO_EXECUTE: &str = "NoExecute";
const NO_SCHEDULE: &str = "NoSchedule";

/// Keeps pods off a new node until it says that it is ready.
pub(crate) fn taint_node(a: &Attributes<'_>, node: &mut Value) {
    if a.operation != Operation::Create || !a.subresource.is_empty() || !a.is("", "nodes") {
        return;
    }
    if map_mut(node, "spec").is_none() {
        return;
    }
    let Some(taints) = node.get_mut("spec").and_then(|spec| list_mut(spec, "taints")) else { return };
    let is_it = |taint: &Value| text(taint, "key") == NOT_READY && text(taint, "effect") == NO_SCHEDULE;
    if !taints.iter().any(is_it) {
        taints.push(json!({"key": NOT_READY, "effect": NO_SCHEDULE}));
    }
}

/// Lets pods stay for a while on a node that fails, unless they say how long.
pub(crate) fn add_default_seconds(a: &Attributes<'_>, pod: &mut Value, config: &AdmissionConfig) {
    if !a.is_pod() || !matches!(a.operation, Operation::Create | Operation::Update) {
        return;
    }
    let Some(spec) = pod.get_mut("spec") else { return };
    for (key, seconds) in
        [(NOT_READY, config.not_ready_toleration_seconds), (UNREACHABLE, config.unreachable_toleration_seconds)]
    {
        let tolerates = |toleration: &Value| {
            [key, ""].contains(&text(toleration, "key")) && [NO_EXECUTE, ""].contains(&text(toleration, "effect"))
        };
        if items(spec, "tolerations").iter().any(tolerates) {
            continue;
        }
        if let Some(tolerations) = list_mut(spec, "tolerations") {
            let added = json!({"key": key, "operator": "Exists", "effect": NO_EXECUTE, "tolerationSeconds": seconds});
            tolerations.push(added);
        }
    }
}

/// Lets pods onto nodes that are kept for the devices they ask for.
pub(crate) fn add_for_devices(a: &Attributes<'_>, pod: &mut Value) {
    if !a.is_pod() || !matches!(a.operation, Operation::Create | Operation::Update) {
        return;
    }
    let Some(spec) = pod.get_mut("spec") else { return };
    let containers = ["containers", "initContainers"].iter().flat_map(|list| items(spec, list));
    let requests = containers.flat_map(|container| entries(field(container, "resources"), "requests"));
    let devices: BTreeSet<String> =
        requests.map(|(name, _)| name).filter(|name| is_device(name)).map(str::to_owned).collect();
    for key in devices {
        let added = json!({"key": key, "operator": "Exists", "effect": NO_SCHEDULE});
        if !items(spec, "tolerations").iter().any(|toleration| covers(toleration, &added))
            && let Some(tolerations) = list_mut(spec, "tolerations")
        {
            tolerations.push(added);
        }
    }
}

/// Both lists without those that others cover; of equal ones the first stays.
pub(crate) fn merge(first: &[Value], second: &[Value]) -> Vec<Value> {
    let all: Vec<&Value> = first.iter().chain(second).collect();
    let mut merged: Vec<Value> = Vec::new();
    for (index, toleration) in all.iter().enumerate() {
        let covered = merged.iter().any(|known| covers(known, toleration))
            || all[index + 1..].iter().any(|later| later != toleration && covers(later, toleration));
        if !covered {
            merged.push((*toleration).clone());
        }
    }
    merged
}

/// Whether `wide` tolerates all that `toleration` does, for as long.
fn covers(wide: &Value, toleration: &Value) -> bool {
    if same(wide, toleration) {
        return true;
    }
    let operator = text(wide, "operator");
    let (key, effect) = (text(wide, "key"), text(wide, "effect"));
    if text(toleration, "key") != key && !(key.is_empty() && operator == "Exists") {
        return false;
    }
    if text(toleration, "effect") != effect && !effect.is_empty() {
        return false;
    }
    let seconds = |value: &Value| field(value, "tolerationSeconds").as_i64();
    if effect == NO_EXECUTE
        && let Some(limit) = seconds(wide)
        && seconds(toleration).is_none_or(|other| other > limit)
    {
        return false;
    }
    match operator {
        "Equal" | "" => text(toleration, "operator") == "Equal" && text(toleration, "value") == text(wide, "value"),
        "Exists" => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tolerations_merge_as_upstream_merges_them() {
        let exists = |key: &str| json!({"key": key, "operator": "Exists"});
        let equal = |key: &str, value: &str| json!({"key": key, "operator": "Equal", "value": value});
        let timed = |seconds: i64| json!({"key": "a", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": seconds});
        for (first, second, merged) in [
            (vec![], vec![], vec![]),
            (vec![exists("a")], vec![exists("a")], vec![exists("a")]),
            (vec![equal("a", "x")], vec![exists("a")], vec![exists("a")]),
            (vec![exists("a")], vec![equal("a", "x")], vec![exists("a")]),
            (vec![equal("a", "x")], vec![equal("a", "y")], vec![equal("a", "x"), equal("a", "y")]),
            (vec![exists("a")], vec![exists("")], vec![exists("")]),
            (vec![timed(5)], vec![timed(9)], vec![timed(9)]),
            (vec![timed(5)], vec![exists("a")], vec![exists("a")]),
        ] {
            assert_eq!(merge(&first, &second), merged, "{first:?} {second:?}");
        }
    }
}
