//! An application as people have them deploys itself from a file, is reached through its load balancer and by name, is
//! updated and rolled back, and outlives the daemon.

use std::fs;
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use crate::facts::Facts;
use crate::kubectl::{holds, ran};
use crate::machine::{ADDRESS, IMAGE, Machine, PATIENCE};

/// The application, with the image that this machine has.
const SHOP: &str = include_str!("../../../fixtures/application/shop.yaml");
/// Its image there.
const SHOP_IMAGE: &str = "docker.io/library/busybox:latest";
/// The size of what is fetched while the daemon restarts, and how fast: long enough for a restart.
const FILE_BYTES: usize = 6 << 20;
const RATE: &str = "1M";

pub(crate) async fn application() {
    let Some(mut machine) = Machine::new() else { return };
    machine.start();
    machine.node_ready().await;
    let began = Instant::now();
    deploy(&machine, "one");
    for what in ["statefulset/store", "deployment/front", "deployment/worker"] {
        machine.until("it is applied", &["-n", "shop", what], Value::is_object).await;
        machine.told(&["-n", "shop", "rollout", "status", what, "--timeout=60s"]).await;
    }
    let is_balanced = |service: &Value| service["status"]["loadBalancer"]["ingress"][0]["ip"] == ADDRESS;
    machine.until("it has the node's address", &["-n", "shop", "service", "front"], is_balanced).await;
    page_until(&machine, "", "shop one").await;
    println!("the application runs {:?} after its file came", began.elapsed());

    work(&machine).await;
    measured(&machine).await;
    scheduled(&machine).await;
    updated(&mut machine).await;
    restarted(&mut machine).await;
    replaced(&machine).await;
    assert!(machine.end_daemon(Signal::TERM).await.success());
}

/// Writes the file, as an editor does.
fn deploy(machine: &Machine, version: &str) {
    // Transfers keep the front end busy, and its pods are to stay the same.
    let text = SHOP.replace(SHOP_IMAGE, IMAGE).replace("maxReplicas: 4", "maxReplicas: 2");
    let text = text.replace("value: one", &format!("value: {version}"));
    let folder = machine.disk("data/server/manifests");
    fs::write(folder.join(".shop.yaml.swp"), text).expect("a file");
    fs::rename(folder.join(".shop.yaml.swp"), folder.join("shop.yaml")).expect("it is there");
}

/// What the front end answers at the node's address.
async fn page(machine: &Machine, path: &str) -> String {
    let url = format!("http://{ADDRESS}:8080/{path}");
    ran(machine.command(&["curl", "-s", "--max-time", "5", &url])).await.out.trim().to_owned()
}

