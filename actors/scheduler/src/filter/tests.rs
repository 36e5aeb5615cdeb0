//! What upstream documents about each filter, said in the words of its messages.

use serde_json::{Value, json};

use crate::pod::PodInfo;
use crate::testing::{World, pod, sized};

const NO_HELP: &str = "0/1 nodes are available: 1 ";

/// One node, one pod: the message, without its first words, or the node's name.
fn check(node: Value, pod: &PodInfo, expected: &str) {
    let outcome = World::of(&[("n1", node)]).outcome(pod);
    assert_eq!(outcome.strip_prefix(NO_HELP).unwrap_or(&outcome).trim_end_matches('.'), expected);
}

#[test]
fn a_node_has_to_have_room() {
    check(json!({}), &sized("p", "4", "8Gi", json!({})), "n1");
    check(json!({}), &sized("p", "4001m", "1", json!({})), "Insufficient cpu");
    check(json!({ "status": { "allocatable": { "pods": "0" } } }), &pod("p", json!({})), "Too many pods");
    let odd = json!([{ "name": "c", "resources": { "requests": { "example.com/gpu": "2" } } }]);
    check(json!({}), &pod("p", json!({ "spec": { "containers": odd } })), "Insufficient example.com/gpu");
    let has = json!({ "status": { "allocatable": { "example.com/gpu": "2" } } });
    check(has, &pod("p", json!({ "spec": { "containers": odd } })), "n1");
}

#[test]
fn all_that_lacks_is_said() {
    let world = World::of(&[("n1", json!({}))]);
    let said = world.outcome(&sized("p", "5", "9Gi", json!({})));
    assert_eq!(said, "0/1 nodes are available: 1 Insufficient cpu, 1 Insufficient memory.");
}

#[test]
fn taints_keep_pods_away_unless_they_are_tolerated() {
    let taint = |effect: &str| json!({ "spec": { "taints": [{ "key": "k", "value": "v", "effect": effect }] } });
    check(taint("NoSchedule"), &pod("p", json!({})), "node(s) had untolerated taint {k: v}");
    check(taint("NoExecute"), &pod("p", json!({})), "node(s) had untolerated taint {k: v}");
    check(taint("PreferNoSchedule"), &pod("p", json!({})), "n1");
    let tolerant = pod("p", json!({ "spec": { "tolerations": [{ "key": "k", "operator": "Exists" }] } }));
    check(taint("NoSchedule"), &tolerant, "n1");
}

#[test]
fn a_cordoned_node_takes_only_those_who_tolerate_it() {
    let cordoned = json!({ "spec": { "unschedulable": true } });
    check(cordoned.clone(), &pod("p", json!({})), "node(s) were unschedulable");
    let key = "node.kubernetes.io/unschedulable";
    let tolerations = json!([{ "key": key, "operator": "Exists", "effect": "NoSchedule" }]);
    check(cordoned, &pod("p", json!({ "spec": { "tolerations": tolerations } })), "n1");
}

#[test]
fn selectors_and_required_affinity_both_hold() {
    let wants = |selector: Value, terms: Value| {
        let required = json!({ "requiredDuringSchedulingIgnoredDuringExecution": { "nodeSelectorTerms": terms } });
        pod("p", json!({ "spec": { "nodeSelector": selector, "affinity": { "nodeAffinity": required } } }))
    };
    let node = || json!({ "metadata": { "labels": { "disk": "ssd", "zone": "a" } } });
    let term = |key: &str, operator: &str, values: Value| json!({ "matchExpressions": [{ "key": key, "operator": operator, "values": values }] });
    let refused = "node(s) didn't match Pod's node affinity/selector";
    check(node(), &wants(json!({ "disk": "ssd" }), json!([term("zone", "In", json!(["a", "b"]))])), "n1");
    check(node(), &wants(json!({ "disk": "hdd" }), json!([term("zone", "In", json!(["a"]))])), refused);
    check(node(), &wants(json!({}), json!([term("zone", "NotIn", json!(["a"]))])), refused);
    let either = json!([term("zone", "In", json!(["x"])), term("disk", "Exists", json!([]))]);
    check(node(), &wants(json!({}), either), "n1");
}

