//! What the caches cost, printed as a table beside the limits that the figures have to keep. Not an ordinary bench: each
//! figure is one scenario over a store in memory, so that nothing but the caches is measured.
//!
//! `cargo bench -p k3sd-apiserver-store --bench caches`

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use k3sd_apiserver_store::{Catalog, CatalogHandle, ListQuery, ObjectStore, ReadAt, Stores, Watch, WatchQuery, tree};
use k3sd_client::storage::memory::Memory;
use k3sd_client::storage::{Change, Precondition, Storage, Write};
use k3sd_objects::selector::FieldSelector;
use k3sd_runtime::{Clock, Moment, System, Tree};
use serde_json::{Value, json};

struct World {
    clock: Clock,
    memory: Memory,
    stores: Stores,
    tree: Tree,
}

impl World {
    async fn empty() -> Self {
        let clock = Clock::system();
        let memory = Memory::new(clock.clone());
        let catalog = CatalogHandle::new(Catalog::builtin(|resource| resource.served));
        let stores = Stores::new(catalog, Arc::new(memory.clone()), clock.clone());
        let tree = System::new(clock.clone()).start(tree(&stores));
        stores.ready().await;
        Self { clock, memory, stores, tree }
    }

    fn pods(&self) -> Arc<ObjectStore> {
        self.stores.get("", "pods").expect("pods are served")
    }

    async fn end(self) {
        self.tree.stop();
        self.tree.ended().await;
    }
}

fn pod(name: &str, node: &str, mark: usize, padding: usize) -> Value {
    json!({ "apiVersion": "v1", "kind": "Pod",
        "metadata": { "namespace": "a", "name": name, "labels": { "app": "web" },
            "annotations": { "padding": "x".repeat(padding) } },
        "spec": { "nodeName": node, "priority": mark } })
}

fn percentile(times: &mut [Duration], share: f64) -> Duration {
    times.sort_unstable();
    times[((times.len() - 1) as f64 * share).round() as usize]
}

/// The time from the beginning of a write until the last of those who watch the resource has the event.
async fn fan_out(watchers: usize) {
    const EVENTS: usize = 200;
    let world = World::empty().await;
    let pods = world.pods();
    let query = WatchQuery { initial_events: Some(false), ..WatchQuery::default() };
    let (sender, mut arrived) = tokio::sync::mpsc::channel::<Moment>(watchers * 2);
    let mut readers = tokio::task::JoinSet::new();
    for _ in 0..watchers {
        let mut watch = pods.watch(&query).await.expect("a watch");
        let (sender, clock) = (sender.clone(), world.clock.clone());
        readers.spawn(async move {
            while watch.next().await.is_some() {
                if sender.send(clock.now()).await.is_err() {
                    return;
                }
            }
        });
    }
    let mut object = pods.create("a", "x", pod("x", "n", 0, 1024), None).await.expect("it is created");
    let mut times = Vec::new();
    for _ in 0..watchers {
        arrived.recv().await;
    }
    for mark in 0..EVENTS {
        let begin = world.clock.now();
        object = pods.update(&object, pod("x", "n", mark + 1, 1024), None).await.expect("it is updated");
        let mut last = begin;
        for _ in 0..watchers {
            last = last.max(arrived.recv().await.expect("readers run"));
        }
        times.push(last.since(begin));
    }
    let (half, most) = (percentile(&mut times, 0.5), percentile(&mut times, 0.99));
    println!("one event, last of {watchers} watchers     p50 {half:>10.1?}  p99 {most:>10.1?}   limit p99 10ms");
    readers.shutdown().await;
    world.end().await;
}

/// The time that a write takes with its event until one watcher has it, while many watch other nodes.
async fn others(watchers: usize) -> Duration {
    const EVENTS: usize = 2000;
    let world = World::empty().await;
    let pods = world.pods();
    let on = |node: &str| WatchQuery {
        fields: FieldSelector::equals("spec.nodeName", node),
        initial_events: Some(false),
        ..WatchQuery::default()
    };
    let mut others: Vec<Watch> = Vec::new();
    for number in 0..watchers {
        others.push(pods.watch(&on(&format!("other{number}"))).await.expect("a watch"));
    }
    let mut watch = pods.watch(&on("n")).await.expect("a watch");
    let mut object = pods.create("a", "x", pod("x", "n", 0, 1024), None).await.expect("it is created");
    let begin = world.clock.now();
    for mark in 0..EVENTS {
        watch.next().await.expect("an event");
        object = pods.update(&object, pod("x", "n", mark + 1, 1024), None).await.expect("it is updated");
    }
    let each = world.clock.now().since(begin) / u32::try_from(EVENTS).expect("a few");
    println!("one write with its event, {watchers:>4} watchers of other nodes    {each:>10.1?}");
    world.end().await;
    each
}

async fn lists() {
    let world = World::empty().await;
    let pods = world.pods();
    for number in 0..10_000 {
        let name = format!("p{number:05}");
        pods.create("a", &name, pod(&name, "n", number, 1024), None).await.expect("it is created");
    }
    for (what, query) in [
        ("all", ListQuery::default()),
        ("of a node", ListQuery { fields: FieldSelector::equals("spec.nodeName", "m"), ..ListQuery::default() }),
        ("page of 500", ListQuery { limit: Some(500), ..ListQuery::default() }),
    ] {
        let mut times = Vec::new();
        for _ in 0..50 {
            let begin = world.clock.now();
            let page = pods.list(&query).await.expect("a list");
            times.push(world.clock.now().since(begin));
            drop(page);
        }
        println!("list of 10000 pods, {what:<12}                     p50 {:>10.1?}", percentile(&mut times, 0.5));
    }
    let begin = world.clock.now();
    for _ in 0..100_000 {
        pods.get("a", "p05000", ReadAt::Latest).await.expect("a read").expect("it is there");
    }
    println!(
        "get of one of 10000 pods                                {:>10.1?}",
        world.clock.now().since(begin) / 100_000
    );
    world.end().await;
}

