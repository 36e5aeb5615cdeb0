//! A pod's life from its creation to the last trace: restarts, jobs, init containers, evictions, static pods.

use std::fs;
use std::os::unix::fs::symlink;
use std::time::Duration;

use kube::api::DeleteParams;
use serde_json::{Value, json};

use crate::world::{KERNEL_LOG, condition, script, sleeper, world};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_runs_outlives_its_actors_and_goes() {
    let Some(world) = world("run").await else { return };
    let mut probed = sleeper();
    probed["readinessProbe"] = json!({"exec": {"command": ["true"]}, "periodSeconds": 1});
    let made = world.create("web", json!({"containers": [probed]})).await;
    let uid = made.metadata.uid.expect("a uid");
    let pod = world.running("web").await;
    let status = &pod["status"]["containerStatuses"][0];
    let id = status["containerID"].as_str().expect("an id").to_owned();
    assert!(id.starts_with("containerd://"), "{id}");
    assert_eq!(
        (&status["ready"], &status["started"], &status["restartCount"]),
        (&json!(true), &json!(true), &json!(0))
    );
    assert_eq!((&pod["status"]["hostIP"], &pod["status"]["podIP"]), (&json!("192.0.2.1"), &json!("192.0.2.1")));
    for kind in ["PodReadyToStartContainers", "Initialized", "ContainersReady", "PodScheduled"] {
        assert!(condition(&pod, kind), "{kind}: {pod:#}");
    }
    world.cluster.wait_until("events are written", async || world.events("web").await.len() >= 3).await;
    let events = world.events("web").await;
    assert!(events.contains(&"Started: Started container c".to_owned()), "{events:?}");

    for path in [&format!("loops/pods/workers/{uid}"), "loops/pods/manager", "loops/pods/relist", "loops/pods/workers"]
    {
        world.cluster.kill(path);
        tokio::time::sleep(Duration::from_millis(200)).await;
        let pod = world.get("web").await.expect("it is there");
        assert!(condition(&pod, "Ready"), "after {path} was killed: {:#}", pod["status"]);
        assert_eq!(pod["status"]["containerStatuses"][0]["containerID"], json!(id), "after {path} was killed");
        assert_eq!(pod["status"]["containerStatuses"][0]["restartCount"], json!(0));
    }

    world.delete("web").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_end_and_say_how() {
    let Some(world) = world("jobs").await else { return };
    let mut good = script("c", "echo $GREETING > /dev/termination-log");
    good["env"] = json!([{"name": "WHO", "value": "you"}, {"name": "GREETING", "value": "hello $(WHO)"}]);
    world.create("good", json!({"restartPolicy": "Never", "containers": [good]})).await;
    let mut bad = script("c", "echo oh no; exit 3");
    bad["terminationMessagePolicy"] = json!("FallbackToLogsOnError");
    world.create("bad", json!({"restartPolicy": "Never", "containers": [bad]})).await;
    let stopped = world.until("good", "succeeds", |pod| pod["status"]["phase"] == "Succeeded").await;
    let ended = &stopped["status"]["containerStatuses"][0]["state"]["terminated"];
    assert_eq!(
        (&ended["exitCode"], &ended["reason"], &ended["message"]),
        (&json!(0), &json!("Completed"), &json!("hello you\n"))
    );
    let failed = world.until("bad", "fails", |pod| pod["status"]["phase"] == "Failed").await;
    let ended = &failed["status"]["containerStatuses"][0]["state"]["terminated"];
    assert_eq!(
        (&ended["exitCode"], &ended["reason"], &ended["message"]),
        (&json!(3), &json!("Error"), &json!("oh no\n"))
    );
    for name in ["good", "bad"] {
        world.delete(name).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_runs_out_of_memory_is_told_so() {
    if fs::File::open(KERNEL_LOG).is_err() {
        println!("ignored: the kernel's log can't be read");
        return;
    }
    let Some(world) = world("memory").await else { return };
    // The first dies by the kernel's hand, the second by its own.
    let mut greedy = script("c", "a=x; while true; do a=$a$a; done");
    // Kubernetes makes one `$` of two.
    let mut rash = script("d", "kill -9 $$$$");
    for container in [&mut greedy, &mut rash] {
        container["resources"] = json!({"limits": {"memory": "20Mi"}});
    }
    // The first process of a PID namespace of its own is safe from its own hand.
    let spec = json!({"restartPolicy": "Never", "shareProcessNamespace": true, "containers": [greedy, rash]});
    world.create("greedy", spec).await;
    let failed = world.until("greedy", "fails", |pod| pod["status"]["phase"] == "Failed").await;
    let ended = |at: usize| &failed["status"]["containerStatuses"][at]["state"]["terminated"];
    for (at, reason) in [(0, "OOMKilled"), (1, "Error")] {
        assert_eq!((&ended(at)["exitCode"], &ended(at)["reason"]), (&json!(137), &json!(reason)), "{at}");
    }
    world.delete("greedy").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_fails_is_started_again_later_and_later() {
    let Some(world) = world("crash").await else { return };
    world.create("crash", json!({"containers": [script("c", "exit 1")]})).await;
    let waits = |pod: &Value| pod["status"]["containerStatuses"][0]["state"]["waiting"]["reason"] == "CrashLoopBackOff";
    let pod = world.until("crash", "waits", waits).await;
    let status = &pod["status"]["containerStatuses"][0];
    assert_eq!((&status["restartCount"], &status["lastState"]["terminated"]["exitCode"]), (&json!(1), &json!(1)));
    let message = status["state"]["waiting"]["message"].as_str().expect("a message");
    assert!(message.starts_with("back-off 10s restarting failed container=c pod=crash_default("), "{message}");
    world.create("absent", json!({"containers": [{"name": "c", "image": "none:1", "imagePullPolicy": "Never"}]})).await;
    let never =
        |pod: &Value| pod["status"]["containerStatuses"][0]["state"]["waiting"]["reason"] == "ErrImageNeverPull";
    world.until("absent", "can't have its image", never).await;
    world
        .create(
            "big",
            json!({"containers": [{"name": "c", "image": "busybox:latest", "resources": {"requests": {"cpu": "5"}}}]}),
        )
        .await;
    let refused = world.until("big", "is refused", |pod| pod["status"]["phase"] == "Failed").await;
    assert_eq!(refused["status"]["reason"], json!("OutOfcpu"));
    for name in ["crash", "absent", "big"] {
        world.delete(name).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn order_probes_and_evictions_hold() {
    let Some(world) = world("order").await else { return };
    let mut side = script("s", "touch /shared/side; trap 'exit 0' TERM; while true; do sleep 0.1; done");
    side["restartPolicy"] = json!("Always");
    side["startupProbe"] = json!({"exec": {"command": ["test", "-e", "/shared/side"]}, "periodSeconds": 1});
    let init = script("i", "test ! -e /shared/side && touch /shared/init");
    let mut main = script("c", "test -e /shared/init && test -e /shared/side && touch /shared/ready && sleep 1000");
    main["readinessProbe"] = json!({"exec": {"command": ["test", "-e", "/shared/ready"]}, "periodSeconds": 1});
    for container in [&mut side, &mut main] {
        container["volumeMounts"] = json!([{"name": "shared", "mountPath": "/shared"}]);
    }
    let mut init = init;
    init["volumeMounts"] = json!([{"name": "shared", "mountPath": "/shared"}]);
    let spec =
        json!({"initContainers": [init, side], "containers": [main], "volumes": [{"name": "shared", "emptyDir": {}}]});
    let made = world.create("order", spec).await;
    let uid = made.metadata.uid.expect("a uid");
    let pod = world.running("order").await;
    assert_eq!(pod["status"]["initContainerStatuses"][0]["state"]["terminated"]["exitCode"], json!(0));
    assert_eq!(pod["status"]["initContainerStatuses"][1]["started"], json!(true));

    assert!(world.handle.evict(&uid, "Evicted", "The node was low on resource: memory.", Some(1)));
    let evicted = world.until("order", "is evicted", |pod| pod["status"]["phase"] == "Failed").await;
    assert_eq!(evicted["status"]["reason"], json!("Evicted"));
    assert!(condition(&evicted, "DisruptionTarget"), "{:#}", evicted["status"]);
    world.delete("order").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn static_pods_have_mirrors() {
    let Some(world) = world("static").await else { return };
    let file = |seconds: u32| {
        let mut container = sleeper();
        container["command"] = json!(["sleep", seconds.to_string()]);
        let spec = json!({"hostNetwork": true, "terminationGracePeriodSeconds": 1, "containers": [container]});
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web"}, "spec": spec}).to_string()
    };
    let path = world.containerd.path("manifests/web.yaml");
    fs::write(&path, file(1000)).expect("a file");
    let mirror = world.running("web-one").await;
    let hash = mirror["metadata"]["annotations"]["kubernetes.io/config.mirror"].clone();
    assert_eq!(mirror["metadata"]["annotations"]["kubernetes.io/config.source"], json!("file"));
    let id = mirror["status"]["containerStatuses"][0]["containerID"].clone();

    world.api().delete("web-one", &DeleteParams::default().grace_period(0)).await.expect("it may go");
    let uid = mirror["metadata"]["uid"].clone();
    let again = world.until("web-one", "is back", |pod| condition(pod, "Ready") && pod["metadata"]["uid"] != uid).await;
    assert_eq!(again["status"]["containerStatuses"][0]["containerID"], id, "the pod itself never stopped");

    fs::write(&path, file(1001)).expect("a file");
    let changed =
        |pod: &Value| condition(pod, "Ready") && pod["metadata"]["annotations"]["kubernetes.io/config.mirror"] != hash;
    world.until("web-one", "is another", changed).await;
    // A link that leads nowhere is no pod, and does no harm.
    symlink("/nowhere", world.containerd.path("manifests/broken.yaml")).expect("a link");
    fs::remove_file(&path).expect("it is there");
    world.gone("web-one").await;
    world.cluster.wait_until("nothing runs", async || world.pods.borrow().pods.is_empty()).await;
}