#[test]
fn a_pod_that_names_its_node_costs_one_node() {
    let world = World::zoned(3, 1);
    let fields = |name: &str| json!([{ "key": "metadata.name", "operator": "In", "values": [name] }]);
    let named = |name: &str| {
        let terms = json!([{ "matchFields": fields(name) }]);
        let required = json!({ "requiredDuringSchedulingIgnoredDuringExecution": { "nodeSelectorTerms": terms } });
        sized("p", "9", "1", json!({ "spec": { "affinity": { "nodeAffinity": required } } }))
    };
    let others = "node(s) didn't satisfy plugin(s) [NodeAffinity]";
    let said = format!("0/3 nodes are available: 1 Insufficient cpu, 2 {others}.");
    assert_eq!(world.outcome(&named("n2")), said);
    assert_eq!(world.outcome(&named("gone")), format!("0/3 nodes are available: 3 {others}."));
}

#[test]
fn host_ports_conflict_by_address_protocol_and_number() {
    let with = |ip: &str, protocol: &str, port: u16| {
        let ports = json!([{ "containerPort": 80, "hostIP": ip, "protocol": protocol, "hostPort": port }]);
        move |name: &str| pod(name, json!({ "spec": { "containers": [{ "name": "c", "ports": ports }] } }))
    };
    let rows = [
        (with("", "TCP", 80), with("", "TCP", 80), false),
        (with("", "TCP", 80), with("", "UDP", 80), true),
        (with("", "TCP", 80), with("", "TCP", 81), true),
        (with("10.0.0.1", "TCP", 80), with("10.0.0.2", "TCP", 80), true),
        (with("10.0.0.1", "TCP", 80), with("0.0.0.0", "TCP", 80), false),
    ];
    for (index, (there, wanted, fits)) in rows.into_iter().enumerate() {
        let world = World::of(&[("n1", json!({}))]).with("n1", there("there"));
        let refused = "0/1 nodes are available: 1 node(s) didn't have free ports for the requested pod ports.";
        assert_eq!(world.outcome(&wanted("p")), if fits { "n1" } else { refused }, "row {index}");
    }
}

fn labelled(name: &str, app: &str, spec: Value) -> std::sync::Arc<PodInfo> {
    pod(name, json!({ "metadata": { "labels": { "app": app } }, "spec": spec }))
}

fn affinity(kind: &str, key: &str, app: &str) -> Value {
    let term = json!({ "topologyKey": key, "labelSelector": { "matchLabels": { "app": app } } });
    json!({ "affinity": { kind: { "requiredDuringSchedulingIgnoredDuringExecution": [term] } } })
}

const ZONE: &str = "topology.kubernetes.io/zone";
const HOST: &str = "kubernetes.io/hostname";

#[test]
fn affinity_holds_by_domain_and_the_first_of_a_group_goes_anywhere() {
    let world = World::zoned(4, 2).with("n1", labelled("db", "db", json!({})));
    let near = labelled("p", "web", affinity("podAffinity", ZONE, "db"));
    assert_eq!(world.admitted(&near), ["n1", "n3"]);
    let own = labelled("p", "web", affinity("podAffinity", ZONE, "web"));
    assert_eq!(world.admitted(&own), ["n1", "n2", "n3", "n4"]);
    let stranger = labelled("p", "web", affinity("podAffinity", ZONE, "nobody"));
    assert_eq!(world.outcome(&stranger), "0/4 nodes are available: 4 node(s) didn't match pod affinity rules.");
}

#[test]
fn anti_affinity_holds_both_ways() {
    let world = World::zoned(4, 2).with("n1", labelled("a", "web", json!({})));
    assert_eq!(world.admitted(&labelled("p", "web", affinity("podAntiAffinity", ZONE, "web"))), ["n2", "n4"]);
    assert_eq!(world.admitted(&labelled("p", "web", affinity("podAntiAffinity", HOST, "web"))), ["n2", "n3", "n4"]);
    let world = World::zoned(2, 2).with("n1", labelled("a", "db", affinity("podAntiAffinity", ZONE, "web")));
    assert_eq!(world.admitted(&labelled("p", "web", json!({}))), ["n2"]);
    assert_eq!(world.admitted(&labelled("p", "other", json!({}))), ["n1", "n2"]);
    let world = world.with("n2", labelled("b", "db", affinity("podAntiAffinity", ZONE, "web")));
    let said = "0/2 nodes are available: 2 node(s) didn't satisfy existing pods anti-affinity rules.";
    assert_eq!(world.outcome(&labelled("p", "web", json!({}))), said);
}

