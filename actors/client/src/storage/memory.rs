//! A whole store in memory, with history, compaction, expiry and feeds: what tests put where a database would be.
//!
//! It keeps every promise of [`Storage`], and fails on request in the ways that the trait allows.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use k3sd_runtime::{Clock, Moment};
use tokio::sync::watch;

use super::{
    BoxFuture, Change, Compacted, Event, Feed, FeedEnd, FeedMessage, Got, KeyValue, List, Listed, Precondition,
    Revision, Storage, StorageError, Write, Written,
};

#[expect(
    clippy::disallowed_types,
    reason = "tests ask it from many threads, and it never waits while it holds the lock"
)]
type Lock<T> = std::sync::Mutex<T>;

/// Events that one message of a feed carries at most.
const EVENTS_AT_ONCE: usize = 128;

/// What a key held from a revision on; `None` is nothing.
struct Version {
    revision: Revision,
    value: Option<Bytes>,
}

struct Inner {
    revision: Revision,
    compacted: Revision,
    keys: BTreeMap<Bytes, Vec<Version>>,
    /// Everything that happened after `compacted`.
    events: VecDeque<Event>,
    ends: BTreeSet<(Moment, Bytes, Revision)>,
    /// Feeds that have less are told of progress up to here.
    progress: Revision,
    /// Feeds of an older count have ended.
    cuts: u64,
    is_open: bool,
    is_full: bool,
    tells_latest: bool,
    answers_lost: usize,
}

/// The store. Clones share it.
#[derive(Clone)]
pub struct Memory {
    inner: Arc<Lock<Inner>>,
    /// Counts what feeds may want to know.
    changes: watch::Sender<u64>,
    clock: Clock,
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memory").finish_non_exhaustive()
    }
}

impl Memory {
    /// An empty store at revision 1, whose keys expire by this clock.
    pub fn new(clock: Clock) -> Self {
        let inner = Inner {
            revision: Revision::new(1),
            compacted: Revision::ZERO,
            keys: BTreeMap::new(),
            events: VecDeque::new(),
            ends: BTreeSet::new(),
            progress: Revision::ZERO,
            cuts: 0,
            is_open: true,
            is_full: false,
            tells_latest: true,
            answers_lost: 0,
        };
        Self { inner: Arc::new(Lock::new(inner)), changes: watch::Sender::new(0), clock }
    }

    /// Ends all feeds with [`FeedEnd::Resume`].
    pub fn cut_feeds(&self) {
        self.with(|inner| inner.cuts += 1);
        self.changed();
    }

    /// Closes the store, which ends its feeds, or opens it again.
    pub fn set_open(&self, is_open: bool) {
        self.with(|inner| {
            inner.is_open = is_open;
            inner.cuts += u64::from(!is_open);
        });
        self.changed();
    }

    /// Takes a number for something that is no event, as databases do for their own purposes.
    pub fn skip_revision(&self) {
        self.with(|inner| inner.revision = inner.revision.next());
    }

    /// Whether there is no space left for writes.
    pub fn set_full(&self, is_full: bool) {
        self.with(|inner| inner.is_full = is_full);
    }

    /// Whether [`Storage::latest`] knows, as if nobody else wrote to the database.
    pub fn set_tells_latest(&self, tells_latest: bool) {
        self.with(|inner| inner.tells_latest = tells_latest);
    }

    /// The next so many writes happen, and their answers are [`StorageError::Unknown`].
    pub fn lose_answers(&self, count: usize) {
        self.with(|inner| inner.answers_lost = count);
    }

    /// Does something with the state as it is now, after what has expired.
    fn with<T>(&self, work: impl FnOnce(&mut Inner) -> T) -> T {
        let now = self.clock.now();
        let mut inner = self.inner.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let before = inner.revision;
        inner.expire(now);
        let done = work(&mut inner);
        let changed = inner.revision > before;
        drop(inner);
        if changed {
            self.changed();
        }
        done
    }

    fn open<T>(&self, work: impl FnOnce(&mut Inner) -> Result<T, StorageError>) -> Result<T, StorageError> {
        self.with(
            |inner| {
                if inner.is_open { work(inner) } else { Err(StorageError::Unavailable("it is closed".to_owned())) }
            },
        )
    }

    fn changed(&self) {
        self.changes.send_modify(|changes| *changes += 1);
    }
}

impl Inner {
    fn expire(&mut self, now: Moment) {
        while let Some((_, key, revision)) = self.ends.first().filter(|(at, ..)| *at <= now).cloned() {
            self.ends.pop_first();
            if self.current(&key).is_some_and(|current| current.modified == revision) {
                self.put(key, None);
            }
        }
    }

