//! When a pod has to leave a node with taints: pure.

use jiff::{SignedDuration, Timestamp};
use k3sd_client::controller::pods::condition;
use k8s_openapi::api::core::v1::{Pod, Taint, Toleration};

use crate::node::NO_EXECUTE;

/// What becomes of a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It stays.
    Stays,
    /// It goes now: there is a taint that it doesn't tolerate.
    Goes,
    /// It stays for so long, counted from when it came to be on a node with these taints.
    GoesAfter(SignedDuration),
}

/// The taints by which pods are evicted.
pub(super) fn evicting(taints: &[Taint]) -> impl Iterator<Item = &Taint> {
    taints.iter().filter(|taint| taint.effect == NO_EXECUTE)
}

/// Decides by the node's taints and the pod's tolerations.
pub(super) fn fate(taints: &[Taint], tolerations: &[Toleration]) -> Fate {
    let mut shortest: Option<i64> = None;
    for taint in evicting(taints) {
        let Some(used) = tolerations.iter().find(|toleration| tolerates(toleration, taint)) else { return Fate::Goes };
        if let Some(seconds) = used.toleration_seconds {
            shortest = Some(shortest.map_or(seconds, |shortest| shortest.min(seconds)).max(0));
        }
    }
    shortest.map_or(Fate::Stays, |seconds| Fate::GoesAfter(SignedDuration::from_secs(seconds)))
}

fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let is_empty = |text: &Option<String>| text.as_ref().is_none_or(String::is_empty);
    if !is_empty(&toleration.effect) && toleration.effect.as_ref() != Some(&taint.effect) {
        return false;
    }
    if !is_empty(&toleration.key) && toleration.key.as_ref() != Some(&taint.key) {
        return false;
    }
    match toleration.operator.as_deref().unwrap_or_default() {
        "" | "Equal" => toleration.value.as_deref().unwrap_or_default() == taint.value.as_deref().unwrap_or_default(),
        "Exists" => true,
        _ => false,
    }
}

/// Since when a pod is on a node with these taints, as far as it is written down; else as of now.
pub(super) fn since(taints: &[Taint], pod: &Pod, now: Timestamp) -> Timestamp {
    let added = evicting(taints).map(|taint| taint.time_added.as_ref().map(|added| added.0));
    let Some(added) = added.collect::<Option<Vec<_>>>().and_then(|added| added.into_iter().min()) else { return now };
    let bound = condition(pod, "PodScheduled").and_then(|scheduled| scheduled.last_transition_time.as_ref());
    let born = pod.metadata.creation_timestamp.as_ref();
    bound.or(born).map_or(added, |bound| added.max(bound.0)).min(now)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn taints(taints: Value) -> Vec<Taint> {
        serde_json::from_value(taints).expect("taints")
    }

    #[test]
    fn each_taint_has_to_be_tolerated_and_the_shortest_time_counts() {
        let lost = json!([{"key": "lost", "effect": "NoExecute"}]);
        let two = json!([{"key": "lost", "effect": "NoExecute"}, {"key": "gpu", "value": "a", "effect": "NoExecute"}]);
        let exists = |key: &str, seconds: Value| json!({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": seconds});
        let seconds = |seconds| Fate::GoesAfter(SignedDuration::from_secs(seconds));
        for (taint, tolerations, expected) in [
            (json!([]), json!([]), Fate::Stays),
            (json!([{"key": "lost", "effect": "NoSchedule"}]), json!([]), Fate::Stays),
            (lost.clone(), json!([]), Fate::Goes),
            (lost.clone(), json!([exists("lost", json!(null))]), Fate::Stays),
            (lost.clone(), json!([exists("lost", json!(300))]), seconds(300)),
            (lost.clone(), json!([exists("lost", json!(-5))]), seconds(0)),
            (lost.clone(), json!([exists("", json!(7))]), seconds(7)),
            (lost.clone(), json!([{"key": "lost", "operator": "Exists", "effect": "NoSchedule"}]), Fate::Goes),
            (two.clone(), json!([exists("lost", json!(300))]), Fate::Goes),
            (
                two.clone(),
                json!([exists("lost", json!(300)), {"key": "gpu", "value": "a", "tolerationSeconds": 20}]),
                seconds(20),
            ),
            (two, json!([exists("lost", json!(300)), {"key": "gpu", "value": "b"}]), Fate::Goes),
            (lost, json!([exists("lost", json!(9)), exists("lost", json!(1))]), seconds(9)),
        ] {
            let tolerations: Vec<Toleration> = serde_json::from_value(tolerations).expect("tolerations");
            assert_eq!(fate(&taints(taint), &tolerations), expected, "{tolerations:?}");
        }
    }

    #[test]
    fn a_wait_begins_when_both_taint_and_pod_are_there() {
        let at = |time: &str| -> Timestamp { format!("2026-01-01T{time}Z").parse().expect("a time") };
        let pod = |bound: &str| -> Pod {
            serde_json::from_value(json!({"status": {"conditions": [
                {"type": "PodScheduled", "status": "True", "lastTransitionTime": format!("2026-01-01T{bound}Z")}]}}))
            .expect("a pod")
        };
        let dated = taints(json!([{"key": "a", "effect": "NoExecute", "timeAdded": "2026-01-01T10:00:00Z"}]));
        assert_eq!(since(&dated, &pod("09:00:00"), at("11:00:00")), at("10:00:00"));
        assert_eq!(since(&dated, &pod("10:30:00"), at("11:00:00")), at("10:30:00"));
        assert_eq!(since(&dated, &pod("10:30:00"), at("09:00:00")), at("09:00:00"), "a clock may be behind");
        let undated = taints(json!([{"key": "a", "effect": "NoExecute"}]));
        assert_eq!(since(&undated, &pod("09:00:00"), at("11:00:00")), at("11:00:00"));
    }
}