/// Resident bytes of this process, from the kernel.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<usize>().ok()).unwrap_or_default() * 1024
}

/// A store from which everything is read but that holds nothing itself: it makes each page when it is asked for it.
mod made {
    use k3sd_client::storage::*;

    use super::*;

    #[derive(Debug)]
    pub(super) struct Made {
        pub(super) memory: Memory,
        pub(super) pods: usize,
    }

    impl Storage for Made {
        fn write(&self, write: Write) -> BoxFuture<'_, Result<Written, StorageError>> {
            self.memory.write(write)
        }
        fn get(&self, key: Bytes, at: Option<Revision>) -> BoxFuture<'_, Result<Got, StorageError>> {
            self.memory.get(key, at)
        }
        fn list(&self, list: List) -> BoxFuture<'_, Result<Listed, StorageError>> {
            if &*list.prefix != b"/registry/pods/" {
                return self.memory.list(list);
            }
            let after = list.after.and_then(|after| std::str::from_utf8(&after[17..]).ok()?[1..].parse::<usize>().ok());
            let from = after.map_or(0, |after| after + 1);
            let to = (from + list.limit.unwrap_or(self.pods)).min(self.pods);
            let found = (from..to).map(|number| {
                let name = format!("p{number:06}");
                let value = k3sd_objects::object::stored_bytes(pod(&name, "n", number, 3900));
                KeyValue {
                    key: Bytes::from(format!("/registry/pods/a/{name}")),
                    value: Bytes::from(value),
                    modified: Revision::new(1),
                }
            });
            let listed = Listed { revision: Revision::new(1), found: found.collect(), more: to < self.pods };
            Box::pin(async move { Ok(listed) })
        }
        fn count(&self, prefix: Bytes, at: Option<Revision>) -> BoxFuture<'_, Result<u64, StorageError>> {
            self.memory.count(prefix, at)
        }
        fn watch(&self, prefix: Bytes, from: Option<Revision>) -> BoxFuture<'_, Result<Box<dyn Feed>, StorageError>> {
            self.memory.watch(prefix, from)
        }
        fn progress(&self) -> BoxFuture<'_, Result<Revision, StorageError>> {
            self.memory.progress()
        }
        fn latest(&self) -> Option<Revision> {
            self.memory.latest()
        }
        fn compact(&self, target: Revision) -> BoxFuture<'_, Result<Compacted, StorageError>> {
            self.memory.compact(target)
        }
        fn is_open(&self) -> bool {
            true
        }
    }
}

async fn memory() {
    const PODS: usize = 100_000;
    let clock = Clock::system();
    let storage = made::Made { memory: Memory::new(clock.clone()), pods: PODS };
    let before = resident();
    let begin = clock.now();
    let catalog = CatalogHandle::new(Catalog::builtin(|resource| resource.served));
    let stores = Stores::new(catalog, Arc::new(storage), clock.clone());
    let tree = System::new(clock.clone()).start(tree(&stores));
    stores.ready().await;
    let took = clock.now().since(begin);
    let bytes: usize =
        stores.get("", "pods").expect("they are served").snapshot().iter().map(|pod| pod.bytes().len()).sum();
    let share = (resident() - before) as f64 / bytes as f64;
    println!("{PODS} pods of {} bytes: resident {share:.2} x their bytes   limit 1.5 x", bytes / PODS);
    println!("    filled, with making them, in {took:.2?}");
    tree.stop();
    tree.ended().await;
}

/// Writes as they come, one after the other: what a cache does per event when it is busy.
async fn throughput() {
    const EVENTS: usize = 20_000;
    let world = World::empty().await;
    let pods = world.pods();
    for number in 0..10_000 {
        let name = format!("p{number:05}");
        pods.create("a", &name, pod(&name, "n", number, 1024), None).await.expect("it is created");
    }
    let values: Vec<(Bytes, Bytes)> = (0..EVENTS)
        .map(|mark| {
            let name = format!("p{:05}", mark * 7919 % 10_000);
            let value = k3sd_objects::object::stored_bytes(pod(&name, "n", mark + 10_000, 1024));
            (Bytes::from(format!("/registry/pods/a/{name}")), Bytes::from(value))
        })
        .collect();
    let begin = world.clock.now();
    let mut last = None;
    for (key, value) in values {
        let change = Change::Put { value, ttl: None };
        let write = Write { key, change, precondition: Precondition::None };
        last = Some(world.memory.write(write).await.expect("it is written").revision);
    }
    let at = ReadAt::NotOlderThan(last.expect("something was written"));
    pods.get("a", "p00000", at).await.expect("a read");
    let each = world.clock.now().since(begin) / u32::try_from(EVENTS).expect("a few");
    println!("one event of many into a cache of 10000 pods            {each:>10.1?}");
    world.end().await;
}

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_time().build();
    let runtime = runtime.expect("a runtime");
    runtime.block_on(async {
        memory().await;
        fan_out(1000).await;
        let alone = others(0).await;
        let crowd = others(5000).await;
        println!(
            "    with {:.2} x the time of nobody else   limit: no difference",
            crowd.as_secs_f64() / alone.as_secs_f64()
        );
        lists().await;
        throughput().await;
    });
}
