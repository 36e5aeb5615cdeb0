//! Trials that are the same for every database server.

use k3sd_datastore::{AnyBackend, Backend, KeyRange, ListRequest, StoreError, Ttl, WatchRequest};
use tokio::task::JoinSet;

use crate::subject::{create, events, get, revision, text, update, value, watch};

/// An error with its sources, as somebody would log it.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let source = error.source().map_or(String::new(), |source| format!(": {}", chain(source)));
    format!("{error}{source}")
}

/// Two servers on one table increment one number, and both tell of each step.
pub(crate) async fn two_servers_count_together(stores: [AnyBackend; 2]) {
    const EACH: usize = 150;
    let start = revision(&stores[0]).await;
    create(&stores[0], "n", "0").await;
    let mut watchers = Vec::new();
    for store in &stores {
        watchers.push(watch(store, "", Some(start.next())).await);
    }
    let mut writers = JoinSet::new();
    for number in 0..4 {
        let store = stores[number % 2].clone();
        writers.spawn(async move {
            for _ in 0..EACH {
                loop {
                    let kv = get(&store, "n", None).await.unwrap();
                    let next = String::from_utf8(kv.value.to_vec()).unwrap().parse::<usize>().unwrap() + 1;
                    if store.update("n".into(), kv.mod_revision, value(&next.to_string()), Ttl::NONE).await.is_ok() {
                        break;
                    }
                }
            }
        });
    }
    writers.join_all().await;
    for store in &stores {
        assert_eq!(text(store, "n", None).await, Some((4 * EACH).to_string()));
    }
    for watcher in &mut watchers {
        let seen: Vec<_> = events(watcher, 4 * EACH + 1).await.iter().map(|event| event.kv.value.clone()).collect();
        assert_eq!(seen, (0..=4 * EACH).map(|number| value(&number.to_string())).collect::<Vec<_>>());
    }
}

/// Kills the server three times under load: what was acknowledged is there, what is unknown is one of two things, and
/// a watcher has every change once.
pub(crate) async fn crashes_lose_nothing(store: &AnyBackend, restart: impl Fn() + Clone + Send + 'static) {
    const CLIENTS: usize = 8;
    let start = revision(store).await;
    let request = WatchRequest::new(KeyRange::all(), Some(start.next()));
    let mut watcher = store.watch(WatchRequest { events_waiting_max: 100_000, ..request }).await.unwrap();
    let mut clients = JoinSet::new();
    for client in 0..CLIENTS {
        let store = store.clone();
        clients.spawn(async move {
            let key = format!("k{client}");
            let (mut acknowledged, mut unknown) = (create(&store, &key, "0").await, 0);
            for number in 1..400 {
                let written = store.update(key.as_str().into(), acknowledged, value(&number.to_string()), Ttl::NONE);
                match written.await {
                    Ok(revision) => acknowledged = revision,
                    Err(StoreError::Unknown { .. }) => {
                        unknown += 1;
                        // Either it happened or it did not; nothing else.
                        let kv = get(&store, &key, None).await.unwrap();
                        let happened = kv.value == value(&number.to_string());
                        assert!(happened || kv.mod_revision == acknowledged, "{kv:?} after {acknowledged}");
                        acknowledged = kv.mod_revision;
                    }
                    Err(error) => panic!("{}", chain(&error)),
                }
            }
            (key, acknowledged, unknown)
        });
    }
    let mut written = 0;
    for round in 1..4 {
        while written < round * 600 {
            written += events(&mut watcher, 1).await.len();
        }
        tokio::task::spawn_blocking(restart.clone()).await.unwrap();
    }
    let mut unknown = 0;
    for (key, acknowledged, times) in clients.join_all().await {
        assert_eq!(get(store, &key, None).await.unwrap().mod_revision, acknowledged);
        unknown += times;
    }
    println!("three crashes, {unknown} unknown outcomes");
    // The watcher had every change, in order and once: as many as the table has.
    let mut past = watch(store, "", Some(start.next())).await;
    let last = create(store, "end", "").await;
    let mut all = Vec::new();
    while all.last() != Some(&last) {
        all.extend(events(&mut past, 1).await.iter().map(|event| event.revision()));
    }
    while written < all.len() {
        written += events(&mut watcher, 1).await.len();
    }
    assert_eq!(written, all.len());
    let live = store.list(ListRequest::new(KeyRange::all())).await.unwrap();
    assert_eq!(live.kvs.len(), CLIENTS + 1);
    update(store, "end", last, "goes on").await;
}
