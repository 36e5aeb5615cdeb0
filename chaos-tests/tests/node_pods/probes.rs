//! Probes over the network, hooks, ephemeral containers, deadlines.

use std::net::TcpListener;
use std::time::Duration;

use bytes::Bytes;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::world::{Options, condition, script, sleeper, world_with};

/// The health of a gRPC server, which may change.
#[derive(Clone, Copy, PartialEq)]
enum Health {
    Serving,
    NotServing,
}

/// A gRPC server with `grpc.health.v1.Health/Check`, and nothing else.
async fn serve(listener: tokio::net::TcpListener, health: watch::Receiver<Health>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else { return };
        let health = health.clone();
        tokio::spawn(async move {
            let Ok(mut server) = h2::server::handshake(stream).await else { return };
            while let Some(Ok((request, mut respond))) = server.accept().await {
                let known = request.uri().path() == "/grpc.health.v1.Health/Check";
                let head = http::Response::builder().header("content-type", "application/grpc");
                let Ok(mut body) = respond.send_response(head.body(()).expect("a head"), false) else { return };
                let number = if *health.borrow() == Health::Serving { 1 } else { 2 };
                if known {
                    body.send_data(Bytes::copy_from_slice(&[0, 0, 0, 0, 2, 8, number]), false).ok();
                }
                let mut trailers = http::HeaderMap::new();
                trailers.insert("grpc-status", if known { "0" } else { "12" }.parse().expect("a number"));
                body.send_trailers(trailers).ok();
            }
        });
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address").port()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn probes_go_over_the_network() {
    let Some(world) = world_with("probes", Options { address: Some("127.0.0.1"), ..Options::default() }).await else {
        return;
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let grpc = listener.local_addr().expect("an address").port();
    let (health, seen) = watch::channel(Health::Serving);
    let server = tokio::spawn(serve(listener, seen));
    let port = free_port();
    let mut web = script("c", &format!("mkdir /www; echo ok > /www/ok; exec httpd -f -p 127.0.0.1:{port} -h /www"));
    web["ports"] = json!([{"name": "web", "containerPort": port}]);
    web["startupProbe"] = json!({"tcpSocket": {"port": port}, "periodSeconds": 1, "failureThreshold": 30});
    web["livenessProbe"] =
        json!({"httpGet": {"path": "/ok", "port": "web"}, "periodSeconds": 1, "failureThreshold": 1});
    web["readinessProbe"] = json!({"grpc": {"port": grpc}, "periodSeconds": 1, "failureThreshold": 1});
    world.create("web", json!({"containers": [web]})).await;
    let pod = world.running("web").await;
    assert_eq!(pod["status"]["containerStatuses"][0]["started"], json!(true));

    health.send_replace(Health::NotServing);
    world.until("web", "isn't ready", |pod| !condition(pod, "Ready")).await;
    world.told("web", "Unhealthy: Readiness probe failed: service unhealthy (responded with \"NOT_SERVING\")").await;
    health.send_replace(Health::Serving);
    world.running("web").await;

    world.exec(&pod, &["rm", "/www/ok"]).await;
    let again = |pod: &Value| pod["status"]["containerStatuses"][0]["restartCount"] == json!(1);
    world.until("web", "is started again", again).await;
    world.told("web", "Unhealthy: Liveness probe failed: HTTP probe failed with statuscode: 404").await;
    world.told("web", "Killing: Container c failed liveness probe, will be restarted").await;
    world.running("web").await;

    let mut shut = sleeper();
    shut["readinessProbe"] = json!({"tcpSocket": {"port": free_port()}, "periodSeconds": 1});
    world.create("shut", json!({"containers": [shut]})).await;
    world.told("shut", "connect: connection refused").await;
    for name in ["web", "shut"] {
        world.delete(name).await;
    }
    server.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hooks_run_and_debuggers_look() {
    let Some(world) = world_with("hooks", Options { address: Some("127.0.0.1"), ..Options::default() }).await else {
        return;
    };
    let share = tempfile::tempdir().expect("a directory");
    let volumes = json!([{"name": "out", "hostPath": {"path": share.path()}}]);
    let mounts = json!([{"name": "out", "mountPath": "/out"}]);
    let port = free_port();
    let serve = format!(
        "mkdir /www; echo ok > /www/bye; httpd -p 127.0.0.1:{port} -h /www; trap 'echo term >> /out/exec; exit 0' TERM; while true; do sleep 0.1; done"
    );
    let mut exec = script("c", &serve);
    exec["volumeMounts"] = mounts.clone();
    exec["lifecycle"] = json!({
        "postStart": {"exec": {"command": ["sh", "-c", "echo start >> /out/exec"]}},
        "preStop": {"exec": {"command": ["sh", "-c", "echo stop >> /out/exec"]}},
    });
    let spec = json!({"terminationGracePeriodSeconds": 5, "containers": [exec], "volumes": volumes});
    world.create("exec", spec).await;
    let running = world.running("exec").await;

    let mut get = sleeper();
    get["lifecycle"] = json!({"preStop": {"httpGet": {"port": port, "path": "/bye", "host": "127.0.0.1"}}});
    world.create("get", json!({"containers": [get]})).await;
    let mut nap = sleeper();
    nap["lifecycle"] = json!({"preStop": {"sleep": {"seconds": 2}}});
    world
        .create("nap", json!({"terminationGracePeriodSeconds": 20, "shareProcessNamespace": true, "containers": [nap]}))
        .await;
    let mut bad = sleeper();
    bad["lifecycle"] = json!({"postStart": {"exec": {"command": ["sh", "-c", "echo why; exit 4"]}}});
    world.create("bad", json!({"containers": [bad]})).await;
    let mut odd = sleeper();
    odd["lifecycle"] = json!({"preStop": {"exec": {"command": ["false"]}}});
    world.create("odd", json!({"containers": [odd]})).await;

    // Somebody looks at a running container.
    let look = json!({"name": "look", "image": "busybox:latest", "imagePullPolicy": "Never", "targetContainerName": "c",
        "command": ["sh", "-c", "cat /proc/1/cmdline > /dev/termination-log"], "terminationMessagePath": "/dev/termination-log"});
    let patch = Patch::Strategic(json!({"spec": {"ephemeralContainers": [look]}}));
    world.api().patch_ephemeral_containers("exec", &PatchParams::default(), &patch).await.expect("it may be added");
    let seen = |pod: &Value| pod["status"]["ephemeralContainerStatuses"][0]["state"]["terminated"].is_object();
    let pod = world.until("exec", "was looked at", seen).await;
    let message = &pod["status"]["ephemeralContainerStatuses"][0]["state"]["terminated"]["message"];
    assert!(message.as_str().is_some_and(|text| text.contains("httpd")), "it sees the other's processes: {message}");
    assert_eq!(
        pod["status"]["containerStatuses"][0]["containerID"],
        running["status"]["containerStatuses"][0]["containerID"]
    );

    world.running("get").await;
    world.running("nap").await;
    world.running("odd").await;
    world.delete("get").await;
    assert!(world.events("get").await.iter().all(|event| !event.contains("FailedPreStopHook")), "the page was there");
    let clock = world.cluster.clock().clone();
    let began = clock.now();
    world.delete("nap").await;
    let took = clock.now().since(began);
    // sleep as the first process ignores TERM, unless all share one: then it ends after the hook's two seconds.
    assert!(took >= Duration::from_secs(2) && took < Duration::from_secs(15), "{took:?}");
    world.delete("odd").await;
    world.told("odd", "FailedPreStopHook: PreStopHook failed").await;
    world.told("bad", "FailedPostStartHook: PostStartHook failed").await;
    world.delete("bad").await;
    world.delete("exec").await;
    let order = std::fs::read_to_string(share.path().join("exec")).expect("it was written");
    assert_eq!(order, "start\nstop\nterm\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deadlines_memory_and_words_end_pods() {
    let Some(world) = world_with("ends", Options::default()).await else { return };
    world.create("late", json!({"activeDeadlineSeconds": 2, "containers": [sleeper()]})).await;
    let mut hungry = script("c", "exec dd if=/dev/zero of=/dev/null bs=200M count=1");
    hungry["resources"] = json!({"limits": {"memory": "24Mi"}});
    world.create("hungry", json!({"restartPolicy": "Never", "containers": [hungry]})).await;
    let mut long = script("c", "i=0; while [ $i -lt 200 ]; do echo line $i; i=$((i+1)); done; exit 1");
    long["terminationMessagePolicy"] = json!("FallbackToLogsOnError");
    world.create("long", json!({"restartPolicy": "Never", "containers": [long]})).await;

    let ended = |pod: &Value| pod["status"]["phase"] == "Failed";
    let pod = world.until("hungry", "is killed", ended).await;
    let state = &pod["status"]["containerStatuses"][0]["state"]["terminated"];
    assert_eq!((&state["exitCode"], &state["reason"]), (&json!(137), &json!("OOMKilled")));
    let pod = world.until("long", "ends", ended).await;
    let words =
        pod["status"]["containerStatuses"][0]["state"]["terminated"]["message"].as_str().expect("text").to_owned();
    assert!(words.ends_with("line 199\n") && words.lines().count() <= 80 && words.len() <= 2048, "{words}");
    let pod = world.until("late", "ends", ended).await;
    assert_eq!(pod["status"]["reason"], json!("DeadlineExceeded"));
    assert_eq!(pod["status"]["message"], json!("Pod was active on the node longer than the specified deadline"));
    for name in ["late", "hungry", "long"] {
        world.delete(name).await;
    }
}
