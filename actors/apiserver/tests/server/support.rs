//! A server over a store in memory, and clients that speak to it.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use k3sd_apiserver::{
    ApiServerArgs, ApiServerConfig, Bundles, ClientAuthorities, Components, Endpoint, Health, Pages, Pipeline, Probe,
    StaticTokens, TokenKeys, tree,
};
use k3sd_client::storage::memory::Memory;
use k3sd_runtime::lend::Lend;
use k3sd_runtime::{Clock, System, Tree};
use serde_json::Value;
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring::{default_provider, sign::any_supported_type};
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

/// Longest wait for what has to happen.
pub(crate) const LIMIT: Duration = Duration::from_secs(20);

/// Files that `openssl` makes.
pub(crate) struct Pki(TempDir);

impl Pki {
    /// The server's, and those of a user `ann` (group `dev`), an administrator, a stranger, and the front proxy `proxy`.
    pub(crate) fn new() -> Self {
        let pki = Self(TempDir::new().expect("a directory"));
        for authority in ["ca", "front-ca", "other-ca"] {
            pki.openssl(authority, &format!("/CN={authority}"), &[]);
        }
        pki.leaf("server", "/CN=server", "ca");
        pki.leaf("admin", "/O=system:masters/CN=admin", "ca");
        pki.leaf("ann", "/O=dev/CN=ann", "ca");
        pki.leaf("stranger", "/O=system:masters/CN=stranger", "other-ca");
        pki.leaf("proxy", "/CN=proxy", "front-ca");
        pki
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.0.path().join(name).display().to_string()
    }

    fn openssl(&self, name: &str, subject: &str, args: &[&str]) {
        let new = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"];
        let mut command = Command::new("openssl");
        command.args(new).args(["-subj", subject, "-keyout", &self.path(&format!("{name}.key"))]);
        let output = command.args(["-out", &self.path(&format!("{name}.crt"))]).args(args).output();
        let output = output.expect("openssl is installed");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// A certificate for a subject such as `/O=dev/CN=ann`.
    pub(crate) fn leaf(&self, name: &str, subject: &str, authority: &str) {
        self.leaf_of(name, subject, authority, "IP:127.0.0.1");
    }

    /// The same, for a server of this name, such as `DNS:example.com`.
    pub(crate) fn leaf_of(&self, name: &str, subject: &str, authority: &str, server: &str) {
        let (ca, key) = (self.path(&format!("{authority}.crt")), self.path(&format!("{authority}.key")));
        let signed = ["-CA", &ca, "-CAkey", &key, "-addext", "basicConstraints=critical,CA:FALSE"];
        self.openssl(name, subject, &[&signed[..], &["-addext", &format!("subjectAltName={server}")]].concat());
    }

    fn chain(&self, name: &str) -> Vec<CertificateDer<'static>> {
        let path = self.path(&format!("{name}.crt"));
        vec![CertificateDer::from_pem_file(Path::new(&path)).expect("a certificate")]
    }

    fn key(&self, name: &str) -> PrivateKeyDer<'static> {
        PrivateKeyDer::from_pem_file(Path::new(&self.path(&format!("{name}.key")))).expect("a key")
    }

    /// A certificate with its key.
    pub(crate) fn pair(&self, name: &str) -> Arc<CertifiedKey> {
        let key = any_supported_type(&self.key(name)).expect("a key");
        Arc::new(CertifiedKey::new(self.chain(name), key))
    }

    pub(crate) fn roots(&self, name: &str) -> Arc<RootCertStore> {
        let mut roots = RootCertStore::empty();
        roots.add(self.chain(name).remove(0)).expect("an authority");
        Arc::new(roots)
    }

    pub(crate) fn client(&self, name: Option<&str>, protocol: &[u8]) -> ClientConfig {
        let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()));
        let builder = builder.with_safe_default_protocol_versions().expect("versions");
        let builder = builder.with_root_certificates(self.roots("ca"));
        let mut config = match name {
            Some(name) => builder.with_client_auth_cert(self.chain(name), self.key(name)).expect("a pair"),
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![protocol.to_vec()];
        config
    }
}

