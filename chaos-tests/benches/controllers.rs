//! What the loops do with much: all controllers, the scheduler and fake nodes, in this process and over a store in memory.
//! The nodes are there and ready, then a Deployment is made; a namespace that is full goes away; many Deployments have
//! all that they ask for, and nobody has anything to do.
//!
//! Bars: 2,000 replicas on one node are bound within 5 s; of 5,000 on a hundred nodes all are there within 5 s, and ready
//! within 10 s; a namespace with 10,000 objects is gone within 10 s; 200 Deployments at rest take no measurable CPU, where
//! the heartbeats of their nodes are all there is to do. `cargo bench -p chaos-tests --bench controllers`; with
//! `-- --quick` a tenth of it.

#[path = "../../benches/table.rs"]
#[expect(dead_code, reason = "shared with benches that print other rows")]
mod table;

use std::time::{Duration, Instant};

use chaos_tests::cluster::nodes::{FakeNodes, NodesArgs, fake_nodes};
use chaos_tests::cluster::{Cluster, Plane};
use futures_util::stream::{self, StreamExt as _};
use k3sd_client::informer::{Informer, Shared};
use k3sd_controllers::{ControllersArgs, ControllersConfig, controllers};
use k3sd_runtime::{Clock, subtree};
use k3sd_scheduler::SchedulerArgs;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Node, Pod, ServiceAccount};
use kube::Api;
use kube::api::{DeleteParams, ListParams, PostParams};
use serde_json::json;
use table::Row;

/// Longest wait for the pods of one row.
const LIMIT: Duration = Duration::from_secs(120);
/// How often the pods are counted.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Requests that make objects at the same time.
const AT_ONCE: usize = 64;
/// Until what a burst set off is over, and how long a cluster at rest is looked at.
const SETTLE: Duration = Duration::from_secs(20);
const IDLE: Duration = Duration::from_secs(30);
/// What counts as no measurable CPU, in percent of a core: ten nodes with their heartbeats, and who answers them, are part
/// of what is measured.
const IDLE_PERCENT: f64 = 0.5;

/// So many replicas on so many nodes, and the bars of how soon they are there, bound and ready: name and seconds.
struct Case {
    nodes: usize,
    replicas: usize,
    bars: [Option<(&'static str, f64)>; 3],
}

/// A cluster whose nodes are ready.
struct World {
    cluster: Cluster,
    pods: Informer<Pod>,
    _nodes: FakeNodes,
}

/// How many pods are there, bound and ready.
fn count<'a>(pods: impl Iterator<Item = &'a Pod>) -> [usize; 3] {
    let mut counts = [0; 3];
    for pod in pods {
        let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
        let is_ready = conditions.filter(|told| told.type_ == "Ready").any(|told| told.status == "True");
        let is_bound = pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some());
        for (count, holds) in counts.iter_mut().zip([true, is_bound, is_ready]) {
            *count += usize::from(holds);
        }
    }
    counts
}

fn deployment(name: &str, replicas: usize) -> Deployment {
    let labels = json!({ "app": name });
    let containers = json!([{ "name": "c", "image": "app" }]);
    let template = json!({ "metadata": { "labels": labels }, "spec": { "containers": containers } });
    let spec = json!({ "replicas": replicas, "selector": { "matchLabels": labels }, "template": template });
    serde_json::from_value(json!({ "metadata": { "name": name }, "spec": spec })).expect("a Deployment")
}

impl World {
    async fn start(node_count: usize, pods_of_a_node: usize) -> Self {
        let plane = Plane::new(Clock::system());
        let (identities, clock, manager) = (plane.identities(), plane.clock().clone(), plane.manager());
        let mut nodes = NodesArgs::count(node_count);
        nodes.capacity.insert("pods".to_owned(), pods_of_a_node.to_string());
        let (nodes, kept) = fake_nodes("nodes", &manager, nodes);
        let mut informers = Shared::new(manager);
        let pods = informers.informer::<Pod>();
        let args = ControllersArgs { config: ControllersConfig::default(), identities: identities.clone(), clock };
        let controllers = controllers(&args, &mut informers);
        let args = SchedulerArgs::alone(identities, "server");
        let scheduler = k3sd_scheduler::tree(args, &mut informers).expect("one profile");
        let loops = vec![
            subtree("informers", informers.spec()),
            subtree("controllers", controllers),
            subtree("scheduler", scheduler),
            nodes,
        ];
        let cluster: Cluster = plane.start(loops).await;
        let (accounts, all): (Api<ServiceAccount>, Api<Node>) = (cluster.api(), Api::all(cluster.admin()));
        cluster
            .wait_until("the nodes are ready", async || {
                let untainted = |node: &Node| node.spec.as_ref().is_none_or(|spec| spec.taints.is_none());
                let ready = all
                    .list(&ListParams::default())
                    .await
                    .map_or(0, |all| all.iter().filter(|node| untainted(node)).count());
                ready == node_count && accounts.get_opt("default").await.is_ok_and(|found| found.is_some())
            })
            .await;
        Self { cluster, pods, _nodes: kept }
    }

