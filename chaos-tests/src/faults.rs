//! What is done to a datastore while clients use it: its actors are killed, its process is killed or stopped for a while,
//! and so is the database server behind it.

use std::fmt;
use std::time::{Duration, Instant};

use k3sd_runtime::Rng;
use k3sd_runtime::inspect::Kill;
use k3sd_runtime::inspect::wire::Actor;
use rustix::process::Signal;

use crate::checks::{Shape, healed, shape};
use crate::daemon::{Daemon, PATIENCE};
use crate::load::Load;

/// The subtree whose actors are killed.
const SUBTREE: &str = "kine";
/// In front of the connections in it.
const CONNECTIONS: &str = "kine/connections/";
/// The longest that a stopped process stays stopped: longer than any heartbeat inside it, shorter than clients wait.
const STOPPED_MS_MAX: u64 = 400;
/// The longest pause between two faults.
const PAUSE_MS_MAX: u64 = 150;

/// A database server that can be made to go away and come back with what it had.
pub trait Database: Send {
    /// Ends it without a chance to finish anything.
    fn crash(&mut self);
    /// Starts it again.
    fn resume(&mut self);
}

/// One thing to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Any actor of the subtree, a supervisor or a connection too, dies in one of three ways.
    KillActor,
    /// An actor dies that is no supervisor, so that the process bears a few dozen of these.
    KillWorker,
    /// SIGKILL, and a new process.
    KillProcess,
    /// SIGSTOP, and SIGCONT after a while.
    StopProcess,
    /// The database server is gone for a moment.
    RestartDatabase,
}

/// A datastore under torment.
pub struct Torment<'d> {
    /// The process.
    pub daemon: Daemon,
    /// The server behind it, if there is one.
    pub database: Option<&'d mut dyn Database>,
    rng: Rng,
    shape: Shape,
    done: Vec<String>,
    /// How often the process had ended by itself, because too much had died in it.
    pub gave_up: usize,
}

impl fmt::Debug for Torment<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Torment").field("daemon", &self.daemon).field("done", &self.done).finish_non_exhaustive()
    }
}

impl<'d> Torment<'d> {
    /// Of a process that is up.
    ///
    /// # Panics
    /// When the process does not answer.
    pub async fn new(daemon: Daemon, database: Option<&'d mut dyn Database>, rng: Rng) -> Self {
        let shape = shape(&daemon.client.tree().await.expect("it answers").root);
        Self { daemon, database, rng, shape, done: Vec::new(), gave_up: 0 }
    }

    /// Everything that was done, for people.
    #[must_use]
    pub fn done(&self) -> &[String] {
        &self.done
    }

    /// Does all of it in any order, and lets some writes pass after each. Returns when the tree has its shape again.
    ///
    /// # Panics
    /// When something does not come back, or writes don't.
    pub async fn carry_out(&mut self, faults: &[(Fault, usize)], load: &Load) {
        let mut faults: Vec<Fault> = faults.iter().flat_map(|(fault, count)| vec![*fault; *count]).collect();
        while !faults.is_empty() {
            let next = self.rng.below(faults.len() as u64);
            let fault = faults.swap_remove(usize::try_from(next).expect("it is a place in a list"));
            self.pause(PAUSE_MS_MAX).await;
            self.do_one(fault).await;
            if self.rng.below(3) == 0 {
                let more = 1 + self.rng.below(50);
                self.wait_for_writes(more, load).await;
            }
        }
        self.wait_for_writes(20, load).await;
        healed(&self.daemon.client, &self.shape).await;
    }

