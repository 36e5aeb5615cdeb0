//! Lists so long that several readers share them: each shows the store as it was at one moment, while writes and
//! compactions go on.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use k3sd_datastore::{Backend, KeyRange, ListRequest, Sqlite, StoreError};
use tokio::task::JoinSet;

use crate::subject::{options, put, revision};

const KEYS: usize = 2000;
const LISTS: usize = 60;

/// Writes every key, in order.
async fn write_all(store: &Sqlite, round: usize) {
    let mut writes = JoinSet::new();
    // Together, but sent in order, which is the order in which they happen.
    for number in 0..KEYS {
        let store = store.clone();
        writes.spawn(async move { put(&store, &format!("/k/{number:04}"), &format!("{round}:{number}")).await });
    }
    writes.join_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_list_is_of_one_moment_while_history_is_dropped() {
    let directory = tempfile::tempdir().unwrap();
    let store = Sqlite::open(options(&directory)).unwrap();
    write_all(&store, 0).await;
    let stop = Arc::new(AtomicBool::new(false));
    let writer = tokio::spawn({
        let (store, stop) = (store.clone(), stop.clone());
        async move {
            for number in 0.. {
                if stop.load(Ordering::Relaxed) {
                    return number;
                }
                let (round, number) = (1 + number / KEYS, number % KEYS);
                put(&store, &format!("/k/{number:04}"), &format!("{round}:{number}")).await;
            }
            unreachable!("it is stopped before numbers end")
        }
    });
    let compactor = tokio::spawn({
        let (store, stop) = (store.clone(), stop.clone());
        async move {
            while !stop.load(Ordering::Relaxed) {
                match store.compact(revision(&store).await).await {
                    Ok(_) | Err(StoreError::Compacted { .. }) => tokio::task::yield_now().await,
                    Err(error) => panic!("{error}"),
                }
            }
        }
    });
    for _ in 0..LISTS {
        let listed = store.list(ListRequest::new(KeyRange::prefix("/k/"))).await.unwrap();
        let rounds: Vec<usize> = listed.kvs.iter().enumerate().map(|(number, kv)| value(number, kv)).collect();
        assert_eq!(rounds.len(), KEYS);
        let newest = rounds[0];
        let written = rounds.iter().take_while(|round| **round == newest).count();
        // Round after round, key after key: those behind are one round older.
        assert!(
            rounds[written..].iter().all(|round| round + 1 == newest),
            "round {newest} up to {written}: {rounds:?}"
        );
        assert_eq!(listed.kvs.iter().map(|kv| kv.mod_revision).max(), Some(listed.revision));
    }
    stop.store(true, Ordering::Relaxed);
    assert!(writer.await.unwrap() > 0, "writes went on");
    compactor.await.unwrap();
}

/// The round in which a key was written.
fn value(number: usize, kv: &k3sd_datastore::KeyValue) -> usize {
    assert_eq!(kv.key.as_bytes(), format!("/k/{number:04}").as_bytes());
    let text = std::str::from_utf8(&kv.value).unwrap();
    let (round, of) = text.split_once(':').unwrap();
    assert_eq!(of, number.to_string(), "the value is the key's");
    round.parse().unwrap()
}
