//! Services at the addresses of nodes.

use chaos_tests::cluster::nodes::{NodesArgs, fake_nodes};
use chaos_tests::cluster::{Cluster, Plane};
use k3sd_client::controller::setup::ControllerConfig;
use k3sd_runtime::Clock;
use k3sd_servicelb::ServiceLbConfig;
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{Node, Pod, Service, ServiceAccount};
use kube::Api;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::reasons;

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

/// The internal address of a node.
async fn address_of(cluster: &Cluster, name: &str) -> String {
    let nodes: Api<Node> = Api::all(cluster.admin());
    let status = nodes.get(name).await.expect("it is there").status.expect("it was told");
    let mut all = status.addresses.into_iter().flatten();
    all.find(|address| address.type_ == "InternalIP").expect("it has one").address
}

#[tokio::test(start_paused = true)]
async fn pools_taints_and_external_addresses_count_as_in_k3s() {
    const ENABLED: &str = "svccontroller.k3s.cattle.io/enablelb";
    const POOL: &str = "svccontroller.k3s.cattle.io/lbpool";

    let cluster = balanced(3).await;
    cluster.wait_until("nodes have addresses", async || internal(&cluster).await.len() == 3).await;
    let [a, b] = [address_of(&cluster, "node-0").await, address_of(&cluster, "node-1").await];
    let mut both = [a.as_str(), b.as_str()];
    both.sort_unstable();
    patch_node(&cluster, "node-0", json!({ "metadata": { "labels": { ENABLED: "true" } } })).await;
    patch_node(&cluster, "node-1", json!({ "metadata": { "labels": { ENABLED: "true", POOL: "edge" } } })).await;

    // The class of pods that aren't there changes nothing.
    let mut plain = balancer("plain", 80, json!({}));
    plain["metadata"]["annotations"] =
        json!({ "svccontroller.k3s.cattle.io/priorityclassname": "system-cluster-critical" });
    cluster.make::<Service>(plain).await;
    let mut pooled = balancer("pooled", 81, json!({}));
    pooled["metadata"]["labels"] = json!({ POOL: "edge" });
    cluster.make::<Service>(pooled).await;
    has_addresses(&cluster, "plain", &both).await;
    has_addresses(&cluster, "pooled", &[&b]).await;
    // It goes to another pool, of which there is no node, and back.
    for (pool, expected) in [("other", vec![]), ("edge", vec![b.as_str()])] {
        let change = Patch::Merge(json!({ "metadata": { "labels": { POOL: pool } } }));
        cluster.api::<Service>().patch("pooled", &PatchParams::default(), &change).await.expect("it may be changed");
        has_addresses(&cluster, "pooled", &expected).await;
    }

    // A taint keeps a Service away that doesn't tolerate it.
    let taint = json!({ "spec": { "taints": [{ "key": "dedicated", "value": "db", "effect": "NoSchedule" }] } });
    patch_node(&cluster, "node-0", taint).await;
    has_addresses(&cluster, "plain", &[&b]).await;
    let tolerations = "- {key: dedicated, value: db, effect: NoSchedule}";
    let change = json!({ "metadata": { "annotations": { "svccontroller.k3s.cattle.io/tolerations": tolerations } } });
    let patch = Patch::Merge(change);
    cluster.api::<Service>().patch("plain", &PatchParams::default(), &patch).await.expect("it may be changed");
    has_addresses(&cluster, "plain", &both).await;

    // One external address among its nodes, and internal ones are shown no more.
    let addresses =
        json!([{ "type": "InternalIP", "address": b }, { "type": "ExternalIP", "address": "198.51.100.7" }]);
    let nodes: Api<Node> = Api::all(cluster.admin());
    let status = Patch::Merge(json!({ "status": { "addresses": addresses } }));
    nodes.patch_status("node-1", &PatchParams::default(), &status).await.expect("it may be told");
    has_addresses(&cluster, "plain", &["198.51.100.7"]).await;
    has_addresses(&cluster, "pooled", &["198.51.100.7"]).await;
    let told = async || reasons(&cluster, "plain").await.contains(&"UpdatedLoadBalancer".to_owned());
    cluster.wait_until("it is told", told).await;
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_k3s_made_for_balancers_goes() {
    let cluster = balanced(1).await;
    let mut old = balancer("old", 80, json!({ "type": "ClusterIP" }));
    old["metadata"]["finalizers"] = json!(["example.org/kept", "svccontroller.k3s.cattle.io/daemonset"]);
    cluster.make::<Service>(old).await;
    let finalizers = async || cluster.api::<Service>().get("old").await.map(|old| old.metadata.finalizers);
    let kept = async || finalizers().await.is_ok_and(|kept| kept == Some(vec!["example.org/kept".to_owned()]));
    cluster.wait_until("the finalizer of old versions is gone", kept).await;
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
