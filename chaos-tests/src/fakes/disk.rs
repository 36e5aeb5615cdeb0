//! A store in memory that takes as long as one on a disk, so that there are moments at which a request is half done.

use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use k3sd_client::storage::memory::Memory;
use k3sd_client::storage::{
    BoxFuture, Compacted, Feed, Got, List, Listed, Revision, Storage, StorageError, Write, Written,
};
use k3sd_runtime::{Clock, Rng};

/// The store. Clones share it.
#[derive(Clone)]
pub struct Disk {
    /// What it has, and the ways to make it fail.
    pub memory: Memory,
    clock: Clock,
    rng: Arc<Mutex<Rng>>,
    delay_us_max: u64,
}

impl fmt::Debug for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Disk")
    }
}

impl Disk {
    /// Whose reads, and both halves of whose writes, take up to so many microseconds.
    #[must_use]
    pub fn new(memory: Memory, clock: Clock, delay_us_max: u64) -> Self {
        let rng = Arc::new(Mutex::new(clock.rng("disk")));
        Self { memory, clock, rng, delay_us_max }
    }

    fn wait(&self) -> impl Future<Output = ()> + use<> {
        let rng = &mut *self.rng.lock().unwrap_or_else(PoisonError::into_inner);
        let wait = Duration::from_micros(rng.below(self.delay_us_max + 1));
        let clock = self.clock.clone();
        async move { clock.sleep_until(clock.now() + wait).await }
    }
}

impl Storage for Disk {
    fn write(&self, write: Write) -> BoxFuture<'_, Result<Written, StorageError>> {
        Box::pin(async move {
            self.wait().await;
            let written = self.memory.write(write).await;
            self.wait().await;
            written
        })
    }

    fn get(&self, key: Bytes, at: Option<Revision>) -> BoxFuture<'_, Result<Got, StorageError>> {
        Box::pin(async move {
            self.wait().await;
            self.memory.get(key, at).await
        })
    }

    fn list(&self, list: List) -> BoxFuture<'_, Result<Listed, StorageError>> {
        Box::pin(async move {
            self.wait().await;
            self.memory.list(list).await
        })
    }

    fn count(&self, prefix: Bytes, at: Option<Revision>) -> BoxFuture<'_, Result<u64, StorageError>> {
        Box::pin(async move {
            self.wait().await;
            self.memory.count(prefix, at).await
        })
    }

    fn watch(&self, prefix: Bytes, from: Option<Revision>) -> BoxFuture<'_, Result<Box<dyn Feed>, StorageError>> {
        self.memory.watch(prefix, from)
    }

    fn progress(&self) -> BoxFuture<'_, Result<Revision, StorageError>> {
        Box::pin(async move {
            self.wait().await;
            self.memory.progress().await
        })
    }

    fn latest(&self) -> Option<Revision> {
        self.memory.latest()
    }

    fn compact(&self, target: Revision) -> BoxFuture<'_, Result<Compacted, StorageError>> {
        self.memory.compact(target)
    }

    fn is_open(&self) -> bool {
        self.memory.is_open()
    }
}
