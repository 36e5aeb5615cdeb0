//! A tree of probes under load, killed a thousand times through the socket: afterwards everything is as before.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use chaos_tests::checks::{History, Shape, count, healed, shape};
use chaos_tests::daemon::{Daemon, Holdings, PATIENCE};
use chaos_tests::{Replay, is_long, seed};
use k3sd_runtime::Rng;
use k3sd_runtime::inspect::{Client, Kill};
use rustix::process::Signal;

/// Rounds of a thousand kills before the one that counts. They fill the lists of last deaths, and the allocator's arenas,
/// which go up and down by some per cent from round to round: where the memory "was" is the most of these rounds.
const WARM_UP_ROUNDS: usize = 20;

/// How long the tree may take to have its full shape again after the last kill.
const HEALED_WITHIN: Duration = Duration::from_secs(5);

/// A client asks so often between two deaths of its listener.
const ANSWERS_EACH: usize = 30;

/// A server for drills, in which the budgets of supervisors bear any number of deaths. The API server keeps its own, and has
/// a test of its own, `api_kills`.
const DRILL: &[&str] = &["--debug-actor-control", "--disable-apiserver"];

/// Paths that may be killed: all but the root, and but the connection that the kill arrives on.
fn victims(shape: &Shape) -> Vec<String> {
    shape.keys().filter(|path| *path != "/").cloned().collect()
}

/// Kills so many actors, each named by the seed. Returns how many wishes found somebody.
async fn kill(client: &Client, victims: &[String], rng: &mut Rng, times: usize) -> usize {
    let mut found = 0;
    for _ in 0..times {
        let victim = &victims[usize::try_from(rng.below(victims.len() as u64)).expect("a small number")];
        let how = [Kill::Kill, Kill::Panic, Kill::Stop][usize::try_from(rng.below(3)).expect("a small number")];
        // An answer can be lost: the victim may be the server of this socket, or the victim's supervisor. And the victim
        // may be between two lives.
        found += usize::from(client.kill(victim, how).await.is_ok());
    }
    found
}

/// Waits until what the process holds no longer changes, as connections close and freed memory settles.
async fn settled(daemon: &Daemon) -> Holdings {
    let mut before = daemon.holdings();
    for _ in 0..100 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let now = daemon.holdings();
        if now == before {
            break;
        }
        before = now;
    }
    before
}

#[tokio::test]
async fn a_thousand_kills_leave_no_trace() {
    let seed = seed();
    let _replay = Replay { seed, test: "a_thousand_kills_leave_no_trace" };
    let mut rng = Rng::seeded(seed);
    let mut daemon = Daemon::start(&[DRILL, &["--probe-actors", "200", "--probe-load"]].concat()).await;
    let client = daemon.client.clone();
    let wanted = shape(&client.tree().await.expect("it answers").root);
    healed(&client, &wanted).await;
    assert!(wanted.len() > 200, "the probes are there");
    let victims = victims(&wanted);

    let mut memory_max = 0;
    for _ in 0..WARM_UP_ROUNDS {
        kill(&client, &victims, &mut rng, 1_000).await;
        healed(&client, &wanted).await;
        memory_max = memory_max.max(daemon.holdings().memory);
    }
    let before = Holdings { memory: memory_max, ..settled(&daemon).await };

    let rounds = if is_long() { 20 } else { 1 };
    let mut found = 0;
    for _ in 0..rounds {
        found += kill(&client, &victims, &mut rng, 1_000).await;
        let took = healed(&client, &wanted).await;
        assert!(took <= HEALED_WITHIN, "healing took {took:?}");
    }
    assert!(found >= rounds * 900, "only {found} of {} kills found their victim", rounds * 1_000);

    let after = settled(&daemon).await;
    println!("{found} kills found their victim; held before {before:?}, after {after:?}");
    assert_eq!(after.descriptors, before.descriptors, "no descriptor is leaked");
    assert_eq!(after.threads, before.threads, "no thread is leaked");
    let tree = client.tree().await.expect("it answers");
    assert_eq!(tree.alive, count(&tree.root), "no incarnation lives outside the tree");
    let bound = before.memory + before.memory / 20;
    assert!(after.memory <= bound, "memory grew from {} to {} bytes, beyond 5 %", before.memory, after.memory);

    let status = daemon.end_with(Signal::TERM).await;
    assert!(status.success(), "it ended with {status}: {}", daemon.log());
    assert!(!daemon.socket().exists(), "the socket goes with the daemon");
}

