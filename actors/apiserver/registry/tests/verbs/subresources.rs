//! scale, approval, ephemeralcontainers, resize, and what needs a node.

use serde_json::json;

use crate::world::{DEPLOYMENTS, PODS, World, deployment, pod};

#[tokio::test(start_paused = true)]
async fn replicas_are_read_and_written_as_a_scale() {
    let world = World::new().await;
    let made = world.make(DEPLOYMENTS, &deployment("d")).await;
    let path = format!("{DEPLOYMENTS}/d/scale");
    let read = world.get(&path).await;
    assert_eq!(
        read.value,
        json!({
            "apiVersion": "autoscaling/v1", "kind": "Scale",
            "metadata": {
                "name": "d", "namespace": "a", "uid": made["metadata"]["uid"],
                "resourceVersion": made["metadata"]["resourceVersion"], "creationTimestamp": "2025-01-01T00:00:00Z",
            },
            "spec": { "replicas": 1 }, "status": { "replicas": 0, "selector": "app=x" },
        })
    );
    let mut wanted = read.value.clone();
    wanted["spec"]["replicas"] = json!(3);
    let written = world.put(&path, &wanted).await;
    assert_eq!((written.code, &written.value["spec"]), (200, &json!({ "replicas": 3 })), "{}", written.value);
    let stale = world.put(&path, &wanted).await;
    assert_eq!(stale.code, 409, "it names a version that is gone");
    wanted["spec"]["replicas"] = json!(-1);
    let negative = world.put(&path, &wanted).await;
    assert_eq!(negative.code, 422);
    assert!(
        negative.message().starts_with("Scale.autoscaling \"d\" is invalid: spec.replicas"),
        "{}",
        negative.message()
    );
    let patched = world.patch(&path, "merge", &json!({ "spec": { "replicas": 5 } })).await;
    assert_eq!(patched.value["spec"]["replicas"], 5);
    let whole = world.get(&format!("{DEPLOYMENTS}/d")).await.value;
    assert_eq!((&whole["spec"]["replicas"], &whole["metadata"]["generation"]), (&json!(5), &json!(3)));
    let managed = whole["metadata"]["managedFields"].as_array().unwrap();
    let scaler = managed.iter().find(|entry| entry["subresource"] == "scale").expect("the scaler is a manager");
    assert_eq!(scaler["fieldsV1"], json!({ "f:spec": { "f:replicas": {} } }));
    let config = json!({ "apiVersion": "autoscaling/v1", "kind": "Scale", "spec": { "replicas": 7 } });
    let applied = world.patch(&format!("{path}?fieldManager=x&force=true"), "apply", &config).await;
    assert_eq!((applied.code, &applied.value["spec"]["replicas"]), (200, &json!(7)), "{}", applied.value);
}

#[tokio::test(start_paused = true)]
async fn pods_are_debugged_and_resized() {
    let world = World::new().await;
    world.make(PODS, &pod("p")).await;
    let debugger = json!({ "spec": { "ephemeralContainers": [{ "name": "e", "image": "i" }] } });
    let debugged = world.patch(&format!("{PODS}/p/ephemeralcontainers"), "strategic", &debugger).await;
    assert_eq!(debugged.code, 200, "{}", debugged.value);
    assert_eq!(debugged.value["spec"]["ephemeralContainers"][0]["name"], "e");
    assert_eq!(debugged.metadata("generation"), 2);
    let through_main = world
        .patch(
            &format!("{PODS}/p"),
            "strategic",
            &json!({
                "spec": { "ephemeralContainers": [{ "name": "f", "image": "i" }] },
            }),
        )
        .await;
    assert_eq!(through_main.code, 422, "{}", through_main.value);
}

#[tokio::test(start_paused = true)]
async fn what_needs_a_node_says_so() {
    let world = World::new().await;
    world.make(PODS, &pod("p")).await;
    for path in ["log", "exec?command=ls", "attach", "portforward", "proxy"] {
        let said = world.get(&format!("{PODS}/p/{path}")).await;
        assert_eq!(said.code, 503, "{path}: {}", said.value);
        assert!(said.message().contains("connection to a node"), "{}", said.message());
    }
}

#[tokio::test(start_paused = true)]
async fn approval_is_a_matter_of_its_own() {
    let world = World::new().await;
    let path = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
    let request = json!({
        "metadata": { "name": "c" },
        "spec": { "request": include_str!("request.txt").trim(), "signerName": "x.io/y", "usages": ["client auth"] },
    });
    let made = world.make(path, &request).await;
    assert_eq!((&made["spec"]["username"], &made["spec"]["groups"]), (&json!("admin"), &json!(["system:masters"])));
    let mut approved = made.clone();
    approved["status"] =
        json!({ "conditions": [{ "type": "Approved", "status": "True", "reason": "r", "message": "m" }] });
    let ignored = world.put(&format!("{path}/c/status"), &approved).await;
    assert_eq!(ignored.value["status"].get("conditions"), None, "{}", ignored.value);
    approved["metadata"]["resourceVersion"] = ignored.metadata("resourceVersion").clone();
    let approved = world.put(&format!("{path}/c/approval"), &approved).await;
    assert_eq!(approved.code, 200, "{}", approved.value);
    assert_eq!(approved.value["status"]["conditions"][0]["lastUpdateTime"], "2025-01-01T00:00:00Z");
}
