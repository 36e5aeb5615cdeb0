//! Times what the datastore is asked, under the names that dashboards know.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Bound::{Included, Unbounded};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use bytes::Bytes;
use k3sd_apiserver_store::{Catalog, CatalogHandle};
use k3sd_client::storage::{
    BoxFuture, Change, Compacted, Feed, Got, List, Listed, Precondition, Revision, Storage, StorageError, Write,
    Written,
};
use k3sd_runtime::Clock;
use k3sd_runtime::exposition::{Histogram, head, line};
use tokio::sync::watch;

/// Upper bounds of the buckets, in milliseconds.
const BUCKETS_MS: [u64; 12] = [1, 2, 5, 10, 25, 50, 100, 250, 500, 1000, 5000, 30_000];

/// What is asked.
#[derive(Clone, Copy, Debug)]
enum Operation {
    Get,
    List,
    Count,
    Create,
    Update,
    Delete,
    Compact,
}

impl Operation {
    /// All of them in their order, as metrics name them.
    const ALL: [&str; 7] = ["get", "list", "count", "create", "update", "delete", "compact"];

    fn of(write: &Write) -> Self {
        match (&write.change, &write.precondition) {
            (Change::Delete, _) => Self::Delete,
            (Change::Put { .. }, Precondition::Absent) => Self::Create,
            (Change::Put { .. }, _) => Self::Update,
        }
    }
}

/// What is known of one kind of question about one resource.
#[derive(Debug)]
struct Numbers {
    labels: String,
    times: Histogram<{ BUCKETS_MS.len() }>,
    errors: AtomicU64,
}

/// Numbers by what the keys of a resource begin with.
type ByPrefix = watch::Sender<Arc<BTreeMap<Box<[u8]>, Arc<Numbers>>>>;

/// Numbers of a datastore's answers. Clones share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct StorageNumbers(Arc<[ByPrefix; Operation::ALL.len()]>);

/// The numbers of the resource that a key belongs to.
fn find(numbers: &BTreeMap<Box<[u8]>, Arc<Numbers>>, key: &[u8]) -> Option<Arc<Numbers>> {
    let (prefix, found) = numbers.range::<[u8], _>((Unbounded, Included(key))).next_back()?;
    // Everything begins with nothing, which stands for what belongs to no resource.
    (key.starts_with(prefix) && prefix.is_empty() == key.is_empty()).then(|| found.clone())
}

impl StorageNumbers {
    /// The numbers of an operation on a key. What belongs to no resource that is served counts together.
    fn of(&self, operation: Operation, key: &[u8], catalog: &CatalogHandle) -> Arc<Numbers> {
        let numbers = &self.0[operation as usize];
        if let Some(found) = find(&numbers.borrow(), key) {
            return found;
        }
        let (prefix, group, plural) = place(&catalog.current(), key);
        let mut added = None;
        numbers.send_modify(|numbers| {
            let found = Arc::make_mut(numbers).entry(prefix).or_insert_with(|| {
                let word = Operation::ALL[operation as usize];
                let labels = format!("operation=\"{word}\",group=\"{group}\",resource=\"{plural}\"");
                Arc::new(Numbers { labels, times: Histogram::new(&BUCKETS_MS), errors: AtomicU64::new(0) })
            });
            added = Some(found.clone());
        });
        added.expect("the closure ran")
    }

    /// Everything, in Prometheus' text format.
    pub(crate) fn write(&self, text: &mut String) {
        const NAME: &str = "etcd_request_duration_seconds";
        let all: Vec<Arc<Numbers>> =
            self.0.iter().flat_map(|numbers| numbers.borrow().values().cloned().collect::<Vec<_>>()).collect();
        head(text, NAME, "histogram", "How long the datastore took to answer.");
        all.iter().for_each(|numbers| numbers.times.write(text, NAME, &numbers.labels));
        head(text, "etcd_requests_total", "counter", "Questions to the datastore.");
        all.iter().for_each(|numbers| line(text, "etcd_requests_total", &numbers.labels, numbers.times.count()));
        head(text, "etcd_request_errors_total", "counter", "Questions that the datastore could not answer.");
        for numbers in &all {
            line(text, "etcd_request_errors_total", &numbers.labels, numbers.errors.load(Relaxed));
        }
    }
}

