//! Many pods: one after the other, with faults in between, and all at once. Afterwards the machine is as it was.

use std::time::{Duration, Instant};

use chaos_tests::budgets::Budgets;
use chaos_tests::checks::shape;
use chaos_tests::{Replay, is_long, seed};
use k3sd_runtime::Rng;
use k3sd_runtime::inspect::Kill;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::kills::kill;
use crate::machine::{IMAGE, Machine, PATIENCE};
use crate::traces::Traces;

/// Pods of a short run, and of a long one.
const PODS: usize = 60;
const PODS_LONG: usize = 1000;
/// So many come, and go, at once.
const ROUND: usize = 10;
/// The longest wait for a fault, and between a fault and what follows.
const PAUSE_MS: u64 = 1500;
/// How much later than this a supervisor may learn of a death.
const SLACK: Duration = Duration::from_secs(5);
/// How long the last trace of a sandbox may stay that was never finished. Nobody knows of it but the network, which waits
/// for three minutes until it believes that nobody ever will, and looks once a minute.
const LEFT_PATIENCE: Duration = Duration::from_secs(300);
/// As many as a node of usual size has.
const HUNDRED: usize = 100;

/// Makes a machine whose node is ready and has had a pod, and says what is on it then.
async fn prepared() -> Option<(Machine, Traces)> {
    let mut machine = Machine::new()?;
    machine.start();
    machine.node_ready().await;
    // The first pod brings what stays: the bridge, the snapshot of the sandbox's image.
    machine.apply(&pod("warm", "none").to_string()).await;
    machine.ready("warm").await;
    machine.told(&["delete", "pod", "warm"]).await;
    let began = Instant::now();
    loop {
        let found = Traces::of(&machine).await;
        let left = found.of_pods();
        if left.is_empty() {
            return Some((machine, found));
        }
        assert!(began.elapsed() < PATIENCE, "of one pod is left: {left:#?}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

fn pod(name: &str, round: &str) -> Value {
    let mounts = json!([{"name": "e", "mountPath": "/e"}, {"name": "m", "mountPath": "/m"}, {"name": "host", "mountPath": "/h"}]);
    let container = json!({
        "name": "c", "image": IMAGE, "volumeMounts": mounts,
        "command": ["sh", "-c", "trap 'exit 0' TERM; sleep 100000 & wait"],
        "resources": {"limits": {"cpu": "500m", "memory": "16Mi"}, "requests": {"cpu": "1m", "memory": "1Mi"}},
    });
    let spec = json!({
        // Without any grace the object would go before the pod does.
        "terminationGracePeriodSeconds": 1,
        "containers": [container],
        "volumes": [
            {"name": "e", "emptyDir": {}},
            {"name": "m", "emptyDir": {"medium": "Memory"}},
            {"name": "host", "hostPath": {"path": "/var/lib/shared", "type": "DirectoryOrCreate"}},
        ],
    });
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"round": round}}, "spec": spec})
}

pub(crate) async fn churn() {
    let seed = seed();
    let _replay = Replay { seed, test: "pods_leave_nothing_behind" };
    println!("seed {seed}");
    let mut rng = Rng::seeded(seed);
    let Some((mut machine, before)) = prepared().await else { return };
    let tree = machine.inspect.tree().await.expect("it answers");
    let mut budgets = Budgets::of(&tree.root, SLACK);
    let victims: Vec<String> = shape(&tree.root).into_keys().filter(|path| path.starts_with("agent/")).collect();
    let pods = if is_long() { PODS_LONG } else { PODS };
    let began = Instant::now();
    for round in 0..pods / ROUND {
        let name = format!("r{round}");
        let all: Vec<Value> = (0..ROUND).map(|number| pod(&format!("{name}-{number}"), &name)).collect();
        machine.apply(&json!({"apiVersion": "v1", "kind": "List", "items": all}).to_string()).await;
        // The fault meets them while they start, or while they run, or while they go.
        let waits_before = rng.below(2) == 0;
        if waits_before {
            let selector = format!("round={name}");
            machine.told(&["wait", "--for=condition=Ready", "pod", "-l", &selector, "--timeout=60s"]).await;
        }
        let pause = Duration::from_millis(rng.below(PAUSE_MS));
        let deletes_first = rng.below(2) == 0;
        if deletes_first {
            delete(&machine, &name).await;
        }
        tokio::time::sleep(pause).await;
        match rng.below(4) {
            // What an engine was making when it died is nobody's, and is freed minutes later: see LEFT_PATIENCE.
            0 if is_long() || waits_before && !deletes_first => {
                machine.running("containerd").into_iter().for_each(kill)
            }
            0 | 1 => {
                machine.end_daemon(Signal::KILL).await;
                machine.start();
                machine.node_ready().await;
            }
            _ => {
                let victim = &victims[usize::try_from(rng.below(victims.len() as u64)).expect("a small number")];
                if budgets.wait(victim).is_zero() {
                    budgets.spend(victim);
                    machine.inspect.kill(victim, Kill::Kill).await.ok();
                }
            }
        }
        if !deletes_first {
            delete(&machine, &name).await;
        }
    }
    machine.until("they are gone", &["pods"], |list| list["items"].as_array().is_some_and(Vec::is_empty)).await;
    println!("{pods} pods came and went in {:?}", began.elapsed());
    let patience = if is_long() { LEFT_PATIENCE } else { PATIENCE };
    println!("what they left was gone {:?} later", before.come_back(&machine, patience).await);
    assert!(machine.end_daemon(Signal::TERM).await.success());
}

async fn delete(machine: &Machine, round: &str) {
    machine.told(&["delete", "pod", "-l", &format!("round={round}"), "--wait=false"]).await;
}

pub(crate) async fn hundred() {
    let Some((mut machine, before)) = prepared().await else { return };
    let mut template = pod("unused", "hundred");
    template["metadata"] = json!({"labels": {"app": "many"}});
    let spec = json!({
        "replicas": HUNDRED,
        "selector": {"matchLabels": {"app": "many"}},
        "template": {"metadata": template["metadata"], "spec": template["spec"]},
    });
    let many = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "many"}, "spec": spec});
    let began = Instant::now();
    machine.apply(&many.to_string()).await;
    machine.told(&["rollout", "status", "deployment/many", "--timeout=60s"]).await;
    let up = began.elapsed();
    let began = Instant::now();
    machine.told(&["delete", "deployment", "many"]).await;
    machine.until("they are gone", &["pods"], |list| list["items"].as_array().is_some_and(Vec::is_empty)).await;
    println!("{HUNDRED} pods were ready after {up:?}, and gone in {:?}", began.elapsed());
    println!("what they left was gone {:?} later", before.come_back(&machine, PATIENCE).await);
    assert!(machine.end_daemon(Signal::TERM).await.success());
}
