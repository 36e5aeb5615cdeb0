//! An empty directory becomes a node, and what people do with pods first works.

use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::kubectl::{holds, ran};
use crate::machine::{ADDRESS, IMAGE, Machine, NODE};
use crate::streams;

/// A debug build on a busy machine; a release build is measured elsewhere.
const READY_WITHIN: Duration = Duration::from_secs(10);

pub(crate) async fn first_pod() {
    let Some(mut machine) = Machine::new() else { return };
    let began = Instant::now();
    machine.start();
    machine.node_ready().await;
    let ready = began.elapsed();
    assert!(ready < READY_WITHIN, "the node took {ready:?} to be ready");
    let began = Instant::now();
    let image = format!("--image={IMAGE}");
    machine.told(&["run", "first", &image, "--", "sh", "-c", "httpd -p 80 -h /etc; exec sleep 100000"]).await;
    machine.ready("first").await;
    println!("the node was ready after {ready:?}, and its first pod {:?} later", began.elapsed());

    static_pod(&machine).await;
    machine.apply(include_str!("first_pod.yaml")).await;
    tokio::join!(streams::commands(&machine), described(&machine), streams::terminal(&machine));
    let (web, first) = tokio::join!(machine.ready("web"), machine.ready("first"));
    tokio::join!(
        made_as_told(&machine, &web),
        limits(&machine, &web),
        network(&machine, &web, &first),
        streams::logs(&machine),
    );
    updates(&machine).await;
    tokio::join!(ends(&machine), restarts(&machine), streams::ports(&machine), streams::files(&machine));
    tokio::join!(streams::debug(&machine), runtimes(&machine), hosts(&machine), no_static_pod(&machine));
    polite(&machine).await;
    assert!(machine.end_daemon(Signal::TERM).await.success());
}

/// The events of a pod's start, in the words that people look for.
async fn described(machine: &Machine) {
    machine.event("first", "Started", "").await;
    let text = machine.told(&["describe", "pod", "first"]).await;
    for wanted in [
        "Successfully assigned default/first to one",
        &format!("Container image \"{IMAGE}\" already present on machine"),
        "Created container: first",
        "Started container first",
    ] {
        assert!(text.contains(wanted), "{wanted}: {text}");
    }
}

/// Order of init containers, variables, volumes, what every pod gets.
async fn made_as_told(machine: &Machine, web: &Value) {
    assert_eq!(machine.within("web", "cat /e/order").await, "first\nside\nsecond\nmain\n");
    let address = web["status"]["podIP"].as_str().expect("it has one");
    let print = "echo $PASSWORD $NAME $IP $(cat /settings/key) $(cat /single/key)";
    assert_eq!(machine.within("web", print).await, format!("hush web {address} one one\n"));
    assert_eq!(machine.within("web", "stat -Lc %a /hidden/password; cat /hidden/password").await, "400\nhush");
    machine.within("web", "echo kept > /mine/file; test -e /e/of-web/file").await;
    let resolver = machine.within("web", "cat /etc/resolv.conf").await;
    for wanted in
        ["nameserver 10.43.0.10", "search default.svc.cluster.local svc.cluster.local cluster.local", "options ndots:5"]
    {
        assert!(resolver.lines().any(|line| line.trim_end() == wanted), "{wanted}: {resolver}");
    }
    let hosts = machine.within("web", "cat /etc/hosts; hostname").await;
    assert!(hosts.contains(&format!("{address}\tweb")) && hosts.ends_with("\nweb\n"), "{hosts}");
    // The API knows the token for what it is.
    let account = "/var/run/secrets/kubernetes.io/serviceaccount";
    let token = machine.within("web", &format!("cat {account}/token")).await;
    let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": token}});
    let said = machine.given(&["create", "-o", "json", "-f", "-"], &review.to_string()).await;
    let review: Value = serde_json::from_str(&said.out).unwrap_or_else(|_| panic!("{said:?}"));
    assert_eq!(review["status"]["user"]["username"], json!("system:serviceaccount:default:default"));
    assert_eq!(review["status"]["user"]["extra"]["authentication.kubernetes.io/pod-name"], json!(["web"]));
    assert_eq!(machine.within("web", &format!("cat {account}/namespace")).await, "default");
    let authority = std::fs::read_to_string(machine.disk("data/server/tls/server-ca.crt")).expect("it is there");
    assert_eq!(machine.within("web", &format!("cat {account}/ca.crt")).await, authority);
}

