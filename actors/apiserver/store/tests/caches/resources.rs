//! Resources that come and go.

use std::sync::Arc;
use std::time::Duration;

use k3sd_apiserver_store::{CustomVersion, Resource, Stored, WatchQuery};
use k3sd_objects::object::Selectable;
use serde_json::{Value, json};

use crate::world::{World, list, names, told};

/// Widgets of `example.com`, with the schema of something else: nothing here looks at schemas.
fn widgets(world: &World, uid: &str, selectable: &[&str]) -> Arc<Resource> {
    let catalog = world.stores.catalog().current();
    let other = catalog.resource("", "v1", "configmaps").expect("config maps are served");
    let stored = Stored {
        group: "example.com".into(),
        plural: "widgets".into(),
        prefix: "/registry/example.com/widgets/".to_owned(),
        api_version: "example.com/v1".into(),
        kind: "Widget".into(),
        namespaced: true,
        schema: other.schema.clone(),
        selectable: Selectable::custom(selectable.iter().copied()),
        definition_uid: Some(uid.into()),
    };
    Arc::new(Resource {
        group: "example.com".into(),
        version: "v1".into(),
        api_version: "example.com/v1".into(),
        plural: "widgets".into(),
        singular: "widget".into(),
        kind: "Widget".into(),
        list_kind: "WidgetList".into(),
        namespaced: true,
        verbs: other.verbs.clone(),
        short_names: Vec::new(),
        categories: Vec::new(),
        subresources: Vec::new(),
        schema: other.schema.clone(),
        generation: true,
        stored: Some(Arc::new(stored)),
        custom: Some(Arc::new(CustomVersion::default())),
    })
}

fn widget(name: &str) -> Value {
    json!({ "apiVersion": "example.com/v1", "kind": "Widget", "metadata": { "name": name, "namespace": "a" } })
}

#[tokio::test(start_paused = true)]
async fn a_resource_is_served_as_soon_as_it_is_published_and_no_longer() {
    let world = World::new().await;
    assert!(world.stores.get("example.com", "widgets").is_none());
    world.stores.catalog().set_custom([widgets(&world, "u1", &[])]);
    let store = world.stores.get("example.com", "widgets").expect("it is served at once");
    store.create("a", "x", widget("x"), None).await.expect("it is created");
    assert_eq!(names(&store.list(&list()).await.expect("a list")), ["a/x"]);
    let mut watch = store.watch(&WatchQuery::default()).await.expect("a watch");
    assert_eq!(told(&mut watch).await, ["added x@2"]);
    world.stores.catalog().set_custom([]);
    assert!(world.stores.get("example.com", "widgets").is_none());
    assert_eq!(told(&mut watch).await, ["end"]);
    world.pass(Duration::from_secs(1)).await;
    let caches = world.caches().await;
    assert!(caches.contains(&"pods".to_owned()));
    assert!(!caches.iter().any(|name| name.starts_with("widgets")), "{caches:?}");
}

#[tokio::test(start_paused = true)]
async fn a_definition_that_changes_its_schema_keeps_its_cache() {
    let world = World::new().await;
    world.stores.catalog().set_custom([widgets(&world, "u1", &[])]);
    let store = world.stores.get("example.com", "widgets").expect("it is served");
    let mut watch = store.watch(&WatchQuery::default()).await.expect("a watch");
    world.stores.catalog().set_custom([widgets(&world, "u1", &[])]);
    world.pass(Duration::from_secs(1)).await;
    assert!(Arc::ptr_eq(&store, &world.stores.get("example.com", "widgets").expect("it is served")));
    store.create("a", "x", widget("x"), None).await.expect("it is created");
    assert_eq!(told(&mut watch).await, ["added x@2"]);
    // Other selectable fields, or another life of the definition: headers and objects are others.
    for other in [widgets(&world, "u1", &["spec.size"]), widgets(&world, "u2", &["spec.size"])] {
        let store = world.stores.get("example.com", "widgets").expect("it is served");
        let mut watch = store.watch(&WatchQuery::default()).await.expect("a watch");
        told(&mut watch).await;
        world.stores.catalog().set_custom([other]);
        let next = world.stores.get("example.com", "widgets").expect("it is served");
        assert!(!Arc::ptr_eq(&store, &next));
        assert_eq!(told(&mut watch).await, ["end"]);
        assert_eq!(names(&next.list(&list()).await.expect("a list")), ["a/x"]);
        assert!(next.snapshot().is_filled());
    }
}

#[tokio::test(start_paused = true)]
async fn every_resource_is_filled_before_the_stores_are_ready() {
    let mut world = World::asleep();
    assert!(world.stores.unfilled().contains(&"deployments.apps".to_owned()));
    world.memory.set_open(false);
    let late = world.memory.clone();
    let clock = world.clock.clone();
    let open = async move {
        clock.sleep_until(clock.now() + Duration::from_secs(20)).await;
        late.set_open(true);
    };
    tokio::join!(world.start(), open);
    assert_eq!(world.stores.unfilled(), [""; 0]);
}