    /// Seconds until so many pods are there, bound and ready.
    async fn reached(&self, began: Instant, wanted: usize) -> [f64; 3] {
        let mut reached = [None; 3];
        while reached.iter().any(Option::is_none) {
            let shown = self.pods.snapshot();
            let counts = count(shown.iter().flat_map(|shown| shown.iter()).map(|pod| &**pod));
            for (reached, count) in reached.iter_mut().zip(counts) {
                if count >= wanted {
                    reached.get_or_insert_with(|| began.elapsed());
                }
            }
            assert!(began.elapsed() < LIMIT, "only {counts:?} pods are there, bound and ready");
            tokio::time::sleep(LOOK_EVERY).await;
        }
        reached.map(|time| time.unwrap_or_default().as_secs_f64())
    }
}

async fn replicas(case: Case) {
    let Case { nodes, replicas, bars } = case;
    let world = World::start(nodes, replicas * 3 / nodes).await;
    let large = deployment("large", replicas);
    world.cluster.api::<Deployment>().create(&PostParams::default(), &large).await.expect("it is made");
    let reached = world.reached(Instant::now(), replicas).await;
    for ((state, took), bar) in ["there", "bound", "ready"].into_iter().zip(reached).zip(bars) {
        let what = format!("{replicas} replicas on {nodes} nodes, all {state}");
        match bar {
            Some((name, bar)) => Row::at_most(what, bar, "s", took).named(name).print(),
            None => Row { holds: None, ..Row::alone(what, "-", format!("{took:.2} s"), true) }.print(),
        }
    }
    world.cluster.stop().await;
}

async fn full_namespace(objects: usize) {
    let world = World::start(1, 10).await;
    let namespaces: Api<Namespace> = Api::all(world.cluster.admin());
    let metadata = |name: &str| json!({ "metadata": { "name": name } });
    let namespace = serde_json::from_value(metadata("full")).expect("a Namespace");
    namespaces.create(&PostParams::default(), &namespace).await.expect("it is made");
    let maps: Api<ConfigMap> = Api::namespaced(world.cluster.admin(), "full");
    let one = async |number: usize| {
        let map = serde_json::from_value(metadata(&format!("m{number}"))).expect("a ConfigMap");
        maps.create(&PostParams::default(), &map).await.expect("it is made");
    };
    stream::iter((0..objects).map(one)).buffer_unordered(AT_ONCE).collect::<Vec<()>>().await;
    let began = Instant::now();
    namespaces.delete("full", &DeleteParams::default()).await.expect("it may go");
    while namespaces.get_opt("full").await.is_ok_and(|found| found.is_some()) {
        assert!(began.elapsed() < LIMIT, "the namespace stays");
        tokio::time::sleep(LOOK_EVERY).await;
    }
    let what = format!("a namespace with {objects} ConfigMaps is gone");
    Row::at_most(what, 10.0, "s", began.elapsed().as_secs_f64()).named("namespace-gone").print();
    world.cluster.stop().await;
}

/// Seconds of processor that all threads of this process have had.
fn processor_seconds() -> f64 {
    let threads = std::fs::read_dir("/proc/self/task").expect("procfs is mounted").flatten();
    let times = threads.filter_map(|thread| std::fs::read_to_string(thread.path().join("schedstat")).ok());
    times.filter_map(|text| text.split(' ').next()?.parse::<f64>().ok()).sum::<f64>() / 1e9
}

async fn at_rest(deployments: usize) {
    const NODES: usize = 10;
    const REPLICAS: usize = 2;
    let world = World::start(NODES, deployments * REPLICAS).await;
    let api = world.cluster.api::<Deployment>();
    let one = async |number: usize| {
        let made = deployment(&format!("d{number}"), REPLICAS);
        api.create(&PostParams::default(), &made).await.expect("it is made");
    };
    stream::iter((0..deployments).map(one)).buffer_unordered(AT_ONCE).collect::<Vec<()>>().await;
    world.reached(Instant::now(), deployments * REPLICAS).await;
    tokio::time::sleep(SETTLE).await;
    let (spent, began) = (processor_seconds(), Instant::now());
    tokio::time::sleep(IDLE).await;
    let percent = (processor_seconds() - spent) / began.elapsed().as_secs_f64() * 100.0;
    let what = format!("{deployments} Deployments of {REPLICAS} replicas on {NODES} nodes, at rest");
    let ours = format!("{percent:.2} % of a core");
    Row::alone(what, "no measurable CPU", ours, percent < IDLE_PERCENT).named("deployments-idle").print();
    world.cluster.stop().await;
}

fn main() {
    let is_quick = std::env::args().any(|argument| argument == "--quick");
    let part = if is_quick { 10 } else { 1 };
    // Each has a runtime of its own, so that none inherits tasks of another.
    let run = |work: std::pin::Pin<Box<dyn Future<Output = ()>>>| {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        runtime.expect("a runtime").block_on(work);
    };
    Row::print_head("-");
    let bars = [None, Some(("replicas-bound", 5.0)), None];
    run(Box::pin(replicas(Case { nodes: 1, replicas: 2_000 / part, bars })));
    let bars = [Some(("replicas-there", 5.0)), None, Some(("replicas-ready", 10.0))];
    run(Box::pin(replicas(Case { nodes: 100 / part, replicas: 5_000 / part, bars })));
    run(Box::pin(full_namespace(10_000 / part)));
    run(Box::pin(at_rest(200 / part)));
}
