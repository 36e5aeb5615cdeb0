//! A cluster in which nothing happens asks nothing: no controller lists again or writes what is there already.

mod whole;

use std::collections::BTreeMap;
use std::time::Duration;

use chaos_tests::cluster::Cluster;
use chaos_tests::cluster::nodes::NodesArgs;
use k3sd_controllers::ControllersConfig;
use k3sd_runtime::Clock;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::api::ListParams;
use serde_json::{Value, json};

const DEPLOYMENTS: usize = 50;
/// Until all is written that follows from the last change, heartbeats of new nodes among it.
const SETTLING: Duration = Duration::from_secs(300);
const IDLE: Duration = Duration::from_secs(3600);

/// How often each was asked for, by verb and resource. Nodes tell how they are, which is their own affair, and a watch that
/// has run out is begun again.
async fn requests(cluster: &Cluster) -> BTreeMap<String, u64> {
    let request = http::Request::get("/metrics").body(Vec::new()).expect("a request");
    let metrics = cluster.admin().request_text(request).await.expect("metrics");
    let mut counts = BTreeMap::new();
    for line in metrics.lines().filter(|line| line.starts_with("apiserver_request_total{")) {
        let label = |name: &str| {
            let (_, rest) = line.split_once(&format!("{name}=\"")).unwrap_or_default();
            rest.split_once('"').map_or("", |(value, _)| value)
        };
        let (verb, resource) = (label("verb"), label("resource"));
        if verb == "WATCH" || matches!(resource, "" | "leases" | "nodes") {
            continue;
        }
        let count: u64 = line.rsplit_once(' ').and_then(|(_, count)| count.parse().ok()).expect("a number");
        *counts.entry(format!("{verb} {resource}")).or_default() += count;
    }
    counts
}

fn deployment(name: &str) -> Value {
    let labels = json!({"app": name});
    json!({"metadata": {"name": name}, "spec": {"replicas": 2, "selector": {"matchLabels": labels},
        "template": {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": "app"}]}}}})
}

#[tokio::test(start_paused = true)]
async fn a_cluster_at_rest_asks_nothing() {
    let nodes = NodesArgs::count(3);
    let (cluster, _nodes) = whole::start(Clock::simulated(1), ControllersConfig::default(), nodes).await;
    let accounts = cluster.api::<ServiceAccount>();
    cluster.wait_until("an account", async || accounts.get("default").await.is_ok()).await;
    for number in 0..DEPLOYMENTS {
        cluster.make::<Deployment>(deployment(&format!("d{number}"))).await;
    }
    let deployments = cluster.api::<Deployment>();
    let is_ready = |deployment: &Deployment| {
        let wanted = deployment.spec.as_ref().and_then(|spec| spec.replicas);
        wanted.is_some() && deployment.status.as_ref().and_then(|status| status.ready_replicas) == wanted
    };
    cluster
        .wait_until("ready Deployments", async || {
            let all = deployments.list(&ListParams::default()).await.expect("a list");
            all.items.len() == DEPLOYMENTS && all.items.iter().all(is_ready)
        })
        .await;
    cluster.pass(SETTLING).await;
    let before = requests(&cluster).await;
    assert!(before.get("POST pods").is_some_and(|made| *made >= 2 * DEPLOYMENTS as u64), "{before:?}");
    cluster.pass(IDLE).await;
    let mut after = requests(&cluster).await;
    after.retain(|what, count| before.get(what) != Some(count));
    assert!(after.is_empty(), "asked in an hour of rest: {after:?}, before {before:?}");
    cluster.stop().await;
}
