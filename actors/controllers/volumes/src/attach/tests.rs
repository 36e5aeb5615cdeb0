//! Attachments against tables.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, PersistentVolume, Pod};
use k8s_openapi::api::storage::v1::VolumeAttachment;
use serde_json::{Value, json};

use super::core::{MULTI, Side, Step, decide, listing, multi_attach};
use super::disk::Disk;
use crate::claims::is_done;

const UNIQUE: &str = "kubernetes.io/csi/d^h";

fn disk() -> Disk {
    Disk { driver: "d".to_owned(), handle: "h".to_owned() }
}

fn now() -> Timestamp {
    "2030-01-01T00:10:00Z".parse().expect("a time")
}

fn volume(mode: &str) -> PersistentVolume {
    let spec = json!({"accessModes": [mode], "csi": {"driver": "d", "volumeHandle": "h"}});
    serde_json::from_value(json!({"metadata": {"name": "v"}, "spec": spec})).expect("a volume")
}

fn pod(namespace: &str, name: &str, made: &str) -> Arc<Pod> {
    let meta = json!({"namespace": namespace, "name": name, "creationTimestamp": made});
    Arc::new(serde_json::from_value(json!({ "metadata": meta })).expect("a pod"))
}

/// What a node is like: `m`anaged, `r`eady, `u`ses the disk, `l`ists it, is `o`ut of service.
fn node(name: &str, like: &str) -> Option<Arc<Node>> {
    let has = |letter: char| like.contains(letter);
    let annotation = "volumes.kubernetes.io/controller-managed-attach-detach";
    let node = json!({
        "metadata": {"name": name, "annotations": if has('m') { json!({annotation: "true"}) } else { json!({}) }},
        "spec": {"taints": if has('o') {
            json!([{"key": "node.kubernetes.io/out-of-service", "effect": "NoExecute"}])
        } else {
            json!([])
        }},
        "status": {
            "conditions": [{"type": "Ready", "status": if has('r') { "True" } else { "Unknown" }}],
            "volumesInUse": if has('u') { json!([UNIQUE]) } else { json!([]) },
            "volumesAttached": if has('l') { json!([{"name": UNIQUE, "devicePath": ""}]) } else { json!([]) },
        },
    });
    (like != "gone").then(|| Arc::new(serde_json::from_value(node).expect("a node")))
}

/// An attachment: `none`, `new` (a minute old), `old` (five minutes), `attached`, `going` or `error`.
fn attachment(state: &str) -> Option<Arc<VolumeAttachment>> {
    let made = if state == "old" { "2030-01-01T00:05:00Z" } else { "2030-01-01T00:09:00Z" };
    let mut found = json!({
        "metadata": {"name": "a", "resourceVersion": "7", "creationTimestamp": made},
        "spec": {"attacher": "d", "nodeName": "n", "source": {"persistentVolumeName": "v"}},
        "status": {"attached": state == "attached" || state == "going"},
    });
    if state == "going" {
        found["metadata"]["deletionTimestamp"] = made.into();
    }
    if state == "error" {
        found["status"]["attachError"] = json!({"message": "no room"});
    }
    (state != "none").then(|| Arc::new(serde_json::from_value(found).expect("an attachment")))
}

fn side(name: &str, like: &str, state: &str, pods: Vec<Arc<Pod>>, idle: u64) -> Side {
    Side {
        node_name: name.to_owned(),
        node: node(name, like),
        pods,
        attachment: attachment(state),
        idle: Duration::from_secs(idle),
    }
}

fn attach(node: &str) -> Step {
    Step::Attach { node: node.to_owned(), volume: "v".to_owned() }
}

fn tell(node: &str, mark: &str, message: &str) -> Step {
    Step::Tell { node: node.to_owned(), mark: mark.to_owned(), message: message.to_owned() }
}

fn again(seconds: u64) -> Step {
    Step::Again(Duration::from_secs(seconds))
}

