//! The DNS of a node over the API server, asked by `dig` and by clients as simple as C libraries. Each test has a network
//! namespace of its own.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use chaos_tests::cluster::nodes::{NodesArgs, fake_nodes};
use chaos_tests::cluster::{Cluster, Plane};
use futures_util::future::{join, join_all};
use k3sd_client::controller::setup::ControllerConfig;
use k3sd_coredns::{DnsConfig, DnsDeps, ManifestArgs, Provider};
use k3sd_runtime::{Clock, Signal, subtree};
use k8s_openapi::api::core::v1::{ConfigMap, Node, Pod, Service, ServiceAccount};
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::space::{DNS, by_tcp, by_udp, dig, inside};

/// Somebody who may change the ConfigMap, as the server itself may.
const SUPERVISOR: (&str, &str) = ("system:k3s-supervisor", "system:masters");
const NODES: usize = 2;

/// A cluster with nodes, whose DNS has the rights that its manifest gives to it.
async fn start() -> Cluster {
    let plane = Plane::new(Clock::system());
    let args = NodesArgs { count: NODES, lease_period: None, ..NodesArgs::default() };
    let (nodes, _) = fake_nodes("nodes", &plane.manager(), args);
    let address: IpAddr = DNS.parse().expect("an address");
    // It names no servers: nothing is sent on from here.
    let mut config = DnsConfig::new(vec![address], "cluster.local", "/dev/null".into(), "node-0");
    config.workers = 2;
    let connect = plane.identities().service_account("kube-system", "coredns");
    let dns = k3sd_coredns::tree(config, DnsDeps { connect, clock: plane.clock().clone() }).await;
    let dns = subtree("dns", dns.expect("it may listen").spec);
    let supervisor = plane.identities().user(SUPERVISOR.0, &[SUPERVISOR.1]);
    let cluster = plane
        .start_controllers(ControllerConfig::default(), vec![nodes, dns], |setup| {
            let hosts = k3sd_coredns::node_hosts(&supervisor, &setup.informers.informer(), setup.leading.clone());
            let mut loops = k3sd_controllers_network::loops(setup);
            loops.push(subtree("node-hosts", hosts));
            loops
        })
        .await;
    cluster.deploy(&manifest()).await;
    // Made by a controller that isn't here; pods need it.
    cluster.make::<ServiceAccount>(json!({"metadata": {"name": "default"}})).await;
    cluster
}

/// What `coredns.yaml` has.
fn manifest() -> String {
    k3sd_coredns::manifest(&ManifestArgs {
        provider: Provider::Embedded,
        cluster_dns: vec![DNS.parse().expect("an address")],
        cluster_domain: "cluster.local".to_owned(),
        system_default_registry: String::new(),
    })
}

fn pod(name: &str, app: &str, node: &str, spec: Value) -> Value {
    let mut pod = json!({
        "metadata": { "name": name, "labels": { "app": app } },
        "spec": { "nodeName": node, "containers": [{ "name": "c", "image": "registry.example/c:1" }] },
    });
    for (field, value) in spec.as_object().expect("fields") {
        pod["spec"][field] = value.clone();
    }
    pod
}

/// A shop: `web` with an address, `db` without one whose pods have names, and a name for something outside.
async fn furnish(cluster: &Cluster) -> (String, [String; 2]) {
    let http = json!([{ "name": "http", "port": 80, "targetPort": 8080 }]);
    let web = json!({ "metadata": { "name": "web" }, "spec": { "selector": { "app": "web" }, "ports": http } });
    let web: Service = cluster.make(web).await;
    let db = json!({
        "metadata": { "name": "db" },
        "spec": { "clusterIP": "None", "selector": { "app": "db" }, "ports": [{ "name": "pg", "port": 5432 }] },
    });
    cluster.make::<Service>(db).await;
    let out =
        json!({ "metadata": { "name": "out" }, "spec": { "type": "ExternalName", "externalName": "www.example.net" } });
    cluster.make::<Service>(out).await;
    cluster.make::<Pod>(pod("web-x", "web", "node-0", json!({}))).await;
    for number in 0..2 {
        let named = json!({ "hostname": format!("db-{number}"), "subdomain": "db" });
        cluster.make::<Pod>(pod(&format!("db-{number}"), "db", &format!("node-{number}"), named)).await;
    }
    let address = async |name: &str| {
        let found = cluster.api::<Pod>().get(name).await.expect("it is there").status;
        found.and_then(|status| status.pod_ip)
    };
    let have = async || address("db-0").await.is_some() && address("db-1").await.is_some();
    cluster.wait_until("the pods have addresses", have).await;
    let addresses = [address("db-0").await.expect("it has one"), address("db-1").await.expect("it has one")];
    (web.spec.and_then(|spec| spec.cluster_ip).expect("it has one"), addresses)
}