#[test]
fn terms_reach_namespaces_by_name_and_by_label() {
    let mut world = World::zoned(2, 2);
    world.snapshot.apply_namespace("default", [("team".to_owned(), "a".to_owned())].into());
    world.snapshot.apply_namespace("other", [("team".to_owned(), "b".to_owned())].into());
    let there = json!({ "metadata": { "namespace": "other", "labels": { "app": "db" } } });
    let world = world.with("n1", pod("db", there));
    let far_from = |more: Value| {
        let mut term = json!({ "topologyKey": ZONE, "labelSelector": { "matchLabels": { "app": "db" } } });
        crate::testing::merge(&mut term, more);
        let spec = json!({ "podAntiAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": [term] } });
        pod("p", json!({ "spec": { "affinity": spec } }))
    };
    assert_eq!(world.admitted(&far_from(json!({}))), ["n1", "n2"]);
    assert_eq!(world.admitted(&far_from(json!({ "namespaces": ["other"] }))), ["n2"]);
    assert_eq!(world.admitted(&far_from(json!({ "namespaceSelector": {} }))), ["n2"]);
    let team = |name: &str| json!({ "namespaceSelector": { "matchLabels": { "team": name } } });
    assert_eq!(world.admitted(&far_from(team("b"))), ["n2"]);
    assert_eq!(world.admitted(&far_from(team("a"))), ["n1", "n2"]);
}

#[test]
fn match_label_keys_take_the_values_of_the_pod_itself() {
    let generation = |name: &str, hash: &str, spec: Value| {
        pod(name, json!({ "metadata": { "labels": { "app": "web", "hash": hash } }, "spec": spec }))
    };
    let world = World::zoned(2, 2).with("n1", generation("old", "1", json!({})));
    let mut spec = affinity("podAntiAffinity", ZONE, "web");
    assert_eq!(world.admitted(&generation("p", "2", spec.clone())), ["n2"]);
    let term = "/affinity/podAntiAffinity/requiredDuringSchedulingIgnoredDuringExecution/0";
    spec.pointer_mut(term).unwrap()["matchLabelKeys"] = json!(["hash"]);
    assert_eq!(world.admitted(&generation("p", "2", spec.clone())), ["n1", "n2"]);
    assert_eq!(world.admitted(&generation("p", "1", spec.clone())), ["n2"]);
    spec.pointer_mut(term).unwrap()["matchLabelKeys"] = Value::Null;
    spec.pointer_mut(term).unwrap()["mismatchLabelKeys"] = json!(["hash"]);
    assert_eq!(world.admitted(&generation("p", "2", spec)), ["n2"]);
}

fn spread(more: Value) -> Value {
    let mut constraint = json!({
        "maxSkew": 1, "topologyKey": ZONE, "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": { "matchLabels": { "app": "web" } },
    });
    crate::testing::merge(&mut constraint, more);
    json!({ "topologySpreadConstraints": [constraint] })
}

#[test]
fn no_zone_gets_much_fuller_than_the_emptiest() {
    let world = World::zoned(3, 3)
        .with("n1", labelled("a", "web", json!({})))
        .with("n2", labelled("b", "web", json!({})))
        .with("n1", labelled("c", "web", json!({})));
    assert_eq!(world.admitted(&labelled("p", "web", spread(json!({})))), ["n3"]);
    assert_eq!(world.admitted(&labelled("p", "web", spread(json!({ "maxSkew": 2 })))), ["n2", "n3"]);
    // A pod that doesn't count itself makes nothing worse.
    assert_eq!(world.admitted(&labelled("p", "other", spread(json!({})))), ["n2", "n3"]);
    let full = world.with("n3", sized("big", "4", "1", json!({})));
    let asks = json!([{ "name": "c", "resources": { "requests": { "cpu": "1" } } }]);
    let mut spec = spread(json!({}));
    spec["containers"] = asks;
    let rules = "2 node(s) didn't match pod topology spread constraints";
    let said = format!("0/3 nodes are available: 1 Insufficient cpu, {rules}.");
    assert_eq!(full.outcome(&labelled("p", "web", spec)), said);
}

