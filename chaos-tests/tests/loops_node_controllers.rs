//! The controllers of nodes, over the API server and fake nodes that fall silent.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use chaos_tests::cluster::nodes::{FakeNodes, NodesArgs, fake_nodes};
use chaos_tests::cluster::{Cluster, Plane};
use chaos_tests::{Replay, seed};
use k3sd_client::controller::pods::is_ready;
use k3sd_client::controller::setup::{ControllerConfig, Network, NodesConfig, Setup};
use k3sd_runtime::{Clock, Rng, Signal};
use k8s_openapi::api::core::v1::{Event, Node, Pod, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Api;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

const NOT_READY: &str = "node.kubernetes.io/not-ready";
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
const UNINITIALIZED: &str = "node.cloudprovider.kubernetes.io/uninitialized";

async fn start(seed: u64, args: NodesArgs) -> (Cluster, FakeNodes) {
    let clock = Clock::simulated(seed);
    let plane = Plane::new(clock.clone());
    let (nodes, fake) = fake_nodes("nodes", &plane.manager(), args);
    let pods = Network { address: IpAddr::V4(Ipv4Addr::new(10, 42, 0, 0)), prefix_bits: 16 };
    let nodes_config = NodesConfig { cluster_cidrs: vec![pods], ..NodesConfig::default() };
    let config = ControllerConfig { nodes: nodes_config, ..ControllerConfig::default() };
    let loops = |setup: &mut Setup<'_>| {
        let mut loops = k3sd_controllers_nodes::loops(setup);
        loops.extend(k3sd_controllers_nodes::cloud(setup));
        loops
    };
    let cluster = plane.start_controllers(config, vec![nodes], loops).await;
    // Made by a controller that isn't here; pods need it.
    let account = ServiceAccount {
        metadata: ObjectMeta { name: Some("default".to_owned()), ..ObjectMeta::default() },
        ..ServiceAccount::default()
    };
    let accounts: Api<ServiceAccount> = Api::namespaced(cluster.admin(), "default");
    accounts.create(&PostParams::default(), &account).await.expect("an administrator may");
    (cluster, fake)
}

fn nodes(cluster: &Cluster) -> Api<Node> {
    Api::all(cluster.admin())
}

fn pods(cluster: &Cluster) -> Api<Pod> {
    Api::namespaced(cluster.admin(), "default")
}

async fn all_nodes(cluster: &Cluster) -> Vec<Node> {
    nodes(cluster).list(&ListParams::default()).await.map(|found| found.items).unwrap_or_default()
}

/// `key:effect` of each taint.
async fn taints(cluster: &Cluster, name: &str) -> BTreeSet<String> {
    let node = nodes(cluster).get(name).await.ok();
    let taints = node.and_then(|node| node.spec?.taints).unwrap_or_default();
    taints.into_iter().map(|taint| format!("{}:{}", taint.key, taint.effect)).collect()
}

fn both(key: &str) -> BTreeSet<String> {
    ["NoExecute", "NoSchedule"].map(|effect| format!("{key}:{effect}")).into()
}

async fn ready(cluster: &Cluster, name: &str) -> Option<(String, String)> {
    let conditions = nodes(cluster).get(name).await.ok()?.status?.conditions?;
    let ready = conditions.into_iter().find(|condition| condition.type_ == "Ready")?;
    Some((ready.status, ready.reason?))
}

async fn settled(cluster: &Cluster, count: usize) {
    let usable = |node: &Node| {
        let spec = node.spec.clone().unwrap_or_default();
        spec.taints.is_none_or(|taints| taints.is_empty()) && spec.pod_cidrs.is_some()
    };
    let all = async || all_nodes(cluster).await.iter().filter(|node| usable(node)).count() == count;
    cluster.wait_until("all nodes are there, with networks and without taints", all).await;
}

async fn make(cluster: &Cluster, name: &str, node: &str, tolerations: Value) {
    let pod = json!({"metadata": {"name": name}, "spec": {"nodeName": node, "tolerations": tolerations,
        "containers": [{"name": "c", "image": "registry.example/c:1"}]}});
    let pod = serde_json::from_value(pod).expect("a pod");
    pods(cluster).create(&PostParams::default(), &pod).await.expect("an administrator may");
}

