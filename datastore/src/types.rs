//! The words of the contract: revisions, keys, ranges of keys, times to live, values and what happened to them.

use std::fmt;

use bytes::{BufMut, Bytes, BytesMut};

/// A moment in the life of the whole store. Each change has one of its own, one more than the change before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(i64);

impl Revision {
    /// Before anything happened. No key was ever written at this revision.
    pub const ZERO: Self = Self(0);

    /// Any number is accepted: one that is too small or too great is refused by the operation it is given to.
    pub const fn new(value: i64) -> Self {
        Self(value)
    }

    /// The number.
    pub const fn get(self) -> i64 {
        self.0
    }

    /// The moment after this one.
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// The moment before this one.
    pub const fn previous(self) -> Self {
        Self(self.0.saturating_sub(1))
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The name of a value: any bytes but none at all, ordered byte by byte. Cloning it copies no bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Bytes);

impl Key {
    /// Takes the bytes as they are.
    pub fn new(bytes: impl Into<Bytes>) -> Self {
        Self(bytes.into())
    }

    /// The bytes of the name.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The smallest key that is greater than this one.
    pub fn successor(&self) -> Self {
        let mut bytes = BytesMut::with_capacity(self.0.len() + 1);
        bytes.put_slice(&self.0);
        bytes.put_u8(0);
        Self(bytes.freeze())
    }
}

/// The bytes of the name, without copying them.
impl From<Key> for Bytes {
    fn from(key: Key) -> Self {
        key.0
    }
}

impl From<&str> for Key {
    fn from(text: &str) -> Self {
        Self(Bytes::copy_from_slice(text.as_bytes()))
    }
}

impl From<String> for Key {
    fn from(text: String) -> Self {
        Self(Bytes::from(text))
    }
}

/// As text where it is text; a key names a thing and is no secret.
impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0.escape_ascii())
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.escape_ascii())
    }
}

/// A half-open range of keys: from `start` on, up to but without `end`; without an `end`, up to the last key there is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRange {
    start: Key,
    end: Option<Key>,
}

impl KeyRange {
    /// Just this key.
    pub fn one(key: Key) -> Self {
        let end = Some(key.successor());
        Self { start: key, end }
    }

    /// Every key that begins with these bytes; all keys, if there are none.
    pub fn prefix(prefix: impl Into<Key>) -> Self {
        let start = prefix.into();
        // The first key behind the prefix is the prefix with its last byte raised; 0xff has nothing above it.
        let last = start.as_bytes().iter().rposition(|byte| *byte != u8::MAX);
        let end = last.map(|last| {
            let mut bytes = BytesMut::from(&start.as_bytes()[..=last]);
            bytes[last] += 1;
            Key(bytes.freeze())
        });
        Self { start, end }
    }

    /// From `start` up to and without `end`. Empty if `end` is not greater.
    pub fn half_open(start: Key, end: Key) -> Self {
        Self { start, end: Some(end) }
    }

    /// From `start` up to the last key.
    pub fn from(start: Key) -> Self {
        Self { start, end: None }
    }

    /// Every key.
    pub fn all() -> Self {
        Self { start: Key(Bytes::new()), end: None }
    }

    /// The first key that may be inside.
    pub fn start(&self) -> &Key {
        &self.start
    }

    /// The first key behind the range, if the range has an end.
    pub fn end(&self) -> Option<&Key> {
        self.end.as_ref()
    }

    /// Whether the key is inside.
    pub fn contains(&self, key: &Key) -> bool {
        *key >= self.start && self.end.as_ref().is_none_or(|end| key < end)
    }

    /// What is left of the range behind `key`: where a list goes on.
    #[must_use]
    pub fn after(&self, key: &Key) -> Self {
        let start = key.successor().max(self.start.clone());
        Self { start, end: self.end.clone() }
    }
}

/// How long a value lives after its last write, in whole seconds. The store notes it down and acts on nothing: see
/// [`ExpiryQueue`](crate::ExpiryQueue).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ttl(u32);

impl Ttl {
    /// For ever.
    pub const NONE: Self = Self(0);

    /// This many seconds; 0 means for ever.
    pub const fn seconds(seconds: u32) -> Self {
        Self(seconds)
    }

