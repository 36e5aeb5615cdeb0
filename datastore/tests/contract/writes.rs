//! Rules of writing.

use bytes::Bytes;
use k3sd_datastore::{Backend, Change, GetRequest, Key, Precondition, Remedy, Ttl, WriteRequest};
use tokio::task::JoinSet;

use crate::subject::{Subject, create, delete, found, get, put, rev, revision, text, update, value};

pub(crate) async fn a_created_key_is_there(Subject { store, .. }: Subject) {
    let before = revision(&store).await;
    let created = store.create("a".into(), value("1"), Ttl::seconds(7)).await.unwrap();
    assert_eq!(created, before.next());
    let kv = get(&store, "a", None).await.unwrap();
    assert_eq!((kv.create_revision, kv.mod_revision, kv.ttl), (created, created, Ttl::seconds(7)));
    assert_eq!((name(&kv.key), &kv.value[..]), ("a", &b"1"[..]));
    assert_eq!(get(&store, "b", None).await, None);

    fn name(key: &Key) -> &str {
        std::str::from_utf8(key.as_bytes()).unwrap()
    }
}

pub(crate) async fn a_live_key_is_not_created_again(Subject { store, .. }: Subject) {
    let created = create(&store, "a", "1").await;
    let again = store.create("a".into(), value("2"), Ttl::NONE).await;
    assert_eq!(again.as_ref().unwrap_err().remedy(), Remedy::Reread);
    assert_eq!(found(again), Some((created, "1".to_owned())));
    assert_eq!((text(&store, "a", None).await.as_deref(), revision(&store).await), (Some("1"), created));
}

pub(crate) async fn an_update_needs_the_exact_revision(Subject { store, .. }: Subject) {
    let created = create(&store, "a", "1").await;
    let updated = update(&store, "a", created, "2").await;
    for wrong in [created, rev(0), updated.next(), rev(-1)] {
        let stale = store.update("a".into(), wrong, value("3"), Ttl::NONE).await;
        assert_eq!(found(stale), Some((updated, "2".to_owned())), "expected {wrong}");
    }
    let absent = store.update("b".into(), updated, value("3"), Ttl::NONE).await;
    assert_eq!(found(absent), None);
    let kv = get(&store, "a", None).await.unwrap();
    assert_eq!((kv.create_revision, kv.mod_revision, &kv.value[..]), (created, updated, &b"2"[..]));
}

pub(crate) async fn a_delete_needs_the_exact_revision_or_none(Subject { store, .. }: Subject) {
    let created = create(&store, "a", "1").await;
    let stale = store.delete("a".into(), Some(created.next())).await;
    assert_eq!(found(stale), Some((created, "1".to_owned())));
    let deleted = store.delete("a".into(), Some(created)).await.unwrap();
    assert_eq!((deleted.revision, deleted.prev.unwrap().mod_revision), (created.next(), created));
    assert_eq!(get(&store, "a", None).await, None);
    assert_eq!(found(store.delete("a".into(), Some(created)).await), None, "it is gone");
    let again = store.delete("a".into(), None).await.unwrap();
    assert_eq!((again.revision, again.prev), (created.next(), None), "nothing to do is no failure");
    create(&store, "b", "1").await;
    assert_eq!(store.delete("b".into(), None).await.unwrap().prev.unwrap().value, value("1"));
}

pub(crate) async fn a_deleted_key_is_created_anew(Subject { store, .. }: Subject) {
    for round in 0..4 {
        let created = create(&store, "a", &round.to_string()).await;
        let updated = update(&store, "a", created, "x").await;
        assert_eq!(get(&store, "a", None).await.unwrap().create_revision, created);
        delete(&store, "a").await;
        assert_eq!(get(&store, "a", Some(updated)).await.unwrap().create_revision, created);
    }
}

pub(crate) async fn an_unconditional_write_creates_and_replaces(Subject { store, .. }: Subject) {
    let created = put(&store, "a", "1").await;
    let replaced = put(&store, "a", "2").await;
    let kv = get(&store, "a", None).await.unwrap();
    assert_eq!((kv.create_revision, kv.mod_revision), (created, replaced));
    delete(&store, "a").await;
    let anew = put(&store, "a", "3").await;
    assert_eq!(get(&store, "a", None).await.unwrap().create_revision, anew);
}

