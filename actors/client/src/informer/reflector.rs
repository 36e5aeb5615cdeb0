//! Keeps a local copy of a kind equal to the API: lists once, then watches.
//!
//! ```text
//!          ┌──────── too old (410) ────────┐
//!          ▼                               │
//! start ─▶ listing ── all pages ──▶ watching ──┐ ended: watch again behind the last version
//!          ▲  └ failed: wait ┘         ▲       │ failed: wait, then the same
//!                                      └───────┘
//! ```
//!
//! Owns:    the published snapshot, and the queues of subscribers, which outlive it.
//! Needs:   the API.
//! Restart: permanent. It lists again, and tells subscribers all that there is.
//! Fails:   never; what the API says is tried again, less and less often.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{FutureExt as _, StreamExt as _};
use k3sd_runtime::lend::{Lend, Loan};
use k3sd_runtime::{Actor, ActorError, Address, Backoff, Context, Message, ReplyPort, Rng};
use kube::Api;
use kube::api::{ListParams, WatchEvent, WatchParams};
use tokio::sync::{mpsc, watch};

use super::lines::{self, Events};
use super::store::{ObjectKey, Snapshot};
use super::{Change, InformerArgs, Kind};

/// Objects of one page of a list.
const PAGE_OBJECTS: u32 = 500;
/// Changes that are taken over before a snapshot is published.
const BATCH: usize = 256;
/// How long the server is asked to serve a watch, and how much longer silence is borne.
const WATCH_SECONDS: u32 = 290;
const SILENCE_LIMIT: Duration = Duration::from_secs(WATCH_SECONDS as u64 + 30);
/// How soon a subscriber that was too slow is told again.
const LAG_DELAY: Duration = Duration::from_millis(50);
/// The waits after failures.
const RETRY: Backoff = Backoff {
    free_attempts: 0,
    delay_min: Duration::from_millis(200),
    delay_max: Duration::from_secs(30),
    factor: 2.0,
    jitter: 0.5,
    reset_after: Duration::from_secs(120),
};

/// Somebody who is told of changes.
#[derive(Debug)]
pub(crate) struct Subscriber<K: Kind> {
    queue: mpsc::Sender<Change<K>>,
    /// It is owed a snapshot.
    behind: bool,
}

/// What the actor is started with.
pub(crate) struct ReflectorArgs<K: Kind> {
    pub(super) informer: InformerArgs<K>,
    pub(super) snapshot: Arc<watch::Sender<Option<Arc<Snapshot<K>>>>>,
    pub(super) address: Arc<watch::Sender<Option<Address<ReflectorMsg<K>>>>>,
    pub(super) subscribers: Lend<Vec<Subscriber<K>>>,
}

impl<K: Kind> Clone for ReflectorArgs<K> {
    fn clone(&self) -> Self {
        Self {
            informer: self.informer.clone(),
            snapshot: self.snapshot.clone(),
            address: self.address.clone(),
            subscribers: self.subscribers.clone(),
        }
    }
}

/// See the variants.
pub(crate) enum ReflectorMsg<K: Kind> {
    /// All pages are there, or why not.
    Listed {
        /// What was listed.
        listed: Result<Snapshot<K>, kube::Error>,
    },
    /// A watch has begun, or why not.
    Opened {
        /// The stream.
        opened: Result<Events<K>, kube::Error>,
    },
    /// What a watch said, and what goes on; `None` when it has ended.
    Seen {
        /// In order; an error is the last.
        events: Vec<kube::Result<WatchEvent<K>>>,
        /// The stream.
        stream: Option<Events<K>>,
    },
    /// Somebody wants to be told of changes.
    Subscribe {
        /// Where to.
        queue: mpsc::Sender<Change<K>>,
        /// It is noted.
        reply: ReplyPort<()>,
    },
    /// Try again.
    RetryTick,
    /// Tell those who were too slow.
    LagTick,
}

impl<K: Kind> Message for ReflectorMsg<K> {
    const KINDS: &'static [&'static str] = &["Listed", "Opened", "Seen", "Subscribe", "RetryTick", "LagTick"];

    fn kind(&self) -> usize {
        match self {
            Self::Listed { .. } => 0,
            Self::Opened { .. } => 1,
            Self::Seen { .. } => 2,
            Self::Subscribe { .. } => 3,
            Self::RetryTick => 4,
            Self::LagTick => 5,
        }
    }
}

