//! Volumes that are there, are chosen, or are made.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::decide::Decision;
use crate::pod::{Key, PodInfo};
use crate::testing::{World, merge, pod};

const ZONE: &str = "topology.kubernetes.io/zone";

fn claim(world: &mut World, name: &str, more: Value) {
    let mut object = json!({
        "metadata": { "name": name, "namespace": "default", "uid": name },
        "spec": {
            "storageClassName": "late", "accessModes": ["ReadWriteOnce"],
            "resources": { "requests": { "storage": "1Gi" } },
        },
    });
    merge(&mut object, more);
    world.snapshot.volumes.claims.insert(Key::new("default", name), Arc::new(serde_json::from_value(object).unwrap()));
}

fn class(world: &mut World, name: &str, provisioner: &str, more: Value) {
    let mut object = json!({
        "metadata": { "name": name }, "provisioner": provisioner, "volumeBindingMode": "WaitForFirstConsumer",
    });
    merge(&mut object, more);
    world.snapshot.volumes.classes.insert(name.to_owned(), Arc::new(serde_json::from_value(object).unwrap()));
}

/// A volume in a zone.
fn volume(world: &mut World, name: &str, size: &str, zone: &str, more: Value) {
    let expressions = json!([{ "key": ZONE, "operator": "In", "values": [zone] }]);
    let mut object = json!({
        "metadata": { "name": name },
        "spec": {
            "storageClassName": "late", "accessModes": ["ReadWriteOnce"], "capacity": { "storage": size },
            "nodeAffinity": { "required": { "nodeSelectorTerms": [{ "matchExpressions": expressions }] } },
        },
        "status": { "phase": "Available" },
    });
    merge(&mut object, more);
    world.snapshot.volumes.volumes.insert(name.to_owned(), Arc::new(serde_json::from_value(object).unwrap()));
}

fn using(name: &str, claims: &[&str]) -> Arc<PodInfo> {
    let volume = |claim: &&str| json!({ "name": claim, "persistentVolumeClaim": { "claimName": claim } });
    pod(name, json!({ "spec": { "volumes": claims.iter().map(volume).collect::<Vec<_>>() } }))
}

fn bound_to(volume: &str) -> Value {
    json!({
        "metadata": { "annotations": { "pv.kubernetes.io/bind-completed": "yes" } },
        "spec": { "volumeName": volume },
    })
}

fn plan(world: &World, pod: &PodInfo) -> (String, Vec<String>, Vec<String>) {
    let Decision::Node { slot, volumes, .. } = world.decide(pod) else { panic!("{}", world.outcome(pod)) };
    let bind = volumes.bind.iter().map(|(claim, volume)| format!("{}={volume}", claim.name)).collect();
    let provision = volumes.provision.iter().map(|claim| claim.name.clone()).collect();
    (world.snapshot.node(slot).name.to_string(), bind, provision)
}

#[test]
fn a_bound_claim_draws_the_pod_to_its_volume() {
    let mut world = World::zoned(3, 3);
    volume(&mut world, "v", "1Gi", "z2", json!({}));
    claim(&mut world, "c", bound_to("v"));
    assert_eq!(world.outcome(&using("p", &["c"])), "n2");
    volume(&mut world, "v", "1Gi", "z9", json!({}));
    let said = "0/3 nodes are available: 3 node(s) had volume node affinity conflict.";
    assert_eq!(world.outcome(&using("p", &["c"])), said);
    world.snapshot.volumes.volumes.clear();
    let said = "node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)";
    assert_eq!(world.outcome(&using("p", &["c"])), format!("0/3 nodes are available: 3 {said}."));
}

#[test]
fn claims_that_cannot_be_used_are_named() {
    let mut world = World::zoned(1, 1);
    let said = |world: &World, pod: &PodInfo| {
        let said = world.outcome(pod);
        said.strip_prefix("0/1 nodes are available: ").unwrap_or(&said).trim_end_matches('.').to_owned()
    };
    assert_eq!(said(&world, &using("p", &["c"])), "persistentvolumeclaim \"c\" not found");
    claim(&mut world, "c", json!({ "spec": { "storageClassName": "now" } }));
    assert_eq!(said(&world, &using("p", &["c"])), "pod has unbound immediate PersistentVolumeClaims");
    claim(&mut world, "c", json!({ "metadata": { "deletionTimestamp": "2030-01-01T00:00:00Z" } }));
    assert_eq!(said(&world, &using("p", &["c"])), "persistentvolumeclaim \"c\" is being deleted");
    claim(&mut world, "c", json!({ "spec": { "volumeName": "v" }, "status": { "phase": "Lost" } }));
    let lost = "persistentvolumeclaim \"c\" bound to non-existent persistentvolume \"v\"";
    assert_eq!(said(&world, &using("p", &["c"])), lost);
    let ephemeral = pod("p", json!({ "spec": { "volumes": [{ "name": "e", "ephemeral": {} }] } }));
    let waits = "waiting for ephemeral volume controller to create the persistentvolumeclaim \"p-e\"";
    assert_eq!(said(&world, &ephemeral), waits);
}

