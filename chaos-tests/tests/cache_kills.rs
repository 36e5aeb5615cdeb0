//! The API server's caches over a real database file: fresh at once, and whole though both keep dying.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use k3sd_apiserver_store::{
    Catalog, CatalogHandle, ListQuery, ObjectStore, ReadAt, Stores, WatchFrom, WatchKind, WatchQuery, WriteError,
};
use k3sd_client::storage::{Revision, Storage};
use k3sd_kine::{KineConfig, SqliteOptions, StoreConfig};
use k3sd_objects::object::Object;
use k3sd_runtime::{Clock, Signal, Spec, Strategy, System, Tree, subtree};
use serde_json::{Value, json};

/// More than anything here takes, on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

struct World {
    system: System,
    stores: Stores,
    tree: Tree,
    _folder: tempfile::TempDir,
}

impl World {
    async fn new() -> Self {
        let folder = tempfile::tempdir().expect("a directory");
        let store = StoreConfig::Sqlite(SqliteOptions::new(folder.path().join("state.db")));
        let kine = k3sd_kine::tree(KineConfig::new(store), Vec::new());
        let clock = Clock::system();
        let catalog = CatalogHandle::new(Catalog::builtin(|resource| resource.served));
        let storage: Arc<dyn Storage> = Arc::new(kine.store.clone());
        let stores = Stores::new(catalog, storage, clock.clone());
        let caches = k3sd_apiserver_store::tree(&stores);
        let root = Spec::new(Strategy::OneForOne)
            .child(subtree("kine", kine.spec.budget(1000, LIMIT)))
            .child(subtree("caches", caches.budget(1000, LIMIT)));
        let system = System::new(clock);
        let tree = system.start(root);
        tree.ready().await.expect("it starts");
        tokio::time::timeout(LIMIT, stores.ready()).await.expect("the caches fill");
        Self { system, stores, tree, _folder: folder }
    }

    fn maps(&self) -> Arc<ObjectStore> {
        self.stores.get("", "configmaps").expect("they are served")
    }

    async fn pass(&self, time: Duration) {
        let clock = self.system.clock();
        clock.sleep_until(clock.now() + time).await;
    }

    async fn end(self) {
        self.tree.stop();
        self.tree.ended().await;
    }
}

fn map(namespace: &str, name: &str, mark: usize) -> Value {
    json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": name, "namespace": namespace },
        "data": { "mark": mark.to_string() } })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_wrote_to_the_database_reads_it_at_once() {
    let world = World::new().await;
    let maps = world.maps();
    let clock = world.system.clock();
    let mut slowest = Duration::ZERO;
    for number in 0..200 {
        let name = format!("x{number}");
        let made = maps.create("a", &name, map("a", &name, number), None).await.expect("it is created");
        let begin = clock.now();
        let listed = maps.list(&ListQuery::default()).await.expect("a list");
        let found = maps.get("a", &name, ReadAt::Latest).await.expect("a read").expect("it is there");
        slowest = slowest.max(clock.now().since(begin));
        assert_eq!((listed.objects.len(), found.bytes()), (number + 1, made.bytes()));
    }
    assert!(slowest < Duration::from_secs(2), "a read waited {slowest:?} for events that were there");
    // Every moment is still in the database.
    let at = |revision| ListQuery { at: ReadAt::Exactly(Revision::new(revision)), ..ListQuery::default() };
    let first = maps.get("a", "x0", ReadAt::Latest).await.expect("a read").expect("it is there");
    assert_eq!(maps.list(&at(first.resource_version())).await.expect("a list").objects.len(), 1);
    world.end().await;
}

/// Writes until the outcome is known, and says the revision of the change if it was made by this very write.
async fn write(maps: &ObjectStore, name: &str, mark: usize) -> Option<u64> {
    loop {
        let Ok(found) = maps.get("a", name, ReadAt::Latest).await else { continue };
        let done = match found {
            None => maps.create("a", name, map("a", name, mark), None).await,
            Some(old) if mark.is_multiple_of(5) => maps.delete(&old).await,
            Some(old) => maps.update(&old, map("a", name, mark), None).await,
        };
        match done {
            Ok(object) => return Some(object.resource_version()),
            // It may have happened; the next one looks.
            Err(WriteError::Failed(status)) if status.code == 504 => return None,
            Err(WriteError::Failed(status)) => assert_eq!(status.code, 503, "{status:?}"),
            Err(WriteError::Exists | WriteError::Conflict { .. }) => {}
        }
        tokio::task::yield_now().await;
    }
}

