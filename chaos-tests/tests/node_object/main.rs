//! The Node, its status and its lease, over the API server in this process and a real containerd of the test's own.

mod garbage;
mod memory;
mod runtime;

use std::fs;
use std::future::{Future, ready};
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use chaos_tests::cluster::{Cluster, Plane};
use k3sd_client::events::recorder;
use k3sd_cri::v1;
use k3sd_kubelet_base::PodsSnapshot;
use k3sd_kubelet_cgroups::{CgroupSources, Cgroups, Driver};
use k3sd_kubelet_node::config::KubeletConfiguration;
use k3sd_kubelet_node::eviction::{Evict, Eviction};
use k3sd_kubelet_node::figures::{Figures, VolumeFigures};
use k3sd_kubelet_node::identity::{CloudAnnotations, Identity, NodeIps};
use k3sd_kubelet_node::shutdown::ShutdownConfig;
use k3sd_kubelet_node::status::{Ask, Roots};
use k3sd_kubelet_node::{NodeConfig, NodeDeps, devices, tree};
use k3sd_runtime::lend::Lend;
use k3sd_runtime::{Clock, subtree};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Node;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use tokio::sync::watch;

use self::runtime::Containerd;

const NAME: &str = "one";

/// There are no pods, so that nobody is asked to make one go.
#[derive(Debug)]
struct Nobody;

impl Evict for Nobody {
    fn evict(&self, _: Eviction) -> Pin<Box<dyn Future<Output = bool> + Send>> {
        Box::pin(ready(false))
    }
}

fn identity() -> Identity {
    Identity {
        name: NAME.to_owned(),
        hostname: NAME.to_owned(),
        architecture: "amd64".to_owned(),
        labels: [("disk".to_owned(), "ssd".to_owned())].into(),
        annotations: [("k3s.io/node-args".to_owned(), "[]".to_owned())].into(),
        cloud: Some(CloudAnnotations { internal_ip: "127.0.0.9".to_owned(), ..CloudAnnotations::default() }),
        controller_attaches: true,
        ..Identity::default()
    }
}

/// A node that there are no pods on.
struct Bare {
    kubelet: KubeletConfiguration,
    pods: PodsSnapshot,
    evict: Arc<dyn Evict>,
    /// The cgroup above that of all pods.
    cgroup_root: &'static str,
}

impl Bare {
    fn new(root: &Path) -> Self {
        let kubelet = KubeletConfiguration {
            node_status_update_frequency: Duration::from_millis(200),
            pod_logs_dir: root.join("logs"),
            ..KubeletConfiguration::default()
        };
        Self { kubelet, pods: PodsSnapshot::default(), evict: Arc::new(Nobody), cgroup_root: "" }
    }
}

/// A control plane, a node beside it, and the way to the node's figures.
async fn start(runtime: &Containerd, root: &Path, bare: Bare) -> Option<(Cluster, Figures)> {
    let Ok(cgroups) = Cgroups::detect(&CgroupSources::default(), Driver::Cgroupfs, bare.cgroup_root) else {
        println!("ignored: there are no cgroups");
        return None;
    };
    let plane = Plane::new(Clock::system());
    let connect = plane.identities().user(&format!("system:node:{NAME}"), &["system:nodes"]);
    let (events, recorder) = recorder("events", connect.clone());
    let config = NodeConfig {
        kubelet: bare.kubelet,
        root_dir: root.to_owned(),
        identity: identity(),
        ips: NodeIps::default(),
        kubelet_version: "v1.34.0+k3sd1".to_owned(),
        roots: Roots::default(),
        kept_images: Vec::new(),
        shutdown: ShutdownConfig::default(),
    };
    let deps = NodeDeps {
        connect,
        cri: runtime.cri(),
        cgroups: Arc::new(cgroups),
        pods: watch::channel(Arc::new(bare.pods)).1,
        pods_complete: watch::channel(true).1,
        evict: bare.evict,
        recorder,
        volumes: VolumeFigures::default(),
        volumes_in_use: Ask::default(),
        problems: Ask::default(),
        is_ending: Arc::default(),
        device_socket: Lend::new(devices::bind(&root.join("device-plugins")).expect("a socket")),
    };
    let node = tree(config, deps).expect("the settings make sense");
    let figures = node.figures.clone();
    let cluster = plane.start(vec![events, subtree("node", node.spec)]).await;
    Some((cluster, figures))
}

fn nodes(cluster: &Cluster) -> Api<Node> {
    Api::all(cluster.admin())
}

async fn node(cluster: &Cluster) -> Option<Value> {
    let node = nodes(cluster).get_opt(NAME).await.ok()??;
    serde_json::to_value(node).ok()
}

