//! Between rows and our types.

use bytes::{Bytes, BytesMut};
use rusqlite::Row;
use rusqlite::types::{ToSql, ToSqlOutput, ValueRef};

use crate::types::{Event, EventKind, Key, KeyRange, KeyValue, Revision, Ttl};

/// A key as the text that kine stores. The bytes are bound as they are; SQLite compares them as bytes.
pub(super) struct Name<'a>(pub &'a Key);

impl ToSql for Name<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(ValueRef::Text(self.0.as_bytes())))
    }
}

/// A name of whatever type, shown to somebody.
pub(super) fn name<T>(row: &Row<'_>, column: usize, show: impl FnOnce(&[u8]) -> T) -> rusqlite::Result<T> {
    match row.get_ref(column)? {
        ValueRef::Text(name) | ValueRef::Blob(name) => Ok(show(name)),
        _ => Ok(show(&bytes(row, column, Bytes::copy_from_slice)?)),
    }
}

/// The end of a range. SQLite sorts every blob behind every text, so an empty one stands for "no end".
pub(super) struct End<'a>(pub &'a KeyRange);

impl ToSql for End<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self.0.end() {
            Some(end) => ValueRef::Text(end.as_bytes()),
            None => ValueRef::Blob(&[]),
        }))
    }
}

/// How much an arena takes at a time: little at first, or the one value that is kept of a short answer would keep much
/// more with it; then some dozens of objects, which are let go together.
const ARENA_BYTES_FIRST: usize = 2 << 10;
const ARENA_BYTES_MOST: usize = 64 << 10;

/// Keeps the bytes of many rows in few allocations.
#[derive(Default)]
pub(super) struct Arena {
    bytes: BytesMut,
    /// How much was taken the last time.
    taken: usize,
}

impl Arena {
    /// A copy that shares its allocation with its neighbours.
    pub(super) fn keep(&mut self, bytes: &[u8]) -> Bytes {
        if self.bytes.capacity() < bytes.len() {
            self.taken = (self.taken * 2).clamp(ARENA_BYTES_FIRST, ARENA_BYTES_MOST);
            self.bytes = BytesMut::with_capacity(self.taken.max(bytes.len()));
        }
        self.bytes.extend_from_slice(bytes);
        self.bytes.split().freeze()
    }
}

/// Bytes of whatever type; kine's oldest tables call the column of names an integer, which turns digits into one.
fn bytes(row: &Row<'_>, column: usize, keep: impl FnOnce(&[u8]) -> Bytes) -> rusqlite::Result<Bytes> {
    Ok(match row.get_ref(column)? {
        ValueRef::Null => Bytes::new(),
        ValueRef::Integer(number) => Bytes::from(number.to_string()),
        ValueRef::Real(number) => Bytes::from(number.to_string()),
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => keep(bytes),
    })
}

fn revision(row: &Row<'_>, column: usize) -> rusqlite::Result<Revision> {
    Ok(Revision::new(row.get::<_, Option<i64>>(column)?.unwrap_or_default()))
}

pub(super) fn flag(row: &Row<'_>, column: usize) -> rusqlite::Result<bool> {
    Ok(row.get::<_, Option<i64>>(column)?.unwrap_or_default() != 0)
}

fn ttl(row: &Row<'_>, column: usize) -> rusqlite::Result<Ttl> {
    let seconds = row.get::<_, Option<i64>>(column)?.unwrap_or_default().max(0);
    Ok(Ttl::seconds(u32::try_from(seconds).unwrap_or(u32::MAX)))
}

/// A row that creates a key is its own creation; any other names it.
fn creation(created: bool, id: Revision, create_revision: Revision) -> Revision {
    if created || create_revision == Revision::ZERO { id } else { create_revision }
}

/// Reads `id, name, created, create_revision, lease, value`.
fn key_value(row: &Row<'_>) -> rusqlite::Result<KeyValue> {
    let mod_revision = revision(row, 0)?;
    Ok(KeyValue {
        key: Key::new(bytes(row, 1, Bytes::copy_from_slice)?),
        value: bytes(row, 5, Bytes::copy_from_slice)?,
        create_revision: creation(flag(row, 2)?, mod_revision, revision(row, 3)?),
        mod_revision,
        ttl: ttl(row, 4)?,
    })
}

/// What a row says beside its key and its revision.
#[derive(Clone, Debug)]
pub(super) struct Held {
    pub(super) value: Bytes,
    pub(super) create_revision: Revision,
    pub(super) ttl: Ttl,
}

impl Held {
    /// As what a key holds from a revision on.
    pub(super) fn of(self, key: Key, mod_revision: Revision) -> KeyValue {
        let Self { value, create_revision, ttl } = self;
        KeyValue { key, value, create_revision, mod_revision, ttl }
    }
}

impl From<&KeyValue> for Held {
    fn from(kv: &KeyValue) -> Self {
        Self { value: kv.value.clone(), create_revision: kv.create_revision, ttl: kv.ttl }
    }
}

/// Reads `id, created, create_revision, lease, value`, and has the value kept by somebody.
pub(super) fn held(row: &Row<'_>, keep: impl FnOnce(&[u8]) -> Bytes) -> rusqlite::Result<Held> {
    let create_revision = creation(flag(row, 1)?, revision(row, 0)?, revision(row, 2)?);
    Ok(Held { value: bytes(row, 4, keep)?, create_revision, ttl: ttl(row, 3)? })
}

/// Reads `id, name, created, create_revision, lease, value, deleted, prev_revision, old_value` and, of the row before
/// it, `created, create_revision, lease`.
pub(super) fn event(row: &Row<'_>) -> rusqlite::Result<Event> {
    let kv = key_value(row)?;
    let (created, deleted, prev_revision) = (flag(row, 2)?, flag(row, 6)?, revision(row, 7)?);
    let prev = if created || prev_revision == Revision::ZERO {
        None
    } else {
        Some(KeyValue {
            key: kv.key.clone(),
            value: bytes(row, 8, Bytes::copy_from_slice)?,
            create_revision: creation(flag(row, 9)?, prev_revision, revision(row, 10)?),
            mod_revision: prev_revision,
            ttl: ttl(row, 11)?,
        })
    };
    if deleted {
        return Ok(Event::delete(kv.key, kv.mod_revision, prev));
    }
    let kind = if created { EventKind::Create } else { EventKind::Update };
    Ok(Event { kind, kv, prev })
}
