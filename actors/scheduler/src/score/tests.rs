//! What upstream documents about each score.

use serde_json::{Value, json};

use crate::config::{DefaultSpread, FitStrategy, ShapePoint};
use crate::plugin::Plugin;
use crate::pod::Key;
use crate::snapshot::OwnerKind;
use crate::testing::{World, pod, sized};

fn scores(world: &World, plugin: Plugin, pod: &crate::pod::PodInfo) -> Vec<i64> {
    world.scores(plugin, pod).expect("it has something to say").into_iter().map(|(_, score)| score).collect()
}

#[test]
fn the_emptier_node_is_better_unless_it_is_to_be_full() {
    let mut world = World::zoned(2, 1).with("n1", sized("a", "2", "4Gi", json!({})));
    let p = sized("p", "1", "2Gi", json!({}));
    // n1: 3 of 4 CPUs and 6 of 8 GiB; n2: 1 of 4 and 2 of 8.
    assert_eq!(scores(&world, Plugin::NodeResourcesFit, &p), [25, 75]);
    let resources = vec![("cpu".to_owned(), 1), ("memory".to_owned(), 1)];
    world.profile.fit = FitStrategy::MostAllocated { resources: resources.clone() };
    assert_eq!(scores(&world, Plugin::NodeResourcesFit, &p), [75, 25]);
    let shape = vec![ShapePoint { utilization: 0, score: 0 }, ShapePoint { utilization: 100, score: 100 }];
    world.profile.fit = FitStrategy::RequestedToCapacityRatio { resources, shape };
    assert_eq!(scores(&world, Plugin::NodeResourcesFit, &p), [75, 25]);
}

#[test]
fn pods_that_ask_for_nothing_still_take_some_room() {
    let world = World::zoned(2, 1).with("n1", pod("a", json!({})));
    let p = pod("p", json!({}));
    // 100m and 200 MiB for each pod: (4000-200)/4000 = 95, (8192-400)/8192 = 95; and 97.
    assert_eq!(scores(&world, Plugin::NodeResourcesFit, &p), [95, 97]);
    assert_eq!(world.scores(Plugin::NodeResourcesBalancedAllocation, &p), None);
}

#[test]
fn even_use_of_resources_is_better() {
    let world = World::zoned(2, 1).with("n1", sized("a", "2", "0", json!({})));
    // n1: 3/4 CPU and 1/4 memory, so that the deviation is 1/4; n2: 1/4 each.
    assert_eq!(scores(&world, Plugin::NodeResourcesBalancedAllocation, &sized("p", "1", "2Gi", json!({}))), [75, 100]);
}

#[test]
fn fewer_taints_to_avoid_are_better() {
    let taints = |count: usize| {
        let taint = |index| json!({ "key": format!("k{index}"), "effect": "PreferNoSchedule" });
        json!({ "spec": { "taints": (0..count).map(taint).collect::<Vec<_>>() } })
    };
    let world = World::of(&[("n1", taints(0)), ("n2", taints(1)), ("n3", taints(2))]);
    assert_eq!(scores(&world, Plugin::TaintToleration, &pod("p", json!({}))), [100, 50, 0]);
    let tolerations = json!([{ "key": "k1", "operator": "Exists", "effect": "PreferNoSchedule" }]);
    let tolerant = pod("p", json!({ "spec": { "tolerations": tolerations } }));
    assert_eq!(scores(&world, Plugin::TaintToleration, &tolerant), [100, 0, 0]);
}

#[test]
fn preferred_labels_count_by_weight() {
    let world = World::zoned(3, 3);
    let term = |weight: i32, zone: &str| {
        let expressions = json!([{ "key": "topology.kubernetes.io/zone", "operator": "In", "values": [zone] }]);
        json!({ "weight": weight, "preference": { "matchExpressions": expressions } })
    };
    let preferred = json!([term(20, "z1"), term(5, "z2")]);
    let affinity = json!({ "nodeAffinity": { "preferredDuringSchedulingIgnoredDuringExecution": preferred } });
    let p = pod("p", json!({ "spec": { "affinity": affinity } }));
    assert_eq!(scores(&world, Plugin::NodeAffinity, &p), [100, 25, 0]);
    assert_eq!(world.scores(Plugin::NodeAffinity, &pod("p", json!({}))), None);
}

#[test]
fn images_that_are_there_count_by_size_and_spread() {
    let image = |bytes: i64| json!({ "status": { "images": [{ "names": ["app:latest"], "sizeBytes": bytes }] } });
    let mib = 1024 * 1024;
    let world = World::of(&[("n1", image(1000 * mib)), ("n2", image(46 * mib)), ("n3", json!({}))]);
    // Two of three nodes have it: two thirds of the bytes count, between 23 and 1000 MiB.
    assert_eq!(scores(&world, Plugin::ImageLocality, &pod("p", json!({}))), [65, 0, 0]);
}

