//! Changes begin with what the cache has. When the store has something newer, nobody notices.

use bytes::Bytes;
use k3sd_apiserver_store::{ObjectStore, ReadAt};
use k3sd_client::storage::{Change, Precondition, Storage, Write};
use k3sd_objects::object::stored_bytes;
use serde_json::{Value, json};

use crate::world::{MAPS, World, map};

const NAME: &str = "m";

/// A world in which a ConfigMap was changed in the store, and the cache does not know it yet. Gives the object as it was
/// and as it is.
///
/// Nothing else runs until the test waits for something, which a write to memory does not.
async fn behind_the_cache() -> (World, Value, Value) {
    let world = World::new().await;
    let old = world.make(MAPS, &map(NAME, json!({ "k": "old" }))).await;
    let configmaps = world.stores.get("", "configmaps").expect("they are served");
    configmaps.get("a", NAME, ReadAt::Latest).await.expect("it answers").expect("it is there");
    let mut new = old.clone();
    new["data"]["other"] = json!("new");
    let revision = put(&world, &configmaps, NAME, &new).await;
    new["metadata"]["resourceVersion"] = json!(revision.to_string());
    assert_eq!(cached(&configmaps, NAME).as_ref(), Some(&old), "the cache is behind");
    (world, old, new)
}

fn cached(configmaps: &ObjectStore, name: &str) -> Option<Value> {
    configmaps.snapshot().get("a", name).map(|object| object.value())
}

async fn put(world: &World, configmaps: &ObjectStore, name: &str, value: &Value) -> u64 {
    let mut value = value.clone();
    value["metadata"]["name"] = json!(name);
    let key = Bytes::from(configmaps.stored().key("a", name));
    let change = Change::Put { value: stored_bytes(value).into(), ttl: None };
    let written = world.memory.write(Write { key, change, precondition: Precondition::None }).await;
    written.expect("memory takes all").revision.get()
}

#[tokio::test(start_paused = true)]
async fn a_patch_loses_no_write_that_the_cache_has_not_seen() {
    let (world, _, _) = behind_the_cache().await;
    let said = world.patch(&format!("{MAPS}/{NAME}"), "merge", &json!({ "data": { "k": "mine" } })).await;
    assert_eq!((said.code, &said.value["data"]), (200, &json!({ "k": "mine", "other": "new" })), "{}", said.value);
    assert_eq!(world.get(&format!("{MAPS}/{NAME}")).await.value, said.value);
}

#[tokio::test(start_paused = true)]
async fn a_put_is_held_against_what_the_store_has() {
    let path = format!("{MAPS}/{NAME}");
    // For the newest state, which only the store has.
    let (world, _, mut new) = behind_the_cache().await;
    new["data"]["k"] = json!("mine");
    let said = world.put(&path, &new).await;
    assert_eq!((said.code, &said.value["data"]), (200, &json!({ "k": "mine", "other": "new" })), "{}", said.value);
    // For the state that the cache has, and that is over.
    let (world, mut old, new) = behind_the_cache().await;
    old["data"]["k"] = json!("mine");
    let said = world.put(&path, &old).await;
    assert_eq!((said.code, &said.value["reason"]), (409, &json!("Conflict")), "{}", said.value);
    assert_eq!(world.get(&path).await.value, new, "nothing was written");
    // For whatever state there is.
    let (world, old, new) = behind_the_cache().await;
    let said = world.put(&path, &map(NAME, json!({ "k": "mine" }))).await;
    assert_eq!((said.code, &said.value["data"]), (200, &json!({ "k": "mine" })), "{}", said.value);
    assert_eq!(said.metadata("uid"), &old["metadata"]["uid"]);
    assert_ne!(said.metadata("resourceVersion"), &new["metadata"]["resourceVersion"]);
}

#[tokio::test(start_paused = true)]
async fn a_change_that_would_change_nothing_is_answered_with_the_newest_state() {
    let (world, _, new) = behind_the_cache().await;
    let said = world.patch(&format!("{MAPS}/{NAME}"), "merge", &json!({ "data": { "k": "old" } })).await;
    assert_eq!((said.code, &said.value), (200, &new));
    let (world, _, new) = behind_the_cache().await;
    let said = world.patch(&format!("{MAPS}/{NAME}?dryRun=All"), "merge", &json!({ "data": { "k": "tried" } })).await;
    assert_eq!((said.code, &said.value["data"]), (200, &json!({ "k": "tried", "other": "new" })));
    assert_eq!(said.metadata("resourceVersion"), &new["metadata"]["resourceVersion"]);
}

#[tokio::test(start_paused = true)]
async fn an_object_that_only_the_store_has_is_found() {
    let (world, old, _) = behind_the_cache().await;
    let configmaps = world.stores.get("", "configmaps").expect("they are served");
    put(&world, &configmaps, "other", &old).await;
    assert_eq!(cached(&configmaps, "other"), None, "the cache is behind");
    let said = world.put(&format!("{MAPS}/other"), &map("other", json!({ "k": "mine" }))).await;
    assert_eq!((said.code, &said.value["data"]), (200, &json!({ "k": "mine" })), "{}", said.value);
}

#[tokio::test(start_paused = true)]
async fn an_object_that_only_the_cache_has_is_gone() {
    let (world, _, _) = behind_the_cache().await;
    let configmaps = world.stores.get("", "configmaps").expect("they are served");
    let key = Bytes::from(configmaps.stored().key("a", NAME));
    let end = Write { key, change: Change::Delete, precondition: Precondition::None };
    world.memory.write(end).await.expect("memory takes all");
    assert!(cached(&configmaps, NAME).is_some(), "the cache is behind");
    let said = world.patch(&format!("{MAPS}/{NAME}"), "merge", &json!({ "data": { "k": "mine" } })).await;
    assert_eq!(said.code, 404, "{}", said.value);
}
