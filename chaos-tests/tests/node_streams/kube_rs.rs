//! The same with a client library that speaks WebSockets alone: version 5 for commands, version 4 for ports.

use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{AttachParams, TerminalSize};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::world::{LIMIT, World};

fn pods(world: &World) -> Api<Pod> {
    let url = format!("https://127.0.0.1:{}", world.port).parse().expect("an address");
    let mut config = kube::Config::new(url);
    config.root_cert = Some(world.pki.chain("ca").into_iter().map(|one| one.to_vec()).collect());
    config.auth_info.token = Some("admin-token".to_owned().into());
    Api::namespaced(kube::Client::try_from(config).expect("a client"), "default")
}

pub(crate) async fn speaks(world: &World) {
    let pods = pods(world);
    tokio::time::timeout(LIMIT, commands(&pods)).await.expect("commands in time");
    tokio::time::timeout(LIMIT, terminals(&pods)).await.expect("terminals in time");
    tokio::time::timeout(LIMIT, attached(&pods)).await.expect("attached in time");
    tokio::time::timeout(LIMIT, ports(world, &pods)).await.expect("ports in time");
}

/// Input, its end, both outputs, and how it ended.
async fn commands(pods: &Api<Pod>) {
    let streams = AttachParams::default().stdin(true).stdout(true).stderr(true);
    let mut process = pods.exec("p", ["sh", "-c", "cat; echo bad >&2; exit 3"], &streams).await.expect("it starts");
    let mut input = process.stdin().expect("wanted");
    let said = vec![b'x'; 300_000];
    let (mut out, mut err) = (process.stdout().expect("wanted"), process.stderr().expect("wanted"));
    let feed = async {
        input.write_all(&said).await.expect("it is read");
        input.shutdown().await.expect("it ends");
    };
    let (mut heard, mut complaint) = (Vec::new(), String::new());
    let hear = async { out.read_to_end(&mut heard).await.expect("bytes") };
    let listen = async { err.read_to_string(&mut complaint).await.expect("text") };
    tokio::join!(feed, hear, listen);
    assert!(heard == said, "{} bytes of {}", heard.len(), said.len());
    assert_eq!(complaint, "bad\n");
    let status = process.take_status().expect("once").await.expect("an end");
    let cause = status.details.as_ref().and_then(|details| details.causes.as_ref()?.first()).expect("a cause");
    assert_eq!((status.reason.as_deref(), cause.message.as_deref()), (Some("NonZeroExitCode"), Some("3")));

    let streams = AttachParams::default().stderr(false);
    let mut process = pods.exec("p", ["sh", "-c", "exit 0"], &streams).await.expect("it starts");
    let status = process.take_status().expect("once").await.expect("an end");
    assert_eq!(status.status.as_deref(), Some("Success"), "{status:?}");
    let refused = pods.exec("absent", ["sh"], &streams).await;
    assert!(refused.is_err(), "there is no such pod");
}

/// A terminal becomes as large as the client says.
async fn terminals(pods: &Api<Pod>) {
    let streams = AttachParams::interactive_tty();
    let mut process = pods.exec("p", ["sh", "-c", "read x; stty size"], &streams).await.expect("it starts");
    let mut size = process.terminal_size().expect("it is a terminal");
    use futures_util::SinkExt as _;
    size.send(TerminalSize { height: 31, width: 79 }).await.expect("it is taken");
    // What is sent on another channel overtakes nothing, but the kernel's terminal may be told a moment later.
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    let mut input = process.stdin().expect("wanted");
    input.write_all(b"go\n").await.expect("it is read");
    let mut said = String::new();
    process.stdout().expect("wanted").read_to_string(&mut said).await.expect("text");
    assert!(said.contains("31 79"), "{said:?}");
}

async fn attached(pods: &Api<Pod>) {
    let mut process = pods.attach("ticker", &AttachParams::default()).await.expect("it runs");
    let mut said = [0; 10];
    process.stdout().expect("wanted").read_exact(&mut said).await.expect("text");
    assert_eq!(&said, b"tick\ntick\n");
    process.abort();
}

/// Two connections, and one to a port where nobody listens.
async fn ports(world: &World, pods: &Api<Pod>) {
    let free = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let (port, closed) = (free.local_addr().expect("bound").port(), 9);
    drop(free);
    let httpd = ["exec", "p", "--", "httpd", "-p", &format!("127.0.0.1:{port}"), "-h", "/www"];
    assert_eq!(world.admin(true, &httpd).await.0, 0);
    for _ in 0..2 {
        let mut forward = pods.portforward("p", &[port]).await.expect("it is led there");
        let mut stream = forward.take_stream(port).expect("once");
        stream.write_all(b"GET /index.html HTTP/1.0\r\n\r\n").await.expect("it is taken");
        let mut page = String::new();
        stream.read_to_string(&mut page).await.expect("text");
        assert!(page.ends_with("hello from within\n"), "{page}");
    }
    let mut forward = pods.portforward("p", &[closed]).await.expect("it is led there");
    let error = forward.take_error(closed).expect("once").await;
    assert!(error.as_deref().is_some_and(|text| text.contains("refused")), "{error:?}");
}
