//! A machine under load whose parts die, and what that was noticed by.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use chaos_tests::api::client::Server;
use chaos_tests::api::judge;
use chaos_tests::api::load::Load;
use chaos_tests::api::record::Strike;
use chaos_tests::budgets::Budgets;
use chaos_tests::checks::{History, Shape, fixed, healed, shape};
use chaos_tests::history::Nanos;
use k3sd_runtime::Rng;
use k3sd_runtime::inspect::wire::Actor;
use k3sd_runtime::inspect::{Client, Kill};
use rustix::process::{Pid, Signal, kill_process};
use tokio::task::JoinSet;

use crate::facts::Facts;
use crate::leaks::Ground;
use crate::machine::{ADDRESS, Machine, NODE, PATIENCE};
use crate::shop;
use crate::traffic::{Traffic, What};

/// Those who follow all ConfigMaps.
const WATCHERS: usize = 8;
/// How long a tree may take to have its full shape again after the death of one actor.
pub(crate) const HEALED_WITHIN: Duration = Duration::from_secs(5);
/// How long the watchers may take to see the last change.
const SETTLED_WITHIN: Duration = Duration::from_secs(10);
/// How much later than its death a supervisor may learn of it.
const SLACK: Duration = Duration::from_secs(1);

/// What a session says back words with. It ends by itself when nobody says anything: whoever would tell it dies, too.
const ECHO: &str = "while read -r -t 5 word; do echo \"$word\"; done";

/// Something that was done.
#[derive(Debug)]
pub(crate) struct Struck {
    /// To whom; `/` is the process.
    pub(crate) victim: String,
    how: String,
    began: Nanos,
    /// How long until the tree had its full shape, if somebody waited for that.
    pub(crate) healed: Option<Duration>,
    may: May,
    /// Requests to the API that failed.
    pub(crate) requests: usize,
    /// Watches and sessions through the API that were cut.
    pub(crate) streams: usize,
    /// Requests to the application, its connections, and questions for names that failed.
    pub(crate) others: usize,
}

/// What it may be noticed by.
#[derive(Clone, Debug, Default)]
pub(crate) struct May {
    /// Requests to the API may fail.
    pub(crate) api: bool,
    /// Even those that only need what is in memory.
    pub(crate) reads: bool,
    /// Nobody may listen.
    pub(crate) refuse: bool,
    /// What else may fail.
    pub(crate) others: BTreeSet<What>,
}

impl May {
    /// What the death of an actor may be noticed by. A worker's work waits for its successor; a supervisor takes along what
    /// is below it.
    fn of(victim: &str, is_supervisor: bool) -> Self {
        let is_in = |part: &str| victim == part || victim.strip_prefix(part).is_some_and(|rest| rest.starts_with('/'));
        let is_ground = victim == "server" || ["server/pki", "server/kine", "server/apiserver"].into_iter().any(is_in);
        let reads = is_ground && is_supervisor;
        let mut others = BTreeSet::new();
        if is_ground {
            others.extend([What::Watch, What::Session]);
        }
        if victim == "agent" || victim == "agent/kubelet" || is_in("agent/kubelet/server") {
            others.insert(What::Session);
        }
        if victim == "agent" || is_in("agent/dns") {
            others.insert(What::Name);
        }
        Self { api: reads || victim == "server/kine/store", reads, refuse: false, others }
    }

    /// What the death of the process may be noticed by: everything that it answers itself.
    fn daemon() -> Self {
        Self { api: true, reads: true, refuse: true, others: [What::Watch, What::Session, What::Name].into() }
    }
}

/// See the module's page.
pub(crate) struct Drill<'m> {
    pub(crate) machine: &'m mut Machine,
    pub(crate) load: Load,
    pub(crate) traffic: Traffic,
    /// What the tree is like.
    pub(crate) tree: Actor,
    wanted: Shape,
    budgets: Budgets,
    strikes: Vec<Struck>,
    facts: Facts,
    ground: Ground,
    /// Reads what the tree says of its lives, and ends when that can't be.
    lives: JoinSet<()>,
    findings: Vec<String>,
}

