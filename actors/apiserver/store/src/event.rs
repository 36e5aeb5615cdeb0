//! One change, shared by all who watch it.

use std::fmt;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use k3sd_client::storage::Revision;
use k3sd_objects::object::{Object, Selectable};
use k3sd_objects::status::Status;

/// What a watch says.
#[derive(Clone, Debug, PartialEq)]
pub enum WatchKind {
    /// The object is there, or came into the selection.
    Added,
    /// It changed within the selection.
    Modified,
    /// It is gone, or left the selection. The object is as it was before, with the revision of the change.
    Deleted,
    /// Everything up to the object's `resourceVersion` has been sent; nothing else of the object is set.
    Bookmark {
        /// Whether it ends the events of the initial state (`k8s.io/initial-events-end`).
        initial_events_end: bool,
    },
    /// The watch ends here, for this reason. The object is the same `Status`.
    Error(Box<Status>),
}

/// One event of a watch.
#[derive(Clone, Debug)]
pub struct WatchItem {
    /// What happened.
    pub kind: WatchKind,
    /// To whom, in the stored version.
    pub object: Object,
    /// Where its encodings are kept.
    pub shared: EventShared,
}

/// The encodings of an event, shared by its watchers. Clones share them.
#[derive(Clone)]
pub struct EventShared(Option<(Arc<CacheEvent>, Seen)>);

impl fmt::Debug for EventShared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EventShared")
    }
}

impl EventShared {
    /// Of an event that only one watcher gets.
    pub(crate) fn none() -> Self {
        Self(None)
    }

    /// The event in one representation, such as a watch frame in a media type and a version: made once, however many ask.
    /// `representation` must name everything that the bytes depend on beside the event itself.
    pub fn encoded(&self, representation: &str, make: impl FnOnce() -> Bytes) -> Bytes {
        match &self.0 {
            Some((event, seen)) => event.encodings.get(*seen, representation, make),
            None => make(),
        }
    }
}

/// How a watcher sees a change, which depends on what it selects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    Added,
    Modified,
    Deleted,
}

/// A list to which entries are only added, without a lock: each entry is made by whoever asks first, the others wait.
#[derive(Default)]
struct Encodings(OnceLock<Box<Encoding>>);

struct Encoding {
    seen: Seen,
    representation: Box<str>,
    bytes: OnceLock<Bytes>,
    next: Encodings,
}

/// Representations that are kept of one event. There are fewer unless somebody plays with them.
const ENCODINGS_MAX: usize = 16;

impl Encodings {
    fn get(&self, seen: Seen, representation: &str, make: impl FnOnce() -> Bytes) -> Bytes {
        let mut here = self;
        for _ in 0..ENCODINGS_MAX {
            let entry = here.0.get_or_init(|| {
                let bytes = OnceLock::new();
                Box::new(Encoding { seen, representation: representation.into(), bytes, next: Self::default() })
            });
            if entry.seen == seen && *entry.representation == *representation {
                return entry.bytes.get_or_init(make).clone();
            }
            here = &entry.next;
        }
        make()
    }
}

/// A change of one object, in a cache's window and in the queues of watchers.
pub(crate) struct CacheEvent {
    pub(crate) revision: Revision,
    /// The object, or its last state with the revision of the delete.
    pub(crate) object: Object,
    /// What it was before.
    pub(crate) previous: Option<Object>,
    /// Whether it is gone.
    pub(crate) deleted: bool,
    /// What it was before, with the revision of this change: for those whose selection it left.
    left: OnceLock<Object>,
    encodings: Encodings,
}

/// Names the event, never its contents.
impl fmt::Debug for CacheEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CacheEvent({}/{}@{})", self.object.namespace(), self.object.name(), self.revision)
    }
}

impl CacheEvent {
    pub(crate) fn new(revision: Revision, object: Object, previous: Option<Object>, deleted: bool) -> Self {
        Self { revision, object, previous, deleted, left: OnceLock::new(), encodings: Encodings::default() }
    }

