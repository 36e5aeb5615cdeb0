//! Takes what happened, and has it written.
//!
//! Owns:    the memory of what was written lately.
//! Needs:   the API; while that is away, Events wait, and then are lost.
//! Restart: permanent. What it remembered is gone, so the same Event may be there twice.
//! Fails:   never.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use jiff::Timestamp;
use k3sd_runtime::lend::{Lend, Loan};
use k3sd_runtime::{Actor, ActorError, Context, Rng, message_kinds};
use k8s_openapi::api::{core, events};
use tokio::sync::mpsc;

use super::correlate::{Correlator, Instant, Write};
use super::series::{OVER_AFTER, Series};
use super::write::write;
use super::{Happened, WAITING_MAX};
use crate::api::Connect;

/// Taken over at once.
const BATCH: usize = 256;
/// Requests at once: enough to make use of writes that are committed together.
const REQUESTS_MAX: usize = 16;

/// What the actor is started with.
#[derive(Clone)]
pub(super) struct WriterArgs {
    pub(super) connect: Connect,
    pub(super) waiting: Lend<mpsc::Receiver<Happened>>,
    pub(super) lost: Arc<AtomicU64>,
}

type Queue = Loan<mpsc::Receiver<Happened>>;

/// See the variants.
pub(super) enum WriterMsg {
    /// Things happened.
    Arrived {
        /// In order.
        happened: Vec<Happened>,
        /// Where more come from.
        queue: Queue,
    },
    /// A write is over, well or not.
    Written {
        /// Of what.
        key: u128,
    },
    /// Look after the series.
    SweepTick,
}

message_kinds!(WriterMsg { Arrived, Written, SweepTick });

/// An Event of either kind.
enum Either {
    Core(Write<core::v1::Event>),
    Series(Write<events::v1::Event>),
}

impl Either {
    fn key(&self) -> u128 {
        match self {
            Self::Core(write) => write.key,
            Self::Series(write) => write.key,
        }
    }
}

/// The actor itself.
pub(super) struct Writer {
    client: kube::Client,
    lost: Arc<AtomicU64>,
    lost_told: u64,
    correlator: Correlator,
    series: Series,
    /// What is to be written, in order.
    waiting: VecDeque<Either>,
    under_way: HashSet<u128>,
    sweeps: bool,
    /// The last Event's time: names are made of times, so each has its own.
    last: Timestamp,
    rng: Rng,
}

impl Actor for Writer {
    type Args = WriterArgs;
    type Msg = WriterMsg;

    async fn init(ctx: &mut Context<WriterMsg>, args: WriterArgs) -> Result<Self, ActorError> {
        listen(ctx, args.waiting.borrow()?);
        Ok(Self {
            client: args.connect.client(),
            lost: args.lost,
            lost_told: 0,
            correlator: Correlator::new(),
            series: Series::new(),
            waiting: VecDeque::new(),
            under_way: HashSet::new(),
            sweeps: false,
            last: Timestamp::MIN,
            rng: ctx.rng(),
        })
    }

    async fn handle(&mut self, ctx: &mut Context<WriterMsg>, message: WriterMsg) -> Result<(), ActorError> {
        match message {
            WriterMsg::Arrived { happened, queue } => {
                if happened.is_empty() {
                    return Ok(()); // Nobody can record any more.
                }
                for happened in happened {
                    self.take(ctx, happened);
                }
                listen(ctx, queue);
                self.tell_losses();
            }
            WriterMsg::Written { key } => _ = self.under_way.remove(&key),
            WriterMsg::SweepTick => {
                let writes = self.series.sweep(ctx.clock().now());
                self.waiting.extend(writes.into_iter().map(Either::Series));
                self.sweeps = false;
            }
        }
        if !self.sweeps && !self.series.is_empty() {
            self.sweeps = true;
            ctx.send_after(OVER_AFTER, WriterMsg::SweepTick);
        }
        self.go_on(ctx);
        Ok(())
    }
}

impl Writer {
    fn take(&mut self, ctx: &Context<WriterMsg>, happened: Happened) {
        if self.waiting.len() >= WAITING_MAX {
            self.lost.fetch_add(1, Relaxed);
            return;
        }
        let at = Instant { now: ctx.clock().now(), wall: self.wall(ctx) };
        self.waiting.extend(match happened.action {
            Some(_) => self.series.take(&happened, at).map(Either::Series),
            None => self.correlator.correlate(happened, at).map(Either::Core),
        });
    }

    /// The time, later than all before.
    fn wall(&mut self, ctx: &Context<WriterMsg>) -> Timestamp {
        let nanos = i128::try_from(ctx.clock().wall().as_nanos()).unwrap_or(i128::MAX);
        let now = Timestamp::from_nanosecond(nanos.max(self.last.as_nanosecond() + 1)).unwrap_or(Timestamp::MAX);
        self.last = now;
        now
    }

    /// Has written what may be: of one Event only one write at once.
    fn go_on(&mut self, ctx: &mut Context<WriterMsg>) {
        while self.under_way.len() < REQUESTS_MAX
            && self.waiting.front().is_some_and(|next| !self.under_way.contains(&next.key()))
            && let Some(next) = self.waiting.pop_front()
        {
            let (client, clock, key) = (self.client.clone(), ctx.clock().clone(), next.key());
            let rng = Rng::seeded(self.rng.next_u64());
            self.under_way.insert(key);
            ctx.pipe(async move {
                match next {
                    Either::Core(event) => write(client, event, clock, rng).await,
                    Either::Series(event) => write(client, event, clock, rng).await,
                };
                WriterMsg::Written { key }
            });
        }
    }

    fn tell_losses(&mut self) {
        let lost = self.lost.load(Relaxed);
        if lost > self.lost_told {
            tracing::warn!(lost = lost - self.lost_told, "too many Events at once: some are lost");
            self.lost_told = lost;
        }
    }
}

fn listen(ctx: &mut Context<WriterMsg>, mut queue: Queue) {
    ctx.pipe(async move {
        let mut happened = Vec::new();
        queue.recv_many(&mut happened, BATCH).await;
        WriterMsg::Arrived { happened, queue }
    });
}
