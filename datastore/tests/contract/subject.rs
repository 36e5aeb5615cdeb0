//! The stores under test, and short words for what the rules do.

use bytes::Bytes;
use k3sd_datastore::{
    AnyBackend, Backend, CountRequest, Event, GetRequest, Key, KeyRange, KeyValue, ListRequest, Memory, Precondition,
    Revision, Sqlite, SqliteOptions, StoreError, Ttl, WatchEnd, WatchMessage, WatchRequest, Watcher, WriteRequest,
};
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;

/// Longer than anything here takes on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A store, and the directory it lives in.
pub(crate) struct Subject {
    pub(crate) store: AnyBackend,
    pub(crate) directory: Option<TempDir>,
}

impl Subject {
    /// Closes a store in a file, and opens the file again.
    pub(crate) fn reopen(self) -> Self {
        let Self { store, directory } = self;
        drop(store);
        let directory = directory.expect("a store in a file");
        Self { store: AnyBackend::new(Sqlite::open(options(&directory)).unwrap()), directory: Some(directory) }
    }
}

pub(crate) fn memory() -> Subject {
    Subject { store: AnyBackend::new(Memory::new()), directory: None }
}

/// Options for tests: nothing is kept from a compaction.
pub(crate) fn options(directory: &TempDir) -> SqliteOptions {
    SqliteOptions { retained_revisions_min: 0, ..SqliteOptions::new(directory.path().join("db/state.db")) }
}

pub(crate) fn sqlite() -> Subject {
    with_cache(SqliteOptions::new("").cache_bytes_max)
}

/// The same, but every row is read from the file.
pub(crate) fn sqlite_without_cache() -> Subject {
    with_cache(0)
}

fn with_cache(cache_bytes_max: usize) -> Subject {
    let directory = TempDir::new().unwrap();
    let store = Sqlite::open(SqliteOptions { cache_bytes_max, ..options(&directory) }).unwrap();
    Subject { store: AnyBackend::new(store), directory: Some(directory) }
}

pub(crate) fn value(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

pub(crate) const fn rev(revision: i64) -> Revision {
    Revision::new(revision)
}

pub(crate) async fn create(store: &impl Backend, key: &str, text: &str) -> Revision {
    store.create(key.into(), value(text), Ttl::NONE).await.unwrap()
}

pub(crate) async fn update(store: &impl Backend, key: &str, expected: Revision, text: &str) -> Revision {
    store.update(key.into(), expected, value(text), Ttl::NONE).await.unwrap()
}

/// Writes whatever is there.
pub(crate) async fn put(store: &impl Backend, key: &str, text: &str) -> Revision {
    let change = k3sd_datastore::Change::Put { value: value(text), ttl: Ttl::NONE };
    store.write(WriteRequest { key: key.into(), change, precondition: Precondition::None }).await.unwrap().revision
}

pub(crate) async fn delete(store: &impl Backend, key: &str) -> Revision {
    store.delete(key.into(), None).await.unwrap().revision
}

pub(crate) async fn get(store: &impl Backend, key: &str, at: Option<Revision>) -> Option<KeyValue> {
    store.get(GetRequest { key: key.into(), at }).await.unwrap().kv
}

/// The text under a key.
pub(crate) async fn text(store: &impl Backend, key: &str, at: Option<Revision>) -> Option<String> {
    get(store, key, at).await.map(|kv| String::from_utf8(kv.value.to_vec()).unwrap())
}

pub(crate) async fn revision(store: &impl Backend) -> Revision {
    store.status().await.unwrap().revision
}

pub(crate) async fn keys(store: &impl Backend, range: KeyRange, at: Option<Revision>) -> Vec<String> {
    let response = store.list(ListRequest { at, ..ListRequest::new(range) }).await.unwrap();
    response.kvs.iter().map(|kv| name(&kv.key)).collect()
}

pub(crate) async fn count(store: &impl Backend, range: KeyRange, at: Option<Revision>) -> u64 {
    store.count(CountRequest { range, at }).await.unwrap().count
}

pub(crate) fn name(key: &Key) -> String {
    String::from_utf8(key.as_bytes().to_vec()).unwrap()
}

pub(crate) async fn watch(store: &impl Backend, prefix: &str, from: Option<Revision>) -> Watcher {
    store.watch(WatchRequest::new(KeyRange::prefix(prefix), from)).await.unwrap()
}

pub(crate) async fn message(watcher: &mut Watcher) -> Result<WatchMessage, WatchEnd> {
    tokio::time::timeout(PATIENCE, watcher.next()).await.expect("a message within the patience of the test")
}

/// The next events, at least so many.
pub(crate) async fn events(watcher: &mut Watcher, count: usize) -> Vec<Arc<Event>> {
    let mut events = Vec::new();
    while events.len() < count {
        match message(watcher).await.expect("the watch goes on") {
            WatchMessage::Events(more) => events.extend(more),
            WatchMessage::Progress(_) => {}
        }
    }
    events
}

/// An event in one line: revision, what happened, key, value, and the value and revision before.
pub(crate) fn line(event: &Event) -> String {
    let text = |kv: &KeyValue| String::from_utf8_lossy(&kv.value).into_owned();
    let prev = event
        .prev
        .as_ref()
        .map_or(String::new(), |prev| format!(" was {}@{} of {}", text(prev), prev.mod_revision, prev.create_revision));
    format!("{} {:?} {}={}{prev}", event.revision(), event.kind, event.kv.key, text(&event.kv))
}

pub(crate) fn lines(events: &[Arc<Event>]) -> Vec<String> {
    events.iter().map(|event| line(event)).collect()
}

/// What a conflict found: the revision and value of the key.
#[track_caller]
pub(crate) fn found<T: std::fmt::Debug>(result: Result<T, StoreError>) -> Option<(Revision, String)> {
    let error = result.expect_err("a conflict");
    let conflict = error.conflict().unwrap_or_else(|| panic!("a conflict, not {error}"));
    let current = conflict.current.as_ref();
    current.map(|kv| (kv.mod_revision, String::from_utf8(kv.value.to_vec()).unwrap()))
}

/// A generator of its own: the same numbers for the same seed, everywhere.
pub(crate) struct Random(u64);

impl Random {
    /// The seed of the run, which `CHAOS_SEED` replaces.
    pub(crate) fn new(salt: u64) -> Self {
        let seed = std::env::var("CHAOS_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(20_260_101_u64);
        println!("CHAOS_SEED={seed} repeats this run");
        Self(seed ^ salt.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % limit
    }
}
