//! The store without a database: the reference for the contract, and for tests that need no file. One lock, no
//! threads; every operation is done when its future is first polled, except for following events.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::backend::{Backend, BoxFuture};
use crate::error::{Conflict, StoreError, check_compactable, check_readable, check_watchable, check_writable};
use crate::request::{
    Change, CompactResponse, CountRequest, CountResponse, GetRequest, GetResponse, ListRequest, ListResponse, Status,
    WatchRequest, WriteRequest, WriteResponse,
};
use crate::types::{Event, EventKind, Key, KeyRange, KeyValue, Revision};
use crate::watch::{Hub, Joined, Page, Pager, Watcher};

/// How many events a page has. Small, so that tests go through the paging too.
const PAGE_EVENTS: usize = 64;

/// A store in memory. Cloning it shares the store; it ends with its last clone and watcher.
#[derive(Clone, Default)]
pub struct Memory {
    state: Arc<Mutex<State>>,
}

impl std::fmt::Debug for Memory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Memory")
    }
}

struct State {
    revision: Revision,
    compacted: Revision,
    /// What each key held, and from when on; a delete is an event without a value.
    versions: BTreeMap<Key, Vec<Arc<Event>>>,
    /// Every event after the compacted revision.
    log: BTreeMap<Revision, Arc<Event>>,
    hub: Hub,
}

impl Default for State {
    /// An empty store is at revision 1, as etcd is.
    fn default() -> Self {
        Self {
            revision: Revision::new(1),
            compacted: Revision::ZERO,
            versions: BTreeMap::new(),
            log: BTreeMap::new(),
            hub: Hub::default(),
        }
    }
}

impl Memory {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// A panic under the lock is a bug of this file; the state it leaves is no worse than the one it found, because
    /// each change is put together before it is made.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn at(versions: &[Arc<Event>], at: Revision) -> Option<&KeyValue> {
        let event = versions.iter().rev().find(|event| event.revision() <= at)?;
        (event.kind != EventKind::Delete).then_some(&event.kv)
    }

    fn live(&self, range: &KeyRange, at: Option<Revision>) -> Result<impl Iterator<Item = &KeyValue>, StoreError> {
        check_readable(at, self.compacted, self.revision)?;
        let at = at.unwrap_or(self.revision);
        let range = range.clone();
        let from_start = self.versions.range(range.start().clone()..);
        let inside = from_start.take_while(move |(key, _)| range.contains(key));
        Ok(inside.filter_map(move |(_, versions)| Self::at(versions, at)))
    }

    fn write(&mut self, request: WriteRequest) -> Result<WriteResponse, StoreError> {
        let WriteRequest { key, change, precondition } = request;
        check_writable(&key)?;
        let current = self.versions.get(&key).and_then(|versions| Self::at(versions, self.revision)).cloned();
        if !precondition.holds(current.as_ref()) {
            let conflict = Conflict { key, expected: precondition, current, revision: self.revision };
            return Err(StoreError::Conflict(Box::new(conflict)));
        }
        if change == Change::Delete && current.is_none() {
            return Ok(WriteResponse { revision: self.revision, prev: None });
        }
        let revision = self.revision.next();
        let prev = current.clone();
        let event = Arc::new(match change {
            Change::Put { value, ttl } => Event::put(key.clone(), value, ttl, revision, current),
            Change::Delete => Event::delete(key.clone(), revision, current),
        });
        self.revision = revision;
        self.versions.entry(key).or_default().push(event.clone());
        self.log.insert(revision, event.clone());
        self.hub.publish(&[event]);
        Ok(WriteResponse { revision, prev })
    }

    fn compact(&mut self, target: Revision) -> Result<CompactResponse, StoreError> {
        check_compactable(target, self.compacted, self.revision)?;
        self.compacted = target;
        self.log = self.log.split_off(&target.next());
        self.versions.retain(|_, versions| {
            // The last version up to the target is what a read there sees; a delete needs no witness.
            let last = versions.iter().rposition(|event| event.revision() <= target);
            if let Some(last) = last {
                let gone = if versions[last].kind == EventKind::Delete { last + 1 } else { last };
                versions.drain(..gone);
            }
            !versions.is_empty()
        });
        Ok(CompactResponse { revision: self.revision, compacted: target })
    }
}

