//! The scheduler over the API server: pods find nodes, learn why not, make others go; and whatever dies meanwhile, none
//! is bound twice and none is forgotten.

use std::collections::BTreeMap;
use std::time::Duration;

use chaos_tests::cluster::nodes::{NodesArgs, fake_nodes};
use chaos_tests::cluster::{Cluster, Plane};
use chaos_tests::{Replay, is_long, seed};
use k3sd_client::informer::Shared;
use k3sd_runtime::{Clock, Rng, Signal, subtree};
use k3sd_scheduler::SchedulerArgs;
use k8s_openapi::api::core::v1::{Event, Node, PersistentVolume, PersistentVolumeClaim, Pod, ServiceAccount};
use k8s_openapi::serde::{Serialize, de::DeserializeOwned};
use kube::api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt as _};
use serde_json::{Value, json};

/// Pods of one CPU that twenty nodes have room for.
const ROOM: usize = 160;
const DECIDER: &str = "loops/scheduler/decider";

/// A control plane with a scheduler and fake nodes, and no controllers.
async fn start(clock: Clock, nodes: NodesArgs) -> Cluster {
    let plane = Plane::new(clock);
    let identities = plane.identities();
    let reader = identities.user("reader", &["system:masters"]);
    let mut informers = Shared::new(reader.clone());
    let args = SchedulerArgs::alone(identities, "server");
    let scheduler = k3sd_scheduler::tree(args, &mut informers).expect("one profile");
    let (nodes, _) = fake_nodes("nodes", &reader, nodes);
    let informers = subtree("informers", informers.spec());
    let cluster = plane.start(vec![informers, subtree("scheduler", scheduler), nodes]).await;
    // Nobody else makes accounts here.
    let accounts: Api<ServiceAccount> = Api::namespaced(cluster.admin(), "default");
    let account = serde_json::from_value(json!({ "metadata": { "name": "default" } })).expect("an account");
    accounts.create(&PostParams::default(), &account).await.expect("an account is made");
    cluster
}

fn pods(cluster: &Cluster) -> Api<Pod> {
    Api::namespaced(cluster.admin(), "default")
}

fn pod(name: &str, cpu: &str, more: Value) -> Pod {
    let requests = json!({ "requests": { "cpu": cpu } });
    let mut object = json!({
        "metadata": { "name": name },
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "containers": [{ "name": "c", "image": "app", "resources": requests }],
        },
    });
    for (key, value) in more.as_object().into_iter().flatten() {
        object["spec"][key] = value.clone();
    }
    serde_json::from_value(object).expect("a pod")
}

async fn make(cluster: &Cluster, pod: &Pod) {
    pods(cluster).create(&PostParams::default(), pod).await.expect("the pod is made");
}

fn node_of(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref())
}

async fn is_bound(cluster: &Cluster, name: &str) -> bool {
    pods(cluster).get(name).await.is_ok_and(|pod| node_of(&pod).is_some())
}

/// The reason and the message of the condition that says why a pod has no node.
async fn refusal(cluster: &Cluster, name: &str) -> Option<(String, String)> {
    let pod = pods(cluster).get(name).await.ok()?;
    let conditions = pod.status?.conditions?;
    let condition = conditions.into_iter().find(|condition| condition.type_ == "PodScheduled")?;
    (condition.status == "False").then(|| (condition.reason.unwrap_or_default(), condition.message.unwrap_or_default()))
}

/// Whether there is such an event about a pod.
async fn has_event(cluster: &Cluster, about: &str, reason: &str, message: &str) -> bool {
    let events: Api<Event> = Api::namespaced(cluster.admin(), "default");
    let Ok(events) = events.list(&ListParams::default()).await else { return false };
    events.iter().any(|event| {
        event.involved_object.name.as_deref() == Some(about)
            && event.reason.as_deref() == Some(reason)
            && event.message.as_deref().is_some_and(|text| text.starts_with(message))
    })
}

async fn nodes_are_there(cluster: &Cluster, count: usize) {
    let nodes: Api<Node> = Api::all(cluster.admin());
    let there = async || nodes.list(&ListParams::default()).await.is_ok_and(|list| list.items.len() == count);
    cluster.wait_until("all nodes are there", there).await;
}

