//! Reads all keys of a range. In the order of names their rows lie anywhere in the file, and each costs a page of its
//! own; so the index is walked first, and if most rows are wanted, they are read in the order in which they lie.

use rusqlite::{Connection, Row, Statement};

use super::row::{Arena, End, Name, key_value};
use crate::types::{KeyRange, KeyValue, Revision};

/// The newest row of each name, up to a revision.
const NEWEST: &str = "SELECT max(id) FROM kine INDEXED BY kine_name_id_index
    WHERE name >= ?1 AND name < ?2 AND id <= ?3 GROUP BY name HAVING name != 'compact_rev_key'";
/// All rows between two.
const BETWEEN: &str = "SELECT id, name, created, create_revision, lease, value, deleted FROM kine
    WHERE id >= ?1 AND id <= ?2 ORDER BY id";

/// With at most so many rows per row that is wanted, all of them are read; going to each by itself costs as much.
const ROWS_PER_WANTED: i64 = 4;

/// The questions of one connection.
pub(super) struct Lister<'c> {
    newest: Statement<'c>,
    between: Statement<'c>,
}

impl<'c> Lister<'c> {
    pub(super) fn prepare(connection: &'c Connection) -> rusqlite::Result<Self> {
        Ok(Self { newest: connection.prepare(NEWEST)?, between: connection.prepare(BETWEEN)? })
    }

    /// The live keys of the range in order, as of a revision. Nothing if going to each row by itself is quicker.
    pub(super) fn list(&mut self, range: &KeyRange, at: Revision) -> rusqlite::Result<Option<Vec<KeyValue>>> {
        let rows = self.newest.query_map((Name(range.start()), End(range), at.get()), |row| row.get(0))?;
        let ids: Vec<i64> = rows.collect::<rusqlite::Result<_>>()?;
        let (Some(first), Some(last)) = (ids.iter().min(), ids.iter().max()) else { return Ok(Some(Vec::new())) };
        if (last - first) / ROWS_PER_WANTED > i64::try_from(ids.len()).unwrap_or(i64::MAX) {
            return Ok(None);
        }
        let mut order: Vec<usize> = (0..ids.len()).collect();
        order.sort_unstable_by_key(|place| ids[*place]);
        let mut found: Vec<Option<KeyValue>> = vec![None; ids.len()];
        let mut arena = Arena::default();
        let mut rows = self.between.query((first, last))?;
        let mut wanted = order.into_iter().peekable();
        while let (Some(row), Some(place)) = (rows.next()?, wanted.peek().copied()) {
            if row.get::<_, i64>(0)? == ids[place] {
                found[place] = live(row, &mut arena)?;
                wanted.next();
            }
        }
        Ok(Some(found.into_iter().flatten().collect()))
    }
}

/// What the row says, unless it says that the key is gone.
fn live(row: &Row<'_>, arena: &mut Arena) -> rusqlite::Result<Option<KeyValue>> {
    let deleted = row.get::<_, Option<i64>>(6)?.unwrap_or_default() != 0;
    if deleted { Ok(None) } else { key_value(row, |bytes| arena.keep(bytes)).map(Some) }
}

/// The form of the questions, for the test that looks at their plans.
#[cfg(test)]
pub(super) const QUESTIONS: [&str; 2] = [NEWEST, BETWEEN];