impl Backend for Memory {
    async fn write(&self, request: WriteRequest) -> Result<WriteResponse, StoreError> {
        self.lock().write(request)
    }

    async fn get(&self, request: GetRequest) -> Result<GetResponse, StoreError> {
        let state = self.lock();
        let kv = state.live(&KeyRange::one(request.key), request.at)?.next().cloned();
        Ok(GetResponse { revision: state.revision, kv })
    }

    async fn list(&self, request: ListRequest) -> Result<ListResponse, StoreError> {
        let state = self.lock();
        let range = match &request.after {
            Some(after) => request.range.after(after),
            None => request.range,
        };
        let limit = request.limit.unwrap_or(usize::MAX);
        let wanted = |kv: &&KeyValue| !request.expiring_only || !kv.ttl.is_none();
        let mut live = state.live(&range, request.at)?.filter(wanted);
        let mut kvs: Vec<KeyValue> = live.by_ref().take(limit).cloned().collect();
        let more = live.next().is_some();
        if request.keys_only {
            kvs.iter_mut().for_each(|kv| kv.value.clear());
        }
        drop(live);
        Ok(ListResponse { revision: state.revision, kvs, more })
    }

    async fn count(&self, request: CountRequest) -> Result<CountResponse, StoreError> {
        let state = self.lock();
        let count = state.live(&request.range, request.at)?.count() as u64;
        Ok(CountResponse { revision: state.revision, count })
    }

    async fn watch(&self, request: WatchRequest) -> Result<Watcher, StoreError> {
        let WatchRequest { range, from, events_waiting_max } = request;
        let pager = MemoryPager { store: self.clone(), range: range.clone(), events_waiting_max };
        Watcher::start(range, from, Box::new(pager)).await
    }

    fn latest(&self) -> Option<Revision> {
        Some(self.lock().revision)
    }

    async fn progress(&self) -> Result<Revision, StoreError> {
        let state = self.lock();
        state.hub.progress(state.revision);
        Ok(state.revision)
    }

    async fn compact(&self, target: Revision) -> Result<CompactResponse, StoreError> {
        self.lock().compact(target)
    }

    async fn status(&self) -> Result<Status, StoreError> {
        let state = self.lock();
        Ok(Status { revision: state.revision, compacted: state.compacted, ..Status::default() })
    }
}

struct MemoryPager {
    store: Memory,
    range: KeyRange,
    events_waiting_max: usize,
}

impl Pager for MemoryPager {
    fn page(&self, from: Revision, to: Option<Revision>) -> BoxFuture<'_, Result<Page, StoreError>> {
        Box::pin(async move {
            let state = self.store.lock();
            check_watchable(from, state.compacted)?;
            let to = to.unwrap_or(state.revision).min(state.revision);
            let mut page = Page { events: Vec::new(), scanned: to, current: state.revision };
            if from > to {
                return Ok(page);
            }
            for (seen, (revision, event)) in state.log.range(from..=to).enumerate() {
                if seen == PAGE_EVENTS {
                    page.scanned = revision.previous();
                    break;
                }
                if self.range.contains(&event.kv.key) {
                    page.events.push(event.clone());
                }
            }
            Ok(page)
        })
    }

    fn join(&self) -> BoxFuture<'_, Result<Joined, StoreError>> {
        Box::pin(async move {
            let mut state = self.store.lock();
            let live = state.hub.join(self.range.clone(), self.events_waiting_max);
            Ok(Joined { live, at: state.revision })
        })
    }
}
