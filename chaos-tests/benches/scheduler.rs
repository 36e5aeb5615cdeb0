//! How many pods a second are bound through the API, in this process and over a store in memory: the pods are there, then
//! the scheduler starts.
//!
//! Bar: 2,500 a second plain and 800 with topology spread, on 5,000 nodes. `cargo bench -p chaos-tests --bench scheduler`;
//! with `-- --quick` only a small cluster.

#[path = "../../benches/table.rs"]
#[expect(dead_code, reason = "shared with benches that print other rows")]
mod table;

use std::time::{Duration, Instant};

use chaos_tests::cluster::{Cluster, Plane};
use futures_util::stream::{self, StreamExt as _};
use k3sd_client::informer::{Informer, Shared};
use k3sd_runtime::{Clock, Spec, Strategy, System, subtree};
use k3sd_scheduler::SchedulerArgs;
use k8s_openapi::api::core::v1::{Node, Pod, ServiceAccount};
use k8s_openapi::serde::{Serialize, de::DeserializeOwned};
use kube::Api;
use kube::api::PostParams;
use serde_json::{Value, json};
use table::Row;

/// Requests that make objects at the same time.
const AT_ONCE: usize = 64;
/// Pods that belong together.
const GROUP_PODS: usize = 100;
/// How often the pods are counted. Each look walks over all of them, and keeps a snapshot from being changed in place.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Longest wait for the pods of one row.
const LIMIT: Duration = Duration::from_secs(600);

async fn make<K>(api: &Api<K>, objects: impl Iterator<Item = Value>)
where
    K: kube::Resource + Serialize + DeserializeOwned + Clone + std::fmt::Debug,
{
    let one = |object: Value| async move {
        let object: K = serde_json::from_value(object).expect("an object");
        api.create(&PostParams::default(), &object).await.expect("it is made");
    };
    stream::iter(objects.map(one)).buffer_unordered(AT_ONCE).collect::<Vec<()>>().await;
}

fn node(index: usize) -> Value {
    let name = format!("n{index}");
    let zone = format!("z{}", index % 3);
    let labels = json!({ "kubernetes.io/hostname": name, "topology.kubernetes.io/zone": zone });
    let room = json!({ "cpu": "32", "memory": "128Gi", "pods": "110" });
    json!({ "metadata": { "name": name, "labels": labels }, "status": { "allocatable": room, "capacity": room } })
}

fn pod(index: usize, is_spread: bool) -> Value {
    let app = format!("app{}", index / GROUP_PODS);
    let requests = json!({ "requests": { "cpu": "100m", "memory": "64Mi" } });
    let mut pod = json!({
        "metadata": { "name": format!("p{index}"), "labels": { "app": app } },
        "spec": {
            "containers": [{ "name": "c", "image": "app", "resources": requests }],
            // New nodes are not ready, and nobody here says that they are.
            "tolerations": [{ "key": "node.kubernetes.io/not-ready", "operator": "Exists" }],
        },
    });
    if is_spread {
        pod["spec"]["topologySpreadConstraints"] = json!([{
            "maxSkew": 5, "topologyKey": "topology.kubernetes.io/zone", "whenUnsatisfiable": "DoNotSchedule",
            "labelSelector": { "matchLabels": { "app": app } },
        }]);
    }
    pod
}

fn bound(pods: &Informer<Pod>) -> usize {
    let has_node = |pod: &Pod| pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some());
    pods.snapshot().map_or(0, |pods| pods.iter().filter(|pod| has_node(pod)).count())
}

async fn measure(name: &'static str, nodes: usize, count: usize, is_spread: bool) {
    let cluster: Cluster = Plane::new(Clock::system()).start(Vec::new()).await;
    let account = json!({ "metadata": { "name": "default" } });
    make(&Api::<ServiceAccount>::namespaced(cluster.admin(), "default"), std::iter::once(account)).await;
    make(&Api::<Node>::all(cluster.admin()), (0..nodes).map(node)).await;
    let objects = (0..count).map(|index| pod(index, is_spread));
    make(&Api::<Pod>::namespaced(cluster.admin(), "default"), objects).await;

    let identities = cluster.identities();
    let mut informers = Shared::new(identities.user("reader", &["system:masters"]));
    let pods = informers.informer::<Pod>();
    let args = SchedulerArgs::alone(identities, "server");
    let scheduler = k3sd_scheduler::tree(args, &mut informers).expect("one profile");
    let root = Spec::new(Strategy::OneForOne)
        .child(subtree("informers", informers.spec()))
        .child(subtree("scheduler", scheduler));
    let began = Instant::now();
    let tree = System::new(Clock::system()).start(root);
    let mut first = None;
    loop {
        let done = bound(&pods);
        if done == count {
            break;
        }
        assert!(began.elapsed() < LIMIT, "only {done} of {count} are bound");
        if done > 0 {
            first.get_or_insert_with(|| (Instant::now(), done));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    let all = began.elapsed();
    let (since, before) = first.unwrap_or((began, 0));
    let rate = (count - before) as f64 / since.elapsed().as_secs_f64();
    let case = if is_spread { "topology spread" } else { "plain" };
    let what = format!("{count} pods on {nodes} nodes, {case} ({all:.1?} with the start)");
    Row::at_least(what, if is_spread { 800.0 } else { 2500.0 }, "pods/s", rate).named(name).print();
    tree.stop();
    tree.ended().await;
    cluster.stop().await;
}

fn main() {
    let is_quick = std::env::args().any(|argument| argument == "--quick");
    let sizes: [(usize, usize); 2] =
        if is_quick { [(100, 1_000), (200, 2_000)] } else { [(1_000, 10_000), (5_000, 50_000)] };
    let names = [["schedule-1000", "schedule-1000-spread"], ["schedule-5000", "schedule-5000-spread"]];
    Row::print_head("-");
    for ((nodes, pods), names) in sizes.into_iter().zip(names) {
        for (name, is_spread) in names.into_iter().zip([false, true]) {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
            runtime.expect("a runtime").block_on(measure(name, nodes, pods, is_spread));
        }
    }
}
