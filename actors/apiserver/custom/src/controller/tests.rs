//! The tasks over a store in memory.

use std::sync::Arc;
use std::time::Duration;

use k3sd_apiserver_store::{Catalog, CatalogHandle, ObjectStore, ReadAt, Stores};
use k3sd_client::storage::memory::Memory;
use k3sd_runtime::{Clock, Signal, Spec, Strategy, System, subtree};
use serde_json::{Value, json};

use super::*;
use crate::definition::{CLEANUP_FINALIZER, prepare_create, prepare_delete};

fn definition(plural: &str, kind: &str) -> Value {
    let version = |name: &str, storage: bool| {
        json!({ "name": name, "served": true, "storage": storage,
            "subresources": { "status": {} },
            "schema": { "openAPIV3Schema": { "type": "object",
                "properties": { "spec": { "type": "object", "properties": { "a": { "type": "string" } } } } } } })
    };
    let mut definition = json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": { "name": format!("{plural}.example.com"), "uid": format!("uid-of-{plural}"), "generation": 1 },
        "spec": { "group": "example.com", "scope": "Namespaced", "names": { "plural": plural, "kind": kind },
            "versions": [version("v1beta1", false), version("v1", true)] },
    });
    prepare_create(&mut definition);
    definition
}

struct Server {
    stores: Stores,
    definitions: Arc<ObjectStore>,
    system: System,
    tree: k3sd_runtime::Tree,
    clock: Clock,
}

async fn server() -> Server {
    let clock = Clock::simulated(1);
    let catalog = CatalogHandle::new(Catalog::builtin(|resource| resource.served));
    let stores = Stores::new(catalog, Arc::new(Memory::new(clock.clone())), clock.clone());
    let spec = Spec::new(Strategy::RestForOne)
        .child(subtree("caches", k3sd_apiserver_store::tree(&stores)))
        .child(subtree("custom", crate::tree(&stores)));
    let system = System::new(clock.clone());
    let tree = system.start(spec);
    stores.ready().await;
    Server { definitions: definitions_of(&stores).unwrap(), stores, system, tree, clock }
}

impl Server {
    async fn wait(&self, millis: u64) {
        self.clock.sleep_until(self.clock.now() + Duration::from_millis(millis)).await;
    }

    async fn read(&self, plural: &str) -> Option<Value> {
        let name = format!("{plural}.example.com");
        Some(self.definitions.get("", &name, ReadAt::Latest).await.unwrap()?.value())
    }

    /// Waits until a definition is as it should be.
    async fn until(&self, plural: &str, wanted: impl Fn(Option<&Value>) -> bool) -> Option<Value> {
        for _ in 0..1000 {
            let found = self.read(plural).await;
            if wanted(found.as_ref()) {
                return found;
            }
            self.wait(10).await;
        }
        panic!("{plural} is {:#?}", self.read(plural).await);
    }

    async fn create(&self, plural: &str, kind: &str) -> Value {
        let definition = definition(plural, kind);
        let name = format!("{plural}.example.com");
        self.definitions.create("", &name, definition, None).await.unwrap();
        self.until(plural, |found| found.is_some_and(|found| found["status"]["conditions"][0].is_object()))
            .await
            .unwrap()
    }

