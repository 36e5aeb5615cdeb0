//! The application, as it comes from its file, and who uses it.

use std::fs;
use std::time::Duration;

use serde_json::Value;

use crate::facts::Facts;
use crate::kubectl::holds;
use crate::machine::{ADDRESS, IMAGE, Machine};
use crate::traffic::Places;

/// The application, with the image that this machine has.
const SHOP: &str = include_str!("../../../fixtures/application/shop.yaml");
/// Its image there.
const SHOP_IMAGE: &str = "docker.io/library/busybox:latest";
/// Where it is.
pub(crate) const NAMESPACE: &str = "shop";
/// How many pods there are: two of the front end, two workers, the store and the talker.
const PODS: usize = 6;

/// Starts the daemon, and waits until the application runs and nothing of it is going to change by itself.
pub(crate) async fn open(machine: &mut Machine) {
    machine.start();
    machine.node_ready().await;
    let text = SHOP.replace(SHOP_IMAGE, IMAGE).replace("maxReplicas: 4", "maxReplicas: 2");
    // Its pods come and go.
    let text = text.replace("  concurrencyPolicy:", "  suspend: true\n  concurrencyPolicy:");
    // As an editor does.
    let folder = machine.seen(&machine.disk("data/server/manifests").display().to_string());
    fs::write(folder.join(".shop.yaml.swp"), text).expect("a file");
    fs::rename(folder.join(".shop.yaml.swp"), folder.join("shop.yaml")).expect("it is there");
    machine.until("it is applied", &["namespace", NAMESPACE], Value::is_object).await;
    machine.until("it has an account", &["-n", NAMESPACE, "serviceaccount", "default"], Value::is_object).await;
    machine.apply(include_str!("shop.yaml")).await;
    for what in ["statefulset/store", "deployment/front", "deployment/worker"] {
        machine.until("it is applied", &["-n", NAMESPACE, what], Value::is_object).await;
        machine.told(&["-n", NAMESPACE, "rollout", "status", what, "--timeout=60s"]).await;
    }
    let stays = |pod: &Value| pod["metadata"]["deletionTimestamp"].is_null() && holds(pod, "Ready");
    let all = |list: &Value| list["items"].as_array().is_some_and(|pods| pods.len() == PODS && pods.iter().all(stays));
    machine.until("all of it is ready", &["-n", NAMESPACE, "pods"], all).await;
    for service in ["front", "talker"] {
        let is_balanced = |service: &Value| service["status"]["loadBalancer"]["ingress"][0]["ip"] == ADDRESS;
        machine.until("it has the node's address", &["-n", NAMESPACE, "service", service], is_balanced).await;
    }
}

/// Where it is reached.
pub(crate) async fn places(machine: &Machine) -> Places {
    let address = async |namespace, service| {
        let service = machine.get(&["-n", namespace, "service", service]).await;
        service["spec"]["clusterIP"].as_str().and_then(|text| text.parse().ok()).expect("an address")
    };
    Places {
        node: ADDRESS.parse().expect("an address"),
        front: address(NAMESPACE, "front").await,
        talker: address(NAMESPACE, "talker").await,
        names: address("kube-system", "kube-dns").await,
    }
}

/// What must stay as it is about the application's pods.
pub(crate) async fn facts(machine: &Machine) -> Facts {
    Facts::in_namespace(machine, NAMESPACE).await
}

/// Waits until all is as it was.
///
/// # Panics
/// When it isn't in the end.
pub(crate) async fn as_before(machine: &Machine, wanted: &Facts) {
    let began = std::time::Instant::now();
    loop {
        let found = facts(machine).await;
        if found == *wanted {
            return;
        }
        assert!(began.elapsed() < crate::machine::PATIENCE, "{found:?}\nbefore {wanted:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