/// What the kernel was told about memory and CPU, by the kernel.
async fn limits(machine: &Machine, web: &Value) {
    let uid = web["metadata"]["uid"].as_str().expect("a uid");
    let status = web["status"]["containerStatuses"].as_array().expect("it runs");
    let id = status[0]["containerID"].as_str().and_then(|id| id.strip_prefix("containerd://")).expect("an id");
    let mut found = Vec::new();
    for hierarchy in machine.hierarchies() {
        let container = hierarchy.join("kubepods/burstable").join(format!("pod{uid}")).join(id);
        for file in ["memory.limit_in_bytes", "cpu.cfs_quota_us", "cpu.shares", "memory.max", "cpu.max"] {
            if let Ok(text) = std::fs::read_to_string(container.join(file)) {
                found.push(format!("{file} {}", text.trim()));
            }
        }
    }
    let is_v1 = std::path::Path::new("/sys/fs/cgroup/memory").is_dir();
    let wanted = if is_v1 {
        ["memory.limit_in_bytes 33554432", "cpu.cfs_quota_us 50000", "cpu.shares 51"].as_slice()
    } else {
        ["memory.max 33554432", "cpu.max 50000 100000"].as_slice()
    };
    for line in wanted {
        assert!(found.iter().any(|found| found == line), "{line}: {found:?}");
    }
}

/// From pod to node, from pod to pod, from node to pod.
async fn network(machine: &Machine, web: &Value, first: &Value) {
    let address = |pod: &Value| pod["status"]["podIP"].as_str().expect("it has one").to_owned();
    let (web, first) = (address(web), address(first));
    assert!(web.starts_with("10.42.0.") && first.starts_with("10.42.0.") && web != first, "{web} {first}");
    machine.within("first", &format!("ping -c 1 -W 5 {ADDRESS}")).await;
    let page = machine.within("first", &format!("wget -q -O - http://{web}/")).await;
    assert_eq!(page, "hello from web\n");
    let page = ran(machine.command(&["curl", "-s", "--max-time", "5", &format!("http://{web}/")])).await;
    assert_eq!(page.out, "hello from web\n");
}

