//! A server with a pod that has a log, and an API server made of a table.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::future::{Ready, ready};
use std::io::Write as _;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use k3sd_client::api::Connect;
use k3sd_cri::Cri;
use k3sd_kubelet_base::stats::{Figures, Measuring, Summary};
use k3sd_kubelet_base::{ContainerState, ContainerView, PodView, PodsPublisher, PodsSnapshot};
use k3sd_kubelet_server::{AccessLimits, Checks, Configz, ServerArgs, ServerConfig, tree};
use k3sd_runtime::lend::Lend;
use k3sd_runtime::{Clock, Signal, Spec, Strategy, System, Tree, subtree};
use kube::client::Body;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_rustls::rustls::ServerConfig as TlsConfig;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// Longest wait for what has to happen.
const LIMIT: Duration = Duration::from_secs(10);

/// The API: each token is its holder's name; `reader` may get metrics and stats, `admin` everything.
#[derive(Clone, Debug, Default)]
pub(crate) struct FakeApi(Arc<Table>);

#[derive(Debug, Default)]
struct Table {
    tokens: AtomicUsize,
    rights: AtomicUsize,
    away: AtomicBool,
}

impl FakeApi {
    /// How often it was asked about tokens, and about rights.
    pub(crate) fn asked(&self) -> (usize, usize) {
        (self.0.tokens.load(SeqCst), self.0.rights.load(SeqCst))
    }

    pub(crate) fn leave(&self) {
        self.0.away.store(true, SeqCst);
    }

    pub(crate) fn come_back(&self) {
        self.0.away.store(false, SeqCst);
    }

    fn review(&self, path: &str, mut review: Value) -> Value {
        let text =
            |value: &Value, pointer: &str| value.pointer(pointer).and_then(Value::as_str).unwrap_or("").to_owned();
        if path.ends_with("/tokenreviews") {
            self.0.tokens.fetch_add(1, SeqCst);
            let token = text(&review, "/spec/token");
            let known = ["reader", "admin"].contains(&token.as_str());
            review["status"] = json!({ "authenticated": known, "user": { "username": token, "groups": ["g"] } });
        } else {
            self.0.rights.fetch_add(1, SeqCst);
            assert_eq!(text(&review, "/spec/resourceAttributes/name"), "n");
            let (user, what) = (text(&review, "/spec/user"), text(&review, "/spec/resourceAttributes/subresource"));
            let may = user == "admin" || user == "reader" && ["metrics", "stats"].contains(&what.as_str());
            review["status"] = json!({ "allowed": may });
        }
        review
    }
}

impl tower_service::Service<Request<Body>> for FakeApi {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = std::pin::Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let api = self.clone();
        Box::pin(async move {
            let path = request.uri().path().to_owned();
            let body = request.into_body().collect().await.expect("a body").to_bytes();
            if api.0.away.load(SeqCst) {
                let mut response = Response::new(Full::from("away"));
                *response.status_mut() = http::StatusCode::SERVICE_UNAVAILABLE;
                return Ok(response);
            }
            let review = api.review(&path, serde_json::from_slice(&body).expect("JSON"));
            Ok(Response::new(Full::from(review.to_string())))
        })
    }
}

struct NoFigures;

fn measured<T: Send + 'static>(value: T) -> Ready<Result<T, String>> {
    ready(Ok(value))
}

impl Figures for NoFigures {
    fn summary(&self, _: bool) -> Measuring<'_, Summary> {
        Box::pin(measured(Summary::default()))
    }

    fn resource_metrics(&self) -> Measuring<'_, String> {
        Box::pin(measured(String::new()))
    }

    fn container_metrics(&self) -> Measuring<'_, String> {
        Box::pin(measured(String::new()))
    }

    fn probe_metrics(&self) -> Measuring<'_, String> {
        Box::pin(measured(String::new()))
    }

    fn own_metrics(&self) -> Measuring<'_, String> {
        Box::pin(measured("others_say 1\n".to_owned()))
    }
}

/// A running server.
pub(crate) struct Server {
    pub(crate) api: FakeApi,
    pub(crate) health_port: u16,
    port: u16,
    directory: TempDir,
    tree: Tree,
    _publisher: PodsPublisher,
}

/// A line as a runtime writes it.
pub(crate) fn log_line(content: &str) -> String {
    format!("2030-01-01T00:00:00.000000000Z stdout F {content}\n")
}

