//! Opening and closing a SQLite store, and giving its threads to somebody else.

use k3sd_datastore::{Backend, GetRequest, KeyRange, Sqlite, SqliteOptions, StoreError, Ttl, WatchEnd};
use tokio::task::JoinSet;

use crate::subject::{count, create, message, options, put, revision, text, value, watch};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn closing_finishes_what_was_asked_and_refuses_the_rest() {
    let directory = tempfile::tempdir().unwrap();
    let store = Sqlite::open(options(&directory)).unwrap();
    let mut watcher = watch(&store, "", None).await;
    let mut writers = JoinSet::new();
    for number in 0..200 {
        let store = store.clone();
        writers.spawn(async move { store.create(format!("/k/{number}").into(), value(""), Ttl::NONE).await });
    }
    while revision(&store).await.get() < 5 {
        tokio::task::yield_now().await;
    }
    let closing = store.clone();
    tokio::task::spawn_blocking(move || closing.close()).await.unwrap();
    let results = writers.join_all().await;
    let acknowledged = results.iter().filter(|result| result.is_ok()).count();
    for error in results.iter().filter_map(|result| result.as_ref().err()) {
        assert!(matches!(error, StoreError::Closed | StoreError::Unknown { .. }), "{error:?}");
    }
    assert!(matches!(store.get(GetRequest { key: "a".into(), at: None }).await, Err(StoreError::Closed)));
    assert!(matches!(store.create("a".into(), value(""), Ttl::NONE).await, Err(StoreError::Closed)));
    let end = loop {
        if let Err(end) = message(&mut watcher).await {
            break end;
        }
    };
    let WatchEnd::Closed { next } = end else { panic!("{end:?}") };
    store.close();

    let store = Sqlite::open(options(&directory)).unwrap();
    let kept = count(&store, KeyRange::all(), None).await;
    assert!(kept >= acknowledged as u64, "{kept} of {acknowledged}");
    assert_eq!(next, revision(&store).await.next(), "the watcher had got everything");
}

#[tokio::test]
async fn what_was_written_is_there_after_opening_again() {
    let directory = tempfile::tempdir().unwrap();
    for round in 0..5 {
        let store = Sqlite::open(options(&directory)).unwrap();
        assert_eq!(count(&store, KeyRange::all(), None).await, round);
        let at = put(&store, &format!("/k/{round}"), &round.to_string()).await;
        assert_eq!(at.get(), 2 + i64::try_from(round).unwrap());
        assert_eq!(text(&store, "/k/0", None).await.as_deref(), Some("0"));
    }
}

#[tokio::test]
async fn somebody_else_can_run_the_threads() {
    let directory = tempfile::tempdir().unwrap();
    let (store, bodies) = Sqlite::assemble(options(&directory)).unwrap();
    assert!(bodies.iter().all(|body| body.name.len() <= 15), "{bodies:?}");
    let threads: Vec<_> = bodies.into_iter().map(|body| std::thread::spawn(move || body.run())).collect();
    create(&store, "/a", "1").await;
    assert_eq!(text(&store, "/a", None).await.as_deref(), Some("1"));
    let mut watcher = watch(&store, "", None).await;
    drop(store);
    for thread in threads {
        thread.join().unwrap();
    }
    assert!(matches!(message(&mut watcher).await, Err(WatchEnd::Closed { .. })));
}

#[tokio::test]
async fn threads_that_never_run_refuse_everything() {
    let directory = tempfile::tempdir().unwrap();
    let (store, bodies) = Sqlite::assemble(options(&directory)).unwrap();
    drop(bodies);
    assert!(matches!(store.create("a".into(), value(""), Ttl::NONE).await, Err(StoreError::Closed)));
    assert!(matches!(store.status().await, Err(StoreError::Closed)));
}

#[tokio::test]
async fn a_log_that_is_another_programs_is_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let kept = || SqliteOptions { keep_log: true, ..options(&directory) };
    let log = directory.path().join("db/state.db-wal");
    let log_bytes = || std::fs::metadata(&log).map_or(0, |log| log.len());
    let long = "x".repeat(256 << 10);
    let store = Sqlite::open(kept()).unwrap();
    for number in 0..80 {
        put(&store, &format!("/k/{number}"), &long).await;
    }
    // More than what is copied at a time, and more than what closes the gate.
    let written = log_bytes();
    assert!(written > 20 << 20, "{written}");
    drop(store);
    assert_eq!(log_bytes(), written, "closing has left it");
    let store = Sqlite::open(kept()).unwrap();
    assert!(log_bytes() >= written, "so has opening");
    assert_eq!(count(&store, KeyRange::all(), None).await, 80);
    drop(store);
    let store = Sqlite::open(options(&directory)).unwrap();
    assert_eq!((log_bytes(), count(&store, KeyRange::all(), None).await), (0, 80), "now it is ours");
}
