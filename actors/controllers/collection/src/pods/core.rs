//! Which pods nobody waits for any more: pure.

use k8s_openapi::api::core::v1::{Node, Pod};

/// Keeps pods away from a node that somebody knows to be down.
const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";

/// Whether a pod has ended and is still there.
pub fn is_terminated(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    phase.is_some_and(|phase| !matches!(phase, "Pending" | "Running" | "Unknown"))
}

/// The node that a pod is bound to; empty if to none.
pub fn node_of(pod: &Pod) -> &str {
    pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).unwrap_or_default()
}

/// Whether a pod is to be deleted that no node will report gone.
pub fn is_unscheduled_terminating(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some() && node_of(pod).is_empty()
}

/// Whether a node is down, and somebody has said so.
pub fn is_out_of_service(node: &Node) -> bool {
    let taints = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
    let conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let is_ready = conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True");
    !is_ready && taints.into_iter().any(|taint| taint.key == OUT_OF_SERVICE)
}

/// Of the pods that have ended, those that are too many: evicted ones first, then the oldest.
pub fn surplus<'a>(terminated: impl Iterator<Item = &'a Pod>, kept_max: usize) -> Vec<&'a Pod> {
    let mut all: Vec<&Pod> = terminated.collect();
    let surplus = all.len().saturating_sub(kept_max);
    if surplus == 0 {
        return Vec::new();
    }
    all.sort_by_cached_key(|pod| {
        let is_evicted = pod.status.as_ref().and_then(|status| status.reason.as_deref()) == Some("Evicted");
        let made = pod.metadata.creation_timestamp.as_ref().map(|made| made.0);
        (!is_evicted, made, pod.metadata.name.clone())
    });
    all.truncate(surplus);
    all
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(name: &str, made: &str, status: Value) -> Pod {
        let metadata = json!({"name": name, "creationTimestamp": made});
        serde_json::from_value(json!({"metadata": metadata, "spec": {"containers": []}, "status": status}))
            .expect("a pod")
    }

    #[test]
    fn evicted_pods_go_first_and_then_the_oldest() {
        let pods = [
            pod("young", "2026-01-03T00:00:00Z", json!({"phase": "Failed"})),
            pod("old", "2026-01-01T00:00:00Z", json!({"phase": "Succeeded"})),
            pod("evicted", "2026-01-04T00:00:00Z", json!({"phase": "Failed", "reason": "Evicted"})),
            pod("runs", "2025-01-01T00:00:00Z", json!({"phase": "Running"})),
        ];
        let names = |kept| -> Vec<&str> {
            let terminated = pods.iter().filter(|pod| is_terminated(pod));
            surplus(terminated, kept).into_iter().filter_map(|pod| pod.metadata.name.as_deref()).collect()
        };
        assert_eq!(names(3), Vec::<&str>::new());
        assert_eq!(names(2), ["evicted"]);
        assert_eq!(names(0), ["evicted", "old", "young"]);
    }

    #[test]
    fn a_node_is_out_of_service_when_it_is_down_and_somebody_says_so() {
        for (ready, key, expected) in [
            ("False", OUT_OF_SERVICE, true),
            ("Unknown", OUT_OF_SERVICE, true),
            ("True", OUT_OF_SERVICE, false),
            ("False", "node.kubernetes.io/unreachable", false),
        ] {
            let node = json!({"metadata": {"name": "n"}, "spec": {"taints": [{"key": key, "effect": "NoExecute"}]},
                "status": {"conditions": [{"type": "Ready", "status": ready}]}});
            let node: Node = serde_json::from_value(node).expect("a node");
            assert_eq!(is_out_of_service(&node), expected, "{ready} {key}");
        }
    }
}