/// What the keys of a resource begin with, its group and its name; nothing of all that for a key of none.
fn place(catalog: &Catalog, key: &[u8]) -> (Box<[u8]>, Arc<str>, Arc<str>) {
    let mut stored = catalog.resources().filter_map(|resource| resource.stored.as_ref());
    match stored.find(|stored| key.starts_with(stored.prefix.as_bytes())) {
        Some(stored) => (stored.prefix.as_bytes().into(), stored.group.clone(), stored.plural.clone()),
        None => (Box::default(), Arc::default(), Arc::default()),
    }
}

/// A datastore whose answers are timed.
pub(crate) struct Timed {
    storage: Arc<dyn Storage>,
    clock: Clock,
    catalog: CatalogHandle,
    numbers: StorageNumbers,
}

impl fmt::Debug for Timed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Timed").field("storage", &self.storage).finish_non_exhaustive()
    }
}

impl Timed {
    pub(crate) fn new(
        storage: Arc<dyn Storage>,
        clock: Clock,
        catalog: CatalogHandle,
        numbers: StorageNumbers,
    ) -> Self {
        Self { storage, clock, catalog, numbers }
    }

    fn time<'a, T: 'a>(
        &'a self,
        operation: Operation,
        key: &[u8],
        answer: BoxFuture<'a, Result<T, StorageError>>,
    ) -> BoxFuture<'a, Result<T, StorageError>> {
        let numbers = self.numbers.of(operation, key, &self.catalog);
        Box::pin(async move {
            let began = self.clock.now();
            let answer = answer.await;
            numbers.times.observe(self.clock.now().since(began));
            // A precondition that doesn't hold is an answer.
            let failed = matches!(&answer, Err(error) if !matches!(error, StorageError::Conflict { .. }));
            numbers.errors.fetch_add(u64::from(failed), Relaxed);
            answer
        })
    }
}

impl Storage for Timed {
    fn write(&self, write: Write) -> BoxFuture<'_, Result<Written, StorageError>> {
        let (operation, key) = (Operation::of(&write), write.key.clone());
        self.time(operation, &key, self.storage.write(write))
    }

    fn get(&self, key: Bytes, at: Option<Revision>) -> BoxFuture<'_, Result<Got, StorageError>> {
        self.time(Operation::Get, &key.clone(), self.storage.get(key, at))
    }

    fn list(&self, list: List) -> BoxFuture<'_, Result<Listed, StorageError>> {
        self.time(Operation::List, &list.prefix.clone(), self.storage.list(list))
    }

    fn count(&self, prefix: Bytes, at: Option<Revision>) -> BoxFuture<'_, Result<u64, StorageError>> {
        self.time(Operation::Count, &prefix.clone(), self.storage.count(prefix, at))
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
        self.time(Operation::Compact, b"", self.storage.compact(target))
    }

    fn is_open(&self) -> bool {
        self.storage.is_open()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k3sd_client::storage::memory::Memory;

    #[tokio::test(start_paused = true)]
    async fn answers_are_timed_and_failures_counted() {
        let clock = Clock::simulated(1);
        let (memory, numbers) = (Memory::new(clock.clone()), StorageNumbers::default());
        let catalog = CatalogHandle::new(Catalog::builtin(|resource| resource.served));
        let timed = Timed::new(Arc::new(memory.clone()), clock, catalog, numbers.clone());
        let write_to = |key: &'static str, precondition| {
            let change = Change::Put { value: "v".into(), ttl: None };
            timed.write(Write { key: key.into(), change, precondition })
        };
        let write = |precondition| write_to("/registry/services/specs/a/x", precondition);
        write(Precondition::Absent).await.expect("it isn't there");
        write(Precondition::Absent).await.expect_err("it is there");
        write_to("/registry/pods/a/x", Precondition::Absent).await.expect("it isn't there");
        write_to("/registry/podsx", Precondition::Absent).await.expect("it isn't there");
        memory.set_open(false);
        write(Precondition::None).await.expect_err("it is closed");
        let mut text = String::new();
        numbers.write(&mut text);
        for line in [
            "etcd_request_duration_seconds_bucket{operation=\"create\",group=\"\",resource=\"services\",le=\"0.001\"} 2",
            "etcd_requests_total{operation=\"create\",group=\"\",resource=\"services\"} 2",
            "etcd_request_errors_total{operation=\"create\",group=\"\",resource=\"services\"} 0",
            "etcd_request_errors_total{operation=\"update\",group=\"\",resource=\"services\"} 1",
            "etcd_requests_total{operation=\"create\",group=\"\",resource=\"pods\"} 1",
            "etcd_requests_total{operation=\"create\",group=\"\",resource=\"\"} 1",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
        assert!(!text.contains("operation=\"get\""), "what never happened is not there");
    }
}
