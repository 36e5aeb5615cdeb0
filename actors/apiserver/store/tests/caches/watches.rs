//! Watches: where they begin, what they say, how they end.

use std::time::Duration;

use k3sd_apiserver_store::{ReadAt, WatchFrom, WatchKind, WatchQuery};
use k3sd_client::storage::{Revision, Storage};
use k3sd_objects::selector::FieldSelector;

use crate::world::{World, code, create, labels, list, pod, since, told, update};

#[tokio::test(start_paused = true)]
async fn a_watch_begins_where_it_is_asked_to() {
    let world = World::new().await;
    let pods = world.pods();
    create(&pods, "a", "x").await;
    let y = create(&pods, "a", "y").await;
    let y = update(&pods, &y, "x", 1).await.expect("it is updated");
    assert_eq!(y.resource_version(), 4);
    let after = |revision| WatchFrom::After(Revision::new(revision));
    for (from, initial_events, wanted) in [
        (WatchFrom::Now, None, &["added x@2", "added y@4"][..]),
        (WatchFrom::Any, None, &["added x@2", "added y@4"]),
        (after(2), None, &["added y@3", "modified y@4"]),
        (after(3), None, &["modified y@4"]),
        (after(4), None, &[]),
        (after(5), None, &[]),
        (WatchFrom::Now, Some(true), &["added x@2", "added y@4", "initial end@4"]),
        (WatchFrom::Any, Some(true), &["added x@2", "added y@4", "initial end@4"]),
        (after(3), Some(true), &["added x@2", "added y@4", "initial end@4"]),
        (WatchFrom::Now, Some(false), &[]),
        (after(3), Some(false), &["modified y@4"]),
    ] {
        let query = WatchQuery { from, initial_events, ..WatchQuery::default() };
        let mut watch = pods.watch(&query).await.expect("a watch");
        assert_eq!(told(&mut watch).await, wanted, "{from:?} {initial_events:?}");
    }
    let query = WatchQuery {
        namespace: Some("a".to_owned()),
        fields: FieldSelector::equals("metadata.name", "y"),
        initial_events: Some(true),
        ..WatchQuery::default()
    };
    let mut only = pods.watch(&query).await.expect("a watch");
    assert_eq!(told(&mut only).await, ["added y@4", "initial end@4"]);
    // One from the future hears nothing before that.
    let mut watch = pods.watch(&since(Revision::new(5))).await.expect("a watch");
    let y = update(&pods, &y, "x", 2).await.expect("it is updated");
    update(&pods, &y, "x", 3).await.expect("it is updated");
    assert_eq!(told(&mut watch).await, ["modified y@6"]);
    let future = WatchQuery { initial_events: Some(true), ..since(Revision::new(99)) };
    assert_eq!(code(pods.watch(&future).await.map(drop)), 504);
}

#[tokio::test(start_paused = true)]
async fn what_is_older_than_the_window_is_expired() {
    let mut world = World::asleep();
    let x = create(&world.pods(), "a", "x").await;
    update(&world.pods(), &x, "x", 1).await.expect("it is updated");
    world.start().await;
    let status = world.pods().watch(&since(Revision::new(2))).await.expect_err("nobody saw that");
    assert_eq!((status.code, &*status.message), (410, "too old resource version: 2 (3)"));
    assert_eq!(code(world.pods().watch(&since(Revision::new(3))).await.map(drop)), 200);
}

