//! Claims for devices against tables.

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::resource::v1::{ResourceClaim, ResourceClaimTemplate};
use serde_json::{Value, json};

use super::core::{
    Named, Need, Release, check_owner, claim, claim_names, consumers, entries, is_done, is_pod, named, need, owner,
    release, reserved, statuses, unprotected,
};

fn pod(metadata: Value, spec: Value, status: Value) -> Pod {
    let mut meta = json!({"name": "p", "namespace": "n", "uid": "1"});
    merge(&mut meta, &metadata);
    let mut whole = json!({"containers": [], "resourceClaims": [
        {"name": "own", "resourceClaimName": "shared"}, {"name": "gpu", "resourceClaimTemplateName": "t"}]});
    merge(&mut whole, &spec);
    serde_json::from_value(json!({"metadata": meta, "spec": whole, "status": status})).expect("a pod")
}

fn merge(whole: &mut Value, part: &Value) {
    for (key, value) in part.as_object().expect("an object") {
        whole[key] = value.clone();
    }
}

fn owned(uid: &str) -> Value {
    json!({
        "annotations": {"resource.kubernetes.io/pod-claim-name": "gpu"},
        "ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": uid, "controller": true}],
    })
}

fn devices(name: &str, metadata: Value, status: Value) -> ResourceClaim {
    let mut meta = json!({"name": name, "namespace": "n"});
    merge(&mut meta, &metadata);
    serde_json::from_value(json!({"metadata": meta, "spec": {}, "status": status})).expect("a claim")
}

fn reserved_for(uids: &[&str]) -> Value {
    let all: Vec<Value> = uids.iter().map(|uid| json!({"resource": "pods", "name": "p", "uid": uid})).collect();
    json!({"allocation": {}, "reservedFor": all})
}

#[test]
fn entries_name_their_claims() {
    let made = json!({"resourceClaimStatuses": [{"name": "gpu", "resourceClaimName": "p-gpu-x"}]});
    let needless = json!({"resourceClaimStatuses": [{"name": "gpu"}]});
    for (status, wanted, names) in [
        (json!({}), Named::Missing, vec!["shared"]),
        (made, Named::Made("p-gpu-x"), vec!["shared", "p-gpu-x"]),
        (needless, Named::Needless, vec!["shared"]),
    ] {
        let pod = pod(json!({}), json!({}), status);
        assert_eq!(named(&pod, &entries(&pod)[0]), Named::Given("shared"));
        assert_eq!(named(&pod, &entries(&pod)[1]), wanted);
        assert_eq!(claim_names(&pod).collect::<Vec<_>>(), names);
    }
}

#[test]
fn a_claim_is_made_once() {
    let made = || json!({"resourceClaimStatuses": [{"name": "gpu", "resourceClaimName": "p-gpu-x"}]});
    let mine = devices("p-gpu-x", owned("1"), json!({}));
    let former = devices("p-gpu-x", owned("2"), json!({}));
    let mut going = owned("1");
    going["deletionTimestamp"] = "2030-01-01T00:00:00Z".into();
    let going = devices("p-gpu-x", going, json!({}));
    for (what, status, found, wanted) in [
        ("nothing is there", json!({}), None, Need::Make("t")),
        ("it was made, but not noted", json!({}), Some(&mine), Need::Note("p-gpu-x")),
        ("one of the pod's last life", json!({}), Some(&former), Need::Make("t")),
        ("one that goes", json!({}), Some(&going), Need::Make("t")),
        ("all is well", made(), Some(&mine), Need::Nothing),
        ("it was deleted", made(), None, Need::Make("t")),
        ("it is another's by now", made(), Some(&former), Need::Make("t")),
    ] {
        let pod = pod(json!({}), json!({}), status);
        let known = |name: &str| found.filter(|found| found.metadata.name.as_deref() == Some(name));
        assert_eq!(need(&pod, &entries(&pod)[1], known, found.into_iter()), wanted, "{what}");
        assert_eq!(need(&pod, &entries(&pod)[0], known, found.into_iter()), Need::Nothing, "a person makes it");
    }
}

#[test]
fn a_claim_has_what_its_template_says_and_names_its_entry() {
    let template: ResourceClaimTemplate = serde_json::from_value(json!({
        "metadata": {"name": "t"},
        "spec": {"metadata": {"labels": {"a": "b"}, "annotations": {"c": "d"}},
            "spec": {"devices": {"requests": [{"name": "r", "exactly": {"deviceClassName": "gpu"}}]}}},
    }))
    .expect("a template");
    let pod = pod(json!({}), json!({}), json!({}));
    let made = claim(&pod, "gpu", &template);
    assert_eq!(made.metadata.generate_name.as_deref(), Some("p-gpu-"));
    assert_eq!(made.spec, template.spec.spec);
    let made = serde_json::to_value(&made.metadata).expect("metadata");
    let annotations = json!({"c": "d", "resource.kubernetes.io/pod-claim-name": "gpu"});
    let owners = json!([{"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "1", "controller": true,
        "blockOwnerDeletion": true}]);
    assert_eq!((&made["labels"], &made["annotations"]), (&json!({"a": "b"}), &annotations));
    assert_eq!(made["ownerReferences"], owners);

    let mut long = pod;
    long.metadata.name = Some("a".repeat(100));
    let name = claim(&long, &"b".repeat(20), &template).metadata.generate_name.expect("a beginning");
    assert_eq!(name, format!("{}-{}", "a".repeat(100 * 57 / 122), "b".repeat(20 * 57 / 122)), "both are shortened");
    long.metadata.name = Some("a".repeat(40));
    let name = claim(&long, &"b".repeat(15), &template).metadata.generate_name.expect("a beginning");
    assert_eq!(name.len(), 57, "nothing is lost");
}

