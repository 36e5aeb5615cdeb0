//! Actors of the node, its engine and the daemon are killed, one after the other and without waiting: pods notice nothing.

use std::process::Stdio;
use std::time::{Duration, Instant};

use chaos_tests::budgets::Budgets;
use chaos_tests::checks::{Shape, fixed, healed, shape};
use chaos_tests::{Replay, is_long, seed};
use k3sd_runtime::Rng;
use k3sd_runtime::inspect::Kill;
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout};

use crate::facts::Facts;
use crate::kubectl::holds;
use crate::machine::{Machine, NODE, PATIENCE};

/// Faults of a short run, and of a long one.
const FAULTS: usize = 40;
const FAULTS_LONG: usize = 400;
/// The longest pause between two.
const PAUSE_MS: u64 = 400;
/// Of so many faults one is the death of the engine, and one the death of the daemon.
const RARE: u64 = 10;
/// How much later than this a supervisor may learn of a death.
const SLACK: Duration = Duration::from_secs(5);
/// How long an answer on the connection may take; nobody between the two ends is ours.
const ECHO_WITHIN: Duration = Duration::from_secs(10);

pub(crate) async fn kills() {
    let seed = seed();
    let _replay = Replay { seed, test: "pods_outlive_what_runs_them" };
    println!("seed {seed}");
    let mut rng = Rng::seeded(seed);
    let Some(mut machine) = Machine::new() else { return };
    machine.start();
    machine.node_ready().await;
    machine.apply(include_str!("kills.yaml")).await;
    machine.told(&["rollout", "status", "deployment/web", "--timeout=60s"]).await;
    machine.ready("writer").await;
    let before = Facts::of(&machine).await;
    assert_eq!((before.findings(), before.count()), (Vec::new(), 7));
    let mut line = Line::open(&machine, before.address("writer")).await;

    let mut faults = Faults::of(&machine).await;
    let began = Instant::now();
    for _ in 0..if is_long() { FAULTS_LONG } else { FAULTS } {
        tokio::time::sleep(Duration::from_millis(rng.below(PAUSE_MS))).await;
        faults.strike(&mut machine, &mut rng).await;
        line.check().await;
    }
    println!("{} in {:?}", faults.summary(), began.elapsed());

    let began = Instant::now();
    machine.node_ready().await;
    healed(&machine.inspect, &faults.wanted).await;
    let after = settled(&machine, &before).await;
    println!("all as before {:?} after the last fault", began.elapsed());
    assert_eq!((after.findings(), after), (Vec::new(), before));
    assert!(holds(&machine.get(&["node", NODE]).await, "Ready"));
    line.check().await;
    counted(&machine);
    assert!(machine.end_daemon(Signal::TERM).await.success());
}

/// Waits until all is as it was; returns what is so in the end.
async fn settled(machine: &Machine, wanted: &Facts) -> Facts {
    let began = Instant::now();
    loop {
        let found = Facts::of(machine).await;
        if found == *wanted || began.elapsed() > PATIENCE {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// The file holds every number once: the one who counts never stopped.
fn counted(machine: &Machine) {
    let text = std::fs::read_to_string(machine.disk("lib/shared/count")).expect("somebody counts");
    // The last line may be half written.
    let whole = &text[..text.rfind('\n').expect("a line")];
    let found: Vec<u64> = whole.lines().map(|line| line.parse().expect("a number")).collect();
    assert!(found.iter().zip(1..).all(|(found, wanted)| *found == wanted), "{} lines, not in order", found.len());
    assert!(found.len() > 20);
}

/// Who dies.
struct Faults {
    wanted: Shape,
    budgets: Budgets,
    victims: Vec<String>,
    actors: usize,
    engines: usize,
    daemons: usize,
}

impl Faults {
    async fn of(machine: &Machine) -> Self {
        let tree = machine.inspect.tree().await.expect("it answers");
        let all = shape(&tree.root);
        let is_nodes = |path: &&String| path.as_str() == "agent" || path.starts_with("agent/");
        let victims: Vec<String> = all.keys().filter(is_nodes).cloned().collect();
        assert!(victims.len() > 30, "the parts of a node: {victims:?}");
        let budgets = Budgets::of(&tree.root, SLACK);
        Self { wanted: fixed(&all), budgets, victims, actors: 0, engines: 0, daemons: 0 }
    }

    /// Strikes once, and waits for nothing.
    async fn strike(&mut self, machine: &mut Machine, rng: &mut Rng) {
        match rng.below(RARE) {
            0 => {
                for pid in machine.running("containerd") {
                    kill(pid);
                    self.engines += 1;
                }
            }
            1 => {
                machine.end_daemon(Signal::KILL).await;
                machine.start();
                self.daemons += 1;
            }
            _ => {
                let victim =
                    &self.victims[usize::try_from(rng.below(self.victims.len() as u64)).expect("a small number")];
                let how = if rng.below(2) == 0 { Kill::Kill } else { Kill::Panic };
                if self.budgets.wait(victim).is_zero() {
                    self.budgets.spend(victim);
                    // It may be between two lives, and so may the daemon.
                    self.actors += usize::from(machine.inspect.kill(victim, how).await.is_ok());
                }
            }
        }
    }

    fn summary(&self) -> String {
        let Self { actors, engines, daemons, .. } = self;
        assert!(*actors > 0 && *engines > 0 && *daemons > 0, "{actors} actors, {engines} engines, {daemons} daemons");
        format!("{actors} actors, {engines} engines and {daemons} daemons died")
    }
}

/// Kills a process that may be gone.
pub(crate) fn kill(pid: u32) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        kill_process(pid, Signal::KILL).ok();
    }
}

/// A connection from the node to a pod.
struct Line {
    child: Child,
    say: ChildStdin,
    hear: Lines<BufReader<ChildStdout>>,
    said: usize,
}

impl Line {
    async fn open(machine: &Machine, address: &str) -> Self {
        let mut command = machine.command(&["busybox", "nc", address, "9000"]);
        let mut child = command.stdin(Stdio::piped()).spawn().expect("busybox was found before");
        let say = child.stdin.take().expect("it is piped");
        let hear = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        let mut line = Self { child, say, hear, said: 0 };
        line.check().await;
        line
    }

    /// Says something, and hears it.
    async fn check(&mut self) {
        self.said += 1;
        let word = format!("word {}", self.said);
        let talk = async {
            self.say.write_all(format!("{word}\n").as_bytes()).await?;
            self.hear.next_line().await
        };
        let heard = tokio::time::timeout(ECHO_WITHIN, talk).await.expect("in time").expect("it is open");
        assert_eq!(heard, Some(word), "{:?}", self.child.try_wait());
    }
}