#[derive(Debug)]
struct Fixed(Arc<CertifiedKey>);

impl ResolvesServerCert for Fixed {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.clone())
    }
}

/// A running server.
pub(crate) struct Server {
    pub(crate) pki: Pki,
    pub(crate) port: u16,
    pub(crate) tree: Tree,
    pub(crate) pipeline: Pipeline,
    pub(crate) health: Health,
    pub(crate) storage: Memory,
}

impl Server {
    pub(crate) async fn start() -> Self {
        Self::with(|_| {}).await
    }

    /// With other settings. There is a user `ann` (group `dev`) with a certificate and one with the token `secret-token`,
    /// an administrator, and the front proxy `proxy`.
    pub(crate) async fn with(change: impl FnOnce(&mut ApiServerConfig)) -> Self {
        Self::over(Pki::new(), change).await
    }

    /// The same, with certificates that somebody has already.
    pub(crate) async fn over(pki: Pki, change: impl FnOnce(&mut ApiServerConfig)) -> Self {
        let verifier = |name: &str| {
            let builder = WebPkiClientVerifier::builder_with_provider(pki.roots(name), Arc::new(default_provider()));
            builder.build().expect("an authority")
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("bound").port();
        let mut config = ApiServerConfig {
            static_tokens: Arc::new(StaticTokens::parse("secret-token,bob,7,\"dev,ops\"\n").expect("a file")),
            // No endpoint may be on loopback.
            advertise_address: [192, 0, 2, 1].into(),
            pages: Pages::new(|path| (path == "/open").then_some(("text/plain", Bytes::from_static(b"to all")))),
            ..ApiServerConfig::default()
        };
        config.front_proxy.allowed_names = vec!["proxy".to_owned()];
        change(&mut config);
        let system = System::new(Clock::system());
        let storage = Memory::new(system.clock().clone());
        let service_key = std::fs::read_to_string(pki.path("other-ca.key")).expect("a key");
        let made = tree(ApiServerArgs {
            config,
            storage: Arc::new(storage.clone()),
            clock: system.clock().clone(),
            token_keys: TokenKeys::fixed(vec![service_key]),
            authorities: ClientAuthorities { users: verifier("ca"), front_proxies: Some(verifier("front-ca")) },
            bundles: Bundles::new(|| ("a bundle".to_owned(), String::new())),
            endpoints: vec![Endpoint {
                name: "listener".to_owned(),
                socket: Lend::new(listener),
                certificate: Arc::new(Fixed(pki.pair("server"))),
                learn: None,
            }],
            components: Components::default(),
            checks: Vec::new(),
        });
        let made = made.expect("the settings make sense");
        let tree = system.start(made.spec);
        tokio::time::timeout(LIMIT, tree.ready()).await.expect("in time").expect("it starts");
        let server = Self { pki, port, tree, pipeline: made.pipeline, health: made.health, storage };
        // Whoever waits for the tree, as the loops do, finds what every cluster starts with.
        let owed =
            server.health.failing(Probe::Ready).into_iter().filter(|(name, _)| name.starts_with("poststarthook/"));
        assert_eq!(owed.collect::<Vec<_>>(), []);
        let mut failing = Vec::new();
        let is_ready = || {
            failing = server.health.failing(Probe::Ready);
            failing.is_empty()
        };
        let ready = tokio::time::timeout(LIMIT, until(is_ready)).await;
        assert!(ready.is_ok(), "not ready: {failing:?}");
        server
    }

    /// A client over HTTP/2, with a certificate or without.
    pub(crate) async fn client(&self, certificate: Option<&str>) -> Client {
        let stream = self.connect(certificate, b"h2").await;
        let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.expect("HTTP/2");
        tokio::spawn(connection);
        Client(Link::Two(sender))
    }

    /// A client over HTTP/1.1.
    pub(crate) async fn old_client(&self, certificate: Option<&str>) -> Client {
        let stream = self.connect(certificate, b"http/1.1").await;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.expect("HTTP/1.1");
        tokio::spawn(connection);
        Client(Link::One(sender))
    }

    pub(crate) async fn connect(
        &self,
        certificate: Option<&str>,
        protocol: &[u8],
    ) -> tokio_rustls::client::TlsStream<TcpStream> {
        let connector = TlsConnector::from(Arc::new(self.pki.client(certificate, protocol)));
        let stream = TcpStream::connect(("127.0.0.1", self.port)).await.expect("it listens");
        stream.set_nodelay(true).expect("an option");
        let name = ServerName::try_from("127.0.0.1").expect("a name");
        connector.connect(name, stream).await.expect("they shake hands")
    }
}

enum Link {
    One(http1::SendRequest<Full<Bytes>>),
    Two(http2::SendRequest<Full<Bytes>>),
}

/// One connection.
pub(crate) struct Client(Link);

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) code: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("not JSON: {self:?}"))
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("text")
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("text"))
    }
}

