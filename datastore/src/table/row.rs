//! What the rows of kine's table mean.

use bytes::Bytes;

use super::database::NewRow;
use crate::types::{Event, EventKind, Key, KeyValue, Revision, Ttl};

/// A row as it is stored, without what it replaced. Columns that are NULL are 0 or empty here.
#[derive(Clone)]
pub(crate) struct StoredRow {
    pub id: i64,
    pub key: Key,
    pub created: bool,
    pub deleted: bool,
    pub create_revision: i64,
    pub lease: i64,
    pub value: Bytes,
}

/// A row with what it replaced, as far as that is still there.
pub(crate) struct EventRow {
    pub row: StoredRow,
    pub prev_revision: i64,
    pub old_value: Bytes,
    pub prev_created: bool,
    pub prev_create_revision: i64,
    pub prev_lease: i64,
}

/// A row that creates a key is its own creation, and kine writes 0 there; any other names it.
fn creation(created: bool, id: i64, create_revision: i64) -> Revision {
    Revision::new(if created || create_revision == 0 { id } else { create_revision })
}

fn ttl(lease: i64) -> Ttl {
    Ttl::seconds(u32::try_from(lease).unwrap_or_default())
}

impl StoredRow {
    /// What the key held from this row on.
    pub(crate) fn into_key_value(self) -> KeyValue {
        KeyValue {
            key: self.key,
            value: self.value,
            create_revision: creation(self.created, self.id, self.create_revision),
            mod_revision: Revision::new(self.id),
            ttl: ttl(self.lease),
        }
    }

    /// The same, unless the row is a delete.
    pub(crate) fn into_live(self) -> Option<KeyValue> {
        (!self.deleted).then(|| self.into_key_value())
    }
}

impl EventRow {
    /// What the row did.
    pub(crate) fn into_event(self) -> Event {
        let Self { row, prev_revision, old_value, prev_created, prev_create_revision, prev_lease } = self;
        let (created, deleted) = (row.created, row.deleted);
        let prev = (!created && prev_revision != 0).then(|| KeyValue {
            key: row.key.clone(),
            value: old_value,
            create_revision: creation(prev_created, prev_revision, prev_create_revision),
            mod_revision: Revision::new(prev_revision),
            ttl: ttl(prev_lease),
        });
        if deleted {
            return Event::delete(row.key, Revision::new(row.id), prev);
        }
        let kind = if created { EventKind::Create } else { EventKind::Update };
        Event { kind, kv: row.into_key_value(), prev }
    }
}

impl<'a> NewRow<'a> {
    /// The row of an event. `prev_revision` is that of the newest row of the key, a delete included.
    pub(crate) fn event(event: &'a Event, name: &'a str, prev_revision: i64) -> Self {
        let Event { kind, kv, prev } = event;
        let deleted = *kind == EventKind::Delete;
        Self {
            id: kv.mod_revision.get(),
            name,
            created: *kind == EventKind::Create,
            deleted,
            // kine leaves the creation of a row that creates or deletes at 0.
            create_revision: if *kind == EventKind::Update { kv.create_revision.get() } else { 0 },
            prev_revision,
            lease: i32::try_from(kv.ttl.as_seconds()).unwrap_or(i32::MAX),
            value: (!deleted).then_some(&kv.value[..]),
            old_value: prev.as_ref().map(|prev| &prev.value[..]),
        }
    }

    /// A row that stands for a revision that nobody has.
    pub(crate) fn filler(id: i64, name: &'a str) -> Self {
        Self {
            id,
            name,
            created: false,
            deleted: true,
            create_revision: 0,
            prev_revision: 0,
            lease: 0,
            value: None,
            old_value: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(id: i64, created: bool, deleted: bool, create_revision: i64) -> StoredRow {
        let value = Bytes::from_static(b"new");
        StoredRow { id, key: "k".into(), created, deleted, create_revision, lease: 7, value }
    }

    fn event(row: StoredRow, prev_revision: i64, prev_created: bool) -> Event {
        let old_value = Bytes::from_static(b"old");
        EventRow { row, prev_revision, old_value, prev_created, prev_create_revision: 2, prev_lease: 0 }.into_event()
    }

    #[test]
    fn rows_are_read_as_kine_writes_them() {
        let created = event(row(5, true, false, 0), 4, false);
        assert_eq!((created.kind, created.kv.create_revision.get(), created.prev), (EventKind::Create, 5, None));
        let updated = event(row(6, false, false, 5), 5, true);
        let prev = updated.prev.expect("it replaced something");
        assert_eq!((updated.kind, updated.kv.create_revision.get()), (EventKind::Update, 5));
        assert_eq!((prev.mod_revision.get(), prev.create_revision.get(), &prev.value[..]), (5, 5, &b"old"[..]));
        let deleted = event(row(7, false, true, 0), 6, false);
        assert_eq!((deleted.kind, deleted.kv.value.len()), (EventKind::Delete, 0));
        assert_eq!(deleted.prev.expect("it replaced something").create_revision.get(), 2);
        assert_eq!(row(7, false, true, 0).into_live(), None);
        assert_eq!(row(7, false, false, 5).into_live().map(|kv| kv.ttl), Some(Ttl::seconds(7)));
    }

    #[test]
    fn what_is_written_reads_the_same() {
        let first = Event::put("k".into(), Bytes::from_static(b"1"), Ttl::seconds(3), Revision::new(4), None);
        let second = Event::put("k".into(), Bytes::new(), Ttl::NONE, Revision::new(5), Some(first.kv.clone()));
        let gone = Event::delete("k".into(), Revision::new(6), Some(second.kv.clone()));
        for (event, prev_revision, created) in [(&first, 0, false), (&second, 4, true), (&gone, 5, false)] {
            let NewRow {
                id, created: creates, deleted, create_revision, prev_revision, lease, value, old_value, ..
            } = NewRow::event(event, "k", prev_revision);
            let row = StoredRow {
                id,
                key: "k".into(),
                created: creates,
                deleted,
                create_revision,
                lease: lease.into(),
                value: value.map_or_else(Bytes::new, Bytes::copy_from_slice),
            };
            let prev_lease = event.prev.as_ref().map_or(0, |prev| prev.ttl.as_seconds().into());
            let old_value = old_value.map_or_else(Bytes::new, Bytes::copy_from_slice);
            let prev_create_revision = 4;
            let read =
                EventRow { row, prev_revision, old_value, prev_created: created, prev_create_revision, prev_lease };
            assert_eq!(read.into_event(), *event);
        }
    }
}
