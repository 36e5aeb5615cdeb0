//! Reads rows by their number, which the index knows.

use bytes::Bytes;
use rusqlite::{Connection, Statement};

use super::index::{Index, Version};
use super::row::{Arena, Held, flag, held, name};
use crate::error::{COMPACT_REV_KEY, is_reserved};
use crate::types::Revision;

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
                index.push(name, None, version);
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

    /// What the row of a revision says. Nothing if there is no such row: the index does not notice when somebody else
    /// deletes one.
    pub(super) fn get(&mut self, revision: Revision) -> rusqlite::Result<Option<Held>> {
        let mut rows = self.one.query([revision.get()])?;
        let row = rows.next()?;
        row.map(|row| held(row, Bytes::copy_from_slice)).transpose()
    }

    /// Reads the rows of some revisions, which are in order, with or without values. Nothing for those that are not
    /// there.
    pub(super) fn read(
        &mut self,
        revisions: &[Revision],
        keys_only: bool,
        arena: &mut Arena,
    ) -> rusqlite::Result<Vec<Option<Held>>> {
        let (Some(first), Some(last)) = (revisions.first(), revisions.last()) else { return Ok(Vec::new()) };
        let (one, between) = match keys_only {
            true => (&mut self.one_key, &mut self.between_keys),
            false => (&mut self.one, &mut self.between),
        };
        let mut found = Vec::with_capacity(revisions.len());
        if (last.get() - first.get()) / ROWS_PER_WANTED > i64::try_from(revisions.len()).unwrap_or(i64::MAX) {
            for revision in revisions {
                let mut rows = one.query([revision.get()])?;
                let row = rows.next()?;
                found.push(row.map(|row| held(row, |bytes| arena.keep(bytes))).transpose()?);
            }
            return Ok(found);
        }
        let mut rows = between.query((first.get(), last.get()))?;
        while let Some(row) = rows.next()? {
            let revision = Revision::new(row.get(0)?);
            while revisions.get(found.len()).is_some_and(|wanted| *wanted < revision) {
                found.push(None);
            }
            if revisions.get(found.len()) == Some(&revision) {
                found.push(Some(held(row, |bytes| arena.keep(bytes))?));
            }
        }
        found.resize_with(revisions.len(), || None);
        Ok(found)
    }
}

/// The form of the questions, for the test that looks at their plans.
#[cfg(test)]
pub(super) const QUESTIONS: [&str; 5] = [ONE, ONE_KEY, BETWEEN, BETWEEN_KEYS, VERSIONS];
