//! Nodes, replacement and numbers.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k3sd_runtime::Moment;
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{Node, PodSpec};
use serde_json::{Value, json};

use super::core::{Action, Failures, Shared, Wanted, plan, status};
use super::nodes::{Place, aim, bear, place, target};
use crate::support::name;

fn now() -> Timestamp {
    "2026-01-01T12:00:00Z".parse().expect("a time")
}

fn of<K: serde::de::DeserializeOwned>(json: Value) -> K {
    serde_json::from_value(json).expect("such an object")
}

fn node(name: &str, labels: Value, taints: Value) -> Node {
    of(json!({"metadata": {"name": name, "labels": labels}, "spec": {"taints": taints}}))
}

#[test]
fn a_pod_is_where_it_is_asked_for_and_borne() {
    let plain = node("a", json!({"zone": "x", "size": "5"}), json!([]));
    let taint = |key: &str, effect: &str| node("a", json!({}), json!([{"key": key, "effect": effect, "value": "v"}]));
    let required = |terms: Value| {
        json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution":
            {"nodeSelectorTerms": terms}}}})
    };
    let wants = |key: &str, operator: &str, values: Value| {
        required(json!([{"matchExpressions": [{"key": key, "operator": operator, "values": values}]}]))
    };
    let field = |operator: &str| {
        required(json!([{"matchFields": [{"key": "metadata.name", "operator": operator, "values": ["a"]}]}]))
    };
    for (spec, node, expected) in [
        (json!({}), &plain, Place::Runs),
        (json!({"nodeName": "a"}), &plain, Place::Runs),
        (json!({"nodeName": "b"}), &plain, Place::Nowhere),
        (json!({"nodeSelector": {"zone": "x"}}), &plain, Place::Runs),
        (json!({"nodeSelector": {"zone": "y"}}), &plain, Place::Nowhere),
        (wants("zone", "In", json!(["y", "x"])), &plain, Place::Runs),
        (wants("zone", "NotIn", json!(["x"])), &plain, Place::Nowhere),
        (wants("size", "Gt", json!(["4"])), &plain, Place::Runs),
        (wants("size", "Lt", json!(["4"])), &plain, Place::Nowhere),
        (wants("color", "Exists", json!([])), &plain, Place::Nowhere),
        (wants("color", "DoesNotExist", json!([])), &plain, Place::Runs),
        (required(json!([{}])), &plain, Place::Nowhere),
        (field("In"), &plain, Place::Runs),
        (field("NotIn"), &plain, Place::Nowhere),
        (json!({}), &taint("k", "NoSchedule"), Place::Stays),
        (json!({}), &taint("k", "NoExecute"), Place::Nowhere),
        (json!({}), &taint("k", "PreferNoSchedule"), Place::Runs),
        (json!({"tolerations": [{"key": "k", "value": "v"}]}), &taint("k", "NoExecute"), Place::Runs),
        (json!({"tolerations": [{"key": "k", "value": "w"}]}), &taint("k", "NoExecute"), Place::Nowhere),
        (json!({"tolerations": [{"operator": "Exists"}]}), &taint("k", "NoExecute"), Place::Runs),
        (json!({}), &taint("node.kubernetes.io/unschedulable", "NoSchedule"), Place::Runs),
        (json!({}), &taint("node.kubernetes.io/unreachable", "NoExecute"), Place::Runs),
        (json!({}), &taint("node.kubernetes.io/network-unavailable", "NoSchedule"), Place::Stays),
        (json!({"hostNetwork": true}), &taint("node.kubernetes.io/network-unavailable", "NoSchedule"), Place::Runs),
    ] {
        let mut spec = spec;
        spec["containers"] = json!([]);
        let mut pod: PodSpec = of(spec.clone());
        bear(&mut pod);
        assert_eq!(place(&pod, node), expected, "{spec}");
    }
}

