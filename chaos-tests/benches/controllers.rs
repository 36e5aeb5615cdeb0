//! How soon the pods of one large Deployment are there, bound and ready: all controllers, the scheduler and fake nodes, in
//! this process and over a store in memory. The nodes are there and ready, then the Deployment is made.
//!
//! Bars: 2,000 replicas on one node are bound within 5 s; of 5,000 on a hundred nodes all are there within 5 s, and ready
//! within 10 s. `cargo bench -p chaos-tests --bench controllers`; with `-- --quick` only a small one.

use std::time::{Duration, Instant};

use chaos_tests::cluster::nodes::{NodesArgs, fake_nodes};
use chaos_tests::cluster::{Cluster, Plane};
use k3sd_client::informer::Shared;
use k3sd_controllers::{ControllersArgs, ControllersConfig, controllers};
use k3sd_runtime::{Clock, subtree};
use k3sd_scheduler::SchedulerArgs;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Node, Pod, ServiceAccount};
use kube::Api;
use kube::api::{ListParams, PostParams};
use serde_json::json;

/// Longest wait for the pods of one row.
const LIMIT: Duration = Duration::from_secs(120);
/// How often the pods are counted.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// One row: so many replicas on so many nodes.
#[derive(Clone, Copy)]
struct Case {
    nodes: usize,
    replicas: usize,
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

fn deployment(replicas: usize) -> Deployment {
    let labels = json!({ "app": "large" });
    let containers = json!([{ "name": "c", "image": "app" }]);
    let template = json!({ "metadata": { "labels": labels }, "spec": { "containers": containers } });
    let spec = json!({ "replicas": replicas, "selector": { "matchLabels": labels }, "template": template });
    serde_json::from_value(json!({ "metadata": { "name": "large" }, "spec": spec })).expect("a Deployment")
}

async fn measure(case: Case) {
    let plane = Plane::new(Clock::system());
    let (identities, clock, manager) = (plane.identities(), plane.clock().clone(), plane.manager());
    let mut nodes = NodesArgs::count(case.nodes);
    nodes.capacity.insert("pods".to_owned(), (case.replicas * 3 / case.nodes).to_string());
    let (nodes, _kept) = fake_nodes("nodes", &manager, nodes);
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
            let ready =
                all.list(&ListParams::default()).await.map_or(0, |all| all.iter().filter(|it| untainted(it)).count());
            ready == case.nodes && accounts.get_opt("default").await.is_ok_and(|found| found.is_some())
        })
        .await;
    cluster.api::<Deployment>().create(&PostParams::default(), &deployment(case.replicas)).await.expect("it is made");
    let began = Instant::now();
    let mut reached = [None; 3];
    while reached.iter().any(Option::is_none) {
        let shown = pods.snapshot();
        let counts = count(shown.iter().flat_map(|shown| shown.iter()).map(|pod| &**pod));
        for (reached, count) in reached.iter_mut().zip(counts) {
            if count >= case.replicas {
                reached.get_or_insert_with(|| began.elapsed());
            }
        }
        assert!(began.elapsed() < LIMIT, "only {counts:?} pods are there, bound and ready");
        tokio::time::sleep(LOOK_EVERY).await;
    }
    let [there, bound, ready] = reached.map(|time| time.unwrap_or_default().as_secs_f64());
    let Case { nodes, replicas } = case;
    println!(
        "{nodes:>5} nodes {replicas:>6} replicas  there {there:>6.2} s  bound {bound:>6.2} s  ready {ready:>6.2} s"
    );
    cluster.stop().await;
}

fn main() {
    let is_quick = std::env::args().any(|argument| argument == "--quick");
    let cases: &[(usize, usize)] = if is_quick { &[(1, 200)] } else { &[(1, 2_000), (100, 5_000)] };
    for (nodes, replicas) in cases.iter().copied() {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        runtime.expect("a runtime").block_on(measure(Case { nodes, replicas }));
    }
}
