//! Bindings and evictions.

use serde_json::{Value, json};

use super::world::{Ask, World};
use crate::special::read::text;

const PODS: &str = "/api/v1/namespaces/default/pods";

fn pod(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": "x"}},
        "spec": {"containers": [{"name": "c", "image": "i"}]}})
}

fn eviction(name: &str) -> Value {
    json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}})
}

async fn running(world: &World, name: &str, ready: &str) {
    world.post(PODS, pod(name)).await.expect("made");
    let bind = json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": name}, "target": {"name": "n"}});
    world.post(&format!("{PODS}/{name}/binding"), bind).await.expect("bound");
    let status = json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": ready}]}});
    world.patch(&format!("{PODS}/{name}/status"), status).await.expect("running");
}

async fn budget(world: &World, name: &str, allowed: i64) {
    let body = json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": name},
        "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "x"}}}});
    let path = "/apis/policy/v1/namespaces/default/poddisruptionbudgets";
    world.post(path, body).await.expect("made");
    let status = json!({"status": {"observedGeneration": 1, "disruptionsAllowed": allowed, "currentHealthy": 2,
        "desiredHealthy": 1, "expectedPods": 2}});
    world.patch(&format!("{path}/{name}/status"), status).await.expect("counted");
}

#[tokio::test(start_paused = true)]
async fn a_pod_is_bound_once() {
    let world = World::new(&["10.43.0.0/24"]).await;
    world.post(PODS, pod("p")).await.expect("made");
    let bind = |node: &str| json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "p"}, "target": {"kind": "Node", "name": node}});
    let path = format!("{PODS}/p/binding");
    let trial = Ask { method: "POST", path: &path, query: "dryRun=All", body: bind("n1") };
    assert_eq!(world.ask(trial).await.expect("tried")["status"], "Success");
    assert_eq!(world.get(&format!("{PODS}/p")).await.expect("there")["spec"].get("nodeName"), None);
    let done = world.post("/api/v1/namespaces/default/bindings", bind("n1")).await.expect("bound");
    assert_eq!((&done["status"], &done["code"]), (&json!("Success"), &json!(201)));
    let found = world.get(&format!("{PODS}/p")).await.expect("there");
    assert_eq!(
        (text(&found, "/spec/nodeName"), &found["status"]["conditions"][0]["type"]),
        ("n1", &json!("PodScheduled"))
    );
    let again = world.post(&path, bind("n2")).await.expect_err("bound");
    assert_eq!(
        (again.code, again.message.as_str()),
        (409, "Operation cannot be fulfilled on pods/binding \"p\": pod p is already assigned to node \"n1\"")
    );
    let gone = world.post(&format!("{PODS}/q/binding"), bind("n1")).await.expect_err("another name");
    assert_eq!(gone.code, 400);
}

#[tokio::test(start_paused = true)]
async fn a_budget_is_charged_and_then_says_no() {
    let world = World::new(&["10.43.0.0/24"]).await;
    for name in ["a", "b"] {
        running(&world, name, "True").await;
    }
    budget(&world, "one", 1).await;
    let path = format!("{PODS}/a/eviction");
    let trial = Ask { method: "POST", path: &path, query: "dryRun=All", body: eviction("a") };
    world.ask(trial).await.expect("tried");
    let done = world.post(&path, eviction("a")).await.expect("evicted");
    assert_eq!((&done["status"], &done["code"]), (&json!("Success"), &json!(201)));
    let leaving = world.get(&format!("{PODS}/a")).await.expect("leaving");
    assert!(leaving["metadata"]["deletionTimestamp"].is_string(), "{leaving}");
    let target = leaving["status"]["conditions"]
        .as_array()
        .expect("conditions")
        .iter()
        .find(|one| one["type"] == "DisruptionTarget");
    assert_eq!(target.expect("marked")["reason"], "EvictionByEvictionAPI");
    let budget = world.get("/apis/policy/v1/namespaces/default/poddisruptionbudgets/one").await.expect("there");
    assert_eq!(budget["status"]["disruptionsAllowed"], 0);
    assert!(budget["status"]["disruptedPods"]["a"].is_string());

    let refused = world.post(&format!("{PODS}/b/eviction"), eviction("b")).await.expect_err("no more");
    assert_eq!(
        (refused.code, refused.message.as_str()),
        (429, "Cannot evict pod as it would violate the pod's disruption budget.")
    );
    assert_eq!(
        refused.details.expect("details").causes[0].message,
        "The disruption budget one needs 1 healthy pods and has 2 currently"
    );
    world.post(&path, eviction("a")).await.expect("whoever goes anyway may go");
}

#[tokio::test(start_paused = true)]
async fn who_may_go_without_a_charge() {
    let world = World::new(&["10.43.0.0/24"]).await;
    running(&world, "ill", "False").await;
    running(&world, "well", "True").await;
    world.post(PODS, pod("new")).await.expect("made");
    budget(&world, "none", 0).await;
    world.post(&format!("{PODS}/ill/eviction"), eviction("ill")).await.expect("nothing is lost with it");
    world.post(&format!("{PODS}/new/eviction"), eviction("new")).await.expect("it never began");
    assert_eq!(world.get(&format!("{PODS}/new")).await.expect_err("gone").code, 404);
    budget(&world, "other", 5).await;
    let several = world.post(&format!("{PODS}/well/eviction"), eviction("well")).await.expect_err("two budgets");
    assert_eq!((several.code, several.message.contains("more than one PodDisruptionBudget")), (500, true));
    let missing = world.post(&format!("{PODS}/nobody/eviction"), eviction("nobody")).await.expect_err("not there");
    assert_eq!(missing.code, 404);
}