/// What a reflector saw without listing again: from the list's revision on, each event's.
struct Span {
    list: u64,
    events: Vec<u64>,
}

/// The object that ends the run.
const LAST: &str = "last";

/// A reflector: lists again when it is told to, goes on when a watch just ends. Gives what is there once [`LAST`] is.
async fn follow(maps: &ObjectStore, spans: &mut Vec<Span>) -> BTreeMap<String, u64> {
    loop {
        let Ok(page) = maps.list(&ListQuery::default()).await else { continue };
        let entry = |object: &Object| (object.name().to_owned(), object.resource_version());
        let mut objects: BTreeMap<String, u64> = page.objects.iter().map(entry).collect();
        let mut last = page.revision.get();
        let mut span = Span { list: last, events: Vec::new() };
        let mut is_expired = false;
        while !objects.contains_key(LAST) && !is_expired {
            let from = WatchFrom::After(Revision::new(last));
            let query = WatchQuery { from, timeout: Some(Duration::from_millis(50)), ..WatchQuery::default() };
            let mut watch = match maps.watch(&query).await {
                Ok(watch) => watch,
                Err(status) => {
                    is_expired = status.code == 410;
                    continue;
                }
            };
            while let Some(item) = watch.next().await {
                let (name, revision) = entry(&item.object);
                match item.kind {
                    WatchKind::Added | WatchKind::Modified => objects.insert(name, revision),
                    WatchKind::Deleted => objects.remove(&name),
                    WatchKind::Bookmark { .. } => continue,
                    WatchKind::Error(_) => {
                        is_expired = true;
                        break;
                    }
                };
                assert!(revision > last, "events come once and in order: {revision} after {last}");
                last = revision;
                span.events.push(revision);
            }
        }
        spans.push(span);
        if objects.contains_key(LAST) {
            return objects;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_misses_nothing_whoever_dies() {
    const KILLS: usize = 40;
    // So many writes show something; a busy machine needs more time for them.
    const WRITES: usize = 2 * KILLS;
    let world = World::new().await;
    let maps = world.maps();
    let victims = ["kine/store", "caches/log", "caches/resources/configmaps", "caches/keeper", "caches/resources"];
    let (is_over, written) = (AtomicBool::new(false), AtomicUsize::new(0));
    let drill = async {
        for (number, victim) in victims.iter().cycle().enumerate() {
            if number >= KILLS && written.load(Ordering::Relaxed) >= WRITES {
                break;
            }
            world.pass(Duration::from_millis(40)).await;
            world.system.signal(victim, Signal::Kill);
        }
        is_over.store(true, Ordering::Relaxed);
    };
    let mut acknowledged = BTreeSet::new();
    let writer = async {
        for mark in 0_usize.. {
            if is_over.load(Ordering::Relaxed) {
                break;
            }
            acknowledged.extend(write(&maps, &format!("x{}", mark % 17), mark).await);
            written.store(acknowledged.len(), Ordering::Relaxed);
        }
        while !matches!(maps.get("a", LAST, ReadAt::Latest).await, Ok(Some(_))) {
            acknowledged.extend(write(&maps, LAST, 1).await);
        }
    };
    let mut spans = Vec::new();
    let all = async { tokio::join!(drill, writer, follow(&maps, &mut spans)).2 };
    let objects = tokio::time::timeout(LIMIT, all).await.expect("it heals and goes on");
    let mut seen = 0;
    for Span { list, events } in &spans {
        let last = events.last().copied().unwrap_or(*list);
        let found: BTreeSet<u64> = events.iter().copied().collect();
        let missed: Vec<&u64> =
            acknowledged.range(list + 1..=last.max(*list)).filter(|at| !found.contains(at)).collect();
        assert_eq!(missed, Vec::<&u64>::new(), "between {list} and {last}");
        seen += events.len();
    }
    assert!(seen > KILLS && acknowledged.len() > KILLS, "{seen} events of {} writes were watched", acknowledged.len());
    let listed = maps.list(&ListQuery::default()).await.expect("a list");
    let wanted: BTreeMap<String, u64> =
        listed.objects.iter().map(|object| (object.name().to_owned(), object.resource_version())).collect();
    assert_eq!(objects, wanted);
    world.end().await;
}
