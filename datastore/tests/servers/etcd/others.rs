//! Trials of times to live, which are etcd's business, and of other programs on the same keys.

use std::time::{Duration, Instant};

use k3sd_datastore::{
    Backend, EtcdTls, EventKind, GetRequest, KeyRange, Revision, StoreError, Ttl, WatchEnd, WatchRequest,
};

use super::proxy::Proxy;
use super::server::EtcdCluster;
use super::{open, single, try_open};
use crate::runner::Trial;
use crate::subject::{count, create, events, get, message, put, value, watch};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        Trial::new("etcd_ends_what_has_a_time_to_live", etcd_ends_what_has_a_time_to_live),
        Trial::new("leases_of_others_are_kept_and_not_understood", leases_of_others_are_kept_and_not_understood),
        Trial::new("changes_of_one_transaction_come_together", changes_of_one_transaction_come_together),
        Trial::new("two_stores_share_a_cluster", two_stores_share_a_cluster),
        Trial::new("a_compaction_of_others_is_found", a_compaction_of_others_is_found),
        Trial::new("what_was_compacted_while_away_ends_watches", what_was_compacted_while_away_ends_watches),
        Trial::new("what_happened_while_away_comes_late", what_happened_while_away_comes_late),
    ]
}

async fn etcd_ends_what_has_a_time_to_live() {
    let cluster = single();
    let store = open(&cluster).await;
    let mut watcher = watch(&store, "", None).await;
    let began = Instant::now();
    for key in ["a", "b", "c"] {
        store.create(key.into(), value("1"), Ttl::seconds(2)).await.unwrap();
    }
    let kept = store.create("kept".into(), value("1"), Ttl::seconds(2)).await.unwrap();
    store.update("kept".into(), kept, value("2"), Ttl::NONE).await.unwrap();
    store.create("renewed".into(), value("1"), Ttl::seconds(2)).await.unwrap();
    tokio::time::sleep(Duration::from_millis(1200)).await;
    for key in ["renewed", "kept", "absent"] {
        store.renew(key.into()).await.unwrap();
    }
    let seen = events(&mut watcher, 9).await;
    assert!(began.elapsed() >= Duration::from_secs(2), "it lived for {:?}", began.elapsed());
    let ended: Vec<_> = seen.iter().filter(|event| event.kind == EventKind::Delete).collect();
    let mut keys: Vec<_> = ended.iter().map(|event| event.kv.key.to_string()).collect();
    keys.sort();
    assert_eq!(keys, ["a", "b", "c"]);
    for event in &ended {
        assert_eq!(event.prev.as_ref().map(|prev| prev.ttl), Some(Ttl::seconds(2)));
    }
    let mut revisions: Vec<_> = seen.iter().map(|event| event.revision()).collect();
    revisions.dedup();
    assert_eq!(revisions.len(), 9, "each has a revision of its own");
    assert_eq!(count(&store, KeyRange::all(), None).await, 2);
    let last = events(&mut watcher, 1).await.remove(0);
    assert_eq!((last.kind, last.kv.key.to_string().as_str()), (EventKind::Delete, "renewed"));
    assert!(began.elapsed() >= Duration::from_millis(3200), "it lived for {:?}", began.elapsed());
    // Whoever ends it a second time finds it gone, and nothing else.
    let stale = store.delete("a".into(), Some(seen[0].revision())).await;
    assert!(stale.unwrap_err().conflict().is_some_and(|conflict| conflict.current.is_none()));
}

fn etcdctl(cluster: &EtcdCluster, arguments: &[&str]) -> String {
    cluster.etcdctl(arguments, "").unwrap()
}

async fn leases_of_others_are_kept_and_not_understood() {
    let cluster = single();
    let store = open(&cluster).await;
    let mut watcher = watch(&store, "", None).await;
    let granted = etcdctl(&cluster, &["lease", "grant", "600"]);
    let lease = granted.split(' ').nth(1).unwrap();
    etcdctl(&cluster, &["put", "theirs", "1", "--lease", lease]);
    assert_eq!(get(&store, "theirs", None).await.unwrap().ttl, Ttl::NONE);
    etcdctl(&cluster, &["lease", "revoke", lease]);
    let seen = events(&mut watcher, 2).await;
    assert_eq!(seen[1].kind, EventKind::Delete);
    // What others see of ours.
    store.create("ours".into(), value("1"), Ttl::seconds(600)).await.unwrap();
    let leases = etcdctl(&cluster, &["lease", "list"]);
    let lease = leases.lines().last().unwrap();
    let left = etcdctl(&cluster, &["lease", "timetolive", lease, "--keys"]);
    assert!(left.contains("granted with TTL(600s)") && left.contains("ours"), "{left}");
}

