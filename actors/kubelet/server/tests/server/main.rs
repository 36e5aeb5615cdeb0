//! The server on a socket, with `curl` before it and an API server behind it that says what a test wants. What needs a
//! container runtime is tested with a real one, by `chaos-tests`.

mod support;

use std::time::Duration;

use k3sd_kubelet_server::AccessLimits;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use self::support::{Server, log_line};

#[tokio::test(flavor = "multi_thread")]
async fn health_is_for_everybody_and_nothing_else_is() {
    let server = Server::start(AccessLimits::default()).await;
    assert_eq!(server.health("/healthz").await, (200, "ok".to_owned()));
    assert_eq!(server.health("/healthz/syncloop").await.0, 200);
    for path in ["/pods", "/metrics", "/healthzx", "/containerLogs/n/p/c"] {
        assert_eq!(server.health(path).await.0, 404, "{path}");
        assert_eq!(server.get("", path).await, (401, "Unauthorized".to_owned()), "{path}");
    }
    assert_eq!(server.api.asked(), (0, 0), "nobody showed anything");
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_of_the_api_are_remembered_for_a_while() {
    let server = Server::start(AccessLimits::default()).await;
    for _ in 0..3 {
        assert_eq!(server.get("reader", "/metrics/resource").await.0, 200);
        assert_eq!(server.get("nobody", "/metrics/resource").await.0, 401);
    }
    assert_eq!(server.api.asked(), (2, 1), "one question for each token, one for a right");
    let (code, why) = server.get("reader", "/pods").await;
    let wanted = "Forbidden (user=reader, verb=get, resource=nodes, subresource(s)=[pods proxy])";
    assert_eq!((code, why.as_str()), (403, wanted));
    assert_eq!(server.api.asked(), (2, 3), "the narrow right, and the wide one");
    assert_eq!(server.get("admin", "/pods").await.0, 200);

    let forgets = AccessLimits { token: Duration::ZERO, allowed: Duration::ZERO, denied: Duration::ZERO };
    let server = Server::start(forgets).await;
    for round in 1..4 {
        assert_eq!(server.get("reader", "/metrics/resource").await.0, 200);
        assert_eq!(server.api.asked(), (round, round));
    }
}

/// Who reads metrics refuses a page on which one comes twice.
#[tokio::test(flavor = "multi_thread")]
async fn every_metric_comes_once() {
    let server = Server::start(AccessLimits::default()).await;
    let (code, page) = server.get("reader", "/metrics").await;
    assert_eq!(code, 200);
    let mut names: Vec<&str> =
        page.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    for name in
        ["kubelet_node_name", "kubelet_running_pods", "kubelet_running_containers", "process_start_time_seconds"]
    {
        assert!(names.contains(&name), "{name}: {page}");
    }
    assert!(page.contains("\nothers_say 1\n") && page.contains("\nkubelet_running_pods 1\n"), "{page}");
    let all = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), all, "{page}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_api_only_what_is_remembered_counts() {
    let server = Server::start(AccessLimits::default()).await;
    assert_eq!(server.get("reader", "/metrics/resource").await.0, 200);
    server.api.leave();
    assert_eq!(server.get("reader", "/metrics/resource").await.0, 200);
    assert_eq!(server.get("reader", "/stats/summary").await.0, 500);
    assert_eq!(server.get("admin", "/metrics/resource").await.0, 401);
    server.api.come_back();
    assert_eq!(server.get("admin", "/metrics/resource").await.0, 200, "a failure is not remembered");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_of_any_part_is_not_noticed() {
    let server = Server::start(AccessLimits::default()).await;
    for part in ["access", "listener", "connections"] {
        server.kill(part);
        // The socket outlives whoever accepts on it; a connection that was cut by the kill is made again.
        let mut code = 0;
        for _ in 0..20 {
            code = server.get("admin", "/metrics/resource").await.0;
            if code == 200 {
                break;
            }
        }
        assert_eq!(code, 200, "after the death of {part}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_are_read_from_the_file() {
    let server = Server::start(AccessLimits::default()).await;
    let text: String = (0..3).map(|number| log_line(&format!("line {number}"))).collect();
    server.write_log(&text);
    let log = |query: &'static str| server.get("admin", query);
    assert_eq!(log("/containerLogs/default/p/c").await, (200, "line 0\nline 1\nline 2\n".to_owned()));
    assert_eq!(log("/containerLogs/default/p/c?tailLines=1").await, (200, "line 2\n".to_owned()));
    assert_eq!(
        log("/containerLogs/default/p/c?tailLines=x").await,
        (422, "{\"message\": \"Invalid request.\"}".to_owned())
    );
    let (code, why) = log("/containerLogs/default/p/x").await;
    assert_eq!((code, why.as_str()), (404, "container \"x\" not found in pod \"p\""));
    assert_eq!(log("/containerLogs/default/x/c").await, (404, "pod \"x\" does not exist".to_owned()));
    assert_eq!(log("/containerLogs/default/p").await.0, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_need_a_container_and_another_protocol() {
    let server = Server::start(AccessLimits::default()).await;
    let exec = |path: &'static str| server.get("admin", path);
    let (code, why) = exec("/exec/default/p/c?command=sh").await;
    assert_eq!((code, why.as_str()), (400, "you must specify at least 1 of stdin, stdout, stderr"));
    assert_eq!(exec("/exec/default/x/c?command=sh&output=1").await, (404, "pod does not exist".to_owned()));
    let (code, why) = exec("/exec/default/p/x?command=sh&output=1").await;
    assert_eq!((code, why.as_str()), (500, "container not found (\"x\")"));
    // The runtime is away.
    assert_eq!(exec("/exec/default/p/c?command=sh&output=1").await.0, 500);
    assert_eq!(exec("/run/default/p/c").await.0, 405);
    assert_eq!(exec("/checkpoint/default/p/c").await.0, 405);
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_guests_end_themselves_alone() {
    let server = Server::start(AccessLimits::default()).await;
    let connect = || TcpStream::connect(("127.0.0.1", server.health_port));
    let long = format!("GET /healthz HTTP/1.1\r\nhost: a\r\nx: {}\r\n\r\n", "y".repeat(1 << 20));
    for (bytes, wanted) in [(long.as_bytes(), "HTTP/1.1 431 "), (b"\x16\x03\x01garbage\r\n\r\n", "HTTP/1.1 400 ")] {
        let mut stream = connect().await.expect("it listens");
        // The server may be done before all is sent.
        stream.write_all(bytes).await.ok();
        let mut answer = Vec::new();
        let mut piece = [0; 1024];
        while let Ok(read @ 1..) = stream.read(&mut piece).await {
            answer.extend_from_slice(&piece[..read]);
        }
        let answer = String::from_utf8_lossy(&answer).into_owned();
        assert!(answer.is_empty() || answer.starts_with(wanted), "{answer}");
    }
    // Guests who say nothing keep nobody from being served.
    let mut silent = Vec::new();
    for _ in 0..50 {
        silent.push(connect().await.expect("it listens"));
    }
    assert_eq!(server.health("/healthz").await, (200, "ok".to_owned()));
    assert_eq!(server.get("admin", "/metrics/resource").await.0, 200);
}
