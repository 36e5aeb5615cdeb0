//! get, list and watch.

use k3sd_apiserver_registry::Reply;
use k3sd_apiserver_store::WatchKind;
use serde_json::{Value, json};

use crate::world::{MAPS, PODS, World, admin, map, pod};

fn names(list: &Value) -> Vec<&str> {
    list["items"].as_array().into_iter().flatten().filter_map(|item| item["metadata"]["name"].as_str()).collect()
}

#[tokio::test(start_paused = true)]
async fn lists_are_selected_and_paged() {
    let world = World::new().await;
    for (name, app) in [("m1", "x"), ("m2", "y"), ("m3", "x")] {
        let mut object = map(name, json!({}));
        object["metadata"]["labels"] = json!({ "app": app });
        world.make(MAPS, &object).await;
    }
    for (query, wanted) in [
        ("", vec!["m1", "m2", "m3"]),
        ("?labelSelector=app%3Dx", vec!["m1", "m3"]),
        ("?labelSelector=app%20in%20(y)", vec!["m2"]),
        ("?fieldSelector=metadata.name%3Dm2", vec!["m2"]),
        ("?fieldSelector=metadata.name!%3Dm2", vec!["m1", "m3"]),
        ("?fieldSelector=metadata.namespace%3Db", vec![]),
        ("?limit=2", vec!["m1", "m2"]),
    ] {
        let said = world.get(&format!("{MAPS}{query}")).await;
        assert_eq!((said.code, names(&said.value)), (200, wanted), "{query}: {}", said.value);
    }
    let first = world.get(&format!("{MAPS}?limit=2")).await.value;
    let token = first["metadata"]["continue"].as_str().unwrap();
    world.make(MAPS, &map("m4", json!({}))).await;
    let second = world.get(&format!("{MAPS}?limit=2&continue={token}")).await.value;
    assert_eq!(names(&second), ["m3"], "pages fit together whatever is written between them");
    assert_eq!(second["metadata"]["resourceVersion"], first["metadata"]["resourceVersion"]);
    let everywhere = world.get("/api/v1/configmaps").await.value;
    assert_eq!(names(&everywhere).len(), 4);
}

#[tokio::test(start_paused = true)]
async fn what_can_not_be_selected_by_is_said() {
    let world = World::new().await;
    for (path, code, message) in [
        (format!("{PODS}?fieldSelector=foo%3Dbar"), 400, "field label not supported: foo"),
        (
            format!("{MAPS}?fieldSelector=foo%3Dbar"),
            400,
            "\"foo\" is not a known field selector: only \"metadata.name\", \"metadata.namespace\"",
        ),
        (
            format!("{PODS}?resourceVersionMatch=Exact"),
            422,
            "ListOptions.meta.k8s.io \"\" is invalid: resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden \
             unless resourceVersion is provided",
        ),
        (format!("{PODS}/none"), 404, "pods \"none\" not found"),
    ] {
        let said = world.get(&path).await;
        assert_eq!((said.code, said.message()), (code, message), "{path}");
    }
    assert_eq!(world.get(&format!("{PODS}?labelSelector=a%20b")).await.code, 400);
    world.make(PODS, &pod("p")).await;
    let old_name = world.get(&format!("{PODS}?fieldSelector=spec.host%3Dnone")).await;
    assert_eq!((old_name.code, names(&old_name.value)), (200, vec![]));
}

#[tokio::test(start_paused = true)]
async fn a_watch_tells_what_happens() {
    let world = World::new().await;
    let revision = world.make(MAPS, &map("m", json!({}))).await["metadata"]["resourceVersion"].clone();
    let path = format!("{MAPS}?watch=1&resourceVersion={}", revision.as_str().unwrap());
    let answer = world.answer(admin(), "GET", &path, None, "").await;
    let Ok(Reply::Watch { mut watch, .. }) = answer.result else { panic!("{answer:?}") };
    world.put(&format!("{MAPS}/m"), &map("m", json!({ "k": "v" }))).await;
    world.delete(&format!("{MAPS}/m")).await;
    let modified = watch.next().await.unwrap();
    assert_eq!((modified.kind, modified.object.value()["data"]["k"].as_str()), (WatchKind::Modified, Some("v")));
    assert_eq!(watch.next().await.unwrap().kind, WatchKind::Deleted);
    let refused = world.get(&format!("{MAPS}?watch=true&resourceVersionMatch=NotOlderThan")).await;
    assert_eq!(refused.code, 422);
}
