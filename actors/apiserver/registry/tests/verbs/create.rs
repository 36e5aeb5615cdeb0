//! create.

use serde_json::json;

use crate::world::{DEPLOYMENTS, MAPS, PODS, World, deployment, map, pod};

#[tokio::test(start_paused = true)]
async fn the_server_fills_in_what_is_its_own() {
    let world = World::new().await;
    let mut sent = map("m", json!({ "k": "v" }));
    sent["metadata"] = json!({
        "name": "m", "uid": "mine", "creationTimestamp": "1999-01-01T00:00:00Z", "selfLink": "x", "generation": 9,
        "deletionTimestamp": "1999-01-01T00:00:00Z",
    });
    let said = world.post(MAPS, &sent).await;
    assert_eq!(said.code, 201, "{}", said.value);
    let metadata = &said.value["metadata"];
    assert_eq!(metadata["namespace"], "a");
    assert_eq!(metadata["creationTimestamp"], "2025-01-01T00:00:00Z");
    let uid = metadata["uid"].as_str().unwrap();
    assert_eq!((uid.len(), &uid[14..15]), (36, "4"), "{uid}");
    for absent in ["selfLink", "generation", "deletionTimestamp"] {
        assert!(metadata.get(absent).is_none(), "{absent}");
    }
    assert_eq!(
        metadata["managedFields"][0],
        json!({
            "manager": "kubectl", "operation": "Update", "apiVersion": "v1", "time": "2025-01-01T00:00:00Z",
            "fieldsType": "FieldsV1", "fieldsV1": { "f:data": { ".": {}, "f:k": {} } },
        })
    );
    let again = world.post(MAPS, &map("m", json!({}))).await;
    assert_eq!((again.code, again.message()), (409, "configmaps \"m\" already exists"));
    let read = world.get(&format!("{MAPS}/m")).await;
    assert_eq!(read.value, said.value);
    let other = world.make(MAPS, &map("n", json!({}))).await;
    assert_ne!(other["metadata"]["uid"], said.value["metadata"]["uid"]);
}

#[tokio::test(start_paused = true)]
async fn objects_that_make_no_sense_are_refused() {
    let world = World::new().await;
    let mut elsewhere = map("m", json!({}));
    elsewhere["metadata"]["namespace"] = json!("b");
    let mut versioned = map("m", json!({}));
    versioned["metadata"]["resourceVersion"] = json!("5");
    let mut unnamed = map("m", json!({}));
    unnamed["metadata"] = json!({});
    for (path, body, code, message) in [
        (MAPS, elsewhere, 400, "the namespace of the provided object does not match the namespace sent on the request"),
        (MAPS, versioned, 500, "resourceVersion should not be set on objects to be created"),
        (
            MAPS,
            unnamed,
            422,
            "ConfigMap \"\" is invalid: metadata.name: Required value: name or generateName is required",
        ),
        (PODS, json!({ "metadata": { "name": "p" } }), 422, "Pod \"p\" is invalid: spec.containers: Required value"),
        ("/api/v1/configmaps", map("m", json!({})), 405, "create is not supported on resources of kind \"configmaps\""),
    ] {
        let said = world.post(path, &body).await;
        assert_eq!((said.code, said.message()), (code, message), "{body}");
    }
    assert_eq!(world.get(MAPS).await.value["items"], json!([]));
    assert_eq!(world.get("/api/v1/namespaces/a/nothings").await.code, 404);
    assert_eq!(world.get("/api/v1/namespaces/a/nodes").await.code, 404);
}

#[tokio::test(start_paused = true)]
async fn a_name_is_made_where_none_is_given() {
    let world = World::new().await;
    let mut object = map("", json!({}));
    object["metadata"] = json!({ "generateName": "m-" });
    let mut names = std::collections::BTreeSet::new();
    for _ in 0..20 {
        let name = world.make(MAPS, &object).await["metadata"]["name"].as_str().unwrap().to_owned();
        assert!(name.starts_with("m-") && name.len() == 7, "{name}");
        names.insert(name);
    }
    assert_eq!(names.len(), 20);
}

#[tokio::test(start_paused = true)]
async fn kinds_begin_as_they_should() {
    let world = World::new().await;
    let pod = world.make(PODS, &pod("p")).await;
    assert_eq!(pod["status"], json!({ "phase": "Pending", "qosClass": "BestEffort" }));
    assert_eq!((&pod["metadata"]["generation"], &pod["spec"]["dnsPolicy"]), (&json!(1), &json!("ClusterFirst")));
    let mut with_status = deployment("d");
    with_status["status"] = json!({ "replicas": 5 });
    let deployment = world.make(DEPLOYMENTS, &with_status).await;
    assert_eq!((&deployment["metadata"]["generation"], &deployment["status"]), (&json!(1), &json!({})));
    let namespace = world.make("/api/v1/namespaces", &json!({ "metadata": { "name": "n" } })).await;
    assert_eq!(namespace["metadata"]["labels"]["kubernetes.io/metadata.name"], "n");
    assert_eq!(
        (&namespace["spec"]["finalizers"], &namespace["status"]["phase"]),
        (&json!(["kubernetes"]), &json!("Active"))
    );
    let job = json!({
        "metadata": { "name": "j" },
        "spec": { "template": { "spec": { "restartPolicy": "Never", "containers": [{ "name": "c", "image": "i" }] } } },
    });
    let job = world.make("/apis/batch/v1/namespaces/a/jobs", &job).await;
    let uid = &job["metadata"]["uid"];
    assert_eq!(&job["spec"]["selector"]["matchLabels"]["batch.kubernetes.io/controller-uid"], uid);
    assert_eq!(&job["spec"]["template"]["metadata"]["labels"]["job-name"], "j");
}

