use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use k3sd_client::controller::setup::NodesConfig;
use k3sd_runtime::Moment;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, Taint};
use serde_json::{Value, json};

use super::core::{Health, Sign, change, evicting, outdated};
use super::zones::{Plan, Zone, plan, zone_of};

fn now() -> Timestamp {
    "2026-01-01T12:00:00.5Z".parse().expect("a time")
}

fn node(name: &str, ready: Option<&str>, spec: Value) -> Node {
    let conditions = ready.map(|status| {
        json!([{"type": "Ready", "status": status, "lastHeartbeatTime": "2026-01-01T11:00:00Z",
            "lastTransitionTime": "2026-01-01T10:00:00Z", "reason": "KubeletReady", "message": "m"}])
    });
    serde_json::from_value(json!({"metadata": {"name": name, "uid": name, "creationTimestamp": "2026-01-01T09:00:00Z"},
        "spec": spec, "status": {"conditions": conditions}}))
    .expect("a node")
}

fn lease(renewed: &str) -> Lease {
    serde_json::from_value(json!({"spec": {"renewTime": format!("2026-01-01T{renewed}.000000Z")}})).expect("a lease")
}

#[test]
fn a_sign_of_life_counts_from_when_it_was_noticed() {
    let config = NodesConfig::default();
    let at = |seconds: u64| (Moment::START + Duration::from_secs(seconds), now());
    let due = |seconds: u64| Moment::START + Duration::from_secs(seconds);
    let ready = node("n", Some("True"), json!({}));
    let sign = |node: &Node, renewed: &str| Sign::of(node, Some(&lease(renewed)));
    // The node's clock is hours behind, which says nothing.
    let (first, is_new) = Health::observe(None, sign(&ready, "03:00:00"), None, at(100), &config);
    assert!(is_new && first.due == due(150));
    let (same, is_new) = Health::observe(Some(&first), sign(&ready, "03:00:00"), None, at(120), &config);
    assert!(!is_new && same == first);
    let (renewed, _) = Health::observe(Some(&first), sign(&ready, "03:00:10"), None, at(120), &config);
    assert_eq!(renewed.due, due(170));
    let (older, _) = Health::observe(Some(&renewed), sign(&ready, "03:00:05"), None, at(130), &config);
    assert_eq!(older.due, due(170), "an old copy of a lease is no sign");
    let mut posted = ready.clone();
    posted.status.as_mut().expect("a status").conditions.as_mut().expect("conditions")[0].last_heartbeat_time =
        Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(now()));
    let (posted, _) = Health::observe(Some(&renewed), sign(&posted, "03:00:10"), None, at(140), &config);
    assert_eq!(posted.due, due(190));
    let mut namesake = ready;
    namesake.metadata.uid = Some("other".to_owned());
    assert!(Health::observe(Some(&posted), sign(&namesake, "03:00:10"), None, at(150), &config).1);
}

#[test]
fn a_node_that_never_reported_has_its_startup_time() {
    let config = NodesConfig::default();
    let silent = node("n", None, json!({}));
    let at = Moment::START + Duration::from_secs(1000);
    let born = |seconds: i64| Some(now() - jiff::SignedDuration::from_secs(seconds));
    for (age, left) in [(0, 60), (20, 40), (600, 0)] {
        let (health, _) = Health::observe(None, Sign::of(&silent, None), born(age), (at, now()), &config);
        assert_eq!(health.due, at + Duration::from_secs(left));
    }
    let leased = Sign::of(&silent, Some(&lease("03:00:00")));
    let (health, _) = Health::observe(None, leased, born(600), (at, now()), &config);
    assert_eq!(health.due, at + Duration::from_secs(60), "who renews a lease is alive");
}

