//! Priority and fairness: who counts as what, and what becomes of too many.

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::support::{Client, LIMIT, Server, config_map};

const SCHEMAS: &str = "/apis/flowcontrol.apiserver.k8s.io/v1/flowschemas";
const LEVELS: &str = "/apis/flowcontrol.apiserver.k8s.io/v1/prioritylevelconfigurations";

async fn uid(admin: &mut Client, path: &str) -> String {
    admin.get(path).await.json()["metadata"]["uid"].as_str().expect("an identifier").to_owned()
}

async fn counted_as(client: &mut Client, path: &str) -> (String, String) {
    let answer = client.get(path).await;
    let header = |name| answer.header(name).to_owned();
    (header("x-kubernetes-pf-flowschema-uid"), header("x-kubernetes-pf-prioritylevel-uid"))
}

/// Begins a request that holds its seat for as long as its body is awaited.
async fn hold(server: &Server) -> TlsStream<TcpStream> {
    let mut stream = server.connect(Some("ann"), b"http/1.1").await;
    let head = "POST /apis/authentication.k8s.io/v1/selfsubjectreviews HTTP/1.1\r\nhost: a\r\n\
         content-type: application/json\r\ncontent-length: 2\r\n\r\n{";
    stream.write_all(head.as_bytes()).await.expect("it is taken");
    stream
}

/// Three seats for ann: one share of 246 of 600.
fn level(response: Value) -> Value {
    json!({"apiVersion": "flowcontrol.apiserver.k8s.io/v1", "kind": "PriorityLevelConfiguration",
        "metadata": {"name": "tiny"}, "spec": {"type": "Limited", "limited": {
            "nominalConcurrencyShares": 1, "borrowingLimitPercent": 0, "limitResponse": response}}})
}