#[tokio::test(start_paused = true)]
async fn versions_of_a_kind_are_one_object() {
    let world = World::new().await;
    let scaler = json!({
        "apiVersion": "autoscaling/v1", "kind": "HorizontalPodAutoscaler", "metadata": { "name": "h" },
        "spec": {
            "maxReplicas": 3, "targetCPUUtilizationPercentage": 50,
            "scaleTargetRef": { "apiVersion": "apps/v1", "kind": "Deployment", "name": "d" },
        },
    });
    let path = |version: &str| format!("/apis/autoscaling/{version}/namespaces/a/horizontalpodautoscalers");
    let old = world.make(&path("v1"), &scaler).await;
    assert_eq!(
        (&old["apiVersion"], &old["spec"]["targetCPUUtilizationPercentage"]),
        (&json!("autoscaling/v1"), &json!(50))
    );
    let new = world.get(&format!("{}/h", path("v2"))).await.value;
    assert_eq!(new["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"], 50);
    let mut bare = scaler.clone();
    bare["metadata"]["name"] = json!("bare");
    bare["spec"].as_object_mut().expect("a spec").remove("targetCPUUtilizationPercentage");
    world.make(&path("v1"), &bare).await;
    let new = world.get(&format!("{}/bare", path("v2"))).await.value;
    assert_eq!(new["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"], 80);
    let event = json!({
        "apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": { "name": "e" },
        "regarding": { "kind": "Pod", "namespace": "a", "name": "p" }, "eventTime": "2025-01-01T00:00:00.000000Z",
        "reportingController": "x.io/y", "reportingInstance": "z", "action": "Do", "reason": "So", "type": "Normal",
        "note": "text",
    });
    world.make("/apis/events.k8s.io/v1/namespaces/a/events", &event).await;
    let core = world.get("/api/v1/namespaces/a/events/e").await.value;
    assert_eq!((&core["message"], &core["involvedObject"]["name"]), (&json!("text"), &json!("p")));
    let chosen = world.get("/apis/events.k8s.io/v1/namespaces/a/events?fieldSelector=regarding.name%3Dp").await;
    assert_eq!(chosen.value["items"].as_array().map(Vec::len), Some(1), "{}", chosen.value);
}

#[tokio::test(start_paused = true)]
async fn clients_are_told_what_they_should_not_do() {
    let world = World::new().await;
    let mut object = map("m", json!({}));
    object["foo"] = json!(1);
    object["metadata"]["finalizers"] = json!(["old"]);
    let owner = json!({ "apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "u" });
    object["metadata"]["ownerReferences"] = json!([owner, owner]);
    let said = world.post(MAPS, &object).await;
    // An old-style finalizer without a path is refused on new objects, so take it out again.
    assert_eq!(said.code, 422, "{}", said.value);
    object["metadata"]["finalizers"] = json!(["a.b/c"]);
    let said = world.post(MAPS, &object).await;
    assert_eq!(said.code, 201, "{}", said.value);
    assert_eq!(said.warnings[0], "unknown field \"foo\"");
    assert!(said.warnings[1].contains("duplicate UID(s) observed: [u]"), "{:?}", said.warnings);
    assert_eq!(said.value["metadata"]["ownerReferences"].as_array().map(Vec::len), Some(1));
    let strict = world.post(&format!("{MAPS}?fieldValidation=Strict"), &object).await;
    assert_eq!(
        (strict.code, strict.message()),
        (
            400,
            "ConfigMap in version \"v1\" cannot be handled as a ConfigMap: strict decoding error: unknown field \"foo\""
        )
    );
    let endpoints = world.get("/api/v1/namespaces/a/endpoints").await;
    assert_eq!(endpoints.warnings, ["v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice"]);
}

#[tokio::test(start_paused = true)]
async fn what_a_secret_says_in_text_is_data() {
    let world = World::new().await;
    let secret =
        json!({ "metadata": { "name": "s" }, "data": { "a": "eA==", "b": "eA==" }, "stringData": { "b": "y" } });
    let made = world.make("/api/v1/namespaces/a/secrets", &secret).await;
    assert_eq!((&made["data"], made.get("stringData")), (&json!({ "a": "eA==", "b": "eQ==" }), None));
    assert_eq!(made["type"], "Opaque");
    let owned = &made["metadata"]["managedFields"][0]["fieldsV1"];
    assert_eq!((owned.get("f:stringData"), &owned["f:data"]["f:b"]), (None, &json!({})));
}
