//! An API server and a node's server, on sockets of their own, with a pod in a real runtime.

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
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams, PostParams};
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
    /// Where a server answers whose certificate is somebody else's.
    impostor_port: u16,
    /// A port that is free, for pages from within.
    pub(crate) page_port: u16,
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

    fn own_metrics(&self) -> Measuring<'_, String> {
        Box::pin(std::future::ready(Ok(String::new())))
    }
}

/// The pods as their node has them, the first one's container in this state.
fn views(runtime: &Runtime, state: ContainerState) -> Arc<PodsSnapshot> {
    let first = view(runtime, ("p", "u"), ("c", &runtime.container), state);
    let second = view(runtime, ("ticker", "v"), ("d", &runtime.ticker), ContainerState::Running);
    Arc::new(PodsSnapshot { pods: [first, second].into_iter().map(|view| (view.uid.clone(), view)).collect() })
}

fn view(
    runtime: &Runtime,
    (pod, uid): (&str, &str),
    (container, id): (&str, &str),
    state: ContainerState,
) -> Arc<PodView> {
    let running = json!({ "running": { "startedAt": "2030-01-01T00:00:00Z" } });
    let object = json!({
        "metadata": { "name": pod, "namespace": "default" },
        "spec": { "containers": [{ "name": container }] },
        "status": { "containerStatuses": [{ "name": container, "image": "i", "imageID": "", "ready": true,
            "restartCount": 0, "containerID": format!("containerd://{id}"), "state": running }] },
    });
    let container = ContainerView {
        name: container.to_owned(),
        id: id.to_owned(),
        attempt: 0,
        state,
        log: runtime.log(),
        image: "i".to_owned(),
    };
    Arc::new(PodView {
        pod: Arc::new(serde_json::from_value(object).expect("a pod")),
        uid: uid.to_owned(),
        sandbox: Some(runtime.sandbox.clone()),
        addresses: vec!["127.0.0.1".to_owned()],
        cgroup: None,
        containers: vec![container],
    })
}

impl World {
    pub(crate) async fn start() -> Self {
        let (runtime, pki) = (Runtime::start().await, Pki::new());
        let socket = async || TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let (listener, kubelet, impostor, free) = (socket().await, socket().await, socket().await, socket().await);
        let port = |socket: &TcpListener| socket.local_addr().expect("bound").port();
        let (impostor_port, page_port) = (port(&impostor), port(&free));
        let (port, kubelet_port) = (port(&listener), port(&kubelet));
        drop(free);
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
        let (publisher, pods) = watch::channel(views(&runtime, ContainerState::Running));
        let server = |socket: TcpListener, authority: &Pki| {
            k3sd_kubelet_server::tree(ServerArgs {
                config: ServerConfig::new("n"),
                socket: Lend::new(socket),
                tls: Arc::new(pki.server(authority)),
                health_socket: None,
                connect: node_connect(&api.pipeline),
                pods: pods.clone(),
                cri: runtime.cri.clone(),
                figures: Arc::new(Fixed),
                checks: Checks::new(|| vec![("syncloop".to_owned(), Ok(()))]),
                configz: Configz::new(|| json!({ "kind": "KubeletConfiguration" })),
                clock: system.clock().clone(),
            })
        };
        let servers = [("server", server(kubelet, &pki)), ("impostor", server(impostor, &Pki::new()))];
        let root = Spec::new(Strategy::RestForOne).child(subtree("apiserver", api.spec));
        let root = servers.into_iter().fold(root, |root, (name, server)| root.child(subtree(name, server)));
        let tree = system.start(root);
        tokio::time::timeout(LIMIT, tree.ready()).await.expect("in time").expect("it starts");
        let world = Self { runtime, publisher, port, kubelet_port, impostor_port, page_port, pki, tree };
        world.objects(&api.pipeline).await;
        world
    }

    /// An address of this machine that others may use.
    pub(crate) async fn address(&self) -> Option<std::net::IpAddr> {
        // Nothing is sent: the kernel is asked which address it would be sent from.
        let socket = tokio::net::UdpSocket::bind("0.0.0.0:0").await.ok()?;
        socket.connect("192.0.2.1:9").await.ok()?;
        Some(socket.local_addr().ok()?.ip()).filter(|address| !address.is_loopback())
    }

    async fn objects(&self, pipeline: &Pipeline) {
        let client = Connect::over(pipeline.local(User::new("admin", &["system:masters"]))).client();
        let node = |name: &str, port: u16| {
            json!({
                "apiVersion": "v1", "kind": "Node", "metadata": { "name": name },
                "status": { "addresses": [{ "type": "InternalIP", "address": "127.0.0.1" }],
                    "daemonEndpoints": { "kubeletEndpoint": { "Port": port } } },
            })
        };
        let pod = |name: &str, container: &str, node: Option<&str>| {
            json!({
                "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name, "namespace": "default" },
                "spec": { "nodeName": node, "containers": [{ "name": container, "image": "i" }] },
            })
        };
        let address = self.address().await.map(|address| address.to_string()).unwrap_or_default();
        let service = json!({
            "apiVersion": "v1", "kind": "Service", "metadata": { "name": "s", "namespace": "default" },
            "spec": { "ports": [{ "name": "web", "port": 80 }, { "name": "other", "port": 81 }] },
        });
        let slice = json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": { "name": "s-1", "namespace": "default", "labels": { "kubernetes.io/service-name": "s" } },
            "endpoints": [{ "addresses": [address], "conditions": { "ready": true } }],
            "ports": [{ "name": "web", "port": self.page_port }],
        });
        let account = json!({
            "apiVersion": "v1", "kind": "ServiceAccount", "metadata": { "name": "default", "namespace": "default" },
        });
        // Nobody listens on port 1.
        let nodes = [node("n", self.kubelet_port), node("lost", 1), node("false", self.impostor_port)];
        let pods = [
            ("p", "c", Some("n")),
            ("ticker", "d", Some("n")),
            ("lost", "c", Some("lost")),
            ("waiting", "c", None),
            ("twin", "c", Some("false")),
        ];
        let pods = pods.map(|(name, container, node)| pod(name, container, node));
        let rest = if address.is_empty() { vec![] } else { vec![service, slice] };
        for object in nodes.into_iter().chain([account]).chain(pods).chain(rest) {
            let made: DynamicObject = serde_json::from_value(object).expect("an object");
            let types = made.types.clone().expect("it says what it is");
            let kind = GroupVersionKind::try_from(&types).expect("a kind");
            let resource = ApiResource::from_gvk(&kind);
            let all: Api<DynamicObject> = match made.metadata.namespace.as_deref() {
                Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
                None => Api::all_with(client.clone(), &resource),
            };
            all.create(&PostParams::default(), &made).await.expect("it is made");
        }
        let pods: Api<Pod> = Api::namespaced(client, "default");
        let addresses = if address.is_empty() { vec![] } else { vec![json!({ "ip": address })] };
        for name in ["p", "ticker"] {
            let status = json!({ "status": { "phase": "Running", "podIP": address, "podIPs": addresses } });
            pods.patch_status(name, &PatchParams::default(), &Patch::Merge(status)).await.expect("a status");
        }
    }

    /// Says that the container has ended.
    pub(crate) fn end_container(&self) {
        self.publisher.send_replace(views(&self.runtime, ContainerState::Exited));
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
