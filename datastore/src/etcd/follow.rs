//! The follower: the one task that has a stream of all events, feeds the watchers from it, and keeps the last events
//! for those who begin a little in the past. A stream that breaks goes on at the next member, behind the last event
//! that came.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use thiserror::Error;
use tokio::sync::{Notify, watch};

use super::Link;
use super::fault::chain;
use super::feed::{Feed, FeedEnd};
use crate::error::{Op, StoreError, check_watchable};
use crate::types::{Event, KeyRange, Revision};
use crate::watch::{Hub, Joined, Page};

/// How much of the past is kept: what a watcher misses while it lists and begins, on a busy cluster.
const RECENT_EVENTS_MAX: usize = 2048;
const RECENT_BYTES_MAX: usize = 4 << 20;
/// How many events a watcher of the past is given at once.
const PAGE_EVENTS: usize = 500;
/// How long an acknowledged write may take to arrive as an event, before the stream is taken to be dead. Until then,
/// and only then, whoever wrote waits.
const LAG_MAX: Duration = Duration::from_secs(3);
/// The first and the longest pause between attempts to go on.
const BACKOFF_MIN: Duration = Duration::from_millis(20);
const BACKOFF_MAX: Duration = Duration::from_secs(1);

/// What the follower shares with those who ask.
pub(super) struct Live {
    state: Mutex<State>,
    /// Up to where watchers were told; gone with the follower.
    revision: watch::Receiver<Revision>,
    /// The stream seems to be dead.
    stale: Notify,
}

struct State {
    hub: Hub,
    revision: Revision,
    /// The last events, and the first revision from which on none is missing.
    recent: VecDeque<Arc<Event>>,
    recent_bytes: usize,
    recent_from: Revision,
    closed: bool,
}

/// The follower's own end. With it, watchers end.
pub(super) struct Follower {
    live: Arc<Live>,
    told: watch::Sender<Revision>,
}

/// The stream is of a cluster that was not there before.
#[derive(Clone, Copy, Debug, Error)]
#[error("the cluster was made anew")]
struct Anew;

fn bytes(event: &Event) -> usize {
    event.kv.value.len() + event.kv.key.as_bytes().len() + event.prev.as_ref().map_or(0, |prev| prev.value.len())
}

impl State {
    fn keep(&mut self, events: &[Arc<Event>]) {
        for event in events {
            self.recent_bytes += bytes(event);
            self.recent.push_back(event.clone());
        }
        while self.recent.len() > RECENT_EVENTS_MAX || self.recent_bytes > RECENT_BYTES_MAX {
            let Some(event) = self.recent.pop_front() else { break };
            self.recent_bytes -= bytes(&event);
            // The whole revision goes, or a page would have a part of it.
            self.recent_from = event.revision().next();
            while let Some(same) = self.recent.pop_front_if(|next| next.revision() == event.revision()) {
                self.recent_bytes -= bytes(&same);
            }
        }
    }

    fn forget_recent(&mut self) {
        self.recent = VecDeque::new();
        self.recent_bytes = 0;
        self.recent_from = self.revision.next();
    }
}

impl Live {
    /// At a revision, from which on the follower will tell everything.
    pub(super) fn new(revision: Revision) -> (Arc<Self>, Follower) {
        let (told, receiver) = watch::channel(revision);
        let state = State {
            hub: Hub::default(),
            revision,
            recent: VecDeque::new(),
            recent_bytes: 0,
            recent_from: revision.next(),
            closed: false,
        };
        let live = Arc::new(Self { state: Mutex::new(state), revision: receiver, stale: Notify::new() });
        (live.clone(), Follower { live, told })
    }

    /// Nothing can panic under the lock that leaves something half done.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until watchers were told everything up to `revision`. Whether they were: a stream that is late is given up
    /// for another one, and whoever asks is not kept from going on.
    pub(super) async fn reached(&self, revision: Revision) -> bool {
        let mut told = self.revision.clone();
        let arrived = tokio::time::timeout(LAG_MAX, told.wait_for(|told| *told >= revision)).await;
        match arrived {
            Ok(arrived) => arrived.is_ok(),
            Err(_) => {
                self.stale.notify_one();
                false
            }
        }
    }

