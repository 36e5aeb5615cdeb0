//! Objects of one resource: its storage and its watch cache together.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use k3sd_client::storage::{Change, Precondition, Revision, Storage, StorageError, Write};
use k3sd_objects::object::{Object, stored_bytes};
use k3sd_objects::status::Status;
use k3sd_runtime::Clock;
use k3sd_runtime::lend::Lend;
use serde_json::Value;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use crate::cache::{Board, Cache, CacheCounts, Command, State};
use crate::catalog::Stored;
use crate::codec::decode;
use crate::error::{TOO_LARGE_RETRY_SECONDS, WriteError, malformed, status};
use crate::event::at_revision;
use crate::log::{Log, Route};
use crate::query::{ReadAt, WatchFrom, WatchQuery};
use crate::snapshot::Snapshot;
use crate::watch::Watch;

/// How long a reader waits for a cache to become fresh; upstream's. Then the storage itself is read, or the client told.
pub(crate) const FRESH_LIMIT: Duration = Duration::from_secs(3);

/// Events are never so late after their write, unless something is wrong or there is no event.
const EVENTS_LATE: Duration = Duration::from_millis(20);

/// Questions that may wait for a cache; those who ask wait for room.
const COMMANDS: usize = 256;

/// Objects of one [`Stored`]. Cheap to share.
pub struct ObjectStore {
    pub(crate) board: Arc<Board>,
    pub(crate) state: Lend<State>,
    pub(crate) commands: mpsc::Sender<Command>,
}

impl fmt::Debug for ObjectStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ObjectStore").field("prefix", &self.board.stored.prefix).finish_non_exhaustive()
    }
}

impl ObjectStore {
    pub(crate) fn new(stored: Arc<Stored>, storage: Arc<dyn Storage>, clock: Clock, log: Arc<Log>) -> Self {
        let (route, batches) = Route::new();
        let (commands, receiver) = mpsc::channel(COMMANDS);
        log.attach(&stored.prefix, route.clone());
        let board = Arc::new(Board::new(stored, storage, clock, log, route));
        let state = Lend::new(State { cache: Cache::default(), batches, commands: receiver });
        Self { board, state, commands }
    }

    /// Where the objects lie. A definition that changes its schema only goes on with the same store: take the schema
    /// from the catalog.
    pub fn stored(&self) -> &Arc<Stored> {
        &self.board.stored
    }

