use k8s_openapi::api::core::v1::Node;
use serde_json::{Value, json};

use super::*;

fn identity() -> Identity {
    Identity {
        name: "one".to_owned(),
        hostname: "one.example".to_owned(),
        architecture: "amd64".to_owned(),
        labels: [("disk".to_owned(), "ssd".to_owned())].into(),
        labels_removed: vec!["egress.k3s.io/cluster".to_owned()],
        cloud: Some(CloudAnnotations { internal_ip: "10.0.0.1".to_owned(), ..CloudAnnotations::default() }),
        provided_ips: Some("10.0.0.1".to_owned()),
        controller_attaches: true,
        ..Identity::default()
    }
}

fn as_value(node: &Node) -> Value {
    serde_json::to_value(node).unwrap()
}

#[test]
fn a_new_node_has_all_of_it() {
    let made = as_value(&initial(&identity()));
    let labels = json!({
        "beta.kubernetes.io/arch": "amd64", "beta.kubernetes.io/os": "linux", "disk": "ssd",
        "kubernetes.io/arch": "amd64", "kubernetes.io/hostname": "one.example", "kubernetes.io/os": "linux",
    });
    assert_eq!(made["metadata"]["labels"], labels);
    let annotations = json!({
        "alpha.kubernetes.io/provided-node-ip": "10.0.0.1", "k3s.io/internal-ip": "10.0.0.1",
        "volumes.kubernetes.io/controller-managed-attach-detach": "true",
    });
    assert_eq!(made["metadata"]["annotations"], annotations);
    let key = "node.cloudprovider.kubernetes.io/uninitialized";
    assert_eq!(made["spec"]["taints"], json!([{"key": key, "value": "true", "effect": "NoSchedule"}]));
}

#[test]
fn without_a_cloud_nobody_has_to_say_what_the_node_is() {
    let made = as_value(&initial(&Identity { cloud: None, ..identity() }));
    assert!(made["spec"].get("taints").is_none());
    assert!(made["metadata"]["annotations"].get("k3s.io/internal-ip").is_none());
    assert!(made["metadata"]["annotations"].get("alpha.kubernetes.io/provided-node-ip").is_none());
}

#[test]
fn a_node_that_is_as_it_should_be_is_left_alone() {
    assert_eq!(reconcile(&initial(&identity()), &identity()), None);
}

#[test]
fn a_node_that_was_there_gets_what_differs() {
    let mut existing = initial(&identity());
    let labels = existing.metadata.labels.get_or_insert_default();
    labels.insert("disk".to_owned(), "hdd".to_owned());
    labels.insert("egress.k3s.io/cluster".to_owned(), "true".to_owned());
    labels.insert("mine".to_owned(), "kept".to_owned());
    labels.insert("topology.kubernetes.io/zone".to_owned(), String::new());
    existing.spec = None; // Somebody has taken the taints away.
    let patch = reconcile(&existing, &Identity { cloud: None, ..identity() }).unwrap();
    let expected = json!({"metadata": {
        "labels": {"disk": "ssd", "egress.k3s.io/cluster": null, "topology.kubernetes.io/zone": null},
        "annotations": {"alpha.kubernetes.io/provided-node-ip": null, "k3s.io/internal-ip": null},
    }});
    assert_eq!(patch, expected);
}