/// Changes of a ConfigMap and a Secret are seen in volumes, and not by those who mounted one file.
async fn updates(machine: &Machine) {
    machine.told(&["patch", "configmap", "settings", "-p", r#"{"data":{"key":"two"}}"#]).await;
    machine.told(&["patch", "secret", "hidden", "-p", r#"{"stringData":{"password":"loud"}}"#]).await;
    machine.within_until("web", "cat /settings/key", |text| text == "two").await;
    machine.within_until("web", "cat /hidden/password", |text| text == "loud").await;
    assert_eq!(machine.within("web", "cat /single/key").await, "one");
}

/// Those that end by themselves: a job, one that has a deadline.
async fn ends(machine: &Machine) {
    machine.until("it is complete", &["job", "job"], |job| holds(job, "Complete")).await;
    let late = machine.until("it is over", &["pod", "late"], |pod| pod["status"]["phase"] == "Failed").await;
    assert_eq!(late["status"]["reason"], json!("DeadlineExceeded"));
    let text = "Pod was active on the node longer than the specified deadline";
    assert_eq!(late["status"]["message"], json!(text));
}

/// Those that are started again.
async fn restarts(machine: &Machine) {
    let count = |pod: &Value| pod["status"]["containerStatuses"][0]["restartCount"].as_u64();
    let once = |pod: &Value| count(pod) == Some(1) && holds(pod, "Ready");
    // The process of the pod's own program, found by what it was told.
    let sleeper = machine.processes().into_iter().find(|(_, line)| line == "sleep 54321").expect("it runs").0;
    kill_process(Pid::from_raw(i32::try_from(sleeper).expect("a number")).expect("one"), Signal::KILL)
        .expect("it runs");
    let victim = machine.until("it is back", &["pod", "victim"], once).await;
    let ended = &victim["status"]["containerStatuses"][0]["lastState"]["terminated"];
    assert_eq!((&ended["exitCode"], &ended["reason"]), (&json!(137), &json!("Error")));

    machine.within("sick", "rm /well").await;
    machine.until("it is well again", &["pod", "sick"], once).await;
    machine.event("sick", "Unhealthy", "Liveness probe failed").await;
    machine.event("sick", "Killing", "Container c failed liveness probe, will be restarted").await;

    let crash = machine.until("it ended twice", &["pod", "crash"], |pod| count(pod) >= Some(1)).await;
    let ended = &crash["status"]["containerStatuses"][0]["lastState"]["terminated"];
    assert_eq!((&ended["exitCode"], &ended["message"]), (&json!(7), &json!("bye")));
    assert_eq!(machine.told(&["logs", "crash", "--previous"]).await, "no\n");
    machine.event("crash", "BackOff", "Back-off restarting failed container c in pod crash_default").await;
}

/// A handler that the node has, under another name, and one that it doesn't have.
async fn runtimes(machine: &Machine) {
    machine.ready("other-runtime").await;
    machine.event("no-runtime", "FailedCreatePodSandBox", "no runtime for \"nobodys\" is configured").await;
}

/// The node's own network, and a port of it that leads into a pod.
async fn hosts(machine: &Machine) {
    let host = machine.ready("host").await;
    assert_eq!((&host["status"]["podIP"], &host["status"]["hostIP"]), (&json!(ADDRESS), &json!(ADDRESS)));
    machine.ready("ported").await;
    for (port, wanted) in [(8081, "on the host\n"), (8082, "through the port\n")] {
        let url = format!("http://{ADDRESS}:{port}/");
        let page = ran(machine.command(&["curl", "-s", "--max-time", "5", &url])).await;
        assert_eq!(page.out, wanted, "from the node: {page:?}");
        assert_eq!(machine.within("first", &format!("wget -q -O - {url}")).await, wanted, "from a pod");
    }
}

fn static_file(machine: &Machine) -> std::path::PathBuf {
    machine.disk("data/agent/pod-manifests/still.yaml")
}

/// Puts a static pod into its folder. Its mirror is looked at in the end, see [`no_static_pod`].
async fn static_pod(machine: &Machine) {
    let container = json!({"name": "c", "image": IMAGE, "command": ["sleep", "100000"]});
    let spec = json!({"terminationGracePeriodSeconds": 0, "containers": [container]});
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "still"}, "spec": spec});
    tokio::fs::write(static_file(machine), pod.to_string()).await.expect("the folder is there");
}

async fn no_static_pod(machine: &Machine) {
    let name = format!("still-{NODE}");
    let mirror = machine.ready(&name).await;
    assert_eq!(mirror["metadata"]["annotations"]["kubernetes.io/config.source"], json!("file"));
    assert_eq!(mirror["metadata"]["ownerReferences"][0]["kind"], json!("Node"));
    std::fs::remove_file(static_file(machine)).expect("it is there");
    machine.gone(&["pod", &name]).await;
}

/// Hooks and signals, in their order; the end is waited for, and not for longer than it takes.
async fn polite(machine: &Machine) {
    machine.ready("polite").await;
    let file = machine.disk("lib/shared/polite");
    assert_eq!(std::fs::read_to_string(&file).expect("it was started"), "started\n");
    let began = Instant::now();
    machine.told(&["delete", "pod", "polite"]).await;
    assert!(began.elapsed() < Duration::from_secs(15), "it took its whole grace period");
    assert_eq!(std::fs::read_to_string(&file).expect("it is there"), "started\nstopping\nterm\n");
    let began = Instant::now();
    machine.told(&["delete", "pod", "first", "--grace-period=1"]).await;
    // The first process of a container ignores what it has no handler for, and is killed then.
    assert!(began.elapsed() >= Duration::from_secs(1), "it had no grace");
}
