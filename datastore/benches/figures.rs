//! The store's figures, in process, with every commit on the disk: `cargo bench -p k3sd-datastore`. `FIGURES_DIR` names
//! the directory to measure in; the file system and the disk below it decide most of what comes out.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use bytes::Bytes;
use k3sd_datastore::{
    Backend, Change, CountRequest, GetRequest, Key, KeyRange, ListRequest, Precondition, Revision, Sqlite,
    SqliteOptions, StoreError, Ttl, WatchMessage, WatchRequest, WriteRequest,
};
use tokio::task::JoinSet;

/// What Kubernetes objects are like.
const VALUE_BYTES: usize = 1024;
/// How long each figure of writes is measured.
const SPAN: Duration = Duration::from_secs(4);

async fn put(store: &Sqlite, key: String) -> Revision {
    let change = Change::Put { value: Bytes::from(vec![b'x'; VALUE_BYTES]), ttl: Ttl::NONE };
    let request = WriteRequest { key: Key::from(key), change, precondition: Precondition::None };
    store.write(request).await.expect("a measurement that fails has no figure").revision
}

/// Prints the middle and the tail of what was measured.
fn report(what: &str, span: Duration, mut times: Vec<Duration>) {
    times.sort_unstable();
    let at = |share: usize| times[(times.len() - 1) * share / 1000];
    let rate = times.len() as f64 / span.as_secs_f64();
    println!("{what:<44} {rate:>9.0}/s   p50 {:>9.1?}   p99 {:>9.1?}   max {:>9.1?}", at(500), at(990), at(1000));
}

/// Puts from so many clients over 10,000 keys.
async fn puts(store: &Sqlite, what: &str, clients: usize) {
    let started = Instant::now();
    let mut tasks = JoinSet::new();
    for client in 0..clients {
        let store = store.clone();
        tasks.spawn(async move {
            let mut times = Vec::new();
            while started.elapsed() < SPAN {
                let begun = Instant::now();
                put(&store, format!("/bench/{:05}", (client + times.len() * clients) % 10_000)).await;
                times.push(begun.elapsed());
            }
            times
        });
    }
    let times = tasks.join_all().await.concat();
    report(what, started.elapsed(), times);
}

async fn watch_latency(store: &Sqlite) {
    let request = WatchRequest::new(KeyRange::prefix("/watched/"), None);
    let mut watcher = store.watch(request).await.expect("a watch from now on");
    let (sender, mut acknowledged) = tokio::sync::mpsc::channel(16);
    let writer = tokio::spawn({
        let store = store.clone();
        async move {
            for number in 0..1000 {
                put(&store, format!("/watched/{number}")).await;
                if sender.send(Instant::now()).await.is_err() {
                    return;
                }
            }
        }
    });
    let (mut beyond, begun) = (Vec::new(), Instant::now());
    while beyond.len() < 1000 {
        if let Ok(WatchMessage::Events(events)) = watcher.next().await {
            let delivered = Instant::now();
            for _ in events {
                let acknowledged = acknowledged.recv().await.expect("an acknowledgement for each event");
                beyond.push(delivered.saturating_duration_since(acknowledged));
            }
        }
    }
    writer.await.expect("the writer does not panic");
    report("put to watch, beyond the acknowledgement", begun.elapsed(), beyond);
}

async fn reads(store: &Sqlite, keys: usize) {
    for first in (0..keys).step_by(512) {
        let mut tasks = JoinSet::new();
        for number in first..keys.min(first + 512) {
            let store = store.clone();
            tasks.spawn(async move { put(&store, format!("/list/{number:06}")).await });
        }
        tasks.join_all().await;
    }
    for (what, limit, rounds) in [("range of 500 of 100,000 keys", Some(500), 300), ("all of 100,000 keys", None, 5)] {
        let (mut times, begun) = (Vec::new(), Instant::now());
        for round in 0..rounds {
            let after = limit.map(|_| Key::from(format!("/list/{:06}", round * 311)));
            let range = KeyRange::prefix("/list/");
            let started = Instant::now();
            let listed = store.list(ListRequest { limit, after, ..ListRequest::new(range) }).await.expect("a list");
            times.push(started.elapsed());
            assert_eq!(listed.kvs.len(), limit.unwrap_or(keys));
        }
        report(what, begun.elapsed(), times);
    }
    let (mut times, begun) = (Vec::new(), Instant::now());
    for round in 0..20_000 {
        let started = Instant::now();
        let key = Key::from(format!("/list/{:06}", round * 7919 % keys));
        assert!(store.get(GetRequest { key, at: None }).await.expect("a get").kv.is_some());
        times.push(started.elapsed());
    }
    report("get, one client", begun.elapsed(), times);
    let begun = Instant::now();
    let count = store.count(CountRequest { range: KeyRange::all(), at: None }).await.expect("a count").count;
    println!("count of {count} keys: {:?}", begun.elapsed());
}

/// Compacts without a pause while 64 clients write.
async fn puts_during_compaction(store: &Sqlite) {
    let compactor = tokio::spawn({
        let store = store.clone();
        async move {
            loop {
                let target = store.status().await.expect("a status").revision;
                match store.compact(target).await {
                    Ok(_) | Err(StoreError::Compacted { .. }) => tokio::task::yield_now().await,
                    Err(error) => panic!("{error}"),
                }
            }
        }
    });
    puts(store, "puts of 1 KiB, 64 clients, compacting", 64).await;
    compactor.abort();
}

fn main() {
    let directory = std::env::var_os("FIGURES_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
    let directory = tempfile::tempdir_in(directory).expect("a directory to measure in");
    let path = directory.path().join("state.db");
    let store = Sqlite::open(SqliteOptions::new(&path)).expect("a new store");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().expect("a runtime");
    runtime.block_on(async {
        puts(&store, "puts of 1 KiB, 1 client", 1).await;
        puts(&store, "puts of 1 KiB, 64 clients", 64).await;
        puts(&store, "puts of 1 KiB, 512 clients", 512).await;
        puts_during_compaction(&store).await;
        watch_latency(&store).await;
        reads(&store, 100_000).await;
        println!("{:?}", store.status().await.expect("a status"));
    });
}
