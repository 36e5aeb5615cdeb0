//! Rules of watching.

use std::time::Duration;

use k3sd_datastore::{Backend, KeyRange, Ttl, WatchEnd, WatchMessage, WatchRequest};
use tokio::task::JoinSet;

use crate::subject::{Subject, create, delete, events, lines, message, put, rev, revision, update, value, watch};

pub(crate) async fn from_now_on_only_what_is_new(Subject { store, .. }: Subject) {
    create(&store, "a", "old").await;
    let mut watcher = watch(&store, "", None).await;
    let created = create(&store, "b", "new").await;
    assert_eq!(lines(&events(&mut watcher, 1).await), [format!("{created} Create b=new")]);
}

pub(crate) async fn the_past_comes_first_and_complete(Subject { store, .. }: Subject) {
    let start = revision(&store).await.get();
    let created = create(&store, "a", "1").await;
    let mut live = watch(&store, "", Some(created)).await;
    let updated = update(&store, "a", created, "2").await;
    delete(&store, "a").await;
    let anew = create(&store, "a", "3").await;
    update(&store, "a", anew, "4").await;
    let all = vec![
        format!("{} Create a=1", start + 1),
        format!("{} Update a=2 was 1@{created} of {created}", start + 2),
        format!("{} Delete a= was 2@{updated} of {created}", start + 3),
        format!("{} Create a=3", start + 4),
        format!("{} Update a=4 was 3@{anew} of {anew}", start + 5),
    ];
    assert_eq!(lines(&events(&mut live, 5).await), all);
    for skipped in 0..5 {
        let mut past = watch(&store, "", Some(rev(start + 1 + skipped))).await;
        let skipped = usize::try_from(skipped).unwrap();
        assert_eq!(lines(&events(&mut past, 5 - skipped).await), all[skipped..]);
    }
}

pub(crate) async fn only_the_range_is_watched(Subject { store, .. }: Subject) {
    let start = revision(&store).await.next();
    let one = WatchRequest::new(KeyRange::one("/a/1".into()), Some(start));
    let mut one = store.watch(one).await.unwrap();
    let mut prefix = watch(&store, "/a/", Some(start)).await;
    for key in ["/a", "/a/1", "/a0", "/a/1/x", "/b/1", "/a/2"] {
        create(&store, key, "").await;
    }
    let mut past = watch(&store, "/a/", Some(start)).await;
    delete(&store, "/a/1").await;
    for watcher in [&mut prefix, &mut past] {
        let keys: Vec<_> = events(watcher, 4).await.iter().map(|event| event.kv.key.to_string()).collect();
        assert_eq!(keys, ["/a/1", "/a/1/x", "/a/2", "/a/1"]);
    }
    assert_eq!(events(&mut one, 2).await.len(), 2);
}

pub(crate) async fn past_and_present_join_without_gap_or_duplicate(Subject { store, .. }: Subject) {
    const WRITERS: usize = 4;
    const EACH: usize = 400;
    let start = revision(&store).await;
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let store = store.clone();
        writers.spawn(async move {
            for number in 0..EACH {
                put(&store, &format!("/w/{writer}/{}", number % 7), &number.to_string()).await;
            }
        });
    }
    // They begin at different moments, so each of them joins the present somewhere else.
    let mut watchers = JoinSet::new();
    for number in 0..8 {
        let store = store.clone();
        watchers.spawn(async move {
            while revision(&store).await.get() < start.get() + number * 150 {
                tokio::task::yield_now().await;
            }
            let request = WatchRequest::new(KeyRange::prefix("/w/"), Some(start.next()));
            let mut watcher = store.watch(WatchRequest { events_waiting_max: 100_000, ..request }).await.unwrap();
            events(&mut watcher, WRITERS * EACH).await
        });
    }
    writers.join_all().await;
    for events in watchers.join_all().await {
        let revisions: Vec<_> = events.iter().map(|event| event.revision().get()).collect();
        let expected: Vec<_> =
            (0..i64::try_from(WRITERS * EACH).unwrap()).map(|number| start.get() + 1 + number).collect();
        assert_eq!(revisions, expected);
    }
}

