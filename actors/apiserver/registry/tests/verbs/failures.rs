//! What clients are told when the store fails, and when several want the same.

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::world::{MAPS, World, map};

#[tokio::test(start_paused = true)]
async fn of_many_who_make_one_object_one_does() {
    let world = World::new().await;
    let object = map("m", json!({}));
    let codes = join_all((0..16).map(|_| world.post(MAPS, &object))).await;
    let made = codes.iter().filter(|said| said.code == 201).count();
    let refused = codes.iter().filter(|said| said.code == 409).count();
    assert_eq!((made, refused), (1, 15));
}

#[tokio::test(start_paused = true)]
async fn of_many_who_replace_one_state_one_does() {
    let world = World::new().await;
    let mut state = world.make(MAPS, &map("m", json!({}))).await;
    let path = format!("{MAPS}/m");
    let states: Vec<Value> = (0..16)
        .map(|n| {
            state["data"] = json!({ "n": n.to_string() });
            state.clone()
        })
        .collect();
    let said = join_all(states.iter().map(|state| world.put(&path, state))).await;
    assert_eq!(said.iter().filter(|said| said.code == 200).count(), 1);
    assert_eq!(said.iter().filter(|said| said.code == 409).count(), 15);
    let free: Vec<Value> = (0..16).map(|n| map("m", json!({ "n": n.to_string() }))).collect();
    for said in join_all(free.iter().map(|state| world.put(&path, state))).await {
        assert_eq!(said.code, 200, "who names no version replaces any: {}", said.value);
    }
}

#[tokio::test(start_paused = true)]
async fn an_unknown_outcome_is_called_one() {
    let world = World::new().await;
    world.memory.lose_answers(1);
    let said = world.post(MAPS, &map("m", json!({}))).await;
    assert_eq!((said.code, &said.value["reason"]), (504, &json!("Timeout")), "{}", said.value);
    assert_eq!(world.get(&format!("{MAPS}/m")).await.code, 200, "this one happened");
}

#[tokio::test(start_paused = true)]
async fn a_service_that_is_not_written_gives_its_address_back() {
    let world = World::new().await;
    let range = json!({ "metadata": { "name": "kubernetes" }, "spec": { "cidrs": ["10.43.0.0/16"] } });
    let ranges = "/apis/networking.k8s.io/v1/servicecidrs";
    let mut range = world.make(ranges, &range).await;
    let ready = json!({
        "type": "Ready", "status": "True", "lastTransitionTime": "2025-01-01T00:00:00Z", "reason": "r", "message": "m",
    });
    range["status"] = json!({ "conditions": [ready] });
    world.put(&format!("{ranges}/kubernetes/status"), &range).await;
    let services = "/api/v1/namespaces/a/services";
    let service = |name: &str| json!({ "metadata": { "name": name }, "spec": { "ports": [{ "port": 80 }] } });
    let made = world.make(services, &service("s")).await;
    let address = made["spec"]["clusterIP"].as_str().expect("an address").to_owned();
    let addresses = "/apis/networking.k8s.io/v1/ipaddresses";
    assert_eq!(world.get(&format!("{addresses}/{address}")).await.code, 200);
    let wrong = json!({ "metadata": { "name": "t" }, "spec": { "ports": [] } });
    assert_eq!(world.post(services, &wrong).await.code, 422);
    let held = world.get(addresses).await.value["items"].as_array().map(Vec::len);
    assert_eq!(held, Some(1), "what was not written gave its address back");
    assert_eq!(world.delete(&format!("{services}/s")).await.code, 200);
    assert_eq!(world.get(&format!("{addresses}/{address}")).await.code, 404);
    let mut kept = service("k");
    kept["metadata"]["finalizers"] = json!(["a.b/c"]);
    let kept = world.make(services, &kept).await;
    let address = kept["spec"]["clusterIP"].as_str().expect("an address").to_owned();
    world.delete(&format!("{services}/k")).await;
    assert_eq!(world.get(&format!("{addresses}/{address}")).await.code, 200, "it is still there");
    let release = json!({ "metadata": { "finalizers": null } });
    assert_eq!(world.patch(&format!("{services}/k"), "merge", &release).await.code, 200);
    assert_eq!(world.get(&format!("{addresses}/{address}")).await.code, 404, "its last finalizer takes it along");
}

#[tokio::test(start_paused = true)]
async fn a_store_that_can_not_write_is_said_to_be_one() {
    let world = World::new().await;
    world.make(MAPS, &map("m", json!({ "k": "1" }))).await;
    world.memory.set_full(true);
    let full = world.put(&format!("{MAPS}/m"), &map("m", json!({ "k": "2" }))).await;
    assert_eq!(full.code, 500, "{}", full.value);
    assert_eq!(world.get(&format!("{MAPS}/m")).await.value["data"]["k"], "1");
    world.memory.set_full(false);
    world.memory.set_open(false);
    let closed = world.post(MAPS, &map("n", json!({}))).await;
    assert_eq!(closed.code, 503, "{}", closed.value);
    world.memory.set_open(true);
    assert_eq!(world.post(MAPS, &map("n", json!({}))).await.code, 201);
}