impl<'m> Drill<'m> {
    /// Opens the shop, and lets everybody in.
    pub(crate) async fn begin(machine: &'m mut Machine, rng: &mut Rng) -> Self {
        let began = Instant::now();
        shop::open(machine).await;
        let facts = shop::facts(machine).await;
        if !facts.findings().is_empty() {
            println!("{:#}", machine.get(&["node", NODE]).await["status"]["conditions"]);
            println!("{}", machine.said(&["get", "events", "-A"]).await.out);
        }
        assert_eq!(facts.findings(), Vec::<String>::new());
        // Chains that nothing leads to any more go with the next life of who made them; here, lest they be missed later.
        machine.inspect.kill("agent/proxy/rules", Kill::Kill).await.expect("it is there");
        let ground = Ground::of(machine).await;
        let server = server(machine);
        let load = Load::begin(server.clone(), WATCHERS, rng.next_u64());
        let session = machine.kubectl(&["-n", "shop", "exec", "-i", "talker", "-c", "echoes", "--", "sh", "-c", ECHO]);
        let traffic = Traffic::begin(shop::places(machine).await, server, &session, load.origin());
        load.wait_for_writes(20, PATIENCE).await;
        traffic.round().await;
        let tree = machine.inspect.tree().await.expect("it answers").root;
        let (wanted, budgets) = (shape(&tree), Budgets::of(&tree, SLACK));
        let mut lives = JoinSet::new();
        lives.spawn(follow(machine.inspect.clone()));
        println!("all of it runs after {:?}, with {} actors", began.elapsed(), wanted.len());
        Self {
            machine,
            load,
            traffic,
            tree,
            wanted,
            budgets,
            strikes: Vec::new(),
            facts,
            ground,
            lives,
            findings: Vec::new(),
        }
    }

    /// How long to wait until this one may die.
    pub(crate) fn wait(&self, victim: &str) -> Duration {
        self.budgets.wait(victim)
    }

    /// Takes note of what is about to be done.
    pub(crate) fn note(&mut self, victim: &str, how: String, may: May) {
        let began = self.load.origin().now();
        let (victim, healed) = (victim.to_owned(), None);
        self.strikes.push(Struck { victim, how, began, healed, may, requests: 0, streams: 0, others: 0 });
    }

    /// Kills one, and waits for nothing. Says whether it was there.
    pub(crate) async fn kill(&mut self, victim: &str, how: Kill) -> bool {
        self.budgets.spend(victim);
        self.note(victim, format!("{how:?}"), May::of(victim, self.budgets.is_supervisor(victim)));
        self.machine.inspect.kill(victim, how).await.is_ok()
    }

