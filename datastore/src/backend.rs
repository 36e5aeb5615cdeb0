//! The contract every store keeps, whatever database is below it. The semantics are etcd's; the suite in
//! `tests/contract` is the contract in a form that runs.
//!
//! * There is one revision counter for the whole store. Each change takes the next number; nothing else does, and no
//!   number is ever given to two changes, not even across a crash.
//! * An acknowledged write is durable, is seen by every read that begins later, and has been sent to every watcher.
//! * A read sees the store as it was at one revision: all of it, and nothing newer.
//! * A watcher gets every change of its range once, in order, with what was there before, or is told that it ended.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;

use crate::error::StoreError;
use crate::request::{
    Change, CompactResponse, Connections, CountRequest, CountResponse, GetRequest, GetResponse, ListRequest,
    ListResponse, Precondition, Status, WatchRequest, WriteRequest, WriteResponse,
};
use crate::types::{Key, Revision, Ttl};
use crate::watch::Watcher;

/// A future that can be kept in a structure.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A store of keys, values and their history.
///
/// Every method may be called from any task at any time, and waits when the store is busy rather than refusing. None
/// has a deadline of its own. Dropping the future of a read or a watch leaves nothing behind; dropping the future of a
/// write or a compaction leaves open whether it happens.
pub trait Backend: Send + Sync + 'static {
    /// Changes one key if the precondition holds, and answers when the change is durable.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] with what the key holds, [`StoreError::Invalid`], [`StoreError::Full`],
    /// [`StoreError::Locked`]: nothing has changed. [`StoreError::Unknown`]: it may have.
    fn write(&self, request: WriteRequest) -> impl Future<Output = Result<WriteResponse, StoreError>> + Send;

    /// Reads one key.
    ///
    /// # Errors
    /// [`StoreError::Compacted`] and [`StoreError::FutureRevision`] when it can't be read at that revision.
    fn get(&self, request: GetRequest) -> impl Future<Output = Result<GetResponse, StoreError>> + Send;

    /// Reads the live keys of a range in order, whole or in pages. Pages at one revision fit together, until that
    /// revision is compacted.
    ///
    /// # Errors
    /// As [`Backend::get`].
    fn list(&self, request: ListRequest) -> impl Future<Output = Result<ListResponse, StoreError>> + Send;

    /// Counts the live keys of a range.
    ///
    /// # Errors
    /// As [`Backend::get`].
    fn count(&self, request: CountRequest) -> impl Future<Output = Result<CountResponse, StoreError>> + Send;

    /// Begins to follow a range. Old events come first, in pages that are read as the watcher asks for them.
    ///
    /// # Errors
    /// [`StoreError::Compacted`] when the first revision of interest is not newer than the compacted one.
    fn watch(&self, request: WatchRequest) -> impl Future<Output = Result<Watcher, StoreError>> + Send;

    /// Sends [`WatchMessage::Progress`](crate::WatchMessage) to every watcher that has all events up to now, behind
    /// those events. A watcher that is behind, or whose queue is full, gets none. Answers with that revision.
    ///
    /// # Errors
    /// [`StoreError::Closed`].
    fn progress(&self) -> impl Future<Output = Result<Revision, StoreError>> + Send;

    /// Drops what can only be seen before `target`: values that were replaced and deletes, up to and with `target`.
    /// Answers when the work is done; reads and writes go on meanwhile, and the compacted revision moves in steps.
    /// After a crash in between the store is compacted up to one of these steps; ask again.
    ///
    /// # Errors
    /// [`StoreError::FutureRevision`] or [`StoreError::Compacted`] when there is nothing to do. Any other error leaves
    /// the store compacted up to some revision before `target`.
    fn compact(&self, target: Revision) -> impl Future<Output = Result<CompactResponse, StoreError>> + Send;

    /// The newest revision, without asking anybody: at least that of every write that was acknowledged before the
    /// question. `None` where others may write to the database too; ask [`Backend::progress`] then.
    fn latest(&self) -> Option<Revision> {
        None
    }

    /// How the store is.
    ///
    /// # Errors
    /// [`StoreError::Closed`], or what the database says.
    fn status(&self) -> impl Future<Output = Result<Status, StoreError>> + Send;

    /// Begins the time to live of a key's value anew, where the store itself ends keys (etcd): whoever keeps leases over
    /// a store calls it when one of them is renewed. Elsewhere that is the caller's own business, and this does nothing.
    ///
    /// # Errors
    /// What the database says. A key that is not there, or lives for ever, is no error.
    fn renew(&self, key: Key) -> impl Future<Output = Result<(), StoreError>> + Send {
        drop(key);
        std::future::ready(Ok(()))
    }

    /// How many connections to the database there are; none in a store that has nothing of the kind.
    fn connections(&self) -> Connections {
        Connections::default()
    }

    /// Creates a key that must not be there. Answers with its revision.
    ///
    /// # Errors
    /// As [`Backend::write`].
    fn create(&self, key: Key, value: Bytes, ttl: Ttl) -> impl Future<Output = Result<Revision, StoreError>> + Send {
        let request = WriteRequest { key, change: Change::Put { value, ttl }, precondition: Precondition::Absent };
        async move { Ok(self.write(request).await?.revision) }
    }

    /// Replaces the value of a key that was last written at `expected`. Answers with the new revision.
    ///
    /// # Errors
    /// As [`Backend::write`].
    fn update(
        &self,
        key: Key,
        expected: Revision,
        value: Bytes,
        ttl: Ttl,
    ) -> impl Future<Output = Result<Revision, StoreError>> + Send {
        let precondition = Precondition::At(expected);
        let request = WriteRequest { key, change: Change::Put { value, ttl }, precondition };
        async move { Ok(self.write(request).await?.revision) }
    }

    /// Removes a key: the one that was last written at `expected`, or whatever is there.
    ///
    /// # Errors
    /// As [`Backend::write`].
    fn delete(
        &self,
        key: Key,
        expected: Option<Revision>,
    ) -> impl Future<Output = Result<WriteResponse, StoreError>> + Send {
        let precondition = expected.map_or(Precondition::None, Precondition::At);
        self.write(WriteRequest { key, change: Change::Delete, precondition })
    }
}

