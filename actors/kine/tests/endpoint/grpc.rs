//! Services that `etcdctl` does not use, called as gRPC frames.

use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use h2::RecvStream;
use k3sd_runtime::Signal;
use tokio::net::TcpStream;

use crate::support::Server;

const LIMIT: Duration = Duration::from_secs(20);

/// The messages of an answer, as they come.
struct Answers {
    body: RecvStream,
    buffer: BytesMut,
}

impl Answers {
    /// Nothing when the answer has ended, or broken off.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(header) = self.buffer.first_chunk::<5>() {
                let length = u32::from_be_bytes([header[1], header[2], header[3], header[4]]) as usize;
                if self.buffer.len() >= 5 + length {
                    return Some(self.buffer.split_to(5 + length).freeze().slice(5..));
                }
            }
            let chunk = self.body.data().await?.ok()?;
            self.body.flow_control().release_capacity(chunk.len()).expect("it was taken");
            self.buffer.put(chunk);
        }
    }
}

/// Sends one message to a call. Its status, if it comes before any answer, and its answers.
async fn call(server: &Server, path: &str, message: &[u8]) -> (Option<String>, Answers) {
    let stream = TcpStream::connect(&server.endpoint).await.expect("it listens");
    let (mut client, connection) = h2::client::handshake(stream).await.expect("it speaks HTTP/2");
    #[expect(clippy::disallowed_methods, reason = "it ends with the event loop of the test")]
    tokio::spawn(connection);
    let request = http::Request::post(format!("http://{}/{path}", server.endpoint));
    let request = request.header("content-type", "application/grpc").header("te", "trailers").body(());
    let (response, mut body) = client.send_request(request.expect("a request"), false).expect("it is sent");
    let mut framed = BytesMut::new();
    framed.put_u8(0);
    framed.put_u32(u32::try_from(message.len()).expect("it is short"));
    framed.put_slice(message);
    body.send_data(framed.freeze(), true).expect("it is sent");
    let response = response.await.expect("an answer");
    let status = response.headers().get("grpc-status").map(|status| status.to_str().expect("text").to_owned());
    (status, Answers { body: response.into_body(), buffer: BytesMut::new() })
}

fn run(server: &Server, test: impl Future<Output = ()>) {
    server.block_on(async { tokio::time::timeout(LIMIT, test).await.expect("it ends in time") });
}

#[test]
fn reflection_tells_what_is_served() {
    let server = Server::start();
    run(&server, async {
        for version in ["v1", "v1alpha"] {
            let path = format!("grpc.reflection.{version}.ServerReflection/ServerReflectionInfo");
            // list_services, with an empty text.
            let (_, mut answers) = call(&server, &path, b"\x3a\x00").await;
            let services = answers.next().await.expect("an answer");
            for name in ["etcdserverpb.KV", "etcdserverpb.Maintenance", "grpc.health.v1.Health"] {
                assert!(services.windows(name.len()).any(|part| part == name.as_bytes()), "{version}: {name}");
            }
            // file_containing_symbol.
            let (_, mut answers) = call(&server, &path, b"\x22\x0fetcdserverpb.KV").await;
            let file = answers.next().await.expect("an answer");
            assert!(file.windows(10).any(|part| part == b"etcd.proto"), "{version}");
            assert!(answers.next().await.is_none(), "it ends with the questions");
        }
    });
}

#[test]
fn health_follows_the_store() {
    const SERVING: &[u8] = b"\x08\x01";
    const NOT_SERVING: &[u8] = b"\x08\x02";
    let server = Server::start();
    run(&server, async {
        for service in [&b""[..], b"\x0a\x0fetcdserverpb.KV"] {
            let (_, mut answers) = call(&server, "grpc.health.v1.Health/Check", service).await;
            assert_eq!(answers.next().await.as_deref(), Some(SERVING));
        }
        let (status, _) = call(&server, "grpc.health.v1.Health/Check", b"\x0a\x01x").await;
        assert_eq!(status.as_deref(), Some("5"), "not found");
        let (_, mut unknown) = call(&server, "grpc.health.v1.Health/Watch", b"\x0a\x01x").await;
        assert_eq!(unknown.next().await.as_deref(), Some(&b"\x08\x03"[..]));
        let (_, mut watch) = call(&server, "grpc.health.v1.Health/Watch", b"").await;
        assert_eq!(watch.next().await.as_deref(), Some(SERVING));
        // Connections end along with the store; whoever is told before that is told the truth.
        assert!(server.tree.system().signal("kine/store", Signal::Kill));
        if let Some(told) = watch.next().await {
            assert_eq!(&*told, NOT_SERVING);
        }
    });
    server.ok(&["put", "a", "1"]);
    run(&server, async {
        let (_, mut answers) = call(&server, "grpc.health.v1.Health/Check", b"").await;
        assert_eq!(answers.next().await.as_deref(), Some(SERVING));
    });
}