    /// A place for a watcher, behind everything that has happened up to `now`.
    pub(super) async fn join(&self, now: Revision, range: KeyRange, waiting_max: usize) -> Result<Joined, StoreError> {
        self.caught_up(now).await?;
        let mut state = self.lock();
        if state.closed {
            return Err(StoreError::Closed);
        }
        let at = state.revision;
        Ok(Joined { live: state.hub.join(range, waiting_max), at })
    }

    /// Tells every watcher how far it is.
    pub(super) async fn progress(&self, now: Revision) -> Result<Revision, StoreError> {
        self.caught_up(now).await?;
        let state = self.lock();
        state.hub.progress(state.revision);
        Ok(state.revision)
    }

    async fn caught_up(&self, now: Revision) -> Result<(), StoreError> {
        if self.reached(now).await {
            return Ok(());
        }
        if self.lock().closed {
            return Err(StoreError::Closed);
        }
        let late = Arc::new(super::fault::Late);
        Err(StoreError::Unreachable { op: Op::Watch, source: late })
    }

    /// A page of the past, if it is kept here, or nothing if etcd has to be asked.
    pub(super) fn page(
        &self,
        range: &KeyRange,
        from: Revision,
        to: Option<Revision>,
        compacted: Revision,
    ) -> Result<Option<Page>, StoreError> {
        check_watchable(from, compacted)?;
        let state = self.lock();
        if state.closed {
            return Err(StoreError::Closed);
        }
        let current = state.revision;
        let to = to.unwrap_or(current).min(current);
        if from > to {
            return Ok(Some(Page { events: Vec::new(), scanned: to, current }));
        }
        if from < state.recent_from {
            return Ok(None);
        }
        let begin = state.recent.partition_point(|event| event.revision() < from);
        let mut page = Page { events: Vec::new(), scanned: to, current };
        let mut last = from.previous();
        for event in state.recent.range(begin..).take_while(|event| event.revision() <= to) {
            if page.events.len() >= PAGE_EVENTS && event.revision() > last {
                page.scanned = last;
                break;
            }
            last = event.revision();
            if range.contains(&event.kv.key) {
                page.events.push(event.clone());
            }
        }
        Ok(Some(page))
    }

    /// How far watchers were told.
    pub(super) fn current(&self) -> Revision {
        self.lock().revision
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        let mut state = self.live.lock();
        state.closed = true;
        state.hub = Hub::default();
        state.forget_recent();
    }
}

impl Follower {
    /// Works until the store is closed.
    pub(super) async fn run(self, feed: Feed, link: Arc<Link>, mut closing: watch::Receiver<()>) {
        tokio::select! {
            () = self.follow(feed, &link) => {}
            Err(_) = closing.changed() => {}
        }
    }