/// The same, for a caller that learns at run time which database it has.
trait Erased: Send + Sync {
    fn write(&self, request: WriteRequest) -> BoxFuture<'_, Result<WriteResponse, StoreError>>;
    fn get(&self, request: GetRequest) -> BoxFuture<'_, Result<GetResponse, StoreError>>;
    fn list(&self, request: ListRequest) -> BoxFuture<'_, Result<ListResponse, StoreError>>;
    fn count(&self, request: CountRequest) -> BoxFuture<'_, Result<CountResponse, StoreError>>;
    fn watch(&self, request: WatchRequest) -> BoxFuture<'_, Result<Watcher, StoreError>>;
    fn progress(&self) -> BoxFuture<'_, Result<Revision, StoreError>>;
    fn compact(&self, target: Revision) -> BoxFuture<'_, Result<CompactResponse, StoreError>>;
    fn status(&self) -> BoxFuture<'_, Result<Status, StoreError>>;
    fn renew(&self, key: Key) -> BoxFuture<'_, Result<(), StoreError>>;
    fn connections(&self) -> Connections;
    fn latest(&self) -> Option<Revision>;
}

impl<B: Backend> Erased for B {
    fn write(&self, request: WriteRequest) -> BoxFuture<'_, Result<WriteResponse, StoreError>> {
        Box::pin(Backend::write(self, request))
    }

    fn get(&self, request: GetRequest) -> BoxFuture<'_, Result<GetResponse, StoreError>> {
        Box::pin(Backend::get(self, request))
    }

    fn list(&self, request: ListRequest) -> BoxFuture<'_, Result<ListResponse, StoreError>> {
        Box::pin(Backend::list(self, request))
    }

    fn count(&self, request: CountRequest) -> BoxFuture<'_, Result<CountResponse, StoreError>> {
        Box::pin(Backend::count(self, request))
    }

    fn watch(&self, request: WatchRequest) -> BoxFuture<'_, Result<Watcher, StoreError>> {
        Box::pin(Backend::watch(self, request))
    }

    fn progress(&self) -> BoxFuture<'_, Result<Revision, StoreError>> {
        Box::pin(Backend::progress(self))
    }

    fn compact(&self, target: Revision) -> BoxFuture<'_, Result<CompactResponse, StoreError>> {
        Box::pin(Backend::compact(self, target))
    }

    fn status(&self) -> BoxFuture<'_, Result<Status, StoreError>> {
        Box::pin(Backend::status(self))
    }

    fn renew(&self, key: Key) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(Backend::renew(self, key))
    }

    fn connections(&self) -> Connections {
        Backend::connections(self)
    }

    fn latest(&self) -> Option<Revision> {
        Backend::latest(self)
    }
}

/// Any store, behind one type. Cloning it shares the store.
#[derive(Clone)]
pub struct AnyBackend(Arc<dyn Erased>);

impl AnyBackend {
    /// Hides which store it is.
    pub fn new(backend: impl Backend) -> Self {
        Self(Arc::new(backend))
    }
}

impl fmt::Debug for AnyBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AnyBackend")
    }
}

impl Backend for AnyBackend {
    async fn write(&self, request: WriteRequest) -> Result<WriteResponse, StoreError> {
        self.0.write(request).await
    }

    async fn get(&self, request: GetRequest) -> Result<GetResponse, StoreError> {
        self.0.get(request).await
    }

    async fn list(&self, request: ListRequest) -> Result<ListResponse, StoreError> {
        self.0.list(request).await
    }

    async fn count(&self, request: CountRequest) -> Result<CountResponse, StoreError> {
        self.0.count(request).await
    }

    async fn watch(&self, request: WatchRequest) -> Result<Watcher, StoreError> {
        self.0.watch(request).await
    }

    async fn progress(&self) -> Result<Revision, StoreError> {
        self.0.progress().await
    }

    async fn compact(&self, target: Revision) -> Result<CompactResponse, StoreError> {
        self.0.compact(target).await
    }

    async fn status(&self) -> Result<Status, StoreError> {
        self.0.status().await
    }

    async fn renew(&self, key: Key) -> Result<(), StoreError> {
        self.0.renew(key).await
    }

    fn connections(&self) -> Connections {
        self.0.connections()
    }

    fn latest(&self) -> Option<Revision> {
        self.0.latest()
    }
}