/// Status, reason and message of a condition.
fn condition(node: &Value, type_: &str) -> [String; 3] {
    let all = node["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let found = all.into_iter().find(|condition| condition["type"] == type_).unwrap_or_default();
    ["status", "reason", "message"].map(|field| found[field].as_str().unwrap_or_default().to_owned())
}

async fn wait_for(cluster: &Cluster, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
    cluster
        .wait_within(Duration::from_secs(15), what, async || node(cluster).await.is_some_and(|node| holds(&node)))
        .await;
    node(cluster).await.expect("it is there")
}

fn is_ready(node: &Value) -> bool {
    condition(node, "Ready")[0] == "True"
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_is_made_and_says_how_it_is() {
    let Some(runtime) = Containerd::start().await else { return };
    let root = tempfile::tempdir().expect("a directory");
    let Some((cluster, figures)) = start(&runtime, root.path(), Bare::new(root.path())).await else { return };

    let without = wait_for(&cluster, "the node tells of a missing network", |node| {
        condition(node, "Ready")[2].starts_with("container runtime network not ready: NetworkReady=false")
    })
    .await;
    assert_eq!(condition(&without, "Ready")[..2], ["False", "KubeletNotReady"]);
    let taints: Vec<&str> =
        without["spec"]["taints"].as_array().into_iter().flatten().filter_map(|taint| taint["key"].as_str()).collect();
    assert!(taints.contains(&"node.cloudprovider.kubernetes.io/uninitialized"), "{taints:?}");
    assert!(taints.contains(&"node.kubernetes.io/not-ready"), "{taints:?}");

    runtime.give_network();
    let ready = wait_for(&cluster, "the node is ready", is_ready).await;
    let message = "kubelet is posting ready status".to_owned();
    assert_eq!(condition(&ready, "Ready"), ["True".to_owned(), "KubeletReady".to_owned(), message]);
    assert_eq!(condition(&ready, "MemoryPressure")[1], "KubeletHasSufficientMemory");
    assert_eq!(ready["metadata"]["labels"]["disk"], "ssd");
    assert_eq!(ready["metadata"]["labels"]["kubernetes.io/hostname"], NAME);
    assert_eq!(ready["metadata"]["annotations"]["k3s.io/internal-ip"], "127.0.0.9");
    let info = &ready["status"]["nodeInfo"];
    let version = runtime.cri().version(v1::VersionRequest::default()).await.expect("it answers");
    assert_eq!(info["containerRuntimeVersion"], format!("containerd://{}", version.runtime_version));
    assert_eq!(info["kubeletVersion"], "v1.34.0+k3sd1");
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").expect("a kernel");
    assert_eq!(info["bootID"], boot.trim());
    for resource in ["cpu", "memory", "ephemeral-storage", "pods"] {
        assert!(ready["status"]["capacity"][resource].is_string(), "{resource}");
        assert!(ready["status"]["allocatable"][resource].is_string(), "{resource}");
    }
    assert_eq!(ready["status"]["daemonEndpoints"]["kubeletEndpoint"]["Port"], 10250);

    let leases: Api<Lease> = Api::namespaced(cluster.admin(), "kube-node-lease");
    let is_held = async || leases.get_opt(NAME).await.is_ok_and(|lease| lease.is_some());
    cluster.wait_until("the node holds its lease", is_held).await;
    let lease = serde_json::to_value(leases.get(NAME).await.expect("it is there")).expect("JSON");
    assert_eq!(lease["spec"]["holderIdentity"], NAME);
    assert_eq!(lease["spec"]["leaseDurationSeconds"], 40);
    assert_eq!(lease["metadata"]["ownerReferences"][0]["uid"], ready["metadata"]["uid"]);

    let summary = figures.summary().await.expect("it is measured");
    assert!(summary.node.memory.is_some_and(|memory| memory.working_set_bytes > Some(1 << 20)));
    assert!(summary.node.fs.is_some_and(|fs| fs.capacity_bytes > Some(1 << 20)));
    let text = figures.resource_metrics().await.expect("it is measured");
    assert!(text.contains("\nnode_cpu_usage_seconds_total "), "{text}");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_changes_nothing_but_what_flags_say() {
    let Some(runtime) = Containerd::start().await else { return };
    runtime.give_network();
    let root = tempfile::tempdir().expect("a directory");
    let Some((cluster, _)) = start(&runtime, root.path(), Bare::new(root.path())).await else { return };
    let ready = wait_for(&cluster, "the node is ready", is_ready).await;

    // At rest nothing is written: its lease is another object.
    let version = |node: &Value| node["metadata"]["resourceVersion"].clone();
    let settled = async || {
        let before = node(&cluster).await.map(|node| version(&node));
        cluster.pass(Duration::from_secs(1)).await;
        before.is_some() && before == node(&cluster).await.map(|node| version(&node))
    };
    cluster.wait_until("the node has said all", settled).await;

    let before = node(&cluster).await.expect("it is there");
    for actor in ["status", "lease", "figures", "eviction", "images", "containers"] {
        cluster.kill(&format!("loops/node/{actor}"));
    }
    cluster.pass(Duration::from_secs(2)).await;
    let after = node(&cluster).await.expect("it is there");
    assert_eq!(after["metadata"]["uid"], ready["metadata"]["uid"]);
    assert_eq!(version(&after), version(&before), "a restart writes nothing\n{before}\n{after}");

    // What somebody changed stays until the next start, which sets what flags say and leaves the rest.
    let change = json!({"metadata": {"labels": {"disk": "hdd", "mine": "yes"}}});
    nodes(&cluster).patch(NAME, &PatchParams::default(), &Patch::Merge(change)).await.expect("an administrator may");
    cluster.kill("loops/node/status");
    let again =
        wait_for(&cluster, "the label of the flag is back", |node| node["metadata"]["labels"]["disk"] == "ssd").await;
    assert_eq!(again["metadata"]["labels"]["mine"], "yes");
    assert!(is_ready(&again));

    // Somebody wrote nonsense into its status: it says again what is so.
    let lie = json!({"status": {"capacity": {"cpu": "4000"}}});
    nodes(&cluster)
        .patch_status(NAME, &PatchParams::default(), &Patch::Merge(lie))
        .await
        .expect("an administrator may");
    let cpus = ready["status"]["capacity"]["cpu"].clone();
    wait_for(&cluster, "the capacity is right again", |node| node["status"]["capacity"]["cpu"] == cpus).await;
    cluster.stop().await;
}