    /// How it looks to somebody who wants only some objects; `None` if it is not their business.
    pub(crate) fn seen_by(&self, matches: impl Fn(&Object) -> bool) -> Option<Seen> {
        let before = self.previous.as_ref().is_some_and(&matches);
        let now = !self.deleted && matches(&self.object);
        match (before, now) {
            (true, true) => Some(Seen::Modified),
            (true, false) => Some(Seen::Deleted),
            (false, true) => Some(Seen::Added),
            (false, false) => None,
        }
    }

    /// The event as it is sent to somebody who sees it so.
    pub(crate) fn item(self: &Arc<Self>, seen: Seen, selectable: &Selectable) -> WatchItem {
        let (kind, object) = match seen {
            Seen::Added => (WatchKind::Added, self.object.clone()),
            Seen::Modified => (WatchKind::Modified, self.object.clone()),
            Seen::Deleted if self.deleted => (WatchKind::Deleted, self.object.clone()),
            Seen::Deleted => (WatchKind::Deleted, self.left(selectable)),
        };
        WatchItem { kind, object, shared: EventShared(Some((self.clone(), seen))) }
    }

    fn left(&self, selectable: &Selectable) -> Object {
        let left = self.left.get_or_init(|| {
            let previous = self.previous.as_ref().unwrap_or(&self.object);
            at_revision(previous, self.revision, selectable)
        });
        left.clone()
    }

    /// Bytes of memory that the window spends on it, beyond what the map holds anyway.
    pub(crate) fn memory_bytes(&self) -> usize {
        size_of::<Self>() + self.object.memory_bytes()
    }
}

/// The same object with another `resourceVersion`.
pub(crate) fn at_revision(object: &Object, revision: Revision, selectable: &Selectable) -> Object {
    // What was read once can be read again.
    Object::from_stored(object.bytes(), revision.get(), selectable).unwrap_or_else(|_| object.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(json: &str) -> Object {
        Object::parse(Bytes::copy_from_slice(json.as_bytes()), &Selectable::default()).unwrap()
    }

    #[test]
    fn each_representation_is_made_once_for_each_way_to_see_it() {
        let event = CacheEvent::new(Revision::new(5), object(r#"{"metadata":{"name":"a"}}"#), None, false);
        let event = Arc::new(event);
        let added = event.item(Seen::Added, &Selectable::default());
        let modified = event.item(Seen::Modified, &Selectable::default());
        for (item, representation, made, wanted) in [
            (&added, "json", "1", "1"),
            (&added, "json", "2", "1"),
            (&added, "table", "3", "3"),
            (&modified, "json", "4", "4"),
            (&modified, "json", "5", "4"),
            (&added, "table", "6", "3"),
        ] {
            let encoded = item.shared.encoded(representation, || Bytes::from(made));
            assert_eq!(encoded, wanted, "{representation} {made}");
        }
        for number in 0..100 {
            let name = number.to_string();
            assert_eq!(added.shared.encoded(&name, || Bytes::from(name.clone())), name);
        }
    }

    #[test]
    fn leaving_a_selection_shows_the_last_state_in_it() {
        let before = object(r#"{"metadata":{"labels":{"app":"x"},"name":"a","resourceVersion":"3"}}"#);
        let after = object(r#"{"metadata":{"labels":{"app":"y"},"name":"a","resourceVersion":"5"}}"#);
        let event = Arc::new(CacheEvent::new(Revision::new(5), after, Some(before), false));
        let wants = |app: &'static str| move |object: &Object| object.label("app") == Some(app);
        assert_eq!(event.seen_by(wants("x")), Some(Seen::Deleted));
        assert_eq!(event.seen_by(wants("y")), Some(Seen::Added));
        assert_eq!(event.seen_by(wants("z")), None);
        assert_eq!(event.seen_by(|_| true), Some(Seen::Modified));
        let item = event.item(Seen::Deleted, &Selectable::default());
        assert_eq!((item.object.label("app"), item.object.resource_version()), (Some("x"), 5));
    }
}
