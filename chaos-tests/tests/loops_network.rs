//! The controllers that say where Services lead, over the API server and fake nodes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use chaos_tests::cluster::nodes::{NodesArgs, fake_nodes};
use chaos_tests::cluster::{Cluster, Plane};
use chaos_tests::{Replay, seed};
use k3sd_client::controller::setup::ControllerConfig;
use k3sd_runtime::{Clock, Rng, Signal};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{Endpoints, Pod, Service, ServiceAccount};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::serde::de::DeserializeOwned;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use serde_json::{Value, json};

const LOOPS: [&str; 3] = ["loops/endpointslice", "loops/endpoint", "loops/endpointslicemirroring"];
const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";

async fn start(seed: u64, nodes: usize) -> Cluster {
    let clock = Clock::simulated(seed);
    let plane = Plane::new(clock.clone());
    let args = NodesArgs { count: nodes, lease_period: None, zones: 2, ..NodesArgs::default() };
    let (nodes, _) = fake_nodes("nodes", &plane.manager(), args);
    let config = ControllerConfig::default();
    let cluster = plane.start_controllers(config, vec![nodes], k3sd_controllers_network::loops).await;
    // Made by a controller that isn't here; pods need it.
    cluster.make::<ServiceAccount>(json!({"metadata": {"name": "default"}})).await;
    cluster
}

/// All objects of a kind; none while the API is away.
async fn all<K>(cluster: &Cluster) -> Vec<K>
where
    K: kube::Resource<Scope = NamespaceResourceScope, DynamicType = ()> + DeserializeOwned + Clone + std::fmt::Debug,
{
    cluster.api::<K>().list(&ListParams::default()).await.map(|found| found.items).unwrap_or_default()
}

fn service(name: &str, selector: Value) -> Value {
    json!({"metadata": {"name": name, "labels": {"team": "x"}}, "spec": {"selector": selector,
        "ports": [{"name": "http", "port": 80, "targetPort": 8080}]}})
}

fn pod(name: &str, node: &str) -> Value {
    json!({"metadata": {"name": name, "labels": {"app": "web"}},
        "spec": {"nodeName": node, "containers": [{"name": "c", "image": "registry.example/c:1"}]}})
}

/// The slices of a Service that a controller keeps.
async fn slices(cluster: &Cluster, service: &str, manager: &str) -> Vec<EndpointSlice> {
    let of_service = |slice: &EndpointSlice| {
        let label = |name: &str| slice.metadata.labels.as_ref().and_then(|labels| labels.get(name)).cloned();
        label("kubernetes.io/service-name").as_deref() == Some(service) && label(MANAGED_BY).as_deref() == Some(manager)
    };
    all::<EndpointSlice>(cluster).await.into_iter().filter(of_service).collect()
}

/// The names of the pods that the Service leads to, by slices and by Endpoints, of those that are ready. Each only once.
async fn members(cluster: &Cluster, service: &str) -> Option<(BTreeSet<String>, BTreeSet<String>)> {
    let (mut by_slice, mut by_endpoints) = (BTreeSet::new(), BTreeSet::new());
    for endpoint in
        slices(cluster, service, "endpointslice-controller.k8s.io").await.into_iter().flat_map(|it| it.endpoints)
    {
        if endpoint.conditions.as_ref().and_then(|conditions| conditions.ready) == Some(true)
            && !by_slice.insert(endpoint.target_ref?.name?)
        {
            return None;
        }
    }
    let endpoints = cluster.api::<Endpoints>().get_opt(service).await.ok()??;
    for address in endpoints.subsets.into_iter().flatten().flat_map(|subset| subset.addresses.unwrap_or_default()) {
        by_endpoints.insert(address.target_ref?.name?);
    }
    Some((by_slice, by_endpoints))
}

async fn leads_to(cluster: &Cluster, service: &str, pods: &BTreeSet<String>) {
    let holds = async || members(cluster, service).await.is_some_and(|found| found.0 == *pods && found.1 == *pods);
    cluster.wait_until(&format!("{service} leads to {} pods", pods.len()), holds).await;
}