    fn current(&self, key: &Bytes) -> Option<KeyValue> {
        self.seen(key, self.keys.get(key)?, self.revision)
    }

    fn seen(&self, key: &Bytes, versions: &[Version], at: Revision) -> Option<KeyValue> {
        let version = versions.iter().rev().find(|version| version.revision <= at)?;
        let value = version.value.clone()?;
        Some(KeyValue { key: key.clone(), value, modified: version.revision })
    }

    fn put(&mut self, key: Bytes, value: Option<Bytes>) {
        let previous = self.current(&key);
        self.revision = self.revision.next();
        let revision = self.revision;
        self.keys.entry(key.clone()).or_default().push(Version { revision, value: value.clone() });
        self.events.push_back(Event { key, revision, value, previous });
    }

    fn write(&mut self, write: Write, now: Moment) -> Result<Written, StorageError> {
        let previous = self.current(&write.key);
        let holds = match write.precondition {
            Precondition::None => true,
            Precondition::Absent => previous.is_none(),
            Precondition::At(revision) => previous.as_ref().is_some_and(|found| found.modified == revision),
        };
        if !holds {
            return Err(StorageError::Conflict { current: previous, revision: self.revision });
        }
        match write.change {
            Change::Put { .. } if self.is_full => return Err(StorageError::Full),
            Change::Put { value, ttl } => {
                self.put(write.key.clone(), Some(value));
                self.ends.extend(ttl.map(|ttl| (now + ttl, write.key, self.revision)));
            }
            Change::Delete if previous.is_some() => self.put(write.key, None),
            Change::Delete => {}
        }
        if self.answers_lost > 0 {
            self.answers_lost -= 1;
            return Err(StorageError::Unknown("the answer was lost".to_owned()));
        }
        Ok(Written { revision: self.revision, previous })
    }

    fn readable(&self, at: Option<Revision>) -> Result<Revision, StorageError> {
        let at = at.unwrap_or(self.revision);
        if at > self.revision {
            return Err(StorageError::Future { requested: at, current: self.revision });
        }
        if at < self.compacted {
            return Err(StorageError::Compacted { requested: at, compacted: self.compacted });
        }
        Ok(at)
    }

    fn range(&self, prefix: &Bytes, at: Revision) -> impl Iterator<Item = KeyValue> {
        let keys = self.keys.range(prefix.clone()..).take_while(|(key, _)| key.starts_with(prefix));
        keys.filter_map(move |(key, versions)| self.seen(key, versions, at))
    }

    fn list(&self, list: &List) -> Result<Listed, StorageError> {
        let at = self.readable(list.at)?;
        let behind = |found: &KeyValue| list.after.as_ref().is_none_or(|after| found.key > *after);
        let mut range = self.range(&list.prefix, at).filter(behind);
        let mut found: Vec<KeyValue> = range.by_ref().take(list.limit.unwrap_or(usize::MAX)).collect();
        let more = range.next().is_some();
        if list.keys_only {
            found.iter_mut().for_each(|found| found.value = Bytes::new());
        }
        Ok(Listed { revision: self.revision, found, more })
    }

    fn compact(&mut self, target: Revision) -> Result<Compacted, StorageError> {
        let target = self.readable(Some(target))?;
        self.compacted = target;
        self.keys.retain(|_, versions| {
            let visible = versions.iter().rposition(|version| version.revision <= target).unwrap_or_default();
            versions.drain(..visible);
            versions.len() > 1 || versions.iter().any(|only| only.value.is_some() || only.revision > target)
        });
        while self.events.front().is_some_and(|event| event.revision <= target) {
            self.events.pop_front();
        }
        Ok(Compacted { compacted: target })
    }
}

