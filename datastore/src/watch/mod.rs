//! Following changes: old ones from the log, in pages that the watcher pulls; new ones from the hub, pushed on commit.
//!
//! ```text
//!   CatchUp ──page reaches the present──▶ Joining ──hub says "live from here"──▶ Bridge ──▶ Live
//!      │                                                                           │          │
//!      └───────────── compacted, cut off, closed, failed ──────────▶ Ended ◀───────┴──────────┘
//! ```
//!
//! A watcher joins the hub only when its next page is the last one, so that a long past does not fill its queue. What
//! happened between that page and the joining is read from the log once more (the bridge). Each step asks for events
//! from `next` on and moves `next` only when it has them, so a dropped future loses nothing and nothing comes twice.

mod hub;

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

pub(crate) use self::hub::{Hub, LiveReceiver};
use crate::backend::BoxFuture;
use crate::error::StoreError;
use crate::types::{Event, KeyRange, Revision};

/// What a watcher is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WatchMessage {
    /// Changes, in order. Those of one commit come together, unless they come from the past.
    Events(Vec<Arc<Event>>),
    /// There is no other change of this range up to and with this revision.
    Progress(Revision),
}

/// Why a watcher gets nothing more. Everything it was told before is complete up to its last message.
#[derive(Clone, Debug)]
pub enum WatchEnd {
    /// It was too slow, and its queue was full. Watching again from `next` on misses nothing, unless that is compacted.
    Lagged {
        /// The first revision that was not delivered.
        next: Revision,
    },
    /// Events it had not read yet were compacted away. The watcher lists again.
    Compacted {
        /// The oldest revision that can be read.
        compacted: Revision,
    },
    /// The store was closed or is gone. Watching again from `next` on, once it is back, misses nothing.
    Closed {
        /// The first revision that was not delivered.
        next: Revision,
    },
    /// Old events could not be read.
    Failed(StoreError),
}

/// Events from the log.
#[derive(Debug, Default)]
pub(crate) struct Page {
    /// Those of the range, in order.
    pub events: Vec<Arc<Event>>,
    /// Every event up to and with this revision has been looked at.
    pub scanned: Revision,
    /// The store's revision when the page was read.
    pub current: Revision,
}

/// A place in the hub.
#[derive(Debug)]
pub(crate) struct Joined {
    /// Whence new events come.
    pub live: LiveReceiver,
    /// They are those after this revision.
    pub at: Revision,
}

/// Where a watcher gets its events from: the part that differs between stores.
pub(crate) trait Pager: Send + Sync {
    /// Reads some events from `from` on, up to and with `to` or the present. Looks at one revision at least, if there
    /// is one. Fails with [`StoreError::Compacted`] if `from` is not newer than the compacted revision.
    fn page(&self, from: Revision, to: Option<Revision>) -> BoxFuture<'_, Result<Page, StoreError>>;
    /// Takes a place in the hub.
    fn join(&self) -> BoxFuture<'_, Result<Joined, StoreError>>;
}

enum Stage {
    CatchUp,
    Joining,
    Bridge { live: LiveReceiver, until: Revision },
    Live(LiveReceiver),
    Ended(WatchEnd),
}

/// Follows the changes of a range of keys. Dropping it ends that.
pub struct Watcher {
    range: KeyRange,
    pager: Box<dyn Pager>,
    /// Everything before it was delivered, or is in `ready`.
    next: Revision,
    ready: VecDeque<WatchMessage>,
    stage: Stage,
}

impl fmt::Debug for Watcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watcher").field("range", &self.range).field("next", &self.next).finish_non_exhaustive()
    }
}

impl Watcher {
    /// Starts from a revision, or from now on. Reads the first page, so that a compacted start is refused at once.
    pub(crate) async fn start(
        range: KeyRange,
        from: Option<Revision>,
        pager: Box<dyn Pager>,
    ) -> Result<Self, StoreError> {
        let ready = VecDeque::new();
        let Some(from) = from else {
            let Joined { live, at } = pager.join().await?;
            return Ok(Self { range, pager, next: at.next(), ready, stage: Stage::Live(live) });
        };
        let mut watcher = Self { range, pager, next: from, ready, stage: Stage::CatchUp };
        watcher.catch_up().await?;
        Ok(watcher)
    }

    /// Waits for the next message. May be dropped while it waits; nothing is lost.
    ///
    /// # Errors
    /// Why there is nothing more, again and again.
    pub async fn next(&mut self) -> Result<WatchMessage, WatchEnd> {
        loop {
            if let Some(message) = self.ready.pop_front() {
                return Ok(message);
            }
            if let Stage::Ended(end) = &self.stage {
                return Err(end.clone());
            }
            if let Err(error) = self.step().await {
                let next = self.next;
                self.stage = Stage::Ended(match error {
                    StoreError::Compacted { compacted, .. } => WatchEnd::Compacted { compacted },
                    StoreError::Closed => WatchEnd::Closed { next },
                    error => WatchEnd::Failed(error),
                });
            }
        }
    }

    async fn step(&mut self) -> Result<(), StoreError> {
        match &mut self.stage {
            Stage::CatchUp => self.catch_up().await?,
            Stage::Joining => {
                let Joined { live, at } = self.pager.join().await?;
                self.stage = Stage::Bridge { live, until: at };
            }
            Stage::Bridge { until, .. } if self.next <= *until => {
                let page = self.pager.page(self.next, Some(*until)).await?;
                self.take(page);
            }
            Stage::Bridge { .. } => {
                if let Stage::Bridge { live, .. } = std::mem::replace(&mut self.stage, Stage::CatchUp) {
                    self.stage = Stage::Live(live);
                }
            }
            Stage::Live(live) => match live.receive().await {
                Some(WatchMessage::Events(events)) => self.deliver(events),
                Some(progress) => self.ready.push_back(progress),
                None if live.was_cut() => self.stage = Stage::Ended(WatchEnd::Lagged { next: self.next }),
                None => return Err(StoreError::Closed),
            },
            Stage::Ended(_) => {}
        }
        Ok(())
    }

    async fn catch_up(&mut self) -> Result<(), StoreError> {
        let page = self.pager.page(self.next, None).await?;
        let reached_present = page.scanned >= page.current;
        self.take(page);
        if reached_present {
            self.stage = Stage::Joining;
        }
        Ok(())
    }

    fn take(&mut self, page: Page) {
        self.deliver(page.events);
        self.next = self.next.max(page.scanned.next());
    }

    /// Whoever starts in the future gets nothing from before it.
    fn deliver(&mut self, mut events: Vec<Arc<Event>>) {
        events.retain(|event| event.revision() >= self.next);
        if let Some(last) = events.last() {
            self.next = last.revision().next();
            self.ready.push_back(WatchMessage::Events(events));
        }
    }
}