fn tls(directory: &TempDir) -> TlsConfig {
    let path = |name: &str| directory.path().join(name);
    let new = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", "/CN=n"];
    let mut command = Command::new("openssl");
    command.args(new).arg("-keyout").arg(path("key")).arg("-out").arg(path("crt"));
    assert!(command.output().expect("openssl is installed").status.success());
    let chain = vec![CertificateDer::from_pem_file(path("crt")).expect("a certificate")];
    let key = PrivateKeyDer::from_pem_file(path("key")).expect("a key");
    TlsConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .expect("a pair")
}

fn pods(directory: &TempDir) -> Arc<PodsSnapshot> {
    let running = json!({ "running": { "startedAt": "2030-01-01T00:00:00Z" } });
    let pod = json!({
        "metadata": { "name": "p", "namespace": "default" },
        "spec": { "containers": [{ "name": "c" }] },
        "status": { "containerStatuses": [{ "name": "c", "image": "i", "imageID": "", "ready": true,
            "restartCount": 0, "containerID": "containerd://id", "state": running }] },
    });
    let container = ContainerView {
        name: "c".to_owned(),
        id: "id".to_owned(),
        attempt: 0,
        state: ContainerState::Running,
        log: directory.path().join("0.log"),
        image: "i".to_owned(),
    };
    let view = PodView {
        pod: Arc::new(serde_json::from_value(pod).expect("a pod")),
        uid: "u".to_owned(),
        sandbox: Some("s".to_owned()),
        addresses: Vec::new(),
        cgroup: None,
        containers: vec![container],
    };
    Arc::new(PodsSnapshot { pods: BTreeMap::from([("u".to_owned(), Arc::new(view))]) })
}

impl Server {
    pub(crate) async fn start(access: AccessLimits) -> Self {
        let directory = TempDir::new().expect("a directory");
        let api = FakeApi::default();
        let socket = async || TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let (secure, health) = (socket().await, socket().await);
        let port = |socket: &TcpListener| socket.local_addr().expect("bound").port();
        let (port, health_port) = (port(&secure), port(&health));
        let system = System::new(Clock::system());
        let (publisher, pods) = watch::channel(pods(&directory));
        let spec = tree(ServerArgs {
            config: ServerConfig { access, ..ServerConfig::new("n") },
            socket: Lend::new(secure),
            tls: Arc::new(tls(&directory)),
            health_socket: Some(Lend::new(health)),
            connect: Connect::over(api.clone()),
            pods,
            cri: Cri::new(directory.path().join("absent.sock")),
            figures: Arc::new(NoFigures),
            checks: Checks::new(|| vec![("syncloop".to_owned(), Ok(()))]),
            configz: Configz::new(|| json!({})),
            clock: system.clock().clone(),
        });
        let tree = system.start(Spec::new(Strategy::OneForOne).child(subtree("server", spec)));
        tokio::time::timeout(LIMIT, tree.ready()).await.expect("in time").expect("it starts");
        Self { api, health_port, port, directory, tree, _publisher: publisher }
    }

    pub(crate) fn write_log(&self, text: &str) {
        let mut file = std::fs::File::create(self.directory.path().join("0.log")).expect("a file");
        file.write_all(text.as_bytes()).expect("it is written");
    }

    /// Kills a part of the server.
    pub(crate) fn kill(&self, part: &str) {
        assert!(self.tree.system().signal(&format!("server/{part}"), Signal::Kill), "there is a {part}");
    }

    async fn curl(&self, args: &[&str]) -> (u16, String) {
        let mut command = tokio::process::Command::new("curl");
        command.args(["-sk", "--max-time", "10", "-w", "\n%{http_code}"]).args(args);
        let output = command.output().await.expect("curl is installed");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let (body, code) = text.rsplit_once('\n').expect("a code");
        (code.parse().expect("a code"), body.to_owned())
    }

    /// Asks the secure socket with a token, or without one.
    pub(crate) async fn get(&self, token: &str, path: &str) -> (u16, String) {
        let header = format!("Authorization: Bearer {token}");
        let url = format!("https://127.0.0.1:{}{path}", self.port);
        if token.is_empty() { self.curl(&[&url]).await } else { self.curl(&["-H", &header, &url]).await }
    }

    /// Asks the socket for health.
    pub(crate) async fn health(&self, path: &str) -> (u16, String) {
        self.curl(&[&format!("http://127.0.0.1:{}{path}", self.health_port)]).await
    }
}
