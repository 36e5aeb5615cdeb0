//! The inspection socket, over a real one, with its own client and with plain bytes.

use std::future::Future;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use k3sd_runtime::inspect::{self, CONNECTIONS_MAX, Client, ClientError, InspectorArgs, Kill, Lines, wire};
use k3sd_runtime::lend::Lend;
use k3sd_runtime::*;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

/// Long enough for a busy machine; nothing waits that long when all is well.
const LIMIT: Duration = Duration::from_secs(20);

struct Counter(u64);

enum CounterMsg {
    Count,
    Read { reply: ReplyPort<u64> },
    Hang,
}
message_kinds!(CounterMsg { Count, Read, Hang });

impl Actor for Counter {
    type Args = ();
    type Msg = CounterMsg;

    async fn init(_: &mut Context<CounterMsg>, (): ()) -> Result<Self, ActorError> {
        Ok(Self(0))
    }

    async fn handle(&mut self, _: &mut Context<CounterMsg>, message: CounterMsg) -> Result<(), ActorError> {
        match message {
            CounterMsg::Count => self.0 += 1,
            CounterMsg::Read { reply } => reply.send(self.0),
            CounterMsg::Hang => std::future::pending().await,
        }
        Ok(())
    }
}

/// A tree with an inspector, and a client for it.
struct Stage {
    tree: Tree,
    client: Client,
    _folder: TempDir,
}

impl Stage {
    async fn new(control: bool) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("made/inspect.sock");
        let listener = Lend::new(inspect::bind(&path).expect("a socket"));
        let server = Spec::new(Strategy::RestForOne)
            .budget(50, Duration::from_secs(1))
            .child(worker::<Counter>("counter", ()).mailbox(4).backoff(Backoff::OFF))
            .child(task("idle", |_| std::future::pending()).restart(Restart::Transient));
        let root = Spec::new(Strategy::OneForOne)
            .child(subtree("inspector", inspect::tree(InspectorArgs { listener, control })))
            .child(subtree("server", server));
        let tree = System::new(Clock::system()).start(root);
        tree.ready().await.expect("the tree starts");
        Self { tree, client: Client::new(path), _folder: folder }
    }

    fn socket(&self) -> &Path {
        self.client.path()
    }

    fn counter(&self) -> Address<CounterMsg> {
        self.tree.system().address("server/counter").expect("the type fits")
    }

    async fn count(&self) -> u64 {
        self.counter().call(LIMIT, |reply| CounterMsg::Read { reply }).await.expect("an answer")
    }

    async fn look(&self, path: &str) -> wire::Actor {
        self.client.actor(path).await.expect("it is there").actor
    }

    async fn finish(self) {
        self.tree.stop();
        self.tree.ended().await;
        assert_eq!(self.tree.system().alive(), 0);
    }
}