/// The actor itself.
pub(crate) struct Reflector<K: Kind> {
    args: ReflectorArgs<K>,
    api: Api<K>,
    store: Snapshot<K>,
    subscribers: Loan<Vec<Subscriber<K>>>,
    /// Whether `store` is whole, so that it can be watched from its version on.
    listed: bool,
    failures: u32,
    lag_timer: bool,
    rng: Rng,
}

impl<K: Kind> Actor for Reflector<K> {
    type Args = ReflectorArgs<K>;
    type Msg = ReflectorMsg<K>;

    async fn init(ctx: &mut Context<Self::Msg>, args: Self::Args) -> Result<Self, ActorError> {
        let mut subscribers = args.subscribers.borrow()?;
        subscribers.iter_mut().for_each(|subscriber| subscriber.behind = true);
        args.address.send_replace(Some(ctx.address()));
        let api = (args.informer.place)(args.informer.connect.client());
        let store = Snapshot::new(args.informer.indexes.clone());
        let rng = ctx.rng();
        let reflector = Self { args, api, store, subscribers, listed: false, failures: 0, lag_timer: false, rng };
        reflector.go_on(ctx);
        Ok(reflector)
    }

    async fn handle(&mut self, ctx: &mut Context<Self::Msg>, message: Self::Msg) -> Result<(), ActorError> {
        match message {
            ReflectorMsg::Listed { listed: Ok(store) } => {
                (self.store, self.listed, self.failures) = (store, true, 0);
                self.publish();
                self.subscribers.iter_mut().for_each(|subscriber| subscriber.behind = true);
                self.catch_up(ctx);
                self.go_on(ctx);
            }
            ReflectorMsg::Opened { opened: Ok(stream) } => follow(ctx, stream),
            ReflectorMsg::Listed { listed: Err(error) } | ReflectorMsg::Opened { opened: Err(error) } => {
                self.failed(ctx, &error);
            }
            ReflectorMsg::Seen { events, stream } => self.seen(ctx, events, stream),
            ReflectorMsg::Subscribe { queue, reply } => {
                self.subscribers.push(Subscriber { queue, behind: true });
                reply.send(());
                self.catch_up(ctx);
            }
            ReflectorMsg::RetryTick => self.go_on(ctx),
            ReflectorMsg::LagTick => {
                self.lag_timer = false;
                self.catch_up(ctx);
            }
        }
        Ok(())
    }
}

impl<K: Kind> Reflector<K> {
    /// Lists, or watches what was listed.
    fn go_on(&self, ctx: &mut Context<ReflectorMsg<K>>) {
        let (api, informer) = (self.api.clone(), &self.args.informer);
        if self.listed {
            let params = WatchParams {
                label_selector: informer.labels.clone(),
                field_selector: informer.fields.clone(),
                timeout: Some(WATCH_SECONDS),
                ..WatchParams::default()
            };
            let version = self.store.version().to_owned();
            ctx.pipe(async move { ReflectorMsg::Opened { opened: lines::watch(&api, &params, &version).await } });
            return;
        }
        let params = ListParams {
            label_selector: informer.labels.clone(),
            field_selector: informer.fields.clone(),
            limit: Some(PAGE_OBJECTS),
            ..ListParams::default()
        };
        let empty = Snapshot::new(informer.indexes.clone());
        ctx.pipe(async move { ReflectorMsg::Listed { listed: list(&api, params, empty).await } });
    }

    fn seen(
        &mut self,
        ctx: &mut Context<ReflectorMsg<K>>,
        events: Vec<kube::Result<WatchEvent<K>>>,
        stream: Option<Events<K>>,
    ) {
        let mut failure = None;
        let mut changes = Vec::new();
        for event in events {
            match event {
                Ok(WatchEvent::Error(status)) => failure = Some(kube::Error::Api(status)),
                Err(error) => failure = Some(error),
                Ok(event) => {
                    self.failures = 0;
                    changes.extend(fold(&mut self.store, event));
                }
            }
        }
        self.publish();
        for change in changes {
            self.tell(&change);
        }
        self.catch_up(ctx);
        match (failure, stream) {
            (Some(error), _) => self.failed(ctx, &error),
            (None, Some(stream)) => follow(ctx, stream),
            // It was over; the next begins where it ended.
            (None, None) => self.go_on(ctx),
        }
    }

