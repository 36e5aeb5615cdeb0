//! Listens to the API and to the kernel, and has a thread bring the one in line with the other.
//!
//! Owns:    the tables `k3sd-proxy`; nobody else writes them.
//! Needs:   its informers, beside it; before all of them know what there is, nothing is changed.
//! Restart: permanent. It reads what the kernel has, and changes what differs; connections don't notice.
//! Fails:   when its thread dies, or an informer was away as it subscribed. What the kernel refuses is tried again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use k3sd_client::informer::{Change, Informer, Kind, Subscription};
use k3sd_netlink::nft::{Family, News};
use k3sd_runtime::blocking::Blocking;
use k3sd_runtime::{Actor, ActorError, Backoff, Context, Moment, Rng, TimerId};
use k8s_openapi::api::core::v1::{Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;

use super::kernel::{Changes, Kernel, KernelArgs, Round, warning};
use super::msg::{Fed, SyncMsg};
use crate::error::ProxyError;
use crate::http::Meters;
use crate::model::HealthPort;
use crate::rules::TABLE;

/// Changes that may wait for this actor; beyond them it is told everything at once.
const WAITING_MAX: usize = 4096;
/// Changes that are taken over before the kernel gets its turn again.
const BATCH: usize = 4096;
/// One job at a time is asked of the thread, and its end awaited.
const JOBS_WAITING_MAX: usize = 1;
/// Whoever flushes tables often does so several times: they are looked at once for all that comes within this time.
const TOUCHED_PAUSE: Duration = Duration::from_millis(20);
/// The waits after a failure.
const RETRY: Backoff = Backoff {
    free_attempts: 0,
    delay_min: Duration::from_millis(500),
    delay_max: Duration::from_secs(30),
    factor: 2.0,
    jitter: 0.2,
    reset_after: Duration::MAX,
};

/// What the actor is started, and restarted, with.
#[derive(Clone)]
pub(crate) struct SyncArgs {
    pub(crate) kernel: KernelArgs,
    pub(crate) services: Informer<Service>,
    pub(crate) slices: Informer<EndpointSlice>,
    pub(crate) nodes: Informer<Node>,
    /// The time between two rounds at least.
    pub(crate) min_sync_period: Duration,
    pub(crate) meters: Arc<Meters>,
    /// Where it is said at which ports others ask about services.
    pub(crate) health_ports: Arc<watch::Sender<Arc<BTreeMap<u16, HealthPort>>>>,
}

/// See the module's page.
pub(crate) struct Sync {
    args: SyncArgs,
    kernel: Blocking<Kernel>,
    ear: Arc<Ear>,
    pending: Changes,
    /// Which kinds are known as a whole: services, slices, nodes.
    known: [bool; 3],
    /// When the kernel gets its turn.
    tick: Option<TimerId>,
    last_round: Option<Moment>,
    failures: u32,
    rng: Rng,
    /// When this incarnation began, since 1970: what led to earlier changes may have happened long before.
    began: Duration,
    /// What was last warned of; it is told once.
    warned: Vec<String>,
}

fn begin<K: Kind>(ctx: &mut Context<SyncMsg>, mut informer: Informer<K>, wrap: fn(Fed<K>) -> SyncMsg) {
    ctx.pipe(async move {
        let fed = match informer.subscribe(WAITING_MAX).await {
            Ok(subscription) => next(subscription).await,
            Err(_) => Fed { changes: Vec::new(), from: None },
        };
        wrap(fed)
    });
}

/// Waits for a change, and takes what else is there by then.
async fn next<K: Kind>(mut from: Subscription<K>) -> Fed<K> {
    let mut changes = Vec::new();
    let Some(first) = from.next().await else { return Fed { changes, from: None } };
    changes.push(first);
    while changes.len() < BATCH {
        match from.next().now_or_never() {
            Some(Some(change)) => changes.push(change),
            Some(None) => return Fed { changes, from: None },
            None => break,
        }
    }
    Fed { changes, from: Some(from) }
}

#[expect(deprecated, reason = "its successor is unsafe, as a descriptor may be closed early; this one is owned")]
fn wakeable(news: News) -> std::io::Result<AsyncFd<News>> {
    AsyncFd::new(news)
}

/// Hears of what others do to our tables.
struct Ear {
    news: AsyncFd<News>,
    /// The port by which the kernel knows what we do ourselves.
    own: u32,
}

impl Ear {
    /// Waits until somebody else touches our tables.
    async fn touched(self: Arc<Self>) -> SyncMsg {
        while let Ok(mut guard) = self.news.readable().await {
            let heard = guard.get_inner().drain_foreign(&[Family::Ip, Family::Ip6], TABLE, self.own);
            guard.clear_ready();
            match heard {
                Ok(true) => return SyncMsg::TableTouched,
                Ok(false) => {}
                Err(error) => {
                    tracing::warn!(reason = warning(&error), "changes to nftables are not heard of any more");
                    break;
                }
            }
        }
        std::future::pending().await
    }
}

impl Sync {
    /// The kernel gets its turn, once for all that has come together by then.
    fn sync_after(&mut self, ctx: &mut Context<SyncMsg>, delay: Duration) {
        if self.tick.is_none() && self.known.iter().all(|known| *known) {
            let earliest = self.last_round.map(|last| last + self.args.min_sync_period);
            let due = ctx.clock().now() + delay;
            self.tick = Some(ctx.send_at(earliest.map_or(due, |earliest| earliest.max(due)), SyncMsg::SyncTick));
        }
    }

    /// Takes over what informers said, and goes on listening to them.
    fn feed<K: Kind>(
        &mut self,
        ctx: &mut Context<SyncMsg>,
        fed: Fed<K>,
        kind: usize,
        wrap: fn(Fed<K>) -> SyncMsg,
        place: fn(&mut Changes) -> &mut Vec<Change<K>>,
    ) -> Result<(), ActorError> {
        self.known[kind] |= fed.changes.iter().any(|change| matches!(change, Change::Replaced(_)));
        if !fed.changes.is_empty() {
            self.args.meters.queued(ctx.clock().now());
        }
        place(&mut self.pending).extend(fed.changes);
        // The informer was away when it was asked, or dropped us. The next incarnation asks again.
        let from = fed.from.ok_or_else(|| ActorError::new(format!("hear of changes to {}", K::plural(&()))))?;
        ctx.pipe(async move { wrap(next(from).await) });
        // What is told after a failure waits with the rest for the next attempt.
        self.sync_after(ctx, Duration::ZERO);
        Ok(())
    }

    async fn sync(&mut self, ctx: &mut Context<SyncMsg>) -> Result<(), ActorError> {
        self.tick = None;
        let changes = std::mem::take(&mut self.pending);
        let meters = self.args.meters.clone();
        meters.pending(changes.services.len(), changes.slices.len());
        let began = ctx.clock().now();
        let outcome = self.kernel.run(move |kernel| kernel.sync(changes)).await?;
        let now = ctx.clock().now();
        self.last_round = Some(now);
        meters.pending(0, 0);
        match outcome {
            Ok(round) => {
                meters.synced(now, now.since(began), &round);
                let wall = ctx.clock().wall();
                for (family, triggers) in round.triggers.iter().enumerate() {
                    let since = triggers.iter().filter(|trigger| **trigger > self.began);
                    since.for_each(|trigger| meters.programmed(family, wall.saturating_sub(*trigger)));
                }
                self.failures = 0;
                self.tell(ctx, round);
            }
            Err(error) => {
                meters.failed(match &error {
                    ProxyError::Rules { family, .. } => Some(family),
                    _ => None,
                });
                self.failures += 1;
                let reason = warning(&error);
                if self.failures == 1 {
                    tracing::error!(reason, "services can't be reached as they should; trying again");
                } else {
                    tracing::debug!(reason, failures = self.failures, "services still can't be reached as they should");
                }
                ctx.note(vec![format!("failed {} times: {reason}", self.failures)]);
                let delay = RETRY.delay(self.failures, &mut self.rng);
                self.sync_after(ctx, delay);
            }
        }
        Ok(())
    }

    fn tell(&mut self, ctx: &Context<SyncMsg>, round: Round) {
        ctx.note(vec![format!("elements: {}", round.elements), format!("health ports: {}", round.health_ports.len())]);
        if round.was_full && round.changes > 0 {
            tracing::info!(changes = round.changes, elements = round.elements, "the services' rules are written");
        }
        self.args.health_ports.send_if_modified(|known| {
            let is_other = *known != round.health_ports;
            known.clone_from(&round.health_ports);
            is_other
        });
        for warning in round.warnings.iter().filter(|warning| !self.warned.contains(warning)) {
            tracing::warn!(warning, "clients may go on to endpoints that are gone");
        }
        self.warned = round.warnings;
    }
}

impl Actor for Sync {
    type Args = SyncArgs;
    type Msg = SyncMsg;

    async fn init(ctx: &mut Context<SyncMsg>, args: SyncArgs) -> Result<Self, ActorError> {
        let kernel_args = args.kernel.clone();
        let (hand_over, handed) = tokio::sync::oneshot::channel();
        let make = move || {
            let (kernel, news, port) = Kernel::open(kernel_args)?;
            hand_over.send((news, port)).ok();
            Ok::<_, ProxyError>(kernel)
        };
        let kernel = Blocking::start(ctx, JOBS_WAITING_MAX, make).await?;
        let (news, port) = handed.await?;
        let ear = Arc::new(Ear { news: wakeable(news)?, own: port });
        ctx.pipe(ear.clone().touched());
        let warnings = kernel.run(Kernel::prepare).await?;
        for warning in warnings {
            tracing::warn!(warning, "a setting of the kernel stays as it is");
        }
        begin(ctx, args.services.clone(), SyncMsg::Services);
        begin(ctx, args.slices.clone(), SyncMsg::Slices);
        begin(ctx, args.nodes.clone(), SyncMsg::Nodes);
        Ok(Self {
            args,
            kernel,
            ear,
            pending: Changes::default(),
            known: [false; 3],
            tick: None,
            last_round: None,
            failures: 0,
            rng: ctx.rng(),
            began: ctx.clock().wall(),
            warned: Vec::new(),
        })
    }

    async fn handle(&mut self, ctx: &mut Context<SyncMsg>, message: SyncMsg) -> Result<(), ActorError> {
        match message {
            SyncMsg::Services(fed) => self.feed(ctx, fed, 0, SyncMsg::Services, |all| &mut all.services)?,
            SyncMsg::Slices(fed) => self.feed(ctx, fed, 1, SyncMsg::Slices, |all| &mut all.slices)?,
            SyncMsg::Nodes(fed) => self.feed(ctx, fed, 2, SyncMsg::Nodes, |all| &mut all.nodes)?,
            SyncMsg::TableTouched => {
                self.kernel.run(Kernel::distrust).await?;
                ctx.pipe(self.ear.clone().touched());
                self.sync_after(ctx, TOUCHED_PAUSE);
            }
            SyncMsg::SyncTick => self.sync(ctx).await?,
        }
        Ok(())
    }
}