    async fn delete(&self, plural: &str) {
        let name = format!("{plural}.example.com");
        let object = self.definitions.get("", &name, ReadAt::Latest).await.unwrap().unwrap();
        let mut value = object.value();
        prepare_delete(&mut value, "2024-01-01T00:00:00Z");
        self.definitions.update(&object, value, None).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_definition_is_served_once_its_names_are_its_own() {
    let server = server().await;
    let created = server.create("widgets", "Widget").await;
    let conditions = created["status"]["conditions"].as_array().unwrap();
    let said: Vec<_> =
        conditions.iter().map(|c| (c["type"].as_str(), c["status"].as_str(), c["reason"].as_str())).collect();
    assert_eq!(
        said,
        [
            (Some("NamesAccepted"), Some("True"), Some("NoConflicts")),
            (Some("Established"), Some("True"), Some("InitialNamesAccepted")),
        ]
    );
    assert_eq!(created["status"]["acceptedNames"]["listKind"], "WidgetList");
    // Whoever reads that it is established finds it.
    let catalog = server.stores.catalog().current();
    let group = catalog.group("example.com").unwrap();
    assert_eq!(group.versions.iter().map(|version| &*version.name).collect::<Vec<_>>(), ["v1", "v1beta1"]);
    let widgets = catalog.resource("example.com", "v1beta1", "widgets").unwrap();
    assert!(widgets.subresource("status").is_some() && !widgets.is_storage_version());
    assert_eq!(widgets.custom.as_ref().unwrap().openapi("v1").unwrap()["type"], "object");
    server.tree.stop();
}

#[tokio::test(start_paused = true)]
async fn names_that_others_hold_wait_until_they_are_free() {
    let server = server().await;
    server.create("widgets", "Widget").await;
    let second = server.create("gadgets", "Widget").await;
    let names = &second["status"]["conditions"][0];
    assert_eq!((&names["reason"], &names["status"]), (&json!("ListKindConflict"), &json!("False")));
    assert_eq!(names["message"], "\"WidgetList\" is already in use");
    assert!(has_condition(&second, "Established", "False"));
    assert!(server.stores.catalog().current().preferred("example.com", "gadgets").is_none());
    server.delete("widgets").await;
    server.until("widgets", |found| found.is_none()).await;
    server.until("gadgets", |found| has_condition(found.unwrap(), "Established", "True")).await;
    assert!(server.stores.catalog().current().preferred("example.com", "gadgets").is_some());
    assert!(server.stores.catalog().current().preferred("example.com", "widgets").is_none());
    server.tree.stop();
}

#[tokio::test(start_paused = true)]
async fn a_definition_goes_after_its_instances() {
    let server = server().await;
    server.create("widgets", "Widget").await;
    let instances = server.stores.get("example.com", "widgets").unwrap();
    for (name, finalizers) in [("free", json!([])), ("held", json!(["example.com/held"]))] {
        let metadata = json!({ "name": name, "namespace": "default", "uid": name, "finalizers": finalizers });
        let instance = json!({ "apiVersion": "example.com/v1", "kind": "Widget", "metadata": metadata });
        instances.create("default", name, instance, None).await.unwrap();
    }
    server.delete("widgets").await;
    let going = |found: Option<&Value>| {
        found.is_some_and(|found| found["status"]["conditions"][2]["reason"] == "InstanceDeletionInProgress")
    };
    let found = server.until("widgets", going).await.unwrap();
    assert_eq!(found["metadata"]["finalizers"], json!([CLEANUP_FINALIZER]));
    // Nothing comes any more; what is there can be read.
    let resource = server.stores.catalog().current().preferred("example.com", "widgets").cloned().unwrap();
    assert!(!resource.verbs.contains(&"create") && resource.verbs.contains(&"list"));
    let held = loop {
        server.wait(100).await;
        let held = instances.get("default", "held", ReadAt::Latest).await.unwrap().unwrap();
        if held.deletion_timestamp().is_some() {
            break held;
        }
    };
    assert!(instances.get("default", "free", ReadAt::Latest).await.unwrap().is_none());
    instances.delete(&held).await.unwrap();
    server.until("widgets", |found| found.is_none()).await;
    for _ in 0..100 {
        server.wait(10).await;
    }
    assert!(server.stores.catalog().current().preferred("example.com", "widgets").is_none());
    server.tree.stop();
}

#[tokio::test(start_paused = true)]
async fn a_definition_with_a_webhook_is_served_as_it_is_stored() {
    let server = server().await;
    let mut value = definition("widgets", "Widget");
    value["spec"]["conversion"] = json!({ "strategy": "Webhook", "webhook": {
        "conversionReviewVersions": ["v1"], "clientConfig": { "url": "https://example.com/convert" } } });
    assert_eq!(crate::definition::validate_create(&value), []);
    server.definitions.create("", "widgets.example.com", value, None).await.unwrap();
    let told = |found: Option<&Value>| found.is_some_and(|found| has_condition(found, "ConversionAvailable", "False"));
    server.until("widgets", told).await;
    let catalog = server.stores.catalog().current();
    assert!(catalog.resource("example.com", "v1", "widgets").is_some());
    assert!(catalog.resource("example.com", "v1beta1", "widgets").is_none());
    server.tree.stop();
}

#[tokio::test(start_paused = true)]
async fn a_changed_definition_is_served_anew_and_its_instances_stay() {
    let server = server().await;
    server.create("widgets", "Widget").await;
    let instances = server.stores.get("example.com", "widgets").unwrap();
    let instance = json!({ "apiVersion": "example.com/v1", "kind": "Widget",
        "metadata": { "name": "a", "namespace": "default", "uid": "a" }, "spec": { "a": "x" } });
    instances.create("default", "a", instance, None).await.unwrap();
    let object = server.definitions.get("", "widgets.example.com", ReadAt::Latest).await.unwrap().unwrap();
    let mut value = object.value();
    value["metadata"]["generation"] = json!(2);
    value["spec"]["names"]["shortNames"] = json!(["w"]);
    let schema = &mut value["spec"]["versions"][1]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"];
    schema["b"] = json!({ "type": "integer" });
    server.definitions.update(&object, value, None).await.unwrap();
    let named = |found: Option<&Value>| {
        found.is_some_and(|found| found["status"]["acceptedNames"]["shortNames"] == json!(["w"]))
    };
    server.until("widgets", named).await;
    let resource = server.stores.catalog().current().resource("example.com", "v1", "widgets").cloned().unwrap();
    assert_eq!(resource.short_names.iter().map(|name| &**name).collect::<Vec<_>>(), ["w"]);
    assert!(resource.schema.get().field("spec").unwrap().property("b").is_some());
    let same = server.stores.get("example.com", "widgets").unwrap();
    assert!(Arc::ptr_eq(&same, &instances));
    assert!(same.get("default", "a", ReadAt::Latest).await.unwrap().is_some());
    server.tree.stop();
}

#[tokio::test(start_paused = true)]
async fn whatever_dies_what_is_served_stays_and_what_comes_is_served() {
    let server = server().await;
    server.create("widgets", "Widget").await;
    let mut catalog = server.stores.catalog().subscribe();
    for (number, signal) in [Signal::Kill, Signal::Panic, Signal::Kill].into_iter().enumerate() {
        for task in ["custom/definitions", "custom/cleanup"] {
            assert!(server.system.signal(task, signal), "{task} runs");
        }
        let (plural, kind) = (format!("gadgets{number}"), format!("Gadget{number}"));
        let created = server.create(&plural, &kind).await;
        assert!(has_condition(&created, "Established", "True"));
        // At no time was a resource gone that had been there.
        let current = catalog.borrow_and_update().clone();
        assert!(current.preferred("example.com", "widgets").is_some());
        assert!(current.preferred("example.com", &plural).is_some());
        server.delete(&plural).await;
        server.until(&plural, |found| found.is_none()).await;
        server.wait(10_000).await;
    }
    let current = server.stores.catalog().current();
    assert!(
        current.preferred("example.com", "widgets").is_some() && current.preferred("example.com", "gadgets1").is_none()
    );
    server.tree.stop();
}