pub(crate) async fn a_start_in_the_future_waits_for_it(Subject { store, .. }: Subject) {
    let now = revision(&store).await;
    let mut watcher = watch(&store, "", Some(rev(now.get() + 3))).await;
    for key in ["a", "b", "c", "d"] {
        create(&store, key, "").await;
    }
    let keys: Vec<_> = events(&mut watcher, 2).await.iter().map(|event| event.kv.key.to_string()).collect();
    assert_eq!(keys, ["c", "d"]);
}

pub(crate) async fn a_slow_watcher_is_cut_and_can_go_on(Subject { store, .. }: Subject) {
    let request = WatchRequest { events_waiting_max: 10, ..WatchRequest::new(KeyRange::all(), None) };
    let mut watcher = store.watch(request).await.unwrap();
    let start = revision(&store).await;
    for number in 0..50 {
        create(&store, &format!("k{number:02}"), "").await;
    }
    let (mut seen, next) = (Vec::new(), loop_until_cut(&mut watcher).await);
    seen.extend(next.0);
    assert!((10..50).contains(&seen.len()), "{} were delivered", seen.len());
    assert!(matches!(watcher.next().await, Err(WatchEnd::Lagged { .. })), "and so it stays");
    let mut watcher = watch(&store, "", Some(next.1)).await;
    seen.extend(events(&mut watcher, 50 - seen.len()).await.iter().map(|event| event.revision().get()));
    assert_eq!(seen, (1..=50).map(|number| start.get() + number).collect::<Vec<_>>());

    async fn loop_until_cut(watcher: &mut k3sd_datastore::Watcher) -> (Vec<i64>, k3sd_datastore::Revision) {
        let mut seen = Vec::new();
        loop {
            match message(watcher).await {
                Ok(WatchMessage::Events(events)) => seen.extend(events.iter().map(|event| event.revision().get())),
                Ok(WatchMessage::Progress(_)) => {}
                Err(WatchEnd::Lagged { next }) => return (seen, next),
                Err(other) => panic!("{other:?}"),
            }
        }
    }
}

pub(crate) async fn progress_comes_behind_the_events(Subject { store, .. }: Subject) {
    let mut quiet = watch(&store, "/quiet/", None).await;
    let mut busy = watch(&store, "/busy/", None).await;
    let last = create(&store, "/busy/a", "").await;
    assert_eq!(store.progress().await.unwrap(), last);
    assert_eq!(message(&mut quiet).await.unwrap(), WatchMessage::Progress(last));
    assert!(matches!(message(&mut busy).await.unwrap(), WatchMessage::Events(events) if events[0].revision() == last));
    assert_eq!(message(&mut busy).await.unwrap(), WatchMessage::Progress(last));
}

pub(crate) async fn a_dropped_wait_loses_nothing(Subject { store, .. }: Subject) {
    let start = revision(&store).await;
    for number in 0..700 {
        put(&store, &format!("k{}", number % 3), "").await;
    }
    let mut watcher = watch(&store, "", Some(start.next())).await;
    let mut seen = Vec::new();
    let mut written = 700;
    while seen.len() < 800 {
        // Most of these waits are given up in the middle of a page, of joining, or of waiting for what is new.
        let wait = Duration::from_micros(u64::try_from(seen.len() % 50).unwrap());
        if let Ok(Ok(WatchMessage::Events(events))) = tokio::time::timeout(wait, watcher.next()).await {
            seen.extend(events.iter().map(|event| event.revision().get()));
        }
        if written < 800 {
            put(&store, "k", "").await;
            written += 1;
        }
    }
    assert_eq!(seen, (1..=800).map(|number| start.get() + number).collect::<Vec<_>>());
}

pub(crate) async fn a_past_event_equals_the_one_that_was_live(Subject { store, .. }: Subject) {
    let start = revision(&store).await;
    let mut live = watch(&store, "", None).await;
    let created = store.create("a".into(), value("1"), Ttl::seconds(5)).await.unwrap();
    store.update("a".into(), created, value(""), Ttl::seconds(6)).await.unwrap();
    put(&store, "a", "3").await;
    delete(&store, "a").await;
    put(&store, "a", "4").await;
    put(&store, "a", "5").await;
    let live = events(&mut live, 6).await;
    let past = events(&mut watch(&store, "", Some(start.next())).await, 6).await;
    assert_eq!(live, past);
}