    async fn wait_for_writes(&mut self, more: u64, load: &Load) {
        let target = load.progress().written + more;
        let began = Instant::now();
        while began.elapsed() < PATIENCE {
            self.see_to_the_process().await;
            if load.progress().written >= target {
                return;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        let progress = load.progress();
        let actors = match self.daemon.client.tree().await {
            Ok(tree) => shape_of_now(&tree.root),
            Err(error) => error.to_string(),
        };
        let (done, log) = (self.done.join("\n"), self.daemon.log());
        panic!("writes do not go on: {progress:?}\nafter\n{done}\nwith actors\n{actors}\nand the log\n{log}");
    }

    async fn pause(&mut self, ms_max: u64) {
        tokio::time::sleep(Duration::from_micros(self.rng.below(ms_max * 1_000))).await;
    }

    fn any<T>(&mut self, mut list: Vec<T>) -> Option<T> {
        let place = self.rng.below(list.len() as u64);
        (!list.is_empty()).then(|| list.swap_remove(usize::try_from(place).expect("it is a place in the list")))
    }

    async fn do_one(&mut self, fault: Fault) {
        let what = match fault {
            Fault::KillActor => self.kill_actor(|_| true).await,
            Fault::KillWorker => self.kill_actor(|actor| actor.strategy.is_none()).await,
            Fault::KillProcess => {
                if self.daemon.has_ended().is_none() {
                    self.daemon.end_with(Signal::KILL).await;
                }
                self.daemon.start_again().await;
                "killed the process".to_owned()
            }
            Fault::StopProcess => {
                self.see_to_the_process().await;
                self.daemon.send(Signal::STOP);
                self.pause(STOPPED_MS_MAX).await;
                self.daemon.send(Signal::CONT);
                "stopped the process for a while".to_owned()
            }
            Fault::RestartDatabase => {
                let database = self.database.as_mut().expect("a scenario with a server");
                tokio::task::block_in_place(|| database.crash());
                self.pause(STOPPED_MS_MAX).await;
                let database = self.database.as_mut().expect("a scenario with a server");
                tokio::task::block_in_place(|| database.resume());
                "restarted the database".to_owned()
            }
        };
        self.done.push(what);
    }

    /// Starts the process again if it had enough, as a service manager does.
    async fn see_to_the_process(&mut self) {
        if let Some(status) = self.daemon.has_ended() {
            let log = self.daemon.log();
            assert!(log.contains("the tree has ended"), "it ended with {status}, not because it gave up: {log}");
            self.gave_up += 1;
            self.done.push(format!("it gave up ({status}) and was started again"));
            self.daemon.start_again().await;
        }
    }

    async fn kill_actor(&mut self, wanted: impl Fn(&Actor) -> bool) -> String {
        self.see_to_the_process().await;
        // It may end while it is asked; then there is nobody to kill.
        let Ok(tree) = self.daemon.client.tree().await else { return "found nobody to kill".to_owned() };
        let (mut paths, mut connections) = (Vec::new(), Vec::new());
        visit(&tree.root, &mut |actor| {
            if (actor.path == SUBTREE || actor.path.starts_with("kine/")) && wanted(actor) {
                let list = if actor.path.starts_with(CONNECTIONS) { &mut connections } else { &mut paths };
                list.push(actor.path.clone());
            }
        });
        // All connections together are as likely a victim as any one of the others.
        paths.extend(self.any(connections));
        let Some(path) = self.any(paths) else { return "found nobody to kill".to_owned() };
        let how = [Kill::Kill, Kill::Panic, Kill::Stop][usize::try_from(self.rng.below(3)).expect("a small number")];
        // It may be between two lives.
        let found = self.daemon.client.kill(&path, how).await.is_ok();
        format!("{how:?} {path}: {}", if found { "done" } else { "was not there" })
    }
}

/// Each actor of a tree in a line.
fn shape_of_now(root: &Actor) -> String {
    let mut lines = Vec::new();
    visit(root, &mut |actor| lines.push(format!("{} {} restarts {}", actor.path, actor.state, actor.restarts)));
    lines.join("\n")
}

fn visit(actor: &Actor, see: &mut impl FnMut(&Actor)) {
    see(actor);
    for child in &actor.children {
        visit(child, see);
    }
}
