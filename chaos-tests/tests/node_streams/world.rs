//! An API server and a node's server, on sockets of their own, with a pod in a real runtime.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use k3sd_apiserver::{
    ApiServerArgs, ApiServerConfig, Bundles, ClientAuthorities, Components, Dial, Endpoint, Nodes, Pipeline,
    StaticTokens, TokenKeys, User,
};
use k3sd_client::api::Connect;
use k3sd_client::storage::memory::Memory;
use k3sd_kubelet_base::stats::{Figures, Measuring, NodeStats, Summary};
use k3sd_kubelet_base::{ContainerState, ContainerView, PodView, PodsPublisher, PodsSnapshot};
use k3sd_kubelet_server::{Checks, Configz, ServerArgs, ServerConfig};
use k3sd_runtime::lend::Lend;
use k3sd_runtime::{Spec, Strategy, System, Tree, subtree};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::json;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;
use tokio::process::Command;
use tokio::sync::watch;

use crate::pki::Pki;
use crate::runtime::Runtime;

/// Longest wait for what has to happen.
pub(crate) const LIMIT: Duration = Duration::from_secs(20);

/// Everything.
pub(crate) struct World {
    pub(crate) runtime: Runtime,
    pub(crate) publisher: PodsPublisher,
    pub(crate) port: u16,
    pub(crate) kubelet_port: u16,
    pub(crate) pki: Pki,
    tree: Tree,
}

struct Fixed;

impl Figures for Fixed {
    fn summary(&self, _: bool) -> Measuring<'_, Summary> {
        let node = NodeStats { node_name: "n".to_owned(), ..NodeStats::default() };
        Box::pin(std::future::ready(Ok(Summary { node, pods: Vec::new() })))
    }

    fn resource_metrics(&self) -> Measuring<'_, String> {
        Box::pin(std::future::ready(Ok("node_cpu_usage_seconds_total 1\n".to_owned())))
    }

    fn container_metrics(&self) -> Measuring<'_, String> {
        Box::pin(std::future::ready(Err("nothing was measured yet".to_owned())))
    }

    fn probe_metrics(&self) -> Measuring<'_, String> {
        Box::pin(std::future::ready(Ok(String::new())))
    }

    fn own_metrics(&self) -> String {
        String::new()
    }
}

/// A pod as its node has it, in this state.
fn view(runtime: &Runtime, pod: &Pod, state: ContainerState) -> Arc<PodsSnapshot> {
    let mut pod = pod.clone();
    let id = format!("containerd://{}", runtime.container);
    let running = json!({ "running": { "startedAt": "2030-01-01T00:00:00Z" } });
    let status = json!({ "containerStatuses": [{ "name": "c", "image": "i", "imageID": "", "ready": true,
        "restartCount": 0, "containerID": id, "state": running }] });
    pod.status = Some(serde_json::from_value(status).expect("a status"));
    let container = ContainerView {
        name: "c".to_owned(),
        id: runtime.container.clone(),
        attempt: 0,
        state,
        log: runtime.log(),
        image: "i".to_owned(),
    };
    let view = PodView {
        pod: Arc::new(pod),
        uid: "u".to_owned(),
        sandbox: Some(runtime.sandbox.clone()),
        addresses: vec!["127.0.0.1".to_owned()],
        cgroup: None,
        containers: vec![container],
    };
    Arc::new(PodsSnapshot { pods: BTreeMap::from([("u".to_owned(), Arc::new(view))]) })
}

fn pod() -> Pod {
    let pod = json!({
        "metadata": { "name": "p", "namespace": "default" },
        "spec": { "nodeName": "n", "containers": [{ "name": "c", "image": "i" }] },
    });
    serde_json::from_value(pod).expect("a pod")
}

