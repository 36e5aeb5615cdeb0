//! What the node doesn't take, and who makes room.

use k8s_openapi::api::node::v1::RuntimeClass;
use kube::Api;
use kube::api::PostParams;
use serde_json::{Value, json};

use crate::world::{Options, condition, script, sleeper, world, world_with};

fn asks(cpu: &str) -> Value {
    let mut container = sleeper();
    container["resources"] = json!({"requests": {"cpu": cpu}});
    container
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn others_make_room_for_critical_pods() {
    let Some(world) = world("critical").await else { return };
    world.create("small", json!({"containers": [asks("1")]})).await;
    world.create("large", json!({"containers": [asks("2")]})).await;
    world.running("small").await;
    world.running("large").await;
    let spec = json!({"priorityClassName": "system-node-critical", "containers": [asks("2")]});
    world.create("critical", spec).await;
    world.running("critical").await;
    let gone = world.until("small", "makes room", |pod| pod["status"]["phase"] == "Failed").await;
    assert_eq!(gone["status"]["reason"], json!("Preempting"));
    assert_eq!(gone["status"]["message"], json!("Preempted in order to admit critical pod"));
    assert!(condition(&gone, "DisruptionTarget"), "{:#}", gone["status"]);
    world.running("large").await;
    for name in ["small", "large", "critical"] {
        world.delete(name).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settings_of_the_kernel_are_the_pods_own_or_refused() {
    let sysctls = vec!["kernel.msg*".to_owned()];
    let Some(world) = world_with("sysctl", Options { has_network: true, sysctls, ..Options::default() }).await else {
        return;
    };
    let with = |name: &str, value: &str| {
        let look = format!("cat /proc/sys/{} > /dev/termination-log", name.replace('.', "/"));
        json!({
            "restartPolicy": "Never",
            "containers": [script("c", &look)],
            "securityContext": {"sysctls": [{"name": name, "value": value}]},
        })
    };
    for (pod, name, value) in
        [("safe", "net.ipv4.ip_unprivileged_port_start", "80"), ("allowed", "kernel.msgmax", "9000")]
    {
        world.create(pod, with(name, value)).await;
        let done = world.until(pod, "ends", |pod| pod["status"]["phase"] == "Succeeded").await;
        let said = &done["status"]["containerStatuses"][0]["state"]["terminated"]["message"];
        assert_eq!(said, &json!(format!("{value}\n")), "{name}");
        world.delete(pod).await;
    }
    world.create("unsafe", with("kernel.shmmax", "9000")).await;
    let refused = world.until("unsafe", "is refused", |pod| pod["status"]["phase"] == "Failed").await;
    assert_eq!(refused["status"]["reason"], json!("SysctlForbidden"));
    assert_eq!(
        refused["status"]["message"],
        json!("Pod was rejected: forbidden sysctl: \"kernel.shmmax\" not allowlisted")
    );
    world.delete("unsafe").await;

    let class =
        json!({"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": {"name": "odd"}, "handler": "odd"});
    let classes: Api<RuntimeClass> = Api::all(world.cluster.admin());
    classes.create(&PostParams::default(), &serde_json::from_value(class).expect("one")).await.expect("it is taken");
    world.create("odd", json!({"runtimeClassName": "odd", "containers": [sleeper()]})).await;
    // Between the two stand the runtime's own words, others with each release.
    for text in [
        "FailedCreatePodSandBox: Failed to create pod sandbox: rpc error: code = Unknown desc = ",
        "no runtime for \"odd\" is configured",
    ] {
        world.told("odd", text).await;
    }
    world.delete("odd").await;

    // The sandboxes of that class know nothing of user namespaces: the pod is told, and can go.
    world.create("users", json!({"hostUsers": false, "runtimeClassName": "odd", "containers": [sleeper()]})).await;
    world
        .told("users", "FailedCreatePodSandBox: Failed to create pod sandbox: can't set `spec.hostUsers: false`")
        .await;
    world.delete("users").await;
}