#[test]
fn what_pods_want_is_attached() {
    let one = || vec![pod("a", "p", "2030-01-01T00:00:00Z")];
    let late = "AttachVolume.Attach failed for volume \"v\" : timed out waiting for external-attacher of d CSI driver \
                to attach volume h";
    let error = "AttachVolume.Attach failed for volume \"v\" : no room";
    let going = "AttachVolume.Attach failed for volume \"v\" : volume attachment is being deleted";
    for (what, like, state, wanted) in [
        ("nothing is there yet", "mr", "none", vec![attach("n")]),
        ("the node isn't ready", "m", "none", vec![attach("n")]),
        ("the node sees to it itself", "r", "none", vec![]),
        ("there is no such node", "gone", "none", vec![]),
        ("the driver works on it", "mr", "new", vec![again(60)]),
        ("the driver is late", "mr", "old", vec![tell("n", "late 2", late), again(60)]),
        ("the driver can't", "mr", "error", vec![tell("n", "error 7", error)]),
        ("it is there", "mr", "attached", vec![]),
        ("it is there, and used", "mrlu", "attached", vec![]),
        ("it is going still", "mr", "going", vec![tell("n", "going 7", going)]),
    ] {
        let steps = decide(&disk(), Some(&volume("ReadWriteOnce")), &[side("n", like, state, one(), 0)], true, now());
        assert_eq!(steps, wanted, "{what}");
    }
}

#[test]
fn what_nobody_wants_goes_once_it_is_unmounted() {
    let detach = |forced| vec![Step::Detach { node: "n".to_owned(), forced }];
    for (what, like, state, idle, by_time, wanted) in [
        ("it isn't mounted", "mr", "attached", 0, true, detach(false)),
        ("it never came", "mr", "new", 0, true, detach(false)),
        ("the node lists it still", "mrl", "attached", 0, true, vec![]),
        ("it is mounted", "mru", "attached", 0, true, vec![again(360)]),
        ("it is mounted on a node that is away", "mu", "attached", 100, true, vec![again(260)]),
        ("away for long", "mu", "attached", 360, true, detach(true)),
        ("away for long, and listed", "mul", "attached", 360, true, vec![]),
        ("away for long, which isn't enough", "mu", "attached", 360, false, vec![]),
        ("mounted for long", "mru", "attached", 3600, true, vec![]),
        ("out of service", "muo", "attached", 0, false, detach(true)),
        ("the node is gone", "gone", "attached", 0, true, vec![again(360)]),
        ("the node is gone for long", "gone", "attached", 360, true, detach(true)),
        ("it is going", "mr", "going", 0, true, vec![]),
        ("nothing is there", "mr", "none", 0, true, vec![]),
    ] {
        let steps = decide(&disk(), None, &[side("n", like, state, vec![], idle)], by_time, now());
        assert_eq!(steps, wanted, "{what}");
    }
}

#[test]
fn a_volume_of_one_node_is_attached_to_one() {
    let young = || vec![pod("a", "young", "2030-01-01T00:05:00Z")];
    let old = || vec![pod("a", "old", "2030-01-01T00:00:00Z")];
    let multi = |node: &str| tell(node, MULTI, "");
    let both = |state: &str| vec![side("m", "mr", state, young(), 0), side("n", "mr", "none", old(), 0)];
    let left = || vec![side("m", "mru", "attached", vec![], 0), side("n", "mr", "none", old(), 0)];
    let steps = |mode: &str, sides: &[Side]| decide(&disk(), Some(&volume(mode)), sides, true, now());
    assert_eq!(steps("ReadWriteOnce", &both("none")), [attach("n"), multi("m")], "who has waited longest");
    assert_eq!(steps("ReadWriteOnce", &both("attached")), [multi("n")]);
    assert_eq!(steps("ReadWriteOncePod", &both("new")), [multi("n"), again(60)], "it may be there already");
    assert_eq!(steps("ReadWriteOnce", &left()), [again(360), multi("n")]);
    assert_eq!(steps("ReadWriteMany", &both("none")), [attach("n"), attach("m")]);
    assert_eq!(steps("ReadOnlyMany", &both("attached")), [attach("n")]);
}