fn preferring(kind: &str, weight: i32, app: &str) -> Value {
    let term = json!({
        "topologyKey": "topology.kubernetes.io/zone", "labelSelector": { "matchLabels": { "app": app } },
    });
    let preferred = json!([{ "weight": weight, "podAffinityTerm": term }]);
    json!({ "spec": { "affinity": { kind: { "preferredDuringSchedulingIgnoredDuringExecution": preferred } } } })
}

fn labelled(name: &str, app: &str, mut more: Value) -> std::sync::Arc<crate::pod::PodInfo> {
    crate::testing::merge(&mut more, json!({ "metadata": { "labels": { "app": app } } }));
    pod(name, more)
}

#[test]
fn liked_and_disliked_pods_count_both_ways() {
    let world = World::zoned(4, 2).with("n1", labelled("db", "db", json!({})));
    let near = labelled("p", "web", preferring("podAffinity", 10, "db"));
    assert_eq!(scores(&world, Plugin::InterPodAffinity, &near), [100, 0, 100, 0]);
    let far = labelled("p", "web", preferring("podAntiAffinity", 10, "db"));
    assert_eq!(scores(&world, Plugin::InterPodAffinity, &far), [0, 100, 0, 100]);
    assert_eq!(world.scores(Plugin::InterPodAffinity, &labelled("p", "web", json!({}))), None);
    let world = World::zoned(4, 2).with("n2", labelled("db", "db", preferring("podAffinity", 10, "web")));
    assert_eq!(scores(&world, Plugin::InterPodAffinity, &labelled("p", "web", json!({}))), [0, 100, 0, 100]);
}

#[test]
fn what_others_require_is_worth_its_weight() {
    let term = json!({
        "topologyKey": "topology.kubernetes.io/zone", "labelSelector": { "matchLabels": { "app": "web" } },
    });
    let required = json!({ "podAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": [term] } });
    let there = labelled("db", "db", json!({ "spec": { "affinity": required } }));
    let mut world = World::zoned(2, 2).with("n2", there);
    assert_eq!(scores(&world, Plugin::InterPodAffinity, &labelled("p", "web", json!({}))), [0, 100]);
    world.profile.hard_pod_affinity_weight = 0;
    assert_eq!(world.scores(Plugin::InterPodAffinity, &labelled("p", "web", json!({}))), None);
}

#[test]
fn pods_of_one_controller_are_spread_by_default() {
    let selector = crate::labels::with_labels(&[("app".to_owned(), "web".to_owned())].into());
    let mut world = World::zoned(2, 2).with("n1", labelled("a", "web", json!({})));
    let key = Key::new("default", "web-1");
    world.snapshot.owners.apply_controller(OwnerKind::ReplicaSet, key, selector);
    let owner =
        json!([{ "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-1", "uid": "r", "controller": true }]);
    let owned = labelled("p", "web", json!({ "metadata": { "ownerReferences": owner } }));
    let given = scores(&world, Plugin::PodTopologySpread, &owned);
    assert!(given[0] < given[1], "{given:?}");
    assert_eq!(given[1], 100);
    assert_eq!(world.scores(Plugin::PodTopologySpread, &labelled("q", "web", json!({}))), None);
    world.profile.default_spread = DefaultSpread::List(Vec::new());
    assert_eq!(world.scores(Plugin::PodTopologySpread, &owned), None);
}

#[test]
fn soft_constraints_prefer_the_emptier_zone_and_ignore_nodes_without_one() {
    let constraint = json!({
        "maxSkew": 1, "topologyKey": "topology.kubernetes.io/zone", "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": { "matchLabels": { "app": "web" } },
    });
    let p = labelled("p", "web", json!({ "spec": { "topologySpreadConstraints": [constraint] } }));
    let mut world = World::zoned(2, 2)
        .with("n1", labelled("a", "web", json!({})))
        .with("n1", labelled("b", "web", json!({})))
        .with("n2", labelled("c", "web", json!({})));
    world.snapshot.apply_node(crate::testing::node("bare", json!({})));
    world.snapshot.settle();
    // Weight ln(2 + 2): 2 pods give round(2.77) = 3, one round(1.39) = 1; of which 100 x (3 + 1 - s) / 3.
    assert_eq!(scores(&world, Plugin::PodTopologySpread, &p), [0, 33, 100]);
}
