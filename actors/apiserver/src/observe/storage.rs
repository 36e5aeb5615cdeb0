//! Times what the datastore is asked, under the names that dashboards know.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use k3sd_client::storage::{
    BoxFuture, Compacted, Feed, Got, List, Listed, Revision, Storage, StorageError, Write, Written,
};
use k3sd_runtime::Clock;

use k3sd_runtime::exposition::{Histogram, head, line};

/// Upper bounds of the buckets, in milliseconds.
const BUCKETS_MS: [u64; 12] = [1, 2, 5, 10, 25, 50, 100, 250, 500, 1000, 5000, 30_000];
/// What is asked.
const OPERATIONS: [&str; 5] = ["get", "list", "count", "update", "compact"];

/// What is known of one kind of question.
#[derive(Debug)]
struct Numbers {
    times: Histogram<{ BUCKETS_MS.len() }>,
    errors: AtomicU64,
}

/// Numbers of a datastore's answers. Clones share them.
#[derive(Clone, Debug)]
pub(crate) struct StorageNumbers(Arc<[Numbers; OPERATIONS.len()]>);

impl Default for StorageNumbers {
    fn default() -> Self {
        let none = |_| Numbers { times: Histogram::new(&BUCKETS_MS), errors: AtomicU64::new(0) };
        Self(Arc::new(std::array::from_fn(none)))
    }
}

impl StorageNumbers {
    fn observe(&self, operation: usize, took: Duration, failed: bool) {
        self.0[operation].times.observe(took);
        self.0[operation].errors.fetch_add(u64::from(failed), Relaxed);
    }

    /// Everything, in Prometheus' text format.
    pub(crate) fn write(&self, text: &mut String) {
        const NAME: &str = "etcd_request_duration_seconds";
        let used = || OPERATIONS.iter().zip(self.0.iter()).filter(|(_, numbers)| numbers.times.count() > 0);
        head(text, NAME, "histogram", "How long the datastore took to answer.");
        for (operation, numbers) in used() {
            numbers.times.write(text, NAME, &format!("operation=\"{operation}\""));
        }
        head(text, "etcd_request_errors_total", "counter", "Questions that the datastore could not answer.");
        for (operation, numbers) in used() {
            let labels = format!("operation=\"{operation}\"");
            line(text, "etcd_request_errors_total", &labels, numbers.errors.load(Relaxed));
        }
    }
}

/// A datastore whose answers are timed.
#[derive(Debug)]
pub(crate) struct Timed {
    storage: Arc<dyn Storage>,
    clock: Clock,
    numbers: StorageNumbers,
}

impl Timed {
    pub(crate) fn new(storage: Arc<dyn Storage>, clock: Clock, numbers: StorageNumbers) -> Self {
        Self { storage, clock, numbers }
    }

    fn time<'a, T: 'a>(
        &'a self,
        operation: usize,
        answer: BoxFuture<'a, Result<T, StorageError>>,
    ) -> BoxFuture<'a, Result<T, StorageError>> {
        Box::pin(async move {
            let began = self.clock.now();
            let answer = answer.await;
            // A precondition that doesn't hold is an answer.
            let failed = matches!(&answer, Err(error) if !matches!(error, StorageError::Conflict { .. }));
            self.numbers.observe(operation, self.clock.now().since(began), failed);
            answer
        })
    }
}

impl Storage for Timed {
    fn write(&self, write: Write) -> BoxFuture<'_, Result<Written, StorageError>> {
        self.time(3, self.storage.write(write))
    }

    fn get(&self, key: Bytes, at: Option<Revision>) -> BoxFuture<'_, Result<Got, StorageError>> {
        self.time(0, self.storage.get(key, at))
    }

    fn list(&self, list: List) -> BoxFuture<'_, Result<Listed, StorageError>> {
        self.time(1, self.storage.list(list))
    }

    fn count(&self, prefix: Bytes, at: Option<Revision>) -> BoxFuture<'_, Result<u64, StorageError>> {
        self.time(2, self.storage.count(prefix, at))
    }

    fn watch(&self, prefix: Bytes, from: Option<Revision>) -> BoxFuture<'_, Result<Box<dyn Feed>, StorageError>> {
        self.storage.watch(prefix, from)
    }

    fn progress(&self) -> BoxFuture<'_, Result<Revision, StorageError>> {
        self.storage.progress()
    }

    fn latest(&self) -> Option<Revision> {
        self.storage.latest()
    }

    fn compact(&self, target: Revision) -> BoxFuture<'_, Result<Compacted, StorageError>> {
        self.time(4, self.storage.compact(target))
    }

    fn is_open(&self) -> bool {
        self.storage.is_open()
    }
}

#[cfg(test)]
mod tests {
    use k3sd_client::storage::memory::Memory;
    use k3sd_client::storage::{Change, Precondition};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn answers_are_timed_and_failures_counted() {
        let clock = Clock::simulated(1);
        let (memory, numbers) = (Memory::new(clock.clone()), StorageNumbers::default());
        let timed = Timed::new(Arc::new(memory.clone()), clock, numbers.clone());
        let write = |precondition| {
            let change = Change::Put { value: "v".into(), ttl: None };
            timed.write(Write { key: "k".into(), change, precondition })
        };
        write(Precondition::Absent).await.expect("it isn't there");
        write(Precondition::Absent).await.expect_err("it is there");
        memory.set_open(false);
        write(Precondition::None).await.expect_err("it is closed");
        let mut text = String::new();
        numbers.write(&mut text);
        for line in [
            "etcd_request_duration_seconds_bucket{operation=\"update\",le=\"0.001\"} 3",
            "etcd_request_duration_seconds_count{operation=\"update\"} 3",
            "etcd_request_errors_total{operation=\"update\"} 1",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
        assert!(!text.contains("operation=\"get\""), "what never happened is not there");
    }
}