pub(crate) async fn only_a_change_takes_a_revision(Subject { store, .. }: Subject) {
    let mut expected = revision(&store).await;
    for (key, changes) in [("a", true), ("a", false), ("b", true), ("b", false)] {
        let created = store.create(key.into(), value("1"), Ttl::NONE).await;
        assert_eq!(created.is_ok(), changes);
        expected = if changes { expected.next() } else { expected };
        assert_eq!(revision(&store).await, expected);
    }
    delete(&store, "absent").await;
    assert_eq!(revision(&store).await, expected);
    // The same value is a change all the same.
    assert_eq!(put(&store, "a", "1").await, expected.next());
}

pub(crate) async fn the_latest_revision_is_never_behind(Subject { store, .. }: Subject) {
    for round in 0..50 {
        let written = put(&store, "a", &round.to_string()).await;
        // A store that others write to doesn't know, and says so each time.
        assert!(store.latest().is_none_or(|latest| latest >= written), "{:?} < {written}", store.latest());
        assert!(store.latest().is_none_or(|latest| latest <= written), "nobody else writes");
    }
}

pub(crate) async fn names_of_the_store_are_refused(Subject { store, .. }: Subject) {
    for key in ["", "compact_rev_key", "gap-7", "gap-"] {
        let error = store.create(key.into(), value("1"), Ttl::NONE).await.unwrap_err();
        assert_eq!(error.remedy(), Remedy::Correct, "{key:?}");
        assert_eq!(get(&store, key, None).await, None, "{key:?}");
    }
    create(&store, "compact_rev_key_apiserver", "1").await;
    create(&store, "/gap-1", "1").await;
}

pub(crate) async fn keys_and_values_are_any_bytes(Subject { store, .. }: Subject) {
    let keys: [&'static [u8]; 7] = [b"\0", b"a\0b", b"a\0", b"a", &[0xff], &[0xff, 0xff], "/ü/😀".as_bytes()];
    let bytes: Vec<u8> = (0..=255).cycle().take(70_000).collect();
    for (number, key) in keys.iter().enumerate() {
        let value = Bytes::from(bytes[..number * 10_000].to_vec());
        store.create(Key::new(*key), value, Ttl::NONE).await.unwrap();
    }
    for (number, key) in keys.iter().enumerate() {
        let kv = store.get(GetRequest { key: Key::new(*key), at: None }).await.unwrap().kv.unwrap();
        assert_eq!((kv.key.as_bytes(), &kv.value[..]), (*key, &bytes[..number * 10_000]), "{key:?}");
    }
    let listed = store.list(k3sd_datastore::ListRequest::new(k3sd_datastore::KeyRange::all())).await.unwrap();
    let mut sorted = keys.to_vec();
    sorted.sort_unstable();
    assert_eq!(listed.kvs.iter().map(|kv| kv.key.as_bytes()).collect::<Vec<_>>(), sorted);
}

pub(crate) async fn of_many_creators_one_wins(Subject { store, .. }: Subject) {
    for round in 0..20 {
        let mut creators = JoinSet::new();
        for creator in 0..8 {
            let store = store.clone();
            let key = Key::from(format!("k{round}"));
            creators.spawn(async move { store.create(key, value(&creator.to_string()), Ttl::NONE).await });
        }
        let results = creators.join_all().await;
        let winner = results.iter().find_map(|result| result.as_ref().ok()).unwrap();
        assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1);
        assert_eq!(get(&store, &format!("k{round}"), None).await.unwrap().mod_revision, *winner);
    }
}

pub(crate) async fn concurrent_increments_lose_nothing(Subject { store, .. }: Subject) {
    create(&store, "n", "0").await;
    let mut clients = JoinSet::new();
    for _ in 0..8 {
        let store = store.clone();
        clients.spawn(async move {
            for _ in 0..25 {
                loop {
                    let kv = get(&store, "n", None).await.unwrap();
                    let number: u32 = std::str::from_utf8(&kv.value).unwrap().parse().unwrap();
                    let change = Change::Put { value: value(&(number + 1).to_string()), ttl: Ttl::NONE };
                    let precondition = Precondition::At(kv.mod_revision);
                    if store.write(WriteRequest { key: "n".into(), change, precondition }).await.is_ok() {
                        break;
                    }
                }
            }
        });
    }
    clients.join_all().await;
    assert_eq!(text(&store, "n", None).await.as_deref(), Some("200"));
}
