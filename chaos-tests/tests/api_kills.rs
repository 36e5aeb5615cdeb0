//! Every actor of the API server is killed, and what it stands on, while clients write and a hundred watchers follow:
//! no acknowledged write is lost, no watcher misses a change, and whom a death is not to disturb it does not.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use chaos_tests::api::client::Server;
use chaos_tests::api::judge::judge;
use chaos_tests::api::load::Load;
use chaos_tests::api::record::{Record, Strike};
use chaos_tests::budgets::Budgets;
use chaos_tests::checks::{Shape, healed, shape};
use chaos_tests::daemon::{Daemon, PATIENCE};
use chaos_tests::{Replay, is_long, seed};
use k3sd_runtime::Rng;
use k3sd_runtime::inspect::wire::Done;
use k3sd_runtime::inspect::{ClientError, Kill};
use rustix::process::Signal;

/// As many as a small cluster has.
const WATCHERS: usize = 100;
/// How long the tree may take to have its full shape again.
const HEALED_WITHIN: Duration = Duration::from_secs(5);
/// How long the watchers may take to see the last change.
const SETTLED_WITHIN: Duration = Duration::from_secs(10);
/// The subtree all of which is killed.
const SUBTREE: &str = "server/apiserver";
/// What it stands on.
const GROUND: [&str; 3] = ["server/kine/store", "server/kine", "server/pki"];
/// Its caches are many and alike; so many of them are killed in a short run.
const CACHES: &str = "server/apiserver/caches/resources/";
const CACHES_SHORT: usize = 12;
/// Victims of the round in which nobody waits for the last one to be back.
const RANDOM_VICTIMS: usize = 8;
/// The longest pause in it.
const RANDOM_PAUSE_MS: u64 = 200;

/// Who dies, and who is to notice.
struct Drill {
    daemon: Daemon,
    load: Load,
    wanted: Shape,
    budgets: Budgets,
    strikes: Vec<Strike>,
    slowest: (Duration, String),
    findings: Vec<String>,
}

impl Drill {
    async fn begin(daemon: Daemon, server: Server, seed: u64) -> Self {
        ready(&server).await;
        let tree = daemon.client.tree().await.expect("it answers");
        let wanted = shape(&tree.root);
        let budgets = Budgets::of(&tree.root, HEALED_WITHIN);
        let load = Load::begin(server, WATCHERS, seed);
        load.wait_for_writes(20, PATIENCE).await;
        let (strikes, slowest) = (Vec::new(), (Duration::ZERO, String::new()));
        Self { daemon, load, wanted, budgets, strikes, slowest, findings: Vec::new() }
    }

    /// Everybody to be killed, in the order of the seed.
    fn victims(&self, rng: &mut Rng) -> Vec<String> {
        let (mut caches, mut others): (Vec<String>, Vec<String>) = self
            .wanted
            .keys()
            .filter(|path| path.as_str() == SUBTREE || path.starts_with(&format!("{SUBTREE}/")))
            .cloned()
            .partition(|path| path.starts_with(CACHES));
        assert!(others.len() > 10 && caches.len() > CACHES_SHORT, "the parts of an API server: {others:?}");
        shuffle(&mut caches, rng);
        // The one that all watch is always among them.
        caches.sort_by_key(|path| !path.ends_with("/configmaps"));
        if !is_long() {
            caches.truncate(CACHES_SHORT);
        }
        others.extend(caches);
        others.extend(GROUND.map(str::to_owned));
        shuffle(&mut others, rng);
        others
    }

    async fn kill(&mut self, victim: &str, how: Kill) -> Result<Done, ClientError> {
        self.budgets.spend(victim);
        // A worker's work waits for its successor; a supervisor takes the connections or the caches below it along.
        let is_store = victim == GROUND[0];
        let may_fail_reads = self.budgets.is_supervisor(victim);
        let began = self.load.origin().now();
        let may_fail = may_fail_reads || is_store;
        self.strikes.push(Strike { victim: format!("{victim} ({how:?})"), may_fail, may_fail_reads, began });
        self.daemon.client.kill(victim, how).await
    }

