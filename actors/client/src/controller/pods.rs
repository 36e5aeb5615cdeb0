//! What controllers ask about pods, and how they make them.

use std::cmp::Reverse;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod, PodCondition, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

/// How gladly a pod is given up when there are too many: a number, 0 without it; small ones go first.
pub const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// The phase, empty when nobody has set one.
pub fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default()
}

/// Its deletion was asked for.
pub fn is_terminating(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some()
}

/// It succeeded or failed, and won't run again.
pub fn is_finished(pod: &Pod) -> bool {
    matches!(phase(pod), "Succeeded" | "Failed")
}

/// It runs, or will: it is neither finished nor terminating.
pub fn is_active(pod: &Pod) -> bool {
    !is_finished(pod) && !is_terminating(pod)
}

/// The condition of a type.
pub fn condition<'a>(pod: &'a Pod, kind: &str) -> Option<&'a PodCondition> {
    pod.status.as_ref()?.conditions.iter().flatten().find(|condition| condition.type_ == kind)
}

/// Its condition `Ready` is true.
pub fn is_ready(pod: &Pod) -> bool {
    condition(pod, "Ready").is_some_and(|ready| ready.status == "True")
}

/// Since when it is ready; `None` if it isn't, or if nobody noted when.
pub fn ready_since(pod: &Pod) -> Option<Timestamp> {
    let ready = condition(pod, "Ready").filter(|ready| ready.status == "True")?;
    Some(ready.last_transition_time.as_ref()?.0)
}

/// From when on it counts as available, which may be to come; `None` while it isn't ready.
pub fn available_from(pod: &Pod, min_ready_seconds: i32) -> Option<Timestamp> {
    if min_ready_seconds <= 0 {
        return is_ready(pod).then_some(Timestamp::MIN);
    }
    ready_since(pod)?.checked_add(SignedDuration::from_secs(min_ready_seconds.into())).ok()
}

/// It has been ready for so long.
pub fn is_available(pod: &Pod, min_ready_seconds: i32, now: Timestamp) -> bool {
    available_from(pod, min_ready_seconds).is_some_and(|from| from <= now)
}

/// The name of the node that it is bound to, empty without one.
pub fn node(pod: &Pod) -> &str {
    pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).unwrap_or_default()
}

/// A pod of such a template, for a controller that `owner` refers to; the caller gives it a name, or the beginning of one.
pub fn from_template(template: &PodTemplateSpec, namespace: &str, owner: OwnerReference) -> Pod {
    let meta = template.metadata.clone().unwrap_or_default();
    Pod {
        metadata: ObjectMeta {
            namespace: Some(namespace.to_owned()),
            labels: meta.labels,
            annotations: meta.annotations,
            finalizers: meta.finalizers,
            owner_references: Some(vec![owner]),
            ..ObjectMeta::default()
        },
        spec: template.spec.clone(),
        status: None,
    }
}

/// Sorts active pods so that those come first whose loss matters least. `doubled` says of how many related pods a node
/// has this one is part of.
pub fn sort_for_deletion<P: AsRef<Pod>>(pods: &mut [P], now: Timestamp, doubled: impl Fn(&Pod) -> usize) {
    pods.sort_by_cached_key(|pod| {
        let pod = pod.as_ref();
        let phase = match phase(pod) {
            "Pending" => 0,
            "Unknown" => 1,
            "Running" => 2,
            _ => 0,
        };
        let cost: i32 = annotation(pod, DELETION_COST).and_then(|cost| cost.parse().ok()).unwrap_or(0);
        let (restarts, sidecars) = restarts(pod);
        let is_ready = is_ready(pod);
        let ready_for = if is_ready { ready_since(pod).map_or(i64::MIN, |since| bucket(since, now)) } else { 0 };
        let created = pod.metadata.creation_timestamp.as_ref().map_or(i64::MIN, |created| bucket(created.0, now));
        (
            (!node(pod).is_empty(), phase, is_ready, cost, Reverse(doubled(pod)), ready_for),
            (Reverse(restarts), Reverse(sidecars), created),
            pod.metadata.uid.clone(),
        )
    });
}

fn annotation<'a>(pod: &'a Pod, name: &str) -> Option<&'a str> {
    pod.metadata.annotations.as_ref()?.get(name).map(String::as_str)
}