#[test]
fn what_is_borne_is_said_once_and_a_pod_knows_its_node() {
    let mut spec = PodSpec::default();
    bear(&mut spec);
    let six = spec.tolerations.clone();
    assert_eq!(six.as_ref().map(Vec::len), Some(6));
    bear(&mut spec);
    assert_eq!(spec.tolerations, six);
    assert_eq!(target(&spec), None);
    aim(&mut spec, "a");
    assert_eq!(target(&spec), Some("a"));
    spec.node_name = Some("b".to_owned());
    assert_eq!(target(&spec), Some("b"));
}

fn set(strategy: Value) -> DaemonSet {
    of(
        json!({"metadata": {"name": "d", "uid": "d", "generation": 3}, "spec": {"selector": {}, "updateStrategy": strategy,
        "template": {"spec": {"containers": []}}}}),
    )
}

/// A pod on a node of a revision: `ready`, `starting`, `failed`, `done` or `going`.
fn pod(name: &str, node: &str, hash: &str, how: &str) -> Shared {
    let ready = json!([{"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T11:00:00Z"}]);
    let (phase, conditions) = match how {
        "ready" => ("Running", ready),
        "failed" => ("Failed", json!([])),
        "done" => ("Succeeded", json!([])),
        _ => ("Running", json!([])),
    };
    let going = (how == "going").then_some("2026-01-01T11:59:59Z");
    let mut pod: k8s_openapi::api::core::v1::Pod = of(json!({"metadata": {"name": name, "uid": name,
        "creationTimestamp": format!("2026-01-01T10:00:0{}Z", name.len()), "deletionTimestamp": going,
        "labels": {"controller-revision-hash": hash}},
        "spec": {"containers": []}, "status": {"phase": phase, "conditions": conditions}}));
    aim(pod.spec.get_or_insert_default(), node);
    Arc::new(pod)
}

fn nodes(names: &[&str]) -> Vec<Arc<Node>> {
    names.iter().map(|name| Arc::new(node(name, json!({}), json!([])))).collect()
}

/// The plan in short.
fn short(strategy: Value, nodes: &[Arc<Node>], pods: &[Shared]) -> String {
    let wanted = Wanted::of(&set(strategy), "new");
    let said = plan(&wanted, nodes, pods, now()).into_iter().map(|action| match action {
        Action::Create(node) => format!("+{node}"),
        Action::Delete(pod) => format!("-{}", name(&*pod)),
        Action::Retry(pod, _) => format!("!{}", name(&*pod)),
        Action::Renew(pod, _) => format!("~{}", name(&*pod)),
    });
    said.collect::<Vec<_>>().join(" ")
}

#[test]
fn each_node_has_one_pod() {
    let two = nodes(&["a", "b"]);
    assert_eq!(short(json!({}), &two, &[]), "+a +b");
    assert_eq!(short(json!({}), &two, &[pod("1", "a", "new", "ready")]), "+b");
    let twice = [pod("1", "a", "new", "ready"), pod("22", "a", "new", "ready"), pod("333", "b", "new", "starting")];
    assert_eq!(short(json!({}), &two, &twice), "-22", "the oldest stays");
    assert_eq!(short(json!({}), &two[..1], &twice[1..]), "-333", "its node is gone, and it was never there");
    let over = [pod("1", "a", "new", "failed"), pod("22", "b", "new", "done")];
    assert_eq!(short(json!({}), &two, &over), "!1 ~22");
    assert_eq!(short(json!({}), &two, &[pod("1", "a", "new", "going"), pod("22", "b", "new", "ready")]), "");
    let tainted = vec![Arc::new(node("a", json!({}), json!([{"key": "k", "effect": "NoExecute"}])))];
    assert_eq!(short(json!({}), &tainted, &twice[..1]), "-1");
    let full = vec![Arc::new(node("a", json!({}), json!([{"key": "k", "effect": "NoSchedule"}])))];
    assert_eq!(short(json!({}), &full, &twice[..1]), "", "it may stay, but not come");
    assert_eq!(short(json!({}), &full, &[]), "");
}