fn schema() -> Value {
    json!({"apiVersion": "flowcontrol.apiserver.k8s.io/v1", "kind": "FlowSchema", "metadata": {"name": "ann"},
        "spec": {"matchingPrecedence": 50, "priorityLevelConfiguration": {"name": "tiny"}, "rules": [{
            "subjects": [{"kind": "User", "user": {"name": "ann"}}],
            "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "namespaces": ["*"],
                "clusterScope": true}],
            "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}]}]}})
}

async fn working(admin: &mut Client) -> usize {
    let numbers = admin.get("/metrics").await;
    let name = "apiserver_flowcontrol_current_executing_requests{flow_schema=\"ann\",priority_level=\"tiny\"} ";
    let line = numbers.text().lines().find_map(|line| line.strip_prefix(name));
    line.expect("it is counted").parse().expect("a number")
}

async fn is_waiting(admin: &mut Client) -> bool {
    let numbers = admin.get("/metrics").await;
    let line = "apiserver_flowcontrol_current_inqueue_requests{flow_schema=\"ann\",priority_level=\"tiny\"} 1";
    numbers.text().lines().any(|found| found == line)
}

async fn ask(mut client: Client) -> u16 {
    client.get("/version").await.code
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_say_what_their_requests_counted_as() {
    let server = Server::start().await;
    for (schema, level, who, path) in [
        ("exempt", "exempt", "admin", "/api/v1/namespaces"),
        ("global-default", "global-default", "ann", "/version"),
        ("probes", "exempt", "ann", "/livez"),
        // Also of what is refused.
        ("global-default", "global-default", "ann", "/api/v1/namespaces"),
    ] {
        let found = counted_as(&mut server.client(Some(who)).await, path).await;
        let mut admin = server.client(Some("admin")).await;
        let schema = uid(&mut admin, &format!("{SCHEMAS}/{schema}")).await;
        assert_eq!(found, (schema, uid(&mut admin, &format!("{LEVELS}/{level}")).await), "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_of_one_kind_are_sent_away_and_nobody_else_is() {
    let server = Server::start().await;
    let mut admin = server.client(Some("admin")).await;
    assert_eq!(admin.post(LEVELS, &level(json!({"type": "Reject"}))).await.code, 201);
    assert_eq!(admin.post(SCHEMAS, &schema()).await.code, 201);
    let expected = uid(&mut admin, &format!("{SCHEMAS}/ann")).await;
    let mut ann = server.client(Some("ann")).await;
    // The cache has it a moment later.
    let counts = async { while counted_as(&mut ann, "/version").await.0 != expected {} };
    tokio::time::timeout(LIMIT, counts).await.expect("in time");
    let mut held = Vec::new();
    for count in 1..=3 {
        held.push(hold(&server).await);
        let works = async { while working(&mut admin).await < count {} };
        tokio::time::timeout(LIMIT, works).await.expect("in time");
    }
    let refused = ann.get("/version").await;
    assert_eq!((refused.code, refused.header("retry-after")), (429, "1"));
    assert_eq!(refused.text(), "Too many requests, please try again later.\n");
    assert_eq!(refused.header("x-kubernetes-pf-flowschema-uid"), expected);
    let numbers = admin.get("/metrics").await;
    let line = "apiserver_flowcontrol_rejected_requests_total\
         {flow_schema=\"ann\",priority_level=\"tiny\",reason=\"concurrency-limit\"} 1";
    assert!(numbers.text().lines().any(|found| found == line), "{}", numbers.text());

    // With queues the next one waits for one of them.
    let queues = json!({"type": "Queue", "queuing": {"queues": 2, "handSize": 1, "queueLengthLimit": 5}});
    let patch = json!({"spec": {"limited": {"limitResponse": queues}}}).to_string();
    let headers = [("content-type", "application/merge-patch+json")];
    assert_eq!(admin.send("PATCH", &format!("{LEVELS}/tiny"), &headers, &patch).await.code, 200);
    let waiting = loop {
        let waiting = tokio::spawn(ask(server.client(Some("ann")).await));
        // Until the cache has the change it is sent away again.
        while !is_waiting(&mut admin).await && !waiting.is_finished() {}
        if !waiting.is_finished() {
            break waiting;
        }
    };
    let mut first = held.remove(0);
    first.write_all(b"}").await.expect("it is taken");
    let mut answer = [0; 12];
    tokio::time::timeout(LIMIT, first.read_exact(&mut answer)).await.expect("in time").expect("an answer");
    assert!(answer.starts_with(b"HTTP/1.1 "), "{answer:?}");
    let code = tokio::time::timeout(LIMIT, waiting).await.expect("in time").expect("it went well");
    assert!(matches!(code, 200 | 403), "{code}");
    // Who goes away gives his seat back too.
    drop(held);
    let ends = async { while working(&mut admin).await > 0 {} };
    tokio::time::timeout(LIMIT, ends).await.expect("in time");
}

/// The value of a number of the level that ann is at.
async fn number_of_ann(admin: &mut Client, name: &str) -> u64 {
    let numbers = admin.get("/metrics").await;
    let mut lines = numbers.text().lines();
    let line = lines.find(|line| line.starts_with(name) && line.contains("priority_level=\"global-default\""));
    line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn much_work_takes_several_seats() {
    const SEATS: &str = "apiserver_flowcontrol_work_estimated_seats_sum";
    const MAPS: &str = "/api/v1/namespaces/default/configmaps";
    let server = Server::start().await;
    let (mut admin, mut ann) = (server.client(Some("admin")).await, server.client(Some("ann")).await);
    for number in 0..30 {
        let made = admin.post(MAPS, &config_map(&format!("long-{number}"), &"x".repeat(10_000))).await;
        assert_eq!(made.code, 201);
    }
    let mut before = number_of_ann(&mut admin, SEATS).await;
    // What is asked counts, whether it is allowed or not: 30 times about 10 kB at 100 kB each.
    for (path, seats) in [(MAPS, 4), (&format!("{MAPS}?limit=10"), 2), (&format!("{MAPS}/long-1"), 1)] {
        assert_eq!(ann.get(path).await.code, 403);
        let now = number_of_ann(&mut admin, SEATS).await;
        assert_eq!(now - before, seats, "{path}");
        before = now;
    }
    // Each write is told to 25 others.
    // They have a connection of their own, for nobody reads what they are told.
    let (mut watcher, mut watches) = (server.client(Some("admin")).await, Vec::new());
    for _ in 0..25 {
        watches.push(watcher.begin("GET", "/api/v1/configmaps?watch=1", &[], "").await);
    }
    assert_eq!(ann.post(MAPS, &config_map("one-more", "x")).await.code, 403);
    assert_eq!(number_of_ann(&mut admin, SEATS).await - before, 3);
    // They are given back a moment later.
    let ends = async { while number_of_ann(&mut admin, "apiserver_flowcontrol_current_executing_seats").await > 0 {} };
    tokio::time::timeout(LIMIT, ends).await.expect("in time");
    drop(watches);
}
