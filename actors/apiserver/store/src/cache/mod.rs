//! The watch cache of one resource: its objects, a window of what changed last, and who watches.
//!
//! ```text
//! filling ── list ──▶ serving ── events ──▶ serving
//!    ▲                   │
//!    └── events lost ────┘   watchers end with 410 and list again
//! ```

mod actor;
mod core;
mod watchers;
mod window;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use k3sd_client::storage::{Revision, Storage};
use k3sd_objects::status::Status;
use k3sd_runtime::Clock;
use k3sd_runtime::exposition::Histogram;
use tokio::sync::{mpsc, oneshot, watch};

pub(crate) use self::actor::run;
pub(crate) use self::core::Cache;
pub(crate) use self::watchers::{End, Ended, Queued};
use crate::catalog::Stored;
use crate::event::CacheEvent;
use crate::list::Kept;
use crate::log::{Batch, Log, Route};
use crate::query::Selection;
use crate::snapshot::Snapshot;

/// What is counted of a cache, for numbers.
#[derive(Debug, Default)]
pub struct CacheCounts {
    /// How often it was filled with a list.
    pub fills: AtomicU64,
    /// Events that the store told.
    pub received: AtomicU64,
    /// Changes that were given to those who watch.
    pub dispatched: AtomicU64,
    /// Watches that were ended because they didn't read fast enough.
    pub cut_off: AtomicU64,
    /// Lists that were answered from it.
    pub lists: AtomicU64,
    /// Objects that those lists looked at.
    pub looked_at: AtomicU64,
    /// Objects that those lists gave.
    pub listed: AtomicU64,
    /// Reads of the newest state that it answered.
    pub consistent: AtomicU64,
    /// Such reads that it was too late for, so that the store was read.
    pub too_late: AtomicU64,
    /// How long reads waited for it to be as new as they asked.
    pub waits: Waits,
}

/// How long readers waited.
#[derive(Debug)]
pub struct Waits(Histogram<{ WAITS_MS.len() }>);

/// Upper bounds in milliseconds; upstream's.
const WAITS_MS: [u64; 9] = [5, 25, 50, 100, 200, 400, 600, 1000, 2000];

impl Default for Waits {
    fn default() -> Self {
        Self(Histogram::new(&WAITS_MS))
    }
}

impl Waits {
    pub(crate) fn observe(&self, took: Duration) {
        self.0.observe(took);
    }

    /// Writes the lines of the metric `name` with these labels.
    pub fn write(&self, text: &mut String, name: &str, labels: &str) {
        self.0.write(text, name, labels);
    }
}

/// What readers see of a cache. The cache publishes, readers never wait for it to answer.
#[derive(Debug)]
pub(crate) struct Board {
    pub(crate) stored: Arc<Stored>,
    pub(crate) storage: Arc<dyn Storage>,
    pub(crate) clock: Clock,
    pub(crate) log: Arc<Log>,
    pub(crate) route: Arc<Route>,
    pub(crate) published: watch::Sender<Arc<Snapshot>>,
    /// Every event up to this one was put into the queues of its watchers.
    delivered: AtomicU64,
    /// How many watch all objects.
    pub(crate) watchers_of_all: AtomicUsize,
    pub(crate) counts: CacheCounts,
    /// Snapshots of lists that are read in pages.
    pub(crate) kept: watch::Sender<Vec<Kept>>,
}

impl Board {
    pub(crate) fn new(
        stored: Arc<Stored>,
        storage: Arc<dyn Storage>,
        clock: Clock,
        log: Arc<Log>,
        route: Arc<Route>,
    ) -> Self {
        let published = watch::Sender::default();
        let (delivered, watchers_of_all, kept) = (AtomicU64::new(0), AtomicUsize::new(0), watch::Sender::default());
        let counts = CacheCounts::default();
        Self { stored, storage, clock, log, route, published, delivered, watchers_of_all, counts, kept }
    }

    pub(crate) fn snapshot(&self) -> Arc<Snapshot> {
        self.published.borrow().clone()
    }

    /// Waits until the cache was filled.
    pub(crate) async fn filled(&self) -> Arc<Snapshot> {
        self.until(|snapshot| snapshot.filled).await
    }

    async fn until(&self, good: impl Fn(&Snapshot) -> bool) -> Arc<Snapshot> {
        let now = self.snapshot();
        if good(&now) {
            return now;
        }
        let mut published = self.published.subscribe();
        let found = published.wait_for(|snapshot| good(snapshot)).await.map(|found| found.clone());
        found.unwrap_or(now) // The sender lives as long as we do.
    }

    /// Waits until the cache shows the resource as it is at `revision` or later. Answers with the revision that the
    /// snapshot is good for, which may be later than the snapshot's last change.
    pub(crate) async fn at_least(&self, revision: Revision) -> (Arc<Snapshot>, Revision) {
        let dispatched = self.log.reach(revision).await;
        // In this order: what was dispatched has been assigned before.
        let assigned = self.route.assigned();
        let snapshot = self.until(|snapshot| snapshot.filled && snapshot.revision >= assigned).await;
        let good_for = dispatched.max(snapshot.revision);
        (snapshot, good_for)
    }

    /// What is at hand, and the revision it is good for.
    pub(crate) fn at_hand(&self) -> (Arc<Snapshot>, Revision) {
        let (dispatched, assigned) = (self.log.dispatched(), self.route.assigned());
        let snapshot = self.snapshot();
        let good_for =
            if snapshot.revision >= assigned { dispatched.max(snapshot.revision) } else { snapshot.revision };
        (snapshot, good_for)
    }

    /// The revision up to which every event has been put into the queues of its watchers.
    pub(crate) fn delivered(&self) -> Revision {
        let (dispatched, assigned) = (self.log.dispatched(), self.route.assigned());
        let delivered = Revision::new(self.delivered.load(Ordering::Acquire));
        if delivered >= assigned { dispatched.max(delivered) } else { delivered }
    }

    fn set_delivered(&self, revision: Revision) {
        self.delivered.store(revision.get(), Ordering::Release);
    }
}

/// What a cache is asked.
#[derive(Debug)]
pub(crate) enum Command {
    /// Begin a watch.
    Watch {
        /// Which objects.
        selection: Selection,
        /// Behind this revision; `None` begins with the state.
        after: Option<Revision>,
        /// Where it begins, or why it can't.
        reply: oneshot::Sender<Result<Registered, Status>>,
    },
    /// Look when there is something to forget.
    Look,
}

/// A watch that has begun. Nothing is missing between its parts.
#[derive(Debug)]
pub(crate) struct Registered {
    /// The state that comes first, if it was asked for.
    pub(crate) state: Option<Arc<Snapshot>>,
    /// Then what the window has.
    pub(crate) backlog: Vec<Arc<CacheEvent>>,
    /// Then what happens.
    pub(crate) queue: mpsc::Receiver<Queued>,
    /// Why the queue ended.
    pub(crate) ended: Ended,
}

/// What outlives an incarnation of the actor.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) cache: Cache,
    pub(crate) batches: mpsc::Receiver<Batch>,
    pub(crate) commands: mpsc::Receiver<Command>,
}
