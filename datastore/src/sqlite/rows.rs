//! Reads rows by their number, which the index knows.

use bytes::Bytes;
use rusqlite::{Connection, Row, Statement};

use super::index::{Index, Version};
use super::row::{Arena, complete, flag, name};
use crate::error::{COMPACT_REV_KEY, is_reserved};
use crate::types::{Key, KeyValue, Revision, Ttl};

/// What of a row is read, beside its name.
macro_rules! rows {
    ($value:literal, $which:literal) => {
        concat!("SELECT id, created, create_revision, lease, ", $value, " FROM kine WHERE ", $which)
    };
}

const ONE: &str = rows!("value", "id = ?1");
const ONE_KEY: &str = rows!("NULL", "id = ?1");
const BETWEEN: &str = rows!("value", "id >= ?1 AND id <= ?2 ORDER BY id");
const BETWEEN_KEYS: &str = rows!("NULL", "id >= ?1 AND id <= ?2 ORDER BY id");

/// What the index is made of.
const VERSIONS: &str = "SELECT id, name, deleted, prev_revision FROM kine WHERE id > ?1 ORDER BY id";

/// With at most so many rows per row that is wanted, all of them are read; going to each by itself costs as much.
const ROWS_PER_WANTED: i64 = 4;

/// The row that says how far history is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Marker {
    pub(super) id: i64,
    pub(super) compacted: i64,
}

/// Brings the index up to date with the rows that came since. Returns the markers among them.
pub(super) fn follow(connection: &Connection, index: &Index) -> rusqlite::Result<Vec<Marker>> {
    let mut markers = Vec::new();
    let mut statement = connection.prepare(VERSIONS)?;
    let mut rows = statement.query([index.newest().get()])?;
    while let Some(row) = rows.next()? {
        let version = Version { revision: Revision::new(row.get(0)?), deleted: flag(row, 2)? };
        let is_marker = name(row, 1, |name| {
            if is_reserved(name) {
                index.skip(version.revision);
            } else {
                index.push(name, version);
            }
            name == COMPACT_REV_KEY.as_bytes()
        })?;
        if is_marker {
            markers.push(Marker { id: row.get(0)?, compacted: row.get::<_, Option<i64>>(3)?.unwrap_or_default() });
        }
    }
    Ok(markers)
}

/// The questions of one connection.
pub(super) struct Rows<'c> {
    one: Statement<'c>,
    one_key: Statement<'c>,
    between: Statement<'c>,
    between_keys: Statement<'c>,
}

impl<'c> Rows<'c> {
    pub(super) fn prepare(connection: &'c Connection) -> rusqlite::Result<Self> {
        // Nobody keeps this one: it is prepared when it is needed, which is next to never.
        connection.prepare(VERSIONS)?;
        Ok(Self {
            one: connection.prepare(ONE)?,
            one_key: connection.prepare(ONE_KEY)?,
            between: connection.prepare(BETWEEN)?,
            between_keys: connection.prepare(BETWEEN_KEYS)?,
        })
    }

    /// What a key held from a revision on. Nothing if there is no such row: the index does not notice when somebody
    /// else deletes one.
    pub(super) fn get(&mut self, key: &Key, revision: Revision) -> rusqlite::Result<Option<KeyValue>> {
        let mut rows = self.one.query([revision.get()])?;
        let Some(row) = rows.next()? else { return Ok(None) };
        let mut kv = KeyValue {
            key: key.clone(),
            value: Bytes::new(),
            create_revision: Revision::ZERO,
            mod_revision: revision,
            ttl: Ttl::NONE,
        };
        complete(row, &mut kv, Bytes::copy_from_slice)?;
        Ok(Some(kv))
    }

    /// Completes keys that have their name and `mod_revision`, with or without values. They keep their order; those
    /// without a row go. The rows are read in the order in which they lie: in that of names each would be on a page of
    /// its own.
    pub(super) fn complete(&mut self, mut kvs: Vec<KeyValue>, keys_only: bool) -> rusqlite::Result<Vec<KeyValue>> {
        let mut order: Vec<usize> = (0..kvs.len()).collect();
        order.sort_unstable_by_key(|place| kvs[*place].mod_revision);
        let (Some(first), Some(last)) = (order.first(), order.last()) else { return Ok(kvs) };
        let (first, last) = (kvs[*first].mod_revision.get(), kvs[*last].mod_revision.get());
        let (one, between) = match keys_only {
            true => (&mut self.one_key, &mut self.between_keys),
            false => (&mut self.one, &mut self.between),
        };
        let mut arena = Arena::default();
        let mut fill = |row: &Row<'_>, kv: &mut KeyValue| complete(row, kv, |bytes| arena.keep(bytes));
        if (last - first) / ROWS_PER_WANTED <= i64::try_from(kvs.len()).unwrap_or(i64::MAX) {
            let mut rows = between.query((first, last))?;
            let mut wanted = order.into_iter().peekable();
            while let Some(row) = rows.next()? {
                let id = Revision::new(row.get(0)?);
                while wanted.next_if(|place| kvs[*place].mod_revision < id).is_some() {}
                if let Some(place) = wanted.next_if(|place| kvs[*place].mod_revision == id) {
                    fill(row, &mut kvs[place])?;
                }
            }
        } else {
            for place in order {
                let mut rows = one.query([kvs[place].mod_revision.get()])?;
                if let Some(row) = rows.next()? {
                    fill(row, &mut kvs[place])?;
                }
            }
        }
        // Every row says when its key was created.
        kvs.retain(|kv| kv.create_revision != Revision::ZERO);
        Ok(kvs)
    }
}

/// The form of the questions, for the test that looks at their plans.
#[cfg(test)]
pub(super) const QUESTIONS: [&str; 5] = [ONE, ONE_KEY, BETWEEN, BETWEEN_KEYS, VERSIONS];
