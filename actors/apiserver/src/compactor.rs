//! Has the datastore drop history that is older than an interval.
//!
//! Owns:    where the store was one interval ago.
//! Needs:   the store.
//! Restart: permanent. It begins anew with a whole interval, so history lives a little longer.
//! Fails:   never; a compaction that fails is tried again an interval later.

use std::sync::Arc;
use std::time::Duration;

use k3sd_client::storage::{Compacted, Revision, Storage, StorageError};
use k3sd_runtime::{Actor, ActorError, Context, message_kinds};

/// By how much an interval may be longer, so that servers of one datastore don't all do the same.
const JITTER: f64 = 0.1;

/// What the actor is started with.
#[derive(Clone, Debug)]
pub(crate) struct CompactorArgs {
    pub(crate) storage: Arc<dyn Storage>,
    /// Zero leaves history alone.
    pub(crate) interval: Duration,
}

/// See the variants.
pub(crate) enum CompactorMsg {
    /// Look where the store is.
    CompactTick,
    /// The store said where it is.
    Looked {
        /// Or that it can't say.
        latest: Result<Revision, StorageError>,
    },
    /// A compaction is over.
    Compacted {
        /// How it went.
        outcome: Result<Compacted, StorageError>,
    },
}
message_kinds!(CompactorMsg { CompactTick, Looked, Compacted });

/// What is remembered between two ticks: pure.
#[derive(Debug, Default)]
struct Plan {
    seen: Option<Revision>,
    done: Revision,
}

impl Plan {
    /// A tick: what to compact up to, if anything. That is where the store was one tick ago, so that whoever lists and
    /// then watches has an interval's time. The first tick only looks.
    fn tick(&mut self, latest: Revision) -> Option<Revision> {
        let target = self.seen.replace(latest)?;
        (target > self.done).then_some(target)
    }
}

/// The actor itself.
pub(crate) struct Compactor {
    args: CompactorArgs,
    plan: Plan,
}

impl Compactor {
    fn sleep(&self, ctx: &mut Context<CompactorMsg>) {
        if !self.args.interval.is_zero() {
            let fraction = ctx.rng().fraction();
            ctx.send_after(self.args.interval.mul_f64(1.0 + JITTER * fraction), CompactorMsg::CompactTick);
        }
    }
}

impl Actor for Compactor {
    type Args = CompactorArgs;
    type Msg = CompactorMsg;

    async fn init(ctx: &mut Context<CompactorMsg>, args: CompactorArgs) -> Result<Self, ActorError> {
        if !args.interval.is_zero() {
            ctx.send_self(CompactorMsg::CompactTick); // Only looks, as it is the first.
        }
        Ok(Self { args, plan: Plan::default() })
    }

    async fn handle(&mut self, ctx: &mut Context<CompactorMsg>, message: CompactorMsg) -> Result<(), ActorError> {
        let storage = self.args.storage.clone();
        match message {
            CompactorMsg::CompactTick => {
                ctx.pipe(async move { CompactorMsg::Looked { latest: storage.progress().await } });
            }
            CompactorMsg::Looked { latest } => match latest.map(|latest| self.plan.tick(latest)) {
                Ok(Some(target)) => {
                    ctx.pipe(async move { CompactorMsg::Compacted { outcome: storage.compact(target).await } });
                }
                Ok(None) => self.sleep(ctx),
                Err(error) => {
                    tracing::debug!(%error, "the datastore doesn't say where it is; asking again later");
                    self.sleep(ctx);
                }
            },
            CompactorMsg::Compacted { outcome } => {
                match outcome {
                    // Another server of the same datastore may have been quicker.
                    Ok(Compacted { compacted }) | Err(StorageError::Compacted { compacted, .. }) => {
                        self.plan.done = self.plan.done.max(compacted);
                        tracing::debug!(%compacted, "history compacted");
                    }
                    Err(error) => tracing::warn!(%error, "history could not be compacted; trying again later"),
                }
                self.sleep(ctx);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use k3sd_client::storage::memory::Memory;
    use k3sd_client::storage::{Change, Precondition, Write};
    use k3sd_runtime::{Clock, Spec, Strategy, System, worker};

    use super::*;

    #[test]
    fn an_interval_of_history_is_kept() {
        let mut plan = Plan::default();
        assert_eq!(plan.tick(Revision::new(10)), None, "nothing is known of the past yet");
        assert_eq!(plan.tick(Revision::new(25)), Some(Revision::new(10)));
        plan.done = Revision::new(10);
        assert_eq!(plan.tick(Revision::new(25)), Some(Revision::new(25)));
        plan.done = Revision::new(30);
        assert_eq!(plan.tick(Revision::new(40)), None, "somebody else was quicker");
        assert_eq!(plan.tick(Revision::new(41)), Some(Revision::new(40)));
    }

    #[tokio::test(start_paused = true)]
    async fn history_goes_after_an_interval_and_not_before() {
        let clock = Clock::simulated(1);
        let memory = Memory::new(clock.clone());
        let interval = Duration::from_secs(300);
        let args = CompactorArgs { storage: Arc::new(memory.clone()), interval };
        let write = |key: &'static str| {
            let change = Change::Put { value: "v".into(), ttl: None };
            let write = Write { key: key.into(), change, precondition: Precondition::None };
            let memory = memory.clone();
            async move { memory.write(write).await.expect("it is open").revision }
        };
        let first = write("a").await;
        let system = System::new(clock.clone());
        let tree = system.start(Spec::new(Strategy::OneForOne).child(worker::<Compactor>("compactor", args)));
        tree.ready().await.expect("it starts");
        write("a").await;
        let old = || async { memory.get("a".into(), Some(first)).await };
        clock.sleep_until(clock.now() + interval / 2).await;
        assert!(old().await.is_ok(), "it is still there");
        clock.sleep_until(clock.now() + interval * 3).await;
        assert!(matches!(old().await, Err(StorageError::Compacted { .. })));
    }
}