async fn is_pod_ready(cluster: &Cluster, name: &str) -> bool {
    pods(cluster).get(name).await.is_ok_and(|pod| is_ready(&pod))
}

/// Whether an Event says this, with such a reason.
async fn is_said(cluster: &Cluster, reason: &str, message: &str) -> bool {
    let events: Api<Event> = Api::all(cluster.admin());
    let events = events.list(&ListParams::default()).await.map(|found| found.items).unwrap_or_default();
    events.iter().any(|it| it.reason.as_deref() == Some(reason) && it.message.as_deref() == Some(message))
}

fn seconds(cluster: &Cluster) -> u64 {
    cluster.clock().wall().as_secs()
}

/// Kills whoever lives there, if somebody does: it may be dead already.
fn kill(cluster: &Cluster, path: &str) {
    _ = cluster.system().signal(path, Signal::Kill);
}

#[tokio::test(start_paused = true)]
async fn a_silent_node_becomes_unreachable_and_comes_back() {
    let (cluster, fake) = start(1, NodesArgs::count(4)).await;
    settled(&cluster, 4).await;
    assert!(is_said(&cluster, "RegisteredNode", "Node node-1 event: Registered Node node-1 in Controller").await);
    let forever = json!([{"operator": "Exists"}]);
    make(&cluster, "p", "node-1", forever).await;
    cluster.wait_until("the pod is ready", async || is_pod_ready(&cluster, "p").await).await;
    cluster.pass(Duration::from_secs(600)).await;
    assert!(taints(&cluster, "node-1").await.is_empty(), "leases keep it alive");

    fake.silence("node-1");
    let silent_at = seconds(&cluster);
    let unknown = Some(("Unknown".to_owned(), "NodeStatusUnknown".to_owned()));
    cluster.pass(Duration::from_secs(35)).await;
    assert_eq!(ready(&cluster, "node-1").await.expect("a condition").0, "True", "its grace period isn't over");
    cluster.wait_until("it is unknown", async || ready(&cluster, "node-1").await == unknown).await;
    let after = seconds(&cluster) - silent_at;
    assert!((40..=51).contains(&after), "{after} s");
    cluster.kill("loops/nodelifecycle");
    cluster.wait_until("it is tainted", async || taints(&cluster, "node-1").await == both(UNREACHABLE)).await;
    cluster.wait_until("its pod isn't ready", async || !is_pod_ready(&cluster, "p").await).await;
    assert!(pods(&cluster).get("p").await.expect("it stays").metadata.deletion_timestamp.is_none());
    for (reason, message) in
        [("NodeNotReady", "Node node-1 status is now: NodeNotReady"), ("NodeNotReady", "Node is not ready")]
    {
        cluster.wait_until("Events tell", async || is_said(&cluster, reason, message).await).await;
    }

    fake.answer("node-1");
    cluster.wait_until("it is back", async || taints(&cluster, "node-1").await.is_empty()).await;
    cluster.wait_until("so is its pod", async || is_pod_ready(&cluster, "p").await).await;
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn pods_leave_when_their_time_is_over_and_not_later() {
    let (cluster, fake) = start(2, NodesArgs::count(4)).await;
    settled(&cluster, 4).await;
    let of = |seconds: Value| {
        json!([{"key": UNREACHABLE, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": seconds},
            {"key": NOT_READY, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": seconds}])
    };
    for (name, seconds) in [("short", json!(30)), ("long", json!(300)), ("always", json!(null))] {
        make(&cluster, name, "node-1", of(seconds)).await;
    }
    fake.silence("node-1");
    cluster
        .wait_within(Duration::from_secs(120), "it is tainted", async || {
            taints(&cluster, "node-1").await == both(UNREACHABLE)
        })
        .await;
    let tainted_at = seconds(&cluster);
    let is_going = async |name: &str| match pods(&cluster).get_opt(name).await {
        Ok(found) => found.is_none_or(|pod| pod.metadata.deletion_timestamp.is_some()),
        Err(_) => false,
    };
    cluster.wait_until("the short one goes", async || is_going("short").await).await;
    assert!((29..=31).contains(&(seconds(&cluster) - tainted_at)), "{}", seconds(&cluster) - tainted_at);
    let going = pods(&cluster).get("short").await.expect("its node doesn't answer").status.expect("a status");
    let target = going.conditions.into_iter().flatten().find(|condition| condition.type_ == "DisruptionTarget");
    let target = target.expect("it says why");
    assert_eq!((target.status.as_str(), target.reason.as_deref()), ("True", Some("DeletionByTaintManager")));
    cluster
        .wait_until("an Event tells", async || {
            is_said(&cluster, "TaintManagerEviction", "Marking for deletion Pod default/short").await
        })
        .await;

    // A death in between doesn't begin the wait anew.
    cluster.pass(Duration::from_secs(200)).await;
    cluster.kill("loops/taint-eviction");
    assert!(!is_going("long").await);
    cluster.wait_within(Duration::from_secs(90), "the long one goes", async || is_going("long").await).await;
    assert!((299..=302).contains(&(seconds(&cluster) - tainted_at)), "{}", seconds(&cluster) - tainted_at);
    cluster.pass(Duration::from_secs(1000)).await;
    assert!(!is_going("always").await);
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn who_comes_back_in_time_keeps_its_pods() {
    let (cluster, fake) = start(3, NodesArgs::count(4)).await;
    settled(&cluster, 4).await;
    // Admission adds tolerations for five minutes.
    make(&cluster, "p", "node-1", json!([])).await;
    fake.silence("node-1");
    cluster
        .wait_within(Duration::from_secs(120), "it is tainted", async || {
            taints(&cluster, "node-1").await == both(UNREACHABLE)
        })
        .await;
    cluster.pass(Duration::from_secs(100)).await;
    fake.answer("node-1");
    cluster.wait_until("it is back", async || taints(&cluster, "node-1").await.is_empty()).await;
    let cancelled = async || is_said(&cluster, "TaintManagerEviction", "Cancelling deletion of Pod default/p").await;
    cluster.wait_until("the eviction is cancelled", cancelled).await;
    cluster.pass(Duration::from_secs(1000)).await;
    assert!(pods(&cluster).get("p").await.expect("it stays").metadata.deletion_timestamp.is_none());
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn when_nobody_answers_nobody_is_evicted() {
    let (cluster, fake) = start(4, NodesArgs { zones: 0, ..NodesArgs::count(3) }).await;
    settled(&cluster, 3).await;
    make(&cluster, "p", "node-1", json!([])).await;
    (0..3).for_each(|at| fake.silence(&format!("node-{at}")));
    let evicting = async || {
        let all = all_nodes(&cluster).await;
        all.iter()
            .flat_map(|node| node.spec.iter().flat_map(|spec| spec.taints.iter().flatten()))
            .filter(|taint| taint.effect == "NoExecute")
            .count()
    };
    let unknown = async || {
        let mut unknown = 0;
        for at in 0..3 {
            let status = ready(&cluster, &format!("node-{at}")).await;
            unknown += usize::from(status.is_some_and(|(status, _)| status == "Unknown"));
        }
        unknown == 3
    };
    cluster.wait_within(Duration::from_secs(120), "all are unknown", unknown).await;
    cluster.wait_until("no node is being emptied", async || evicting().await == 0).await;
    cluster.pass(Duration::from_secs(1000)).await;
    assert_eq!(evicting().await, 0);
    assert!(pods(&cluster).get("p").await.expect("it stays").metadata.deletion_timestamp.is_none());
    // One answers, so the others are away for good: the first goes at once, the next ten seconds later.
    fake.answer("node-0");
    cluster.wait_until("one is being emptied", async || evicting().await == 1).await;
    let first_at = seconds(&cluster);
    cluster.wait_until("another is being emptied", async || evicting().await == 2).await;
    assert!((9..=11).contains(&(seconds(&cluster) - first_at)), "{}", seconds(&cluster) - first_at);
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn each_node_has_a_network_of_its_own_whoever_dies() {
    let replay = Replay { seed: seed(), test: "each_node_has_a_network_of_its_own_whoever_dies" };
    let mut rng = Rng::seeded(replay.seed);
    let (cluster, _fake) = start(replay.seed, NodesArgs { lease_period: None, ..NodesArgs::count(3) }).await;
    for at in 0..60 {
        let node = json!({"metadata": {"name": format!("extra-{at}")}});
        let node = serde_json::from_value(node).expect("a node");
        nodes(&cluster).create(&PostParams::default(), &node).await.expect("an administrator may");
        if rng.below(3) == 0 {
            cluster.pass(Duration::from_millis(rng.below(20))).await;
        }
        if rng.below(4) == 0 {
            kill(&cluster, "loops/nodeipam");
        }
    }
    let networks = async || -> Vec<String> {
        let all = all_nodes(&cluster).await.into_iter().filter_map(|node| node.spec?.pod_cidr);
        all.collect()
    };
    cluster.wait_until("all have one", async || networks().await.len() == 63).await;
    let (all, mut distinct) = (networks().await, BTreeSet::new());
    assert!(all.iter().all(|network| distinct.insert(network.clone())), "{all:?}");
    assert!(all.iter().all(|network| network.starts_with("10.42.") && network.ends_with(".0/24")), "{all:?}");
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_cordoned_node_is_tainted_and_a_ttl_is_noted() {
    let (cluster, _fake) = start(6, NodesArgs::count(1)).await;
    settled(&cluster, 1).await;
    let cordon = |yes: bool| Patch::Merge(json!({"spec": {"unschedulable": yes}}));
    nodes(&cluster).patch("node-0", &PatchParams::default(), &cordon(true)).await.expect("it may be cordoned");
    let tainted = BTreeSet::from(["node.kubernetes.io/unschedulable:NoSchedule".to_owned()]);
    cluster.wait_until("it is tainted", async || taints(&cluster, "node-0").await == tainted).await;
    nodes(&cluster).patch("node-0", &PatchParams::default(), &cordon(false)).await.expect("it may be uncordoned");
    cluster.wait_until("it isn't any more", async || taints(&cluster, "node-0").await.is_empty()).await;
    let node = nodes(&cluster).get("node-0").await.expect("it is there");
    assert_eq!(node.metadata.annotations.expect("some")["node.alpha.kubernetes.io/ttl"], "0");
    nodes(&cluster).delete("node-0", &DeleteParams::default()).await.expect("it may be deleted");
    let message = "Node node-0 event: Removing Node node-0 from Controller";
    cluster.wait_until("an Event tells", async || is_said(&cluster, "RemovingNode", message).await).await;
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_node_is_introduced_as_by_a_cloud() {
    let (cluster, _fake) = start(7, NodesArgs { lease_period: None, ..NodesArgs::count(1) }).await;
    let node = json!({"metadata": {"name": "new"},
        "spec": {"taints": [{"key": UNINITIALIZED, "value": "true", "effect": "NoSchedule"}]}});
    let node = serde_json::from_value(node).expect("a node");
    nodes(&cluster).create(&PostParams::default(), &node).await.expect("an administrator may");
    cluster.pass(Duration::from_secs(5)).await;
    assert!(
        taints(&cluster, "new").await.contains(&format!("{UNINITIALIZED}:NoSchedule")),
        "its address isn't known yet"
    );
    let known =
        json!({"k3s.io/internal-ip": "192.0.2.7", "k3s.io/external-ip": "198.51.100.7", "k3s.io/hostname": "host"});
    let known = Patch::Merge(json!({"metadata": {"annotations": known}}));
    nodes(&cluster).patch("new", &PatchParams::default(), &known).await.expect("it may be annotated");
    let introduced = async || !taints(&cluster, "new").await.contains(&format!("{UNINITIALIZED}:NoSchedule"));
    cluster.wait_until("it is introduced", introduced).await;
    let node = nodes(&cluster).get("new").await.expect("it is there");
    assert_eq!(node.spec.expect("a spec").provider_id.as_deref(), Some("k3s://new"));
    let addresses = node.status.expect("a status").addresses.expect("addresses");
    let addresses: Vec<_> = addresses.iter().map(|it| format!("{} {}", it.type_, it.address)).collect();
    assert_eq!(addresses, ["InternalIP 192.0.2.7", "ExternalIP 198.51.100.7", "Hostname host"]);
    assert_eq!(node.metadata.labels.expect("labels")["node.kubernetes.io/instance-type"], "k3s");
    cluster.wait_until("an Event tells", async || is_said(&cluster, "Synced", "Node synced successfully").await).await;
    cluster.stop().await;
}