impl World {
    pub(crate) async fn start() -> Self {
        let (runtime, pki) = (Runtime::start().await, Pki::new());
        let socket = async || TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let (listener, kubelet) = (socket().await, socket().await);
        let port = |socket: &TcpListener| socket.local_addr().expect("bound").port();
        let (port, kubelet_port) = (port(&listener), port(&kubelet));
        let system = System::new(k3sd_runtime::Clock::system());
        let config = ApiServerConfig {
            static_tokens: Arc::new(
                StaticTokens::parse("admin-token,admin,1,system:masters\nann-token,ann,2\n").expect("a file"),
            ),
            // No endpoint may be on loopback.
            advertise_address: [192, 0, 2, 1].into(),
            nodes: Nodes::new(&pki.client("apiserver"), Dial::direct()),
            ..ApiServerConfig::default()
        };
        let api = k3sd_apiserver::tree(ApiServerArgs {
            config,
            storage: Arc::new(Memory::new(system.clock().clone())),
            clock: system.clock().clone(),
            token_keys: TokenKeys::fixed(vec![std::fs::read_to_string(pki.path("ca.key")).expect("a key")]),
            authorities: ClientAuthorities { users: pki.clients(), front_proxies: None },
            bundles: Bundles::new(|| ("a bundle".to_owned(), String::new())),
            endpoints: vec![Endpoint {
                name: "listener".to_owned(),
                socket: Lend::new(listener),
                certificate: pki.certificate(),
                learn: None,
            }],
            components: Components::default(),
            checks: Vec::new(),
        });
        let api = api.expect("the settings make sense");
        let (publisher, pods) = watch::channel(view(&runtime, &pod(), ContainerState::Running));
        let server = k3sd_kubelet_server::tree(ServerArgs {
            config: ServerConfig::new("n"),
            socket: Lend::new(kubelet),
            tls: Arc::new(pki.server()),
            health_socket: None,
            connect: node_connect(&api.pipeline),
            pods,
            cri: runtime.cri.clone(),
            figures: Arc::new(Fixed),
            checks: Checks::new(|| vec![("syncloop".to_owned(), Ok(()))]),
            configz: Configz::new(|| json!({ "kind": "KubeletConfiguration" })),
            clock: system.clock().clone(),
        });
        let root =
            Spec::new(Strategy::RestForOne).child(subtree("apiserver", api.spec)).child(subtree("server", server));
        let tree = system.start(root);
        tokio::time::timeout(LIMIT, tree.ready()).await.expect("in time").expect("it starts");
        let world = Self { runtime, publisher, port, kubelet_port, pki, tree };
        world.objects(&api.pipeline).await;
        world
    }

    async fn objects(&self, pipeline: &Pipeline) {
        let client = Connect::over(pipeline.local(User::new("admin", &["system:masters"]))).client();
        let node = json!({
            "metadata": { "name": "n" },
            "status": { "addresses": [{ "type": "InternalIP", "address": "127.0.0.1" }],
                "daemonEndpoints": { "kubeletEndpoint": { "Port": self.kubelet_port } } },
        });
        let node: Node = serde_json::from_value(node).expect("a node");
        let nodes: Api<Node> = Api::all(client.clone());
        nodes.create(&PostParams::default(), &node).await.expect("a node");
        let accounts: Api<k8s_openapi::api::core::v1::ServiceAccount> = Api::namespaced(client.clone(), "default");
        let account = json!({ "metadata": { "name": "default" } });
        let account = serde_json::from_value(account).expect("an account");
        accounts.create(&PostParams::default(), &account).await.expect("an account");
        let pods: Api<Pod> = Api::namespaced(client, "default");
        pods.create(&PostParams::default(), &pod()).await.expect("a pod");
        let status = Patch::Merge(json!({ "status": { "phase": "Running" } }));
        pods.patch_status("p", &PatchParams::default(), &status).await.expect("a status");
    }

    /// Says that the container has ended.
    pub(crate) fn end_container(&self) {
        self.publisher.send_replace(view(&self.runtime, &pod(), ContainerState::Exited));
    }

    /// `kubectl` with this token. `web_sockets` says how it speaks to containers.
    pub(crate) fn kubectl(&self, token: &str, web_sockets: bool, args: &[&str]) -> Command {
        let mut command = Command::new("kubectl");
        let server = format!("--server=https://127.0.0.1:{}", self.port);
        let authority = format!("--certificate-authority={}", self.pki.path("ca.crt"));
        command.args([&server, &authority, &format!("--token={token}"), "--kubeconfig=/dev/null"]).args(args);
        let value = if web_sockets { "true" } else { "false" };
        command.env("KUBECTL_REMOTE_COMMAND_WEBSOCKETS", value).env("KUBECTL_PORT_FORWARD_WEBSOCKETS", value);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        command
    }

    /// Runs it to its end: exit code, and both outputs.
    pub(crate) async fn ran(&self, mut command: Command, input: &[u8]) -> (i32, String, String) {
        if !input.is_empty() {
            command.stdin(Stdio::piped());
        }
        let mut child = command.spawn().expect("kubectl is installed");
        let stdin = child.stdin.take();
        let feed = async {
            if let Some(mut stdin) = stdin {
                stdin.write_all(input).await.ok();
            }
        };
        let ended = tokio::time::timeout(LIMIT, async { tokio::join!(child.wait_with_output(), feed).0 });
        let output = ended.await.unwrap_or_else(|_| panic!("{command:?} in time")).expect("it ran");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code().unwrap_or(-1), text(&output.stdout), text(&output.stderr))
    }

    /// As administrator.
    pub(crate) async fn admin(&self, web_sockets: bool, args: &[&str]) -> (i32, String, String) {
        self.ran(self.kubectl("admin-token", web_sockets, args), b"").await
    }

    pub(crate) async fn stop(self) {
        let Self { runtime, tree, .. } = self;
        tree.stop();
        tree.ended().await;
        runtime.stop().await;
    }
}

/// The node's way to the API.
fn node_connect(pipeline: &Pipeline) -> Connect {
    Connect::over(pipeline.local(User::new("system:node:n", &["system:nodes", "system:authenticated"])))
}