    /// Kills one, and waits until it is back and everybody is served.
    pub(crate) async fn strike(&mut self, victim: &str, how: Kill) {
        let began = Instant::now();
        // Who asks the inspector to die may get no answer.
        let is_known = self.kill(victim, how).await || victim.starts_with("inspector");
        assert!(is_known, "{victim} is not there");
        loop {
            let now = self.machine.inspect.actor(victim).await;
            let is_new = |age: u64| Duration::from_millis(age) <= began.elapsed();
            if now.is_ok_and(|show| show.actor.state == "running" && is_new(show.actor.uptime_ms)) {
                break;
            }
            assert!(began.elapsed() < PATIENCE, "{victim} does not come back after {how:?}");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        healed(&self.machine.inspect, &self.wanted).await;
        self.healed(began.elapsed(), HEALED_WITHIN).await;
    }

    /// Kills the process, starts it again at once, and waits until all is back.
    pub(crate) async fn strike_daemon(&mut self) {
        let began = Instant::now();
        self.kill_daemon().await;
        self.heal_anew().await;
        let took = began.elapsed();
        self.machine.node_ready().await;
        self.healed(took, HEALED_WITHIN).await;
    }

    /// Waits until the tree of a new process has its shape, and as many in it as before wherever they come and go.
    pub(crate) async fn heal_anew(&mut self) {
        let began = Instant::now();
        healed(&self.machine.inspect, &fixed(&self.wanted)).await;
        loop {
            let found = self.machine.inspect.tree().await.map(|tree| shape(&tree.root)).unwrap_or_default();
            if found.len() == self.wanted.len() && not_same(&found, &self.wanted).is_empty() {
                self.wanted = found;
                return;
            }
            assert!(began.elapsed() < PATIENCE, "not as before: {:?}", not_same(&found, &self.wanted));
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Kills the process, starts it again at once, and waits for nothing.
    pub(crate) async fn kill_daemon(&mut self) {
        self.note("/", "SIGKILL".to_owned(), May::daemon());
        self.machine.end_daemon(Signal::KILL).await;
        self.machine.start();
    }

    /// Kills the container runtime, through which sessions lead. If the daemon was killed before, it may still be starting.
    pub(crate) fn strike_engine(&mut self) {
        let mut may = self.strikes.last().map(|struck| struck.may.clone()).unwrap_or_default();
        may.others.insert(What::Session);
        self.note("containerd", "SIGKILL".to_owned(), may);
        for pid in self.machine.running("containerd") {
            if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
                kill_process(pid, Signal::KILL).ok();
            }
        }
    }

    /// Waits until the tree has its shape. Returns how long that took.
    pub(crate) async fn heal(&self) -> Duration {
        healed(&self.machine.inspect, &self.wanted).await
    }

    async fn healed(&mut self, took: Duration, within: Duration) {
        let struck = self.strikes.last_mut().expect("somebody was struck");
        struck.healed = Some(took);
        if took > within {
            self.findings.push(format!("after the death of {} ({}) healing took {took:?}", struck.victim, struck.how));
        }
        self.load.wait_for_writes(2, PATIENCE).await;
        self.traffic.round().await;
    }

    /// Sends everybody home, and judges. Returns what was done, with what it cost.
    ///
    /// # Panics
    /// When something is wrong.
    pub(crate) async fn end(mut self) -> Vec<Struck> {
        self.heal().await;
        self.traffic.round().await;
        println!("answers: {}", self.traffic.answers());
        if let Some(ended) = self.lives.try_join_next() {
            self.findings.push(format!("of the tree's lives was told what can't be: {ended:?}"));
        }
        self.lives.shutdown().await;
        let troubles = self.traffic.end().await;
        let mut record = self.load.end(SETTLED_WITHIN).await;
        for failure in &record.failures {
            if let Some(struck) = last(&mut self.strikes, failure.returned) {
                struck.requests += 1;
            }
        }
        for trouble in &troubles {
            let is_explained = during(&self.strikes, trouble.called, trouble.returned)
                .iter()
                .any(|struck| struck.may.others.contains(&trouble.what));
            if !is_explained {
                let victims = during(&self.strikes, trouble.called, trouble.returned);
                let victims: Vec<&str> = victims.iter().map(|struck| struck.victim.as_str()).collect();
                self.findings.push(format!("{trouble}, while {victims:?} died"));
            }
            if let Some(struck) = last(&mut self.strikes, trouble.returned) {
                let is_stream = matches!(trouble.what, What::Watch | What::Session);
                *(if is_stream { &mut struck.streams } else { &mut struck.others }) += 1;
            }
        }
        // Nobody listens while there is no process.
        record.failures.retain(|failure| {
            !during(&self.strikes, failure.called, failure.returned).iter().any(|struck| struck.may.refuse)
        });
        record.strikes = self.strikes.iter().map(Struck::strike).collect();
        self.findings.extend(judge::check(&record));
        let slowest = self.strikes.iter().max_by_key(|struck| struck.healed);
        let slowest = slowest.map(|struck| format!("{} ({}) {:?}", struck.victim, struck.how, struck.healed));
        println!(
            "{} deaths, {} writes, {} requests and {} others failed; the slowest to heal was {slowest:?}",
            self.strikes.len(),
            record.writes.len(),
            self.strikes.iter().map(|struck| struck.requests).sum::<usize>(),
            troubles.len(),
        );
        if !self.findings.is_empty() {
            println!("{}", self.machine.said(&["get", "events", "-A"]).await.out);
        }
        let count = self.findings.len();
        assert!(self.findings.is_empty(), "{count} things are wrong:\n{}", self.findings.join("\n"));
        shop::as_before(self.machine, &self.facts).await;
        self.ground.come_back(self.machine).await;
        assert!(self.machine.end_daemon(Signal::TERM).await.success(), "{}", self.machine.log());
        self.strikes
    }
}

impl Struck {
    /// For the checker of the API.
    fn strike(&self) -> Strike {
        let victim = format!("{} ({})", self.victim, self.how);
        Strike { victim, may_fail: self.may.api, may_fail_reads: self.may.reads, began: self.began }
    }
}

/// Follows what is told of the tree's lives: no two at one place, no gap in what is told. A stream that is cut, as its own
/// end is one of the deaths, is followed by another.
///
/// # Panics
/// When what is told contradicts itself.
async fn follow(client: Client) {
    loop {
        if let Ok(mut events) = client.events().await {
            let mut history = History::default();
            while let Ok(Some(event)) = events.next().await {
                history.take(&event);
            }
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// What differs between two shapes but for the numbers in names, which each process gives anew.
fn not_same(found: &Shape, wanted: &Shape) -> Vec<String> {
    let named = |shape: &Shape| -> BTreeSet<String> {
        shape.keys().map(|path| path.trim_end_matches(|letter: char| letter.is_ascii_digit()).to_owned()).collect()
    };
    named(found).symmetric_difference(&named(wanted)).cloned().collect()
}

/// Who was struck last before.
fn last(strikes: &mut [Struck], at: Nanos) -> Option<&mut Struck> {
    let behind = strikes.partition_point(|strike| strike.began <= at);
    strikes[..behind].last_mut()
}

/// Who was struck in between, or last before it.
fn during(strikes: &[Struck], from: Nanos, to: Nanos) -> &[Struck] {
    let behind = strikes.partition_point(|strike| strike.began <= to);
    let from = strikes.partition_point(|strike| strike.began <= from).saturating_sub(1);
    &strikes[from.min(behind)..behind]
}

/// The API, for its administrator.
pub(crate) fn server(machine: &Machine) -> Server {
    let tls: PathBuf = machine.seen(&machine.disk("data/server/tls").display().to_string());
    let address: std::net::IpAddr = ADDRESS.parse().expect("an address");
    Server::new((address, 6443).into(), &tls)
}
