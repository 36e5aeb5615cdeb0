//! Fake nodes over the API server: they register, and their pods live and go.

use std::collections::BTreeSet;
use std::time::Duration;

use chaos_tests::cluster::nodes::{FakeNodes, NodesArgs, fake_nodes};
use chaos_tests::cluster::{Cluster, Plane};
use k3sd_runtime::Clock;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Binding, Namespace, Node, Pod};
use kube::api::{DeleteParams, ListParams, PostParams};
use kube::{Api, ResourceExt as _};
use serde_json::{Value, json};

const SECOND: Duration = Duration::from_secs(1);

async fn start(seed: u64, args: NodesArgs) -> (Cluster, FakeNodes) {
    // Service accounts are made by a controller, which isn't here.
    let plane = Plane::with(Clock::simulated(seed), |config| config.admission_off.push("ServiceAccount".to_owned()));
    let count = args.count;
    let connect = plane.identities().user("fake-kubelets", &["system:masters"]);
    let (child, fake) = fake_nodes("nodes", &connect, args);
    let cluster = plane.start(vec![child]).await;
    let nodes: Api<Node> = Api::all(cluster.admin());
    let usable = |node: &Node| node.spec.as_ref().is_none_or(|spec| spec.taints.is_none());
    let all = async || {
        nodes
            .list(&ListParams::default())
            .await
            .is_ok_and(|all| all.items.iter().filter(|n| usable(n)).count() == count)
    };
    cluster.wait_until("all nodes are there", all).await;
    (cluster, fake)
}

fn pods(cluster: &Cluster) -> Api<Pod> {
    Api::namespaced(cluster.admin(), "default")
}

async fn list(cluster: &Cluster) -> Vec<Pod> {
    pods(cluster).list(&ListParams::default()).await.map(|list| list.items).unwrap_or_default()
}

async fn make(cluster: &Cluster, name: &str, policy: &str, annotations: Value) {
    let pod = json!({
        "metadata": {"name": name, "annotations": annotations},
        "spec": {"restartPolicy": policy, "containers": [{"name": "c", "image": "registry.example/c:1"}]},
    });
    let pod = serde_json::from_value(pod).expect("a pod");
    pods(cluster).create(&PostParams::default(), &pod).await.expect("an administrator may");
}

/// As the scheduler does it.
async fn bind(cluster: &Cluster, name: &str, node: &str) {
    let binding = json!({"metadata": {"name": name}, "target": {"kind": "Node", "name": node}});
    let binding: Binding = serde_json::from_value(binding).expect("a binding");
    let bound: Result<Value, _> =
        pods(cluster).create_subresource("binding", name, &PostParams::default(), &binding).await;
    bound.expect("it may be bound");
}

fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default()
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.filter(|condition| condition.type_ == "Ready").any(|condition| condition.status == "True")
}

#[tokio::test(start_paused = true)]
async fn a_hundred_nodes_run_pods_and_let_them_go() {
    let (cluster, _) = start(1, NodesArgs::count(100)).await;
    for number in 0..200 {
        make(&cluster, &format!("p{number}"), "Always", json!({})).await;
        bind(&cluster, &format!("p{number}"), &format!("node-{}", number % 100)).await;
    }
    make(&cluster, "unbound", "Always", json!({})).await;
    let running =
        async || list(&cluster).await.iter().filter(|pod| phase(pod) == "Running" && is_ready(pod)).count() == 200;
    cluster.wait_until("all bound pods run", running).await;
    let all = list(&cluster).await;
    let ip = |pod: &Pod| pod.status.as_ref().and_then(|status| status.pod_ip.clone());
    assert_eq!(all.iter().filter_map(ip).collect::<BTreeSet<_>>().len(), 200, "each has its own address");
    let unbound = all.iter().find(|pod| pod.name_any() == "unbound").expect("there");
    assert_eq!((phase(unbound), is_ready(unbound)), ("Pending", false));

    for number in 0..200 {
        pods(&cluster).delete(&format!("p{number}"), &DeleteParams::default()).await.expect("it is there");
    }
    cluster.wait_until("all are gone", async || list(&cluster).await.len() == 1).await;
}