/// Waits until a question has this answer.
async fn says(cluster: &Cluster, args: &[&str], expected: &str) {
    let mut found = String::new();
    let holds = async || {
        found = dig(args).await;
        found == expected
    };
    cluster.wait_until(&format!("{args:?} is {expected}"), holds).await;
}

#[test]
fn names_follow_the_cluster() {
    inside(|| async {
        let cluster = start().await;
        let (web, db) = furnish(&cluster).await;
        let mut both = db.to_vec();
        both.sort();
        says(&cluster, &["web.default.svc.cluster.local"], &web).await;
        says(&cluster, &["db.default.svc.cluster.local"], &both.join(" ")).await;
        let pod_name = format!("{}.default.pod.cluster.local", db[0].replace('.', "-"));
        for (args, expected) in [
            (vec!["+tcp", "web.default.svc.cluster.local"], web.clone()),
            (vec!["db-0.db.default.svc.cluster.local"], db[0].clone()),
            (vec!["+tcp", "db-1.db.default.svc.cluster.local"], db[1].clone()),
            (vec!["-t", "CNAME", "out.default.svc.cluster.local"], "www.example.net.".to_owned()),
            (
                vec!["-t", "SRV", "_http._tcp.web.default.svc.cluster.local"],
                "0 100 80 web.default.svc.cluster.local.".to_owned(),
            ),
            (
                vec!["-t", "SRV", "_pg._tcp.db.default.svc.cluster.local"],
                "0 50 5432 db-0.db.default.svc.cluster.local. 0 50 5432 db-1.db.default.svc.cluster.local.".to_owned(),
            ),
            (vec!["-x", web.as_str()], "web.default.svc.cluster.local.".to_owned()),
            (vec!["-x", db[1].as_str()], "db-1.db.default.svc.cluster.local.".to_owned()),
            (vec![pod_name.as_str()], db[0].clone()),
            (vec!["kubernetes.default.svc.cluster.local"], "10.43.0.1".to_owned()),
            (vec!["kube-dns.kube-system.svc.cluster.local"], DNS.to_owned()),
            (vec!["gone.default.svc.cluster.local"], String::new()),
        ] {
            assert_eq!(dig(&args).await, expected, "{args:?}");
        }
        // What goes is gone, and what comes is there, whoever dies meanwhile.
        cluster.kill("loops/dns/keeper");
        cluster.api::<Pod>().delete("db-1", &DeleteParams::default().grace_period(0)).await.expect("it may go");
        cluster.api::<Service>().delete("web", &DeleteParams::default()).await.expect("it may go");
        says(&cluster, &["db.default.svc.cluster.local"], &db[0]).await;
        says(&cluster, &["web.default.svc.cluster.local"], "").await;
        let late =
            json!({ "metadata": { "name": "late" }, "spec": { "clusterIP": "10.43.7.7", "ports": [{ "port": 1 }] } });
        cluster.make::<Service>(late).await;
        says(&cluster, &["late.default.svc.cluster.local"], "10.43.7.7").await;
        cluster.stop().await;
    });
}

/// The lines of `NodeHosts`, and the Corefile beside them.
async fn hosts(cluster: &Cluster) -> (String, String) {
    let maps: Api<ConfigMap> = Api::namespaced(cluster.admin(), "kube-system");
    let data = maps.get_opt("coredns").await.expect("it may be read").and_then(|map| map.data).unwrap_or_default();
    let key = |name: &str| data.get(name).cloned().unwrap_or_default();
    (key("NodeHosts"), key("Corefile"))
}

async fn address_of(cluster: &Cluster, node: &str, addresses: Value) {
    let nodes: Api<Node> = Api::all(cluster.admin());
    let status = Patch::Merge(json!({ "status": { "addresses": addresses } }));
    nodes.patch_status(node, &PatchParams::default(), &status).await.expect("it may be told");
}

