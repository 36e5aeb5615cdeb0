use jiff::Timestamp;
use k3sd_cri::v1::Image;
use k8s_openapi::api::core::v1::{Node, NodeStatus};
use serde_json::{Value, json};

use super::object::{Facts, images, status};
use super::patch::difference;
use super::resources::{Reserved, Supply, resources};
use crate::status::Machine;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn facts() -> Facts {
    let machine = Machine { cpus: 2, memory_bytes: 1 << 30, boot_id: "boot".to_owned(), ..Machine::default() };
    let supply = Supply { machine: machine.clone(), storage_bytes: Some(1 << 40), max_pods: 110, ..Supply::default() };
    Facts {
        resources: resources(&supply, &Reserved::default()),
        machine,
        runtime_version: "containerd://1.6.20".to_owned(),
        kubelet_version: "v1.34.0+k3sd1".to_owned(),
        port: 10250,
        ..Facts::default()
    }
}

fn image(id: &str, size: u64, tags: usize) -> Image {
    let repo_tags = (0..tags).map(|tag| format!("{id}:{tag}")).collect();
    Image { id: id.to_owned(), size, repo_tags, repo_digests: vec![format!("{id}@sha256:1")], ..Image::default() }
}

fn value(status: &NodeStatus) -> Value {
    serde_json::to_value(status).unwrap()
}

#[test]
fn the_largest_images_are_named() {
    let found = images(&[image("small", 1, 1), image("large", 3, 9), image("middle", 2, 0)], 2);
    let names: Vec<_> =
        found.iter().map(|image| (image.names.as_ref().unwrap()[0].as_str(), image.size_bytes)).collect();
    assert_eq!(names, [("large@sha256:1", Some(3)), ("middle@sha256:1", Some(2))]);
    assert_eq!(found[0].names.as_ref().unwrap().len(), 5);
    assert_eq!(images(&[image("a", 1, 1), image("b", 1, 1)], -1).len(), 2);
}

#[test]
fn a_status_says_what_is_known() {
    let made = value(&status(&Node::default(), &facts(), at(100)));
    assert_eq!(made["nodeInfo"]["kubeletVersion"], "v1.34.0+k3sd1");
    assert_eq!(made["nodeInfo"]["kubeProxyVersion"], "");
    assert_eq!(made["daemonEndpoints"]["kubeletEndpoint"]["Port"], 10250);
    assert_eq!(made["capacity"]["pods"], "110");
    assert_eq!(made["conditions"][3]["status"], "True");
    let nothing = value(&status(&Node::default(), &Facts::default(), at(100)));
    let message = "missing node capacity for resources: cpu, memory, pods";
    assert_eq!(nothing["conditions"][3]["message"], message);
    let two = Facts { problems: vec!["a".to_owned(), "b".to_owned()], ..Facts::default() };
    let two = value(&status(&Node::default(), &two, at(100)));
    assert_eq!(two["conditions"][3]["message"], format!("[a, b, {message}]"));
}

#[test]
fn what_others_say_stays() {
    let before = json!({"metadata": {}, "status": {
        "addresses": [{"type": "InternalIP", "address": "10.0.0.1"}],
        "volumesAttached": [{"name": "a", "devicePath": "b"}],
        "conditions": [{"type": "EtcdIsVoter", "status": "True"}],
    }});
    let node: Node = serde_json::from_value(before).unwrap();
    let made = value(&status(&node, &facts(), at(100)));
    assert_eq!(made["addresses"][0]["address"], "10.0.0.1");
    assert_eq!(made["volumesAttached"][0]["name"], "a");
    assert_eq!(made["conditions"].as_array().map(Vec::len), Some(5));
    assert_eq!(made["conditions"][0]["type"], "EtcdIsVoter");
}

#[test]
fn a_heartbeat_is_no_news() {
    let first = status(&Node::default(), &facts(), at(100));
    let node = Node { status: Some(first.clone()), ..Node::default() };
    let found = difference(&first, &status(&node, &facts(), at(110)));
    assert!(!found.is_news);
    let patch = found.patch.unwrap();
    assert_eq!(patch["status"].as_object().map(|fields| fields.len()), Some(1));
    assert_eq!(patch["status"]["conditions"].as_array().map(Vec::len), Some(4));
    let same = difference(&first, &first);
    assert_eq!((same.patch, same.is_news), (None, false));
}

#[test]
fn only_what_differs_is_sent() {
    let before: NodeStatus = serde_json::from_value(json!({
        "addresses": [{"type": "InternalIP", "address": "10.0.0.1"}],
        "capacity": {"cpu": "2", "memory": "1Gi", "example.com/gone": "1"},
        "conditions": [{"type": "Ready", "status": "True", "lastHeartbeatTime": "2030-01-01T00:00:00Z"}],
        "volumesInUse": ["a"],
    }))
    .unwrap();
    let now: NodeStatus = serde_json::from_value(json!({
        "addresses": [{"type": "InternalIP", "address": "10.0.0.2"}],
        "capacity": {"cpu": "4", "memory": "1Gi"},
        "conditions": [{"type": "Ready", "status": "False", "lastHeartbeatTime": "2030-01-01T00:00:10Z"}],
    }))
    .unwrap();
    let found = difference(&before, &now);
    let expected = json!({"status": {
        "addresses": [{"type": "InternalIP", "address": "10.0.0.2"}, {"$patch": "replace"}],
        "capacity": {"cpu": "4", "example.com/gone": null},
        "conditions": [{"type": "Ready", "status": "False", "lastHeartbeatTime": "2030-01-01T00:00:10Z"}],
        "volumesInUse": null,
    }});
    assert_eq!((found.patch, found.is_news), (Some(expected), true));
}
