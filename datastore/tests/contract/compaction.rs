//! Rules of dropping history.

use k3sd_datastore::{
    Backend, GetRequest, KeyRange, ListRequest, Revision, StoreError, WatchEnd, WatchMessage, WatchRequest,
};

use crate::subject::{Subject, count, create, delete, events, get, keys, message, put, revision, text, update, watch};

#[track_caller]
fn assert_compacted<T: std::fmt::Debug>(result: Result<T, StoreError>, expected: Revision) {
    match result {
        Err(StoreError::Compacted { compacted, .. }) => assert_eq!(compacted, expected),
        other => panic!("{other:?} instead of compacted"),
    }
}

pub(crate) async fn history_is_gone_and_the_present_is_not(Subject { store, .. }: Subject) {
    let first = create(&store, "a", "1").await;
    let second = update(&store, "a", first, "2").await;
    create(&store, "b", "1").await;
    delete(&store, "b").await;
    let last = create(&store, "c", "1").await;
    let done = store.compact(last).await.unwrap();
    assert_eq!((done.compacted, done.revision), (last, last));
    assert_eq!(store.status().await.unwrap().compacted, last);
    for at in [first, second, last.previous()] {
        assert_compacted(store.get(GetRequest { key: "a".into(), at: Some(at) }).await, last);
        assert_compacted(store.list(ListRequest { at: Some(at), ..ListRequest::new(KeyRange::all()) }).await, last);
    }
    assert_eq!(keys(&store, KeyRange::all(), None).await, ["a", "c"]);
    let kv = get(&store, "a", None).await.unwrap();
    assert_eq!((kv.create_revision, kv.mod_revision, &kv.value[..]), (first, second, &b"2"[..]));
}

pub(crate) async fn the_compacted_revision_itself_can_be_read(Subject { store, .. }: Subject) {
    create(&store, "a", "1").await;
    let at = put(&store, "a", "2").await;
    put(&store, "a", "3").await;
    create(&store, "b", "1").await;
    store.compact(at).await.unwrap();
    assert_eq!(text(&store, "a", Some(at)).await.as_deref(), Some("2"));
    assert_eq!(keys(&store, KeyRange::all(), Some(at)).await, ["a"]);
    assert_eq!(count(&store, KeyRange::all(), Some(at)).await, 1);
}

pub(crate) async fn a_watch_from_compacted_history_is_refused(Subject { store, .. }: Subject) {
    let created = create(&store, "a", "1").await;
    let at = update(&store, "a", created, "2").await;
    let after = put(&store, "a", "3").await;
    store.compact(at).await.unwrap();
    for from in [Revision::new(-1), Revision::ZERO, created, at] {
        assert_compacted(store.watch(WatchRequest::new(KeyRange::all(), Some(from))).await, at);
    }
    let mut watcher = watch(&store, "", Some(after)).await;
    let event = events(&mut watcher, 1).await.remove(0);
    let prev = event.prev.as_ref().unwrap();
    assert_eq!((prev.create_revision, prev.mod_revision, &prev.value[..]), (created, at, &b"2"[..]));
}

pub(crate) async fn a_compaction_needs_a_revision_between(Subject { store, .. }: Subject) {
    create(&store, "a", "1").await;
    let at = put(&store, "a", "2").await;
    let last = put(&store, "a", "3").await;
    assert!(matches!(store.compact(last.next()).await, Err(StoreError::FutureRevision { .. })));
    store.compact(at).await.unwrap();
    assert_compacted(store.compact(at).await, at);
    assert_compacted(store.compact(at.previous()).await, at);
    assert_compacted(store.compact(Revision::new(-5)).await, at);
    store.compact(last).await.unwrap();
}

pub(crate) async fn a_deleted_key_leaves_nothing_and_comes_back(Subject { store, .. }: Subject) {
    for _ in 0..3 {
        create(&store, "a", "1").await;
        put(&store, "a", "2").await;
        let deleted = delete(&store, "a").await;
        store.compact(deleted).await.unwrap();
        assert_eq!(get(&store, "a", None).await, None);
        assert_eq!(count(&store, KeyRange::all(), Some(deleted)).await, 0);
    }
    let created = create(&store, "a", "3").await;
    let updated = put(&store, "a", "4").await;
    store.compact(updated).await.unwrap();
    assert_eq!(get(&store, "a", None).await.unwrap().create_revision, created);
}

pub(crate) async fn the_newest_revision_survives_its_compaction(Subject { store, .. }: Subject) {
    create(&store, "a", "1").await;
    let last = delete(&store, "a").await;
    store.compact(last).await.unwrap();
    assert_eq!(revision(&store).await, last);
    assert_eq!(create(&store, "b", "1").await, last.next());
}

pub(crate) async fn a_watcher_of_the_past_learns_of_a_compaction(Subject { store, .. }: Subject) {
    let start = revision(&store).await;
    for number in 0..2000 {
        put(&store, "a", &number.to_string()).await;
    }
    let mut watcher = watch(&store, "", Some(start.next())).await;
    let last = revision(&store).await;
    store.compact(last).await.unwrap();
    let mut next = start.next();
    let end = loop {
        match message(&mut watcher).await {
            Ok(WatchMessage::Events(events)) => {
                for event in events {
                    assert_eq!(event.revision(), next, "complete up to where it ends");
                    next = next.next();
                }
            }
            Ok(WatchMessage::Progress(_)) => {}
            Err(end) => break end,
        }
    };
    assert!(matches!(end, WatchEnd::Compacted { compacted } if compacted == last), "{end:?} at {next}");
}

pub(crate) async fn writes_and_reads_go_on_meanwhile(Subject { store, .. }: Subject) {
    for number in 0..1500 {
        put(&store, &format!("k{}", number % 10), "x").await;
    }
    let target = revision(&store).await;
    let compacting = tokio::spawn({
        let store = store.clone();
        async move { store.compact(target).await }
    });
    let mut writes = 0;
    while !compacting.is_finished() || writes < 10 {
        put(&store, "k0", "y").await;
        assert_eq!(count(&store, KeyRange::all(), None).await, 10);
        writes += 1;
        // A store that is always ready would leave the compaction no turn on this thread.
        tokio::task::yield_now().await;
    }
    assert_eq!(compacting.await.unwrap().unwrap().compacted, target);
    let mut watcher = watch(&store, "", Some(target.next())).await;
    assert_eq!(events(&mut watcher, writes).await.len(), writes);
}