/// Ages are compared by their magnitude: whoever is about as old as another is taken by chance, so that a flaw of those
/// of one age doesn't decide.
fn bucket(since: Timestamp, now: Timestamp) -> i64 {
    let age = now.duration_since(since).as_nanos();
    u128::try_from(age).ok().and_then(u128::checked_ilog2).map_or(-1, i64::from)
}

/// The most restarts of a container, and of a sidecar.
fn restarts(pod: &Pod) -> (i32, i32) {
    let most = |statuses: &Option<Vec<ContainerStatus>>, counts: &dyn Fn(&str) -> bool| {
        let counted = statuses.iter().flatten().filter(|status| counts(&status.name));
        counted.map(|status| status.restart_count).max().unwrap_or(0)
    };
    let sidecar = |name: &str| {
        let containers = pod.spec.iter().flat_map(|spec| spec.init_containers.iter().flatten());
        containers.into_iter().any(|it| it.name == name && it.restart_policy.as_deref() == Some("Always"))
    };
    let Some(status) = &pod.status else { return (0, 0) };
    (most(&status.container_statuses, &|_| true), most(&status.init_container_statuses, &sidecar))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn pod(name: &str, json: serde_json::Value) -> Arc<Pod> {
        let mut pod: Pod = serde_json::from_value(json).expect("a pod");
        pod.metadata.name = Some(name.to_owned());
        Arc::new(pod)
    }

    fn now() -> Timestamp {
        "2026-01-01T12:00:00Z".parse().expect("a time")
    }

    fn ready(since: &str) -> serde_json::Value {
        serde_json::json!([{"type": "Ready", "status": "True", "lastTransitionTime": since}])
    }

    #[test]
    fn a_pod_is_available_when_it_was_ready_for_long_enough() {
        let pod = pod("a", serde_json::json!({"status": {"conditions": ready("2026-01-01T11:59:50Z")}}));
        assert!(is_available(&pod, 0, now()) && is_available(&pod, 10, now()) && !is_available(&pod, 11, now()));
        assert_eq!(available_from(&pod, 11), "2026-01-01T12:00:01Z".parse().ok());
        let never = serde_json::json!({"status": {"conditions": [{"type": "Ready", "status": "False"}]}});
        assert!(!is_available(&super::tests::pod("b", never), 0, now()));
    }

    #[test]
    fn the_least_useful_pod_goes_first() {
        let on = |node: &str, phase: &str, conditions: serde_json::Value| {
            serde_json::json!({"metadata": {"creationTimestamp": "2026-01-01T00:00:00Z"},
                "spec": {"nodeName": node, "containers": []}, "status": {"phase": phase, "conditions": conditions}})
        };
        let with = |mut pod: serde_json::Value, path: &str, value: serde_json::Value| {
            let (parent, last) = path.rsplit_once('/').expect("a path");
            pod.pointer_mut(parent).expect("there")[last] = value;
            pod
        };
        let long = || ready("2026-01-01T00:00:00Z");
        let plain = || on("n1", "Running", long());
        let cost = |cost: &str| with(plain(), "/metadata/annotations", serde_json::json!({ DELETION_COST: cost }));
        let restarted =
            serde_json::json!([{"name": "c", "restartCount": 3, "ready": true, "image": "", "imageID": ""}]);
        let expected = [
            pod("unassigned", on("", "Pending", serde_json::json!([]))),
            pod("pending", on("n1", "Pending", serde_json::json!([]))),
            pod("unknown", on("n1", "Unknown", serde_json::json!([]))),
            pod("not-ready", on("n1", "Running", serde_json::json!([]))),
            pod("cheap", cost("-5")),
            pod("doubled", on("n2", "Running", long())),
            pod("ready-lately", on("n1", "Running", ready("2026-01-01T11:59:59Z"))),
            pod("restarted", with(plain(), "/status/containerStatuses", restarted)),
            pod("young", with(plain(), "/metadata/creationTimestamp", "2026-01-01T11:00:00Z".into())),
            pod("plain", plain()),
            pod("dear", cost("5")),
        ];
        for rotated in 0..expected.len() {
            let mut pods = expected.to_vec();
            pods.rotate_left(rotated);
            sort_for_deletion(&mut pods, now(), |pod| if node(pod) == "n2" { 2 } else { 1 });
            let names: Vec<_> = pods.iter().filter_map(|pod| pod.metadata.name.as_deref()).collect();
            let wanted: Vec<_> = expected.iter().filter_map(|pod| pod.metadata.name.as_deref()).collect();
            assert_eq!(names, wanted);
        }
    }
}
