//! Bugs that others had, where they would be ours: each a test before it can happen.

use k3sd_apiserver_registry::Reply;
use k3sd_apiserver_store::WatchKind;
use k3sd_objects::protobuf;
use serde_json::{Value, json};

use crate::world::{MAPS, World, admin, map};

/// A watch delivers the whole state first, however much it is, and then says that this was all.
#[tokio::test(start_paused = true)]
async fn initial_events_are_all_there() {
    let world = World::new().await;
    for n in 0..400 {
        world.make(MAPS, &map(&format!("m{n}"), json!({}))).await;
    }
    let query = "watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
    let answer = world.answer(admin(), "GET", &format!("{MAPS}?{query}"), None, "").await;
    let Ok(Reply::Watch { mut watch, .. }) = answer.result else { panic!("{answer:?}") };
    let mut added = 0;
    loop {
        match watch.next().await.expect("an event").kind {
            WatchKind::Added => added += 1,
            WatchKind::Bookmark { initial_events_end: true } => break,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(added, 400);
}

/// A list is at the store's revision, not at that of its newest item.
#[tokio::test(start_paused = true)]
async fn a_list_of_a_quiet_kind_is_as_new_as_the_store() {
    let world = World::new().await;
    world.make(MAPS, &map("m", json!({}))).await;
    let other = world.make("/api/v1/namespaces/a/secrets", &json!({ "metadata": { "name": "s" } })).await;
    let newest: u64 = other["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap();
    let list = world.get(MAPS).await.value;
    let listed: u64 = list["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap();
    assert!(listed >= newest, "{listed} < {newest}");
}

/// `watch=1` is a watch as much as `watch=true` is.
#[tokio::test(start_paused = true)]
async fn any_true_form_watches() {
    let world = World::new().await;
    for form in ["watch=1", "watch=true", "watch", "watch=True"] {
        let answer = world.answer(admin(), "GET", &format!("{MAPS}?{form}"), None, "").await;
        assert!(matches!(answer.result, Ok(Reply::Watch { .. })), "{form}");
    }
    let answer = world.answer(admin(), "GET", &format!("{MAPS}?watch=0"), None, "").await;
    assert!(matches!(answer.result, Ok(Reply::List { .. })));
}

/// kubectl sends protobuf for some kinds, with empty strings where JSON has nothing.
#[tokio::test(start_paused = true)]
async fn protobuf_comes_in() {
    let world = World::new().await;
    let namespace = json!({
        "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": "n" }, "spec": {}, "status": { "phase": "" },
    });
    let body = protobuf::encode(&namespace).expect("a built-in kind");
    let said = world.send("POST", "/api/v1/namespaces", Some("application/vnd.kubernetes.protobuf"), body).await;
    assert_eq!((said.code, &said.value["status"]["phase"]), (201, &json!("Active")), "{}", said.value);
}

/// A trial stores nothing, whatever the verb; a stale PUT is refused.
#[tokio::test(start_paused = true)]
async fn a_dry_run_leaves_no_trace() {
    let world = World::new().await;
    let tried = world.post(&format!("{MAPS}?dryRun=All"), &map("m", json!({ "k": "v" }))).await;
    assert_eq!((tried.code, &tried.value["data"]["k"]), (201, &json!("v")));
    assert_eq!(world.get(&format!("{MAPS}/m")).await.code, 404);
    let made = world.make(MAPS, &map("m", json!({ "k": "1" }))).await;
    let path = format!("{MAPS}/m?dryRun=All&fieldManager=me");
    assert_eq!(world.post(&format!("{MAPS}?dryRun=All"), &map("m", json!({}))).await.code, 409);
    let put = world.put(&path, &map("m", json!({ "k": "2" }))).await;
    assert_eq!((put.code, &put.value["data"]["k"]), (200, &json!("2")));
    assert_eq!(put.metadata("resourceVersion"), &made["metadata"]["resourceVersion"]);
    for language in ["merge", "strategic"] {
        let patched = world.patch(&path, language, &json!({ "data": { "k": "3" } })).await;
        assert_eq!((patched.code, &patched.value["data"]["k"]), (200, &json!("3")));
    }
    let applied = world.patch(&format!("{path}&force=true"), "apply", &map("m", json!({ "k": "4" }))).await;
    assert_eq!((applied.code, &applied.value["data"]["k"]), (200, &json!("4")), "{}", applied.value);
    assert_eq!(world.delete(&path).await.code, 200);
    assert_eq!(world.delete(&format!("{MAPS}?dryRun=All")).await.code, 200);
    assert_eq!(world.get(&format!("{MAPS}/m")).await.value, made);
    let range = json!({ "metadata": { "name": "kubernetes" }, "spec": { "cidrs": ["10.43.0.0/16"] } });
    let ranges = "/apis/networking.k8s.io/v1/servicecidrs";
    let mut range = world.make(ranges, &range).await;
    let ready = json!({
        "type": "Ready", "status": "True", "lastTransitionTime": "2025-01-01T00:00:00Z", "reason": "r", "message": "m",
    });
    range["status"] = json!({ "conditions": [ready] });
    assert_eq!(world.put(&format!("{ranges}/kubernetes/status"), &range).await.code, 200);
    let service = json!({ "metadata": { "name": "s" }, "spec": { "ports": [{ "port": 80 }], "type": "NodePort" } });
    let services = "/api/v1/namespaces/a/services";
    let tried = world.post(&format!("{services}?dryRun=All"), &service).await;
    assert_eq!(tried.code, 201, "{}", tried.value);
    assert_eq!(world.get("/apis/networking.k8s.io/v1/ipaddresses").await.value["items"], json!([]));
}

/// Deep and odd bodies are refused by depth, not by the end of a stack.
#[tokio::test(start_paused = true)]
async fn bodies_of_any_shape_are_answered() {
    let world = World::new().await;
    let deep = format!("{{\"kind\":\"ConfigMap\",\"x\":{}{}}}", "[".repeat(200_000), "]".repeat(200_000));
    let deeper =
        format!("{{\"metadata\":{{\"name\":\"m\"}},\"data\":{}1{}}}", "{\"a\":".repeat(100_000), "}".repeat(100_000));
    let many: Value = (0..20_000).map(|n| (format!("l{n}"), json!("v"))).collect::<serde_json::Map<_, _>>().into();
    let mut labelled = map("m", json!({}));
    labelled["metadata"]["labels"] = many;
    for body in [
        deep,
        deeper,
        "[]".to_owned(),
        "null".to_owned(),
        "\"x\"".to_owned(),
        "{\"metadata\":[]}".to_owned(),
        "{\"metadata\":null}".to_owned(),
        "{\"metadata\":{\"name\":5}}".to_owned(),
        "{\"metadata\":{\"labels\":{\"a\":1}}}".to_owned(),
        "{\"metadata\":{\"managedFields\":[1]}}".to_owned(),
        "{\"metadata\":{\"ownerReferences\":[null,null]}}".to_owned(),
        "x".repeat(100),
        labelled.to_string(),
    ] {
        for (method, path, content_type) in [
            ("POST", MAPS.to_owned(), "application/json"),
            ("POST", MAPS.to_owned(), "application/yaml"),
            ("POST", MAPS.to_owned(), "application/vnd.kubernetes.protobuf"),
            ("PUT", format!("{MAPS}/m"), "application/json"),
            ("PATCH", format!("{MAPS}/m"), "application/merge-patch+json"),
            ("PATCH", format!("{MAPS}/m"), "application/json-patch+json"),
            ("PATCH", format!("{MAPS}/m?fieldManager=x"), "application/apply-patch+yaml"),
            ("DELETE", format!("{MAPS}/m"), "application/json"),
        ] {
            let said = world.send(method, &path, Some(content_type), body.clone()).await;
            let shown: String = body.chars().take(60).collect();
            assert!(said.code < 500, "{method} {content_type} {shown}: {} {}", said.code, said.message());
            if said.code == 201 {
                world.delete(&format!("{MAPS}/m")).await;
            }
        }
    }
    let invalid = world.send("POST", MAPS, Some("application/json"), vec![b'{', 0xff, 0xfe, b'}']).await;
    assert_eq!(invalid.code, 400);
    let huge = vec![b' '; (3 << 20) + 1];
    assert_eq!(world.send("POST", MAPS, Some("application/json"), huge).await.code, 413);
}