    /// The cache's present state without waiting; empty before the cache is filled.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.board.snapshot()
    }

    /// What is counted of its cache.
    pub fn counts(&self) -> &CacheCounts {
        &self.board.counts
    }

    /// How many watches there are that hear of each change, whatever it is about. Some may have ended a moment ago.
    pub fn watchers_of_all(&self) -> usize {
        self.board.watchers_of_all.load(Ordering::Relaxed)
    }

    /// One object. The namespace of objects of the cluster is empty.
    ///
    /// # Errors
    /// 504 for a revision that does not come in time, 410 for one that is gone, 503 while the store is away.
    pub async fn get(&self, namespace: &str, name: &str, at: ReadAt) -> Result<Option<Object>, Status> {
        let snapshot = match at {
            ReadAt::Any => timeout(FRESH_LIMIT, self.board.filled()).await.ok(),
            ReadAt::NotOlderThan(revision) => Some(self.not_older_than(revision).await?.0),
            ReadAt::Latest => match self.board.storage.latest() {
                Some(latest) => self.fresh(latest).await.map(|(snapshot, _)| snapshot),
                // To ask the store where it is costs as much as to ask for the object.
                None => None,
            },
            ReadAt::Exactly(revision) => return self.read(namespace, name, Some(revision)).await,
        };
        match snapshot {
            Some(snapshot) => Ok(snapshot.get(namespace, name).cloned()),
            None => self.read(namespace, name, None).await,
        }
    }

    /// The cache as it is at `revision` or later, and the revision it is good for; `None` if that takes too long.
    pub(crate) async fn fresh(&self, revision: Revision) -> Option<(Arc<Snapshot>, Revision)> {
        let began = self.board.clock.now();
        let reached = self.wait_for(revision).await;
        self.board.counts.waits.observe(self.board.clock.now().since(began));
        reached
    }

    async fn wait_for(&self, revision: Revision) -> Option<(Arc<Snapshot>, Revision)> {
        let mut reached = std::pin::pin!(self.board.at_least(revision));
        if let Ok(reached) = timeout(EVENTS_LATE, &mut reached).await {
            return Some(reached);
        }
        // A revision that no event belongs to is told only to those who ask. What it answers, the feed says too.
        drop(timeout(FRESH_LIMIT, self.board.storage.progress()).await);
        timeout(FRESH_LIMIT - EVENTS_LATE, reached).await.ok()
    }

    pub(crate) async fn not_older_than(&self, revision: Revision) -> Result<(Arc<Snapshot>, Revision), Status> {
        self.fresh(revision).await.ok_or_else(|| {
            let current = self.board.storage.latest().unwrap_or_else(|| self.board.log.dispatched());
            Status::too_large_resource_version(revision.get(), current.get(), TOO_LARGE_RETRY_SECONDS)
        })
    }

    /// The store's newest revision.
    pub(crate) async fn newest(&self) -> Result<Revision, Status> {
        match self.board.storage.latest() {
            Some(latest) => Ok(latest),
            None => self.board.storage.progress().await.map_err(|error| status(&error)),
        }
    }

    fn key(&self, namespace: &str, name: &str) -> Bytes {
        Bytes::from(self.board.stored.key(namespace, name))
    }

    /// Past the cache.
    async fn read(&self, namespace: &str, name: &str, at: Option<Revision>) -> Result<Option<Object>, Status> {
        let got = self.board.storage.get(self.key(namespace, name), at).await.map_err(|error| status(&error))?;
        let found = got.found.map(|found| decode(&self.board.stored, &found.key, &found.value, found.modified));
        found.transpose().map_err(|error| malformed(&error))
    }

    /// Begins a watch.
    ///
    /// # Errors
    /// 410 for a revision too far back, 504 for one that does not come in time, 429 while the cache is not filled.
    pub async fn watch(&self, query: &WatchQuery) -> Result<Watch, Status> {
        let (after, good_for) = match (query.from, query.initial_events) {
            (WatchFrom::After(revision), None | Some(false)) => (Some(revision), revision),
            (WatchFrom::After(revision), Some(true)) => (None, self.not_older_than(revision).await?.1),
            (WatchFrom::Any, _) => (None, Revision::ZERO),
            (WatchFrom::Now, _) => {
                let newest = self.newest().await?;
                (None, self.not_older_than(newest).await?.1)
            }
        };
        let (reply, registered) = oneshot::channel();
        let command = Command::Watch { selection: query.selection(), after, reply };
        let busy = || Status::too_many_requests("storage is (re)initializing", 1);
        let ask = async {
            self.commands.send(command).await.map_err(|_| busy())?;
            registered.await.map_err(|_| busy())?
        };
        let registered = timeout(FRESH_LIMIT, ask).await.map_err(|_| busy())??;
        Ok(Watch::new(self.board.clone(), query, registered, good_for))
    }

    /// Writes a new object, without its `resourceVersion`. It is gone by itself after `ttl`, if given.
    ///
    /// # Errors
    /// See [`WriteError`].
    pub async fn create(
        &self,
        namespace: &str,
        name: &str,
        value: Value,
        ttl: Option<Duration>,
    ) -> Result<Object, WriteError> {
        let bytes = self.bytes(namespace, name, value)?;
        let change = Change::Put { value: bytes.clone(), ttl };
        let write = Write { key: self.key(namespace, name), change, precondition: Precondition::Absent };
        match self.board.storage.write(write).await {
            Ok(written) => self.object(&bytes, written.revision),
            Err(StorageError::Conflict { .. }) => Err(WriteError::Exists),
            Err(error) => Err(WriteError::Failed(status(&error))),
        }
    }

    /// Replaces an object, if it still is what `old` is. Writes nothing, and answers with `old`, if it would stay the
    /// same.
    ///
    /// # Errors
    /// See [`WriteError`].
    pub async fn update(&self, old: &Object, value: Value, ttl: Option<Duration>) -> Result<Object, WriteError> {
        let bytes = self.bytes(old.namespace(), old.name(), value)?;
        if old.is_stored_as(&bytes) {
            return Ok(old.clone());
        }
        let written = self.change(old, Change::Put { value: bytes.clone(), ttl }).await?;
        self.object(&bytes, written)
    }

    /// Removes an object, if it still is what `old` is. Answers with its last state, and the revision of its end.
    ///
    /// # Errors
    /// See [`WriteError`].
    pub async fn delete(&self, old: &Object) -> Result<Object, WriteError> {
        let revision = self.change(old, Change::Delete).await?;
        Ok(at_revision(old, revision, &self.board.stored.selectable))
    }

    async fn change(&self, old: &Object, change: Change) -> Result<Revision, WriteError> {
        let precondition = Precondition::At(Revision::new(old.resource_version()));
        let write = Write { key: self.key(old.namespace(), old.name()), change, precondition };
        match self.board.storage.write(write).await {
            Ok(written) => Ok(written.revision),
            Err(StorageError::Conflict { current, .. }) => {
                let read = |found: k3sd_client::storage::KeyValue| {
                    decode(&self.board.stored, &found.key, &found.value, found.modified).ok()
                };
                Err(WriteError::Conflict { current: current.and_then(read) })
            }
            Err(error) => Err(WriteError::Failed(status(&error))),
        }
    }

    /// What is stored. Refuses what nobody could read again.
    fn bytes(&self, namespace: &str, name: &str, value: Value) -> Result<Bytes, WriteError> {
        let stored = &self.board.stored;
        let metadata = &value["metadata"];
        let own = [&value["apiVersion"], &metadata["namespace"], &metadata["name"]];
        let own = own.map(|value| value.as_str().unwrap_or_default());
        if own != [&*stored.api_version, namespace, name]
            || namespace.is_empty() == stored.namespaced
            || name.is_empty()
        {
            let why = format!("{own:?} can't be stored as {:?} {namespace:?} {name:?}", stored.api_version);
            return Err(WriteError::Failed(Status::internal_error(why)));
        }
        Ok(Bytes::from(stored_bytes(value)))
    }

    fn object(&self, bytes: &Bytes, revision: Revision) -> Result<Object, WriteError> {
        let read = Object::from_stored(bytes, revision.get(), &self.board.stored.selectable);
        read.map_err(|error| WriteError::Failed(malformed(&error)))
    }
}

impl Drop for ObjectStore {
    fn drop(&mut self) {
        self.board.log.detach(&self.board.stored.prefix, &self.board.route);
    }
}
