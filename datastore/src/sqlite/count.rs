//! Counts keys without walking them each time. Whoever lists in pages asks with each page how many keys are left; what
//! was counted before is brought up to date from the rows that came since, and shortened by the page in between.
//!
//! A count stays good as long as the rows between its revision and the one that is asked for are all there: until a
//! compaction has passed the older of the two.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rusqlite::{Connection, Statement};

use super::row::{End, Name};
use crate::types::{KeyRange, Revision};

/// How many counts are remembered: the ranges that are listed in turns, and a few pages of each.
const KNOWN_MAX: usize = 64;
/// How many changes, and how many keys in front, are looked at before counting anew is the quicker way.
const STEPS_MAX: i64 = 2000;

/// The newest row of each name of a range, up to a revision, unless it deletes. See `query.rs` for its form.
const COUNT: &str =
    "SELECT count(*) FROM (SELECT kv.id FROM (SELECT max(id) AS id FROM kine INDEXED BY kine_name_id_index
        WHERE name >= ?1 AND name < ?2 AND id <= ?3 GROUP BY name) AS newest
    CROSS JOIN kine AS kv ON kv.id = newest.id WHERE kv.deleted = 0 AND kv.name != 'compact_rev_key' LIMIT ?4)";
/// By how much the number of keys changed between two revisions. What fills a gap in the revisions deletes nothing.
const CHANGED: &str = "SELECT coalesce(sum(created - (deleted != 0 AND prev_revision != 0)), 0) FROM kine
    WHERE id > ?1 AND id <= ?2 AND +name >= ?3 AND +name < ?4 AND +name != 'compact_rev_key'";

/// So many keys there were from `start` to `end` at a revision.
#[derive(Clone, Debug)]
struct Known {
    range: KeyRange,
    at: Revision,
    count: i64,
}

/// What is remembered, the newest first. All readers share it.
#[derive(Clone, Default)]
pub(super) struct Counts(Arc<Mutex<VecDeque<Known>>>);

impl Counts {
    fn lock(&self) -> MutexGuard<'_, VecDeque<Known>> {
        // An entry is put in whole or not at all.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The count of the same end that begins nearest before the range, and can be brought to `at`.
    fn nearest(&self, range: &KeyRange, at: Revision, compacted: Revision) -> Option<Known> {
        let known = self.lock();
        let fitting = known.iter().filter(|known| {
            let (older, newer) = (known.at.min(at), known.at.max(at));
            known.range.end() == range.end()
                && known.range.start() <= range.start()
                && older >= compacted
                && newer.get() - older.get() <= STEPS_MAX
        });
        fitting.max_by_key(|known| known.range.start()).cloned()
    }

    fn remember(&self, range: &KeyRange, at: Revision, count: i64) {
        let mut known = self.lock();
        known.retain(|known| known.range != *range);
        known.truncate(KNOWN_MAX - 1);
        known.push_front(Known { range: range.clone(), at, count });
    }
}

/// The questions of one connection.
pub(super) struct Counter<'c> {
    counts: Counts,
    count: Statement<'c>,
    changed: Statement<'c>,
}

impl<'c> Counter<'c> {
    pub(super) fn prepare(connection: &'c Connection, counts: Counts) -> rusqlite::Result<Self> {
        Ok(Self { counts, count: connection.prepare(COUNT)?, changed: connection.prepare(CHANGED)? })
    }

    /// How many keys of the range are alive at a revision, which is not before the compacted one.
    pub(super) fn count(&mut self, range: &KeyRange, at: Revision, compacted: Revision) -> rusqlite::Result<i64> {
        let known = match self.counts.nearest(range, at, compacted) {
            Some(known) => self.follow(&known, range, at)?,
            None => None,
        };
        let count = match known {
            Some(count) => count,
            None => self.walk(range, at, -1)?,
        };
        self.counts.remember(range, at, count);
        Ok(count)
    }

    /// From what is known to what is asked, or nothing if that is far.
    fn follow(&mut self, known: &Known, range: &KeyRange, at: Revision) -> rusqlite::Result<Option<i64>> {
        let before = KeyRange::half_open(known.range.start().clone(), range.start().clone());
        let left_out = if range.start() == known.range.start() { 0 } else { self.walk(&before, at, STEPS_MAX)? };
        if left_out >= STEPS_MAX {
            return Ok(None);
        }
        let (older, newer) = (known.at.min(at), known.at.max(at));
        let names = (Name(known.range.start()), End(&known.range));
        let changed: i64 = self.changed.query_row((older.get(), newer.get(), names.0, names.1), |row| row.get(0))?;
        let whole = if known.at <= at { known.count + changed } else { known.count - changed };
        Ok(Some(whole - left_out))
    }

    /// Counts one by one; below zero is no limit.
    fn walk(&mut self, range: &KeyRange, at: Revision, limit: i64) -> rusqlite::Result<i64> {
        self.count.query_row((Name(range.start()), End(range), at.get(), limit), |row| row.get(0))
    }
}

/// The form of the questions, for the test that looks at their plans.
#[cfg(test)]
pub(super) const QUESTIONS: [&str; 2] = [COUNT, CHANGED];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Key;

    fn range(start: &str) -> KeyRange {
        KeyRange::half_open(Key::from(start), Key::from("z"))
    }

    fn nearest(counts: &Counts, start: &str, at: i64, compacted: i64) -> Option<i64> {
        counts.nearest(&range(start), Revision::new(at), Revision::new(compacted)).map(|known| known.count)
    }

    #[test]
    fn the_nearest_count_that_still_holds_is_taken() {
        let counts = Counts::default();
        counts.remember(&range("a"), Revision::new(100), 50);
        counts.remember(&range("c"), Revision::new(90), 30);
        assert_eq!(nearest(&counts, "d", 100, 0), Some(30));
        assert_eq!(nearest(&counts, "d", 100, 91), Some(50), "90 is compacted");
        assert_eq!(nearest(&counts, "b", 95, 0), Some(50));
        assert_eq!(nearest(&counts, "b", 95, 96), None);
        assert_eq!(nearest(&counts, "a", 101 + STEPS_MAX, 0), None, "too far ahead");
        assert_eq!(nearest(&counts, "A", 100, 0), None, "it begins before");
        counts.remember(&range("c"), Revision::new(101), 31);
        assert_eq!(nearest(&counts, "c", 101, 100), Some(31), "a range has one entry");
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let counts = Counts::default();
        for number in 0..500 {
            counts.remember(&range(&format!("{number}")), Revision::new(1), number);
        }
        assert_eq!(counts.lock().len(), KNOWN_MAX);
        assert_eq!(nearest(&counts, "499", 1, 0), Some(499));
    }
}