#[tokio::test(start_paused = true)]
async fn pods_find_nodes_or_learn_why_not() {
    let cluster = start(Clock::simulated(1), NodesArgs::count(2)).await;
    nodes_are_there(&cluster, 2).await;
    make(&cluster, &pod("fits", "1", json!({}))).await;
    cluster.wait_until("it has a node", async || is_bound(&cluster, "fits").await).await;
    let node = pods(&cluster).get("fits").await.expect("it is there");
    let message = format!("Successfully assigned default/fits to {}", node_of(&node).expect("bound"));
    cluster.wait_until("it is told", async || has_event(&cluster, "fits", "Scheduled", &message).await).await;

    make(&cluster, &pod("large", "64", json!({}))).await;
    let said = "0/2 nodes are available: 2 Insufficient cpu. preemption: 0/2 nodes are available: \
                2 Preemption is not helpful for scheduling.";
    let expected = Some(("Unschedulable".to_owned(), said.to_owned()));
    cluster.wait_until("it learns why not", async || refusal(&cluster, "large").await == expected).await;
    cluster.wait_until("it is told", async || has_event(&cluster, "large", "FailedScheduling", said).await).await;

    // What refused it changes.
    let nodes: Api<Node> = Api::all(cluster.admin());
    let grown = json!({ "status": { "capacity": { "cpu": "128" }, "allocatable": { "cpu": "128" } } });
    nodes.patch_status("node-0", &PatchParams::default(), &Patch::Merge(grown)).await.expect("the node grows");
    cluster.wait_until("it has a node", async || is_bound(&cluster, "large").await).await;
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn gates_and_cordons_are_waited_for() {
    let cluster = start(Clock::simulated(2), NodesArgs::count(1)).await;
    nodes_are_there(&cluster, 1).await;
    make(&cluster, &pod("gated", "1", json!({ "schedulingGates": [{ "name": "example.com/wait" }] }))).await;
    cluster.pass(Duration::from_secs(30)).await;
    assert_eq!(refusal(&cluster, "gated").await.map(|(reason, _)| reason).as_deref(), Some("SchedulingGated"));
    let nodes: Api<Node> = Api::all(cluster.admin());
    let cordon = |cordoned: bool| Patch::Merge(json!({ "spec": { "unschedulable": cordoned } }));
    nodes.patch("node-0", &PatchParams::default(), &cordon(true)).await.expect("it is cordoned");
    let open = Patch::Merge(json!({ "spec": { "schedulingGates": [] } }));
    pods(&cluster).patch("gated", &PatchParams::default(), &open).await.expect("the gate opens");
    let refused = async || refusal(&cluster, "gated").await.is_some_and(|(reason, _)| reason == "Unschedulable");
    cluster.wait_until("the node refuses it", refused).await;
    let (_, message) = refusal(&cluster, "gated").await.expect("refused");
    assert!(message.starts_with("0/1 nodes are available: 1 node(s)"), "{message}");
    nodes.patch("node-0", &PatchParams::default(), &cordon(false)).await.expect("it is not cordoned");
    cluster.wait_until("it has a node", async || is_bound(&cluster, "gated").await).await;
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn less_important_pods_go_for_more_important_ones() {
    let cluster = start(Clock::simulated(3), NodesArgs::count(1)).await;
    nodes_are_there(&cluster, 1).await;
    let kind = kube::api::ApiResource {
        group: "scheduling.k8s.io".to_owned(),
        version: "v1".to_owned(),
        api_version: "scheduling.k8s.io/v1".to_owned(),
        kind: "PriorityClass".to_owned(),
        plural: "priorityclasses".to_owned(),
    };
    let classes: Api<DynamicObject> = Api::all_with(cluster.admin(), &kind);
    let class = json!({
        "apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": { "name": "high" }, "value": 1000,
    });
    let class = serde_json::from_value(class).expect("a class");
    classes.create(&PostParams::default(), &class).await.expect("a class");
    for name in ["small-a", "small-b"] {
        make(&cluster, &pod(name, "3", json!({}))).await;
        cluster.wait_until("it has a node", async || is_bound(&cluster, name).await).await;
    }
    make(&cluster, &pod("high", "5", json!({ "priorityClassName": "high" }))).await;
    cluster.wait_until("it has a node", async || is_bound(&cluster, "high").await).await;
    let left = pods(&cluster).list(&ListParams::default()).await.expect("a list");
    assert_eq!(left.items.len(), 2, "one of the small ones had to go");
    let uid = pods(&cluster).get("high").await.expect("it is there").uid().unwrap_or_default();
    let message = format!("Preempted by pod {uid} on node node-0");
    let told = async || {
        has_event(&cluster, "small-a", "Preempted", &message).await
            || has_event(&cluster, "small-b", "Preempted", &message).await
    };
    cluster.wait_until("it is told", told).await;
    cluster.stop().await;
}

/// Makes an object and, if it has one, writes its status.
async fn place<K>(api: &Api<K>, object: Value)
where
    K: kube::Resource + Serialize + DeserializeOwned + Clone + std::fmt::Debug,
{
    let made: K = serde_json::from_value(object.clone()).expect("an object");
    api.create(&PostParams::default(), &made).await.expect("it is made");
    if let Some(status) = object.get("status") {
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        let patch = Patch::Merge(json!({ "status": status }));
        api.patch_status(name, &PatchParams::default(), &patch).await.expect("its status is written");
    }
}

#[tokio::test(start_paused = true)]
async fn a_pod_waits_until_its_volume_is_bound() {
    let cluster = start(Clock::simulated(4), NodesArgs::count(3)).await;
    nodes_are_there(&cluster, 3).await;
    let classes: Api<k8s_openapi::api::storage::v1::StorageClass> = Api::all(cluster.admin());
    let class = json!({
        "metadata": { "name": "local" }, "provisioner": "kubernetes.io/no-provisioner",
        "volumeBindingMode": "WaitForFirstConsumer",
    });
    place(&classes, class).await;
    let volumes: Api<PersistentVolume> = Api::all(cluster.admin());
    let expressions = json!([{ "key": "kubernetes.io/hostname", "operator": "In", "values": ["node-1"] }]);
    let volume = json!({
        "metadata": { "name": "disk" },
        "spec": {
            "capacity": { "storage": "1Gi" }, "accessModes": ["ReadWriteOnce"], "storageClassName": "local",
            "local": { "path": "/disk" },
            "nodeAffinity": { "required": { "nodeSelectorTerms": [{ "matchExpressions": expressions }] } },
        },
        "status": { "phase": "Available" },
    });
    place(&volumes, volume).await;
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(cluster.admin(), "default");
    let resources = json!({ "requests": { "storage": "1Gi" } });
    let claim = json!({
        "metadata": { "name": "data" },
        "spec": { "storageClassName": "local", "accessModes": ["ReadWriteOnce"], "resources": resources },
    });
    place(&claims, claim).await;
    let mounts = json!([{ "name": "data", "persistentVolumeClaim": { "claimName": "data" } }]);
    make(&cluster, &pod("user", "1", json!({ "volumes": mounts }))).await;
    let is_chosen = async || {
        let volume = volumes.get("disk").await.ok().and_then(|volume| volume.spec?.claim_ref);
        volume.is_some_and(|claim| claim.name.as_deref() == Some("data"))
    };
    cluster.wait_until("the volume is chosen", is_chosen).await;
    cluster.pass(Duration::from_secs(5)).await;
    assert!(!is_bound(&cluster, "user").await, "its volume isn't bound yet");
    // What the volume controller does then.
    let bound = json!({
        "metadata": { "annotations": { "pv.kubernetes.io/bind-completed": "yes" } }, "spec": { "volumeName": "disk" },
    });
    claims.patch("data", &PatchParams::default(), &Patch::Merge(bound)).await.expect("the claim is bound");
    cluster.wait_until("it has a node", async || is_bound(&cluster, "user").await).await;
    assert_eq!(node_of(&pods(&cluster).get("user").await.expect("it is there")), Some("node-1"));
    cluster.stop().await;
}

/// Watches where pods are: a pod that has a node keeps it.
#[derive(Default)]
struct Bindings(BTreeMap<String, String>);

impl Bindings {
    async fn look(&mut self, cluster: &Cluster) -> usize {
        let list = pods(cluster).list(&ListParams::default()).await.expect("the API answers");
        let mut free = 0;
        for pod in &list {
            let Some(node) = node_of(pod) else {
                free += 1;
                continue;
            };
            let known = self.0.entry(pod.uid().unwrap_or_default()).or_insert_with(|| node.to_owned());
            assert_eq!(known, node, "{} has moved", pod.name_any());
        }
        free
    }
}

/// No node has more than it can bear.
async fn check_room(cluster: &Cluster, pod_cpus: u32, node_cpus: u32) {
    let list = pods(cluster).list(&ListParams::default()).await.expect("the API answers");
    let mut used: BTreeMap<String, u32> = BTreeMap::new();
    for pod in &list {
        if let Some(node) = node_of(pod) {
            *used.entry(node.to_owned()).or_default() += pod_cpus;
        }
    }
    for (node, used) in used {
        assert!(used <= node_cpus, "{node} has pods of {used} CPUs");
    }
}

#[tokio::test(start_paused = true)]
async fn killed_under_load_it_binds_no_pod_twice_and_forgets_none() {
    let replay = Replay { seed: seed(), test: "killed_under_load_it_binds_no_pod_twice_and_forgets_none" };
    let rounds = if is_long() { 40 } else { 8 };
    let cluster = start(Clock::simulated(replay.seed), NodesArgs::count(20)).await;
    nodes_are_there(&cluster, 20).await;
    let mut rng = Rng::seeded(replay.seed);
    let mut bindings = Bindings::default();
    let mut made = 0;
    for round in 0..rounds {
        for _ in 0..rng.below(30) + 5 {
            make(&cluster, &pod(&format!("p{made}"), "1", json!({}))).await;
            made += 1;
            if rng.below(12) == 0 {
                let victim = if rng.below(4) == 0 { "loops/scheduler" } else { DECIDER };
                let signal = if rng.below(2) == 0 { Signal::Kill } else { Signal::Panic };
                cluster.system().signal(victim, signal);
            }
        }
        cluster.pass(Duration::from_millis(rng.below(400))).await;
        bindings.look(&cluster).await;
        check_room(&cluster, 1, 8).await;
        let gone = made / (round + 2);
        for index in 0..gone {
            if rng.below(3) == 0 {
                pods(&cluster).delete(&format!("p{index}"), &DeleteParams::default()).await.ok();
            }
        }
    }
    let settled = async || {
        let free = bindings.look(&cluster).await;
        let all = pods(&cluster).list(&ListParams::default()).await.expect("the API answers").items.len();
        free == all.saturating_sub(ROOM)
    };
    cluster.wait_within(Duration::from_secs(400), "every pod has a node that there is room for", settled).await;
    check_room(&cluster, 1, 8).await;
    assert!(made > 20, "there was something to do");
    cluster.stop().await;
}