#[test]
fn conditions_become_unknown_once() {
    let mut away = node("n", Some("True"), json!({}));
    let conditions = outdated(&away, now()).expect("they are others");
    let found: Vec<_> =
        conditions.iter().map(|it| (&*it.type_, &*it.status, it.reason.as_deref().unwrap_or_default())).collect();
    assert_eq!(
        found,
        [
            ("Ready", "Unknown", "NodeStatusUnknown"),
            ("MemoryPressure", "Unknown", "NodeStatusNeverUpdated"),
            ("DiskPressure", "Unknown", "NodeStatusNeverUpdated"),
            ("PIDPressure", "Unknown", "NodeStatusNeverUpdated"),
        ]
    );
    assert_eq!(conditions[0].message.as_deref(), Some("Kubelet stopped posting node status."));
    assert_eq!(json!(conditions[0].last_heartbeat_time), json!("2026-01-01T11:00:00Z"));
    assert_eq!(json!(conditions[1].last_heartbeat_time), json!("2026-01-01T09:00:00Z"));
    assert_eq!(json!(conditions[0].last_transition_time), json!("2026-01-01T12:00:00Z"));
    away.status.as_mut().expect("a status").conditions = Some(conditions);
    assert_eq!(outdated(&away, now()), None);
}

/// Taints in short: key without its domain, and effect.
fn short(taints: &[Taint]) -> Vec<String> {
    let key = |taint: &Taint| taint.key.rsplit('/').next().unwrap_or_default().to_owned();
    taints.iter().map(|taint| format!("{}:{}", key(taint), taint.effect)).collect()
}

#[test]
fn taints_follow_conditions() {
    let taint = |key: &str, effect: &str| json!({"key": format!("node.kubernetes.io/{key}"), "effect": effect});
    let lost = || json!([{"key": "mine", "effect": "NoSchedule"}, taint("unreachable", "NoSchedule"), taint("unreachable", "NoExecute")]);
    for (ready, spec, expected) in [
        (Some("True"), json!({}), None),
        (None, json!({}), None),
        (Some("False"), json!({}), Some(vec!["not-ready:NoSchedule"])),
        (Some("Unknown"), json!({}), Some(vec!["unreachable:NoSchedule"])),
        (Some("True"), json!({"unschedulable": true}), Some(vec!["unschedulable:NoSchedule"])),
        (Some("True"), json!({"taints": [taint("unschedulable", "NoSchedule")]}), Some(vec![])),
        (Some("True"), json!({"taints": lost()}), Some(vec!["mine:NoSchedule"])),
        (Some("Unknown"), json!({"taints": lost()}), None),
        (
            Some("False"),
            json!({"taints": lost()}),
            Some(vec!["mine:NoSchedule", "not-ready:NoSchedule", "not-ready:NoExecute"]),
        ),
        (
            Some("Unknown"),
            json!({"taints": [taint("not-ready", "NoSchedule"), taint("not-ready", "NoExecute")]}),
            Some(vec!["unreachable:NoSchedule", "unreachable:NoExecute"]),
        ),
        (Some("True"), json!({"taints": [taint("memory-pressure", "NoExecute")]}), None),
    ] {
        let mut before = node("n", ready, spec.clone());
        let wanted = change(&before, now()).taints;
        assert_eq!(
            wanted.as_deref().map(short),
            expected.map(|all| all.iter().map(|it| (*it).to_owned()).collect()),
            "{ready:?} {spec}"
        );
        if let Some(wanted) = wanted {
            assert!(wanted.iter().all(|taint| taint.key == "mine" || taint.time_added.is_some()));
            before.spec.get_or_insert_default().taints = Some(wanted);
            assert!(change(&before, now()).is_none(), "nothing is written twice");
        }
    }
    let mut pressed = node("n", Some("True"), json!({}));
    let pressures = ["MemoryPressure", "DiskPressure", "PIDPressure", "NetworkUnavailable"];
    let conditions = pressed.status.as_mut().expect("a status").conditions.as_mut().expect("conditions");
    conditions.extend(pressures.map(|kind| k8s_openapi::api::core::v1::NodeCondition {
        type_: kind.to_owned(),
        status: "True".to_owned(),
        ..Default::default()
    }));
    let found = short(&change(&pressed, now()).taints.expect("taints"));
    assert_eq!(
        found,
        [
            "memory-pressure:NoSchedule",
            "disk-pressure:NoSchedule",
            "network-unavailable:NoSchedule",
            "pid-pressure:NoSchedule"
        ]
    );
}

#[test]
fn older_labels_follow_newer_ones() {
    let mut labelled = node("n", Some("True"), json!({}));
    let labels = [("kubernetes.io/os", "linux"), ("kubernetes.io/arch", "arm64"), ("beta.kubernetes.io/arch", "amd64")];
    labelled.metadata.labels = Some(labels.map(|(name, value)| (name.to_owned(), value.to_owned())).into());
    let wanted = change(&labelled, now()).labels;
    assert_eq!(json!(wanted), json!({"beta.kubernetes.io/os": "linux", "beta.kubernetes.io/arch": "arm64"}));
}

