//! Keeps what authorization is decided by: roles and bindings, and what the pods of each node need.
//!
//! Owns:    the [`Authorizer`], of which copies are published; readers never wait for it.
//! Needs:   the caches of what it watches.
//! Restart: permanent. It reads everything again, and publishes nothing before that is whole; the last copy stays good.
//! Fails:   only when the tree goes down; a watch that breaks off makes it read everything again.

use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::Duration;

use futures_util::FutureExt as _;
use k3sd_apiserver_access::Authorizer;
use k3sd_apiserver_registry::bootstrap::Hooks;
use k3sd_apiserver_store::{ListQuery, Stores, Watch, WatchFrom, WatchItem, WatchKind, WatchQuery};
use k3sd_objects::object::Object;
use k3sd_objects::status::Status;
use k3sd_runtime::{Actor, ActorError, Context, message_kinds};
use tokio::sync::watch;

/// As many as are taken notice of before a copy is published.
const BATCH: usize = 512;
/// How many of [`Authorizer::WATCHED`] decide about everybody. The others are read while requests are served already.
const EVERYBODYS: usize = 4;
/// The pause before everything is read again.
const RETRY_DELAY: Duration = Duration::from_millis(200);

/// Where copies are published.
pub(crate) type RightsPlace = Arc<watch::Sender<Arc<Authorizer>>>;

/// Up to which version of each resource of RBAC the published copy is, and has to be before the server is ready. Clones
/// share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Progress(Arc<Versions>);

#[derive(Debug, Default)]
struct Versions {
    seen: [AtomicU64; EVERYBODYS],
    wanted: [AtomicU64; EVERYBODYS],
    is_known: AtomicBool,
    /// Tells those who wait for it that it came further.
    further: watch::Sender<()>,
}

impl Progress {
    fn note(&self, index: usize, item: &WatchItem) {
        if let Some(seen) = self.0.seen.get(index) {
            seen.fetch_max(item.object.resource_version(), Relaxed);
            self.0.further.send_replace(());
        }
    }

    /// Waits until it [is current](Self::is_current).
    pub(crate) async fn current(&self) {
        let mut further = self.0.further.subscribe();
        // The sender is in `self`, so it can't be gone.
        further.wait_for(|()| self.is_current()).await.map(drop).unwrap_or_default();
    }

    /// Whether the roles count with which every cluster starts.
    pub(crate) fn is_current(&self) -> bool {
        let reached =
            || self.0.seen.iter().zip(&self.0.wanted).all(|(seen, wanted)| seen.load(Relaxed) >= wanted.load(Relaxed));
        self.0.is_known.load(Acquire) && reached()
    }
}

/// Waits until the first roles are written, and notes which versions they have.
async fn await_roles(stores: Stores, hooks: Hooks, progress: Progress) -> Result<(), Status> {
    hooks.done().await;
    for ((group, plural), wanted) in Authorizer::WATCHED.iter().zip(&progress.0.wanted) {
        let Some(store) = stores.get(group, plural) else { continue };
        // The latest list waits for the cache, which may be behind what was written.
        store.list(&ListQuery { limit: Some(1), ..ListQuery::default() }).await?;
        wanted.store(store.snapshot().revision().get(), Relaxed);
    }
    progress.0.is_known.store(true, Release);
    progress.0.further.send_replace(());
    Ok(())
}

/// What the actor is started with.
#[derive(Clone, Debug)]
pub(crate) struct RightsArgs {
    pub(crate) stores: Stores,
    pub(crate) place: RightsPlace,
    pub(crate) progress: Progress,
    pub(crate) hooks: Hooks,
}

/// See the variants.
pub(crate) enum RightsMsg {
    /// Something was changed, or the watch ended.
    Seen {
        /// The life of all watches that this one belongs to.
        round: u64,
        /// Which of [`Authorizer::WATCHED`].
        index: usize,
        /// What happened, in order.
        items: Vec<WatchItem>,
        /// What goes on; `None` when it ended.
        watch: Option<Box<Watch>>,
    },
    /// Read everything.
    ReloadTick,
    /// The first roles are written, and it is known which they are, or not yet.
    RolesWritten {
        /// Why it isn't known.
        noted: Result<(), Status>,
    },
}
message_kinds!(RightsMsg { Seen, ReloadTick, RolesWritten });

/// The actor itself.
pub(crate) struct Rights {
    args: RightsArgs,
    authorizer: Authorizer,
    round: u64,
}

impl Actor for Rights {
    type Args = RightsArgs;
    type Msg = RightsMsg;

    /// The caches may be gone, and come back only when this has stopped.
    const STOPS_AT_AWAIT: bool = true;

    async fn init(ctx: &mut Context<RightsMsg>, args: RightsArgs) -> Result<Self, ActorError> {
        ctx.defer_ready();
        ctx.send_self(RightsMsg::ReloadTick);
        wait_for_roles(ctx, &args);
        Ok(Self { args, authorizer: Authorizer::default(), round: 0 })
    }