impl Storage for Memory {
    fn write(&self, write: Write) -> BoxFuture<'_, Result<Written, StorageError>> {
        Box::pin(async move {
            let now = self.clock.now();
            self.open(|inner| inner.write(write, now))
        })
    }

    fn get(&self, key: Bytes, at: Option<Revision>) -> BoxFuture<'_, Result<Got, StorageError>> {
        Box::pin(async move {
            self.open(|inner| {
                let at = inner.readable(at)?;
                let found = inner.keys.get(&key).and_then(|versions| inner.seen(&key, versions, at));
                Ok(Got { revision: inner.revision, found })
            })
        })
    }

    fn list(&self, list: List) -> BoxFuture<'_, Result<Listed, StorageError>> {
        Box::pin(async move { self.open(|inner| inner.list(&list)) })
    }

    fn count(&self, prefix: Bytes, at: Option<Revision>) -> BoxFuture<'_, Result<u64, StorageError>> {
        Box::pin(async move {
            self.open(|inner| {
                let at = inner.readable(at)?;
                Ok(inner.range(&prefix, at).count() as u64)
            })
        })
    }

    fn watch(&self, prefix: Bytes, from: Option<Revision>) -> BoxFuture<'_, Result<Box<dyn Feed>, StorageError>> {
        Box::pin(async move {
            let changes = self.changes.subscribe();
            self.open(|inner| {
                let next = from.unwrap_or_else(|| inner.revision.next());
                if next <= inner.compacted {
                    return Err(StorageError::Compacted { requested: next, compacted: inner.compacted });
                }
                let (cuts, told) = (inner.cuts, Revision::ZERO);
                let feed = MemoryFeed { store: self.clone(), prefix, next, told, cuts, changes, ended: None };
                Ok(Box::new(feed) as Box<dyn Feed>)
            })
        })
    }

    fn progress(&self) -> BoxFuture<'_, Result<Revision, StorageError>> {
        Box::pin(async move {
            let revision = self.open(|inner| {
                inner.progress = inner.revision;
                Ok(inner.revision)
            })?;
            self.changed();
            Ok(revision)
        })
    }

    fn latest(&self) -> Option<Revision> {
        self.with(|inner| (inner.is_open && inner.tells_latest).then_some(inner.revision))
    }

    fn compact(&self, target: Revision) -> BoxFuture<'_, Result<Compacted, StorageError>> {
        Box::pin(async move { self.open(|inner| inner.compact(target)) })
    }

    fn is_open(&self) -> bool {
        self.with(|inner| inner.is_open)
    }
}

struct MemoryFeed {
    store: Memory,
    prefix: Bytes,
    /// Everything before this was sent.
    next: Revision,
    /// The last progress that was told.
    told: Revision,
    cuts: u64,
    changes: watch::Receiver<u64>,
    ended: Option<FeedEnd>,
}

impl MemoryFeed {
    /// What there is to say now, or when something may happen by itself.
    fn look(&mut self) -> Result<FeedMessage, Option<Moment>> {
        let store = self.store.clone();
        store.with(|inner| {
            if self.ended.is_none() && inner.cuts != self.cuts {
                self.ended = Some(FeedEnd::Resume);
            }
            if self.ended.is_none() && self.next <= inner.compacted {
                self.ended = Some(FeedEnd::Compacted(inner.compacted));
            }
            if let Some(end) = self.ended {
                return Ok(FeedMessage::Ended(end));
            }
            let from = inner.events.partition_point(|event| event.revision < self.next);
            let new = inner.events.range(from..).filter(|event| event.key.starts_with(&self.prefix));
            let events: Vec<Event> = new.take(EVENTS_AT_ONCE).cloned().collect();
            if let Some(last) = events.last() {
                self.next = last.revision.next();
                return Ok(FeedMessage::Events(events));
            }
            self.next = self.next.max(inner.revision.next());
            if inner.progress > self.told {
                self.told = inner.revision;
                return Ok(FeedMessage::Progress(inner.revision));
            }
            Err(inner.ends.first().map(|(at, ..)| *at))
        })
    }
}

