//! A process that dies at any moment: what it acknowledged is there, and no revision comes twice.
//!
//! The child writes, compacts and prints what was acknowledged; the parent kills it with SIGKILL, opens the file,
//! compares, and lets the next child go on with the same file.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use k3sd_datastore::{Backend, Sqlite, SqliteOptions, StoreError};

use crate::subject::{Random, events, get, put, rev, revision, watch};

const FILE: &str = "K3SD_CRASH_TEST_FILE";
const WRITERS: usize = 8;

fn options(path: &Path) -> SqliteOptions {
    SqliteOptions { retained_revisions_min: 300, ..SqliteOptions::new(path) }
}

#[test]
#[ignore = "not a test: the crash test runs it as its child"]
fn child() {
    let Some(path) = std::env::var_os(FILE) else { return };
    let store = Sqlite::open(options(Path::new(&path))).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_time().build().unwrap();
    runtime.block_on(async {
        let start = revision(&store).await.get();
        for writer in 0..WRITERS {
            let store = store.clone();
            tokio::spawn(async move {
                for number in 0.. {
                    let (key, text) = (format!("/k/{writer}/{}", number % 5), format!("{start}-{writer}-{number}"));
                    let at = put(&store, &key, &text).await;
                    // One write, so that a line is whole or absent.
                    let line = format!("ack {at} {key} {text}\n");
                    std::io::stdout().write_all(line.as_bytes()).unwrap();
                }
            });
        }
        loop {
            let target = revision(&store).await;
            match store.compact(target).await {
                Ok(_) | Err(StoreError::Compacted { .. }) => {}
                Err(error) => panic!("{error}"),
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
}

/// Runs a child for so long, and returns what it was told is durable: revision, key, value.
fn run_child(path: &Path, life: Duration) -> Vec<(i64, String, String)> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "crash::child", "--ignored", "--nocapture"])
        .env(FILE, path)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let output = child.stdout.take().unwrap();
    let reader = std::thread::spawn(move || {
        let lines = BufReader::new(output).lines().map_while(Result::ok);
        let acks = lines.filter_map(|line| {
            let mut words = line.split(' ').skip_while(|word| *word != "ack").skip(1).map(str::to_owned);
            Some((words.next()?.parse().ok()?, words.next()?, words.next()?))
        });
        acks.collect::<Vec<_>>()
    });
    std::thread::sleep(life);
    child.kill().unwrap();
    let status = child.wait().unwrap();
    assert!(status.code().is_none(), "the child ended by itself: {status}");
    reader.join().unwrap()
}

#[test]
fn what_was_acknowledged_survives_a_kill() {
    let directory = tempfile::tempdir().unwrap();
    let path: PathBuf = directory.path().join("state.db");
    let mut random = Random::new(1);
    let points = std::env::var("CRASH_POINTS").ok().and_then(|points| points.parse().ok());
    let points = points.unwrap_or(if std::env::var_os("CHAOS_LONG").is_some() { 200 } else { 20 });
    let mut acknowledged: HashMap<i64, (String, String)> = HashMap::new();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    for point in 0..points {
        let acks = run_child(&path, Duration::from_millis(30 + random.below(250)));
        let last_known = acknowledged.keys().max().copied().unwrap_or_default();
        for (at, key, text) in acks {
            assert!(at > last_known, "point {point}: revision {at} was given before the last crash");
            let again = acknowledged.insert(at, (key, text));
            assert_eq!(again, None, "point {point}: revision {at} was given twice");
        }
        let store = Sqlite::open(options(&path)).unwrap();
        runtime.block_on(compare(&store, &acknowledged));
    }
    assert!(acknowledged.len() > points * 5, "{} writes in {points} lives are too few to tell", acknowledged.len());
    println!("{} acknowledged writes in {points} lives", acknowledged.len());
}

async fn compare(store: &Sqlite, acknowledged: &HashMap<i64, (String, String)>) {
    let status = store.status().await.unwrap();
    for (at, (key, text)) in acknowledged {
        assert!(*at <= status.revision.get(), "revision {at} is ahead of the store");
        if *at >= status.compacted.get() {
            let kv = get(store, key, Some(rev(*at))).await.unwrap();
            assert_eq!((kv.mod_revision.get(), &kv.value[..]), (*at, text.as_bytes()), "{key} at {at}");
        } else {
            let kv = get(store, key, None).await.unwrap();
            assert!(kv.mod_revision.get() >= *at, "{key} went back from {at}");
        }
    }
    // Every revision since the compaction is an event.
    let first = status.compacted.next();
    let count = usize::try_from(status.revision.get() - status.compacted.get()).unwrap();
    if status.compacted.get() > 1 && count > 0 {
        let mut watcher = watch(store, "", Some(first)).await;
        let events = events(&mut watcher, count).await;
        let revisions = events.iter().map(|event| event.revision().get());
        assert!(revisions.eq(first.get()..=status.revision.get()), "a gap in the log");
    }
}
