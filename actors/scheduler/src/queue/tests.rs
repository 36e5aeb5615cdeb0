//! Which pod is tried when.

use std::sync::Arc;
use std::time::Duration;

use k3sd_runtime::Moment;
use serde_json::{Value, json};

use super::{ClusterEvent, Place, Queue};
use crate::config::Backoff;
use crate::plugin::{Plugin, PluginSet};
use crate::pod::PodInfo;
use crate::snapshot::{NodeInfo, Snapshot};
use crate::testing::{World, pod, sized};

fn at(millis: u64) -> Moment {
    Moment::START + Duration::from_millis(millis)
}

fn queue(pods: &[Arc<PodInfo>]) -> Queue {
    let mut queue = Queue::new(Backoff::default());
    for (index, pod) in pods.iter().enumerate() {
        queue.apply(pod.clone(), at(index as u64));
    }
    queue
}

fn by(plugin: Plugin) -> PluginSet {
    PluginSet::from_iter([plugin])
}

fn name(pod: Option<Arc<PodInfo>>) -> Option<String> {
    pod.map(|pod| pod.key.name.clone())
}

fn prioritised(name: &str, priority: i32) -> Arc<PodInfo> {
    pod(name, json!({ "spec": { "priority": priority } }))
}

/// A queue in which `p` was refused at 10 ms.
fn refused(pod: &Arc<PodInfo>, plugin: Plugin) -> Queue {
    let mut queue = queue(std::slice::from_ref(pod));
    assert!(queue.pop(at(10)).is_some());
    queue.refused(&pod.uid, by(plugin), &Snapshot::default(), at(10));
    assert_eq!(queue.place(&pod.uid), Some(Place::Unschedulable));
    queue
}

fn node(name: &str, more: Value) -> Arc<NodeInfo> {
    let world = World::of(&[(name, more)]);
    world.snapshot.node(world.snapshot.slot(name).unwrap()).clone()
}

#[test]
fn the_more_important_goes_first_and_then_the_older() {
    let mut queue = queue(&[prioritised("a", 0), prioritised("b", 5), prioritised("c", 5), prioritised("d", -1)]);
    let order: Vec<String> = std::iter::from_fn(|| name(queue.pop(at(100)))).collect();
    assert_eq!(order, ["b", "c", "a", "d"]);
}

#[test]
fn gates_hold_a_pod_back_until_the_last_is_open() {
    let gated = pod("p", json!({ "spec": { "schedulingGates": [{ "name": "g" }] } }));
    let mut queue = queue(&[gated]);
    assert_eq!((queue.place("p"), queue.is_ready()), (Some(Place::Gated), false));
    queue.apply(pod("p", json!({ "spec": { "schedulingGates": [] } })), at(5));
    assert_eq!(name(queue.pop(at(6))).as_deref(), Some("p"));
}

#[test]
fn the_wait_doubles_up_to_ten_seconds() {
    let waits: Vec<u64> = (0..7).map(|tries| Backoff::default().after(tries).as_secs()).collect();
    assert_eq!(waits, [0, 1, 2, 4, 8, 10, 10]);
    assert_eq!(Backoff::default().after(u32::MAX).as_secs(), 10);
}

#[test]
fn a_refused_pod_waits_for_what_may_help() {
    let p = sized("p", "2", "1", json!({}));
    let mut queue = refused(&p, Plugin::NodeResourcesFit);
    let small = node("small", json!({ "status": { "allocatable": { "cpu": "1" } } }));
    queue.happened(ClusterEvent::NodeAdded(small), &Snapshot::default(), at(20));
    assert_eq!(queue.place("p"), Some(Place::Unschedulable));
    queue.happened(ClusterEvent::NodeAdded(node("large", json!({}))), &Snapshot::default(), at(20));
    // It is worth a try, but its back-off isn't over; with nothing else to do it is tried all the same.
    assert_eq!(queue.place("p"), Some(Place::Backoff(at(1010))));
    assert_eq!(name(queue.pop(at(30))).as_deref(), Some("p"));
}

