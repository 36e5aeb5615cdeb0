//! Numbers of pods, and what is said of them.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::{Pod, ReplicationController};
use serde_json::{Value, json};

use super::core::{BURST, Failing, Plan, Status, plan, status};
use super::kinds::Replicated;
use crate::support::{Labels, Matcher};

fn now() -> Timestamp {
    "2026-01-01T12:00:00Z".parse().expect("a time")
}

fn pod(name: &str, node: &str, ready_since: Option<&str>) -> Arc<Pod> {
    let conditions = ready_since.map(|at| json!([{"type": "Ready", "status": "True", "lastTransitionTime": at}]));
    Arc::new(of(json!({"metadata": {"name": name, "uid": name, "labels": {"app": "a"}},
        "spec": {"nodeName": node, "containers": []}, "status": {"phase": "Running", "conditions": conditions}})))
}

fn of<K: serde::de::DeserializeOwned>(json: Value) -> K {
    serde_json::from_value(json).expect("such an object")
}

#[test]
fn as_many_pods_as_are_wanted() {
    let pods = [pod("a", "n1", None), pod("b", "n1", None), pod("c", "n2", None)];
    assert_eq!(plan(3, &pods, || pods.to_vec(), now()), Plan::Nothing);
    assert_eq!(plan(5, &pods, || pods.to_vec(), now()), Plan::Create(2));
    assert_eq!(plan(5000, &pods, || pods.to_vec(), now()), Plan::Create(BURST));
    assert_eq!(plan(0, &pods, || pods.to_vec(), now()), Plan::Delete(pods.to_vec()));
    let Plan::Delete(surplus) = plan(2, &pods, || pods.to_vec(), now()) else { panic!("one too many") };
    assert!(surplus.len() == 1 && surplus[0].metadata.name.as_deref() != Some("c"), "n1 has two of them");
    // Of the pods of related sets, most are on n2.
    let related = [&pods[..], &[pod("d", "n2", None), pod("e", "n2", None)]].concat();
    assert_eq!(plan(2, &pods, || related.clone(), now()), Plan::Delete(vec![pods[2].clone()]));
}

#[test]
fn the_status_counts_and_says_when_it_changes() {
    let pods = [
        pod("a", "n1", Some("2026-01-01T11:59:00Z")),
        pod("b", "n1", Some("2026-01-01T11:59:55Z")),
        pod("c", "n1", Some("2026-01-01T11:59:58Z")),
        pod("d", "n1", None),
    ];
    let labels = |value: &str| Matcher::of_labels(&Labels::from([("app".to_owned(), value.to_owned())]));
    let (counted, next) = status(&pods, &labels("a"), 10, (None, &Status::default()), now());
    assert_eq!(counted, Status { replicas: 4, fully_labeled: 4, ready: 3, available: 1, failing: None });
    assert_eq!(next, "2026-01-01T12:00:05Z".parse().ok());
    let (counted, next) = status(&pods, &labels("b"), 0, (None, &Status::default()), now());
    assert_eq!((counted.fully_labeled, counted.available, next), (0, 3, None));
}

#[test]
fn a_failure_is_said_once_and_withdrawn() {
    let failure = |text: &str| Some(("FailedCreate", text.to_owned()));
    let (first, _) = status(&[], &Matcher::nothing(), 0, (failure("quota"), &Status::default()), now());
    let expected = Failing { reason: "FailedCreate".to_owned(), message: "quota".to_owned(), since: now() };
    assert_eq!(first.failing, Some(expected.clone()));
    let later = now() + jiff::SignedDuration::from_secs(60);
    let (second, _) = status(&[], &Matcher::nothing(), 0, (failure("quota again"), &first), later);
    assert_eq!(second.failing, Some(expected));
    let (third, _) = status(&[], &Matcher::nothing(), 0, (None, &second), later);
    assert_eq!(third.failing, None);
}

#[test]
fn both_kinds_say_and_want_the_same() {
    let status = json!({"replicas": 2, "fullyLabeledReplicas": 1, "readyReplicas": 2, "availableReplicas": 1,
        "observedGeneration": 3, "conditions": [{"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate",
        "message": "m", "lastTransitionTime": "2026-01-01T12:00:00Z"}, {"type": "Other", "status": "True"}]});
    let template = json!({"metadata": {"labels": {"app": "a"}}});
    let with = |selector: Value| {
        json!({"metadata": {"name": "x", "generation": 4}, "status": status,
        "spec": {"replicas": 2, "minReadySeconds": 7, "selector": selector, "template": template}})
    };
    check(&of::<ReplicaSet>(with(json!({"matchLabels": {"app": "a"}}))));
    check(&of::<ReplicationController>(with(json!({"app": "a"}))));
    // Without a selector, neither may take what nobody has.
    let none: ReplicationController = of(json!({"spec": {"selector": {}}}));
    assert!(!none.selector().matches(None));
}

fn check<R: Replicated>(set: &R) {
    let pod = pod("a", "n", None);
    assert!(set.selector().matches(pod.metadata.labels.as_ref()) && !set.selector().matches(None));
    assert_eq!((set.wanted(), set.min_ready_seconds()), (2, 7));
    let (shown, observed) = set.status();
    assert_eq!((shown.replicas, shown.fully_labeled, shown.ready, shown.available, observed), (2, 1, 2, 1, 3));
    assert_eq!(shown.failing.as_ref().map(|failing| failing.since), Some(now()));
    let (again, observed) = set.with_status(&shown).status();
    assert_eq!((again, observed), (shown.clone(), 4));
    let healed = serde_json::to_value(set.with_status(&Status { failing: None, ..shown })).expect("JSON");
    assert_eq!(healed["status"]["conditions"], json!([{"type": "Other", "status": "True"}]));
}
