//! A store whose operations are timed and counted.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use k3sd_datastore::{
    Backend, CompactResponse, Connections, CountRequest, CountResponse, GetRequest, GetResponse, Key, ListRequest,
    ListResponse, Op, Revision, Status, StoreError, WatchRequest, Watcher, WriteRequest, WriteResponse,
};
use k3sd_runtime::Clock;

use super::numbers::Numbers;
use crate::config::SlowConfig;

/// See the module's page.
pub(crate) struct Observed<B> {
    pub(crate) store: B,
    pub(crate) numbers: Arc<Numbers>,
    pub(crate) clock: Clock,
    pub(crate) slow: SlowConfig,
}

impl<B: Backend> Observed<B> {
    /// Times `work`. One that is given up before its end is not counted: nobody knows what it would have come to. The
    /// work is where the caller has it: a future that is handed on by value is in each of the futures around it twice.
    async fn time<T>(
        &self,
        op: Op,
        key: Option<Key>,
        work: Pin<&mut (impl Future<Output = Result<T, StoreError>> + Send)>,
    ) -> Result<T, StoreError> {
        let under_way = self.numbers.begin();
        let start = self.clock.now();
        let result = work.await;
        let took = self.clock.now().since(start);
        drop(under_way);
        self.numbers.observe(op, took, result.as_ref().err());
        if self.slow.is_slow(took) {
            self.tell(op, key, took);
        }
        result
    }

    fn tell(&self, op: Op, key: Option<Key>, took: Duration) {
        let key = key.map(tracing::field::display);
        if took >= self.slow.warn {
            tracing::warn!(%op, key, ?took, "the database is slow");
        } else {
            tracing::info!(%op, key, ?took, "the database is slow");
        }
    }
}

impl<B: Backend> Backend for Observed<B> {
    async fn write(&self, request: WriteRequest) -> Result<WriteResponse, StoreError> {
        self.time(Op::Write, Some(request.key.clone()), pin!(self.store.write(request))).await
    }

    async fn get(&self, request: GetRequest) -> Result<GetResponse, StoreError> {
        self.time(Op::Get, Some(request.key.clone()), pin!(self.store.get(request))).await
    }

    async fn list(&self, request: ListRequest) -> Result<ListResponse, StoreError> {
        self.time(Op::List, Some(request.range.start().clone()), pin!(self.store.list(request))).await
    }

    async fn count(&self, request: CountRequest) -> Result<CountResponse, StoreError> {
        self.time(Op::Count, Some(request.range.start().clone()), pin!(self.store.count(request))).await
    }

    async fn watch(&self, request: WatchRequest) -> Result<Watcher, StoreError> {
        self.time(Op::Watch, Some(request.range.start().clone()), pin!(self.store.watch(request))).await
    }

    async fn progress(&self) -> Result<Revision, StoreError> {
        self.store.progress().await
    }

    async fn compact(&self, target: Revision) -> Result<CompactResponse, StoreError> {
        self.time(Op::Compact, None, pin!(self.store.compact(target))).await
    }

    async fn status(&self) -> Result<Status, StoreError> {
        self.time(Op::Status, None, pin!(self.store.status())).await
    }

    async fn renew(&self, key: Key) -> Result<(), StoreError> {
        self.store.renew(key).await
    }

    fn connections(&self) -> Connections {
        self.store.connections()
    }

    fn latest(&self) -> Option<Revision> {
        self.store.latest()
    }
}
