//! The store's figures, in process, with every commit on the disk: `cargo bench -p k3sd-datastore [-- ROW...]`.
//! `FIGURES_DIR` names the directory to measure in; the file system and the disk below it decide most of what comes out.
//! Below the figures of writes is what each thread of the store took for one of them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
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

/// How many keys are written in turn.
const KEYS: usize = 10_000;
/// A prime, so that steps of this width go by every key, and neighbours in time are none in an order by name.
const STRIDE: usize = 7919;
/// What can be measured by itself.
const ROWS: &[&str] = &["put-1", "put-64", "put-512", "compacting", "watch", "reads", "open"];

async fn put(store: &Sqlite, key: String) -> Revision {
    static VALUE: [u8; VALUE_BYTES] = [b'x'; VALUE_BYTES];
    let change = Change::Put { value: Bytes::from_static(&VALUE), ttl: Ttl::NONE };
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

/// The time that each thread of this process has had so far, in ticks of ten milliseconds: as a user, in the kernel.
fn thread_ticks() -> BTreeMap<String, [u64; 2]> {
    let mut ticks: BTreeMap<String, [u64; 2]> = BTreeMap::new();
    for task in std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten() {
        let stat = std::fs::read_to_string(task.path().join("stat")).unwrap_or_default();
        let Some((name, rest)) = stat.rsplit_once(')') else { continue };
        let name = name.split_once('(').map_or(name, |(_, name)| name).to_owned();
        let mut fields = rest.split_whitespace().skip(11).map(|field| field.parse().unwrap_or(0));
        let sum = ticks.entry(name).or_default();
        for side in sum {
            *side += fields.next().unwrap_or(0);
        }
    }
    ticks
}

/// Prints what each thread has had since `before`, for one of so many.
fn report_threads(before: &BTreeMap<String, [u64; 2]>, count: usize) {
    let micros = |ticks: u64| (ticks * 10_000) as f64 / count as f64;
    for (name, now) in thread_ticks() {
        let then = before.get(&name).copied().unwrap_or_default();
        let [user, kernel] = [0, 1].map(|side| micros(now[side] - then[side]));
        if user + kernel >= 0.1 {
            println!("    {name:<20} {user:>6.1} µs as a user, {kernel:>6.1} µs in the kernel");
        }
    }
}

/// Puts from so many clients over [`KEYS`] keys in no order.
async fn puts(store: &Sqlite, what: &str, clients: usize) {
    let before = thread_ticks();
    let started = Instant::now();
    let mut tasks = JoinSet::new();
    for client in 0..clients {
        let store = store.clone();
        tasks.spawn(async move {
            let mut times = Vec::new();
            while started.elapsed() < SPAN {
                let begun = Instant::now();
                let number = (client + times.len() * clients) * STRIDE % KEYS;
                put(&store, format!("/registry/configmaps/bench/{number:06}")).await;
                times.push(begun.elapsed());
            }
            times
        });
    }
    let times = tasks.join_all().await.concat();
    let count = times.len();
    report(what, started.elapsed(), times);
    report_threads(&before, count);
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
            let number = number * STRIDE % keys;
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
    let wanted: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    if let Some(unknown) = wanted.iter().find(|word| !ROWS.contains(&word.as_str())) {
        eprintln!("unknown: {unknown}; rows: {}", ROWS.join(", "));
        std::process::exit(2);
    }
    let directory = std::env::var_os("FIGURES_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
    let directory = tempfile::tempdir_in(directory).expect("a directory to measure in");
    let path = directory.path().join("state.db");
    let store = Sqlite::open(SqliteOptions::new(&path)).expect("a new store");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().expect("a runtime");
    let is_wanted = |row: &str| wanted.is_empty() || wanted.iter().any(|word| word == row);
    runtime.block_on(async {
        for row in ROWS.iter().copied().filter(|row| is_wanted(row)) {
            match row {
                "put-1" => puts(&store, "puts of 1 KiB, 1 client", 1).await,
                "put-64" => puts(&store, "puts of 1 KiB, 64 clients", 64).await,
                "put-512" => puts(&store, "puts of 1 KiB, 512 clients", 512).await,
                "compacting" => puts_during_compaction(&store).await,
                "watch" => watch_latency(&store).await,
                "reads" => reads(&store, 100_000).await,
                _ => {}
            }
        }
        println!("{:?}", store.status().await.expect("a status"));
    });
    if is_wanted("open") {
        open_again(&runtime, &path, store);
    }
}

/// Adds rows until there are a million, of 100,000 keys, and times opening the file: with the check of all its pages,
/// and without it, which leaves reading the index. Says what the index takes in memory, too.
fn open_again(runtime: &tokio::runtime::Runtime, path: &Path, store: Sqlite) {
    const ROWS_WANTED: usize = 1_000_000;
    const KEYS: usize = 100_000;
    let status = runtime.block_on(store.status()).expect("a status");
    let there = usize::try_from(status.revision.get()).expect("a revision is positive");
    runtime.block_on(async {
        for first in (there..ROWS_WANTED).step_by(512) {
            let mut tasks = JoinSet::new();
            for number in first..ROWS_WANTED.min(first + 512) {
                let store = store.clone();
                let number = number * STRIDE % KEYS;
                tasks.spawn(async move { put(&store, format!("/registry/pods/default/{number:06}")).await });
            }
            tasks.join_all().await;
        }
    });
    drop(store);
    for (what, integrity_check) in [("with a check of the file", true), ("without", false)] {
        let before = resident_bytes();
        let begun = Instant::now();
        let options = SqliteOptions { integrity_check, ..SqliteOptions::new(path) };
        let store = Sqlite::open(options).expect("the same store");
        let took = begun.elapsed();
        let mib = resident_bytes().saturating_sub(before) as f64 / f64::from(1 << 20);
        println!("opening {} rows {what}: {took:.1?}, {mib:.1} MiB more in memory", ROWS_WANTED.max(there));
        drop(store);
    }
}

fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    line.trim().trim_end_matches(" kB").parse().unwrap_or(0) << 10
}
