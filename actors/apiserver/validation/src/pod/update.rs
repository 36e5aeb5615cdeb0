//! What of a pod may change, and through which of its subresources.

use k3sd_objects::status::field::{Error, Path};
use serde_json::{Map, Value};

use super::super::Context;
use super::super::read::{At, Errors, same};
use super::{check_pod, containers};

/// What is said when anything else changes.
const FROZEN: &str = "pod updates may not change fields other than `spec.containers[*].image`,\
                      `spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions \
                      to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it \
                      was previously negative)";

/// A pod that takes the place of another.
pub(in super::super) fn check_update(new: &At<'_>, old: &At<'_>, context: &Context, out: &mut Errors) {
    check_pod(new, context, out);
    let (spec, before) = (new.field("spec"), old.field("spec"));
    // Lists that must line up before their items can be compared one by one.
    for list in ["containers", "initContainers"] {
        if spec.count(list) != before.count(list) {
            out.push(spec.forbidden(list, "pod updates may not add or remove containers"));
            return;
        }
    }
    check_deadline(&spec, &before, out);
    check_gates(&spec, &before, out);
    check_tolerations(&spec, &before, out);
    let gated = before.count("schedulingGates") > 0;
    if !same(&frozen(spec.value, before.value, gated), &frozen(before.value, before.value, gated)) {
        out.push(spec.forbidden("", FROZEN));
    }
}

/// A spec with everything that may change taken from the old one.
fn frozen(spec: &Value, before: &Value, gated: bool) -> Value {
    let Some(fields) = spec.as_object() else { return spec.clone() };
    let mut fields: Map<String, Value> = fields.clone();
    let mut names = vec!["activeDeadlineSeconds", "tolerations", "schedulingGates"];
    if gated {
        names.extend(["nodeSelector", "affinity"]);
    }
    let negative = before.get("terminationGracePeriodSeconds").and_then(Value::as_i64).is_some_and(|old| old < 0);
    if negative && spec.get("terminationGracePeriodSeconds").and_then(Value::as_i64) == Some(1) {
        names.push("terminationGracePeriodSeconds");
    }
    for name in names {
        fields.remove(name);
        fields.extend(before.get(name).map(|value| (name.to_owned(), value.clone())));
    }
    for list in ["containers", "initContainers"] {
        let items = fields.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten();
        for container in items.filter_map(Value::as_object_mut) {
            container.remove("image");
        }
    }
    Value::Object(fields)
}

/// A deadline may be set, or come closer.
fn check_deadline(spec: &At<'_>, before: &At<'_>, out: &mut Errors) {
    let name = "activeDeadlineSeconds";
    let Some(old) = before.number(name) else { return };
    match spec.number(name) {
        None => out.push(Error::invalid(
            &spec.place(name),
            Value::Null,
            "must not update from a positive integer to nil value",
        )),
        Some(new) if new > old => {
            let detail = "must be less than or equal to previous value";
            out.push(spec.invalid(name, detail));
        }
        Some(_) => {}
    }
}

/// Gates only go.
fn check_gates(spec: &At<'_>, before: &At<'_>, out: &mut Errors) {
    for gate in spec.items("schedulingGates") {
        if !before.items("schedulingGates").any(|old| old.text("name") == gate.text("name")) {
            let detail = format!("only deletion is allowed, but found new scheduling gate '{}'", gate.text("name"));
            out.push(gate.forbidden("", detail));
        }
    }
}

/// Tolerations only come; of one that is there, only the time may change.
fn check_tolerations(spec: &At<'_>, before: &At<'_>, out: &mut Errors) {
    let timeless = |toleration: &At<'_>| {
        let mut value = toleration.value.clone();
        value.as_object_mut().map(|fields| fields.remove("tolerationSeconds"));
        value
    };
    let kept: Vec<Value> = spec.items("tolerations").map(|toleration| timeless(&toleration)).collect();
    if before.items("tolerations").any(|old| !kept.iter().any(|new| same(new, &timeless(&old)))) {
        let detail = "existing toleration can not be modified except its tolerationSeconds";
        out.push(spec.forbidden("tolerations", detail));
    }
}

