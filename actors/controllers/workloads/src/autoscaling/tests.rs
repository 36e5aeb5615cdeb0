//! Numbers that measured values ask for, and how fast they are followed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k3sd_client::controller::setup::AutoscalingConfig;
use k3sd_client::informer::ObjectKey;
use k3sd_runtime::Moment;
use k8s_openapi::api::autoscaling::v2::{HorizontalPodAutoscalerBehavior, HorizontalPodAutoscalerStatus};
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use super::behavior::{Bounds, Memories, Memory, decide};
use super::calculator::{PerPod, Sample, Samples, Terms, per_pod, requests, shared_average, shared_value};
use super::conditions::set;

fn now() -> Timestamp {
    "2026-01-01T12:00:00Z".parse().expect("a time")
}

fn terms() -> Terms {
    Terms { now: now(), config: AutoscalingConfig::default() }
}

fn of<K: serde::de::DeserializeOwned>(json: Value) -> K {
    serde_json::from_value(json).expect("such an object")
}

/// Pods `p0` and so on that are `ready`, `unready`, `pending` or `failed`.
fn pods(hows: &[&str]) -> Vec<Arc<Pod>> {
    let pod = |(at, how): (usize, &&str)| -> Arc<Pod> {
        let phase = match *how {
            "pending" => "Pending",
            "failed" => "Failed",
            _ => "Running",
        };
        let ready = if *how == "ready" { "True" } else { "False" };
        Arc::new(of(json!({"metadata": {"name": format!("p{at}")},
            "spec": {"containers": [{"name": "a", "resources": {"requests": {"cpu": "1"}}}]},
            "status": {"phase": phase, "startTime": "2026-01-01T10:00:00Z", "conditions": [{"type": "Ready",
                "status": ready, "lastTransitionTime": "2026-01-01T10:00:10Z"}]}})))
    };
    hows.iter().enumerate().map(pod).collect()
}

fn samples(values: &[Option<i64>]) -> Samples {
    let sample = |value| Sample { value, at: now(), window: SignedDuration::from_secs(30) };
    let named = values.iter().enumerate().filter_map(|(at, value)| Some((format!("p{at}"), sample((*value)?))));
    named.collect()
}

#[test]
fn pods_are_asked_for_by_what_each_uses() {
    for (hows, current, target, values, expected) in [
        // 50 % over what is wanted; and within the tolerance.
        (vec!["ready"; 3], 3, 30, vec![Some(300), Some(500), Some(700)], Ok((5, 50))),
        (vec!["ready"; 2], 2, 50, vec![Some(500), Some(540)], Ok((2, 52))),
        (vec!["ready"; 4], 4, 50, vec![Some(100); 4], Ok((1, 10))),
        // Unready ones count as idle when it grows, and not at all when it shrinks.
        (vec!["ready", "ready", "unready"], 3, 30, vec![Some(400), Some(500), Some(700)], Ok((3, 45))),
        (vec!["ready", "ready", "pending"], 3, 30, vec![Some(900), Some(900), None], Ok((6, 90))),
        (vec!["ready", "ready", "unready"], 3, 50, vec![Some(200), Some(200), Some(9000)], Ok((1, 20))),
        // Those without a sample speak against the change.
        (vec!["ready"; 3], 3, 30, vec![Some(400), Some(500), None], Ok((3, 45))),
        (vec!["ready"; 4], 4, 50, vec![Some(100), Some(100), Some(100), None], Ok((3, 10))),
        (vec!["ready", "failed"], 1, 50, vec![Some(1000), Some(9000)], Ok((2, 100))),
        (vec![], 1, 50, vec![], Err("no pods returned by selector while calculating replica count")),
        (
            vec!["pending"],
            1,
            50,
            vec![Some(100)],
            Err("did not receive metrics for targeted pods (pods might be unready)"),
        ),
    ] {
        let pods = pods(&hows);
        let requests = requests(&pods, None, "cpu").expect("all ask for something");
        let target = PerPod::Percent(target, &requests);
        let found = per_pod(current, &target, (&pods, samples(&values), true), &terms());
        let found = found.map(|found| (found.replicas, found.percent.expect("a part")));
        assert_eq!(found, expected.map_err(str::to_owned), "{hows:?} {values:?}");
    }
}

