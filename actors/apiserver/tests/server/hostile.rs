//! Clients that mean no good, or don't know what they do: the server goes on, and others don't notice.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::{LIMIT, Server, wait_until};

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_tls_is_hung_up_on() {
    let server = Server::start().await;
    for words in [
        &b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"[..],
        &[0; 70_000],
        b"\x16\x03\x01\xff\xff",
        b"\x16\x03\x01\x00\x02\x01\x00",
    ] {
        let mut stream = TcpStream::connect(("127.0.0.1", server.port)).await.expect("it listens");
        // It may hang up before all is said.
        stream.write_all(words).await.ok();
        stream.shutdown().await.ok();
        let mut rest = Vec::new();
        let ended = tokio::time::timeout(LIMIT, stream.read_to_end(&mut rest)).await.expect("in time");
        assert!(ended.is_err() || rest.len() < 100, "no more than an alert: {rest:?}");
    }
    assert_eq!(server.client(Some("admin")).await.get("/livez").await.code, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_beyond_measure_end_their_connection_alone() {
    let server = Server::start().await;
    let mut other = server.client(Some("admin")).await;
    let long = "x".repeat(1 << 20);
    let mut stream = server.connect(Some("admin"), b"http/1.1").await;
    let request = format!("GET /livez HTTP/1.1\r\nhost: a\r\nx-long: {long}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.ok();
    let mut answer = Vec::new();
    tokio::time::timeout(LIMIT, stream.read_to_end(&mut answer)).await.expect("in time").ok();
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431"), "{answer}");
    // Whatever else is no HTTP is answered 400 at most.
    let mut stream = server.connect(Some("admin"), b"http/1.1").await;
    stream.write_all(b"\0\0\0 nonsense\r\n\r\n").await.expect("it is taken");
    let mut answer = Vec::new();
    tokio::time::timeout(LIMIT, stream.read_to_end(&mut answer)).await.expect("in time").ok();
    assert!(String::from_utf8_lossy(&answer).starts_with("HTTP/1.1 400"), "{answer:?}");
    assert_eq!(other.get("/livez").await.code, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn there_are_only_so_many_places_and_whoever_comes_later_waits() {
    let server = Server::with(|config| config.connections_max = 2).await;
    let mut first = server.client(Some("admin")).await;
    let second = server.client(Some("admin")).await;
    assert_eq!(first.get("/livez").await.code, 200);
    let third = tokio::time::timeout(Duration::from_millis(300), server.client(Some("admin"))).await;
    assert!(third.is_err(), "there is no place");
    drop(second);
    let third = tokio::time::timeout(LIMIT, server.client(Some("admin"))).await;
    assert_eq!(third.expect("a place is free").get("/livez").await.code, 200);
    assert_eq!(first.get("/livez").await.code, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_goes_away_leaves_nothing_behind() {
    let server = Server::start().await;
    let mut admin = server.client(Some("admin")).await;
    let before = server.tree.system().alive();
    for _ in 0..20 {
        let mut client = server.client(Some("admin")).await;
        let watch = client.begin("GET", "/api/v1/namespaces?watch=1", &[], "").await;
        drop((watch, client));
    }
    wait_until("their tasks are gone", || server.tree.system().alive() <= before).await;
    let running =
        "apiserver_longrunning_requests{verb=\"WATCH\",component=\"apiserver\",group=\"\",resource=\"namespaces\"";
    let numbers = admin.get("/metrics").await;
    let line = numbers.text().lines().find(|line| line.starts_with(running)).expect("they were counted").to_owned();
    assert!(line.ends_with(" 0"), "{line}");
}
