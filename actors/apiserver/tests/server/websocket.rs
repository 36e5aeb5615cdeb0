//! Watches as messages of a WebSocket.

use futures_util::StreamExt as _;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{Message, Role};

use crate::support::{Client, LIMIT, Server, config_map};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

type Socket = WebSocketStream<TlsStream<TcpStream>>;

/// Asks for a WebSocket, and returns the head of the answer and what came of the connection.
async fn open(server: &Server, certificate: Option<&str>, path: &str, headers: &str) -> (String, Socket) {
    let mut stream = server.connect(certificate, b"http/1.1").await;
    let request = format!(
        "GET {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n{headers}\r\n"
    );
    stream.write_all(request.as_bytes()).await.expect("it is taken");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let byte = tokio::time::timeout(LIMIT, stream.read_u8()).await.expect("in time").expect("an answer");
        head.push(byte);
    }
    let head = String::from_utf8(head).expect("text").to_lowercase();
    (head, WebSocketStream::from_raw_socket(stream, Role::Client, None).await)
}

async fn heard(socket: &mut Socket) -> Message {
    tokio::time::timeout(LIMIT, socket.next()).await.expect("in time").expect("it goes on").expect("a message")
}

async fn event(socket: &mut Socket) -> Value {
    let message = heard(socket).await;
    let text = message.to_text().expect("text");
    assert!(message.is_text() && text.ends_with("}\n") && text.trim_end().lines().count() == 1, "one event: {text}");
    serde_json::from_str(text).expect("JSON")
}

fn told(event: &Value) -> (&str, &str) {
    let text = |pointer| event.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    (text("/type"), text("/object/metadata/name"))
}

async fn make(admin: &mut Client, name: &str) {
    let made = admin.post(MAPS, &config_map(name, "text")).await;
    assert_eq!(made.code, 201, "{made:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_event_is_a_message_and_the_end_is_told() {
    let server = Server::start().await;
    let mut admin = server.client(Some("admin")).await;
    make(&mut admin, "a").await;
    make(&mut admin, "b").await;
    let path = format!("{MAPS}?watch=1&timeoutSeconds=2&fieldSelector=metadata.name!=kube-root-ca.crt");
    let (head, mut socket) = open(&server, Some("admin"), &path, "sec-websocket-version: 13\r\n").await;
    assert!(head.starts_with("http/1.1 101 ") && head.contains("s3pplmbitxaq9kygzzhzrbk+xoo="), "{head}");
    assert!(!head.contains("sec-websocket-protocol"), "{head}");
    // What comes at once comes one by one all the same.
    assert_eq!(told(&event(&mut socket).await), ("ADDED", "a"));
    assert_eq!(told(&event(&mut socket).await), ("ADDED", "b"));
    let deleted = admin.send("DELETE", &format!("{MAPS}/a"), &[], "").await;
    assert_eq!(deleted.code, 200);
    assert_eq!(told(&event(&mut socket).await), ("DELETED", "a"));
    let Message::Close(Some(farewell)) = heard(&mut socket).await else { panic!("not the end") };
    assert_eq!(farewell.code, CloseCode::Normal);
    let numbers = admin.get("/metrics").await;
    let line = numbers.text().lines().find(|line| {
        line.starts_with("apiserver_request_total{code=\"101\"") && line.contains("resource=\"configmaps\"")
    });
    assert!(line.is_some_and(|line| line.ends_with("} 1")), "{line:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_browser_shows_its_token_among_the_protocols_and_protobuf_is_binary() {
    let server = Server::start().await;
    let mut admin = server.client(Some("admin")).await;
    make(&mut admin, "a").await;
    let binding = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
        "metadata": {"name": "bob"}, "subjects": [{"kind": "User", "name": "bob", "apiGroup": "rbac.authorization.k8s.io"}],
        "roleRef": {"kind": "ClusterRole", "name": "view", "apiGroup": "rbac.authorization.k8s.io"}});
    let path = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings";
    assert_eq!(admin.post(path, &binding).await.code, 201);
    let path = format!("{MAPS}?watch=1&fieldSelector=metadata.name=a");
    // `secret-token` in base64url.
    let headers = "sec-websocket-version: 13\r\naccept: application/vnd.kubernetes.protobuf\r\n\
         sec-websocket-protocol: base64url.bearer.authorization.k8s.io.c2VjcmV0LXRva2Vu, base64.binary.k8s.io\r\n";
    // Rights are counted a moment after they are written.
    let (head, mut socket) = loop {
        let (head, socket) = open(&server, None, &path, headers).await;
        if !head.starts_with("http/1.1 403 ") {
            break (head, socket);
        }
    };
    assert!(head.starts_with("http/1.1 101 "), "{head}");
    assert!(head.contains("sec-websocket-protocol: base64.binary.k8s.io\r\n"), "{head}");
    let Message::Binary(first) = heard(&mut socket).await else { panic!("not binary") };
    // A WatchEvent whose first field is its type, without the length that stands before it in a stream.
    assert!(first.starts_with(b"\x0a\x05ADDED\x12"), "{first:?}");
    drop(socket);
    let (head, _) = open(&server, None, &path, "sec-websocket-version: 13\r\n").await;
    assert!(head.starts_with("http/1.1 401 "), "{head}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_not_become_one_is_refused_and_the_others_go_on() {
    let server = Server::start().await;
    let path = format!("{MAPS}?watch=1");
    for headers in ["", "sec-websocket-version: 8\r\n", "sec-websocket-version: 13\r\nsec-websocket-protocol: a, b\r\n"]
    {
        let (head, _) = open(&server, Some("admin"), &path, headers).await;
        assert!(head.starts_with("http/1.1 400 "), "{head}");
    }
    // What is no watch is answered as ever.
    let (head, _) = open(&server, Some("admin"), MAPS, "sec-websocket-version: 13\r\n").await;
    assert!(head.starts_with("http/1.1 200 "), "{head}");
    // Nonsense ends a WebSocket, and nothing else.
    let (_, mut socket) = open(&server, Some("admin"), &path, "sec-websocket-version: 13\r\n").await;
    socket.get_mut().write_all(&[0xff; 100_000]).await.ok();
    while let Some(Ok(_)) = tokio::time::timeout(LIMIT, socket.next()).await.expect("in time") {}
    assert_eq!(server.client(Some("admin")).await.get("/livez").await.code, 200);
}