#[test]
fn a_pod_without_a_request_has_no_percentage() {
    let mut pods = pods(&["ready"]);
    Arc::make_mut(&mut pods[0]).spec.as_mut().expect("set").containers[0].resources = None;
    let expected = Err("missing request for cpu in container a of Pod p0".to_owned());
    assert_eq!(requests(&pods, None, "cpu"), expected);
    assert_eq!(requests(&pods, Some("other"), "cpu"), Ok(BTreeMap::from([("p0".to_owned(), 0)])));
}

#[test]
fn a_shared_number_is_divided() {
    let pods = pods(&["ready", "ready", "unready"]);
    assert_eq!(shared_value(3, 20_000, 10_000, &pods, &terms()).replicas, 4, "two serve");
    assert_eq!(shared_value(3, 10_500, 10_000, &pods, &terms()).replicas, 3);
    assert_eq!(shared_value(0, 20_000, 10_000, &[], &terms()).replicas, 2);
    let average = shared_average(3, 60_000, 10_000, &terms());
    assert_eq!((average.replicas, average.usage), (6, 20_000));
    assert_eq!(shared_average(3, 31_000, 10_000, &terms()).replicas, 3);
}

#[test]
fn settings_say_what_counts() {
    let pods = pods(&["ready", "ready"]);
    let config = AutoscalingConfig { tolerance: 0.5, ..AutoscalingConfig::default() };
    let patient = Terms { now: now(), config };
    assert_eq!(shared_value(2, 14_000, 10_000, &pods, &patient).replicas, 2);
    assert_eq!(shared_value(2, 14_000, 10_000, &pods, &terms()).replicas, 3);
    // They are two hours old, and were measured after they became ready.
    let measured = |config| {
        let samples = samples(&[Some(2000), Some(2000)]);
        per_pod(2, &PerPod::Value(1000), (&pods, samples, true), &Terms { now: now(), config })
    };
    let slow = AutoscalingConfig { cpu_initialization_period: Duration::from_secs(3 * 3600), ..config };
    assert_eq!(measured(slow).expect("they count").replicas, 4);
    let mut memory = Memory::default();
    let brief = Bounds { window: Duration::from_secs(10), ..BOUNDS };
    decide(&mut memory, brief, 50, None, at(0));
    assert_eq!(decide(&mut memory, Bounds { current: 50, ..brief }, 3, None, at(11)).replicas, 3);
}

fn at(seconds: u64) -> Moment {
    Moment::START + Duration::from_secs(seconds)
}

const BOUNDS: Bounds = Bounds { current: 10, min: 2, max: 100, window: Duration::from_secs(300) };

#[test]
fn without_rules_it_grows_fast_and_shrinks_late() {
    let mut memory = Memory::default();
    let first = decide(&mut memory, BOUNDS, 50, None, at(0));
    assert_eq!((first.replicas, first.limited.0, first.limited.1), (20, true, "ScaleUpLimit"));
    let held = decide(&mut memory, Bounds { current: 50, ..BOUNDS }, 3, None, at(100));
    assert_eq!((held.replicas, held.able.0), (50, "ScaleDownStabilized"));
    let later = decide(&mut memory, Bounds { current: 50, ..BOUNDS }, 3, None, at(301));
    assert_eq!((later.replicas, later.able.0), (3, "ReadyForNewScale"));
    let mut memory = Memory::default();
    assert_eq!(
        decide(&mut memory, BOUNDS, 1, None, at(0)).limited,
        (true, "TooFewReplicas", "the desired replica count is less than the minimum replica count")
    );
    let mut memory = Memory::default();
    let most = decide(&mut memory, Bounds { max: 15, ..BOUNDS }, 18, None, at(0));
    assert_eq!((most.replicas, most.limited.1), (15, "TooManyReplicas"));
}

