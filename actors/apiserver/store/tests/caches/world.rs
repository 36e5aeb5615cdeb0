//! A store in memory, the tree of caches above it, and short ways to use them.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use k3sd_apiserver_store::{
    Catalog, CatalogHandle, ListQuery, ObjectStore, Page, ReadAt, Stores, Watch, WatchFrom, WatchItem, WatchKind,
    WatchQuery, WriteError, tree,
};
use k3sd_client::storage::memory::Memory;
use k3sd_client::storage::{Change, Precondition, Revision, Storage, Write};
use k3sd_objects::object::Object;
use k3sd_objects::selector::LabelSelector;
use k3sd_objects::status::Status;
use k3sd_runtime::{Clock, Signal, System, Tree};
use serde_json::{Value, json};

pub(crate) struct World {
    pub(crate) memory: Memory,
    pub(crate) stores: Stores,
    pub(crate) clock: Clock,
    system: System,
    tree: Option<Tree>,
}

impl World {
    /// Nothing runs yet.
    pub(crate) fn asleep() -> Self {
        Self::on(Clock::simulated(1))
    }

    pub(crate) fn on(clock: Clock) -> Self {
        let memory = Memory::new(clock.clone());
        let catalog = CatalogHandle::new(Catalog::builtin(|resource| resource.served));
        let stores = Stores::new(catalog, Arc::new(memory.clone()), clock.clone());
        Self { memory, stores, system: System::new(clock.clone()), clock, tree: None }
    }

    pub(crate) async fn new() -> Self {
        Self::asleep().started().await
    }

    pub(crate) async fn started(mut self) -> Self {
        self.start().await;
        self
    }

    pub(crate) async fn start(&mut self) {
        let tree = self.system.start(tree(&self.stores));
        tree.ready().await.expect("the tree starts");
        self.tree = Some(tree);
        self.stores.ready().await;
    }

    pub(crate) fn pods(&self) -> Arc<ObjectStore> {
        self.stores.get("", "pods").expect("pods are served")
    }

    pub(crate) fn kill(&self, actor: &str) {
        assert!(self.try_kill(actor), "{actor} runs");
    }

    /// Whether somebody was there to be killed.
    pub(crate) fn try_kill(&self, actor: &str) -> bool {
        self.system.signal(actor, Signal::Kill)
    }

    /// Makes an actor panic where it waits.
    pub(crate) fn panic(&self, actor: &str) {
        assert!(self.system.signal(actor, Signal::Panic), "{actor} runs");
    }

    /// Stops the cache of pods, which keeps its place, or starts it again.
    pub(crate) async fn set_away(&self, is_away: bool) {
        let (supervisor, limit) = (self.system.supervisor("resources").expect("it is one"), Duration::from_secs(1));
        let done = if is_away { supervisor.stop(limit, "pods").await } else { supervisor.restart(limit, "pods").await };
        done.expect("it does what it is told");
    }

    /// The names of the caches' actors.
    pub(crate) async fn caches(&self) -> Vec<String> {
        let supervisor = self.system.supervisor("resources").expect("it is one");
        let children = supervisor.list(Duration::from_secs(1)).await.expect("it answers");
        children.into_iter().map(|child| child.name).collect()
    }

    /// Writes past the caches, as somebody else would.
    pub(crate) async fn write_bytes(&self, key: &str, value: impl Into<Bytes>) -> Revision {
        let change = Change::Put { value: value.into(), ttl: None };
        let write = Write { key: Bytes::from(key.to_owned()), change, precondition: Precondition::None };
        self.memory.write(write).await.expect("it is written").revision
    }

    pub(crate) async fn pass(&self, time: Duration) {
        self.clock.sleep_until(self.clock.now() + time).await;
    }
}

pub(crate) fn pod(namespace: &str, name: &str, app: &str, mark: u64) -> Value {
    json!({ "apiVersion": "v1", "kind": "Pod",
        "metadata": { "namespace": namespace, "name": name, "labels": { "app": app } }, "spec": { "priority": mark } })
}

pub(crate) async fn create(store: &ObjectStore, namespace: &str, name: &str) -> Object {
    store.create(namespace, name, pod(namespace, name, "x", 0), None).await.expect("it is created")
}

pub(crate) async fn update(store: &ObjectStore, old: &Object, app: &str, mark: u64) -> Result<Object, WriteError> {
    store.update(old, pod(old.namespace(), old.name(), app, mark), None).await
}

pub(crate) fn list() -> ListQuery {
    ListQuery::default()
}

pub(crate) fn list_at(at: ReadAt) -> ListQuery {
    ListQuery { at, ..list() }
}

pub(crate) fn page(limit: usize, continue_token: Option<String>) -> ListQuery {
    ListQuery { limit: Some(limit), continue_token, ..list() }
}

pub(crate) fn names(page: &Page) -> Vec<String> {
    page.objects.iter().map(|object| format!("{}/{}", object.namespace(), object.name())).collect()
}

pub(crate) fn labels(selector: &str) -> LabelSelector {
    selector.parse().expect("a selector")
}

pub(crate) fn since(revision: Revision) -> WatchQuery {
    WatchQuery { from: WatchFrom::After(revision), ..WatchQuery::default() }
}

/// Everything that a watch says until nothing happens any more, as words.
pub(crate) async fn told(watch: &mut Watch) -> Vec<String> {
    let mut words = Vec::new();
    while let Ok(item) = tokio::time::timeout(Duration::from_secs(1), watch.next()).await {
        let Some(item) = item else {
            words.push("end".to_owned());
            return words;
        };
        words.push(word(&item));
    }
    words
}

pub(crate) fn word(item: &WatchItem) -> String {
    let (name, revision) = (item.object.name(), item.object.resource_version());
    match &item.kind {
        WatchKind::Added => format!("added {name}@{revision}"),
        WatchKind::Modified => format!("modified {name}@{revision}"),
        WatchKind::Deleted => format!("deleted {name}@{revision}"),
        WatchKind::Bookmark { initial_events_end: true } => format!("initial end@{revision}"),
        WatchKind::Bookmark { .. } => format!("bookmark@{revision}"),
        WatchKind::Error(status) => format!("error {}", status.code),
    }
}

pub(crate) fn code<T>(answer: Result<T, Status>) -> i32 {
    answer.map_or_else(|status| status.code, |_| 200)
}