/// The status of a pod: what the kubelet and the scheduler say.
pub(in super::super) fn check_status(new: &At<'_>, old: &At<'_>, _context: &Context, out: &mut Errors) {
    let (status, before) = (new.field("status"), old.field("status"));
    for condition in status.items("conditions").filter(|condition| condition.text("type").is_empty()) {
        out.push(condition.required("type", ""));
    }
    if !same(new.field("spec").get("nodeName"), old.field("spec").get("nodeName")) {
        out.push(status.forbidden("nodeName", "may not be changed directly"));
    }
    status.optional("nominatedNodeName", k3sd_objects::names::dns_subdomain, out);
    let restart = old.field("spec").text("restartPolicy");
    check_restarts(&status, &before, "containerStatuses", restart, out);
    if !status.text("qosClass").is_empty() && !before.text("qosClass").is_empty() {
        status.immutable(&before, "qosClass", out);
    }
}

/// A container that is not restarted stays terminated.
fn check_restarts(status: &At<'_>, before: &At<'_>, list: &str, restart: &str, out: &mut Errors) {
    if restart == "Always" {
        return;
    }
    for old in before.items(list).filter(|old| old.field("state").has("terminated")) {
        let succeeded = old.field("state").field("terminated").number("exitCode").unwrap_or_default() == 0;
        if restart == "OnFailure" && !succeeded {
            continue;
        }
        let now = status.items(list).find(|now| now.text("name") == old.text("name"));
        if now.is_some_and(|now| !now.field("state").has("terminated")) {
            let place = At { value: status.value, path: status.place(list) }.place("state");
            let name = old.text("name");
            let phase = "may not be transitioned to non-terminated state";
            out.push(Error::forbidden(&place, format!("container {name} {phase}")));
        }
    }
}

/// Ephemeral containers: they only come.
pub(in super::super) fn check_ephemeral_update(new: &At<'_>, old: &At<'_>, context: &Context, out: &mut Errors) {
    check_pod(new, context, out);
    let (spec, before) = (new.field("spec"), old.field("spec"));
    if is_static(new) {
        out.push(Error::forbidden(&Path::root(), "static pods do not support ephemeral containers"));
    }
    for old in before.items("ephemeralContainers") {
        let name = old.text("name");
        let detail = match spec.items("ephemeralContainers").find(|now| now.text("name") == name) {
            None => format!("existing ephemeral containers {} may not be removed\n", Value::from(name)),
            Some(now) if !same(now.value, old.value) => {
                format!("existing ephemeral containers {} may not be changed\n", Value::from(name))
            }
            Some(_) => continue,
        };
        out.push(spec.forbidden("ephemeralContainers", detail));
    }
    for container in spec.items("ephemeralContainers") {
        containers::check_image_edges(&container, out);
    }
}

/// Whether a pod comes from a file of its node rather than from here.
fn is_static(pod: &At<'_>) -> bool {
    pod.field("metadata").field("annotations").has("kubernetes.io/config.mirror")
}

/// New amounts of cpu and memory for containers that may be running.
pub(in super::super) fn check_resize(new: &At<'_>, old: &At<'_>, context: &Context, out: &mut Errors) {
    check_pod(new, context, out);
    if is_static(old) {
        out.push(Error::forbidden(&Path::root(), "static pods cannot be resized"));
    }
    let (spec, before) = (new.field("spec"), old.field("spec"));
    if spec.field("os").text("name") == "windows" {
        out.push(Error::forbidden(&Path::root(), "windows pods cannot be resized"));
    }
    if !same(&unsized_spec(spec.value), &unsized_spec(before.value)) {
        out.push(spec.forbidden("", "only cpu and memory resources are mutable"));
    }
}

/// A spec without the cpu and memory of its containers and sidecars.
fn unsized_spec(spec: &Value) -> Value {
    let mut spec = spec.clone();
    for list in ["containers", "initContainers"] {
        let items = spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten();
        for container in items {
            if list == "initContainers" && container.get("restartPolicy").is_none() {
                continue;
            }
            for amounts in ["requests", "limits"] {
                let amounts = container.get_mut("resources").and_then(|resources| resources.get_mut(amounts));
                let Some(amounts) = amounts.and_then(Value::as_object_mut) else { continue };
                amounts.remove("cpu");
                amounts.remove("memory");
            }
        }
    }
    spec
}

/// The assignment of a pod to a node.
pub(in super::super) fn check_binding(binding: &At<'_>, out: &mut Errors) {
    let target = binding.field("target");
    if !["", "Node"].contains(&target.text("kind")) {
        out.push(target.unsupported("kind", &["Node", "<empty>"]));
    }
    if target.text("name").is_empty() {
        out.push(target.required("name", ""));
    }
}