#[test]
fn rules_say_how_fast() {
    let rules: HorizontalPodAutoscalerBehavior = of(json!({
        "scaleUp": {"stabilizationWindowSeconds": 0, "selectPolicy": "Min",
            "policies": [{"type": "Pods", "value": 4, "periodSeconds": 60}, {"type": "Percent", "value": 100,
                "periodSeconds": 60}]},
        "scaleDown": {"stabilizationWindowSeconds": 60,
            "policies": [{"type": "Percent", "value": 10, "periodSeconds": 60}]}}));
    let mut memory = Memory::default();
    let decided = |memory: &mut Memory, current, wish, seconds| {
        let decided = decide(memory, Bounds { current, ..BOUNDS }, wish, Some(&rules), at(seconds));
        memory.did(current, decided.replicas, at(seconds));
        (decided.replicas, decided.able.0, decided.limited.1)
    };
    assert_eq!(decided(&mut memory, 10, 30, 0), (14, "ReadyForNewScale", "ScaleUpLimit"));
    assert_eq!(decided(&mut memory, 14, 30, 15), (14, "ReadyForNewScale", "ScaleUpLimit"), "4 in each minute");
    assert_eq!(decided(&mut memory, 14, 30, 61), (18, "ReadyForNewScale", "ScaleUpLimit"));
    assert_eq!(decided(&mut memory, 18, 2, 90), (18, "ScaleDownStabilized", "DesiredWithinRange"));
    assert_eq!(decided(&mut memory, 18, 2, 150), (16, "ReadyForNewScale", "ScaleDownLimit"));
    let off: HorizontalPodAutoscalerBehavior = of(json!({"scaleDown": {"selectPolicy": "Disabled"}}));
    let decided = decide(&mut Memory::default(), BOUNDS, 2, Some(&off), at(0));
    assert_eq!((decided.replicas, decided.limited.1), (10, "ScaleDownLimit"));
}

#[test]
fn a_new_autoscaler_knows_the_number_there_is() {
    let mut memories = Memories::default();
    let decided = decide(memories.of("u", 10, at(0)), BOUNDS, 3, None, at(1));
    assert_eq!(decided.replicas, 10, "it doesn't shrink before it has watched for a while");
    let decided = decide(memories.of("u", 10, at(302)), BOUNDS, 3, None, at(302));
    assert_eq!(decided.replicas, 3);
}

#[test]
fn two_autoscalers_cannot_share_a_pod() {
    let mut labelled = pods(&["ready"]);
    Arc::make_mut(&mut labelled[0]).metadata.labels = Some([("app".to_owned(), "a".to_owned())].into());
    let key = |name: &str| ObjectKey { namespace: "n".to_owned(), name: name.to_owned() };
    let mut memories = Memories::default();
    for (uid, name, selector) in [("1", "one", "app=a"), ("2", "two", "app in (a,b)"), ("3", "three", "app=c")] {
        memories.of(uid, 1, at(0)).counts(key(name), selector.parse().expect("a selector"));
    }
    assert_eq!(memories.rivals(&key("one"), &labelled), [key("two")]);
    let elsewhere = ObjectKey { namespace: "m".to_owned(), name: "one".to_owned() };
    assert_eq!(memories.rivals(&elsewhere, &labelled), []);
    memories.forget(&key("two"));
    assert_eq!(memories.rivals(&key("one"), &labelled), []);
}

#[test]
fn conditions_keep_the_time_of_their_last_change() {
    let mut status = HorizontalPodAutoscalerStatus::default();
    set(&mut status, "AbleToScale", true, "a", "b", now());
    set(&mut status, "AbleToScale", true, "c", "d", now() + SignedDuration::from_secs(9));
    let found = &status.conditions.as_ref().expect("set")[0];
    assert_eq!((found.reason.as_deref(), found.last_transition_time.as_ref().map(|it| it.0)), (Some("c"), Some(now())));
    set(&mut status, "AbleToScale", false, "c", "d", now() + SignedDuration::from_secs(9));
    let found = &status.conditions.as_ref().expect("set")[0];
    assert_ne!(found.last_transition_time.as_ref().map(|it| it.0), Some(now()));
    assert_eq!(status.conditions.as_ref().map(Vec::len), Some(1));
}
