//! A store that takes its time: whoever waits for it may be dropped before and after each step.

use bytes::Bytes;
use k3sd_client::storage::memory::Memory;
use k3sd_client::storage::{
    BoxFuture, Compacted, Feed, Got, List, Listed, Revision, Storage, StorageError, Write, Written,
};

/// See the module's page.
#[derive(Debug)]
pub(super) struct Slow(pub(super) Memory);

async fn step<T>(work: BoxFuture<'_, T>) -> T {
    tokio::task::yield_now().await;
    let done = work.await;
    tokio::task::yield_now().await;
    done
}

impl Storage for Slow {
    fn write(&self, write: Write) -> BoxFuture<'_, Result<Written, StorageError>> {
        Box::pin(step(self.0.write(write)))
    }

    fn get(&self, key: Bytes, at: Option<Revision>) -> BoxFuture<'_, Result<Got, StorageError>> {
        Box::pin(step(self.0.get(key, at)))
    }

    fn list(&self, list: List) -> BoxFuture<'_, Result<Listed, StorageError>> {
        Box::pin(step(self.0.list(list)))
    }

    fn count(&self, prefix: Bytes, at: Option<Revision>) -> BoxFuture<'_, Result<u64, StorageError>> {
        Box::pin(step(self.0.count(prefix, at)))
    }

    fn watch(&self, prefix: Bytes, from: Option<Revision>) -> BoxFuture<'_, Result<Box<dyn Feed>, StorageError>> {
        self.0.watch(prefix, from)
    }

    fn progress(&self) -> BoxFuture<'_, Result<Revision, StorageError>> {
        self.0.progress()
    }

    fn latest(&self) -> Option<Revision> {
        self.0.latest()
    }

    fn compact(&self, target: Revision) -> BoxFuture<'_, Result<Compacted, StorageError>> {
        self.0.compact(target)
    }

    fn is_open(&self) -> bool {
        self.0.is_open()
    }
}
