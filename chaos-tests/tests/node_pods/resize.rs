//! Pods get other resources while they run.

use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use crate::world::{World, condition, script, sleeper, world};

fn sized(cpu: &str, memory: &str) -> Value {
    json!({"requests": {"cpu": cpu, "memory": memory}, "limits": {"cpu": cpu, "memory": memory}})
}

impl World {
    async fn resize(&self, name: &str, resources: &Value) {
        let body = json!({"spec": {"containers": [{"name": "c", "resources": resources}]}});
        self.api()
            .patch_subresource("resize", name, &PatchParams::default(), &Patch::Strategic(body))
            .await
            .expect("it may be resized");
    }

    async fn has(&self, name: &str, resources: &Value) -> Value {
        let what = format!("has {resources}");
        self.until(name, &what, |pod| {
            let status = &pod["status"]["containerStatuses"][0];
            let waits = ["PodResizePending", "PodResizeInProgress"].iter().any(|kind| condition(pod, kind));
            status["resources"] == *resources && status["ready"] == json!(true) && !waits
        })
        .await
    }
}

fn said(pod: &Value, kind: &str) -> Option<Value> {
    pod["status"]["conditions"].as_array()?.iter().find(|one| one["type"] == kind).cloned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn resources_change_under_a_running_container() {
    let Some(world) = world("resize").await else { return };
    let (small, large) = (sized("200m", "64Mi"), sized("400m", "96Mi"));
    let mut container = sleeper();
    container["resources"] = small.clone();
    world.create("web", json!({"containers": [container.clone()]})).await;
    let before = world.has("web", &small).await;
    assert_eq!(before["status"]["containerStatuses"][0]["allocatedResources"], small["requests"]);
    let id = &before["status"]["containerStatuses"][0]["containerID"];

    world.resize("web", &large).await;
    let after = world.has("web", &large).await;
    let status = &after["status"]["containerStatuses"][0];
    assert_eq!((&status["containerID"], &status["restartCount"]), (id, &json!(0)), "it is the same container");
    assert_eq!(status["allocatedResources"], large["requests"]);
    assert_eq!(after["status"]["observedGeneration"], after["metadata"]["generation"]);
    world.told("web", "ResizeCompleted: Pod resize completed: ").await;
    let bytes = (96 << 20).to_string();
    for in_container in [true, false] {
        for (controller, file, expected) in [
            ("cpu", "cpu.cfs_quota_us", "40000"),
            ("cpu", "cpu.shares", "409"),
            ("memory", "memory.limit_in_bytes", bytes.as_str()),
        ] {
            if let Some(found) = world.cgroup(controller, &after, in_container, file) {
                assert_eq!(found, expected, "{file}, of the container: {in_container}");
            }
        }
    }
    // Nothing is done again when those who did it start anew.
    for path in ["loops/pods/manager", "loops/pods/workers"] {
        world.cluster.kill(path);
    }
    world.resize("web", &small).await;
    let back = world.has("web", &small).await;
    assert_eq!(&back["status"]["containerStatuses"][0]["containerID"], id);
    world.delete("web").await;

    container["resizePolicy"] = json!([{"resourceName": "memory", "restartPolicy": "RestartContainer"}]);
    world.create("db", json!({"containers": [container]})).await;
    world.has("db", &small).await;
    world.resize("db", &sized("300m", "64Mi")).await;
    let same = world.has("db", &sized("300m", "64Mi")).await;
    assert_eq!(same["status"]["containerStatuses"][0]["restartCount"], json!(0));
    world.resize("db", &sized("300m", "80Mi")).await;
    let again = world.has("db", &sized("300m", "80Mi")).await;
    assert_eq!(again["status"]["containerStatuses"][0]["restartCount"], json!(1));
    world.told("db", "Killing: Container c resize requires restart").await;
    if let Some(found) = world.cgroup("memory", &again, true, "memory.limit_in_bytes") {
        assert_eq!(found, (80 << 20).to_string());
    }
    world.delete("db").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_does_not_fit_waits() {
    let Some(world) = world("resizewait").await else { return };
    let small = sized("200m", "64Mi");
    let mut container = sleeper();
    container["resources"] = small.clone();
    world.create("web", json!({"containers": [container.clone()]})).await;
    container["resources"] = sized("3", "64Mi");
    world.create("big", json!({"containers": [container]})).await;
    world.has("web", &small).await;
    world.running("big").await;

    world.resize("web", &sized("9", "64Mi")).await;
    let pod = world.until("web", "waits", |pod| condition(pod, "PodResizePending")).await;
    let pending = said(&pod, "PodResizePending").expect("it is there");
    assert_eq!(pending["reason"], json!("Infeasible"));
    assert_eq!(pending["message"], json!("Node didn't have enough capacity: cpu, requested: 9000, capacity: 4000"));
    assert_eq!(pending["observedGeneration"], pod["metadata"]["generation"]);
    assert_eq!(pod["status"]["containerStatuses"][0]["resources"], small, "it has what it had");

    let large = sized("2", "64Mi");
    world.resize("web", &large).await;
    let is_deferred =
        |pod: &Value| said(pod, "PodResizePending").is_some_and(|pending| pending["reason"] == json!("Deferred"));
    let pod = world.until("web", "is deferred", is_deferred).await;
    assert_eq!(
        said(&pod, "PodResizePending").expect("it is there")["message"],
        json!("Node didn't have enough resource: cpu, requested: 2000, used: 3000, capacity: 4000")
    );
    world.delete("big").await;
    world.has("web", &large).await;
    world.delete("web").await;

    // A limit below what is used would end the container: it stays as it is until there is room.
    let mut full = script("c", "dd if=/dev/zero of=/dev/shm/x bs=1M count=40 2>/dev/null; touch /tmp/full; sleep 1000");
    full["resources"] = sized("200m", "100Mi");
    full["readinessProbe"] = json!({"exec": {"command": ["test", "-e", "/tmp/full"]}, "periodSeconds": 1});
    world.create("full", json!({"containers": [full]})).await;
    let before = world.has("full", &sized("200m", "100Mi")).await;
    world.resize("full", &sized("200m", "32Mi")).await;
    let failed = |pod: &Value| said(pod, "PodResizeInProgress").is_some_and(|one| one["reason"] == json!("Error"));
    let pod = world.until("full", "can't be made smaller", failed).await;
    let message = said(&pod, "PodResizeInProgress").expect("it is there")["message"].clone();
    assert!(message.as_str().expect("text").contains("below current usage"), "{message}");
    world.exec(&before, &["rm", "/dev/shm/x"]).await;
    let after = world.has("full", &sized("200m", "32Mi")).await;
    assert_eq!(after["status"]["containerStatuses"][0]["restartCount"], json!(0));
    world.delete("full").await;
}