/// Waits for `check` to hold, with a deadline.
async fn until<F: Future<Output = bool>>(what: &str, mut check: impl FnMut() -> F) {
    let trying = async {
        while !check().await {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(LIMIT, trying).await.unwrap_or_else(|_| panic!("in vain: {what}"));
}

async fn next(events: &mut Lines<wire::Event>) -> wire::Event {
    tokio::time::timeout(LIMIT, events.next()).await.expect("in time").expect("a line").expect("no end")
}

/// The next events about `path`, as words with the way of an exit.
async fn story(events: &mut Lines<wire::Event>, path: &str, lines: usize) -> Vec<String> {
    let mut told = Vec::new();
    while told.len() < lines {
        let event = next(events).await;
        if event.path.as_deref() == Some(path) {
            told.push(format!("{} {}", event.event, event.exit.unwrap_or_default()).trim_end().to_owned());
        }
    }
    told
}

/// Sends plain bytes and reads all that comes back.
async fn plain(socket: &Path, bytes: &[u8]) -> String {
    let mut stream = UnixStream::connect(socket).await.expect("a connection");
    stream.write_all(bytes).await.expect("it is taken");
    let mut answer = Vec::new();
    // A server that hangs up on what it has not read resets the connection, after what it had to say.
    tokio::time::timeout(LIMIT, stream.read_to_end(&mut answer)).await.expect("an end").ok();
    String::from_utf8_lossy(&answer).into_owned()
}

async fn request(socket: &Path, method: &str, page: &str) -> (u16, String) {
    let request = format!("{method} {page} HTTP/1.1\r\nHost: k3sd\r\n\r\n");
    let answer = plain(socket, request.as_bytes()).await;
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_default();
    (status, answer)
}

fn refused(error: ClientError) -> (u16, String) {
    match error {
        ClientError::Refused { status, error } => (status, error),
        other => panic!("{other:?} is no refusal"),
    }
}

#[tokio::test]
async fn the_tree_is_told_with_its_shape_and_counters() {
    let stage = Stage::new(false).await;
    stage.counter().cast(CounterMsg::Count).expect("room");
    assert_eq!(stage.count().await, 1);
    let tree = stage.client.tree().await.expect("an answer");
    assert_eq!((tree.version, tree.pid), (1, std::process::id()));
    let root = tree.root;
    assert_eq!((&*root.path, &*root.name, &*root.kind, &*root.state), ("/", "/", "supervisor", "running"));
    assert_eq!((root.strategy.as_deref(), root.restart), (Some("one_for_one"), None));
    let names: Vec<&str> = root.children.iter().map(|child| &*child.name).collect();
    assert_eq!(names, ["inspector", "server"]);
    let inspector: Vec<&str> = root.children[0].children.iter().map(|child| &*child.path).collect();
    assert_eq!(inspector, ["inspector/connections", "inspector/listener"]);
    assert_eq!(root.children[0].children[0].children_total, 1, "our own connection is an actor");

    let server = &root.children[1];
    assert_eq!(server.strategy.as_deref(), Some("rest_for_one"));
    assert_eq!(server.intensity, Some(wire::Intensity { restarts: 50, period_ms: 1000 }));
    let counter = &server.children[0];
    assert_eq!((&*counter.path, &*counter.kind, &*counter.state), ("server/counter", "worker", "running"));
    assert_eq!((counter.restart.as_deref(), counter.strategy.as_deref()), (Some("permanent"), None));
    assert_eq!((counter.incarnation, counter.restarts, counter.handled), (1, 0, 2));
    assert_eq!((counter.mailbox.capacity, counter.mailbox.received, counter.mailbox.depth), (4, 2, 0));
    assert_eq!((&*server.children[1].kind, server.children[1].restart.as_deref()), ("task", Some("transient")));
    stage.finish().await;
}

#[tokio::test]
async fn one_actor_is_shown_with_what_it_is_at_and_one_level_below() {
    let stage = Stage::new(false).await;
    stage.counter().cast(CounterMsg::Hang).expect("room");
    until("the handler is seen", || async { stage.look("server/counter").await.handling.is_some() }).await;
    for _ in 0..6 {
        stage.counter().cast(CounterMsg::Count).ok();
    }
    let counter = stage.look("/server/counter/").await;
    assert_eq!(counter.handling.map(|handling| handling.message).as_deref(), Some("Hang"));
    assert_eq!((counter.mailbox.depth, counter.mailbox.high_water, counter.mailbox.refused), (4, 4, 2));
    assert!(counter.busy_us > 0, "the handler that still runs counts");
    let root = stage.look("/").await;
    assert_eq!(root.children.len(), 2);
    assert_eq!((root.children[1].children.len(), root.children[1].children_total), (0, 2));

    let held = stage.tree.system().address::<CounterMsg>("server/nobody").expect("a new path");
    let (status, error) = refused(stage.client.actor("server/nobody").await.expect_err("there is none"));
    assert_eq!((status, &*error), (404, "there is no actor server/nobody"), "an address makes no actor");
    drop(held);
    stage.tree.kill(); // Its hanging handler would use up its time to stop.
    stage.finish().await;
}

#[tokio::test]
async fn each_way_to_die_is_told_and_mended() {
    let stage = Stage::new(true).await;
    let mut events = stage.client.events().await.expect("a stream");
    assert_eq!(next(&mut events).await.event, "listening");
    let ways = [(Kill::Kill, "killed"), (Kill::Panic, "panic"), (Kill::Stop, "shutdown")];
    for (life, (how, exit)) in (1..).zip(ways) {
        let done = stage.client.kill("server/counter", how).await.expect("it is done");
        assert_eq!((&*done.done, &*done.path, done.incarnation), (how.word(), "server/counter", life));
        let told = story(&mut events, "server/counter", 3).await;
        assert_eq!(told, [&*format!("died {exit}"), "restarting", "started"], "{how:?}");
        assert_eq!(stage.count().await, 0, "it answers again");
    }
    let counter = stage.look("server/counter").await;
    assert_eq!((counter.incarnation, counter.restarts), (4, 3));
    let exits: Vec<(&str, u64, bool)> = counter.deaths.iter().map(|d| (&*d.exit, d.incarnation, d.asked)).collect();
    assert_eq!(exits, [("killed", 1, false), ("panic", 2, false), ("shutdown", 3, false)]);
    let tree = stage.client.tree().await.expect("an answer").root;
    assert_eq!(tree.children[1].children[0].deaths.len(), 1, "the tree tells the last one");

    // A supervisor goes with its children, and comes back with them.
    stage.client.kill("server", Kill::Kill).await.expect("it is done");
    assert_eq!(story(&mut events, "server", 3).await, ["died killed", "restarting", "started"]);
    until("all are back", || async {
        stage.look("server").await.children.iter().all(|child| child.state == "running")
    })
    .await;
    // A transient task that was told to stop stays down, and can't be killed again.
    stage.client.kill("server/idle", Kill::Stop).await.expect("it is done");
    until("it is down", || async { stage.look("server/idle").await.state == "down" }).await;
    let (status, _) = refused(stage.client.kill("server/idle", Kill::Kill).await.expect_err("it is down"));
    assert_eq!(status, 409);
    stage.finish().await;
}

#[tokio::test]
async fn control_is_refused_without_the_flag_and_for_the_root_always() {
    let stage = Stage::new(false).await;
    for refusal in [
        stage.client.kill("server", Kill::Kill).await,
        stage.client.suspend("server").await,
        stage.client.resume("server").await,
        stage.client.kill("/", Kill::Stop).await,
    ] {
        let (status, error) = refused(refusal.expect_err("no control"));
        assert_eq!(status, 403);
        assert!(error.contains("--debug-actor-control"), "{error}");
    }
    stage.finish().await;

    let stage = Stage::new(true).await;
    for refusal in [
        stage.client.kill("/", Kill::Kill).await,
        stage.client.suspend("").await,
        stage.client.suspend("inspector").await,
        stage.client.suspend("inspector/connections").await,
    ] {
        assert_eq!(refused(refusal.expect_err("never")).0, 403);
    }
    let (status, _) = refused(stage.client.suspend("server/idle").await.expect_err("it is a task"));
    assert_eq!(status, 409);
    let (status, _) = refused(stage.client.kill("server/x", Kill::Kill).await.expect_err("there is none"));
    assert_eq!(status, 404);
    assert_eq!(stage.look("server").await.restarts, 0);
    stage.finish().await;
}

#[tokio::test]
async fn a_suspended_actor_handles_nothing_until_it_resumes() {
    let stage = Stage::new(true).await;
    let mut events = stage.client.events().await.expect("a stream");
    stage.client.suspend("server/counter").await.expect("it is done");
    assert_eq!(stage.look("server/counter").await.state, "suspended");
    stage.counter().cast(CounterMsg::Count).expect("room");
    // Requests to the inspector give the counter many chances to run.
    for _ in 0..5 {
        assert_eq!(stage.look("server/counter").await.mailbox.depth, 1);
    }
    stage.client.resume("server/counter").await.expect("it is done");
    assert_eq!(stage.count().await, 1);
    assert_eq!(stage.look("server/counter").await.state, "running");
    assert_eq!(story(&mut events, "server/counter", 2).await, ["suspended", "resumed"]);

    // Suspended or not, it can be killed; the next life takes messages.
    stage.client.suspend("server/counter").await.expect("it is done");
    stage.client.kill("server/counter", Kill::Stop).await.expect("it is done");
    until("it runs again", || async { stage.look("server/counter").await.incarnation == 2 }).await;
    until("it answers", || async { stage.look("server/counter").await.state == "running" }).await;
    assert_eq!(stage.count().await, 0);
    stage.finish().await;
}

#[tokio::test]
async fn a_trace_ends_at_either_limit() {
    let stage = Stage::new(false).await;
    let mut trace = stage.client.trace("server/counter", 3, LIMIT).await.expect("a trace");
    for _ in 0..4 {
        stage.counter().cast(CounterMsg::Count).expect("room");
    }
    let mut messages = Vec::new();
    while let Some(record) = tokio::time::timeout(LIMIT, trace.next()).await.expect("in time").expect("a line") {
        messages.push((record.message.into_owned(), record.waiting, record.failed));
    }
    let count = |waiting| ("Count".to_owned(), waiting, false);
    assert_eq!(messages.len(), 3, "{messages:?}");
    assert_eq!(messages[0], count(messages[0].1));

    let mut trace = stage.client.trace("server/counter", 3, Duration::from_millis(20)).await.expect("a trace");
    let ended = tokio::time::timeout(LIMIT, trace.next()).await.expect("it ends by itself");
    assert_eq!(ended.expect("no error"), None);
    let (status, _) = refused(stage.client.trace("server/idle", 1, LIMIT).await.expect_err("it is a task"));
    assert_eq!(status, 409);
    stage.finish().await;
}

#[tokio::test]
async fn bad_requests_are_answered_and_harm_nobody() {
    let stage = Stage::new(true).await;
    let socket = stage.socket();
    for (method, page, wanted) in [
        ("GET", "/v1/nothing", 404),
        ("GET", "/v1/actors/nobody", 404),
        ("DELETE", "/v1/tree", 405),
        ("GET", "/v1/kill/server", 405),
        ("GET", "/v1/trace/server?limit=3", 400),
        ("POST", "/v1/kill/server?how=gently", 400),
    ] {
        let (status, answer) = request(socket, method, page).await;
        assert_eq!(status, wanted, "{method} {page}: {answer}");
        assert!(answer.contains(r#"{"version":1,"error":""#), "{answer}");
    }
    assert!(request(socket, "PUT", "/v1/tree").await.1.to_lowercase().contains("allow: get"));
    let long = format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(100_000));
    for bytes in [&b"\0\xff\r\n\r\n"[..], b"GET / HTTP/9.9\r\n\r\n", b"hello\r\n\r\n", long.as_bytes()] {
        let answer = plain(socket, bytes).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
    }
    let inspector = stage.look("inspector").await;
    assert_eq!(inspector.children.iter().map(|child| child.restarts).sum::<u64>(), 0, "nobody died of it");
    stage.finish().await;
}

/// The clock is paused, so the server's patience is over as soon as nothing else goes on.
#[tokio::test(start_paused = true)]
async fn a_guest_who_never_finishes_a_request_is_shown_out() {
    let stage = Stage::new(false).await;
    for bytes in [&b""[..], b"GET /v1/tree HTTP/1.1\r\nHos"] {
        let answer = plain(stage.socket(), bytes).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
    }
    assert_eq!(stage.look("inspector/connections").await.children_total, 1, "their places are free again");
    stage.finish().await;
}

#[tokio::test]
async fn a_reader_who_is_too_slow_is_told_how_much_it_missed() {
    let stage = Stage::new(false).await;
    let mut events = stage.client.events().await.expect("a stream");
    let guests = stage.tree.system().supervisor("inspector/connections").expect("a supervisor");
    // More than the socket's buffers hold; nobody reads meanwhile.
    for _ in 0..6_000 {
        let brief = task("brief", |_| std::future::pending()).restart(Restart::Temporary);
        guests.add(LIMIT, brief).await.expect("it starts");
        guests.remove(LIMIT, "brief").await.expect("it goes");
    }
    let (mut last, mut missed) = (None, 0);
    while missed == 0 {
        let event = next(&mut events).await;
        if event.event == "missed" {
            missed = event.count.expect("how many");
        } else {
            last = event.sequence.or(last);
        }
    }
    let after = next(&mut events).await.sequence;
    assert_eq!(after, last.map(|last| last + missed + 1), "{missed} missed");
    stage.finish().await;
}

#[tokio::test]
async fn a_crowd_is_bounded_and_told_so() {
    let stage = Stage::new(false).await;
    let (mut streams, mut turned_away) = (Vec::new(), 0);
    for _ in 0..40 {
        match stage.client.events().await {
            Ok(stream) => streams.push(stream),
            Err(error) => {
                assert_eq!(refused(error).0, 503);
                turned_away += 1;
            }
        }
    }
    assert_eq!((streams.len(), turned_away), (CONNECTIONS_MAX, 40 - CONNECTIONS_MAX));
    drop(streams);
    until("their places are free again", || async {
        stage.client.tree().await.is_ok_and(|tree| tree.root.children[0].children[0].children_total == 1)
    })
    .await;
    stage.finish().await;
}

#[tokio::test]
async fn a_guest_who_waits_while_the_listener_dies_is_served() {
    let stage = Stage::new(true).await;
    for victim in ["inspector/listener", "inspector/connections", "inspector"] {
        let before = stage.look(victim).await.incarnation;
        // Though this ends the connection that asks, it is answered.
        stage.client.kill(victim, Kill::Kill).await.expect("it is done");
        // Connected at once, so partly before the successor listens.
        let waiting: Vec<UnixStream> = {
            let mut waiting = Vec::new();
            for _ in 0..8 {
                waiting.push(UnixStream::connect(stage.socket()).await.expect("never refused"));
            }
            waiting
        };
        for mut stream in waiting {
            let written = stream.write_all(b"GET /v1/tree HTTP/1.1\r\nHost: k3sd\r\n\r\n").await;
            let mut answer = Vec::new();
            let read = tokio::time::timeout(LIMIT, stream.read_to_end(&mut answer)).await.expect("an end");
            // Only a death that takes the connections along may cut one that was already in service.
            let cut = victim != "inspector/listener" && answer.is_empty();
            let served = written.is_ok() && read.is_ok() && answer.starts_with(b"HTTP/1.1 200");
            assert!(cut || served, "{victim}: {written:?} {read:?}");
        }
        until("it is back", || async {
            let Ok(show) = stage.client.actor(victim).await else { return false };
            show.actor.incarnation == before + 1 && show.actor.state == "running"
        })
        .await;
    }
    stage.finish().await;
}

#[tokio::test]
async fn the_socket_is_private_and_has_one_owner() {
    let stage = Stage::new(false).await;
    let path: PathBuf = stage.socket().to_owned();
    let mode = |path: &Path| std::fs::metadata(path).expect("it is there").permissions().mode() & 0o777;
    assert_eq!(mode(&path), 0o600);
    let error = inspect::bind(&path).expect_err("somebody answers there");
    assert_eq!(error.kind(), std::io::ErrorKind::AddrInUse);
    assert!(error.to_string().contains("another process answers on"), "{error}");
    assert!(stage.client.tree().await.is_ok(), "the first one is unharmed");

    let folder = tempfile::tempdir().expect("a folder");
    let stale = folder.path().join("stale.sock");
    drop(std::os::unix::net::UnixListener::bind(&stale).expect("a socket"));
    assert!(matches!(Client::new(&stale).tree().await, Err(ClientError::NotRunning { .. })));
    let fresh = inspect::bind(&stale).expect("nobody answers there");
    assert_eq!(mode(&stale), 0o600);
    drop(fresh);
    let file = folder.path().join("file");
    std::fs::write(&file, "precious").expect("a file");
    let error = inspect::bind(&file).expect_err("it is a file");
    assert_eq!(error.kind(), std::io::ErrorKind::AlreadyExists);
    assert_eq!(std::fs::read_to_string(&file).expect("it is there"), "precious");
    let long = folder.path().join("l".repeat(120));
    assert!(inspect::bind(&long).is_err());
    let left: Vec<String> = std::fs::read_dir(folder.path())
        .expect("a folder")
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .collect();
    assert_eq!(left.len(), 2, "no drafts are left: {left:?}");
    let error = Client::new(folder.path().join("none.sock")).tree().await.expect_err("nobody is there");
    assert!(error.to_string().ends_with("none.sock; is k3sd running?"), "{error}");
    stage.finish().await;
}