    /// Kills one, and waits until it is back and writes go on.
    async fn strike(&mut self, victim: &str, how: Kill) {
        let wait = self.budgets.wait(victim);
        tokio::time::sleep(wait).await;
        let before = self.daemon.client.actor(victim).await.expect("it is there").actor.incarnation;
        let began = Instant::now();
        self.kill(victim, how).await.unwrap_or_else(|error| panic!("killing {victim}: {error}"));
        loop {
            let now = self.daemon.client.actor(victim).await;
            if now.is_ok_and(|show| show.actor.incarnation > before) {
                break;
            }
            assert!(began.elapsed() < PATIENCE, "{victim} does not come back: {}", self.daemon.log());
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        healed(&self.daemon.client, &self.wanted).await;
        let took = began.elapsed();
        if took > HEALED_WITHIN {
            self.findings.push(format!("after the death of {victim} healing took {took:?}"));
        }
        self.slowest = self.slowest.clone().max((took, victim.to_owned()));
        self.load.wait_for_writes(2, HEALED_WITHIN).await;
    }

    async fn end(mut self) -> (Record, Daemon) {
        let mut record = self.load.end(SETTLED_WITHIN).await;
        record.strikes = std::mem::take(&mut self.strikes);
        record.findings.append(&mut self.findings);
        println!(
            "{} writes, {} failed requests, {} lists of {} watchers, {} events; the slowest to heal was {:?}",
            record.writes.len(),
            record.failures.len(),
            record.watches.iter().map(|watch| watch.spans.len()).sum::<usize>(),
            record.watches.len(),
            record.watches.iter().flat_map(|watch| &watch.spans).map(|span| span.events.len()).sum::<usize>(),
            self.slowest,
        );
        (record, self.daemon)
    }
}

/// Waits until the server has written what is there from the start, the namespace that the load uses among it.
async fn ready(server: &Server) {
    let (mut client, began) = (server.client(), Instant::now());
    while !client.get("/readyz").await.is_ok_and(|answer| answer.status == 200) {
        assert!(began.elapsed() < PATIENCE, "it does not become ready");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn shuffle(items: &mut [String], rng: &mut Rng) {
    for place in (1..items.len()).rev() {
        let other = rng.below(place as u64 + 1);
        items.swap(place, usize::try_from(other).expect("a small number"));
    }
}

fn free_address() -> SocketAddr {
    let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|socket| socket.local_addr());
    free.expect("a port of the loopback")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_of_the_api_outlive_its_parts() {
    let seed = seed();
    let _replay = Replay { seed, test: "clients_of_the_api_outlive_its_parts" };
    let mut rng = Rng::seeded(seed);
    let (address, own) = (free_address(), free_address());
    let files = tempfile::tempdir().expect("a directory");
    let kubeconfig = format!("--write-kubeconfig={}", files.path().join("admin.yaml").display());
    let port = format!("--https-listen-port={}", address.port());
    let own_port = format!("--apiserver-port={}", own.port());
    let flags = ["--debug-actor-control", "--bind-address=127.0.0.1", &kubeconfig, &port, &own_port];
    let daemon = Daemon::start(&flags).await;
    let server = Server::new(address, &daemon.tls_directory());
    let began = Instant::now();
    let mut drill = Drill::begin(daemon, server, rng.next_u64()).await;

    let victims = drill.victims(&mut rng);
    for victim in &victims {
        let first = if rng.below(2) == 0 { Kill::Kill } else { Kill::Panic };
        drill.strike(victim, first).await;
        if is_long() {
            let second = if first == Kill::Kill { Kill::Panic } else { Kill::Kill };
            drill.strike(victim, second).await;
        }
    }
    // Nobody waits for the last one to be back, so the next may not be there.
    let mut found = 0;
    for _ in 0..RANDOM_VICTIMS * if is_long() { 10 } else { 1 } {
        tokio::time::sleep(Duration::from_millis(rng.below(RANDOM_PAUSE_MS))).await;
        let victim = &victims[usize::try_from(rng.below(victims.len() as u64)).expect("a small number")];
        if drill.budgets.wait(victim).is_zero() {
            found += usize::from(drill.kill(victim, Kill::Kill).await.is_ok());
        }
    }
    let took = healed(&drill.daemon.client, &drill.wanted).await;
    assert!(took < HEALED_WITHIN, "healing took {took:?}");
    assert!(found > 0, "no kill found its victim");
    drill.load.wait_for_writes(10, HEALED_WITHIN).await;

    println!("{} victims and {found} more in {:?}", victims.len(), began.elapsed());
    let (record, mut daemon) = drill.end().await;
    judge(&record);
    assert!(daemon.end_with(Signal::TERM).await.success());
}
