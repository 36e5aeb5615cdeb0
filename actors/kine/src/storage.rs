//! The store as the API server sees it: [`Storage`], in the same process and without copies.
//!
//! A store that is being opened again is waited for, as long as [`StoreHandle::get`] waits. Nothing here keeps a store
//! longer than for one question; a feed ends with its store, and its reader begins another behind what it has seen.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use k3sd_client::storage::{
    BoxFuture, Change, Compacted, Event, Feed, FeedEnd, FeedMessage, Got, KeyValue, List, Listed, Precondition,
    Revision, Storage, StorageError, Write, Written,
};
use k3sd_datastore::{
    self as datastore, AnyBackend, Backend as _, CountRequest, GetRequest, Key, KeyRange, ListRequest, StoreError, Ttl,
    WatchEnd, WatchMessage, WatchRequest, Watcher, WriteRequest,
};

use crate::error::StoreAbsent;
use crate::store::StoreHandle;

/// How many events may wait for a feed before it is cut off and begins anew from the log. A feed here is one for the
/// whole API server, so it is given more room than a watcher over the network.
const FEED_EVENTS_WAITING: usize = 16 * datastore::WATCH_EVENTS_WAITING_DEFAULT;

impl StoreHandle {
    async fn backend(&self) -> Result<AnyBackend, StorageError> {
        self.get().await.map_err(|StoreAbsent| StorageError::Unavailable("it is being opened".to_owned()))
    }
}

impl Storage for StoreHandle {
    fn write(&self, write: Write) -> BoxFuture<'_, Result<Written, StorageError>> {
        Box::pin(async move {
            let Write { key, change, precondition } = write;
            let change = match change {
                Change::Put { value, ttl } => datastore::Change::Put { value, ttl: ttl_of(ttl) },
                Change::Delete => datastore::Change::Delete,
            };
            let precondition = match precondition {
                Precondition::Absent => datastore::Precondition::Absent,
                Precondition::At(revision) => datastore::Precondition::At(inner(revision)),
                Precondition::None => datastore::Precondition::None,
            };
            let request = WriteRequest { key: Key::new(key), change, precondition };
            let response = self.backend().await?.write(request).await.map_err(|error| error_of(&error))?;
            Ok(Written { revision: outer(response.revision), previous: response.prev.map(key_value) })
        })
    }

    fn get(&self, key: Bytes, at: Option<Revision>) -> BoxFuture<'_, Result<Got, StorageError>> {
        Box::pin(async move {
            let request = GetRequest { key: Key::new(key), at: at.map(inner) };
            let response = self.backend().await?.get(request).await.map_err(|error| error_of(&error))?;
            Ok(Got { revision: outer(response.revision), found: response.kv.map(key_value) })
        })
    }

    fn list(&self, list: List) -> BoxFuture<'_, Result<Listed, StorageError>> {
        Box::pin(async move {
            let List { prefix, at, after, limit, keys_only } = list;
            let request = ListRequest {
                at: at.map(inner),
                after: after.map(Key::new),
                limit,
                keys_only,
                ..ListRequest::new(range(prefix))
            };
            let response = self.backend().await?.list(request).await.map_err(|error| error_of(&error))?;
            let found = response.kvs.into_iter().map(key_value).collect();
            Ok(Listed { revision: outer(response.revision), found, more: response.more })
        })
    }

    fn count(&self, prefix: Bytes, at: Option<Revision>) -> BoxFuture<'_, Result<u64, StorageError>> {
        Box::pin(async move {
            let request = CountRequest { range: range(prefix), at: at.map(inner) };
            Ok(self.backend().await?.count(request).await.map_err(|error| error_of(&error))?.count)
        })
    }

    fn watch(&self, prefix: Bytes, from: Option<Revision>) -> BoxFuture<'_, Result<Box<dyn Feed>, StorageError>> {
        Box::pin(async move {
            let request = WatchRequest {
                events_waiting_max: FEED_EVENTS_WAITING,
                ..WatchRequest::new(range(prefix), from.map(inner))
            };
            let watcher = self.backend().await?.watch(request).await.map_err(|error| error_of(&error))?;
            let feed: Box<dyn Feed> = Box::new(StoreFeed { watcher, ended: None });
            Ok(feed)
        })
    }

    fn progress(&self) -> BoxFuture<'_, Result<Revision, StorageError>> {
        Box::pin(async move { self.backend().await?.progress().await.map(outer).map_err(|error| error_of(&error)) })
    }

    fn latest(&self) -> Option<Revision> {
        self.now()?.latest().map(outer)
    }

    fn compact(&self, target: Revision) -> BoxFuture<'_, Result<Compacted, StorageError>> {
        Box::pin(async move {
            let response = self.backend().await?.compact(inner(target)).await.map_err(|error| error_of(&error))?;
            Ok(Compacted { compacted: outer(response.compacted) })
        })
    }

    fn is_open(&self) -> bool {
        Self::is_open(self)
    }
}