    async fn handle(&mut self, ctx: &mut Context<RightsMsg>, message: RightsMsg) -> Result<(), ActorError> {
        match message {
            RightsMsg::Seen { round, .. } if round != self.round => {}
            RightsMsg::Seen { index, items, watch, .. } => {
                items.iter().for_each(|item| apply(&mut self.authorizer, index, item));
                self.publish();
                items.iter().for_each(|item| self.args.progress.note(index, item));
                match watch.filter(|_| !items.iter().any(is_error)) {
                    Some(watch) => self.follow(ctx, index, watch),
                    None => self.retry(ctx),
                }
            }
            RightsMsg::RolesWritten { noted: Ok(()) } => {}
            RightsMsg::RolesWritten { noted: Err(status) } => {
                tracing::debug!(error = status.message, "the first roles can't be read yet");
                wait_for_roles(ctx, &self.args);
            }
            RightsMsg::ReloadTick => match self.reload(ctx).await {
                Ok(()) => ctx.ready(),
                Err(status) => {
                    tracing::warn!(error = status.message, "roles and bindings can't be read; trying again");
                    self.retry(ctx);
                }
            },
        }
        Ok(())
    }
}

fn wait_for_roles(ctx: &mut Context<RightsMsg>, args: &RightsArgs) {
    let noted = await_roles(args.stores.clone(), args.hooks.clone(), args.progress.clone());
    let clock = ctx.clock().clone();
    ctx.pipe(async move {
        let noted = noted.await;
        if noted.is_err() {
            clock.sleep_until(clock.now() + RETRY_DELAY).await;
        }
        RightsMsg::RolesWritten { noted }
    });
}

impl Rights {
    fn publish(&self) {
        self.args.place.send_replace(Arc::new(self.authorizer.clone()));
    }

    fn retry(&mut self, ctx: &mut Context<RightsMsg>) {
        self.round += 1; // What other watches still say is heard no more.
        ctx.send_after(RETRY_DELAY, RightsMsg::ReloadTick);
    }

    /// Reads what decides about everybody, publishes it, and begins to read the rest.
    async fn reload(&mut self, ctx: &mut Context<RightsMsg>) -> Result<(), Status> {
        let mut authorizer = Authorizer::default();
        let (mut watches, mut ends) = (Vec::new(), Vec::new());
        for index in 0..EVERYBODYS {
            let Some(mut watch) = open(&self.args.stores, index).await? else { continue };
            loop {
                match watch.next().await {
                    Some(item) if item.kind == (WatchKind::Bookmark { initial_events_end: true }) => {
                        ends.push((index, item));
                        break;
                    }
                    Some(WatchItem { kind: WatchKind::Error(status), .. }) => return Err(*status),
                    Some(item) => apply(&mut authorizer, index, &item),
                    None => return Err(Status::service_unavailable("the watch ended")),
                }
            }
            watches.push((index, watch));
        }
        for index in EVERYBODYS..Authorizer::WATCHED.len() {
            watches.extend(open(&self.args.stores, index).await?.map(|watch| (index, watch)));
        }
        self.authorizer = authorizer;
        self.round += 1;
        self.publish();
        ends.iter().for_each(|(index, item)| self.args.progress.note(*index, item));
        for (index, watch) in watches {
            self.follow(ctx, index, Box::new(watch));
        }
        Ok(())
    }

    /// Waits for what a watch says next, and takes all that it has to say by then.
    fn follow(&self, ctx: &mut Context<RightsMsg>, index: usize, mut watch: Box<Watch>) {
        let round = self.round;
        ctx.pipe(async move {
            let mut items = Vec::new();
            let mut next = watch.next().await;
            while let Some(item) = next {
                items.push(item);
                if items.len() == BATCH {
                    return RightsMsg::Seen { round, index, items, watch: Some(watch) };
                }
                next = match watch.next().now_or_never() {
                    Some(next) => next,
                    None => return RightsMsg::Seen { round, index, items, watch: Some(watch) },
                };
            }
            RightsMsg::Seen { round, index, items, watch: None }
        });
    }
}

/// Everything that there is, and then each change. `None` for what isn't served.
async fn open(stores: &Stores, index: usize) -> Result<Option<Watch>, Status> {
    let (group, plural) = Authorizer::WATCHED[index];
    let Some(store) = stores.get(group, plural) else { return Ok(None) };
    let query =
        WatchQuery { from: WatchFrom::Any, bookmarks: true, initial_events: Some(true), ..WatchQuery::default() };
    store.watch(&query).await.map(Some)
}

fn is_error(item: &WatchItem) -> bool {
    matches!(item.kind, WatchKind::Error(_))
}

fn apply(authorizer: &mut Authorizer, index: usize, item: &WatchItem) {
    let (group, plural) = Authorizer::WATCHED[index];
    match item.kind {
        WatchKind::Added | WatchKind::Modified if concerns(plural, &item.object) => {
            authorizer.put(group, plural, &item.object.value());
        }
        WatchKind::Added | WatchKind::Modified | WatchKind::Bookmark { .. } | WatchKind::Error(_) => {}
        WatchKind::Deleted => authorizer.remove(group, plural, item.object.namespace(), item.object.name()),
    }
}

/// A pod that has no node yet is nobody's; reading it would cost more than all the rest here.
fn concerns(plural: &str, object: &Object) -> bool {
    plural != "pods" || object.bytes().windows(NODE_NAME.len()).any(|window| window == NODE_NAME)
}

const NODE_NAME: &[u8] = b"\"nodeName\":\"";
