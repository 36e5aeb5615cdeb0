//! Rules of reading.

use k3sd_datastore::{Backend, CountRequest, GetRequest, KeyRange, ListRequest, Revision, StoreError, Ttl};

use crate::subject::{Subject, count, create, delete, keys, name, put, rev, revision, text, update, value};

pub(crate) async fn a_read_sees_one_revision(Subject { store, .. }: Subject) {
    let first = create(&store, "a", "1").await;
    let second = update(&store, "a", first, "2").await;
    let other = create(&store, "b", "1").await;
    let gone = delete(&store, "a").await;
    let anew = create(&store, "a", "3").await;
    for (at, a, all) in [
        (first.previous(), None, vec![]),
        (first, Some("1"), vec!["a"]),
        (second, Some("2"), vec!["a"]),
        (other, Some("2"), vec!["a", "b"]),
        (gone, None, vec!["b"]),
        (anew, Some("3"), vec!["a", "b"]),
    ] {
        assert_eq!(text(&store, "a", Some(at)).await.as_deref(), a, "at {at}");
        assert_eq!(keys(&store, KeyRange::all(), Some(at)).await, all, "at {at}");
        assert_eq!(count(&store, KeyRange::all(), Some(at)).await, all.len() as u64, "at {at}");
    }
}

pub(crate) async fn a_list_is_in_order_and_within_its_range(Subject { store, .. }: Subject) {
    for key in ["/b/2", "/a/2", "/a", "/a0", "/b/1", "/a/1", "/a/1/x", "/a_1"] {
        create(&store, key, key).await;
    }
    let all = vec!["/a", "/a/1", "/a/1/x", "/a/2", "/a0", "/a_1", "/b/1", "/b/2"];
    for (range, expected) in [
        (KeyRange::all(), all),
        (KeyRange::prefix("/a/"), vec!["/a/1", "/a/1/x", "/a/2"]),
        // In a LIKE pattern the underscore would stand for anything.
        (KeyRange::prefix("/a_"), vec!["/a_1"]),
        (KeyRange::one("/a".into()), vec!["/a"]),
        (KeyRange::half_open("/a/2".into(), "/b/2".into()), vec!["/a/2", "/a0", "/a_1", "/b/1"]),
        (KeyRange::half_open("/b".into(), "/a".into()), vec![]),
        (KeyRange::from("/b".into()), vec!["/b/1", "/b/2"]),
        (KeyRange::prefix("/c"), vec![]),
    ] {
        assert_eq!(keys(&store, range.clone(), None).await, expected, "{range:?}");
        assert_eq!(count(&store, range.clone(), None).await, expected.len() as u64, "{range:?}");
    }
}

pub(crate) async fn pages_at_a_revision_fit_together(Subject { store, .. }: Subject) {
    for number in 0..25 {
        create(&store, &format!("/k/{number:02}"), "1").await;
    }
    let mut request = ListRequest { limit: Some(7), ..ListRequest::new(KeyRange::prefix("/k/")) };
    let mut seen = Vec::new();
    loop {
        let page = store.list(request.clone()).await.unwrap();
        request.at = request.at.or(Some(page.revision));
        request.after = page.kvs.last().map(|kv| kv.key.clone());
        seen.extend(page.kvs.iter().map(|kv| name(&kv.key)));
        // The range changes between the pages, which they must not show.
        delete(&store, &format!("/k/{:02}", seen.len() % 25)).await;
        put(&store, &format!("/k/{:02}x", seen.len()), "new").await;
        if !page.more {
            break;
        }
    }
    assert_eq!(seen, (0..25).map(|number| format!("/k/{number:02}")).collect::<Vec<_>>());
}

pub(crate) async fn a_limit_tells_whether_there_is_more(Subject { store, .. }: Subject) {
    for key in ["a", "b", "c"] {
        create(&store, key, "1").await;
    }
    for (limit, length, more) in [
        (Some(0), 0, true),
        (Some(1), 1, true),
        (Some(2), 2, true),
        (Some(3), 3, false),
        (Some(9), 3, false),
        (Some(usize::MAX), 3, false),
        (None, 3, false),
    ] {
        let page = store.list(ListRequest { limit, ..ListRequest::new(KeyRange::all()) }).await.unwrap();
        assert_eq!((page.kvs.len(), page.more), (length, more), "limit {limit:?}");
    }
}

pub(crate) async fn a_list_carries_the_revision_of_the_store(Subject { store, .. }: Subject) {
    create(&store, "/quiet/a", "1").await;
    for number in 0..5 {
        create(&store, &format!("/busy/{number}"), "1").await;
    }
    let newest = revision(&store).await;
    for range in [KeyRange::prefix("/quiet/"), KeyRange::prefix("/empty/")] {
        assert_eq!(store.list(ListRequest::new(range.clone())).await.unwrap().revision, newest);
        assert_eq!(store.count(CountRequest { range, at: None }).await.unwrap().revision, newest);
    }
    assert_eq!(store.get(GetRequest { key: "/none".into(), at: None }).await.unwrap().revision, newest);
}

pub(crate) async fn keys_only_and_expiring_only(Subject { store, .. }: Subject) {
    for (key, seconds) in [("a", 0), ("b", 5), ("c", 0), ("d", 9)] {
        store.create(key.into(), value("1"), Ttl::seconds(seconds)).await.unwrap();
    }
    let request =
        ListRequest { keys_only: true, expiring_only: true, limit: Some(2), ..ListRequest::new(KeyRange::all()) };
    let page = store.list(request).await.unwrap();
    let short: Vec<_> = page.kvs.iter().map(|kv| (name(&kv.key), kv.value.len(), kv.ttl.as_seconds())).collect();
    assert_eq!((short, page.more), (vec![("b".to_owned(), 0, 5), ("d".to_owned(), 0, 9)], false));
}

pub(crate) async fn a_count_counts_live_keys(Subject { store, .. }: Subject) {
    for number in 0..10 {
        create(&store, &format!("k{number}"), "1").await;
    }
    put(&store, "k1", "2").await;
    delete(&store, "k2").await;
    assert_eq!(count(&store, KeyRange::prefix("k"), None).await, 9);
    assert_eq!(count(&store, KeyRange::half_open("k1".into(), "k4".into()), None).await, 2);
}

pub(crate) async fn the_future_is_refused(Subject { store, .. }: Subject) {
    let newest = create(&store, "a", "1").await;
    let at = Some(newest.next());
    let get = store.get(GetRequest { key: "a".into(), at }).await.map(drop);
    let list = store.list(ListRequest { at, ..ListRequest::new(KeyRange::all()) }).await.map(drop);
    let count = store.count(CountRequest { range: KeyRange::all(), at }).await.map(drop);
    for result in [get, list, count] {
        assert!(is_future(&result, newest), "{result:?}");
    }
    let negative = store.get(GetRequest { key: "a".into(), at: Some(rev(-1)) }).await;
    assert!(matches!(negative, Err(StoreError::Compacted { .. })), "{negative:?}");

    fn is_future(result: &Result<(), StoreError>, newest: Revision) -> bool {
        matches!(result, Err(StoreError::FutureRevision { requested, current })
            if *requested == newest.next() && *current == newest)
    }
}
