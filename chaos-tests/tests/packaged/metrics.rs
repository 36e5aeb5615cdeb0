//! What nodes and pods use.

use std::convert::Infallible;
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
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use k3sd_apiserver::{LocalApi, LocalService};
use k3sd_client::api::Connect;
use k3sd_client::controller::setup::ControllerConfig;
use k3sd_runtime::{Clock, subtree};
use k8s_openapi::api::core::v1::{Pod, ServiceAccount};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tower_service::Service as _;

type BoxBody = UnsyncBoxBody<Bytes, std::io::Error>;

/// The API, in which kubelets say what is used: half a processor on each node, and a tenth by the pod `p`.
#[derive(Clone)]
struct Kubelets {
    api: LocalService,
    clock: Clock,
    /// Milliseconds since 1970 when all counters stood at zero.
    began: u128,
    asked: Arc<AtomicUsize>,
}

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
            let answer = self.api.call(request);
            return Box::pin(async move { Ok(answer.await?.map(|body| body.boxed_unsync())) });
        }
        self.asked.fetch_add(1, Relaxed);
        let at = self.clock.wall().as_millis();
        // Small numbers, which are exact as text.
        let seconds = (at - self.began) as f64 / 1000.0;
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

/// A cluster in which somebody measures two nodes, and two pods on one of them.
async fn measured(clock: Clock) -> (Cluster, Arc<AtomicUsize>) {
    let (api, seat) = k3sd_metrics::prepare();
    let local = LocalApi::new(k3sd_metrics::GROUP, k3sd_metrics::VERSION, k3sd_metrics::PRIORITIES, move |request| {
        api.answer(request)
    });
    let plane = Plane::with(clock.clone(), |config| config.aggregation.locals.push(local));
    let (nodes, _) =
        fake_nodes("nodes", &plane.manager(), NodesArgs { count: 2, lease_period: None, ..NodesArgs::default() });
    let asked = Arc::<AtomicUsize>::default();
    let api = plane.local("system:apiserver", &["system:masters"]);
    let kubelets = Kubelets { api, began: clock.wall().as_millis(), clock, asked: asked.clone() };
    let cluster = plane
        .start_controllers(ControllerConfig::default(), vec![nodes], move |setup| {
            let spec = seat.tree(Connect::over(kubelets), setup.informers);
            vec![subtree("metrics", spec)]
        })
        .await;
    cluster.deploy(k3sd_metrics::MANIFEST).await;
    cluster.make::<ServiceAccount>(json!({"metadata": {"name": "default"}})).await;
    for name in ["p", "q"] {
        let pod = json!({
            "metadata": { "name": name, "labels": { "app": name } },
            "spec": { "nodeName": "node-1", "containers": [{ "name": "c", "image": "registry.example/c:1" }] },
        });
        cluster.make::<Pod>(pod).await;
    }
    (cluster, asked)
}

#[tokio::test(start_paused = true)]
async fn metrics_are_measured_while_somebody_asks() {
    let (cluster, asked) = measured(Clock::simulated(3)).await;
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

/// Serves the API without TLS, for clients that are other programs.
async fn serve(listener: TcpListener, api: LocalService) {
    loop {
        let (stream, _) = listener.accept().await.expect("a connection");
        let api = api.clone();
        let answer = service_fn(move |request: http::Request<Incoming>| {
            let mut api = api.clone();
            async move { api.call(request).await }
        });
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), answer));
    }
}

#[tokio::test]
async fn kubectl_shows_what_is_used() {
    /// Commands, and what they print; headings differ from version to version.
    const TRANSCRIPT: [(&str, &str); 6] = [
        ("top node", "NAME CPU(cores) CPU(%) MEMORY(bytes) MEMORY(%)\nnode-0 500m 6% 1Mi 0%\nnode-1 500m 6% 1Mi 0%\n"),
        ("top node node-1 --no-headers", "node-1 500m 6% 1Mi 0%\n"),
        ("top pod", "NAME CPU(cores) MEMORY(bytes)\np 100m 0Mi\n"),
        (
            "top pod --all-namespaces --containers",
            "NAMESPACE POD NAME CPU(cores) MEMORY(bytes)\ndefault p c 100m 0Mi\n",
        ),
        ("top pod --selector=app=p --no-headers", "p 100m 0Mi\n"),
        ("top pod q", "Error from server (NotFound): podmetrics.metrics.k8s.io \"default/q\" not found\n"),
    ];

    let home = tempfile::tempdir().expect("a directory");
    let kubectl = |words: &str| {
        let mut command = tokio::process::Command::new("kubectl");
        command.args(words.split(' ')).env("HOME", home.path()).env_remove("KUBECONFIG").kill_on_drop(true);
        command
    };
    if !kubectl("version --client").output().await.is_ok_and(|output| output.status.success()) {
        println!("ignored: there is no kubectl (on Debian: kubernetes-client)");
        return;
    }
    let (cluster, _) = measured(Clock::system()).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let server = format!("http://{}", listener.local_addr().expect("it has one"));
    let serving = tokio::spawn(serve(listener, cluster.local("admin", &["system:masters", "system:authenticated"])));
    let run = async |words: &str| {
        let output = kubectl(words).arg(format!("--server={server}")).output().await.expect("it runs");
        let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ") + "\n";
        text.lines().map(words).collect::<String>().replace("CPU%", "CPU(%)").replace("MEMORY%", "MEMORY(%)")
    };
    cluster.wait_until("both nodes are measured", async || run("top node").await.lines().count() == 3).await;
    cluster.wait_until("the pod is measured", async || run("top pod").await.lines().count() == 2).await;
    for (command, expected) in TRANSCRIPT {
        assert_eq!(run(command).await, expected, "kubectl {command}");
    }
    serving.abort();
    cluster.stop().await;
}
