//! `bindings` and `pods/binding`: puts a pod on a node, once.

use jiff::Timestamp;
use k3sd_objects::status::field::{self, Error, Path};
use k3sd_objects::status::go::quote;
use k3sd_objects::status::{Qualified, Reason, Status};
use serde_json::Value;

use super::conditions;
use crate::special::read::{items, map_mut, text};

/// What the errors of a binding are about.
const BINDING: Qualified<'_> = Qualified { group: "", name: "pods/binding" };
const PODS: Qualified<'_> = Qualified { group: "", name: "pods" };

/// Checks a binding against the name in the path; the name is empty for `bindings`.
///
/// # Errors
/// 400 for another name, 500 (as upstream) for a target that is no node.
pub(crate) fn check(binding: &Value, name: &str) -> Result<(), Status> {
    if !name.is_empty() && name != text(binding, "/metadata/name") {
        return Err(Status::bad_request("name in URL does not match name in Binding object"));
    }
    let target = Path::new("target");
    let mut errors = Vec::new();
    let kind = text(binding, "/target/kind");
    if !["", "Node"].contains(&kind) {
        errors.push(Error::not_supported(&target.child("kind"), kind, &["Node", "<empty>"]));
    }
    if text(binding, "/target/name").is_empty() {
        errors.push(Error::required(&target.child("name"), ""));
    }
    match field::aggregate(&errors) {
        Some(message) => Err(Status::failure(500, Reason::Unknown, message)),
        None => Ok(()),
    }
}

/// The pod as it is after the binding.
///
/// # Errors
/// 409 for a pod that has a node, that is being deleted or that isn't to be scheduled yet, and for another pod of that
/// name than the one that was meant.
pub(crate) fn bind(pod: &Value, binding: &Value, key: &str, now: Timestamp) -> Result<Value, Status> {
    let name = text(pod, "/metadata/name");
    for (field, what) in [("/metadata/uid", "UID"), ("/metadata/resourceVersion", "ResourceVersion")] {
        let (wanted, found) = (text(binding, field), text(pod, field));
        if !wanted.is_empty() && wanted != found {
            let detail =
                format!("Precondition failed: {what} in precondition: {wanted}, {what} in object meta: {found}");
            let why = format!(
                "StorageError: invalid object, Code: 4, Key: {key}, ResourceVersion: 0, AdditionalErrorMsg: {detail}"
            );
            return Err(Status::conflict(PODS, name, why));
        }
    }
    let refuse = |why: String| Err(Status::conflict(BINDING, name, why));
    if !pod["metadata"]["deletionTimestamp"].is_null() {
        return refuse(format!("pod {name} is being deleted, cannot be assigned to a host"));
    }
    let node = text(pod, "/spec/nodeName");
    if !node.is_empty() {
        return refuse(format!("pod {name} is already assigned to node {}", quote(node)));
    }
    if !items(pod, "/spec/schedulingGates").is_empty() {
        return refuse(format!("pod {name} has non-empty .spec.schedulingGates"));
    }
    let mut pod = pod.clone();
    pod["spec"]["nodeName"] = binding["target"]["name"].clone();
    // Annotations of a binding win over the pod's, its labels don't.
    for (field, wins) in [("annotations", true), ("labels", false)] {
        let Some(given) = binding["metadata"][field].as_object().filter(|given| !given.is_empty()) else { continue };
        let kept = map_mut(&mut pod["metadata"], field);
        for (key, value) in given {
            if wins || !kept.contains_key(key) {
                kept.insert(key.clone(), value.clone());
            }
        }
    }
    conditions::set(&mut pod, "PodScheduled", "True", None, now);
    Ok(pod)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const KEY: &str = "/registry/pods/ns/p";

    fn now() -> Timestamp {
        "2025-01-02T03:04:05.6Z".parse().expect("time")
    }

    fn binding() -> Value {
        json!({"metadata": {"name": "p", "annotations": {"a": "2"}, "labels": {"zone": "z", "app": "other"}},
            "target": {"kind": "Node", "name": "n1"}})
    }

    #[test]
    fn a_pod_gets_its_node() {
        let pod = json!({"metadata": {"name": "p", "annotations": {"a": "1", "b": "1"}, "labels": {"app": "x"}},
            "spec": {}, "status": {"phase": "Pending", "conditions": [
                {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "m",
                 "lastProbeTime": null, "lastTransitionTime": "2025-01-01T00:00:00Z"}]}});
        let bound = bind(&pod, &binding(), KEY, now()).expect("bound");
        assert_eq!(bound["spec"]["nodeName"], "n1");
        assert_eq!(bound["metadata"]["annotations"], json!({"a": "2", "b": "1"}));
        assert_eq!(bound["metadata"]["labels"], json!({"app": "x", "zone": "z"}));
        assert_eq!(
            bound["status"]["conditions"],
            json!([{"type": "PodScheduled", "status": "True",
            "lastProbeTime": null, "lastTransitionTime": "2025-01-02T03:04:05Z"}])
        );
    }

    #[test]
    fn refusals() {
        for (pod, wanted, expected) in [
            (
                json!({"spec": {"nodeName": "n0"}}),
                json!({}),
                "Operation cannot be fulfilled on pods/binding \"p\": pod p is already assigned to node \"n0\"",
            ),
            (
                json!({"metadata": {"deletionTimestamp": "2025-01-01T00:00:00Z"}}),
                json!({}),
                "Operation cannot be fulfilled on pods/binding \"p\": pod p is being deleted, cannot be assigned to a host",
            ),
            (
                json!({"spec": {"schedulingGates": [{"name": "g"}]}}),
                json!({}),
                "Operation cannot be fulfilled on pods/binding \"p\": pod p has non-empty .spec.schedulingGates",
            ),
            (
                json!({"metadata": {"uid": "a"}}),
                json!({"uid": "b"}),
                "Operation cannot be fulfilled on pods \"p\": StorageError: invalid object, Code: 4, Key: \
              /registry/pods/ns/p, ResourceVersion: 0, AdditionalErrorMsg: Precondition failed: UID in precondition: b, \
              UID in object meta: a",
            ),
        ] {
            let mut pod = pod;
            pod["metadata"]["name"] = json!("p");
            let mut binding = binding();
            for (key, value) in wanted.as_object().expect("map") {
                binding["metadata"][key] = value.clone();
            }
            let status = bind(&pod, &binding, KEY, now()).expect_err("refused");
            assert_eq!((status.code, status.message.as_str()), (409, expected));
        }
    }

    #[test]
    fn bindings_are_checked() {
        assert_eq!(check(&binding(), "p"), Ok(()));
        assert_eq!(check(&binding(), ""), Ok(()));
        for (binding, code, message) in [
            (
                json!({"metadata": {"name": "q"}, "target": {"name": "n"}}),
                400,
                "name in URL does not match name in Binding object",
            ),
            (json!({"metadata": {"name": "p"}, "target": {}}), 500, "target.name: Required value"),
            (
                json!({"metadata": {"name": "p"}, "target": {"name": "n", "kind": "Pod"}}),
                500,
                "target.kind: Unsupported value: \"Pod\": supported values: \"Node\", \"<empty>\"",
            ),
        ] {
            let status = check(&binding, "p").expect_err("refused");
            assert_eq!((status.code, status.message.as_str()), (code, message));
        }
    }
}