#[test]
fn hints_know_what_may_change_which_refusal() {
    let tainted = json!({ "spec": { "taints": [{ "key": "k", "effect": "NoSchedule" }] } });
    let plain = || node("n", json!({}));
    let rows: Vec<(Plugin, Arc<PodInfo>, ClusterEvent, bool)> = vec![
        (
            Plugin::TaintToleration,
            pod("p", json!({})),
            ClusterEvent::NodeUpdated { old: node("n", tainted.clone()), new: plain() },
            true,
        ),
        (Plugin::TaintToleration, pod("p", json!({})), ClusterEvent::NodeAdded(node("n", tainted)), false),
        (Plugin::TaintToleration, pod("p", json!({})), ClusterEvent::PodDeleted(pod("q", json!({}))), false),
        (
            Plugin::NodeUnschedulable,
            pod("p", json!({})),
            ClusterEvent::NodeUpdated { old: node("n", json!({ "spec": { "unschedulable": true } })), new: plain() },
            true,
        ),
        (
            Plugin::NodeAffinity,
            pod("p", json!({ "spec": { "nodeSelector": { "disk": "ssd" } } })),
            ClusterEvent::NodeUpdated {
                old: plain(),
                new: node("n", json!({ "metadata": { "labels": { "disk": "ssd" } } })),
            },
            true,
        ),
        (
            Plugin::NodeAffinity,
            pod("p", json!({ "spec": { "nodeSelector": { "disk": "ssd" } } })),
            ClusterEvent::NodeAdded(plain()),
            false,
        ),
        (
            Plugin::NodeResourcesFit,
            sized("p", "1", "1", json!({})),
            ClusterEvent::NodeUpdated { old: plain(), new: plain() },
            false,
        ),
        (
            Plugin::NodeResourcesFit,
            sized("p", "1", "1", json!({})),
            ClusterEvent::PodDeleted(sized("q", "1", "1", json!({}))),
            true,
        ),
        (Plugin::VolumeBinding, pod("p", json!({})), ClusterEvent::StorageChanged, true),
        (Plugin::PodTopologySpread, pod("p", json!({})), ClusterEvent::NodeDeleted, true),
        (Plugin::InterPodAffinity, pod("p", json!({})), ClusterEvent::PodAdded(pod("q", json!({}))), false),
    ];
    for (index, (plugin, pod, event, expected)) in rows.into_iter().enumerate() {
        assert_eq!(event.may_help(plugin, &pod, &Snapshot::default()), expected, "row {index}: {plugin}");
    }
}

#[test]
fn what_happens_during_a_decision_is_not_missed() {
    let p = sized("p", "2", "1", json!({}));
    let mut queue = queue(std::slice::from_ref(&p));
    queue.pop(at(10));
    queue.happened(ClusterEvent::NodeAdded(node("n", json!({}))), &Snapshot::default(), at(11));
    queue.refused("p", by(Plugin::NodeResourcesFit), &Snapshot::default(), at(12));
    assert_eq!(queue.place("p"), Some(Place::Backoff(at(1012))));
    // What nobody in flight needs any more is forgotten.
    assert_eq!(queue.events.len(), 0);
}

#[test]
fn an_error_is_waited_out_and_not_cut_short() {
    let mut queue = queue(&[pod("p", json!({}))]);
    queue.pop(at(10));
    queue.failed("p", at(10));
    assert_eq!((queue.is_ready(), queue.next_wake()), (false, Some(at(1010))));
    assert!(queue.pop(at(1000)).is_none());
    assert_eq!(name(queue.pop(at(1010))).as_deref(), Some("p"));
}

#[test]
fn after_five_minutes_a_pod_is_tried_again_in_any_case() {
    let mut queue = refused(&pod("p", json!({})), Plugin::NodeName);
    let due = at(10) + Duration::from_secs(300);
    assert_eq!(queue.next_wake(), Some(due));
    queue.wake(due);
    assert_eq!(queue.place("p"), Some(Place::Active));
}

#[test]
fn a_pod_that_changes_is_tried_again_only_if_that_may_help() {
    let p = pod("p", json!({}));
    let mut queue = refused(&p, Plugin::TaintToleration);
    // What the scheduler writes itself.
    queue.apply(pod("p", json!({ "status": { "nominatedNodeName": "n" } })), at(20));
    assert_eq!(queue.place("p"), Some(Place::Unschedulable));
    let tolerant = pod("p", json!({ "spec": { "tolerations": [{ "operator": "Exists" }] } }));
    queue.apply(tolerant, at(5000));
    assert_eq!(queue.place("p"), Some(Place::Active));
}

#[test]
fn removed_pods_leave_nothing_behind() {
    let mut queue = queue(&[prioritised("a", 1), prioritised("b", 2)]);
    queue.pop(at(5));
    queue.happened(ClusterEvent::NodeDeleted, &Snapshot::default(), at(6));
    assert!(queue.remove("a").is_some());
    assert!(queue.remove("b").is_some());
    assert!(queue.is_empty() && queue.pop(at(9)).is_none() && queue.events.is_empty());
    // An answer about a pod that is gone by then is none.
    queue.refused("b", PluginSet::default(), &Snapshot::default(), at(10));
    queue.failed("b", at(10));
    assert!(queue.is_empty());
}