impl Feed for MemoryFeed {
    fn next(&mut self) -> BoxFuture<'_, FeedMessage> {
        Box::pin(async move {
            loop {
                self.changes.mark_unchanged();
                let alarm = match self.look() {
                    Ok(message) => return message,
                    Err(alarm) => alarm,
                };
                let clock = self.store.clock.clone();
                tokio::select! {
                    // The sender lives in the store that we hold.
                    _ = self.changes.changed() => {}
                    () = clock.sleep_until(alarm.unwrap_or(Moment::START)), if alarm.is_some() => {}
                }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn store() -> Memory {
        Memory::new(Clock::simulated(1))
    }

    fn put(key: &'static str, value: &'static str, precondition: Precondition) -> Write {
        let change = Change::Put { value: Bytes::from(value), ttl: None };
        Write { key: Bytes::from(key), change, precondition }
    }

    async fn write(store: &Memory, write: Write) -> u64 {
        store.write(write).await.unwrap().revision.get()
    }

    async fn keys(store: &Memory, at: Option<u64>) -> Result<Vec<(String, u64)>, StorageError> {
        let listed = store.list(List { at: at.map(Revision::new), ..List::default() }).await?;
        let text = |key: &Bytes| String::from_utf8(key.to_vec()).unwrap();
        Ok(listed.found.iter().map(|found| (text(&found.key), found.modified.get())).collect())
    }

    fn delete(key: &'static str) -> Write {
        Write { key: Bytes::from(key), change: Change::Delete, precondition: Precondition::None }
    }

    #[tokio::test(start_paused = true)]
    async fn writes_obey_their_preconditions_and_history_stays() {
        let store = store();
        assert_eq!(write(&store, put("a", "1", Precondition::Absent)).await, 2);
        assert_eq!(write(&store, put("b", "1", Precondition::None)).await, 3);
        let refused = store.write(put("a", "2", Precondition::Absent)).await;
        assert!(matches!(refused, Err(StorageError::Conflict { current: Some(_), .. })));
        assert_eq!(write(&store, put("a", "2", Precondition::At(Revision::new(2)))).await, 4);
        assert_eq!(write(&store, delete("b")).await, 5);
        assert_eq!(write(&store, delete("b")).await, 5, "nothing was there to delete");
        assert_eq!(keys(&store, None).await.unwrap(), [("a".to_owned(), 4)]);
        assert_eq!(keys(&store, Some(3)).await.unwrap(), [("a".to_owned(), 2), ("b".to_owned(), 3)]);
        assert!(matches!(keys(&store, Some(6)).await, Err(StorageError::Future { .. })));
        store.compact(Revision::new(4)).await.unwrap();
        assert!(matches!(keys(&store, Some(3)).await, Err(StorageError::Compacted { .. })));
        assert_eq!(keys(&store, Some(4)).await.unwrap(), [("a".to_owned(), 4), ("b".to_owned(), 3)]);
    }

    #[tokio::test(start_paused = true)]
    async fn pages_of_a_list_fit_together() {
        let store = store();
        for key in ["a", "b", "c"] {
            write(&store, put(key, "1", Precondition::None)).await;
        }
        let first = List { limit: Some(2), ..List::default() };
        let listed = store.list(first.clone()).await.unwrap();
        assert!(listed.more);
        write(&store, delete("c")).await;
        let after = listed.found.last().map(|found| found.key.clone());
        let rest = store.list(List { after, at: Some(listed.revision), ..first }).await.unwrap();
        assert_eq!((rest.found.len(), rest.more), (1, false));
        assert_eq!(store.count(Bytes::new(), Some(listed.revision)).await, Ok(3));
    }

    #[tokio::test(start_paused = true)]
    async fn a_feed_has_every_change_once_until_it_ends() {
        let store = store();
        write(&store, put("/a", "1", Precondition::None)).await;
        let mut feed = store.watch(Bytes::from("/"), Some(Revision::new(2))).await.unwrap();
        write(&store, put("x", "1", Precondition::None)).await;
        write(&store, put("/a", "2", Precondition::None)).await;
        let FeedMessage::Events(events) = feed.next().await else { panic!("there are events") };
        assert_eq!(events.iter().map(|event| event.revision.get()).collect::<Vec<_>>(), [2, 4]);
        assert_eq!(events[1].previous.as_ref().map(|previous| previous.modified.get()), Some(2));
        write(&store, put("x", "2", Precondition::None)).await;
        assert_eq!(store.progress().await, Ok(Revision::new(5)));
        assert!(matches!(feed.next().await, FeedMessage::Progress(at) if at == Revision::new(5)));
        store.cut_feeds();
        assert!(matches!(feed.next().await, FeedMessage::Ended(FeedEnd::Resume)));
        let mut late = store.watch(Bytes::new(), Some(Revision::new(3))).await.unwrap();
        store.compact(Revision::new(4)).await.unwrap();
        assert!(matches!(late.next().await, FeedMessage::Ended(FeedEnd::Compacted(_))));
        assert!(store.watch(Bytes::new(), Some(Revision::new(4))).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn keys_end_when_their_time_is_over() {
        let store = store();
        let change = Change::Put { value: Bytes::from("1"), ttl: Some(Duration::from_secs(60)) };
        write(&store, Write { key: Bytes::from("a"), change, precondition: Precondition::None }).await;
        let mut feed = store.watch(Bytes::new(), None).await.unwrap();
        let FeedMessage::Events(events) = feed.next().await else { panic!("it expires") };
        assert_eq!((events.len(), events[0].value.is_none()), (1, true));
        assert_eq!(keys(&store, None).await.unwrap(), []);
    }

    #[tokio::test(start_paused = true)]
    async fn it_fails_as_it_is_told() {
        let store = store();
        store.set_open(false);
        assert!(matches!(keys(&store, None).await, Err(StorageError::Unavailable(_))));
        assert_eq!((store.latest(), store.is_open()), (None, false));
        store.set_open(true);
        store.set_full(true);
        assert_eq!(store.write(put("a", "1", Precondition::None)).await, Err(StorageError::Full));
        store.set_full(false);
        store.lose_answers(1);
        assert!(matches!(store.write(put("a", "1", Precondition::None)).await, Err(StorageError::Unknown(_))));
        assert_eq!(keys(&store, None).await.unwrap().len(), 1);
        store.set_tells_latest(false);
        assert_eq!(store.latest(), None);
    }
}
