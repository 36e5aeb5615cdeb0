//! What a cache holds and how events change it. No clock, no channel to the store.

use std::sync::Arc;

use k3sd_client::storage::{Event, Revision};
use k3sd_objects::status::Status;
use k3sd_runtime::Moment;

use super::Registered;
use super::watchers::Watchers;
use super::window::Window;
use crate::catalog::Stored;
use crate::codec::decode;
use crate::event::{CacheEvent, at_revision};
use crate::map::Map;
use crate::query::Selection;
use crate::snapshot::Snapshot;

/// See the module's page.
#[derive(Debug, Default)]
pub(crate) struct Cache {
    current: Snapshot,
    window: Window,
    watchers: Watchers,
    /// Set while it is being changed. Who finds it set looks at what a panic left behind.
    changing: bool,
}

impl Cache {
    /// Whether it can be served from.
    pub(super) fn is_filled(&self) -> bool {
        self.current.filled && !self.changing
    }

    /// What it holds now, to be published.
    pub(super) fn snapshot(&self) -> Arc<Snapshot> {
        Arc::new(self.current.clone())
    }

    pub(super) fn revision(&self) -> Revision {
        self.current.revision
    }

    /// Before it is filled: everything it knew is out of date, and its watchers have missed something.
    pub(super) fn empty(&mut self) {
        let mut watchers = std::mem::take(&mut self.watchers);
        *self = Self::default();
        watchers.end_all();
    }

    /// Begins with a list of everything.
    pub(super) fn fill(&mut self, objects: Map, revision: Revision) {
        self.current = Snapshot { objects, revision, filled: true };
        self.window = Window::starting_at(revision);
        self.changing = false;
    }

    /// Takes in events, in order; those that it has already are left out. Gives what changed, to be delivered once the
    /// snapshot is published: whoever hears of a change finds it.
    pub(super) fn apply(&mut self, stored: &Stored, events: Vec<Event>, now: Moment) -> Vec<Arc<CacheEvent>> {
        self.changing = true;
        let mut changes = Vec::with_capacity(events.len());
        for event in events {
            if event.revision < self.current.revision {
                continue;
            }
            self.current.revision = event.revision;
            if let Some(change) = self.change(stored, &event) {
                let change = Arc::new(change);
                self.window.push(change.clone(), now);
                changes.push(change);
            }
        }
        self.changing = false;
        changes
    }

    fn change(&mut self, stored: &Stored, event: &Event) -> Option<CacheEvent> {
        let objects = &mut self.current.objects;
        let key = event.key.strip_prefix(stored.prefix.as_bytes())?;
        let known = objects.get(key);
        if known.is_some_and(|known| known.resource_version() >= event.revision.get()) {
            return None; // It came with the list, or a second time.
        }
        let object = event.value.as_ref().and_then(|value| {
            let object = decode(stored, &event.key, value, event.revision);
            object.inspect_err(|error| report(&event.key, error)).ok()
        });
        let Some(object) = object else {
            // Gone, or such that nobody can read it.
            let previous = objects.remove(key)?;
            let last = at_revision(&previous, event.revision, &stored.selectable);
            return Some(CacheEvent::new(event.revision, last, Some(previous), true));
        };
        let previous = objects.insert(object.clone());
        Some(CacheEvent::new(event.revision, object, previous, false))
    }

    /// Gives changes to those who watch. Tells how many of them were cut off, because they are too slow.
    pub(super) fn deliver(&mut self, stored: &Stored, changes: &[Arc<CacheEvent>]) -> usize {
        self.changing = true;
        for change in changes {
            self.watchers.deliver(change, &stored.selectable);
        }
        self.changing = false;
        self.watchers.take_cut_off()
    }

    /// Begins a watch behind a revision, or with the state. What was applied has been delivered.
    pub(super) fn watch(
        &mut self,
        published: &Arc<Snapshot>,
        selection: Selection,
        after: Option<Revision>,
    ) -> Result<Registered, Status> {
        let backlog = match after {
            None => Vec::new(),
            Some(after) => self
                .window
                .after(after)
                .map_err(|oldest| Status::expired(format!("too old resource version: {after} ({oldest})")))?,
        };
        // The published snapshot is what is current, and is shared already.
        let state = after.is_none().then(|| published.clone());
        let future = after.filter(|after| *after > self.current.revision);
        let (queue, ended) = self.watchers.add(selection, future.unwrap_or_default());
        Ok(Registered { state, backlog, queue, ended })
    }