#[tokio::test(start_paused = true)]
async fn objects_come_into_a_selection_and_leave_it() {
    let world = World::new().await;
    let pods = world.pods();
    let by_label = WatchQuery { labels: labels("app=y"), ..WatchQuery::default() };
    let by_name = WatchQuery { fields: FieldSelector::equals("metadata.name", "z"), ..WatchQuery::default() };
    let by_namespace = WatchQuery { namespace: Some("b".to_owned()), ..WatchQuery::default() };
    let mut watches = Vec::new();
    for query in [&by_label, &by_name, &by_namespace] {
        watches.push(pods.watch(query).await.expect("a watch"));
    }
    let x = create(&pods, "a", "x").await;
    let x = update(&pods, &x, "y", 1).await.expect("it comes");
    let x = update(&pods, &x, "y", 2).await.expect("it stays");
    let x = update(&pods, &x, "x", 3).await.expect("it leaves");
    pods.delete(&x).await.expect("nobody's business");
    let z = pods.create("b", "z", pod("b", "z", "y", 0), None).await.expect("it is created");
    pods.delete(&z).await.expect("it is deleted");
    let labelled = ["added x@3", "modified x@4", "deleted x@5", "added z@7", "deleted z@8"];
    assert_eq!(told(&mut watches[0]).await, labelled);
    assert_eq!(told(&mut watches[1]).await, ["added z@7", "deleted z@8"]);
    assert_eq!(told(&mut watches[2]).await, ["added z@7", "deleted z@8"]);
}

#[tokio::test(start_paused = true)]
async fn who_leaves_a_selection_is_shown_as_it_was_in_it() {
    let world = World::new().await;
    let pods = world.pods();
    let query = WatchQuery { labels: labels("app=x"), ..WatchQuery::default() };
    let mut watch = pods.watch(&query).await.expect("a watch");
    let x = create(&pods, "a", "x").await;
    update(&pods, &x, "y", 7).await.expect("it leaves");
    watch.next().await.expect("it came");
    let left = watch.next().await.expect("it left");
    assert_eq!(left.kind, WatchKind::Deleted);
    assert_eq!(left.object.value()["spec"]["priority"], 0);
    assert_eq!((left.object.label("app"), left.object.resource_version()), (Some("x"), 3));
}

#[tokio::test(start_paused = true)]
async fn an_event_is_encoded_once_for_all_who_see_it_alike() {
    let world = World::new().await;
    let pods = world.pods();
    let mut one = pods.watch(&WatchQuery::default()).await.expect("a watch");
    let mut other = pods.watch(&WatchQuery::default()).await.expect("a watch");
    create(&pods, "a", "x").await;
    let (one, other) = (one.next().await.expect("an event"), other.next().await.expect("an event"));
    assert_eq!(one.shared.encoded("json", || "first".into()), "first");
    assert_eq!(other.shared.encoded("json", || "second".into()), "first");
    assert_eq!(one.object.bytes().as_ptr(), other.object.bytes().as_ptr(), "nothing is copied");
}

