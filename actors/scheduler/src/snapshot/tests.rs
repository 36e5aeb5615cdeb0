//! Whatever comes and goes, the snapshot is as if it had been built from what is there now.

use std::collections::BTreeMap;
use std::sync::Arc;

use k3sd_runtime::Rng;
use serde_json::json;

use super::Snapshot;
use crate::decide::prepare;
use crate::filter;
use crate::pod::PodInfo;
use crate::testing::{World, node, pod};

/// A pod with random labels, affinity and spreading.
fn random_pod(name: &str, rng: &mut Rng) -> Arc<PodInfo> {
    let app = |rng: &mut Rng| format!("app{}", rng.below(3));
    let key = |rng: &mut Rng| ["topology.kubernetes.io/zone", "kubernetes.io/hostname"][usize::from(rng.below(2) == 0)];
    let labels = json!({ "app": app(rng) });
    let mut spec = json!({});
    let term =
        |rng: &mut Rng| json!({ "topologyKey": key(rng), "labelSelector": { "matchLabels": { "app": app(rng) } } });
    let required = "requiredDuringSchedulingIgnoredDuringExecution";
    let preferred = "preferredDuringSchedulingIgnoredDuringExecution";
    match rng.below(5) {
        0 => spec["affinity"] = json!({ "podAntiAffinity": { required: [term(rng)] } }),
        1 => spec["affinity"] = json!({ "podAffinity": { required: [term(rng)] } }),
        2 => {
            let weighted = json!([{ "weight": rng.below(100) + 1, "podAffinityTerm": term(rng) }]);
            spec["affinity"] = json!({ "podAffinity": { preferred: weighted } });
        }
        3 => {
            let selector = json!({ "matchLabels": { "app": app(rng) } });
            spec["topologySpreadConstraints"] = json!([{
                "maxSkew": 1, "topologyKey": key(rng), "whenUnsatisfiable": "DoNotSchedule", "labelSelector": selector,
            }]);
        }
        _ => {}
    }
    pod(name, json!({ "metadata": { "labels": labels }, "spec": spec }))
}

fn random_node(name: &str, rng: &mut Rng) -> Arc<k8s_openapi::api::core::v1::Node> {
    let zone = format!("z{}", rng.below(3));
    node(name, json!({ "metadata": { "labels": { "topology.kubernetes.io/zone": zone } } }))
}

/// Every node's verdict on a pod, by name; with the counts that are kept, if `kept`.
fn verdicts(snapshot: &Snapshot, pod: &PodInfo) -> BTreeMap<String, String> {
    let profile = World::default().profile;
    let (filters, _) = filter::Filters::new(snapshot, pod, &profile).expect("no claims, no names");
    let verdict = |slot: &u32| {
        let node = snapshot.node(*slot);
        (node.name.to_string(), format!("{:?}", filters.check(node)))
    };
    snapshot.order().iter().map(verdict).collect()
}

#[test]
fn what_is_kept_equals_what_is_built_anew() {
    for seed in 0..60 {
        let mut rng = Rng::seeded(seed);
        let mut snapshot = Snapshot::default();
        let mut nodes = BTreeMap::new();
        let mut pods = BTreeMap::new();
        let profile = World::default().profile;
        for step in 0..120 {
            let name = format!("n{}", rng.below(6));
            match rng.below(10) {
                0..=1 => {
                    let node = random_node(&name, &mut rng);
                    snapshot.apply_node(node.clone());
                    nodes.insert(name, node);
                }
                2 => {
                    snapshot.delete_node(&name);
                    nodes.remove(&name);
                }
                3..=6 => {
                    let pod = random_pod(&format!("p{}", rng.below(20)), &mut rng);
                    snapshot.add_pod(&name, pod.clone());
                    pods.insert(pod.uid.clone(), (name, pod));
                }
                7 => {
                    let uid = format!("p{}", rng.below(20));
                    snapshot.remove_pod(&uid);
                    pods.remove(&uid);
                }
                _ => prepare(&mut snapshot, &random_pod("asked", &mut rng), &profile),
            }
            if step % 10 == 9 {
                let mut anew = Snapshot::default();
                nodes.values().for_each(|node| anew.apply_node(node.clone()));
                pods.values().for_each(|(name, pod)| anew.add_pod(name, pod.clone()));
                anew.settle();
                snapshot.settle();
                let asked = random_pod("asked", &mut rng);
                assert_eq!(verdicts(&snapshot, &asked), verdicts(&anew, &asked), "seed {seed}, step {step}");
                assert_eq!(snapshot.order().len(), anew.order().len());
                assert_eq!(snapshot.pods_len(), anew.pods_len());
            }
        }
    }
}

#[test]
fn nodes_are_tried_zone_by_turns() {
    let world = World::zoned(6, 3);
    let zones: Vec<_> = world.snapshot.order().iter().map(|slot| world.snapshot.node(*slot).name.to_string()).collect();
    assert_eq!(zones, ["n1", "n2", "n3", "n4", "n5", "n6"]);
    let world = World::zoned(5, 2);
    let names: Vec<_> = world.snapshot.order().iter().map(|slot| world.snapshot.node(*slot).name.to_string()).collect();
    assert_eq!(names, ["n1", "n2", "n3", "n4", "n5"]);
}

#[test]
fn a_node_goes_with_its_last_pod() {
    let mut snapshot = World::zoned(1, 1).with("n1", pod("p", json!({}))).snapshot;
    snapshot.delete_node("n1");
    snapshot.settle();
    assert!(snapshot.is_empty() && snapshot.pods_len() == 1);
    snapshot.remove_pod("p");
    snapshot.apply_node(node("n2", json!({})));
    snapshot.settle();
    let slot = snapshot.slot("n2").expect("it is there");
    assert_eq!((slot, snapshot.node(slot).pods.len()), (0, 0));
}