    /// How many watch all objects.
    pub(super) fn watchers_of_all(&self) -> usize {
        self.watchers.of_all()
    }

    /// When there is something to forget.
    pub(super) fn next_shrink(&self) -> Option<Moment> {
        self.window.next_shrink()
    }

    /// Forgets what is too old.
    pub(super) fn shrink(&mut self, now: Moment) {
        self.window.shrink(now);
    }
}

/// Says that nobody will see an object. Never what is in it.
pub(super) fn report(key: &[u8], error: &crate::codec::CodecError) {
    tracing::error!(key = %key.escape_ascii(), %error, "a stored object can't be read and is left out");
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use serde_json::json;

    use super::*;
    use crate::cache::watchers::End;
    use crate::catalog::Catalog;

    fn pods() -> Arc<Stored> {
        let catalog = Catalog::builtin(|resource| resource.served);
        catalog.preferred("", "pods").and_then(|pods| pods.stored.clone()).expect("pods are stored")
    }

    /// A pod that is written at a revision, or deleted then.
    fn event(name: &str, revision: u64, there: bool) -> Event {
        let value = json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name, "namespace": "a" } });
        Event {
            key: Bytes::from(format!("/registry/pods/a/{name}")),
            revision: Revision::new(revision),
            value: there.then(|| Bytes::from(value.to_string())),
            previous: None,
        }
    }

    fn apply(cache: &mut Cache, events: &[Event]) -> Vec<(u64, bool)> {
        let changes = cache.apply(&pods(), events.to_vec(), Moment::START);
        changes.iter().map(|change| (change.revision.get(), change.deleted)).collect()
    }

    #[test]
    fn events_that_come_twice_or_came_with_the_list_change_nothing() {
        let mut cache = Cache::default();
        cache.fill(Map::default(), Revision::new(5));
        let first = [event("x", 4, true), event("x", 6, true), event("y", 7, true), event("x", 8, false)];
        assert_eq!(apply(&mut cache, &first), [(6, false), (7, false), (8, true)]);
        assert_eq!(apply(&mut cache, &first), []);
        assert_eq!((cache.revision().get(), cache.snapshot().len()), (8, 1));
        // Two changes of one transaction of somebody else's have one revision, and may come apart.
        assert_eq!(apply(&mut cache, &[event("v", 9, true)]), [(9, false)]);
        assert_eq!(apply(&mut cache, &[event("v", 9, true), event("w", 9, true)]), [(9, false)]);
        // Nothing was there to delete, but the cache has come that far.
        assert_eq!(apply(&mut cache, &[event("none", 10, false)]), []);
        assert_eq!(cache.revision(), Revision::new(10));
    }

    #[test]
    fn an_object_that_becomes_unreadable_is_gone() {
        let mut cache = Cache::default();
        cache.fill(Map::default(), Revision::new(5));
        apply(&mut cache, &[event("x", 6, true)]);
        let broken = Event { value: Some(Bytes::from("{")), ..event("x", 7, true) };
        assert_eq!(apply(&mut cache, &[broken]), [(7, true)]);
        assert_eq!(apply(&mut cache, &[event("x", 8, true)]), [(8, false)]);
    }

    #[test]
    fn what_a_panic_left_behind_is_not_served() {
        let mut cache = Cache::default();
        cache.fill(Map::default(), Revision::new(5));
        let published = cache.snapshot();
        let watch = cache.watch(&published, Selection::default(), None).expect("it is filled");
        cache.changing = true;
        assert!(!cache.is_filled());
        cache.empty();
        assert_eq!((watch.ended.get(), watch.queue.is_closed()), (Some(&End::Lost), true));
        cache.fill(Map::default(), Revision::new(9));
        assert!(cache.is_filled());
        let old = cache.watch(&published, Selection::default(), Some(Revision::new(8)));
        assert_eq!(old.expect_err("nobody saw that").code, 410);
    }
}