#[test]
fn nodes_are_found_by_their_names() {
    inside(|| async {
        let cluster = start().await;
        let nodes: Api<Node> = Api::all(cluster.admin());
        let lines = async || hosts(&cluster).await.0.lines().count();
        cluster.wait_until("the first nodes have lines", async || lines().await == NODES).await;
        let (before, corefile) = hosts(&cluster).await;
        assert!(corefile.starts_with(".:53 {"), "{corefile}");

        let late: Node = serde_json::from_value(json!({ "metadata": { "name": "late" } })).expect("a node");
        nodes.create(&PostParams::default(), &late).await.expect("it may be made");
        let internal = |address: &str| json!({ "type": "InternalIP", "address": address });
        let named = json!({ "type": "Hostname", "address": "late.example" });
        address_of(&cluster, "late", json!([internal("192.0.2.77"), internal("2001:db8::77"), named])).await;
        says(&cluster, &["late"], "192.0.2.77").await;
        let (now, kept) = hosts(&cluster).await;
        let mut expected: Vec<&str> = before.lines().collect();
        expected.extend(["192.0.2.77 late late.example", "2001:db8::77 late late.example"]);
        expected.sort_unstable();
        assert_eq!((now.lines().collect::<Vec<_>>(), kept), (expected, corefile.clone()));
        assert_eq!(dig(&["-t", "AAAA", "late.example"]).await, "2001:db8::77");
        assert_eq!(dig(&["-x", "192.0.2.77"]).await, "late. late.example.");

        // It moves, and its controller dies.
        cluster.kill("loops/node-hosts/node-hosts");
        address_of(&cluster, "late", json!([internal("192.0.2.78")])).await;
        says(&cluster, &["late"], "192.0.2.78").await;
        // The manifest is applied anew, without the key; somebody writes nonsense into it.
        let maps: Api<ConfigMap> = Api::namespaced(cluster.admin(), "kube-system");
        let nonsense = Patch::Merge(json!({ "data": { "NodeHosts": "192.0.2.1 late\n" } }));
        maps.patch("coredns", &PatchParams::default(), &nonsense).await.expect("it may be changed");
        let mended = async || hosts(&cluster).await.0.contains("192.0.2.78 late\n");
        cluster.wait_until("the lines are those of the nodes", mended).await;
        maps.delete("coredns", &DeleteParams::default()).await.expect("it may be deleted");
        cluster.deploy(&manifest()).await;
        cluster.wait_until("the lines are there again", mended).await;
        assert_eq!(hosts(&cluster).await.1, corefile);
        // It goes.
        nodes.delete("late", &DeleteParams::default()).await.expect("it may go");
        says(&cluster, &["late"], "").await;
        assert_eq!(hosts(&cluster).await.0, before);
        cluster.stop().await;
    });
}

#[test]
fn clients_do_not_notice_deaths() {
    /// Who dies, in turn.
    const VICTIMS: [&str; 6] = ["servers/udp-0", "keeper", "servers/udp-1", "resolver", "servers/tcp-0", "addresses"];
    /// Questions of each client, and how many clients there are.
    const QUESTIONS: u16 = 400;
    const CLIENTS: u16 = 4;

    inside(|| async {
        let cluster = start().await;
        let (web, _) = furnish(&cluster).await;
        let web: Ipv4Addr = web.parse().expect("an address");
        let name = "web.default.svc.cluster.local";
        says(&cluster, &[name], &web.to_string()).await;
        let client = async |client: u16| {
            let mut again = 0;
            for number in 0..QUESTIONS {
                let id = client * QUESTIONS + number;
                let found = if client == 0 { by_tcp(id, name).await } else { by_udp(id, name).await };
                let (address, is_second) = found.unwrap_or_else(|| panic!("question {number} of {client} is lost"));
                assert_eq!(address, web);
                again += u32::from(is_second);
                // So that they are still asking when the last one dies.
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            again
        };
        let killer = async {
            let mut killed = 0;
            for number in 0..18 {
                tokio::time::sleep(Duration::from_millis(100)).await;
                let path = format!("loops/dns/{}", VICTIMS[number % VICTIMS.len()]);
                killed += u32::from(cluster.system().signal(&path, Signal::Kill));
            }
            killed
        };
        let (again, killed) = join(join_all((0..CLIENTS).map(client)), killer).await;
        assert!(killed >= 12, "only {killed} were there to be killed");
        // Each death takes with it what one actor had in its hands.
        assert!(again.iter().sum::<u32>() <= killed * 2, "{again:?} questions were asked twice for {killed} deaths");
        says(&cluster, &[name], &web.to_string()).await;
        cluster.stop().await;
    });
}
