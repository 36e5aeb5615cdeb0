//! Custom resources take the same path.

use std::sync::Arc;

use k3sd_apiserver_store::{CustomVersion, Resource, ScalePaths, Schema, Stored, Subresource};
use k3sd_objects::object::Selectable;
use k3sd_objects::schema::structural;
use serde_json::{Value, json};

use crate::world::World;

const WIDGETS: &str = "/apis/example.org/v1/namespaces/a/widgets";

fn subresource(name: &str, group: &str, version: &str, kind: &str) -> Subresource {
    Subresource {
        name: name.into(),
        verbs: vec!["get", "patch", "update"],
        group: group.into(),
        version: version.into(),
        kind: kind.into(),
    }
}

/// Serves widgets, as the definition's actor would.
async fn serve(world: &World) {
    let schema = json!({
        "type": "object",
        "properties": {
            "apiVersion": { "type": "string" }, "kind": { "type": "string" }, "metadata": { "type": "object" },
            "spec": { "type": "object", "required": ["size"], "properties": {
                "size": { "type": "integer", "minimum": 0 },
                "colour": { "type": "string", "default": "red" },
                "replicas": { "type": "integer" },
            } },
            "status": { "type": "object", "properties": { "ready": { "type": "integer" } } },
        },
    });
    let arena = Arc::new(structural(&schema).expect("a schema"));
    let stored = Arc::new(Stored {
        group: "example.org".into(),
        plural: "widgets".into(),
        prefix: "/registry/example.org/widgets/".to_owned(),
        api_version: "example.org/v1".into(),
        kind: "Widget".into(),
        namespaced: true,
        schema: Schema::Custom(arena.clone()),
        selectable: Selectable::default(),
        definition_uid: Some("d".into()),
    });
    let scale = ScalePaths {
        spec_replicas: ".spec.replicas".to_owned(),
        status_replicas: ".status.ready".to_owned(),
        label_selector: None,
    };
    let custom = CustomVersion { status: true, scale: Some(scale), ..CustomVersion::default() };
    let resource = Resource {
        group: "example.org".into(),
        version: "v1".into(),
        api_version: "example.org/v1".into(),
        plural: "widgets".into(),
        singular: "widget".into(),
        kind: "Widget".into(),
        list_kind: "WidgetList".into(),
        namespaced: true,
        verbs: vec!["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"],
        short_names: Vec::new(),
        categories: Vec::new(),
        subresources: vec![
            subresource("scale", "autoscaling", "v1", "Scale"),
            subresource("status", "example.org", "v1", "Widget"),
        ],
        schema: Schema::Custom(arena),
        generation: true,
        stored: Some(stored),
        custom: Some(Arc::new(custom)),
    };
    world.stores.catalog().set_custom([Arc::new(resource)]);
    while world.stores.get("example.org", "widgets").is_none() {
        tokio::task::yield_now().await;
    }
    world.stores.ready().await;
}

fn widget(spec: &Value) -> Value {
    json!({ "apiVersion": "example.org/v1", "kind": "Widget", "metadata": { "name": "w" }, "spec": spec })
}

#[tokio::test(start_paused = true)]
async fn custom_resources_are_defaulted_pruned_and_checked() {
    let world = World::new().await;
    serve(&world).await;
    let mut sent = widget(&json!({ "size": 1, "unknown": true }));
    sent["status"] = json!({ "ready": 5 });
    let made = world.post(WIDGETS, &sent).await;
    assert_eq!(made.code, 201, "{}", made.value);
    assert_eq!(made.warnings, ["unknown field \"spec.unknown\""]);
    assert_eq!((&made.value["spec"], made.value.get("status")), (&json!({ "size": 1, "colour": "red" }), None));
    assert_eq!(made.metadata("generation"), 1);
    let wrong = world.post(WIDGETS, &widget(&json!({ "size": "big" }))).await;
    assert_eq!(
        (wrong.code, wrong.value["details"]["causes"][0]["field"].as_str()),
        (422, Some("spec.size")),
        "{}",
        wrong.value
    );
    let mut other = widget(&json!({ "size": 1 }));
    other["kind"] = json!("Gadget");
    let other = world.post(WIDGETS, &other).await;
    assert_eq!(
        (other.code, other.message()),
        (422, "Widget.example.org \"w\" is invalid: kind: Invalid value: \"Gadget\": must be Widget")
    );
    let unversioned = world.put(&format!("{WIDGETS}/w"), &widget(&json!({ "size": 2 }))).await;
    assert_eq!(unversioned.code, 422, "{}", unversioned.value);
    let strategic = world.patch(&format!("{WIDGETS}/w"), "strategic", &json!({})).await;
    assert_eq!(strategic.code, 415);
    let gone = world.delete(&format!("{WIDGETS}/w")).await;
    assert_eq!((gone.code, &gone.value["status"]), (200, &json!("Success")));
}

#[tokio::test(start_paused = true)]
async fn their_status_and_scale_stand_apart() {
    let world = World::new().await;
    serve(&world).await;
    let made = world.make(WIDGETS, &widget(&json!({ "size": 1, "replicas": 2 }))).await;
    let mut both = made.clone();
    both["spec"]["size"] = json!(7);
    both["metadata"]["labels"] = json!({ "a": "b" });
    both["status"] = json!({ "ready": 1 });
    let status = world.put(&format!("{WIDGETS}/w/status"), &both).await;
    assert_eq!(status.code, 200, "{}", status.value);
    assert_eq!((&status.value["spec"]["size"], &status.value["status"]), (&json!(1), &json!({ "ready": 1 })));
    assert_eq!((status.metadata("labels"), status.metadata("generation")), (&Value::Null, &json!(1)));
    let changed =
        world.patch(&format!("{WIDGETS}/w"), "merge", &json!({ "spec": { "size": 3 }, "status": null })).await;
    assert_eq!((changed.metadata("generation"), &changed.value["status"]), (&json!(2), &json!({ "ready": 1 })));
    let scale = world.get(&format!("{WIDGETS}/w/scale")).await;
    assert_eq!((&scale.value["spec"], &scale.value["status"]), (&json!({ "replicas": 2 }), &json!({ "replicas": 1 })));
    let scaled = world.patch(&format!("{WIDGETS}/w/scale"), "merge", &json!({ "spec": { "replicas": 4 } })).await;
    assert_eq!((scaled.code, &scaled.value["spec"]), (200, &json!({ "replicas": 4 })), "{}", scaled.value);
    let applied =
        world.patch(&format!("{WIDGETS}/w?fieldManager=x&force=true"), "apply", &widget(&json!({ "size": 9 }))).await;
    assert_eq!((applied.code, &applied.value["spec"]["size"]), (200, &json!(9)), "{}", applied.value);
}
