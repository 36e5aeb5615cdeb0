//! Which cache an event is for.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use k3sd_client::storage::{Event, Revision};
use tokio::sync::mpsc;

/// Events for one cache, in order. An empty one only wakes it.
pub(crate) type Batch = Vec<Event>;

/// Batches that may wait for a cache. It is away for the moment that a restart takes; whatever does not fit, it lists.
const QUEUE_BATCHES: usize = 1024;

/// Bytes that may wait for a cache: a thousand large objects.
const QUEUE_BYTES: usize = 64 << 20;

/// The queue to one cache.
#[derive(Debug)]
pub(crate) struct Route {
    batches: mpsc::Sender<Batch>,
    assigned: AtomicU64,
    waiting_bytes: AtomicUsize,
    lost: AtomicBool,
}

fn bytes(batch: &[Event]) -> usize {
    batch.iter().map(|event| size_of::<Event>() + event.value.as_ref().map_or(0, bytes::Bytes::len)).sum()
}

impl Route {
    pub(crate) fn new() -> (Arc<Self>, mpsc::Receiver<Batch>) {
        let (batches, receiver) = mpsc::channel(QUEUE_BATCHES);
        let route = Self {
            batches,
            assigned: AtomicU64::new(0),
            waiting_bytes: AtomicUsize::new(0),
            lost: AtomicBool::new(false),
        };
        (Arc::new(route), receiver)
    }

    /// The last revision of an event that was dealt to this cache, or that it must reach by a list.
    pub(crate) fn assigned(&self) -> Revision {
        Revision::new(self.assigned.load(Ordering::Acquire))
    }

    /// Deals events, or notes that some are lost.
    pub(crate) fn deal(&self, batch: Batch) {
        let Some(last) = batch.last().map(|event| event.revision) else { return };
        let bytes = bytes(&batch);
        let waiting = self.waiting_bytes.fetch_add(bytes, Ordering::AcqRel);
        if waiting + bytes > QUEUE_BYTES.max(bytes) || self.batches.try_send(batch).is_err() {
            self.waiting_bytes.fetch_sub(bytes, Ordering::AcqRel);
            self.lose(last);
            return;
        }
        self.assigned.store(last.get(), Ordering::Release);
    }

    /// Some events up to this revision are lost: the cache has to list.
    pub(crate) fn lose(&self, until: Revision) {
        self.lost.store(true, Ordering::Release);
        self.assigned.store(until.get(), Ordering::Release);
        // Only wakes the cache. If there is no room it has enough to read, and looks before it applies any of that.
        drop(self.batches.try_send(Batch::new()));
    }

    /// The cache took this from its queue.
    pub(crate) fn taken(&self, batch: &[Event]) {
        self.waiting_bytes.fetch_sub(bytes(batch), Ordering::AcqRel);
    }

    /// Whether something was lost before what was just taken from the queue.
    pub(crate) fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Acquire)
    }

    /// What was lost so far will be in the list that begins now.
    pub(crate) fn find(&self) {
        self.lost.store(false, Ordering::Release);
    }
}

/// Prefixes of keys, each with its queue. They are two or three segments long: `/registry/pods/`,
/// `/registry/services/specs/`, `/registry/example.com/widgets/`.
#[derive(Clone, Debug, Default)]
pub(crate) struct Routes(HashMap<Box<[u8]>, Arc<Route>>);

impl Routes {
    pub(crate) fn with(&self, prefix: &str, route: Arc<Route>) -> Self {
        let mut routes = self.0.clone();
        routes.insert(prefix.as_bytes().into(), route);
        Self(routes)
    }

    pub(crate) fn without(&self, prefix: &str, route: &Arc<Route>) -> Self {
        let mut routes = self.0.clone();
        if routes.get(prefix.as_bytes()).is_some_and(|found| Arc::ptr_eq(found, route)) {
            routes.remove(prefix.as_bytes());
        }
        Self(routes)
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &Arc<Route>> {
        self.0.values()
    }

    fn of(&self, key: &[u8]) -> Option<&Arc<Route>> {
        let slashes = key.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at + 1);
        // The slash before the root, behind it, and behind the resource.
        slashes.skip(2).take(2).find_map(|end| self.0.get(&key[..end]))
    }

    /// Deals events out, in their order. Those of keys that nobody serves are nobody's.
    pub(crate) fn deal(&self, events: Vec<Event>) {
        let mut parts: Vec<(&Arc<Route>, Batch)> = Vec::new();
        for event in events {
            let Some(route) = self.of(&event.key) else { continue };
            match parts.iter_mut().rev().find(|(other, _)| Arc::ptr_eq(other, route)) {
                Some((_, batch)) => batch.push(event),
                None => parts.push((route, vec![event])),
            }
        }
        for (route, batch) in parts {
            route.deal(batch);
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn event(key: &str, revision: u64, size: usize) -> Event {
        let value = Some(Bytes::from(vec![b'x'; size]));
        Event { key: Bytes::copy_from_slice(key.as_bytes()), revision: Revision::new(revision), value, previous: None }
    }

    #[test]
    fn events_go_to_the_cache_of_their_key_in_order() {
        let mut routes = Routes::default();
        let mut queues = Vec::new();
        for prefix in ["/registry/pods/", "/registry/services/specs/", "/registry/example.com/widgets/"] {
            let (route, queue) = Route::new();
            routes = routes.with(prefix, route.clone());
            queues.push((route, queue));
        }
        let keys = [
            "/registry/pods/a/x",
            "/registry/services/specs/a/x",
            "/registry/services/endpoints/a/x",
            "/registry/example.com/widgets/a/x",
            "/registry/podsy/a/x",
            "/registry/pods/a/y",
            "compact_rev_key",
            "/registry",
            "",
        ];
        routes.deal((1_u64..).zip(keys).map(|(revision, key)| event(key, revision, 1)).collect());
        let mut found = Vec::new();
        for (route, queue) in &mut queues {
            let batch = queue.try_recv().unwrap();
            route.taken(&batch);
            found.push((route.assigned().get(), batch.iter().map(|event| event.revision.get()).collect::<Vec<_>>()));
            assert!(!route.is_lost());
        }
        assert_eq!(found, [(6, vec![1, 6]), (2, vec![2]), (4, vec![4])]);
    }

    #[test]
    fn what_does_not_fit_is_lost_and_said_so() {
        let (route, mut queue) = Route::new();
        for revision in 1..=QUEUE_BATCHES as u64 {
            route.deal(vec![event("/registry/pods/a/x", revision, 1)]);
        }
        assert!(!route.is_lost());
        route.deal(vec![event("/registry/pods/a/x", 5000, 1)]);
        assert!(route.is_lost());
        assert_eq!(route.assigned(), Revision::new(5000));
        while let Ok(batch) = queue.try_recv() {
            route.taken(&batch);
        }
        route.find();
        // One that is too large alone goes through; a second one has no room beside it.
        route.deal(vec![event("/registry/pods/a/x", 5001, QUEUE_BYTES + 1)]);
        assert!(!route.is_lost());
        route.deal(vec![event("/registry/pods/a/x", 5002, 1)]);
        assert!(route.is_lost());
    }
}