#[tokio::test(start_paused = true)]
async fn pods_end_as_their_annotations_say() {
    let (cluster, _) = start(2, NodesArgs::count(1)).await;
    for (name, policy, annotations) in [
        ("done", "Never", json!({"fake.k3sd.io/exit-code": "0", "fake.k3sd.io/run-for": "2s"})),
        ("failed", "Never", json!({"fake.k3sd.io/exit-code": "7"})),
        ("again", "OnFailure", json!({"fake.k3sd.io/exit-code": "1", "fake.k3sd.io/run-for": "5s"})),
        ("slow", "Always", json!({"fake.k3sd.io/ready-after": "20s"})),
        ("stays", "Always", json!({"fake.k3sd.io/stop-after": "10s"})),
    ] {
        make(&cluster, name, policy, annotations).await;
        bind(&cluster, name, "node-0").await;
    }
    cluster.pass(15 * SECOND).await;
    let get = async |name: &str| pods(&cluster).get(name).await.expect("it is there");
    assert_eq!((phase(&get("done").await), phase(&get("failed").await)), ("Succeeded", "Failed"));
    let code = |pod: &Pod| {
        let status = &pod.status.as_ref().expect("set").container_statuses.as_ref().expect("set")[0];
        (status.restart_count, status.state.as_ref().expect("set").terminated.as_ref().map(|t| t.exit_code))
    };
    assert_eq!(code(&get("failed").await), (0, Some(7)));
    let (restarts, running) = code(&get("again").await);
    assert!((2..=3).contains(&restarts) && running.is_none(), "{restarts}");
    assert!(!is_ready(&get("slow").await));
    cluster.pass(10 * SECOND).await;
    assert!(is_ready(&get("slow").await));

    pods(&cluster).delete("stays", &DeleteParams::default()).await.expect("it is there");
    cluster.pass(8 * SECOND).await;
    assert!(get("stays").await.metadata.deletion_timestamp.is_some());
    cluster.pass(4 * SECOND).await;
    assert!(pods(&cluster).get_opt("stays").await.expect("an answer").is_none());
}

#[tokio::test(start_paused = true)]
async fn a_silent_node_renews_nothing_and_its_pods_stay_as_they_are() {
    let (cluster, fake) = start(3, NodesArgs::count(2)).await;
    let leases: Api<Lease> = Api::namespaced(cluster.admin(), "kube-node-lease");
    let renewed = async |name: &str| {
        let spec = leases.get(name).await.expect("it is there").spec.expect("set");
        cluster.clock().wall().as_secs() as i64 - spec.renew_time.expect("set").0.as_second()
    };
    cluster.pass(60 * SECOND).await;
    assert!(renewed("node-0").await <= 11 && renewed("node-1").await <= 11);
    make(&cluster, "p", "Always", json!({})).await;
    bind(&cluster, "p", "node-0").await;
    cluster.wait_until("it runs", async || list(&cluster).await.iter().all(is_ready)).await;

    fake.silence("node-0");
    pods(&cluster).delete("p", &DeleteParams::default()).await.expect("it is there");
    cluster.pass(60 * SECOND).await;
    assert!(renewed("node-0").await >= 59 && renewed("node-1").await <= 11);
    assert_eq!(list(&cluster).await.len(), 1);
    let unknown =
        json!({"status": {"conditions": [{"type": "Ready", "status": "Unknown", "reason": "NodeStatusUnknown"}]}});
    let nodes: Api<Node> = Api::all(cluster.admin());
    let patch = kube::api::Patch::Strategic(&unknown);
    nodes.patch_status("node-0", &Default::default(), &patch).await.expect("it may");

    fake.answer("node-0");
    cluster.wait_until("it lets its pod go", async || list(&cluster).await.is_empty()).await;
    cluster.pass(12 * SECOND).await;
    assert!(renewed("node-0").await <= 11);
    let status = nodes.get("node-0").await.expect("it is there").status.expect("set");
    let ready = status.conditions.into_iter().flatten().find(|condition| condition.type_ == "Ready");
    assert_eq!(ready.expect("set").status, "True");
}

#[tokio::test(start_paused = true)]
async fn whatever_of_it_dies_pods_run_and_go() {
    let (cluster, _) = start(4, NodesArgs::count(5)).await;
    let mut rng = cluster.clock().rng("kills");
    for number in 0..60 {
        let name = format!("p{number}");
        make(&cluster, &name, "Always", json!({"fake.k3sd.io/stop-after": "1s"})).await;
        bind(&cluster, &name, &format!("node-{}", number % 5)).await;
        let victim = ["nodes", "pods", "heart", "kubelet"][rng.below(4) as usize];
        cluster.system().signal(&format!("loops/nodes/{victim}"), k3sd_runtime::Signal::Kill);
        cluster.pass(Duration::from_millis(rng.below(300))).await;
        if number % 2 == 0 {
            pods(&cluster).delete(&name, &DeleteParams::default()).await.expect("it is there");
        }
    }
    let settled = async || {
        let all = list(&cluster).await;
        all.len() == 30 && all.iter().all(is_ready)
    };
    cluster.wait_until("the others run", settled).await;
    let namespaces: Api<Namespace> = Api::all(cluster.admin());
    assert!(namespaces.get("default").await.is_ok());
}
