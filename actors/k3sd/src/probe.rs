//! Actors that do nothing but live, answer and be killed: what the chaos tests and the idle figures run on.
//!
//! Started by a hidden flag of the real binary, so that it is the shipped runtime that is drilled. The shape has every
//! strategy at two depths:
//!
//! ```text
//!   probes (one_for_one)
//!   ├─ one        one_for_one   ─┐
//!   ├─ rest       rest_for_one   ├─ a quarter of the probes each, in groups of ten
//!   ├─ all        one_for_all   ─┘
//!   ├─ dynamic    dynamic          the last quarter
//!   └─ load       one_for_one      with --probe-load: tasks that call random probes all the time
//! ```

use std::time::Duration;

use k3sd_runtime::{
    Actor, ActorError, Address, Backoff, ChildSpec, Context, ReplyPort, Spec, Strategy, TaskHandle, message_kinds,
    subtree, task, worker,
};

use crate::config::ProbeConfig;

/// Restarts within a second that probes' supervisors, and the root above them, bear: more than a drill can cause.
pub const KILLS_BORNE: u32 = 100_000;

/// Probes per group.
const GROUP: u32 = 10;

/// Tasks that call.
const CALLERS: u32 = 4;

/// How long a caller waits for an answer, and then how long before its next call.
const CALL_LIMIT: Duration = Duration::from_millis(200);
const PAUSE: Duration = Duration::from_millis(1);

struct Probe {
    answered: u64,
}

enum ProbeMsg {
    /// Answer with the number of answers so far.
    Ping { reply: ReplyPort<u64> },
}
message_kinds!(ProbeMsg { Ping });

impl Actor for Probe {
    type Args = ();
    type Msg = ProbeMsg;

    async fn init(_: &mut Context<ProbeMsg>, (): ()) -> Result<Self, ActorError> {
        Ok(Self { answered: 0 })
    }

    async fn handle(&mut self, _: &mut Context<ProbeMsg>, message: ProbeMsg) -> Result<(), ActorError> {
        let ProbeMsg::Ping { reply } = message;
        self.answered += 1;
        reply.send(self.answered);
        Ok(())
    }
}

/// The probes' subtree.
#[must_use]
pub fn tree(config: ProbeConfig) -> Spec {
    let quarter = config.actors.div_ceil(4);
    let mut paths = Vec::new();
    let mut spec = supervisor(Strategy::OneForOne);
    let mut left = config.actors;
    for (name, strategy) in [("one", Strategy::OneForOne), ("rest", Strategy::RestForOne), ("all", Strategy::OneForAll)]
    {
        let share = quarter.min(left);
        left -= share;
        spec = spec.child(subtree(name, groups(name, strategy, share, &mut paths)).backoff(Backoff::OFF));
    }
    let mut dynamic = supervisor(Strategy::Dynamic);
    for number in 0..left {
        paths.push(format!("probes/dynamic/p{number}"));
        dynamic = dynamic.child(probe(number));
    }
    spec = spec.child(subtree("dynamic", dynamic).backoff(Backoff::OFF));
    if config.load { spec.child(subtree("load", load(&paths)).backoff(Backoff::OFF)) } else { spec }
}

fn groups(name: &str, strategy: Strategy, probes: u32, paths: &mut Vec<String>) -> Spec {
    let mut spec = supervisor(strategy);
    for group in 0..probes.div_ceil(GROUP) {
        let mut members = supervisor(strategy);
        for number in 0..GROUP.min(probes - group * GROUP) {
            paths.push(format!("probes/{name}/g{group}/p{number}"));
            members = members.child(probe(number));
        }
        spec = spec.child(subtree(&format!("g{group}"), members).backoff(Backoff::OFF));
    }
    spec
}

fn supervisor(strategy: Strategy) -> Spec {
    Spec::new(strategy).budget(KILLS_BORNE, Duration::from_secs(1))
}

fn probe(number: u32) -> ChildSpec {
    worker::<Probe>(&format!("p{number}"), ()).backoff(Backoff::OFF)
}

fn load(paths: &[String]) -> Spec {
    let mut spec = supervisor(Strategy::OneForOne);
    for caller in 0..CALLERS {
        let paths = paths.to_vec();
        let body = move |handle: TaskHandle| call_for_ever(handle, paths.clone());
        spec = spec.child(task(&format!("caller{caller}"), body).backoff(Backoff::OFF));
    }
    spec
}

/// Calls one random probe after another. A refusal is what a caller of a restarting actor has to expect.
async fn call_for_ever(handle: TaskHandle, paths: Vec<String>) -> Result<(), ActorError> {
    let mut rng = handle.rng();
    let clock = handle.system().clock().clone();
    let probes: Vec<Address<ProbeMsg>> =
        paths.iter().map(|path| handle.system().address(path)).collect::<Result<_, _>>()?;
    loop {
        let chosen = usize::try_from(rng.below(probes.len() as u64)).unwrap_or(0);
        if let Some(probe) = probes.get(chosen) {
            probe.call(CALL_LIMIT, |reply| ProbeMsg::Ping { reply }).await.ok();
        }
        clock.sleep_until(clock.now() + PAUSE).await;
    }
}
