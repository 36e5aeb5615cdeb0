//! Pods: what they begin with, and what may be changed through their subresources.

use serde_json::{Value, json};

use super::{Context, qos_class};
use crate::meta;

pub(super) fn create(pod: &mut Value, context: &Context<'_>) {
    let mut status = json!({ "phase": "Pending", "qosClass": qos_class(pod) });
    let gates = meta::at(pod, &["spec", "schedulingGates"]).and_then(Value::as_array);
    if gates.is_some_and(|gates| !gates.is_empty()) {
        status["conditions"] = json!([{
            "type": "PodScheduled",
            "status": "False",
            "reason": "SchedulingGated",
            "message": "Scheduling is blocked due to non-empty scheduling gates",
            "lastProbeTime": null,
            "lastTransitionTime": context.now,
        }]);
    }
    if let Some(fields) = pod.as_object_mut() {
        fields.insert("status".to_owned(), status);
    }
    name_spread_labels(pod);
}

/// `matchLabelKeys` name labels of the pod itself; from here on, selectors have their values.
fn name_spread_labels(pod: &mut Value) {
    let labels = meta::get(pod, "labels").cloned().unwrap_or_default();
    let Some(spec) = meta::part(pod, "spec") else { return };
    let constraints = spec.get_mut("topologySpreadConstraints").and_then(Value::as_array_mut);
    for constraint in constraints.into_iter().flatten() {
        merge_label_keys(constraint, "matchLabelKeys", "In", &labels);
    }
    let Some(affinity) = spec.get_mut("affinity") else { return };
    for kind in ["podAffinity", "podAntiAffinity"] {
        let Some(rules) = affinity.get_mut(kind) else { continue };
        for term in list(rules, "requiredDuringSchedulingIgnoredDuringExecution") {
            merge_affinity_keys(term, &labels);
        }
        for weighted in list(rules, "preferredDuringSchedulingIgnoredDuringExecution") {
            if let Some(term) = weighted.get_mut("podAffinityTerm") {
                merge_affinity_keys(term, &labels);
            }
        }
    }
}

fn list<'a>(value: &'a mut Value, name: &str) -> impl Iterator<Item = &'a mut Value> {
    value.get_mut(name).and_then(Value::as_array_mut).into_iter().flatten()
}

fn merge_affinity_keys(term: &mut Value, labels: &Value) {
    merge_label_keys(term, "matchLabelKeys", "In", labels);
    merge_label_keys(term, "mismatchLabelKeys", "NotIn", labels);
}

fn merge_label_keys(term: &mut Value, field: &str, operator: &str, labels: &Value) {
    let keys: Vec<String> = term
        .get(field)
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .map(str::to_owned)
        .collect();
    // Without a selector nothing is selected, and keys would make something of it.
    let Some(selector) = term.get_mut("labelSelector").and_then(Value::as_object_mut) else { return };
    for key in keys {
        let Some(value) = labels.get(&key).and_then(Value::as_str) else { continue };
        let expression = json!({ "key": key, "operator": operator, "values": [value] });
        let expressions = selector.entry("matchExpressions").or_insert_with(|| json!([]));
        if let Some(list) = expressions.as_array_mut()
            && !list.contains(&expression)
        {
            list.push(expression);
        }
    }
}

/// The class is decided once.
pub(super) fn update_status(new: &mut Value, old: &Value, _: &Context<'_>) {
    let class = meta::at(old, &["status", "qosClass"]).cloned();
    let Some(status) = meta::part(new, "status") else { return };
    match class {
        Some(class) => status.insert("qosClass".to_owned(), class),
        None => status.remove("qosClass"),
    };
}

/// Takes over nothing but the ephemeral containers.
pub(super) fn update_ephemeral(new: &mut Value, old: &Value) {
    let containers = meta::at(new, &["spec", "ephemeralContainers"]).cloned();
    let mut pod = rest_of(new, old);
    if let Some(spec) = meta::part(&mut pod, "spec") {
        match containers {
            Some(containers) => spec.insert("ephemeralContainers".to_owned(), containers),
            None => spec.remove("ephemeralContainers"),
        };
    }
    *new = pod;
}

/// Takes over nothing but what containers get of processors and memory.
pub(super) fn update_resize(new: &mut Value, old: &Value) {
    let mut pod = rest_of(new, old);
    for field in ["containers", "initContainers"] {
        let wanted = meta::at(new, &["spec", field]).and_then(Value::as_array).cloned().unwrap_or_default();
        let Some(spec) = pod.get_mut("spec") else { continue };
        for container in list(spec, field) {
            let name = meta::field(container, "name");
            let Some(resized) = wanted.iter().find(|other| meta::field(other, "name") == name) else { continue };
            for part in ["resources", "resizePolicy"] {
                meta::copy_field(container, resized, part);
            }
        }
    }
    *new = pod;
}

/// The old pod, with what the bookkeeping of the write needs from the new one.
fn rest_of(new: &Value, old: &Value) -> Value {
    let mut pod = old.clone();
    for name in ["name", "namespace", "uid", "resourceVersion", "managedFields"] {
        meta::copy(&mut pod, new, name);
    }
    pod
}
