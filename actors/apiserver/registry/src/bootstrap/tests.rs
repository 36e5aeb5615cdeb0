//! A server comes up, beside others, and goes.

use std::time::Duration;

use serde_json::{Value, json};

use crate::special::read::{items, text};
use crate::special::tests::world::World;

const ENDPOINTS: &str = "/api/v1/namespaces/default/endpoints/kubernetes";

fn addresses(endpoints: &Value) -> Vec<&str> {
    items(endpoints, "/subsets/0/addresses").iter().map(|one| text(one, "/ip")).collect()
}

#[tokio::test(start_paused = true)]
async fn an_empty_store_is_furnished() {
    let world = World::new(&["10.43.0.0/24"]).await;
    for path in [
        "/api/v1/namespaces/default",
        "/api/v1/namespaces/kube-system",
        "/api/v1/namespaces/kube-public",
        "/api/v1/namespaces/kube-node-lease",
        "/apis/scheduling.k8s.io/v1/priorityclasses/system-node-critical",
        "/apis/flowcontrol.apiserver.k8s.io/v1/flowschemas/probes",
        "/apis/flowcontrol.apiserver.k8s.io/v1/prioritylevelconfigurations/exempt",
        "/apis/networking.k8s.io/v1/servicecidrs/kubernetes",
        "/apis/networking.k8s.io/v1/ipaddresses/10.43.0.1",
        "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/cluster-admin",
        "/apis/rbac.authorization.k8s.io/v1/namespaces/kube-system/roles/extension-apiserver-authentication-reader",
    ] {
        world.get(path).await.unwrap_or_else(|status| panic!("{path}: {status}"));
    }
    let service = world.get("/api/v1/namespaces/default/services/kubernetes").await.expect("there");
    assert_eq!(
        (text(&service, "/spec/clusterIP"), &service["spec"]["ports"][0]["targetPort"]),
        ("10.43.0.1", &json!(6443))
    );
    assert_eq!(addresses(&world.get(ENDPOINTS).await.expect("there")), ["10.1.1.1"]);
    let slice = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/kubernetes";
    assert_eq!(world.get(slice).await.expect("there")["endpoints"][0]["addresses"], json!(["10.1.1.1"]));
    let map = "/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication";
    assert_eq!(world.get(map).await.expect("there")["data"]["client-ca-file"], "PEM");
    let leases = world.get("/apis/coordination.k8s.io/v1/namespaces/kube-system/leases").await.expect("list");
    assert!(text(&leases[0], "/metadata/name").starts_with("apiserver-"));
    let admin = world.get("/apis/rbac.authorization.k8s.io/v1/clusterroles/admin").await.expect("there");
    assert!(!items(&admin, "/rules").is_empty());
    assert!(world.hooks.is_done());
}

#[tokio::test(start_paused = true)]
async fn a_second_start_changes_nothing() {
    let world = World::new(&["10.43.0.0/24"]).await;
    let (memory, clock) = (world.memory.clone(), world.clock.clone());
    let lists = [
        "/apis/rbac.authorization.k8s.io/v1/clusterroles",
        "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
        "/apis/flowcontrol.apiserver.k8s.io/v1/flowschemas",
        "/apis/flowcontrol.apiserver.k8s.io/v1/prioritylevelconfigurations",
        "/apis/networking.k8s.io/v1/ipaddresses",
        "/api/v1/namespaces",
        "/api/v1/services",
    ];
    world.pass(Duration::from_secs(5)).await;
    let mut before = Vec::new();
    for list in lists {
        before.push(world.get(list).await.expect(list));
    }
    world.stop().await;
    let world = World::over(memory, clock, &["10.43.0.0/24"], "10.1.1.1").await;
    world.pass(Duration::from_secs(300)).await;
    for (list, before) in lists.into_iter().zip(before) {
        assert_eq!(world.get(list).await.expect(list), before, "{list}");
    }
    let events = world.get("/api/v1/events").await.expect("list");
    assert_eq!(events, json!([]), "nothing had to be mended");
}

#[tokio::test(start_paused = true)]
async fn servers_come_and_go() {
    let first = World::new(&["10.43.0.0/24"]).await;
    let (memory, clock) = (first.memory.clone(), first.clock.clone());
    let second = World::over(memory, clock, &["10.43.0.0/24"], "10.1.1.2").await;
    let both =
        |found: &Result<Value, _>| found.as_ref().is_ok_and(|found| addresses(found) == ["10.1.1.1", "10.1.1.2"]);
    second.until(ENDPOINTS, both).await;
    first.pass(Duration::from_secs(60)).await;
    first.until(ENDPOINTS, both).await;
    second.stop().await;
    let alone = first.get(ENDPOINTS).await.expect("there");
    assert_eq!(addresses(&alone), ["10.1.1.1"], "it left by itself");
    let leases = first.get("/apis/coordination.k8s.io/v1/namespaces/kube-system/leases").await.expect("list");
    assert_eq!(items(&leases, "").len(), 2, "its lease runs for an hour");
    first.pass(Duration::from_secs(3700)).await;
    let leases = first.get("/apis/coordination.k8s.io/v1/namespaces/kube-system/leases").await.expect("list");
    assert_eq!(items(&leases, "").len(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_people_change_is_mended_or_left() {
    let world = World::new(&["10.43.0.0/24"]).await;
    let level = "/apis/flowcontrol.apiserver.k8s.io/v1/prioritylevelconfigurations/system";
    world.patch(level, json!({"spec": {"limited": {"nominalConcurrencyShares": 99}}})).await.expect("changed");
    world
        .until(level, |found| found.as_ref().is_ok_and(|one| one["spec"]["limited"]["nominalConcurrencyShares"] == 30))
        .await;

    let roles = "/apis/rbac.authorization.k8s.io/v1/clusterroles";
    let more = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
        "metadata": {"name": "more", "labels": {"rbac.authorization.k8s.io/aggregate-to-view": "true"}},
        "rules": [{"verbs": ["get"], "apiGroups": ["example.com"], "resources": ["things"]}]});
    world.post(roles, more).await.expect("made");
    let has =
        |found: &Result<Value, _>| found.as_ref().is_ok_and(|role| role["rules"].to_string().contains("example.com"));
    world.until(&format!("{roles}/view"), has).await;
    world.until(&format!("{roles}/admin"), has).await;
    world.delete(&format!("{roles}/more")).await.expect("deleted");
    world.until(&format!("{roles}/view"), |found| !has(found)).await;

    for actor in ["namespaces", "roles", "kubernetes", "flow-control", "identity"] {
        world.kill(&format!("bootstrap/{actor}"));
    }
    world.delete(ENDPOINTS).await.expect("deleted");
    world.until(ENDPOINTS, Result::is_ok).await;
}
