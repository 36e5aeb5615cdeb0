//! Writers that know what was acknowledged to them, and a check of that against what happened.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use k3sd_datastore::{AnyBackend, Backend, Event, KeyRange, Revision, StoreError, Ttl, WatchRequest, Watcher};
use tokio::task::JoinSet;

use super::chain;
use crate::subject::{create, events, get, revision, value, watch};

const CLIENTS: usize = 8;

/// What one writer was told.
struct Report {
    key: String,
    acknowledged: Vec<(Revision, String)>,
    unknown: usize,
}

/// Writers at work, and a watcher.
pub(crate) struct Load {
    store: AnyBackend,
    start: Revision,
    watcher: Watcher,
    seen: Vec<Revision>,
    clients: JoinSet<Report>,
    stop: Arc<AtomicBool>,
    written: Arc<AtomicUsize>,
}

async fn write(store: AnyBackend, key: String, stop: Arc<AtomicBool>, written: Arc<AtomicUsize>) -> Report {
    let (mut at, mut number) = (create(&store, &key, "0").await, 0);
    let mut report = Report { acknowledged: vec![(at, "0".to_owned())], key, unknown: 0 };
    let mut open: Vec<String> = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        number += 1;
        let text = number.to_string();
        match store.update(report.key.as_str().into(), at, value(&text), Ttl::NONE).await {
            Ok(revision) => {
                at = revision;
                report.acknowledged.push((at, text));
                written.fetch_add(1, Ordering::Relaxed);
            }
            Err(StoreError::Unknown { .. }) => {
                report.unknown += 1;
                open.push(text);
                let kv = get(&store, &report.key, None).await.expect("nobody deletes it");
                assert!(kv.mod_revision == at || is_one_of(&open, &kv.value), "{kv:?} after {at}");
                at = kv.mod_revision;
            }
            // What was open may have happened after all, even after a read that did not show it.
            Err(StoreError::Conflict(conflict)) => {
                let kv = conflict.current.expect("nobody deletes it");
                assert!(is_one_of(&open, &kv.value), "a conflict with {kv:?}, expected {at}");
                at = kv.mod_revision;
            }
            Err(error) => panic!("{}", chain(&error)),
        }
    }
    report
}

fn is_one_of(open: &[String], value: &[u8]) -> bool {
    open.iter().any(|text| text.as_bytes() == value)
}

impl Load {
    pub(crate) async fn start(store: &AnyBackend) -> Self {
        let start = revision(store).await;
        let request = WatchRequest::new(KeyRange::all(), Some(start.next()));
        let watcher = store.watch(WatchRequest { events_waiting_max: 100_000, ..request }).await.unwrap();
        let (stop, written) = (Arc::default(), Arc::default());
        let mut clients = JoinSet::new();
        for client in 0..CLIENTS {
            clients.spawn(write(store.clone(), format!("k{client}"), Arc::clone(&stop), Arc::clone(&written)));
        }
        Self { store: store.clone(), start, watcher, seen: Vec::new(), clients, stop, written }
    }

    /// Waits until so many more writes were acknowledged, and their events have come.
    pub(crate) async fn more(&mut self, count: usize) {
        let goal = self.written.load(Ordering::Relaxed) + count;
        while self.written.load(Ordering::Relaxed) < goal {
            self.watch_on().await;
        }
    }

    async fn watch_on(&mut self) {
        self.seen.extend(events(&mut self.watcher, 1).await.iter().map(|event| event.revision()));
    }

    /// Stops the writers. Everything acknowledged is there, and the watcher had every change once and in order.
    /// Answers with the number of writes, and of those whose outcome nobody knew.
    pub(crate) async fn check(mut self) -> (usize, usize) {
        self.stop.store(true, Ordering::Relaxed);
        let reports = std::mem::take(&mut self.clients).join_all().await;
        let end = create(&self.store, "end", "").await;
        let mut past = watch(&self.store, "", Some(self.start.next())).await;
        let mut all: BTreeMap<Revision, Arc<Event>> = BTreeMap::new();
        while !all.contains_key(&end) {
            all.extend(events(&mut past, 1).await.into_iter().map(|event| (event.revision(), event)));
        }
        while self.seen.last() != Some(&end) {
            self.watch_on().await;
        }
        let revisions = (self.start.get() + 1..=end.get()).map(Revision::new);
        assert!(all.keys().copied().eq(revisions.clone()), "each revision is an event of the past");
        assert!(self.seen.iter().copied().eq(revisions), "and was one of the present, once and in order");
        for Report { key, acknowledged, .. } in &reports {
            for (revision, text) in acknowledged {
                let kv = &all[revision].kv;
                assert!(kv.key.as_bytes() == key.as_bytes() && kv.value == text.as_bytes(), "{kv:?} at {revision}");
            }
            let last = all.values().rfind(|event| event.kv.key.as_bytes() == key.as_bytes()).expect("its events");
            assert_eq!(get(&self.store, key, None).await.as_ref(), Some(&last.kv));
        }
        let count = |number: fn(&Report) -> usize| reports.iter().map(number).sum();
        (count(|report| report.acknowledged.len()), count(|report| report.unknown))
    }
}