#[test]
fn pods_read_who_has_their_volume() {
    let other = |namespace: &str, name: &str| pod(namespace, name, "2030-01-01T00:00:00Z");
    for (others, wanted) in [
        (vec![], "Volume is already exclusively attached to one node and can't be attached to another"),
        (vec![other("a", "p"), other("a", "q")], "Volume is already used by pod(s) p, q"),
        (vec![other("b", "x")], "Volume is already used by 1 pod(s) in different namespaces"),
        (
            vec![other("a", "p"), other("b", "x"), other("c", "y")],
            "Volume is already used by pod(s) p and 2 pod(s) in different namespaces",
        ),
    ] {
        assert_eq!(multi_attach("v", "a", &others), format!("Multi-Attach error for volume \"v\" {wanted}"));
    }
}

#[test]
fn a_node_lists_what_is_there_and_wanted_or_mounted() {
    let one = || vec![pod("a", "p", "2030-01-01T00:00:00Z")];
    let is = |listed: bool, new: bool| Some((listed, new));
    for (what, like, state, pods, idle, wanted) in [
        ("it has come", "mr", "attached", one(), 0, is(true, true)),
        ("it is listed", "mrl", "attached", one(), 0, None),
        ("it has not come", "mr", "new", one(), 0, None),
        ("it was taken away by somebody", "mrl", "none", one(), 0, is(false, false)),
        ("its driver says no more that it is there", "mrl", "new", one(), 0, is(false, false)),
        ("it is going", "mrl", "going", one(), 0, is(false, false)),
        ("it is mounted though nobody wants it", "mrlu", "attached", vec![], 0, None),
        ("nobody wants it", "mrl", "attached", vec![], 0, is(false, false)),
        ("nobody wants it, nor was it listed", "mr", "attached", vec![], 0, None),
        ("mounted, and away for long", "mlu", "attached", vec![], 360, is(false, false)),
        ("mounted, and out of service", "mluo", "attached", vec![], 0, is(false, false)),
    ] {
        let mut node = node("n", like).expect("a node").as_ref().clone();
        let other = k8s_openapi::api::core::v1::AttachedVolume {
            name: "kubernetes.io/iscsi/a:b:0".to_owned(),
            device_path: String::new(),
        };
        let status = node.status.get_or_insert_default();
        status.volumes_attached.get_or_insert_default().insert(0, other.clone());
        let mut side = side("n", like, state, pods, idle);
        side.node = Some(Arc::new(node.clone()));
        let found = listing(&node, &[(disk(), side)], true);
        assert!(found.as_ref().is_none_or(|(list, _)| list[0] == other), "{what}: others stay");
        let found = found.map(|(list, new)| (list.iter().any(|volume| volume.name == UNIQUE), !new.is_empty()));
        assert_eq!(found, wanted, "{what}");
    }
}

#[test]
fn a_pod_is_done_when_nothing_of_it_runs() {
    let going = json!({"deletionTimestamp": "2030-01-01T00:00:00Z"});
    let container = |state: Value| json!([{"name": "c", "image": "i", "imageID": "", "ready": false, "restartCount": 0, "state": state}]);
    let time = "2030-01-01T00:00:00Z";
    for (metadata, phase, containers, wanted) in [
        (json!({}), "Running", container(json!({"running": {}})), false),
        (json!({}), "Succeeded", container(json!({"terminated": {"exitCode": 0}})), true),
        (json!({}), "Failed", json!([]), true),
        (json!({}), "Pending", json!([]), false),
        (going.clone(), "Running", container(json!({"running": {"startedAt": time}})), false),
        (going.clone(), "Running", container(json!({"terminated": {"exitCode": 0}})), true),
        (going.clone(), "Pending", container(json!({"waiting": {"reason": "x"}})), true),
        (going.clone(), "Pending", json!([]), true),
        (going, "Running", container(json!({})), false),
    ] {
        let status = json!({"phase": phase, "containerStatuses": containers});
        let pod: Pod = serde_json::from_value(json!({"metadata": metadata, "status": status})).expect("a pod");
        assert_eq!(is_done(&pod), wanted, "{pod:?}");
    }
}