/// A watcher of the store.
struct StoreFeed {
    watcher: Watcher,
    ended: Option<FeedEnd>,
}

impl Feed for StoreFeed {
    fn next(&mut self) -> BoxFuture<'_, FeedMessage> {
        Box::pin(async move {
            if let Some(end) = self.ended {
                return FeedMessage::Ended(end);
            }
            match self.watcher.next().await {
                Ok(WatchMessage::Events(events)) => FeedMessage::Events(events.iter().map(event).collect()),
                Ok(WatchMessage::Progress(revision)) => FeedMessage::Progress(outer(revision)),
                Err(end) => {
                    let end = match end {
                        WatchEnd::Compacted { compacted } => FeedEnd::Compacted(outer(compacted)),
                        WatchEnd::Failed(error) => {
                            tracing::warn!(error = &error as &dyn std::error::Error, "events could not be read");
                            FeedEnd::Resume
                        }
                        WatchEnd::Lagged { .. } | WatchEnd::Closed { .. } => FeedEnd::Resume,
                    };
                    self.ended = Some(end);
                    FeedMessage::Ended(end)
                }
            }
        })
    }
}

fn range(prefix: Bytes) -> KeyRange {
    if prefix.is_empty() { KeyRange::all() } else { KeyRange::prefix(Key::new(prefix)) }
}

/// A store keeps whole seconds; what is shorter than one lives for one, since none means for ever.
fn ttl_of(ttl: Option<Duration>) -> Ttl {
    ttl.map_or(Ttl::NONE, |ttl| Ttl::seconds(u32::try_from(ttl.as_secs().max(1)).unwrap_or(u32::MAX)))
}

fn event(event: &Arc<datastore::Event>) -> Event {
    let datastore::Event { kind, kv, prev } = &**event;
    Event {
        key: bytes_of(&kv.key),
        revision: outer(kv.mod_revision),
        value: (*kind != datastore::EventKind::Delete).then(|| kv.value.clone()),
        previous: prev.clone().map(key_value),
    }
}

fn key_value(kv: datastore::KeyValue) -> KeyValue {
    KeyValue { key: bytes_of(&kv.key), modified: outer(kv.mod_revision), value: kv.value }
}

fn bytes_of(key: &Key) -> Bytes {
    Bytes::from(key.clone())
}

fn outer(revision: datastore::Revision) -> Revision {
    // No store gives a number below zero to anything.
    Revision::new(u64::try_from(revision.get()).unwrap_or_default())
}

fn inner(revision: Revision) -> datastore::Revision {
    datastore::Revision::new(i64::try_from(revision.get()).unwrap_or(i64::MAX))
}

fn error_of(error: &StoreError) -> StorageError {
    match error {
        StoreError::Conflict(conflict) => StorageError::Conflict {
            current: conflict.current.clone().map(key_value),
            revision: outer(conflict.revision),
        },
        StoreError::Compacted { requested, compacted } => {
            StorageError::Compacted { requested: outer(*requested), compacted: outer(*compacted) }
        }
        StoreError::FutureRevision { requested, current } => {
            StorageError::Future { requested: outer(*requested), current: outer(*current) }
        }
        StoreError::Invalid { reason } => StorageError::Invalid(reason.clone()),
        StoreError::Full { .. } => StorageError::Full,
        StoreError::Unknown { .. } => StorageError::Unknown(chain(error)),
        StoreError::Locked { .. }
        | StoreError::Unreachable { .. }
        | StoreError::Damaged { .. }
        | StoreError::Database { .. }
        | StoreError::Closed => StorageError::Unavailable(chain(error)),
    }
}

/// An error with all that caused it.
fn chain(error: &StoreError) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