#[tokio::test(start_paused = true)]
async fn bookmarks_say_how_far_the_store_is() {
    let world = World::new().await;
    let pods = world.pods();
    let query = WatchQuery { bookmarks: true, ..WatchQuery::default() };
    let mut watch = pods.watch(&query).await.expect("a watch");
    let mut silent = pods.watch(&WatchQuery::default()).await.expect("a watch");
    // Changes of other resources carry it on.
    let namespaces = world.stores.get("", "namespaces").expect("they are served");
    let value = serde_json::json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": "a" } });
    namespaces.create("", "a", value, None).await.expect("it is created");
    let begin = world.clock.now();
    let mut times = Vec::new();
    for _ in 0..3 {
        let item = watch.next().await.expect("a bookmark");
        assert_eq!(item.kind, WatchKind::Bookmark { initial_events_end: false });
        let value = item.object.value();
        assert_eq!((value["kind"].as_str(), value["metadata"]["resourceVersion"].as_str()), (Some("Pod"), Some("2")));
        times.push(world.clock.now().since(begin).as_secs());
    }
    assert!((30..=95).contains(&times[0]), "{times:?}");
    assert_eq!((times[1] - times[0], times[2] - times[1]), (60, 60));
    assert_eq!(told(&mut silent).await, [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_watch_ends_after_its_time_with_a_last_bookmark() {
    let world = World::new().await;
    let pods = world.pods();
    for bookmarks in [true, false] {
        let timeout = Some(Duration::from_secs(10));
        let query = WatchQuery { bookmarks, timeout, ..WatchQuery::default() };
        let mut watch = pods.watch(&query).await.expect("a watch");
        let begin = world.clock.now();
        let last = watch.next().await;
        assert_eq!(world.clock.now().since(begin).as_secs(), 10);
        assert_eq!(last.is_some(), bookmarks);
        assert!(watch.next().await.is_none());
    }
}

#[tokio::test(start_paused = true)]
async fn a_large_state_comes_whole_while_it_changes() {
    let world = World::new().await;
    let pods = world.pods();
    for number in 0..500 {
        create(&pods, if number % 2 == 0 { "a" } else { "b" }, &format!("p{number:03}")).await;
    }
    let query = WatchQuery { namespace: Some("a".to_owned()), initial_events: Some(true), ..WatchQuery::default() };
    let mut watch = pods.watch(&query).await.expect("a watch");
    for number in (0..500).step_by(2) {
        let name = format!("p{number:03}");
        let old = pods.get("a", &name, ReadAt::Latest).await.expect("a read").expect("it is there");
        pods.delete(&old).await.expect("it is deleted");
    }
    let words = told(&mut watch).await;
    assert_eq!(words.len(), 250 + 1 + 250);
    assert!(words[..250].iter().all(|word| word.starts_with("added ")));
    assert!(words[250].starts_with("initial end@"));
    assert!(words[251..].iter().all(|word| word.starts_with("deleted ")));
}

#[tokio::test(start_paused = true)]
async fn who_reads_too_slowly_is_cut_off_and_nobody_else() {
    let world = World::new().await;
    let pods = world.pods();
    let mut slow = pods.watch(&WatchQuery::default()).await.expect("a watch");
    let mut other = pods.watch(&WatchQuery::default()).await.expect("a watch");
    let mut x = create(&pods, "a", "x").await;
    for mark in 1..3000 {
        x = update(&pods, &x, "x", mark).await.expect("it is updated");
        if mark % 500 == 0 {
            told(&mut other).await;
        }
    }
    let words = told(&mut slow).await;
    assert!(words.len() < 2000);
    assert_eq!(words[words.len() - 2..], ["error 410", "end"]);
    assert_eq!(told(&mut other).await.last().map(String::as_str), Some("modified x@3001"));
}

#[tokio::test(start_paused = true)]
async fn objects_that_expire_are_told_of() {
    let world = World::new().await;
    let pods = world.pods();
    let mut watch = pods.watch(&WatchQuery::default()).await.expect("a watch");
    pods.create("a", "x", pod("a", "x", "x", 0), Some(Duration::from_secs(60))).await.expect("it is created");
    assert_eq!(told(&mut watch).await, ["added x@2"]);
    world.pass(Duration::from_secs(70)).await;
    assert_eq!(told(&mut watch).await, ["deleted x@3"]);
}

#[tokio::test(start_paused = true)]
async fn before_the_caches_are_filled_a_watch_is_asked_to_come_again() {
    let world = World::asleep();
    let status = world.pods().watch(&since(Revision::new(1))).await.expect_err("nobody is there");
    assert_eq!((status.code, &*status.message), (429, "storage is (re)initializing"));
}

/// Whoever hears of a change finds it, also in the answers that may be old.
#[tokio::test(start_paused = true)]
async fn an_event_is_never_ahead_of_the_cache() {
    let world = World::new().await;
    let pods = world.pods();
    let mut watch = pods.watch(&WatchQuery::default()).await.expect("a watch");
    for number in 0..50 {
        let name = format!("x{number}");
        create(&pods, "a", &name).await;
        watch.next().await.expect("an event");
        assert!(pods.get("a", &name, ReadAt::Any).await.expect("a read").is_some());
    }
    assert_eq!(pods.list(&list()).await.expect("a list").revision, world.memory.latest().expect("it tells"));
}
