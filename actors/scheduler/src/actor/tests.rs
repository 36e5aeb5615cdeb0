//! What the core does about what it sees, without an API.

use std::sync::Arc;
use std::time::Duration;

use k3sd_runtime::{Moment, Rng};
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use super::core::{Core, Work};
use super::feed::Seen;
use super::write::Verdict;
use crate::config::SchedulerConfig;
use crate::pod::Key;
use crate::queue::Place;
use crate::testing::{merge, node, pod, sized};

fn at(seconds: u64) -> Moment {
    Moment::START + Duration::from_secs(seconds)
}

fn core(nodes: &[&str]) -> Core {
    let mut core = Core::new(Arc::new(SchedulerConfig::default()), Rng::seeded(3));
    for name in nodes {
        core.see_node(Seen::Applied(node(name, json!({}))), at(0));
    }
    core
}

fn object(name: &str, cpu: &str, more: Value) -> Arc<Pod> {
    sized(name, cpu, "1", more).pod.clone()
}

fn on(name: &str, cpu: &str, node: &str) -> Arc<Pod> {
    let more = json!({ "metadata": { "resourceVersion": "2" }, "spec": { "nodeName": node } });
    object(name, cpu, more)
}

/// The node that the next pod is bound to.
fn binds(core: &mut Core, now: Moment) -> (String, String) {
    match core.decide(now) {
        Some(Some(Work::Bind { pod, node })) => (pod.key.name.clone(), node),
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_assumed_pod_takes_its_room_before_the_watch_tells() {
    let mut core = core(&["n1", "n2"]);
    for name in ["a", "b", "c"] {
        core.see_pod(Seen::Applied(object(name, "3", json!({}))), at(1));
    }
    let (first, second) = (binds(&mut core, at(2)), binds(&mut core, at(2)));
    assert_ne!(first.1, second.1);
    assert!(matches!(core.decide(at(2)), Some(Some(Work::Refused { .. }))));
    assert!(core.decide(at(2)).is_none());
}

#[test]
fn a_failed_binding_is_forgotten_and_tried_again() {
    let mut core = core(&["n1"]);
    core.see_pod(Seen::Applied(object("a", "3", json!({}))), at(1));
    binds(&mut core, at(2));
    let said = core.bound("a", Err("no".to_owned()), at(2)).expect_err("it failed").expect("it is told");
    let Work::Refused { message, verdict, .. } = said else { panic!("{said:?}") };
    assert_eq!(message, "running Bind plugin \"DefaultBinder\": no");
    assert_eq!(verdict.condition.map(|(reason, _)| reason), Some("SchedulerError"));
    assert_eq!(core.queue.place("a"), Some(Place::Backoff(at(3))));
    assert!(core.decide(at(2)).is_none());
    assert_eq!(binds(&mut core, at(3)), ("a".to_owned(), "n1".to_owned()));
}

#[test]
fn an_answer_that_was_lost_is_no_failure_once_the_watch_tells() {
    let mut core = core(&["n1"]);
    core.see_pod(Seen::Applied(object("a", "3", json!({}))), at(1));
    binds(&mut core, at(2));
    core.see_pod(Seen::Applied(on("a", "3", "n1")), at(2));
    assert!(core.bound("a", Err("lost".to_owned()), at(3)).expect_err("it failed").is_none());
    assert!(core.queue.is_empty());
    assert_eq!(core.snapshot.pods_len(), 1);
    // Or the other way round: it is tried again, and that stops when the watch tells.
    core.see_pod(Seen::Gone(Key::new("default", "a"), Some("a".to_owned())), at(4));
    core.see_pod(Seen::Applied(object("b", "3", json!({}))), at(4));
    binds(&mut core, at(4));
    assert!(core.bound("b", Err("lost".to_owned()), at(5)).is_err());
    core.see_pod(Seen::Applied(on("b", "3", "n1")), at(5));
    assert!(core.queue.is_empty() && core.snapshot.pods_len() == 1);
}

#[test]
fn a_bound_pod_stays_where_it_is_until_it_is_gone() {
    let mut core = core(&["n1"]);
    core.see_pod(Seen::Applied(object("a", "3", json!({}))), at(1));
    core.see_pod(Seen::Applied(object("b", "3", json!({}))), at(2));
    binds(&mut core, at(3));
    assert!(core.bound("a", Ok(()), at(3)).expect("it is bound").is_some());
    // An old state of it, from before the binding.
    core.see_pod(Seen::Applied(object("a", "3", json!({ "metadata": { "resourceVersion": "0" } }))), at(3));
    assert!(matches!(core.decide(at(4)), Some(Some(Work::Refused { .. }))));
    core.see_pod(Seen::Gone(Key::new("default", "a"), Some("a".to_owned())), at(5));
    assert_eq!(binds(&mut core, at(6)).0, "b");
}

#[test]
fn pods_of_other_schedulers_only_take_room() {
    let mut core = core(&["n1"]);
    let other = json!({ "spec": { "schedulerName": "other" } });
    core.see_pod(Seen::Applied(object("a", "3", other)), at(1));
    assert!(core.decide(at(2)).is_none());
    core.see_pod(Seen::Applied(on("x", "3", "n1")), at(2));
    core.see_pod(Seen::Applied(object("b", "3", json!({}))), at(3));
    assert!(matches!(core.decide(at(4)), Some(Some(Work::Refused { .. }))));
}

#[test]
fn ended_pods_give_their_room_back() {
    let mut core = core(&["n1"]);
    core.see_pod(Seen::Applied(on("x", "3", "n1")), at(1));
    let mut ended = (*on("x", "3", "n1")).clone();
    ended.status = Some(serde_json::from_value(json!({ "phase": "Succeeded" })).unwrap());
    core.see_pod(Seen::Applied(Arc::new(ended)), at(2));
    core.see_pod(Seen::Applied(object("b", "3", json!({}))), at(3));
    assert_eq!(binds(&mut core, at(4)).1, "n1");
}

#[test]
fn a_preemptor_waits_for_its_node_and_nobody_takes_it_meanwhile() {
    let mut core = core(&["n1"]);
    core.see_pod(Seen::Applied(on("low", "3", "n1")), at(1));
    let important = json!({ "spec": { "priority": 10 } });
    core.see_pod(Seen::Applied(object("high", "3", important)), at(2));
    let Some(Some(Work::Refused { eviction: Some(eviction), message, verdict, .. })) = core.decide(at(3)) else {
        panic!("somebody has to go")
    };
    assert_eq!(eviction.victims[0].key.name, "low");
    assert_eq!(message, "0/1 nodes are available: 1 Insufficient cpu.");
    assert_eq!(verdict.nominated, Some(Some("n1".to_owned())));
    core.see_pod(Seen::Gone(Key::new("default", "low"), Some("low".to_owned())), at(5));
    core.see_pod(Seen::Applied(object("small", "2", json!({}))), at(5));
    assert_eq!(binds(&mut core, at(5)).0, "high");
    assert!(matches!(core.decide(at(5)), Some(Some(Work::Refused { eviction: None, .. }))));
}

#[test]
fn a_status_is_written_only_if_it_differs() {
    let verdict = Verdict { condition: Some(("Unschedulable", "why".to_owned())), nominated: Some(None) };
    let patch = verdict.patch(&pod("p", json!({})), "2030-01-01T00:00:00Z").expect("it is new");
    assert_eq!(patch["status"]["conditions"][0]["lastTransitionTime"], "2030-01-01T00:00:00Z");
    let condition = json!({ "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "why" });
    let mut status = json!({ "status": { "conditions": [condition] } });
    assert_eq!(verdict.patch(&pod("p", status.clone()), "now"), None);
    merge(&mut status, json!({ "status": { "nominatedNodeName": "n1" } }));
    let patch = verdict.patch(&pod("p", status), "now").expect("the node is taken back");
    assert_eq!(patch["status"], json!({ "nominatedNodeName": null }));
}

#[test]
fn a_pod_waits_for_its_volumes_before_it_is_bound() {
    let mut core = core(&["n1"]);
    let class = json!({
        "metadata": { "name": "late" }, "provisioner": "maker", "volumeBindingMode": "WaitForFirstConsumer",
    });
    core.snapshot.volumes.classes.insert("late".to_owned(), Arc::new(serde_json::from_value(class).unwrap()));
    let claim = |more: Value| {
        let mut object = json!({
            "metadata": { "name": "c", "namespace": "default" }, "spec": { "storageClassName": "late" },
        });
        merge(&mut object, more);
        Arc::new(serde_json::from_value(object).unwrap())
    };
    core.snapshot.volumes.claims.insert(Key::new("default", "c"), claim(json!({})));
    let volumes = json!([{ "name": "v", "persistentVolumeClaim": { "claimName": "c" } }]);
    core.see_pod(Seen::Applied(object("a", "1", json!({ "spec": { "volumes": volumes } }))), at(1));
    let Some(Some(Work::AskVolumes { writes, node, .. })) = core.decide(at(2)) else { panic!("a volume is made") };
    assert_eq!((writes.provision.len(), node.as_str()), (1, "n1"));
    assert!(core.volumes_asked("a", Ok(()), at(3)).is_none());
    assert_eq!(core.volumes_deadline(), Some(at(603)));
    let selected = json!({ "metadata": { "annotations": { "volume.kubernetes.io/selected-node": "n1" } } });
    core.snapshot.volumes.claims.insert(Key::new("default", "c"), claim(selected));
    assert!(core.check_volumes(at(4)).is_empty());
    let bound = json!({
        "metadata": { "annotations": { "pv.kubernetes.io/bind-completed": "yes" } }, "spec": { "volumeName": "pv" },
    });
    core.snapshot.volumes.claims.insert(Key::new("default", "c"), claim(bound));
    assert!(matches!(core.check_volumes(at(5)).as_slice(), [Work::Bind { .. }]));
}

#[test]
fn volumes_that_never_come_are_given_up() {
    let mut core = core(&["n1"]);
    let class = json!({
        "metadata": { "name": "late" }, "provisioner": "maker", "volumeBindingMode": "WaitForFirstConsumer",
    });
    core.snapshot.volumes.classes.insert("late".to_owned(), Arc::new(serde_json::from_value(class).unwrap()));
    let claim = json!({ "metadata": { "name": "c", "namespace": "default" }, "spec": { "storageClassName": "late" } });
    core.snapshot.volumes.claims.insert(Key::new("default", "c"), Arc::new(serde_json::from_value(claim).unwrap()));
    let volumes = json!([{ "name": "v", "persistentVolumeClaim": { "claimName": "c" } }]);
    core.see_pod(Seen::Applied(object("a", "1", json!({ "spec": { "volumes": volumes } }))), at(1));
    assert!(matches!(core.decide(at(2)), Some(Some(Work::AskVolumes { .. }))));
    assert!(core.volumes_asked("a", Ok(()), at(3)).is_none());
    assert!(core.check_volumes(at(602)).is_empty());
    let given_up = core.check_volumes(at(603));
    let [Work::Refused { message, .. }] = given_up.as_slice() else { panic!("{given_up:?}") };
    let said = "running PreBind plugin \"VolumeBinding\": binding volumes: timed out waiting for the condition";
    assert_eq!(message, said);
    assert_eq!(core.snapshot.pods_len(), 0);
}
