//! update.

use serde_json::json;

use crate::world::{DEPLOYMENTS, MAPS, World, deployment, map, said};

#[tokio::test(start_paused = true)]
async fn a_put_is_for_the_state_it_names() {
    let world = World::new().await;
    let first = world.make(MAPS, &map("m", json!({ "k": "1" }))).await;
    let path = format!("{MAPS}/m");
    let second = world.put(&path, &map("m", json!({ "k": "2" }))).await;
    assert_eq!((second.code, &second.value["data"]["k"]), (200, &json!("2")), "without a version it is for any state");
    assert_eq!(second.metadata("uid"), &first["metadata"]["uid"]);
    assert_eq!(second.metadata("creationTimestamp"), &first["metadata"]["creationTimestamp"]);
    let mut stale = first.clone();
    stale["data"]["k"] = json!("3");
    let refused = world.put(&path, &stale).await;
    assert_eq!(
        (refused.code, refused.message()),
        (
            409,
            "Operation cannot be fulfilled on configmaps \"m\": the object has been modified; please apply your changes to \
             the latest version and try again"
        )
    );
    let mut reborn = map("m", json!({}));
    reborn["metadata"]["uid"] = json!("other");
    let uid = first["metadata"]["uid"].as_str().unwrap();
    let refused = world.put(&path, &reborn).await;
    let message = format!(
        "Operation cannot be fulfilled on configmaps \"m\": Precondition failed: UID in precondition: other, UID in object \
         meta: {uid}"
    );
    assert_eq!((refused.code, refused.message()), (409, message.as_str()));
    let renamed = world.put(&path, &map("n", json!({}))).await;
    let message = "the name of the object (n) does not match the name on the URL (m)";
    assert_eq!((renamed.code, renamed.message()), (400, message));
    let missing = world.put(&format!("{MAPS}/none"), &map("none", json!({}))).await;
    assert_eq!((missing.code, missing.message()), (404, "configmaps \"none\" not found"));
}

#[tokio::test(start_paused = true)]
async fn what_changes_nothing_writes_nothing() {
    let world = World::new().await;
    let made = world.make(MAPS, &map("m", json!({ "k": "1" }))).await;
    let again = world.put(&format!("{MAPS}/m"), &made).await;
    assert_eq!((again.code, &again.value), (200, &made));
    let patched = world.patch(&format!("{MAPS}/m"), "merge", &json!({ "data": { "k": "1" } })).await;
    assert_eq!(patched.value, made);
}

#[tokio::test(start_paused = true)]
async fn some_kinds_are_made_by_a_put_and_some_ask_for_a_version() {
    let world = World::new().await;
    let leases = "/apis/coordination.k8s.io/v1/namespaces/a/leases";
    let lease = json!({ "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": { "name": "l" } });
    let path = format!("{leases}/l");
    let stranger = world
        .answer(
            k3sd_apiserver_access::User::new("jane", &[]),
            "PUT",
            &path,
            Some("application/json"),
            lease.to_string(),
        )
        .await;
    let stranger = said(stranger);
    assert_eq!(
        (stranger.code, stranger.message()),
        (
            403,
            "leases.coordination.k8s.io \"l\" is forbidden: User \"jane\" cannot create resource \"leases\" in API group \
             \"coordination.k8s.io\" in the namespace \"a\""
        )
    );
    let made = world.put(&path, &lease).await;
    assert_eq!(made.code, 201, "{}", made.value);
    let unversioned = world.put(&path, &lease).await;
    assert_eq!(
        (unversioned.code, unversioned.message()),
        (
            422,
            "Lease.coordination.k8s.io \"l\" is invalid: metadata.resourceVersion: Invalid value: 0: must be specified for \
             an update"
        )
    );
    assert_eq!(world.put(&path, &made.value).await.code, 200);
}

#[tokio::test(start_paused = true)]
async fn status_and_the_rest_have_their_own_writers() {
    let world = World::new().await;
    let made = world.make(DEPLOYMENTS, &deployment("d")).await;
    let path = format!("{DEPLOYMENTS}/d");
    let mut both = made.clone();
    both["spec"]["replicas"] = json!(3);
    both["status"] = json!({ "replicas": 2, "observedGeneration": 1 });
    let spec = world.put(&path, &both).await;
    assert_eq!((&spec.value["spec"]["replicas"], &spec.value["status"]), (&json!(3), &json!({})));
    assert_eq!(spec.metadata("generation"), 2);
    both["metadata"]["resourceVersion"] = spec.metadata("resourceVersion").clone();
    both["spec"]["replicas"] = json!(9);
    let status = world.put(&format!("{path}/status"), &both).await;
    assert_eq!(status.code, 200, "{}", status.value);
    assert_eq!((&status.value["spec"]["replicas"], &status.value["status"]["replicas"]), (&json!(3), &json!(2)));
    assert_eq!(status.metadata("generation"), 2);
    let managed = status.metadata("managedFields").as_array().unwrap();
    let of_status = managed.iter().find(|entry| entry["subresource"] == "status").expect("the status has a manager");
    assert!(of_status["fieldsV1"].get("f:spec").is_none(), "{of_status}");
}

#[tokio::test(start_paused = true)]
async fn what_may_not_change_is_refused() {
    let world = World::new().await;
    let mut made = world.make(DEPLOYMENTS, &deployment("d")).await;
    made["spec"]["selector"]["matchLabels"] = json!({ "app": "y" });
    made["spec"]["template"]["metadata"]["labels"] = json!({ "app": "y" });
    let refused = world.put(&format!("{DEPLOYMENTS}/d"), &made).await;
    assert_eq!(refused.code, 422);
    assert!(refused.message().contains("field is immutable"), "{}", refused.message());
    assert_eq!(refused.value["details"]["causes"][0]["field"], "spec.selector");
}

#[tokio::test(start_paused = true)]
async fn the_last_finalizer_takes_the_object_along() {
    let world = World::new().await;
    let mut object = map("m", json!({}));
    object["metadata"]["finalizers"] = json!(["a.b/c"]);
    world.make(MAPS, &object).await;
    let path = format!("{MAPS}/m");
    let marked = world.delete(&path).await;
    assert_eq!((marked.code, marked.metadata("deletionTimestamp")), (200, &json!("2025-01-01T00:00:00Z")));
    let mut more = marked.value.clone();
    more["metadata"]["finalizers"] = json!(["a.b/c", "d.e/f"]);
    let refused = world.put(&path, &more).await;
    assert_eq!(
        (refused.code, refused.message()),
        (
            422,
            "ConfigMap \"m\" is invalid: metadata.finalizers: Forbidden: no new finalizers can be added if the object is \
             being deleted, found new finalizers []string{\"d.e/f\"}"
        )
    );
    let released = world.patch(&path, "merge", &json!({ "metadata": { "finalizers": null } })).await;
    assert_eq!(released.code, 200, "{}", released.value);
    assert_eq!(world.get(&path).await.code, 404);
}