async fn page_until(machine: &Machine, path: &str, wanted: &str) {
    let began = Instant::now();
    loop {
        let found = page(machine, path).await;
        if found.contains(wanted) {
            return;
        }
        assert!(began.elapsed() < PATIENCE, "/{path} is {found:?}, not {wanted:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Orders reach workers through the store, which is found by its names.
async fn work(machine: &Machine) {
    for job in ["apple", "pear", "plum"] {
        assert_eq!(page(machine, &format!("cgi-bin/order?{job}")).await, "queued");
        page_until(machine, &format!("cgi-bin/result?{job}"), "done-by-worker-").await;
    }
    let shop = |words: &'static str| {
        let words = ["-n", "shop", "exec", "deploy/front", "--", "sh", "-c", words];
        async move { machine.told(&words).await }
    };
    // By the Service's name, in each of its lengths, and through its own address.
    for name in ["front", "front.shop", "front.shop.svc", "front.shop.svc.cluster.local."] {
        let command = ["-n", "shop", "exec", "deploy/front", "--", "wget", "-q", "-O", "-"];
        let said = machine.told(&[&command[..], &[&format!("http://{name}:8080/")]].concat()).await;
        assert_eq!(said.trim(), "shop one", "{name}");
    }
    let looked = shop("nslookup store-0.store.shop.svc.cluster.local").await;
    assert!(looked.contains("10.42.0."), "{looked}");
}

/// What pods use is known, to people and to the autoscaler.
async fn measured(machine: &Machine) {
    let began = Instant::now();
    loop {
        let top = machine.said(&["-n", "shop", "top", "pods", "--no-headers"]).await;
        if top.out.lines().count() >= 5 {
            break;
        }
        assert!(began.elapsed() < PATIENCE, "{top:?}");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    let is_known = |scaler: &Value| scaler["status"]["currentMetrics"][0]["resource"]["current"].is_object();
    machine.until("it knows the load", &["-n", "shop", "hpa", "front"], is_known).await;
}

/// The CronJob's pods do what they should; nobody waits for the full minute.
async fn scheduled(machine: &Machine) {
    machine.told(&["-n", "shop", "create", "job", "now", "--from=cronjob/heartbeat"]).await;
    machine.told(&["-n", "shop", "wait", "--for=condition=complete", "job/now", "--timeout=60s"]).await;
    page_until(machine, "cgi-bin/result?heartbeat", "beaten").await;
}

/// A new version comes by editing the file and nobody is turned away meanwhile; then back again.
async fn updated(machine: &mut Machine) {
    for version in ["two", "one"] {
        deploy(machine, version);
        let wanted = format!("shop {version}");
        let began = Instant::now();
        loop {
            let found = page(machine, "").await;
            assert!(found.starts_with("shop "), "nobody answered: {found:?}");
            let rolled = machine.said(&["-n", "shop", "rollout", "status", "deployment/front", "--watch=false"]).await;
            if found == wanted && rolled.out.contains("successfully rolled out") {
                break;
            }
            assert!(began.elapsed() < PATIENCE, "{found:?}, {rolled:?}");
        }
    }
    // And once more without the file.
    machine.told(&["-n", "shop", "rollout", "undo", "deployment/front"]).await;
    page_until(machine, "", "shop two").await;
    machine.told(&["-n", "shop", "rollout", "undo", "deployment/front"]).await;
    machine.told(&["-n", "shop", "rollout", "status", "deployment/front", "--timeout=60s"]).await;
}

/// The daemon restarts, and is killed, in the middle of transfers through the load balancer: they go on to their ends.
async fn restarted(machine: &mut Machine) {
    machine.told(&["-n", "shop", "patch", "cronjob", "heartbeat", "-p", r#"{"spec":{"suspend":true}}"#]).await;
    machine.told(&["-n", "shop", "delete", "job", "--all", "--timeout=60s"]).await;
    let stays = |pod: &Value| pod["metadata"]["deletionTimestamp"].is_null() && holds(pod, "Ready");
    let is_quiet =
        |list: &Value| list["items"].as_array().is_some_and(|pods| pods.len() == 5 && pods.iter().all(stays));
    machine.until("only servers are left", &["-n", "shop", "pods"], is_quiet).await;
    let make = format!("head -c {FILE_BYTES} /dev/zero > /www/large");
    let pods = machine.get(&["-n", "shop", "pods", "-l", "app=front"]).await;
    for pod in pods["items"].as_array().expect("a list") {
        let name = pod["metadata"]["name"].as_str().expect("a name");
        machine.told(&["-n", "shop", "exec", name, "--", "sh", "-c", &make]).await;
    }
    let before = Facts::in_namespace(machine, "shop").await;
    for signal in [Signal::TERM, Signal::KILL] {
        let url = format!("http://{ADDRESS}:8080/large");
        let mut transfer = machine.command(&["curl", "-s", "--limit-rate", RATE, "-w", "%{size_download}"]);
        transfer.args(["-o", "/dev/null", &url]).stdout(Stdio::piped());
        let transfer = transfer.spawn().expect("curl was found before");
        tokio::time::sleep(Duration::from_millis(500)).await;
        machine.end_daemon(signal).await;
        // New connections need no daemon either.
        assert_eq!(page(machine, "").await, "shop one");
        machine.start();
        machine.node_ready().await;
        let output = tokio::time::timeout(PATIENCE, transfer.wait_with_output()).await.expect("it ends");
        let size = String::from_utf8_lossy(&output.expect("it is our child").stdout).into_owned();
        assert_eq!(size, FILE_BYTES.to_string(), "after {signal:?}");
        work_again(machine).await;
    }
    let began = Instant::now();
    loop {
        let after = Facts::in_namespace(machine, "shop").await;
        if after == before {
            break;
        }
        assert!(began.elapsed() < PATIENCE, "{after:?}, before {before:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn work_again(machine: &Machine) {
    page_until(machine, "cgi-bin/order?cherry", "queued").await;
    page_until(machine, "cgi-bin/result?cherry", "done-by-worker-").await;
}

/// A new pod of the store finds what the one before it kept; without its claim nothing stays.
async fn replaced(machine: &Machine) {
    machine.told(&["-n", "shop", "delete", "pod", "store-0"]).await;
    machine.told(&["-n", "shop", "rollout", "status", "statefulset/store", "--timeout=60s"]).await;
    page_until(machine, "cgi-bin/result?apple", "done-by-worker-").await;

    let volumes = machine.disk("data/storage");
    assert_eq!(fs::read_dir(&volumes).expect("a directory").count(), 1);
    fs::remove_file(machine.disk("data/server/manifests/shop.yaml")).expect("it is there");
    machine.told(&["delete", "namespace", "shop", "--timeout=60s"]).await;
    machine.until("volumes go with their claims", &["pv"], |list| list["items"] == serde_json::json!([])).await;
    assert_eq!(fs::read_dir(&volumes).expect("a directory").count(), 0);
}
