//! patch.

use serde_json::json;

use crate::world::{DEPLOYMENTS, MAPS, World, deployment, map};

#[tokio::test(start_paused = true)]
async fn each_language_changes_an_object() {
    let world = World::new().await;
    world.make(DEPLOYMENTS, &deployment("d")).await;
    let path = format!("{DEPLOYMENTS}/d");
    let merged = world.patch(&path, "merge", &json!({ "metadata": { "labels": { "a": "b" } } })).await;
    assert_eq!(merged.metadata("labels"), &json!({ "a": "b" }));
    let containers = json!([{ "name": "side", "image": "s" }]);
    let strategic = world
        .patch(&path, "strategic", &json!({ "spec": { "template": { "spec": { "containers": containers } } } }))
        .await;
    let list = strategic.value["spec"]["template"]["spec"]["containers"].as_array().unwrap();
    assert_eq!(list.iter().map(|c| c["name"].as_str().unwrap()).collect::<Vec<_>>(), ["side", "c"]);
    assert_eq!(list[0]["terminationMessagePath"], "/dev/termination-log", "what a patch brings gets defaults");
    let jumped = world
        .patch(
            &path,
            "json",
            &json!([
                { "op": "test", "path": "/spec/replicas", "value": 1 },
                { "op": "replace", "path": "/spec/replicas", "value": 4 },
            ]),
        )
        .await;
    assert_eq!(jumped.value["spec"]["replicas"], 4);
    let failed = world.patch(&path, "json", &json!([{ "op": "test", "path": "/spec/replicas", "value": 1 }])).await;
    assert_eq!(
        (failed.code, failed.message()),
        (422, "the server rejected our request due to an error in our request")
    );
}

#[tokio::test(start_paused = true)]
async fn patches_are_refused_as_upstream_does() {
    let world = World::new().await;
    world.make(MAPS, &map("m", json!({ "k": "v" }))).await;
    let path = format!("{MAPS}/m");
    for (target, language, body, code, message) in [
        (
            path.clone(),
            "merge",
            json!({ "metadata": { "name": "n" } }),
            400,
            "the name of the object (n) does not match the name on the URL (m)",
        ),
        (
            path.clone(),
            "merge",
            json!({ "metadata": { "resourceVersion": "1" } }),
            409,
            "Operation cannot be fulfilled on configmaps \"m\": the object has been modified; please apply your changes to \
             the latest version and try again",
        ),
        (format!("{MAPS}/none"), "merge", json!({}), 404, "configmaps \"none\" not found"),
        (
            format!("{path}?force=true"),
            "merge",
            json!({}),
            422,
            "PatchOptions.meta.k8s.io \"\" is invalid: force: Forbidden: may not be specified for non-apply patch",
        ),
        (
            path.clone(),
            "apply",
            map("m", json!({})),
            422,
            "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required for apply patch",
        ),
    ] {
        let said = world.patch(&target, language, &body).await;
        assert_eq!((said.code, said.message()), (code, message), "{body}");
    }
    let typed = world.patch(&path, "merge", &json!({ "data": 5 })).await;
    assert_eq!(typed.code, 422);
    assert!(typed.message().starts_with(" \"\" is invalid: patch: Invalid value: "), "{}", typed.message());
    let unknown = world.patch(&format!("{path}?fieldValidation=Strict"), "merge", &json!({ "foo": 1 })).await;
    assert!(unknown.message().ends_with("strict decoding error: unknown field \"foo\""), "{}", unknown.message());
    let plain = world.send("PATCH", &path, Some("application/json"), "{}").await;
    assert_eq!(plain.code, 415);
    let broken = world.send("PATCH", &path, Some("application/merge-patch+json"), "{").await;
    assert_eq!(broken.code, 400);
    assert_eq!(world.get(&path).await.value["data"], json!({ "k": "v" }), "nothing of it happened");
}

#[tokio::test(start_paused = true)]
async fn apply_makes_owns_and_disputes() {
    let world = World::new().await;
    let path = format!("{MAPS}/m");
    let made =
        world.patch(&format!("{path}?fieldManager=one"), "apply", &map("m", json!({ "k": "1", "l": "1" }))).await;
    assert_eq!(made.code, 201, "{}", made.value);
    assert_eq!(made.metadata("managedFields")[0]["operation"], "Apply");
    let again =
        world.patch(&format!("{path}?fieldManager=one"), "apply", &map("m", json!({ "k": "1", "l": "1" }))).await;
    assert_eq!((again.code, &again.value), (200, &made.value), "the same again writes nothing");
    let disputed = world.patch(&format!("{path}?fieldManager=two"), "apply", &map("m", json!({ "k": "2" }))).await;
    assert_eq!(
        (disputed.code, disputed.message()),
        (409, "Apply failed with 1 conflict: conflict with \"one\": .data.k")
    );
    let forced =
        world.patch(&format!("{path}?fieldManager=two&force=true"), "apply", &map("m", json!({ "k": "2" }))).await;
    assert_eq!((forced.code, &forced.value["data"]), (200, &json!({ "k": "2", "l": "1" })));
    let dropped = world.patch(&format!("{path}?fieldManager=one"), "apply", &map("m", json!({}))).await;
    assert_eq!(dropped.value["data"], json!({ "k": "2" }), "what nobody says any more is gone");
    let mut managed = map("m", json!({}));
    managed["metadata"]["managedFields"] = json!([]);
    let refused = world.patch(&format!("{path}?fieldManager=one"), "apply", &managed).await;
    assert_eq!((refused.code, refused.message()), (400, "metadata.managedFields must be nil"));
}

#[tokio::test(start_paused = true)]
async fn many_writers_lose_no_patch() {
    let world = World::new().await;
    world.make(MAPS, &map("m", json!({}))).await;
    let path = format!("{MAPS}/m");
    let keys: Vec<serde_json::Value> = (0..16).map(|n| json!({ "data": { format!("k{n}"): "v" } })).collect();
    let writes = keys.iter().map(|body| world.patch(&path, "merge", body));
    for said in futures_util::future::join_all(writes).await {
        assert_eq!(said.code, 200, "{}", said.value);
    }
    assert_eq!(world.get(&path).await.value["data"].as_object().map(serde_json::Map::len), Some(16));
}