async fn changes_of_one_transaction_come_together() {
    let cluster = single();
    let store = open(&cluster).await;
    let first = put(&store, "m", "1").await;
    let mut live = watch(&store, "", Some(first)).await;
    // No condition; three changes; nothing otherwise.
    cluster.etcdctl(&["txn"], "\nput a 1\nput b 1\nput c 1\n\n\n").unwrap();
    let after = put(&store, "n", "1").await;
    assert_eq!(after.get(), first.get() + 2);
    etcdctl(&cluster, &["del", "a", "d"]);
    let revisions = |events: Vec<std::sync::Arc<k3sd_datastore::Event>>| -> Vec<i64> {
        events.iter().map(|event| event.revision().get() - first.get()).collect()
    };
    assert_eq!(revisions(events(&mut live, 8).await), [0, 1, 1, 1, 2, 3, 3, 3]);
    // The same from the log of another store, which did not see it happen.
    let late = open(&cluster).await;
    assert_eq!(revisions(events(&mut watch(&late, "", Some(first)).await, 8).await), [0, 1, 1, 1, 2, 3, 3, 3]);
    assert_eq!(revisions(events(&mut watch(&late, "b", Some(first)).await, 2).await), [1, 3]);
}

async fn two_stores_share_a_cluster() {
    const EACH: usize = 100;
    let cluster = single();
    let stores = [open(&cluster).await, open(&cluster).await];
    let created = create(&stores[0], "n", "0").await;
    let mut watchers = Vec::new();
    for store in &stores {
        watchers.push(watch(store, "", Some(created)).await);
    }
    let mut writers = tokio::task::JoinSet::new();
    for store in stores.clone() {
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
    for watcher in &mut watchers {
        let seen: Vec<_> = events(watcher, 2 * EACH + 1).await.iter().map(|event| event.kv.value.clone()).collect();
        assert_eq!(seen, (0..=2 * EACH).map(|number| value(&number.to_string())).collect::<Vec<_>>());
    }
}

async fn a_compaction_of_others_is_found() {
    let cluster = single();
    let store = open(&cluster).await;
    for number in 0..40 {
        put(&store, "a", &number.to_string()).await;
    }
    assert_eq!(store.status().await.unwrap().compacted, Revision::ZERO);
    for at in [17, 30] {
        etcdctl(&cluster, &["compact", &at.to_string()]);
        let compacted = Revision::new(at);
        let before = store.get(GetRequest { key: "a".into(), at: Some(compacted.previous()) }).await.unwrap_err();
        assert!(matches!(before, StoreError::Compacted { compacted: found, .. } if found == compacted), "{before:?}");
        assert_eq!(store.status().await.unwrap().compacted, compacted);
        // Of what this store has not seen itself, as little is left as etcd has.
        let late = open(&cluster).await;
        for from in [1, 2, at - 1, at] {
            let request = WatchRequest::new(KeyRange::all(), Some(Revision::new(from)));
            let refused = match late.watch(request).await {
                Err(error) => error,
                Ok(watcher) => panic!("from {from}: {watcher:?}"),
            };
            let found = matches!(refused, StoreError::Compacted { compacted: found, .. } if found == compacted);
            assert!(found, "from {from}: {refused:?}");
        }
        let seen = events(&mut watch(&late, "", Some(compacted.next())).await, 41 - usize::try_from(at).unwrap()).await;
        assert_eq!(seen[0].prev.as_ref().map(|prev| prev.mod_revision), Some(compacted));
    }
}

async fn what_was_compacted_while_away_ends_watches() {
    let cluster = single();
    let proxy = Proxy::start(&cluster.endpoint(0)).await;
    let store = try_open(vec![proxy.endpoint()], EtcdTls::default()).await.unwrap();
    let mut watcher = watch(&store, "", None).await;
    let seen = put(&store, "a", "1").await;
    assert_eq!(events(&mut watcher, 1).await.len(), 1);
    proxy.cut();
    for number in 0..5 {
        etcdctl(&cluster, &["put", "a", &number.to_string()]);
    }
    let compacted = Revision::new(seen.get() + 5);
    etcdctl(&cluster, &["compact", &compacted.to_string()]);
    proxy.mend();
    let end = message(&mut watcher).await.unwrap_err();
    assert!(matches!(end, WatchEnd::Closed { next } if next == seen.next()), "{end:?}");
    let refused = store.watch(WatchRequest::new(KeyRange::all(), Some(seen.next()))).await.map(drop);
    assert!(
        matches!(refused, Err(StoreError::Compacted { compacted: found, .. }) if found == compacted),
        "{refused:?}"
    );
    let mut watcher = watch(&store, "", Some(compacted.next())).await;
    let written = put(&store, "a", "6").await;
    assert_eq!(events(&mut watcher, 1).await[0].revision(), written);
}

async fn what_happened_while_away_comes_late() {
    let cluster = single();
    let proxy = Proxy::start(&cluster.endpoint(0)).await;
    let store = try_open(vec![proxy.endpoint()], EtcdTls::default()).await.unwrap();
    let first = put(&store, "a", "first").await;
    let mut watcher = watch(&store, "", Some(first)).await;
    for round in 0..4 {
        proxy.cut();
        etcdctl(&cluster, &["put", "a", &round.to_string()]);
        etcdctl(&cluster, &["del", "a"]);
        proxy.mend();
    }
    put(&store, "a", "last").await;
    let seen = events(&mut watcher, 10).await;
    let revisions: Vec<_> = seen.iter().map(|event| event.revision().get()).collect();
    assert_eq!(revisions, (0..10).map(|number| first.get() + number).collect::<Vec<_>>());
    assert_eq!(seen[9].kv.value, value("last"));
}