#[test]
fn pods_are_replaced_as_many_at_once_as_may_be() {
    let rolling = |bounds: Value| json!({"type": "RollingUpdate", "rollingUpdate": bounds});
    let four = nodes(&["a", "b", "c", "d"]);
    let old = |how: [&str; 4]| -> Vec<Shared> {
        let names = ["a", "b", "c", "d"];
        names.iter().zip(how).map(|(node, how)| pod(node, node, "old", how)).collect()
    };
    let ready = old(["ready"; 4]);
    assert_eq!(short(json!({}), &four, &ready), "-a");
    assert_eq!(short(rolling(json!({"maxUnavailable": "50%"})), &four, &ready), "-a -b");
    assert_eq!(short(rolling(json!({"maxUnavailable": "30%"})), &four, &ready), "-a -b", "rounded up");
    assert_eq!(short(json!({"type": "OnDelete"}), &four, &ready), "");
    let broken = old(["starting", "ready", "starting", "ready"]);
    assert_eq!(short(json!({}), &four, &broken), "-a -c -b", "what doesn't serve costs nothing");
    let mut begun = ready.clone();
    begun[0] = pod("new", "a", "new", "starting");
    assert_eq!(short(json!({}), &four, &begun), "");
    begun[0] = pod("new", "a", "new", "ready");
    assert_eq!(short(json!({}), &four, &begun), "-b");
    begun[0] = pod("new", "a", "new", "failed");
    assert_eq!(short(json!({}), &four, &begun), "!new", "a node that can't holds its place");
    assert_eq!(short(rolling(json!({"maxUnavailable": 2})), &four, &begun), "!new -b");
}

#[test]
fn with_a_surge_the_new_pod_comes_before_the_old_one_goes() {
    let surge = json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}});
    let two = nodes(&["a", "b"]);
    let old = [pod("a", "a", "old", "ready"), pod("b", "b", "old", "ready")];
    assert_eq!(short(surge.clone(), &two, &old), "+a");
    let with = |how: &str| [&old[..], &[pod("new", "a", "new", how)]].concat();
    assert_eq!(short(surge.clone(), &two, &with("starting")), "");
    assert_eq!(short(surge.clone(), &two, &with("ready")), "-a");
    let dead = [pod("a", "a", "old", "starting"), old[1].clone(), pod("new", "a", "new", "starting")];
    assert_eq!(short(surge, &two, &dead), "-a", "the old one serves nobody");
}

#[test]
fn the_status_counts_nodes() {
    let mut all = nodes(&["a", "b", "c"]);
    all.push(Arc::new(node("d", json!({}), json!([{"key": "k", "effect": "NoSchedule"}]))));
    let pods = [pod("a", "a", "new", "ready"), pod("b", "b", "old", "starting"), pod("d", "d", "old", "ready")];
    let set = set(json!({}));
    let (said, next) = status(&set, &Wanted::of(&set, "new"), &all, &pods, (0, now()));
    let expected = json!({"desiredNumberScheduled": 3, "currentNumberScheduled": 2, "numberReady": 1, "numberAvailable": 1,
        "numberUnavailable": 2, "numberMisscheduled": 1, "updatedNumberScheduled": 1, "observedGeneration": 3});
    assert_eq!(serde_json::to_value(said).expect("JSON"), expected);
    assert_eq!(next, None);
}

#[test]
fn failed_pods_wait_longer_and_longer() {
    let mut failures = Failures::default();
    let at = |seconds: u64| Moment::START + Duration::from_secs(seconds);
    assert_eq!(failures.may_retry("s", "a", at(0)), Ok(()));
    assert_eq!(failures.may_retry("s", "a", at(0)), Err(Duration::from_secs(1)));
    assert_eq!(failures.may_retry("s", "b", at(0)), Ok(()));
    assert_eq!(failures.may_retry("s", "a", at(1)), Ok(()));
    assert_eq!(failures.may_retry("s", "a", at(2)), Err(Duration::from_secs(1)));
    let mut now = 10;
    for _ in 0..20 {
        failures.may_retry("s", "a", at(now)).expect("long enough");
        now += 900;
    }
    assert_eq!(failures.may_retry("s", "a", at(now - 899)), Err(Duration::from_secs(899)));
    assert_eq!(failures.may_retry("s", "a", at(now + 5000)), Ok(()));
    assert_eq!(failures.may_retry("s", "a", at(now + 5001)), Ok(()), "it was good for long, so it begins anew");
}