#[tokio::test]
async fn every_node_comes_back_and_the_stream_says_so() {
    let daemon = Daemon::start(&[DRILL, &["--probe-actors", "40"]].concat()).await;
    let client = daemon.client.clone();
    let wanted = shape(&client.tree().await.expect("it answers").root);
    healed(&client, &wanted).await;
    // The inspector and those in it carry the stream itself; the test above kills them.
    let victims: Vec<String> = victims(&wanted).into_iter().filter(|path| !path.starts_with("inspector")).collect();

    let mut events = client.events().await.expect("it streams");
    let mut history = History::default();
    for victim in &victims {
        client.kill(victim, Kill::Kill).await.unwrap_or_else(|error| panic!("killing {victim}: {error}"));
        let (mut died, mut back) = (false, false);
        while !back {
            let event = tokio::time::timeout(PATIENCE, events.next()).await;
            let event = event.unwrap_or_else(|_| panic!("{victim} does not come back: {}", daemon.log()));
            let event = event.expect("the stream goes on").expect("the stream goes on");
            history.take(&event);
            if event.path.as_deref() == Some(victim) {
                died |= event.event == "died";
                back = died && event.event == "started";
            }
        }
        healed(&client, &wanted).await;
    }
    assert!(history.died >= victims.len() as u64);
    assert_eq!(history.escalated, 0);
}

#[tokio::test]
async fn the_root_cannot_be_killed_and_nobody_without_the_control_flag() {
    let daemon = Daemon::start(&["--debug-actor-control"]).await;
    for how in [Kill::Kill, Kill::Panic, Kill::Stop] {
        let refusal = daemon.client.kill("/", how).await.expect_err("the root stays");
        assert!(refusal.to_string().contains("root"), "{refusal}");
    }
    let careful = Daemon::start(&[]).await;
    let refusal = careful.client.kill("server", Kill::Kill).await.expect_err("control is off");
    assert!(refusal.to_string().contains("--debug-actor-control"), "{refusal}");
}

#[tokio::test]
async fn clients_of_the_socket_do_not_notice_the_death_of_its_listener() {
    let daemon = Daemon::start(&["--debug-actor-control"]).await;
    let client = daemon.client.clone();
    let tree = client.tree().await.expect("it answers");
    let listeners: Vec<String> = shape(&tree.root)
        .into_keys()
        .filter(|path| path.starts_with("inspector/") && path.ends_with("listener"))
        .collect();
    assert_eq!(listeners.len(), 1, "one listener among {listeners:?}");
    let answers = AtomicUsize::new(0);
    let asking = async {
        while answers.load(SeqCst) < 5 * ANSWERS_EACH {
            // Each on a connection of its own; the kernel keeps it until the next listener takes it.
            client.tree().await.expect("no connection is refused");
            answers.fetch_add(1, SeqCst);
        }
    };
    let killing = async {
        for round in 1..5 {
            while answers.load(SeqCst) < round * ANSWERS_EACH {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            client.kill(&listeners[0], Kill::Kill).await.expect("it is there");
        }
    };
    let both = tokio::time::timeout(PATIENCE, async { tokio::join!(asking, killing) }).await;
    assert!(both.is_ok(), "only {} answers: {}", answers.load(SeqCst), daemon.log());
}

#[tokio::test]
async fn a_daemon_that_was_killed_leaves_a_socket_which_its_successor_replaces() {
    let mut daemon = Daemon::start(&[]).await;
    assert!(!daemon.end_with(Signal::KILL).await.success());
    assert!(daemon.socket().exists(), "nobody could tidy up");
    daemon.start_again().await;
    assert!(daemon.end_with(Signal::INT).await.success());
    assert!(!daemon.socket().exists());
}