#[test]
fn the_status_keeps_what_it_says() {
    let status = json!({"resourceClaimStatuses": [{"name": "a", "resourceClaimName": "x"},
        {"name": "gpu", "resourceClaimName": "old"}]});
    let all = statuses(&pod(json!({}), json!({}), status), &[("gpu".to_owned(), "new".to_owned())]);
    let wanted = json!([{"name": "a", "resourceClaimName": "x"}, {"name": "gpu", "resourceClaimName": "new"}]);
    assert_eq!(serde_json::to_value(all).expect("statuses"), wanted);
}

#[test]
fn pods_end() {
    let gone = || json!({"deletionTimestamp": "2030-01-01T00:00:00Z"});
    for (metadata, spec, phase, wanted) in [
        (json!({}), json!({}), "Pending", false),
        (json!({}), json!({"nodeName": "x"}), "Succeeded", true),
        (json!({}), json!({}), "Failed", true),
        (gone(), json!({}), "Pending", true),
        (gone(), json!({"nodeName": "x"}), "Running", false),
    ] {
        assert_eq!(is_done(&pod(metadata.clone(), spec, json!({ "phase": phase }))), wanted, "{metadata} {phase}");
    }
}

#[test]
fn a_pod_past_the_scheduler_is_reserved_for() {
    let pod = pod(json!({}), json!({"nodeName": "x"}), json!({}));
    assert_eq!(reserved(&pod, &devices("c", json!({}), json!({}))), None, "nothing is allocated");
    assert_eq!(reserved(&pod, &devices("c", json!({}), reserved_for(&["1"]))), None, "it is");
    let wanted = reserved(&pod, &devices("c", json!({}), reserved_for(&["2"]))).expect("it shares");
    assert_eq!(consumers(&wanted).iter().map(|found| found.uid.as_str()).collect::<Vec<_>>(), ["2", "1"]);
    assert!(consumers(&wanted).iter().all(is_pod));
}

#[test]
fn devices_are_free_when_the_last_consumer_has_left() {
    let protected = || json!({"finalizers": ["x", "resource.kubernetes.io/delete-protection"]});
    let mut going = protected();
    going["deletionTimestamp"] = "2030-01-01T00:00:00Z".into();
    let idle = || json!({"allocation": {}});
    // Consumers that are left, whether devices are left, whether the finalizer goes; nothing without a write.
    for (what, metadata, status, stay, wanted) in [
        ("all stay", protected(), reserved_for(&["1", "2"]), 2, (None, false)),
        ("one leaves", protected(), reserved_for(&["1", "2"]), 1, (Some((1, true)), false)),
        ("the last leaves", protected(), reserved_for(&["1"]), 0, (Some((0, false)), true)),
        ("the last leaves what others allocated", json!({}), reserved_for(&["1"]), 0, (Some((0, true)), false)),
        ("never reserved", protected(), idle(), 0, (None, false)),
        ("deleted, and never reserved", going.clone(), idle(), 0, (Some((0, false)), true)),
        ("deleted, and in use", going.clone(), reserved_for(&["1"]), 1, (None, false)),
        ("deleted, and free", going, json!({}), 0, (None, true)),
    ] {
        let claim = devices("c", metadata, status);
        let Release { status, lets_go } = release(&claim, &consumers(&claim)[..stay]);
        let left = status.map(|claim| {
            let status = claim.status.clone().unwrap_or_default();
            (consumers(&claim).len(), status.allocation.is_some())
        });
        assert_eq!((left, lets_go), wanted, "{what}");
    }
    let free = unprotected(&devices("c", protected(), json!({})));
    assert_eq!(free.metadata.finalizers, Some(vec!["x".to_owned()]));
}

#[test]
fn owners_are_told_apart() {
    let own = pod(json!({}), json!({}), json!({}));
    let (mine, other) = (devices("c", owned("1"), json!({})), devices("c", owned("2"), json!({})));
    assert_eq!(owner(&mine), Some(("p", "1")));
    assert_eq!(owner(&devices("c", json!({}), json!({}))), None);
    assert_eq!(check_owner(&own, &mine), Ok(()));
    let words = "ResourceClaim n/c was not created for pod n/p (pod is not owner)";
    assert_eq!(check_owner(&own, &other), Err(words.to_owned()));
}
