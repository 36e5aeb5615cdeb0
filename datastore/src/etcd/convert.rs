//! Between etcd's messages and the store's words: pure.

use std::sync::Arc;

use bytes::Bytes;

use super::lease;
use super::wire;
use super::wire::event::EventType;
use crate::types::{Event, EventKind, Key, KeyRange, KeyValue, Revision};

/// No key is smaller: etcd has no empty one.
pub(super) const FIRST_KEY: &[u8] = &[0];
/// As the end of a range: none.
const NO_END: &[u8] = &[0];

/// A range as etcd writes it: the first key, and the first key behind it. Nothing when no key can be inside.
pub(super) fn range(range: &KeyRange) -> Option<(Bytes, Bytes)> {
    let start = range.start().as_bytes();
    let start = if start.is_empty() { FIRST_KEY } else { start };
    let end = range.end().map_or(NO_END, Key::as_bytes);
    // The end of a range with an end is greater than any start, so it is neither of the two that mean something else.
    (range.end().is_none() || end > start).then(|| (Bytes::copy_from_slice(start), Bytes::copy_from_slice(end)))
}

/// Every key.
pub(super) fn everything() -> (Bytes, Bytes) {
    (Bytes::from_static(FIRST_KEY), Bytes::from_static(NO_END))
}

pub(super) fn key_value(kv: wire::KeyValue) -> KeyValue {
    KeyValue {
        key: Key::new(kv.key),
        value: kv.value.into(),
        create_revision: Revision::new(kv.create_revision),
        mod_revision: Revision::new(kv.mod_revision),
        ttl: lease::ttl(kv.lease),
    }
}

/// An event, or nothing when etcd could not tell what was there before, because that is compacted.
pub(super) fn event(event: wire::Event) -> Option<Arc<Event>> {
    let is_delete = event.r#type() == EventType::Delete;
    let kv = key_value(event.kv?);
    let prev = event.prev_kv.map(key_value);
    if is_delete {
        return Some(Arc::new(Event::delete(kv.key, kv.mod_revision, Some(prev?))));
    }
    let (kind, prev) = if kv.create_revision == kv.mod_revision {
        (EventKind::Create, None)
    } else {
        (EventKind::Update, Some(prev?))
    };
    Some(Arc::new(Event { kind, kv, prev }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_mean_the_same_to_etcd() {
        for (ours, expected) in [
            (KeyRange::all(), Some((&b"\0"[..], &b"\0"[..]))),
            (KeyRange::from("a".into()), Some((b"a", b"\0"))),
            (KeyRange::prefix("a/"), Some((b"a/", b"a0"))),
            (KeyRange::prefix(""), Some((b"\0", b"\0"))),
            (KeyRange::one("a".into()), Some((b"a", b"a\0"))),
            (KeyRange::one(Key::new(FIRST_KEY)), Some((b"\0", b"\0\0"))),
            // Ends that would mean "no end" and "just one key".
            (KeyRange::one("".into()), None),
            (KeyRange::half_open("a".into(), "".into()), None),
            (KeyRange::half_open("a".into(), Key::new(NO_END)), None),
            (KeyRange::half_open("b".into(), "a".into()), None),
            (KeyRange::half_open("a".into(), "a".into()), None),
        ] {
            let theirs = range(&ours);
            assert_eq!(theirs.as_ref().map(|(start, end)| (&start[..], &end[..])), expected, "{ours:?}");
        }
    }

    fn kv(value: &str, created: i64, written: i64) -> wire::KeyValue {
        let (key, value) = (b"k".to_vec(), value.as_bytes().to_vec());
        wire::KeyValue { key, value, create_revision: created, mod_revision: written, lease: 0 }
    }

    #[test]
    fn an_event_without_its_past_is_none() {
        let put = |kv, prev_kv| event(wire::Event { r#type: EventType::Put.into(), kv: Some(kv), prev_kv });
        let created = put(kv("1", 3, 3), None).unwrap();
        assert_eq!((created.kind, &created.prev), (EventKind::Create, &None));
        let updated = put(kv("2", 3, 4), Some(kv("1", 3, 3))).unwrap();
        assert_eq!((updated.kind, updated.prev.as_ref()), (EventKind::Update, Some(&created.kv)));
        assert_eq!(put(kv("2", 3, 4), None), None);
        let delete = |prev_kv| {
            let gone = wire::KeyValue { key: b"k".to_vec(), mod_revision: 5, ..wire::KeyValue::default() };
            event(wire::Event { r#type: EventType::Delete.into(), kv: Some(gone), prev_kv })
        };
        assert_eq!(delete(Some(kv("2", 3, 4))).unwrap().prev.as_ref(), Some(&updated.kv));
        assert_eq!(delete(None), None);
    }

    #[test]
    fn what_nobody_expects_is_no_panic() {
        assert_eq!(event(wire::Event::default()), None);
        assert!(event(wire::Event { r#type: 77, kv: Some(kv("1", 3, 3)), prev_kv: None }).is_some());
    }
}
