//! delete and deletecollection.

use serde_json::json;

use crate::world::{DEPLOYMENTS, MAPS, PODS, World, deployment, map, pod};

#[tokio::test(start_paused = true)]
async fn a_deletion_answers_with_what_is_gone() {
    let world = World::new().await;
    let made = world.make(MAPS, &map("m", json!({}))).await;
    let gone = world.delete(&format!("{MAPS}/m")).await;
    assert_eq!(
        (gone.code, &gone.value),
        (
            200,
            &json!({
                "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success",
                "details": { "name": "m", "kind": "configmaps", "uid": made["metadata"]["uid"] },
            })
        )
    );
    assert_eq!(world.delete(&format!("{MAPS}/m")).await.message(), "configmaps \"m\" not found");
    let accounts = "/api/v1/namespaces/a/serviceaccounts";
    world.make(accounts, &json!({ "metadata": { "name": "s" } })).await;
    let gone = world.delete(&format!("{accounts}/s")).await;
    assert_eq!((&gone.value["kind"], gone.metadata("name")), (&json!("ServiceAccount"), &json!("s")));
}

#[tokio::test(start_paused = true)]
async fn options_come_in_the_body_or_in_the_query() {
    let world = World::new().await;
    let uid = world.make(MAPS, &map("m", json!({}))).await["metadata"]["uid"].as_str().unwrap().to_owned();
    let path = format!("{MAPS}/m");
    let body = |options: serde_json::Value| options.to_string();
    for (options, code, message) in [
        (
            json!({ "kind": "DeleteOptions", "apiVersion": "v1", "preconditions": { "uid": "x" } }),
            409,
            format!(
                "Operation cannot be fulfilled on ConfigMap \"m\": the UID in the precondition (x) does not match the UID in \
                 record ({uid}). The object might have been deleted and then recreated"
            ),
        ),
        (
            json!({ "propagationPolicy": "Nope" }),
            422,
            "DeleteOptions.meta.k8s.io \"\" is invalid: propagationPolicy: Unsupported value: \"Nope\": supported values: \
             \"Foreground\", \"Background\", \"Orphan\", \"nil\""
                .to_owned(),
        ),
    ] {
        let said = world.send("DELETE", &path, Some("application/json"), body(options)).await;
        assert_eq!((said.code, said.message()), (code, message.as_str()));
    }
    let tried = world.delete(&format!("{path}?dryRun=All")).await;
    assert_eq!((tried.code, &tried.value["status"]), (200, &json!("Success")));
    assert_eq!(world.get(&path).await.code, 200, "a trial deletes nothing");
    let protobuf = k3sd_objects::protobuf::encode(&json!({
        "apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Foreground",
    }));
    let kept =
        world.send("DELETE", &path, Some("application/vnd.kubernetes.protobuf"), protobuf.expect("a kind")).await;
    assert_eq!(kept.metadata("finalizers"), &json!(["foregroundDeletion"]), "{}", kept.value);
    assert_eq!(kept.metadata("deletionGracePeriodSeconds"), 0);
}

#[tokio::test(start_paused = true)]
async fn pods_get_their_time() {
    let world = World::new().await;
    world.make(PODS, &pod("unplaced")).await;
    let gone = world.delete(&format!("{PODS}/unplaced")).await;
    assert_eq!(gone.metadata("deletionGracePeriodSeconds"), 0);
    assert_eq!(world.get(&format!("{PODS}/unplaced")).await.code, 404);
    let mut placed = pod("placed");
    placed["spec"]["nodeName"] = json!("n");
    world.make(PODS, &placed).await;
    let path = format!("{PODS}/placed");
    let marked = world.delete(&path).await;
    assert_eq!(marked.metadata("deletionGracePeriodSeconds"), 30);
    assert_eq!(marked.metadata("deletionTimestamp"), "2025-01-01T00:00:30Z");
    assert_eq!(marked.metadata("generation"), 2);
    let again = world.delete(&path).await;
    assert_eq!(again.metadata("resourceVersion"), marked.metadata("resourceVersion"));
    let killed = world.delete(&format!("{path}?gracePeriodSeconds=0")).await;
    assert_eq!((killed.code, &killed.value["kind"]), (200, &json!("Pod")));
    assert_eq!(world.get(&path).await.code, 404);
}

#[tokio::test(start_paused = true)]
async fn dependents_are_kept_or_waited_for() {
    let world = World::new().await;
    for (policy, finalizer) in [("Orphan", "orphan"), ("Foreground", "foregroundDeletion")] {
        world.make(DEPLOYMENTS, &deployment("d")).await;
        let path = format!("{DEPLOYMENTS}/d");
        let marked = world.delete(&format!("{path}?propagationPolicy={policy}")).await;
        assert_eq!(marked.metadata("finalizers"), &json!([finalizer]));
        let done = world.patch(&path, "json", &json!([{ "op": "remove", "path": "/metadata/finalizers" }])).await;
        assert_eq!(done.code, 200);
        assert_eq!(world.get(&path).await.code, 404);
    }
    world.make(DEPLOYMENTS, &deployment("d")).await;
    let lingering = world.delete(&format!("{DEPLOYMENTS}/d?orphanDependents=true")).await;
    assert_eq!(lingering.code, 200);
    let jobs = "/apis/batch/v1/namespaces/a/jobs";
    let job = json!({
        "metadata": { "name": "j" },
        "spec": { "template": { "spec": { "restartPolicy": "Never", "containers": [{ "name": "c", "image": "i" }] } } },
    });
    world.make(jobs, &job).await;
    let orphaned = world.delete(&format!("{jobs}/j")).await;
    assert_eq!(orphaned.metadata("finalizers"), &json!(["orphan"]));
    assert_eq!(
        orphaned.warnings,
        [
            "child pods are preserved by default when jobs are deleted; set propagationPolicy=Background to remove them or set \
          propagationPolicy=Orphan to suppress this warning"
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn namespaces_end_when_they_are_empty() {
    let world = World::new().await;
    let made = world.make("/api/v1/namespaces", &json!({ "metadata": { "name": "n" } })).await;
    let marked = world.delete("/api/v1/namespaces/n").await;
    assert_eq!((marked.code, &marked.value["status"]["phase"]), (200, &json!("Terminating")));
    let again = world.delete("/api/v1/namespaces/n").await;
    assert_eq!((again.code, again.metadata("uid")), (200, &made["metadata"]["uid"]));
    let mut emptied = marked.value.clone();
    emptied["spec"] = json!({});
    let released = world.put("/api/v1/namespaces/n/finalize", &emptied).await;
    assert_eq!(released.code, 200, "{}", released.value);
    assert_eq!(world.get("/api/v1/namespaces/n").await.code, 404);
    let all = world.delete("/api/v1/namespaces").await;
    assert_eq!(all.code, 405, "namespaces go one by one");
}

#[tokio::test(start_paused = true)]
async fn collections_go_by_selection() {
    let world = World::new().await;
    for (name, app) in [("m1", "x"), ("m2", "y"), ("m3", "x")] {
        let mut object = map(name, json!({}));
        object["metadata"]["labels"] = json!({ "app": app });
        world.make(MAPS, &object).await;
    }
    let gone = world.delete(&format!("{MAPS}?labelSelector=app%3Dx")).await;
    assert_eq!((gone.code, gone.value["items"].as_array().map(Vec::len)), (200, Some(2)));
    let left = world.get(MAPS).await.value;
    assert_eq!(left["items"].as_array().map(Vec::len), Some(1));
    assert_eq!(left["items"][0]["metadata"]["name"], "m2");
}
