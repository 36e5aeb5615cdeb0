//! Pods: bindings and evictions.

use k8s_openapi::api::core::v1::{Binding, Pod, ServiceAccount};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::Api;
use kube::api::{EvictParams, Patch, PatchParams, PostParams};
use serde_json::json;

use crate::{World, refused};

/// Makes a pod; the service account that it needs may be there already.
async fn make_pod(world: &World, name: &str) -> Api<Pod> {
    let accounts: Api<ServiceAccount> = Api::default_namespaced(world.client.clone());
    let account = Patch::Apply(json!({"apiVersion": "v1", "kind": "ServiceAccount"}));
    accounts.patch("default", &PatchParams::apply("test"), &account).await.expect("an account");
    let pods: Api<Pod> = Api::default_namespaced(world.client.clone());
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": "web"}},
        "spec": {"containers": [{"name": "web", "image": "web:1"}], "schedulerName": "nobody"},
    });
    let pod = serde_json::from_value(pod).expect("a pod");
    pods.create(&PostParams::default(), &pod).await.expect("it can be made");
    pods
}

/// Says that a pod runs and is ready.
async fn run(pods: &Api<Pod>, name: &str) {
    let status = json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}});
    pods.patch_status(name, &PatchParams::default(), &Patch::Merge(status)).await.expect("it has a status");
}

#[tokio::test]
async fn a_binding_gives_a_pod_its_node() {
    let world = World::start().await;
    let pods = make_pod(&world, "a").await;
    let binding: Binding = serde_json::from_value(json!({
        "metadata": {"name": "a"}, "target": {"apiVersion": "v1", "kind": "Node", "name": "n1"},
    }))
    .expect("a binding");
    let bound: serde_json::Value =
        pods.create_subresource("binding", "a", &PostParams::default(), &binding).await.expect("it has no node yet");
    assert_eq!((&bound["kind"], &bound["status"]), (&json!("Status"), &json!("Success")));
    let pod = pods.get("a").await.expect("it is there");
    assert_eq!(pod.spec.and_then(|spec| spec.node_name).as_deref(), Some("n1"));
    let again: kube::Result<serde_json::Value> =
        pods.create_subresource("binding", "a", &PostParams::default(), &binding).await;
    assert!(refused(again).is_conflict());
}

#[tokio::test]
async fn an_eviction_is_up_to_the_budget() {
    let world = World::start().await;
    let pods = make_pod(&world, "a").await;
    run(&pods, "a").await;
    let budgets: Api<PodDisruptionBudget> = Api::default_namespaced(world.client.clone());
    let budget = serde_json::from_value(json!({
        "metadata": {"name": "web"}, "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "web"}}},
    }));
    let budget = budgets.create(&PostParams::default(), &budget.expect("a budget")).await.expect("it can be made");
    // What the controller of budgets comes to as well.
    let status = |generation: Option<i64>, allowed: i32, desired: i32| {
        Patch::Merge(json!({"status": {
            "observedGeneration": generation, "disruptionsAllowed": allowed, "currentHealthy": 1,
            "desiredHealthy": desired, "expectedPods": 1,
        }}))
    };
    let none = PatchParams::default();
    budgets.patch_status("web", &none, &status(budget.metadata.generation, 0, 1)).await.expect("it has a status");
    let blocked = refused(pods.evict("a", &EvictParams::default()).await);
    assert_eq!((blocked.code, blocked.reason.as_str()), (429, "TooManyRequests"));
    assert_eq!(blocked.message, "Cannot evict pod as it would violate the pod's disruption budget.");
    let causes = blocked.details.expect("details").causes;
    assert_eq!(
        (causes[0].reason.as_str(), causes[0].message.as_str()),
        ("DisruptionBudget", "The disruption budget web needs 1 healthy pods and has 1 currently")
    );
    assert!(pods.get("a").await.expect("it is there").metadata.deletion_timestamp.is_none());

    let wider = budgets.patch("web", &none, &Patch::Merge(json!({"spec": {"minAvailable": 0}}))).await;
    let generation = wider.expect("it fits").metadata.generation;
    budgets.patch_status("web", &none, &status(generation, 1, 0)).await.expect("it has a status");
    let evicted = pods.evict("a", &EvictParams::default()).await.expect("the budget allows it");
    assert!(evicted.is_success());
    assert!(pods.get_opt("a").await.expect("an answer").is_none_or(|pod| pod.metadata.deletion_timestamp.is_some()));
    assert_eq!(refused(pods.evict("none", &EvictParams::default()).await).code, 404);
}
