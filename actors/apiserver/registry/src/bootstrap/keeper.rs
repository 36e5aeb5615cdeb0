//! Keeps one thing as it should be: does its duty at the start, whenever something changed that it depends on, and now and
//! then.
//!
//! Owns:    what its [`Duty`] says.
//! Needs:   the caches and the verbs; while they aren't up it tries again.
//! Restart: permanent. It has no state: a new incarnation looks and changes nothing that is right.
//! Fails:   never; what the API refuses is logged and tried again, later each time.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use k3sd_apiserver_store::{Watch, WatchFrom, WatchItem, WatchKind, WatchQuery};
use k3sd_objects::status::Status;
use k3sd_runtime::{Actor, ActorError, Backoff, Context, Stop, TimerId, message_kinds};

use super::hooks::Hooks;
use crate::api::Api;
use crate::special::local::{self, Kind};

/// The pauses between tries: 20 ms at first, 10 s at last.
const RETRY: Backoff = Backoff {
    free_attempts: 0,
    delay_min: Duration::from_millis(20),
    delay_max: Duration::from_secs(10),
    factor: 2.0,
    jitter: 0.2,
    reset_after: Duration::MAX,
};

/// How long changes are collected before they are looked at.
const GATHER: Duration = Duration::from_millis(20);

/// How long taking things back may hold a stop up. It takes milliseconds.
const LEAVE_LIMIT: Duration = Duration::from_secs(1);

/// Something to be kept as it should be. Doing it twice is the same as once.
pub(crate) trait Duty: Clone + Send + Sync + 'static {
    /// The hook that is done when this was done once.
    const HOOK: &'static str;
    /// Resources whose changes make it look again.
    const WATCHES: &'static [Kind] = &[];

    /// How long after it was done it is done again, should nothing change.
    fn interval(&self) -> Option<Duration>;

    /// Looks, and mends what isn't right. Answers the pause to the next look if the interval is too long for it.
    ///
    /// # Errors
    /// What the API refused; it is all done again later.
    fn perform(&self, api: &Api) -> impl Future<Output = Result<Option<Duration>, Status>> + Send;

    /// Takes back what only holds while this server runs; done when the whole server stops.
    fn leave(&self, api: &Api) -> impl Future<Output = ()> + Send {
        let _ = api;
        async {}
    }
}

/// What the actor is started, and restarted, with.
#[derive(Clone, Debug)]
pub(crate) struct KeeperArgs<D> {
    /// The way to the objects.
    pub(crate) api: Arc<Api>,
    /// What it keeps.
    pub(crate) duty: D,
    /// Where it says that it did it.
    pub(crate) hooks: Hooks,
}

/// What the actor understands; it only talks to itself.
pub(crate) enum KeeperMsg {
    /// Follow the changes of a resource.
    WatchTick { kind: Kind },
    /// Something changed, or the watch ended.
    Seen { kind: Kind, watch: Box<Watch>, item: Option<WatchItem> },
    /// Do the duty.
    PerformTick,
}

message_kinds!(KeeperMsg { WatchTick, Seen, PerformTick });

/// The actor.
pub(crate) struct Keeper<D> {
    args: KeeperArgs<D>,
    /// The next time that it does its duty.
    timer: Option<TimerId>,
    /// It is set for changes that were seen.
    gathering: bool,
    failures: u32,
}

impl<D: Duty> Keeper<D> {
    fn look_again(&mut self, ctx: &mut Context<KeeperMsg>, after: Option<Duration>) {
        if let Some(timer) = self.timer.take() {
            ctx.cancel(timer);
        }
        self.timer = after.map(|after| ctx.send_after(after, KeeperMsg::PerformTick));
    }

    async fn perform(&mut self, ctx: &mut Context<KeeperMsg>) {
        self.gathering = false;
        let outcome = self.args.duty.perform(&self.args.api).await;
        let after = match outcome {
            Ok(sooner) => {
                self.failures = 0;
                self.args.hooks.set_done(D::HOOK);
                sooner.or_else(|| self.args.duty.interval())
            }
            Err(status) => {
                self.failures = self.failures.saturating_add(1);
                if self.failures > 3 {
                    tracing::warn!(hook = D::HOOK, error = %status, "cannot do yet; trying again");
                }
                let mut rng = ctx.rng();
                Some(RETRY.delay(self.failures, &mut rng))
            }
        };
        self.look_again(ctx, after);
    }

    async fn watch(&self, ctx: &mut Context<KeeperMsg>, kind: Kind) {
        let query = WatchQuery { from: WatchFrom::Now, ..WatchQuery::default() };
        let found = match local::store(&self.args.api, kind) {
            Ok(store) => store.watch(&query).await,
            Err(status) => Err(status),
        };
        match found {
            Ok(watch) => next(ctx, kind, Box::new(watch)),
            Err(_) => {
                ctx.send_after(RETRY.delay_max, KeeperMsg::WatchTick { kind });
            }
        }
    }
}

fn next(ctx: &mut Context<KeeperMsg>, kind: Kind, mut watch: Box<Watch>) {
    ctx.pipe(async move {
        let item = watch.next().await;
        KeeperMsg::Seen { kind, watch, item }
    });
}

impl<D: Duty> Actor for Keeper<D> {
    type Args = KeeperArgs<D>;
    type Msg = KeeperMsg;

    /// The caches may be gone, and come back only when this has stopped.
    const STOPS_AT_AWAIT: bool = true;

    async fn init(ctx: &mut Context<KeeperMsg>, args: KeeperArgs<D>) -> Result<Self, ActorError> {
        ctx.send_self(KeeperMsg::PerformTick);
        for kind in D::WATCHES {
            ctx.send_self(KeeperMsg::WatchTick { kind: *kind });
        }
        Ok(Self { args, timer: None, gathering: false, failures: 0 })
    }

    async fn handle(&mut self, ctx: &mut Context<KeeperMsg>, message: KeeperMsg) -> Result<(), ActorError> {
        match message {
            KeeperMsg::PerformTick => self.perform(ctx).await,
            KeeperMsg::WatchTick { kind } => self.watch(ctx, kind).await,
            KeeperMsg::Seen { kind, watch, item: Some(item) } if !matches!(item.kind, WatchKind::Error(_)) => {
                // A failure has a timer of its own, and later changes don't put it off.
                if self.failures == 0 && !self.gathering {
                    self.gathering = true;
                    self.look_again(ctx, Some(GATHER));
                }
                next(ctx, kind, watch);
            }
            KeeperMsg::Seen { kind, .. } => {
                // What happened meanwhile comes with the state that the next watch begins with.
                ctx.send_after(GATHER, KeeperMsg::WatchTick { kind });
            }
        }
        Ok(())
    }

    async fn stopping(&mut self, ctx: &mut Context<KeeperMsg>) -> Stop {
        if !ctx.system().is_ending() {
            return Stop::Now;
        }
        let clock = ctx.clock().clone();
        let limit = clock.now() + LEAVE_LIMIT;
        tokio::select! {
            () = self.args.duty.leave(&self.args.api) => {}
            () = clock.sleep_until(limit) => {
                tracing::warn!("what only holds while this server runs could not be taken back in time; it runs out");
            }
        }
        Stop::Now
    }
}