#[test]
fn the_smallest_volume_that_does_is_chosen_and_taken_once() {
    let mut world = World::zoned(2, 2);
    class(&mut world, "late", "kubernetes.io/no-provisioner", json!({}));
    volume(&mut world, "large", "9Gi", "z1", json!({}));
    volume(&mut world, "middle", "2Gi", "z1", json!({}));
    volume(&mut world, "small", "512Mi", "z1", json!({}));
    volume(&mut world, "block", "1Gi", "z1", json!({ "spec": { "volumeMode": "Block" } }));
    claim(&mut world, "a", json!({}));
    claim(&mut world, "b", json!({}));
    let (a, b) = (using("pa", &["a"]), using("pb", &["b"]));
    assert_eq!(plan(&world, &a), ("n1".to_owned(), vec!["a=middle".to_owned()], vec![]));
    let both = using("p", &["a", "b"]);
    assert_eq!(plan(&world, &both).1, ["a=middle", "b=large"]);
    let Decision::Node { volumes, .. } = world.decide(&a) else { panic!("it fits") };
    world.snapshot.volumes.reserve(&volumes, "n1");
    assert_eq!(plan(&world, &b).1, ["b=large"]);
    world.snapshot.volumes.release(&volumes);
    assert_eq!(plan(&world, &b).1, ["b=middle"]);
    world.snapshot.volumes.volumes.clear();
    let said = "0/2 nodes are available: 2 node(s) didn't find available persistent volumes to bind.";
    assert_eq!(world.outcome(&a), said);
}

#[test]
fn volumes_are_made_where_their_class_allows_it() {
    let mut world = World::zoned(2, 2);
    let allowed = json!([{ "matchLabelExpressions": [{ "key": ZONE, "values": ["z2"] }] }]);
    class(&mut world, "late", "example.com/maker", json!({ "allowedTopologies": allowed }));
    claim(&mut world, "c", json!({}));
    assert_eq!(plan(&world, &using("p", &["c"])), ("n2".to_owned(), vec![], vec!["c".to_owned()]));
    let driver = json!({ "metadata": { "name": "example.com/maker" }, "spec": { "storageCapacity": true } });
    let driver = Arc::new(serde_json::from_value(driver).unwrap());
    world.snapshot.volumes.drivers.insert("example.com/maker".to_owned(), driver);
    let said = world.outcome(&using("p", &["c"]));
    let reasons =
        "1 node(s) did not have enough free storage, 1 node(s) didn't find available persistent volumes to bind";
    assert_eq!(said, format!("0/2 nodes are available: {reasons}."));
    let capacity = json!({
        "metadata": { "name": "cap", "namespace": "default" }, "storageClassName": "late", "capacity": "5Gi",
        "nodeTopology": { "matchLabels": { ZONE: "z2" } },
    });
    let capacity = Arc::new(serde_json::from_value(capacity).unwrap());
    world.snapshot.volumes.capacities.insert(Key::new("default", "cap"), capacity);
    assert_eq!(world.outcome(&using("p", &["c"])), "n2");
}

#[test]
fn a_claim_with_a_node_stays_there() {
    let mut world = World::zoned(3, 3);
    class(&mut world, "late", "example.com/maker", json!({}));
    claim(&mut world, "c", json!({ "metadata": { "annotations": { "volume.kubernetes.io/selected-node": "n3" } } }));
    assert_eq!(plan(&world, &using("p", &["c"])), ("n3".to_owned(), vec![], vec!["c".to_owned()]));
}

#[test]
fn a_claim_for_one_pod_is_for_one_pod() {
    let mut world = World::zoned(2, 2);
    volume(&mut world, "v", "1Gi", "z1", json!({ "spec": { "accessModes": ["ReadWriteOncePod"] } }));
    let mut one = bound_to("v");
    merge(&mut one, json!({ "spec": { "accessModes": ["ReadWriteOncePod"] } }));
    claim(&mut world, "c", one);
    assert_eq!(world.outcome(&using("p", &["c"])), "n1");
    let world = world.with("n1", using("first", &["c"]));
    let reason = "node has pod using PersistentVolumeClaim with the same name and ReadWriteOncePod access mode";
    assert_eq!(world.outcome(&using("p", &["c"])), format!("0/2 nodes are available: 2 {reason}."));
}

#[test]
fn drivers_limit_volumes_by_node() {
    let mut world = World::zoned(1, 1);
    for name in ["v1", "v2"] {
        let csi = json!({ "spec": { "csi": { "driver": "example.com/csi", "volumeHandle": name } } });
        volume(&mut world, name, "1Gi", "z1", csi);
        claim(&mut world, name, bound_to(name));
    }
    let limit = json!({
        "metadata": { "name": "n1" },
        "spec": { "drivers": [{ "name": "example.com/csi", "nodeID": "n1", "allocatable": { "count": 1 } }] },
    });
    world.snapshot.volumes.csi_nodes.insert("n1".to_owned(), Arc::new(serde_json::from_value(limit).unwrap()));
    let world = world.with("n1", using("first", &["v1"]));
    assert_eq!(world.outcome(&using("p", &["v1"])), "n1", "the same volume isn't attached twice");
    let said = "0/1 nodes are available: 1 node(s) exceed max volume count.";
    assert_eq!(world.outcome(&using("p", &["v2"])), said);
}

#[test]
fn labels_of_volumes_say_where_they_are() {
    let mut world = World::zoned(2, 2);
    let labels = json!({ "metadata": { "labels": { ZONE: "z2__z3" } }, "spec": { "nodeAffinity": null } });
    volume(&mut world, "v", "1Gi", "z1", labels);
    claim(&mut world, "c", bound_to("v"));
    assert_eq!(world.admitted(&using("p", &["c"])), ["n2"]);
}