#[test]
fn too_few_domains_count_as_if_one_were_empty() {
    let world =
        World::zoned(2, 2).with("n1", labelled("a", "web", json!({}))).with("n2", labelled("b", "web", json!({})));
    assert_eq!(world.admitted(&labelled("p", "web", spread(json!({})))), ["n1", "n2"]);
    let three = labelled("p", "web", spread(json!({ "minDomains": 3 })));
    let rules = "node(s) didn't match pod topology spread constraints";
    assert_eq!(world.outcome(&three), format!("0/2 nodes are available: 2 {rules}."));
}

#[test]
fn nodes_without_the_label_and_pods_that_go_do_not_count() {
    let mut world = World::zoned(2, 2).with("n1", labelled("a", "web", json!({})));
    world.snapshot.apply_node(crate::testing::node("bare", json!({})));
    world.snapshot.settle();
    let rules = "node(s) didn't match pod topology spread constraints";
    let p = sized("p", "9", "1", json!({ "metadata": { "labels": { "app": "web" } }, "spec": spread(json!({})) }));
    let said = world.outcome(&p);
    assert_eq!(said, "0/3 nodes are available: 3 Insufficient cpu.");
    let p = labelled("p", "web", spread(json!({})));
    assert_eq!(world.admitted(&p), ["n2"]);
    let world = world.with("n2", labelled("b", "web", json!({})));
    assert_eq!(world.admitted(&p), ["n1", "n2"]);
    let going = json!({ "metadata": { "deletionTimestamp": "2030-01-01T00:00:00Z", "labels": { "app": "web" } } });
    let world = World::zoned(2, 2).with("n1", pod("a", going));
    assert_eq!(world.admitted(&p), ["n1", "n2"]);
    let bare = World::of(&[("bare", json!({}))]);
    assert_eq!(bare.outcome(&p), format!("0/1 nodes are available: 1 {rules} (missing required label)."));
}

#[test]
fn policies_say_which_nodes_count() {
    let mut world =
        World::zoned(2, 2).with("n1", labelled("a", "web", json!({}))).with("n1", labelled("b", "web", json!({})));
    let tainted = json!({
        "metadata": { "labels": { ZONE: "z3" } },
        "spec": { "taints": [{ "key": "k", "effect": "NoSchedule" }] },
    });
    world.snapshot.apply_node(crate::testing::node("n3", tainted));
    world.snapshot.settle();
    let world = world.with("n2", labelled("c", "web", json!({})));
    // The tainted node is empty, so that the others are too full already; unless it doesn't count.
    assert_eq!(world.admitted(&labelled("p", "web", spread(json!({})))), Vec::<String>::new());
    let honor = spread(json!({ "nodeTaintsPolicy": "Honor" }));
    assert_eq!(world.admitted(&labelled("p", "web", honor)), ["n2"]);
    let mut only = spread(json!({}));
    only["nodeSelector"] = json!({ ZONE: "z1" });
    assert_eq!(world.admitted(&labelled("p", "web", only)), ["n1"], "other zones are none for this pod");
    let mut ignoring = spread(json!({ "nodeAffinityPolicy": "Ignore" }));
    ignoring["nodeSelector"] = json!({ ZONE: "z1" });
    assert_eq!(world.admitted(&labelled("p", "web", ignoring)), Vec::<String>::new());
}

#[test]
fn room_is_kept_for_pods_that_a_node_is_cleared_for() {
    let mut world = World::of(&[("n1", json!({}))]);
    let important = sized("important", "3", "1", json!({ "spec": { "priority": 10 } }));
    world.snapshot.nominate("n1", important.clone());
    let said = "0/1 nodes are available: 1 Insufficient cpu.";
    assert_eq!(world.outcome(&sized("p", "2", "1", json!({ "spec": { "priority": 5 } }))), said);
    assert_eq!(world.outcome(&sized("p", "2", "1", json!({ "spec": { "priority": 11 } }))), "n1");
    assert_eq!(world.outcome(&important), "n1");
}
