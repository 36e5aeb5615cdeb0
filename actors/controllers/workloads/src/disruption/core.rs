//! How many pods may be evicted: pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k3sd_client::controller::pods;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::support::{name, scaled};

/// How long a pod that was evicted counts as gone, although nobody deletes it.
const DELETION_LIMIT: SignedDuration = SignedDuration::from_secs(120);
/// How long a pod may say that it is about to be disrupted, although nobody deletes it.
const STALE_AFTER: SignedDuration = SignedDuration::from_secs(120);
const ALLOWED: &str = "DisruptionAllowed";
/// The condition of a pod that is about to be disrupted.
pub(super) const DISRUPTION_TARGET: &str = "DisruptionTarget";
/// The kubelet's word isn't taken back: stopping may take it any time.
const BY_KUBELET: &str = "TerminationByKubelet";

/// What a budget asks for.
#[derive(Debug, PartialEq)]
pub(super) enum Ask {
    /// So many healthy pods, of those that there are.
    Count(i32),
    /// A part of those that should be there: this many healthy.
    MinAvailable(IntOrString),
    /// All that should be there but these.
    MaxUnavailable(IntOrString),
}

impl Ask {
    pub(super) fn of(budget: &PodDisruptionBudget) -> Self {
        let Some(spec) = &budget.spec else { return Self::Count(0) };
        match (&spec.max_unavailable, &spec.min_available) {
            (Some(max), _) => Self::MaxUnavailable(max.clone()),
            (None, Some(IntOrString::Int(min))) => Self::Count(*min),
            (None, Some(min)) => Self::MinAvailable(min.clone()),
            (None, None) => Self::Count(0),
        }
    }

    /// Whether it has to be known how many pods should be there.
    pub(super) fn needs_scale(&self) -> bool {
        !matches!(self, Self::Count(_))
    }

    /// How many pods are expected, and how many of them have to be healthy. `scale` is how many should be there.
    pub(super) fn bounds(&self, pods: usize, scale: i32) -> Option<(i32, i32)> {
        match self {
            Self::Count(min) => Some((i32::try_from(pods).unwrap_or(i32::MAX), *min)),
            Self::MinAvailable(min) => Some((scale, scaled(min, scale, true)?)),
            Self::MaxUnavailable(max) => Some((scale, (scale - scaled(max, scale, true)?).max(0))),
        }
    }
}

/// Evicted pods that aren't gone yet: those that are still believed, when the first of them won't be any more, and those
/// that aren't.
pub(super) fn disrupted(
    budget: &PodDisruptionBudget,
    matching: &[Arc<Pod>],
    now: Timestamp,
) -> (BTreeMap<String, Time>, Option<Timestamp>, Vec<Arc<Pod>>) {
    let noted = budget.status.as_ref().and_then(|status| status.disrupted_pods.as_ref());
    let (mut believed, mut recheck, mut staying) = (BTreeMap::new(), None::<Timestamp>, Vec::new());
    for pod in matching.iter().filter(|pod| !pods::is_terminating(pod)) {
        let Some(evicted) = noted.and_then(|noted| noted.get(name(&**pod))) else { continue };
        let due = evicted.0.saturating_add(DELETION_LIMIT).unwrap_or(Timestamp::MAX);
        if due < now {
            staying.push(pod.clone());
            continue;
        }
        recheck = Some(recheck.map_or(due, |first| first.min(due)));
        believed.insert(name(&**pod).to_owned(), evicted.clone());
    }
    (believed, recheck, staying)
}

/// What there is to say. `bounds` are the expected pods and how many of them have to be healthy.
pub(super) fn status(
    budget: &PodDisruptionBudget,
    matching: &[Arc<Pod>],
    (expected, desired): (i32, i32),
    believed: BTreeMap<String, Time>,
    now: Timestamp,
) -> PodDisruptionBudgetStatus {
    let is_healthy =
        |pod: &&Arc<Pod>| pods::is_ready(pod) && !pods::is_terminating(pod) && !believed.contains_key(name(&***pod));
    let healthy = i32::try_from(matching.iter().filter(is_healthy).count()).unwrap_or(i32::MAX);
    let allowed = if expected > 0 { (healthy - desired).max(0) } else { 0 };
    let shown = budget.status.clone().unwrap_or_default();
    let mut status = PodDisruptionBudgetStatus {
        current_healthy: healthy,
        desired_healthy: desired,
        expected_pods: expected,
        disruptions_allowed: allowed,
        disrupted_pods: (!believed.is_empty()).then_some(believed),
        observed_generation: budget.metadata.generation,
        conditions: shown.conditions,
    };
    let (is_allowed, reason) = if allowed > 0 { ("True", "SufficientPods") } else { ("False", "InsufficientPods") };
    set_condition(&mut status, is_allowed, reason, "", now);
    status
}

/// What there is to say when the number can't be found out: nothing may be evicted.
pub(super) fn failed(budget: &PodDisruptionBudget, why: &str, now: Timestamp) -> PodDisruptionBudgetStatus {
    let mut status = budget.status.clone().unwrap_or_default();
    status.disruptions_allowed = 0;
    set_condition(&mut status, "False", "SyncFailed", why, now);
    status
}