    /// In seconds; 0 means for ever.
    pub const fn as_seconds(self) -> u32 {
        self.0
    }

    /// Whether the value lives for ever.
    pub const fn is_none(self) -> bool {
        self.0 == 0
    }
}

/// A key and what it held from `mod_revision` on.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyValue {
    /// The name.
    pub key: Key,
    /// Opaque bytes. Empty when only keys were asked for.
    pub value: Bytes,
    /// When the key was created, for the last time.
    pub create_revision: Revision,
    /// When this value was written.
    pub mod_revision: Revision,
    /// The time to live that was given with this value.
    pub ttl: Ttl,
}

/// Says how long the value is, never what it is: values hold secrets.
impl fmt::Debug for KeyValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, value, create_revision, mod_revision, ttl } = self;
        write!(f, "{key:?}@{mod_revision}(created {create_revision}, {} bytes, ttl {})", value.len(), ttl.as_seconds())
    }
}

/// What a change did to its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// The key was not there before.
    Create,
    /// The key has a new value.
    Update,
    /// The key is gone.
    Delete,
}

/// One change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// What was done.
    pub kind: EventKind,
    /// What the key holds now. After a delete: no value, no creation, and the revision of the delete.
    pub kv: KeyValue,
    /// What the key held before; nothing for [`EventKind::Create`].
    pub prev: Option<KeyValue>,
}

impl Event {
    /// When it happened.
    pub fn revision(&self) -> Revision {
        self.kv.mod_revision
    }

    /// The event of a delete at `revision`.
    pub(crate) fn delete(key: Key, revision: Revision, prev: Option<KeyValue>) -> Self {
        let kv = KeyValue {
            key,
            value: Bytes::new(),
            create_revision: Revision::ZERO,
            mod_revision: revision,
            ttl: Ttl::NONE,
        };
        Self { kind: EventKind::Delete, kv, prev }
    }

    /// The event of a write at `revision` over what was there before.
    pub(crate) fn put(key: Key, value: Bytes, ttl: Ttl, revision: Revision, prev: Option<KeyValue>) -> Self {
        let (kind, create_revision) = match &prev {
            Some(prev) => (EventKind::Update, prev.create_revision),
            None => (EventKind::Create, revision),
        };
        Self { kind, kv: KeyValue { key, value, create_revision, mod_revision: revision, ttl }, prev }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_covers_exactly_the_keys_that_begin_with_it() {
        for (prefix, inside, outside) in [
            ("/a/", vec!["/a/", "/a/b", "/a/\u{7f}"], vec!["/a", "/a0", "/b", ""]),
            ("", vec!["", "a", "\u{fffd}"], vec![]),
        ] {
            let range = KeyRange::prefix(prefix);
            for key in inside {
                assert!(range.contains(&Key::from(key)), "{prefix:?} has {key:?}");
            }
            for key in outside {
                assert!(!range.contains(&Key::from(key)), "{prefix:?} has no {key:?}");
            }
        }
        let range = KeyRange::prefix(Key::new(vec![b'a', 0xff, 0xff]));
        assert_eq!(range.end(), Some(&Key::from("b")));
        assert_eq!(KeyRange::prefix(Key::new(vec![0xff])).end(), None);
    }

    #[test]
    fn one_key_and_the_rest_of_a_range() {
        let one = KeyRange::one(Key::from("a"));
        assert!(one.contains(&Key::from("a")) && !one.contains(&Key::from("aa")) && !one.contains(&Key::from("b")));
        let rest = KeyRange::prefix("a").after(&Key::from("ab"));
        assert!(
            !rest.contains(&Key::from("ab")) && rest.contains(&Key::from("ab\0")) && !rest.contains(&Key::from("b"))
        );
        assert_eq!(KeyRange::prefix("b").after(&Key::from("a")).start(), &Key::from("b"), "it never grows");
    }

    #[test]
    fn no_value_is_ever_printed() {
        let event = Event::put("k".into(), Bytes::from_static(b"hunter2"), Ttl::NONE, Revision::new(3), None);
        assert!(!format!("{event:?}").contains("hunter2"));
    }
}
