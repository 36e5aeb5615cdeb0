//! Who watches a resource, found by what they select.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use k3sd_client::storage::Revision;
use k3sd_objects::object::{Object, Selectable};
use tokio::sync::mpsc;

use crate::event::{CacheEvent, Seen};
use crate::query::Selection;

/// An event on its way to a watcher.
pub(crate) type Queued = (Arc<CacheEvent>, Seen);

/// Events that may wait for a watcher. One that is further behind is cut off, and lists again.
const QUEUE_EVENTS: usize = 1024;

/// The field by which the nodes' agents select.
const NODE_FIELD: &str = "spec.nodeName";

/// Why a watch was ended from here. A resource that is not served any more gives no reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// It did not read fast enough.
    Slow,
    /// The cache lost events.
    Lost,
}

/// Where the reason is left for the reader, who finds it when the queue is over.
pub(crate) type Ended = Arc<OnceLock<End>>;

#[derive(Debug)]
struct Watcher {
    selection: Selection,
    /// It asked for what comes after this.
    after: Revision,
    queue: mpsc::Sender<Queued>,
    ended: Ended,
}

impl Watcher {
    /// Whether it goes on watching.
    fn offer(&self, event: &Arc<CacheEvent>, selectable: &Selectable) -> bool {
        if event.revision <= self.after {
            return true;
        }
        let Some(seen) = event.seen_by(|object| self.selection.matches(object, selectable)) else { return true };
        match self.queue.try_send((event.clone(), seen)) {
            Ok(()) => true,
            Err(mpsc::error::TrySendError::Closed(_)) => false,
            Err(mpsc::error::TrySendError::Full(_)) => {
                // Only we write it, and only once.
                self.ended.set(End::Slow).ok();
                false
            }
        }
    }
}

/// By what a watcher is found; the narrowest that it asked for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Place {
    Everywhere,
    Namespace(String),
    Name(String),
    Node(String),
}

impl Place {
    fn of(selection: &Selection) -> Self {
        if let Some(name) = &selection.name {
            return Self::Name(name.clone());
        }
        if let Some(node) = selection.fields.exact(NODE_FIELD) {
            return Self::Node(node.to_owned());
        }
        selection.namespace.clone().map_or(Self::Everywhere, Self::Namespace)
    }
}

type Bucket = Vec<Watcher>;

/// See the module's page. A watcher lives in exactly one bucket.
#[derive(Debug, Default)]
pub(crate) struct Watchers {
    everywhere: Bucket,
    by_namespace: HashMap<String, Bucket>,
    by_name: HashMap<String, Bucket>,
    by_node: HashMap<String, Bucket>,
    count: usize,
    /// When there are so many, those who left are looked for.
    sweep_at: usize,
    /// How many were cut off since somebody asked.
    cut_off: usize,
}

/// Watchers below which nobody looks for those who left.
const SWEEP_MIN: usize = 64;

impl Watchers {
    /// A new watcher's queue, and the place of the reason for its end.
    pub(super) fn add(&mut self, selection: Selection, after: Revision) -> (mpsc::Receiver<Queued>, Ended) {
        if self.count >= self.sweep_at {
            self.sweep();
        }
        let (queue, receiver) = mpsc::channel(QUEUE_EVENTS);
        let ended = Ended::default();
        let bucket = match Place::of(&selection) {
            Place::Everywhere => &mut self.everywhere,
            Place::Namespace(namespace) => self.by_namespace.entry(namespace).or_default(),
            Place::Name(name) => self.by_name.entry(name).or_default(),
            Place::Node(node) => self.by_node.entry(node).or_default(),
        };
        bucket.push(Watcher { selection, after, queue, ended: ended.clone() });
        self.count += 1;
        (receiver, ended)
    }

    /// Those who select neither a namespace, nor a name, nor a node; some of them may have left.
    pub(super) fn of_all(&self) -> usize {
        self.everywhere.len()
    }

    /// Gives an event to those whom it concerns. Costs nothing for the others.
    pub(super) fn deliver(&mut self, event: &Arc<CacheEvent>, selectable: &Selectable) {
        let node = |object: &Object| object.selected(NODE_FIELD, selectable).unwrap_or_default().to_owned();
        let slow = &mut self.cut_off;
        let mut gone = offer(Some(&mut self.everywhere), event, selectable, slow);
        gone += offer(self.by_namespace.get_mut(event.object.namespace()), event, selectable, slow);
        gone += offer(self.by_name.get_mut(event.object.name()), event, selectable, slow);
        if !self.by_node.is_empty() {
            let now = node(&event.object);
            gone += offer(self.by_node.get_mut(&now), event, selectable, slow);
            let before = event.previous.as_ref().map(node).filter(|before| *before != now);
            gone += before.map_or(0, |before| offer(self.by_node.get_mut(&before), event, selectable, slow));
        }
        self.count -= gone;
    }

    /// How many were cut off since the last time.
    pub(super) fn take_cut_off(&mut self) -> usize {
        std::mem::take(&mut self.cut_off)
    }

    /// Forgets those who left; it is enough to do so when their number may have doubled.
    fn sweep(&mut self) {
        fn keep(bucket: &mut Bucket) -> usize {
            bucket.retain(|watcher| !watcher.queue.is_closed());
            bucket.len()
        }
        self.count = keep(&mut self.everywhere);
        for buckets in [&mut self.by_namespace, &mut self.by_name, &mut self.by_node] {
            buckets.retain(|_, bucket| keep(bucket) > 0);
            self.count += buckets.values().map(Vec::len).sum::<usize>();
        }
        self.sweep_at = (2 * self.count).max(SWEEP_MIN);
    }

