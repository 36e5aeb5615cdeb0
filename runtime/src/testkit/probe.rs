//! An actor that does what a test tells it, and writes down when it lived.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::actor::{Actor, Context};
use crate::address::ReplyPort;
use crate::cell::lock;
use crate::clock::Moment;
use crate::exit::ActorError;
use crate::message_kinds;

/// One line of a [`Journal`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// When.
    pub at: Moment,
    /// Whose.
    pub path: Arc<str>,
    /// Which life, counted from 1.
    pub incarnation: u64,
    /// Born, or gone.
    pub born: bool,
}

/// What the probes of a test write down, in order.
#[derive(Clone, Debug, Default)]
pub struct Journal(Arc<Mutex<Vec<Record>>>);

impl Journal {
    /// All lines so far; the journal is empty afterwards.
    pub fn take(&self) -> Vec<Record> {
        std::mem::take(&mut lock(&self.0))
    }

    /// The paths of the probes that are alive by the lines so far.
    ///
    /// # Panics
    /// When two incarnations of one path overlap.
    pub fn alive(&self) -> Vec<Arc<str>> {
        let mut alive: Vec<Arc<str>> = Vec::new();
        for record in lock(&self.0).iter() {
            if record.born {
                assert!(!alive.contains(&record.path), "two incarnations of {} at once", record.path);
                alive.push(record.path.clone());
            } else {
                alive.retain(|path| *path != record.path);
            }
        }
        alive
    }

    fn write(&self, record: Record) {
        lock(&self.0).push(record);
    }
}

/// What a probe is started with.
#[derive(Clone, Debug, Default)]
pub struct ProbeArgs {
    /// Where it writes down its births and ends.
    pub journal: Journal,
    /// So many more starts fail; shared by all incarnations.
    pub failing_starts: Arc<Mutex<u32>>,
    /// How long `init` takes.
    pub start_takes: Duration,
    /// Asked to stop, it takes so long.
    pub stop_takes: Duration,
}

/// What a probe understands.
#[derive(Debug)]
pub enum ProbeMsg {
    /// Answer with the number of pings of this life.
    Ping {
        /// The answer.
        reply: ReplyPort<u64>,
    },
    /// End by itself.
    Finish,
    /// End with an error.
    Fail,
    /// End with a panic.
    Panic,
    /// Stay in the handler for ever.
    Hang,
}

message_kinds!(ProbeMsg { Ping, Finish, Fail, Panic, Hang });

/// See the module's page.
#[derive(Debug)]
pub struct Probe {
    pings: u64,
    stop_takes: Duration,
    #[expect(dead_code, reason = "held for its drop")]
    life: Life,
}

/// Writes the end when the state is dropped, however that comes about.
#[derive(Debug)]
struct Life {
    journal: Journal,
    path: Arc<str>,
    incarnation: u64,
    clock: crate::clock::Clock,
}

impl Life {
    fn write(&self, born: bool) {
        let (at, path) = (self.clock.now(), self.path.clone());
        self.journal.write(Record { at, path, incarnation: self.incarnation, born });
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        self.write(false);
    }
}

impl Actor for Probe {
    type Args = ProbeArgs;
    type Msg = ProbeMsg;

    async fn init(ctx: &mut Context<ProbeMsg>, args: ProbeArgs) -> Result<Self, ActorError> {
        if !args.start_takes.is_zero() {
            tokio::time::sleep(args.start_takes).await;
        }
        {
            let failing = &mut *lock(&args.failing_starts);
            if *failing > 0 {
                *failing -= 1;
                return Err(ActorError::new("planned to fail at its start"));
            }
        }
        let (path, clock) = (ctx.path().clone(), ctx.clock().clone());
        let life = Life { journal: args.journal, path, incarnation: ctx.incarnation(), clock };
        life.write(true);
        Ok(Self { pings: 0, stop_takes: args.stop_takes, life })
    }

    async fn handle(&mut self, ctx: &mut Context<ProbeMsg>, message: ProbeMsg) -> Result<(), ActorError> {
        match message {
            ProbeMsg::Ping { reply } => {
                self.pings += 1;
                reply.send(self.pings);
            }
            ProbeMsg::Finish => ctx.finish(),
            ProbeMsg::Fail => return Err(ActorError::new("told to fail")),
            ProbeMsg::Panic => panic!("told to panic"),
            ProbeMsg::Hang => std::future::pending().await,
        }
        Ok(())
    }

    async fn terminate(&mut self, _: &mut Context<ProbeMsg>) {
        if !self.stop_takes.is_zero() {
            tokio::time::sleep(self.stop_takes).await;
        }
    }
}