    /// Waits, and then goes on; what is too old to go on from is listed again.
    fn failed(&mut self, ctx: &mut Context<ReflectorMsg<K>>, error: &kube::Error) {
        let is_expired = matches!(error, kube::Error::Api(status) if status.code == 410);
        if is_expired {
            self.listed = false;
        }
        tracing::debug!(kind = %K::kind(&()), %error, "the API can't be read; trying again");
        self.failures = self.failures.saturating_add(1);
        let delay = RETRY.delay(self.failures, &mut self.rng);
        ctx.send_after(delay, ReflectorMsg::RetryTick);
    }

    fn publish(&self) {
        if self.listed {
            self.args.snapshot.send_replace(Some(Arc::new(self.store.clone())));
        }
    }

    /// Tells everybody who isn't owed more than that.
    fn tell(&mut self, change: &Change<K>) {
        for subscriber in self.subscribers.iter_mut().filter(|subscriber| !subscriber.behind) {
            subscriber.behind = subscriber.queue.try_send(change.clone()).is_err();
        }
    }

    /// Gives a snapshot to whom one is owed, and forgets those who are gone.
    fn catch_up(&mut self, ctx: &mut Context<ReflectorMsg<K>>) {
        self.subscribers.retain(|subscriber| !subscriber.queue.is_closed());
        if !self.listed || !self.subscribers.iter().any(|subscriber| subscriber.behind) {
            return;
        }
        let snapshot = Arc::new(self.store.clone());
        for subscriber in self.subscribers.iter_mut().filter(|subscriber| subscriber.behind) {
            subscriber.behind = subscriber.queue.try_send(Change::Replaced(snapshot.clone())).is_err();
        }
        if !self.lag_timer && self.subscribers.iter().any(|subscriber| subscriber.behind) {
            self.lag_timer = true;
            ctx.send_after(LAG_DELAY, ReflectorMsg::LagTick);
        }
    }
}

/// All pages of a list. A page that is too old makes the list fail, and begin anew.
async fn list<K: Kind>(api: &Api<K>, mut params: ListParams, mut store: Snapshot<K>) -> kube::Result<Snapshot<K>> {
    loop {
        let page = api.list(&params).await?;
        for object in page.items {
            store.apply(object);
        }
        store.set_version(page.metadata.resource_version.unwrap_or_default());
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params.continue_token = Some(token),
            None => return Ok(store),
        }
    }
}

/// Waits for what a watch says next, and takes all that it has to say by then.
fn follow<K: Kind>(ctx: &mut Context<ReflectorMsg<K>>, mut stream: Events<K>) {
    ctx.pipe(async move {
        let mut events = Vec::new();
        // Silence for so long is a connection that nobody told to be dead.
        let Ok(mut next) = tokio::time::timeout(SILENCE_LIMIT, stream.next()).await else {
            return ReflectorMsg::Seen { events, stream: None };
        };
        while let Some(event) = next {
            let is_last = matches!(event, Err(_) | Ok(WatchEvent::Error(_)));
            events.push(event);
            if is_last || events.len() == BATCH {
                return ReflectorMsg::Seen { events, stream: Some(stream) };
            }
            next = match stream.next().now_or_never() {
                Some(next) => next,
                None => return ReflectorMsg::Seen { events, stream: Some(stream) },
            };
        }
        ReflectorMsg::Seen { events, stream: None }
    });
}

/// Takes an event into the copy; what subscribers are to be told comes back.
pub(super) fn fold<K: Kind>(store: &mut Snapshot<K>, event: WatchEvent<K>) -> Option<Change<K>> {
    match event {
        WatchEvent::Added(object) | WatchEvent::Modified(object) => {
            store.set_version(object.meta().resource_version.clone().unwrap_or_default());
            store.apply(object).map(|(old, new)| Change::Applied { old, new })
        }
        WatchEvent::Deleted(object) => {
            store.set_version(object.meta().resource_version.clone().unwrap_or_default());
            // Told with its very last state, which nobody here may have seen.
            store.delete(&ObjectKey::of(&object)).map(|_| Change::Deleted(Arc::new(object)))
        }
        WatchEvent::Bookmark(bookmark) => {
            store.set_version(bookmark.metadata.resource_version);
            None
        }
        WatchEvent::Error(_) => None,
    }
}