/// Kills whoever lives there, if somebody does: it may be dead already.
fn kill(cluster: &Cluster, path: &str) {
    _ = cluster.system().signal(path, Signal::Kill);
}

#[tokio::test(start_paused = true)]
async fn a_service_leads_to_its_ready_pods() {
    let cluster = start(1, 2).await;
    cluster.make::<Service>(service("web", json!({"app": "web"}))).await;
    leads_to(&cluster, "web", &BTreeSet::new()).await;
    assert_eq!(slices(&cluster, "web", "endpointslice-controller.k8s.io").await.len(), 1, "an empty one");
    for at in 0..4 {
        cluster.make::<Pod>(pod(&format!("p{at}"), &format!("node-{}", at % 2))).await;
    }
    let mut expected: BTreeSet<String> = (0..4).map(|at| format!("p{at}")).collect();
    leads_to(&cluster, "web", &expected).await;
    let slice = slices(&cluster, "web", "endpointslice-controller.k8s.io").await.remove(0);
    let zones: BTreeSet<_> = slice.endpoints.iter().filter_map(|endpoint| endpoint.zone.as_deref()).collect();
    assert_eq!(zones, BTreeSet::from(["zone-0", "zone-1"]));
    assert_eq!(slice.ports.as_ref().and_then(|ports| ports[0].port), Some(8080));

    // Another label takes a pod out, another selector all of them.
    let relabel = Patch::Merge(json!({"metadata": {"labels": {"app": "other"}}}));
    cluster.api::<Pod>().patch("p0", &PatchParams::default(), &relabel).await.expect("it may be labelled");
    expected.remove("p0");
    leads_to(&cluster, "web", &expected).await;
    cluster.api::<Pod>().delete("p1", &DeleteParams::default()).await.expect("it may be deleted");
    expected.remove("p1");
    leads_to(&cluster, "web", &expected).await;
    let select = Patch::Merge(json!({"spec": {"selector": {"app": "other"}}}));
    cluster.api::<Service>().patch("web", &PatchParams::default(), &select).await.expect("it may be changed");
    leads_to(&cluster, "web", &BTreeSet::from(["p0".to_owned()])).await;

    cluster.api::<Service>().delete("web", &DeleteParams::default()).await.expect("it may be deleted");
    let gone = async || cluster.api::<Endpoints>().get_opt("web").await.is_ok_and(|found| found.is_none());
    cluster.wait_until("the Endpoints go with the Service", gone).await;
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_nobody_changes_is_not_written() {
    let cluster = start(2, 2).await;
    for at in 0..20 {
        cluster.make::<Service>(service(&format!("web-{at}"), json!({"app": "web"}))).await;
    }
    cluster.make::<Pod>(pod("p", "node-0")).await;
    for at in 0..20 {
        leads_to(&cluster, &format!("web-{at}"), &BTreeSet::from(["p".to_owned()])).await;
    }
    let versions = async || -> BTreeMap<String, String> {
        let slices = all::<EndpointSlice>(&cluster).await.into_iter().map(|it| it.metadata);
        let endpoints = all::<Endpoints>(&cluster).await.into_iter().map(|it| it.metadata);
        slices.chain(endpoints).filter_map(|meta| Some((meta.uid?, meta.resource_version?))).collect()
    };
    cluster.pass(Duration::from_secs(5)).await;
    let before = versions().await;
    cluster.pass(Duration::from_secs(600)).await;
    LOOPS.iter().for_each(|path| cluster.kill(path));
    cluster.pass(Duration::from_secs(600)).await;
    assert_eq!(versions().await, before);
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn endpoints_that_somebody_wrote_are_mirrored() {
    let cluster = start(3, 1).await;
    let mut plain = service("db", json!(null));
    plain["spec"]["ports"][0]["targetPort"] = 5432.into();
    cluster.make::<Service>(plain).await;
    let subsets =
        json!([{"addresses": [{"ip": "192.0.2.10"}, {"ip": "192.0.2.11"}], "ports": [{"name": "http", "port": 5432}]}]);
    cluster.make::<Endpoints>(json!({"metadata": {"name": "db"}, "subsets": subsets})).await;
    let addresses = async || -> BTreeSet<String> {
        let slices = slices(&cluster, "db", "endpointslicemirroring-controller.k8s.io").await;
        slices.into_iter().flat_map(|slice| slice.endpoints).flat_map(|endpoint| endpoint.addresses).collect()
    };
    let both = BTreeSet::from(["192.0.2.10", "192.0.2.11"].map(str::to_owned));
    cluster.wait_until("both addresses are mirrored", async || addresses().await == both).await;
    cluster.kill("loops/endpointslicemirroring");
    let less = Patch::Merge(
        json!({"subsets": [{"addresses": [{"ip": "192.0.2.10"}], "ports": [{"name": "http", "port": 5432}]}]}),
    );
    cluster.api::<Endpoints>().patch("db", &PatchParams::default(), &less).await.expect("it may be changed");
    cluster.wait_until("one address is mirrored", async || addresses().await.len() == 1).await;
    cluster.api::<Endpoints>().delete("db", &DeleteParams::default()).await.expect("it may be deleted");
    cluster.wait_until("nothing is mirrored", async || addresses().await.is_empty()).await;
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn whoever_dies_each_pod_is_found_once() {
    let replay = Replay { seed: seed(), test: "whoever_dies_each_pod_is_found_once" };
    let mut rng = Rng::seeded(replay.seed);
    let cluster = start(replay.seed, 3).await;
    cluster.make::<Service>(service("web", json!({"app": "web"}))).await;
    let mut expected = BTreeSet::new();
    for at in 0..150 {
        let name = format!("p{at:03}");
        cluster.make::<Pod>(pod(&name, &format!("node-{}", at % 3))).await;
        expected.insert(name);
        if rng.below(4) == 0 {
            let victim =
                expected.iter().nth(usize::try_from(rng.below(expected.len() as u64)).expect("small")).cloned();
            let victim = victim.expect("there is one");
            cluster.api::<Pod>().delete(&victim, &DeleteParams::default()).await.expect("it may be deleted");
            expected.remove(&victim);
        }
        if rng.below(5) == 0 {
            kill(&cluster, LOOPS[usize::try_from(rng.below(2)).expect("small")]);
        }
        if rng.below(3) == 0 {
            cluster.pass(Duration::from_millis(rng.below(50))).await;
        }
    }
    leads_to(&cluster, "web", &expected).await;
    let sizes: Vec<_> = slices(&cluster, "web", "endpointslice-controller.k8s.io").await;
    assert!(sizes.len() <= 3 && sizes.iter().all(|slice| slice.endpoints.len() <= 100), "{}", sizes.len());
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn many_pods_fill_slices_and_overflow_endpoints() {
    let cluster = start(5, 15).await;
    let count = if chaos_tests::is_long() { 5000 } else { 1010 };
    let make = async |numbers: std::ops::Range<usize>| {
        for at in numbers {
            cluster.make::<Pod>(pod(&format!("p{at:04}"), &format!("node-{}", at % 15))).await;
        }
    };
    // Most are there before their Service: each that comes after it has all of them written once more.
    make(0..count - 40).await;
    cluster.make::<Service>(service("web", json!({"app": "web"}))).await;
    make(count - 40..count).await;
    let holds = async || {
        let slices = slices(&cluster, "web", "endpointslice-controller.k8s.io").await;
        let endpoints = slices.iter().flat_map(|slice| &slice.endpoints);
        endpoints.filter(|it| it.conditions.as_ref().and_then(|it| it.ready) == Some(true)).count() == count
    };
    cluster.wait_within(Duration::from_secs(600), "all pods are found", holds).await;
    let truncated = async || {
        let Ok(web) = cluster.api::<Endpoints>().get("web").await else { return false };
        let found: usize = web.subsets.iter().flatten().map(|it| it.addresses.as_ref().map_or(0, Vec::len)).sum();
        let annotations = web.metadata.annotations.unwrap_or_default();
        found == 1000
            && annotations.get("endpoints.kubernetes.io/over-capacity").map(String::as_str) == Some("truncated")
    };
    cluster.wait_until("Endpoints hold what they can", truncated).await;
    cluster.stop().await;
}