fn set_condition(status: &mut PodDisruptionBudgetStatus, value: &str, reason: &str, text: &str, now: Timestamp) {
    let generation = status.observed_generation;
    let conditions = status.conditions.get_or_insert_default();
    let known = conditions.iter().position(|condition| condition.type_ == ALLOWED);
    let same = known.filter(|at| conditions[*at].status == value);
    let since = same.map_or(Time(now), |at| conditions[at].last_transition_time.clone());
    let new = Condition {
        type_: ALLOWED.to_owned(),
        status: value.to_owned(),
        reason: reason.to_owned(),
        message: text.to_owned(),
        observed_generation: generation,
        last_transition_time: since,
    };
    match known {
        Some(at) => conditions[at] = new,
        None => conditions.push(new),
    }
}

/// Until when a pod is believed that it is about to be disrupted; `None` if it doesn't say so, or if it's true.
pub(super) fn stale_at(pod: &Pod) -> Option<Timestamp> {
    let said = pods::condition(pod, DISRUPTION_TARGET).filter(|said| said.status == "True")?;
    if !pods::is_active(pod) || said.reason.as_deref() == Some(BY_KUBELET) {
        return None;
    }
    let since = said.last_transition_time.as_ref().map_or(Timestamp::UNIX_EPOCH, |time| time.0);
    Some(since.saturating_add(STALE_AFTER).unwrap_or(Timestamp::MAX))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn now() -> Timestamp {
        "2026-01-01T12:00:00Z".parse().expect("a time")
    }

    fn of<K: serde::de::DeserializeOwned>(json: Value) -> K {
        serde_json::from_value(json).expect("such an object")
    }

    fn pod(name: &str, ready: bool) -> Arc<Pod> {
        let status = if ready { "True" } else { "False" };
        Arc::new(of(json!({"metadata": {"name": name},
            "status": {"conditions": [{"type": "Ready", "status": status}]}})))
    }

    #[test]
    fn parts_are_rounded_up() {
        for (spec, expected) in [
            (json!({"minAvailable": 2}), Some((3, 2))),
            (json!({"minAvailable": "50%"}), Some((7, 4))),
            (json!({"maxUnavailable": 1}), Some((7, 6))),
            (json!({"maxUnavailable": "50%"}), Some((7, 3))),
            (json!({"maxUnavailable": 10}), Some((7, 0))),
            (json!({"maxUnavailable": "many"}), None),
            (json!({}), Some((3, 0))),
        ] {
            let budget = of(json!({ "spec": spec }));
            assert_eq!(Ask::of(&budget).bounds(3, 7), expected, "{spec}");
        }
    }

    #[test]
    fn healthy_pods_beyond_those_that_are_needed_may_go() {
        let budget: PodDisruptionBudget = of(json!({"metadata": {"generation": 2}}));
        let pods = [pod("a", true), pod("b", true), pod("c", false)];
        let said = status(&budget, &pods, (3, 1), BTreeMap::new(), now());
        assert_eq!((said.current_healthy, said.disruptions_allowed, said.observed_generation), (2, 1, Some(2)));
        let condition = said.conditions.as_ref().expect("said")[0].clone();
        assert_eq!((condition.status.as_str(), condition.reason.as_str()), ("True", "SufficientPods"));
        let evicted = BTreeMap::from([("a".to_owned(), Time(now()))]);
        let said = status(&budget, &pods, (3, 1), evicted, now());
        assert_eq!((said.current_healthy, said.disruptions_allowed), (1, 0));
        assert_eq!(said.conditions.as_ref().expect("said")[0].reason, "InsufficientPods");
        assert_eq!(status(&budget, &pods, (0, 0), BTreeMap::new(), now()).disruptions_allowed, 0, "none are expected");
        let bad = failed(&PodDisruptionBudget { status: Some(said), ..budget }, "why", now());
        let condition = &bad.conditions.as_ref().expect("said")[0];
        assert_eq!((condition.reason.as_str(), condition.message.as_str()), ("SyncFailed", "why"));
    }

    #[test]
    fn an_evicted_pod_that_stays_is_believed_for_two_minutes() {
        let budget = of(json!({"status": {"currentHealthy": 0, "desiredHealthy": 0, "disruptionsAllowed": 0,
            "expectedPods": 0, "disruptedPods": {"a": "2026-01-01T11:59:00Z", "b": "2026-01-01T11:57:59Z",
            "gone": "2026-01-01T11:59:00Z"}}}));
        let (believed, recheck, staying) = disrupted(&budget, &[pod("a", true), pod("b", true)], now());
        assert_eq!(believed.keys().collect::<Vec<_>>(), ["a"]);
        assert_eq!(recheck, "2026-01-01T12:01:00Z".parse().ok());
        assert_eq!(staying.len(), 1);
    }

    #[test]
    fn a_pod_that_stays_takes_its_word_back() {
        let with = |status: &str, reason: &str, phase: &str| -> Pod {
            of(json!({"status": {"phase": phase, "conditions": [{"type": "DisruptionTarget", "status": status,
                "reason": reason, "lastTransitionTime": "2026-01-01T12:00:00Z"}]}}))
        };
        let due = "2026-01-01T12:02:00Z".parse().ok();
        assert_eq!(stale_at(&with("True", "EvictionByEvictionAPI", "Running")), due);
        assert_eq!(stale_at(&with("False", "EvictionByEvictionAPI", "Running")), None);
        assert_eq!(stale_at(&with("True", BY_KUBELET, "Running")), None);
        assert_eq!(stale_at(&with("True", "EvictionByEvictionAPI", "Failed")), None);
    }
}
