//! The packaged components over the API server: load balancers, volumes in directories, metrics.

use std::convert::Infallible;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use chaos_tests::cluster::nodes::{NodesArgs, fake_nodes};
use chaos_tests::cluster::{Cluster, Plane};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full};
use k3sd_apiserver::{LocalApi, LocalService};
use k3sd_client::api::Connect;
use k3sd_client::controller::setup::ControllerConfig;
use k3sd_local_storage::LocalStorageArgs;
use k3sd_runtime::{Clock, subtree};
use k3sd_servicelb::ServiceLbConfig;
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{
    ConfigMap, Event, Node, PersistentVolume, PersistentVolumeClaim, Pod, Service, ServiceAccount,
};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::Api;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

type BoxBody = UnsyncBoxBody<Bytes, std::io::Error>;

const CLEANUP: &str = "service.kubernetes.io/load-balancer-cleanup";

/// A cluster with nodes, whose balancers are looked after.
async fn balanced(nodes: usize) -> Cluster {
    let plane = Plane::new(Clock::simulated(1));
    let args = NodesArgs { count: nodes, lease_period: None, ..NodesArgs::default() };
    let (nodes, _) = fake_nodes("nodes", &plane.manager(), args);
    // The rights of this user come from a manifest of K3s, which isn't here.
    let cluster = plane
        .start_controllers(ControllerConfig::default(), vec![nodes], |setup| {
            let mut loops = k3sd_servicelb::loops(setup, &ServiceLbConfig::default());
            loops.extend(k3sd_controllers_network::loops(setup));
            loops
        })
        .await;
    let role = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": { "name": "ccm" },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin" },
        "subjects": [{ "apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "k3s-cloud-controller-manager" }],
    });
    let bindings: Api<k8s_openapi::api::rbac::v1::ClusterRoleBinding> = Api::all(cluster.admin());
    bindings
        .create(&PostParams::default(), &serde_json::from_value(role).expect("a binding"))
        .await
        .expect("it may be");
    cluster.make::<ServiceAccount>(json!({"metadata": {"name": "default"}})).await;
    cluster
}

fn balancer(name: &str, port: u16, spec: Value) -> Value {
    let mut service = json!({
        "metadata": { "name": name },
        "spec": { "type": "LoadBalancer", "selector": { "app": name }, "ports": [{ "port": port, "protocol": "TCP" }] },
    });
    for (field, value) in spec.as_object().expect("fields") {
        service["spec"][field] = value.clone();
    }
    service
}

async fn ingress(cluster: &Cluster, name: &str) -> Vec<String> {
    let Ok(service) = cluster.api::<Service>().get(name).await else { return Vec::new() };
    let status = service.status.and_then(|status| status.load_balancer);
    let all = status.and_then(|balancer| balancer.ingress).unwrap_or_default();
    all.into_iter()
        .map(|entry| format!("{} {}", entry.ip.unwrap_or_default(), entry.ip_mode.unwrap_or_default()))
        .collect()
}

async fn has_addresses(cluster: &Cluster, name: &str, wanted: &[&str]) {
    let wanted: Vec<String> = wanted.iter().map(|address| format!("{address} VIP")).collect();
    cluster.wait_until(&format!("{name} is at {wanted:?}"), async || ingress(cluster, name).await == wanted).await;
}

/// The addresses of the nodes of these numbers.
async fn internal(cluster: &Cluster) -> Vec<String> {
    let nodes: Api<Node> = Api::all(cluster.admin());
    let list = nodes.list(&ListParams::default()).await.expect("they may be listed");
    let address = |node: Node| {
        let all = node.status.and_then(|status| status.addresses).unwrap_or_default();
        all.into_iter().find(|address| address.type_ == "InternalIP").map(|address| address.address)
    };
    list.items.into_iter().filter_map(address).collect()
}

async fn patch_node(cluster: &Cluster, name: &str, change: Value) {
    let nodes: Api<Node> = Api::all(cluster.admin());
    nodes.patch(name, &PatchParams::default(), &Patch::Merge(change)).await.expect("it may be changed");
}

async fn reasons(cluster: &Cluster, name: &str) -> Vec<String> {
    let events = cluster.api::<Event>().list(&ListParams::default()).await.expect("they may be listed");
    let of = events.items.into_iter().filter(|event| event.involved_object.name.as_deref() == Some(name));
    of.filter_map(|event| event.reason).collect()
}