    /// Ends all watches: events are lost.
    pub(super) fn end_all(&mut self) {
        let buckets = [&mut self.by_namespace, &mut self.by_name, &mut self.by_node];
        let found = buckets.into_iter().flat_map(HashMap::values_mut);
        for watcher in found.chain([&mut self.everywhere]).flatten() {
            watcher.ended.set(End::Lost).ok();
        }
        *self = Self::default();
    }
}

/// How many of them left. Those who were too slow are added to `slow`.
fn offer(bucket: Option<&mut Bucket>, event: &Arc<CacheEvent>, selectable: &Selectable, slow: &mut usize) -> usize {
    let Some(bucket) = bucket else { return 0 };
    let before = bucket.len();
    bucket.retain(|watcher| {
        let stays = watcher.offer(event, selectable);
        *slow += usize::from(!stays && watcher.ended.get() == Some(&End::Slow));
        stays
    });
    before - bucket.len()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use k3sd_objects::selector::FieldSelector;
    use serde_json::json;

    use super::*;
    use crate::catalog::Catalog;

    fn selectable() -> Selectable {
        let catalog = Catalog::builtin(|resource| resource.served);
        catalog.preferred("", "pods").and_then(|pods| pods.stored.clone()).unwrap().selectable.clone()
    }

    fn pod(namespace: &str, name: &str, node: &str) -> Object {
        let json = json!({"metadata":{"name":name,"namespace":namespace},"spec":{"nodeName":node}});
        Object::parse(Bytes::from(json.to_string()), &selectable()).unwrap()
    }

    fn on_node(node: &str) -> Selection {
        Selection { fields: FieldSelector::equals(NODE_FIELD, node), ..Selection::default() }
    }

    fn event(revision: u64, object: Object, previous: Option<Object>) -> Arc<CacheEvent> {
        Arc::new(CacheEvent::new(Revision::new(revision), object, previous, false))
    }

    #[test]
    fn each_watcher_gets_what_it_selects_wherever_it_is_kept() {
        let fields = selectable();
        let mut watchers = Watchers::default();
        let selections = [
            Selection::default(),
            Selection { namespace: Some("a".to_owned()), ..Selection::default() },
            Selection { namespace: Some("b".to_owned()), name: Some("x".to_owned()), ..Selection::default() },
            on_node("n1"),
            on_node("n2"),
        ];
        let mut queues: Vec<_> =
            selections.into_iter().map(|selection| watchers.add(selection, Revision::ZERO).0).collect();
        watchers.deliver(&event(1, pod("a", "x", ""), None), &fields);
        watchers.deliver(&event(2, pod("a", "x", "n1"), Some(pod("a", "x", ""))), &fields);
        watchers.deliver(&event(3, pod("b", "x", "n2"), Some(pod("b", "x", "n1"))), &fields);
        let mut seen = |index: usize| {
            let mut found = Vec::new();
            while let Ok((event, seen)) = queues[index].try_recv() {
                found.push((event.revision.get(), seen));
            }
            found
        };
        assert_eq!(seen(0), [(1, Seen::Added), (2, Seen::Modified), (3, Seen::Modified)]);
        assert_eq!(seen(1), [(1, Seen::Added), (2, Seen::Modified)]);
        assert_eq!(seen(2), [(3, Seen::Modified)]);
        assert_eq!(seen(3), [(2, Seen::Added), (3, Seen::Deleted)]);
        assert_eq!(seen(4), [(3, Seen::Added)]);
    }

    #[test]
    fn a_slow_one_is_cut_off_and_told_why() {
        let fields = selectable();
        let mut watchers = Watchers::default();
        let (mut slow, why) = watchers.add(Selection::default(), Revision::ZERO);
        for revision in 0..=QUEUE_EVENTS as u64 {
            watchers.deliver(&event(revision + 1, pod("a", "x", ""), None), &fields);
        }
        assert_eq!((why.get(), watchers.count), (Some(&End::Slow), 0));
        assert_eq!((watchers.take_cut_off(), watchers.take_cut_off()), (1, 0));
        let mut read = 0;
        while slow.try_recv().is_ok() {
            read += 1;
        }
        assert_eq!(read, QUEUE_EVENTS);
        assert!(slow.is_closed());
    }

    #[test]
    fn those_who_left_are_forgotten_even_if_nothing_happens() {
        let mut watchers = Watchers::default();
        for number in 0..10_000 {
            let selection = Selection { name: Some(format!("x{number}")), ..Selection::default() };
            drop(watchers.add(selection, Revision::ZERO));
        }
        assert!(watchers.count <= SWEEP_MIN && watchers.by_name.len() <= SWEEP_MIN);
    }

    #[test]
    fn events_before_the_wished_revision_are_left_out() {
        let mut watchers = Watchers::default();
        let (mut queue, _) = watchers.add(Selection::default(), Revision::new(10));
        for revision in [9, 10, 11] {
            watchers.deliver(&event(revision, pod("a", "x", ""), None), &selectable());
        }
        assert_eq!(queue.try_recv().unwrap().0.revision, Revision::new(11));
        assert!(queue.try_recv().is_err());
    }
}