/// So many nodes of a zone that are ready, and so many that aren't.
fn zone(zone: &str, ready: usize, away: usize) -> Vec<Node> {
    (0..ready + away)
        .map(|at| {
            let mut node =
                node(&format!("{zone}{at:02}"), Some(if at < ready { "True" } else { "Unknown" }), json!({}));
            let label = ("topology.kubernetes.io/zone".to_owned(), zone.to_owned());
            node.metadata.labels = Some(BTreeMap::from([label]));
            node
        })
        .collect()
}

fn names(plan: &Plan<'_>) -> Vec<String> {
    plan.evict.iter().map(|(_, node)| node.metadata.name.clone().unwrap_or_default()).collect()
}

#[test]
fn evictions_go_at_the_rate_of_each_zone() {
    let config = NodesConfig::default();
    let start = Moment::START + Duration::from_secs(1000);
    let mut nodes = zone("a", 10, 2);
    nodes.extend(zone("b", 9, 1));
    let mut last: BTreeMap<Zone, Moment> = BTreeMap::new();
    let first = plan(nodes.iter(), &last, start, &config);
    assert_eq!(names(&first), ["a10", "b09"]);
    assert_eq!(first.again, Some(start + Duration::from_secs(10)));
    let chosen: Vec<_> = first.evict.iter().map(|(zone, node)| (zone.clone(), node.metadata.name.clone())).collect();
    for (zone, name) in chosen {
        let node = nodes.iter_mut().find(|node| node.metadata.name == name).expect("a node");
        node.spec.get_or_insert_default().taints = evicting(node, true, now());
        last.insert(zone, start);
    }
    let soon = start + Duration::from_secs(3);
    let second = plan(nodes.iter(), &last, soon, &config);
    assert_eq!((names(&second).len(), second.again), (0, Some(start + Duration::from_secs(10))));
    assert_eq!(names(&plan(nodes.iter(), &last, start + Duration::from_secs(10), &config)), ["a11"]);
}

#[test]
fn evictions_slow_down_where_much_is_away_and_end_where_all_is() {
    let config = NodesConfig::default();
    let start = Moment::START + Duration::from_secs(1000);
    for (ready, away, evicts, pause) in [
        (1, 1, true, 10),
        (1, 2, true, 10),
        (2, 3, false, 0),
        (3, 3, true, 10),
        (30, 40, true, 100),
        (22, 28, false, 0),
    ] {
        let mut nodes = zone("a", ready, away);
        nodes.extend(zone("b", 3, 0));
        let plan = plan(nodes.iter(), &BTreeMap::new(), start, &config);
        assert_eq!(!plan.evict.is_empty(), evicts, "{ready} of {}", ready + away);
        let again = (evicts && away > 1).then(|| start + Duration::from_secs(pause));
        assert_eq!(plan.again, again, "{ready} of {}", ready + away);
    }
    let mut nodes = zone("a", 0, 3);
    let one = plan(nodes.iter(), &BTreeMap::new(), start, &config);
    assert_eq!(one, Plan::default(), "nobody answers: the fault is here");
    nodes.extend(zone("b", 1, 0));
    assert_eq!(names(&plan(nodes.iter(), &BTreeMap::new(), start, &config)), ["a00"], "one zone answers");
    nodes[0].spec.get_or_insert_default().taints = evicting(&nodes[0], true, now());
    nodes.truncate(3);
    let spared = plan(nodes.iter(), &BTreeMap::new(), start, &config);
    assert_eq!(spared.spare.len(), 1);
    assert_eq!(evicting(spared.spare[0], false, now()), Some(Vec::new()));
}

#[test]
fn zones_have_older_names() {
    let mut old = node("n", None, json!({}));
    let labels = [("failure-domain.beta.kubernetes.io/zone", "z"), ("topology.kubernetes.io/region", "r")];
    old.metadata.labels = Some(labels.map(|(name, value)| (name.to_owned(), value.to_owned())).into());
    assert_eq!(zone_of(&old), ("r".to_owned(), "z".to_owned()));
}