    async fn follow(&self, feed: Feed, link: &Link) {
        let (mut cluster, mut pause) = (feed.cluster(), BACKOFF_MIN);
        let mut feed = Some(feed);
        loop {
            let before = self.live.current();
            match self.stream(feed.take(), &mut cluster, link).await {
                FeedEnd::Closed => return,
                FeedEnd::Compacted => {
                    tracing::warn!(revision = %before, "events of etcd were compacted before they came");
                    match link.revision(Op::Watch).await {
                        Ok(now) => self.forget(now),
                        Err(StoreError::Closed) => return,
                        Err(error) => tracing::warn!(error = chain(&error), "etcd can't be asked where it is"),
                    }
                }
                end @ (FeedEnd::Broken(_) | FeedEnd::Denied(_)) => {
                    tracing::warn!(reason = chain(&end), "the events of etcd go on at another member");
                    // This waits for the cluster to have a leader, and gets a new token if that is what is wrong.
                    match link.revision(Op::Watch).await {
                        Ok(now) if now < self.live.current() => self.begin_anew(now, link),
                        Err(StoreError::Closed) => return,
                        Ok(_) | Err(_) => {}
                    }
                }
            }
            if self.live.current() > before {
                pause = BACKOFF_MIN;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(BACKOFF_MAX);
        }
    }

    /// Follows one stream to its end: this one, or a new one.
    async fn stream(&self, feed: Option<Feed>, cluster: &mut u64, link: &Link) -> FeedEnd {
        let feed = match feed {
            Some(feed) => Ok(feed),
            None => Feed::open(&link.cluster, self.live.current().next()).await,
        };
        let mut feed = match feed {
            Ok(feed) => feed,
            Err(end) => return end,
        };
        if *cluster != feed.cluster() {
            return match link.revision(Op::Watch).await {
                Ok(now) => {
                    *cluster = feed.cluster();
                    self.begin_anew(now, link);
                    FeedEnd::Broken(Arc::new(Anew))
                }
                Err(error) => FeedEnd::Broken(Arc::new(error)),
            };
        }
        // What was said about the stream before this one.
        pin!(self.live.stale.notified()).enable();
        let end = loop {
            tokio::select! {
                events = feed.next() => match events {
                    Ok(events) => self.publish(&events),
                    Err(end) => break end,
                },
                () = self.live.stale.notified() => break FeedEnd::Broken(Arc::new(super::fault::Late)),
            }
        };
        if matches!(end, FeedEnd::Broken(_)) {
            link.cluster.leave(feed.place(), false).await;
        }
        end
    }

    fn publish(&self, events: &[Arc<Event>]) {
        let Some(last) = events.last().map(|event| event.revision()) else { return };
        let mut state = self.live.lock();
        state.revision = last;
        state.keep(events);
        state.hub.publish(events);
        drop(state);
        self.told.send_replace(last);
    }

    /// The cluster was set back to an older state, or is another one: nobody can go on from where they were.
    fn begin_anew(&self, now: Revision, link: &Link) {
        tracing::warn!(%now, before = %self.live.current(), "etcd has another history now");
        link.forget_compacted();
        self.forget(now);
    }

    /// Goes on from `now`, though what was before it was not told: watchers end, and begin again where they were.
    fn forget(&self, now: Revision) {
        let mut state = self.live.lock();
        state.hub = Hub::default();
        state.revision = now;
        state.forget_recent();
        drop(state);
        self.told.send_replace(now);
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::types::Ttl;

    fn event(key: &str, revision: i64, bytes: usize) -> Arc<Event> {
        let value = Bytes::from(vec![b'x'; bytes]);
        Arc::new(Event::put(key.into(), value, Ttl::NONE, Revision::new(revision), None))
    }

    fn revisions(page: &Page) -> Vec<i64> {
        page.events.iter().map(|event| event.revision().get()).collect()
    }

    #[test]
    fn recent_events_are_kept_within_bounds_and_by_whole_revisions() {
        let (live, follower) = Live::new(Revision::new(1));
        let page = |from| live.page(&KeyRange::all(), Revision::new(from), None, Revision::ZERO).unwrap();
        follower.publish(&[event("a", 2, 1), event("b", 2, 1)]);
        assert_eq!(revisions(&page(2).unwrap()), [2, 2]);
        assert!(page(1).is_none(), "what was before is not known here");
        let big = RECENT_BYTES_MAX / 4;
        for revision in 3..7 {
            follower.publish(&[event("c", revision, big)]);
        }
        assert!(page(2).is_none(), "both events of the revision are gone");
        assert!(page(3).is_none());
        assert_eq!(revisions(&page(4).unwrap()), [4, 5, 6]);
        assert_eq!(page(9).unwrap().scanned.get(), 6);
        let compacted = live.page(&KeyRange::all(), Revision::new(4), None, Revision::new(4));
        assert!(matches!(compacted, Err(StoreError::Compacted { .. })));
        for revision in 7..10_000 {
            follower.publish(&[event("d", revision, 0)]);
        }
        let oldest = 10_000 - i64::try_from(RECENT_EVENTS_MAX).unwrap();
        assert!(page(oldest - 1).is_none());
        let first = page(oldest).unwrap();
        assert_eq!((first.events.len(), first.scanned.get()), (PAGE_EVENTS, oldest - 1 + 500));
        drop(follower);
        let closed = live.page(&KeyRange::all(), Revision::new(20_000), None, Revision::ZERO);
        assert!(matches!(closed, Err(StoreError::Closed)));
    }
}