#[tokio::test(start_paused = true)]
async fn a_balancer_is_at_the_addresses_of_nodes() {
    let cluster = balanced(3).await;
    cluster.wait_until("nodes have addresses", async || internal(&cluster).await.len() == 3).await;
    let mut all = internal(&cluster).await;
    all.sort();
    let texts: Vec<&str> = all.iter().map(String::as_str).collect();
    cluster.make::<Service>(balancer("web", 80, json!({}))).await;
    has_addresses(&cluster, "web", &texts).await;
    let web = cluster.api::<Service>().get("web").await.expect("it is there");
    assert_eq!(web.metadata.finalizers, Some(vec![CLEANUP.to_owned()]));

    // A younger one with the same port has no node, and is told so.
    cluster.make::<Service>(balancer("late", 80, json!({}))).await;
    let told = async || reasons(&cluster, "late").await.contains(&"UnAvailableLoadBalancer".to_owned());
    cluster.wait_until("the younger one is told", told).await;
    assert_eq!(ingress(&cluster, "late").await, [""; 0]);

    // Nodes are chosen by a label, and leave when they aren't any more.
    let enable = |value: &str| json!({ "metadata": { "labels": { "svccontroller.k3s.cattle.io/enablelb": value } } });
    patch_node(&cluster, "node-1", enable("true")).await;
    cluster.wait_until("only one node is used", async || ingress(&cluster, "web").await.len() == 1).await;
    patch_node(
        &cluster,
        "node-1",
        json!({ "metadata": { "labels": { "svccontroller.k3s.cattle.io/enablelb": null } } }),
    )
    .await;
    has_addresses(&cluster, "web", &texts).await;

    // The older one goes, and gives back its port.
    cluster.api::<Service>().delete("web", &DeleteParams::default()).await.expect("it may be deleted");
    let gone = async || cluster.api::<Service>().get_opt("web").await.is_ok_and(|found| found.is_none());
    cluster.wait_until("it is gone", gone).await;
    has_addresses(&cluster, "late", &texts).await;
    let plain = Patch::Merge(json!({ "spec": { "type": "ClusterIP" } }));
    cluster.api::<Service>().patch("late", &PatchParams::default(), &plain).await.expect("it may be changed");
    let clean = async || {
        let late = cluster.api::<Service>().get("late").await.expect("it is there");
        late.metadata.finalizers.unwrap_or_default().is_empty() && ingress(&cluster, "late").await.is_empty()
    };
    cluster.wait_until("it is a plain one", clean).await;
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn local_traffic_and_host_ports_decide_about_nodes() {
    let cluster = balanced(2).await;
    cluster.wait_until("nodes have addresses", async || internal(&cluster).await.len() == 2).await;
    cluster.make::<Service>(balancer("web", 80, json!({ "externalTrafficPolicy": "Local" }))).await;
    cluster
        .wait_until("it is claimed", async || {
            reasons(&cluster, "web").await.contains(&"UnAvailableLoadBalancer".into())
        })
        .await;
    let pod = |name: &str, node: &str, port: Value| {
        json!({
            "metadata": { "name": name, "labels": { "app": "web" } },
            "spec": { "nodeName": node, "containers": [{ "name": "c", "image": "registry.example/c:1", "ports": [port] }] },
        })
    };
    cluster.make::<Pod>(pod("p", "node-1", json!({ "containerPort": 80 }))).await;
    cluster.wait_until("the pod's node is used", async || ingress(&cluster, "web").await.len() == 1).await;
    // A pod that has the port of that node takes it away.
    cluster.make::<Pod>(pod("q", "node-1", json!({ "containerPort": 80, "hostPort": 80 }))).await;
    cluster.wait_until("the node isn't used", async || ingress(&cluster, "web").await.is_empty()).await;
    cluster.api::<Pod>().delete("q", &DeleteParams::default().grace_period(0)).await.expect("it may be deleted");
    cluster.wait_until("the node is used again", async || ingress(&cluster, "web").await.len() == 1).await;
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_k3s_made_for_balancers_goes() {
    let cluster = balanced(1).await;
    let sets: Api<DaemonSet> = Api::namespaced(cluster.admin(), "kube-system");
    for (name, labels) in [
        ("svclb-web-12345678", json!({ "svccontroller.k3s.cattle.io/nodeselector": "false" })),
        ("other", json!({ "app": "other" })),
    ] {
        let set = json!({
            "metadata": { "name": name, "labels": labels },
            "spec": {
                "selector": { "matchLabels": { "app": name } },
                "template": {
                    "metadata": { "labels": { "app": name } },
                    "spec": { "containers": [{ "name": "c", "image": "registry.example/c:1" }] },
                },
            },
        });
        sets.create(&PostParams::default(), &serde_json::from_value(set).expect("one")).await.expect("it may be made");
    }
    let names = async || {
        let list = sets.list(&ListParams::default()).await.expect("they may be listed");
        list.items.into_iter().filter_map(|set| set.metadata.name).collect::<Vec<_>>()
    };
    cluster.wait_until("only the other is left", async || names().await == ["other"]).await;
    cluster.stop().await;
}

async fn with_storage(root: &Path) -> Cluster {
    let plane = Plane::new(Clock::simulated(2));
    let connect = plane.identities().service_account("kube-system", k3sd_local_storage::SERVICE_ACCOUNT);
    let storage = k3sd_local_storage::tree(&LocalStorageArgs { connect, node: "node-0".to_owned() });
    let cluster = plane
        .start_controllers(ControllerConfig::default(), vec![subtree("storage", storage)], |setup| {
            k3sd_controllers_volumes::loops(setup)
        })
        .await;
    let text = k3sd_local_storage::MANIFEST.replace("%{DEFAULT_LOCAL_STORAGE_PATH}%", &root.display().to_string());
    for document in text.split("\n---\n") {
        let object = k3sd_objects::decode::yaml(document.as_bytes(), None).expect("YAML").value;
        create(&cluster, &object).await;
    }
    let node = json!({ "apiVersion": "v1", "kind": "Node", "metadata": {
        "name": "node-0", "labels": { "kubernetes.io/hostname": "host-0" },
    } });
    create(&cluster, &node).await;
    cluster
}

/// Makes an object of one of the kinds of the manifests.
async fn create(cluster: &Cluster, object: &Value) {
    let namespace = object["metadata"]["namespace"].as_str();
    let at = |prefix: &str, plural: &str| match namespace {
        Some(namespace) => format!("{prefix}/namespaces/{namespace}/{plural}"),
        None => format!("{prefix}/{plural}"),
    };
    let path = match object["kind"].as_str().expect("a kind") {
        "ServiceAccount" => at("/api/v1", "serviceaccounts"),
        "ConfigMap" => at("/api/v1", "configmaps"),
        "Node" => at("/api/v1", "nodes"),
        "ClusterRole" => at("/apis/rbac.authorization.k8s.io/v1", "clusterroles"),
        "ClusterRoleBinding" => at("/apis/rbac.authorization.k8s.io/v1", "clusterrolebindings"),
        "StorageClass" => at("/apis/storage.k8s.io/v1", "storageclasses"),
        "APIService" => at("/apis/apiregistration.k8s.io/v1", "apiservices"),
        other => panic!("{other}"),
    };
    let request =
        http::Request::post(path).header("content-type", "application/json").body(object.to_string().into_bytes());
    let made: Result<Value, _> = cluster.admin().request(request.expect("a request")).await;
    made.unwrap_or_else(|error| panic!("{object}: {error}"));
}

async fn claim(cluster: &Cluster, name: &str, selected: &str) {
    let claim = json!({
        "metadata": { "name": name, "annotations": { "volume.kubernetes.io/selected-node": selected } },
        "spec": { "accessModes": ["ReadWriteOnce"], "resources": { "requests": { "storage": "1Gi" } } },
    });
    cluster.make::<PersistentVolumeClaim>(claim).await;
}

fn directories(root: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(root).map(|entries| entries.flatten().collect::<Vec<_>>()).unwrap_or_default();
    entries.into_iter().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

#[tokio::test(start_paused = true)]
async fn a_claim_gets_a_directory_and_gives_it_back() {
    let temp = tempfile::tempdir().expect("a directory");
    let root = temp.path().join("storage");
    let cluster = with_storage(&root).await;
    claim(&cluster, "data", "node-0").await;
    claim(&cluster, "elsewhere", "node-1").await;
    let phase = async |name: &str| {
        let claim = cluster.api::<PersistentVolumeClaim>().get(name).await.expect("it is there");
        claim.status.and_then(|status| status.phase).unwrap_or_default()
    };
    cluster.wait_until("the claim is bound", async || phase("data").await == "Bound").await;
    let claim = cluster.api::<PersistentVolumeClaim>().get("data").await.expect("it is there");
    let uid = claim.metadata.uid.clone().expect("set");
    let directory = format!("pvc-{uid}_default_data");
    assert_eq!(directories(&root), std::slice::from_ref(&directory));
    let volumes: Api<PersistentVolume> = Api::all(cluster.admin());
    let volume = volumes.get(&format!("pvc-{uid}")).await.expect("it was made");
    let spec = serde_json::to_value(volume.spec.expect("set")).expect("JSON");
    assert_eq!(spec["local"]["path"], root.join(&directory).display().to_string());
    let terms = &spec["nodeAffinity"]["required"]["nodeSelectorTerms"];
    assert_eq!(terms[0]["matchExpressions"][0]["values"], json!(["host-0"]));
    let told = async || {
        let all = reasons(&cluster, "data").await;
        ["Provisioning", "ProvisioningSucceeded"].iter().all(|reason| all.iter().any(|told| told == reason))
    };
    cluster.wait_until("it is told", told).await;
    assert_eq!(phase("elsewhere").await, "Pending", "another node's");

    std::fs::write(root.join(&directory).join("file"), "x").expect("a file");
    // Whoever dies meanwhile changes nothing.
    cluster.kill("loops/storage/provisioner");
    cluster.kill("loops/storage/directories");
    cluster.api::<PersistentVolumeClaim>().delete("data", &DeleteParams::default()).await.expect("it may be deleted");
    let gone = async || volumes.list(&ListParams::default()).await.is_ok_and(|all| all.items.is_empty());
    cluster.wait_until("the volume is gone", gone).await;
    assert_eq!(directories(&root), [""; 0]);
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_claim_that_cannot_be_is_told_why() {
    let temp = tempfile::tempdir().expect("a directory");
    let cluster = with_storage(&temp.path().join("storage")).await;
    let classes: Api<StorageClass> = Api::all(cluster.admin());
    let class = json!({
        "metadata": { "name": "bad" }, "provisioner": "rancher.io/local-path", "volumeBindingMode": "WaitForFirstConsumer",
        "parameters": { "pathPattern": "{{ .PVC.Namespace }}/{{ .PVC.Name }}/../../../etc" },
    });
    classes.create(&PostParams::default(), &serde_json::from_value(class).expect("one")).await.expect("it may be made");
    let claim = json!({
        "metadata": { "name": "out", "annotations": { "volume.kubernetes.io/selected-node": "node-0" } },
        "spec": {
            "accessModes": ["ReadWriteOnce"], "storageClassName": "bad", "resources": { "requests": { "storage": "1Gi" } },
        },
    });
    cluster.make::<PersistentVolumeClaim>(claim).await;
    let told = async || reasons(&cluster, "out").await.contains(&"ProvisioningFailed".to_owned());
    cluster.wait_until("it is told", told).await;
    let volumes: Api<PersistentVolume> = Api::all(cluster.admin());
    assert_eq!(volumes.list(&ListParams::default()).await.expect("they may be listed").items.len(), 0);
    let maps: Api<ConfigMap> = Api::namespaced(cluster.admin(), "kube-system");
    assert!(maps.get("local-path-config").await.is_ok());
    cluster.stop().await;
}

/// The API, in which kubelets say what is used: half a processor on each node, and a tenth by the pod `p`.
#[derive(Clone)]
struct Kubelets(LocalService, Clock, Arc<AtomicUsize>);

impl tower_service::Service<http::Request<kube::client::Body>> for Kubelets {
    type Response = http::Response<BoxBody>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<kube::client::Body>) -> Self::Future {
        let node = request.uri().path().strip_suffix("/proxy/metrics/resource");
        if node.is_none() {
            let answer = self.0.call(request);
            return Box::pin(async move { Ok(answer.await?.map(|body| body.boxed_unsync())) });
        }
        self.2.fetch_add(1, Relaxed);
        let wall = self.1.wall();
        let (at, seconds) = (wall.as_millis(), wall.as_secs_f64());
        let mut text = format!(
            "node_cpu_usage_seconds_total {} {at}\nnode_memory_working_set_bytes 1048576 {at}\n",
            seconds / 2.0
        );
        if node.is_some_and(|node| node.ends_with("/node-1")) {
            let labels = r#"{container="c",namespace="default",pod="p"}"#;
            text += &format!("container_cpu_usage_seconds_total{labels} {} {at}\n", seconds / 10.0);
            text += &format!("container_memory_working_set_bytes{labels} 2048 {at}\n");
        }
        let body = Full::new(Bytes::from(text)).map_err(|never| match never {}).boxed_unsync();
        Box::pin(std::future::ready(Ok(http::Response::new(body))))
    }
}

async fn get(cluster: &Cluster, path: &str, accept: &str) -> Value {
    let request = http::Request::get(format!("/apis/metrics.k8s.io/v1beta1{path}")).header("accept", accept);
    cluster.admin().request(request.body(Vec::new()).expect("a request")).await.expect("an answer")
}

#[tokio::test(start_paused = true)]
async fn metrics_are_measured_while_somebody_asks() {
    let clock = Clock::simulated(3);
    let (api, seat) = k3sd_metrics::prepare();
    let local = LocalApi::new(k3sd_metrics::GROUP, k3sd_metrics::VERSION, k3sd_metrics::PRIORITIES, move |request| {
        api.answer(request)
    });
    let plane = Plane::with(clock.clone(), |config| config.aggregation.locals.push(local));
    let (nodes, _) =
        fake_nodes("nodes", &plane.manager(), NodesArgs { count: 2, lease_period: None, ..NodesArgs::default() });
    let asked = Arc::<AtomicUsize>::default();
    let kubelets = Kubelets(plane.local("system:apiserver", &["system:masters"]), clock.clone(), asked.clone());
    let cluster = plane
        .start_controllers(ControllerConfig::default(), vec![nodes], move |setup| {
            let spec = seat.tree(Connect::over(kubelets), setup.informers);
            vec![subtree("metrics", spec)]
        })
        .await;
    for document in k3sd_metrics::MANIFEST.split("\n---\n") {
        let object = k3sd_objects::decode::yaml(document.as_bytes(), None).expect("YAML").value;
        create(&cluster, &object).await;
    }
    cluster.make::<ServiceAccount>(json!({"metadata": {"name": "default"}})).await;
    let pod = |name: &str| {
        json!({
            "metadata": { "name": name, "labels": { "app": name } },
            "spec": { "nodeName": "node-1", "containers": [{ "name": "c", "image": "registry.example/c:1" }] },
        })
    };
    cluster.make::<Pod>(pod("p")).await;
    cluster.make::<Pod>(pod("q")).await;
    cluster.pass(Duration::from_secs(60)).await;
    assert_eq!(asked.load(Relaxed), 0, "nobody asked");

    let nodes = get(&cluster, "/nodes", "application/json").await;
    assert_eq!(asked.load(Relaxed), 4, "two texts of each node");
    let usage: Vec<_> = nodes["items"].as_array().expect("a list").iter().map(|node| &node["usage"]).collect();
    let wanted = json!({ "cpu": "500m", "memory": "1Mi" });
    assert_eq!((nodes["kind"].as_str(), usage), (Some("NodeMetricsList"), vec![&wanted, &wanted]));
    let pods = get(&cluster, "/namespaces/default/pods?labelSelector=app%3Dp", "application/json").await;
    assert_eq!(pods["items"][0]["containers"], json!([{ "name": "c", "usage": { "cpu": "100m", "memory": "2Ki" } }]));
    assert_eq!(pods["items"].as_array().map(Vec::len), Some(1));
    let table = get(&cluster, "/pods", "application/json;as=Table;v=v1;g=meta.k8s.io,application/json").await;
    assert_eq!((&table["kind"], table["rows"].as_array().map(Vec::len)), (&json!("Table"), Some(1)));
    assert_eq!(table["rows"][0]["cells"], json!(["p", "100m", "2Ki", "2s"]));
    let one = get(&cluster, "/nodes/node-0", "application/json").await;
    assert_eq!((&one["kind"], &one["metadata"]["name"]), (&json!("NodeMetrics"), &json!("node-0")));
    let missing: Result<Value, _> = {
        let request = http::Request::get("/apis/metrics.k8s.io/v1beta1/namespaces/default/pods/q").body(Vec::new());
        cluster.admin().request(request.expect("a request")).await
    };
    let status = match missing.expect_err("it has no numbers") {
        kube::Error::Api(status) => status,
        other => panic!("{other}"),
    };
    assert_eq!((status.code, status.message.as_str()), (404, "podmetrics.metrics.k8s.io \"default/q\" not found"));

    // While somebody asks it is read all fifteen seconds, and not any more some minutes after the last question.
    cluster.pass(Duration::from_secs(31)).await;
    assert_eq!(asked.load(Relaxed), 8);
    cluster.pass(Duration::from_secs(300)).await;
    let before = asked.load(Relaxed);
    cluster.pass(Duration::from_secs(600)).await;
    assert_eq!(asked.load(Relaxed), before);
    cluster.kill("loops/metrics/scraper");
    let again = async || {
        let request = http::Request::get("/apis/metrics.k8s.io/v1beta1/nodes").body(Vec::new()).expect("a request");
        let list: Result<Value, _> = cluster.admin().request(request).await;
        list.is_ok_and(|list| list["items"].as_array().map(Vec::len) == Some(2))
    };
    cluster.wait_until("it is measured again", again).await;
    cluster.stop().await;
}
