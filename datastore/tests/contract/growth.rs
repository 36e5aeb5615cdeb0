//! What the file and its log take of the disk stays in proportion.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use k3sd_datastore::{Backend, KeyRange, ListRequest, Sqlite, SqliteOptions, Status};
use tokio::task::JoinSet;

use crate::subject::{create, keys, put, revision};

fn length(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |meta| meta.len())
}

/// Readers that take turns, so that there never is a moment without one, would let SQLite's log grow for ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_stays_within_its_bound_under_constant_readers() {
    const LOG_BYTES_MAX: u64 = 8 << 20;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state.db");
    let log = directory.path().join("state.db-wal");
    let store = Sqlite::open(SqliteOptions { log_bytes_max: LOG_BYTES_MAX, ..SqliteOptions::new(&path) }).unwrap();
    let big = "x".repeat(4000);
    for number in 0..200 {
        create(&store, &format!("/k/{number:03}"), &big).await;
    }
    let (stop, reads) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let mut readers = JoinSet::new();
    for _ in 0..6 {
        let (store, stop, reads) = (store.clone(), stop.clone(), reads.clone());
        readers.spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                let listed = store.list(ListRequest::new(KeyRange::all())).await.unwrap();
                assert!(listed.kvs.len() >= 200);
                reads.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    let (mut longest, mut total) = (0, 0);
    for number in 0..1500 {
        put(&store, &format!("/k/{:03}", number % 200), &big).await;
        longest = longest.max(length(&log));
        total += big.len() as u64 * 4;
    }
    stop.store(true, Ordering::Relaxed);
    readers.join_all().await;
    assert!(total > 2 * LOG_BYTES_MAX, "enough was written to tell");
    assert!(longest <= LOG_BYTES_MAX, "the log was {longest} bytes long");
    assert!(reads.load(Ordering::Relaxed) > 50, "reads went on: {reads:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_compaction_gives_the_space_back() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state.db");
    let options = SqliteOptions { retained_revisions_min: 0, ..SqliteOptions::new(&path) };
    let store = Sqlite::open(options.clone()).unwrap();
    let big = "x".repeat(4000);
    for number in 0..3000 {
        put(&store, &format!("/k/{:03}", number % 100), &big).await;
    }
    let before = store.status().await.unwrap();
    store.compact(revision(&store).await).await.unwrap();
    assert_eq!(keys(&store, KeyRange::all(), None).await.len(), 100);
    let after = settled(&store).await;
    let (taken_before, taken_after) = (before.size_bytes - before.log_bytes, after.size_bytes - after.log_bytes);
    assert!(taken_after < taken_before / 4, "{taken_before} bytes became {taken_after}");
    drop(store);
    assert!(length(&path) < taken_before / 4, "{} bytes in the file", length(&path));
}

/// The state once nothing is being given back any more.
async fn settled(store: &Sqlite) -> Status {
    let mut last = store.status().await.unwrap();
    loop {
        // Any command is answered between two steps of the writer.
        for _ in 0..100 {
            store.progress().await.unwrap();
        }
        let now = store.status().await.unwrap();
        if now == last {
            return now;
        }
        last = now;
    }
}

/// A file that kine made cannot shrink; it is rewritten when it is opened, once.
#[tokio::test]
async fn a_file_that_cannot_shrink_is_made_to() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state.db");
    let kine = rusqlite::Connection::open(&path).unwrap();
    kine.execute_batch(
        "PRAGMA journal_mode = WAL;
        CREATE TABLE kine (id INTEGER PRIMARY KEY AUTOINCREMENT, name INTEGER, created INTEGER, deleted INTEGER,
            create_revision INTEGER, prev_revision INTEGER, lease INTEGER, value BLOB, old_value BLOB);
        CREATE TABLE waste (bytes BLOB); INSERT INTO waste VALUES (zeroblob(4000000)); DROP TABLE waste;",
    )
    .unwrap();
    drop(kine);
    assert!(length(&path) > 4_000_000);
    let store = Sqlite::open(SqliteOptions::new(&path)).unwrap();
    create(&store, "/a", "1").await;
    assert!(length(&path) < 200_000, "{} bytes", length(&path));
    drop(store);
    let mode =
        rusqlite::Connection::open(&path).unwrap().query_row("PRAGMA auto_vacuum", [], |row| row.get::<_, i64>(0));
    assert_eq!(mode, Ok(2));
}