impl Client {
    /// Sends a request and returns when its head is answered.
    pub(crate) async fn begin(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Response<Incoming> {
        let mut request = Request::builder().method(Method::from_bytes(method.as_bytes()).expect("a method"));
        request = match &self.0 {
            Link::One(_) => request.uri(path).header("host", "127.0.0.1"),
            Link::Two(_) => request.uri(format!("https://127.0.0.1{path}")),
        };
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if !body.is_empty() && !headers.iter().any(|(name, _)| *name == "content-type") {
            request = request.header("content-type", "application/json");
        }
        let request = request.body(Full::new(Bytes::copy_from_slice(body.as_bytes()))).expect("a request");
        let answer = match &mut self.0 {
            Link::One(sender) => {
                sender.ready().await.expect("open");
                tokio::time::timeout(LIMIT, sender.send_request(request)).await
            }
            Link::Two(sender) => {
                sender.ready().await.expect("open");
                tokio::time::timeout(LIMIT, sender.send_request(request)).await
            }
        };
        answer.expect("in time").expect("an answer")
    }

    pub(crate) async fn send(&mut self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let (head, body) = self.begin(method, path, headers, body).await.into_parts();
        let body = tokio::time::timeout(LIMIT, body.collect()).await.expect("in time").expect("a body").to_bytes();
        Answer { code: head.status.as_u16(), headers: head.headers, body }
    }

    pub(crate) async fn get(&mut self, path: &str) -> Answer {
        self.send("GET", path, &[], "").await
    }

    pub(crate) async fn post(&mut self, path: &str, body: &Value) -> Answer {
        self.send("POST", path, &[], &body.to_string()).await
    }
}

/// The events of a watch, line by line.
pub(crate) struct Events {
    body: Incoming,
    rest: Vec<u8>,
}

impl Events {
    pub(crate) fn new(response: Response<Incoming>) -> Self {
        assert_eq!(response.status(), 200);
        Self { body: response.into_body(), rest: Vec::new() }
    }

    /// The next event; `None` when the stream has ended, well or not.
    pub(crate) async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.rest.drain(..=end).collect();
                return Some(serde_json::from_slice(&line).expect("an event in JSON"));
            }
            let frame = tokio::time::timeout(LIMIT, self.body.frame()).await.expect("in time")?.ok()?;
            self.rest.extend_from_slice(frame.data_ref().expect("data"));
        }
    }
}

async fn until(mut holds: impl FnMut() -> bool) {
    while !holds() {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Waits until something holds.
pub(crate) async fn wait_until(what: &str, holds: impl FnMut() -> bool) {
    tokio::time::timeout(LIMIT, until(holds)).await.unwrap_or_else(|_| panic!("{what} in time"));
}

/// A ConfigMap.
pub(crate) fn config_map(name: &str, text: &str) -> Value {
    serde_json::json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"text": text}})
}

/// Makes a namespace, as somebody who may.
pub(crate) async fn namespace(admin: &mut Client, name: &str) {
    let body = serde_json::json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
    let made = admin.post("/api/v1/namespaces", &body).await;
    assert!(matches!(made.code, 201 | 409), "{made:?}");
}
