//! A long list is read by all readers that have nothing else to do.
//!
//! Who answers the list knows the numbers of all rows, cuts them into portions, and begins to read; whoever else comes
//! takes portions, too. Nobody is waited for but those who have taken one. A helper has a snapshot of his own: a row never
//! changes, so that it is the same row there; but one that a compaction dropped in between is missing, and is then read
//! by the one who asked, in whose snapshot it still is.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::row::{Arena, Held};
use super::rows::Rows;
use crate::types::Revision;

/// How many rows are taken at a time: a tenth of a millisecond.
const PORTION_ROWS: usize = 64;
/// From how many portions on it is worth waking somebody.
const PORTIONS_FOR_MANY: usize = 4;

type Found = Vec<Option<Held>>;

/// Rows to be read.
pub(super) struct Work {
    /// In order.
    revisions: Vec<Revision>,
    keys_only: bool,
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    /// The first portion that nobody has taken.
    next: usize,
    /// How many are being read.
    running: usize,
    /// What was found, for each portion that was read.
    found: Vec<Option<Found>>,
}

/// One that was taken. Dropping it gives it back, read or not.
struct Portion<'w> {
    work: &'w Work,
    number: usize,
    found: Option<Found>,
}

impl Work {
    pub(super) fn new(revisions: Vec<Revision>, keys_only: bool) -> Arc<Self> {
        let mut found = Vec::new();
        found.resize_with(revisions.len().div_ceil(PORTION_ROWS), || None);
        let state = Mutex::new(State { next: 0, running: 0, found });
        Arc::new(Self { revisions, keys_only, state, changed: Condvar::new() })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing can panic between the changes that belong together.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether there is enough to wake somebody for.
    pub(super) fn is_for_many(&self) -> bool {
        self.revisions.len() > PORTION_ROWS * PORTIONS_FOR_MANY
    }

    /// Whether there are portions that nobody has taken.
    pub(super) fn is_left(&self) -> bool {
        let state = self.lock();
        state.next < state.found.len()
    }

    fn rows_of(&self, number: usize) -> &[Revision] {
        let from = number * PORTION_ROWS;
        &self.revisions[from..self.revisions.len().min(from + PORTION_ROWS)]
    }

    fn take(&self) -> Option<Portion<'_>> {
        let mut state = self.lock();
        let number = state.next;
        // There are none any more when the one who asked has taken them all.
        if number >= state.found.len() {
            return None;
        }
        state.next += 1;
        state.running += 1;
        Some(Portion { work: self, number, found: None })
    }

    /// Reads portions until none is left. On an error nobody need begin another one.
    pub(super) fn join_in(&self, rows: &mut Rows<'_>) -> rusqlite::Result<()> {
        let mut arena = Arena::default();
        while let Some(mut portion) = self.take() {
            portion.found = Some(rows.read(self.rows_of(portion.number), self.keys_only, &mut arena)?);
        }
        Ok(())
    }

    /// Reads what others don't, and waits for them. Returns what the rows say, in their order; nothing for rows that are
    /// not in the snapshot.
    pub(super) fn finish(&self, rows: &mut Rows<'_>) -> rusqlite::Result<Found> {
        let read = self.join_in(rows);
        let mut state = self.lock();
        if read.is_err() {
            state.next = state.found.len();
        }
        state = self.changed.wait_while(state, |state| state.running > 0).unwrap_or_else(PoisonError::into_inner);
        let portions = std::mem::take(&mut state.found);
        drop(state);
        read?;
        let (mut all, mut arena) = (Vec::with_capacity(self.revisions.len()), Arena::default());
        for (number, found) in portions.into_iter().enumerate() {
            let revisions = self.rows_of(number);
            match found {
                Some(found) => all.extend(found),
                None => all.extend(rows.read(revisions, self.keys_only, &mut arena)?),
            }
            for (held, revision) in all[number * PORTION_ROWS..].iter_mut().zip(revisions) {
                if held.is_none() {
                    *held = rows.read(&[*revision], self.keys_only, &mut arena)?.pop().flatten();
                }
            }
        }
        Ok(all)
    }
}

impl Drop for Portion<'_> {
    fn drop(&mut self) {
        let mut state = self.work.lock();
        state.running -= 1;
        if let Some(place) = state.found.get_mut(self.number) {
            *place = self.found.take();
        }
        drop(state);
        self.work.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use rusqlite::Connection;

    use super::*;
    use crate::sqlite::{SqliteOptions, open};

    const ROWS: i64 = 1000;

    fn all(found: &Found) -> Vec<bool> {
        found.iter().map(Option::is_some).collect()
    }

    /// A file with some rows, and the way to open it again.
    fn file() -> (tempfile::TempDir, SqliteOptions, Connection) {
        let directory = tempfile::tempdir().unwrap();
        let options = SqliteOptions::new(directory.path().join("state.db"));
        let writer = open::open_for_writing(&options).unwrap().connection;
        for id in 2..ROWS + 2 {
            let insert = "INSERT INTO kine (id, name, created, deleted, lease, value) VALUES (?1, ?1, 1, 0, 0, x'00')";
            writer.execute(insert, [id]).unwrap();
        }
        (directory, options, writer)
    }

    fn work() -> Arc<Work> {
        Work::new((2..ROWS + 2).map(Revision::new).collect(), false)
    }

    #[test]
    fn what_a_helper_misses_is_read_by_who_asked() {
        let (_directory, options, writer) = file();
        let (asker, helper) = (open::open_beside(&options, true).unwrap(), open::open_beside(&options, true).unwrap());
        let mut rows = Rows::prepare(&asker).unwrap();
        asker.execute_batch("BEGIN; SELECT * FROM kine LIMIT 1").unwrap();
        writer.execute("DELETE FROM kine WHERE id % 3 = 0", []).unwrap();
        let work = work();
        work.join_in(&mut Rows::prepare(&helper).unwrap()).unwrap();
        assert!(!work.is_left() && work.is_for_many());
        let found = work.finish(&mut rows).unwrap();
        assert_eq!(all(&found), vec![true; ROWS as usize]);
        assert!(work.take().is_none(), "a helper that comes late finds nothing to do");
        asker.execute_batch("ROLLBACK").unwrap();
        let expected: Vec<_> = (2..ROWS + 2).map(|id| id % 3 != 0).collect();
        assert_eq!(all(&self::work().finish(&mut rows).unwrap()), expected);
    }

    #[test]
    fn a_helper_that_fails_is_replaced_and_one_that_reads_is_waited_for() {
        let (_directory, options, writer) = file();
        let work = work();
        drop(work.take());
        let mut portion = work.take().unwrap();
        let found = std::thread::scope(|scope| {
            let asker = scope.spawn(|| {
                let asker = open::open_beside(&options, true).unwrap();
                work.finish(&mut Rows::prepare(&asker).unwrap()).unwrap()
            });
            while work.is_left() {
                std::thread::yield_now();
            }
            assert!(!asker.is_finished());
            let mut rows = Rows::prepare(&writer).unwrap();
            portion.found = Some(rows.read(work.rows_of(portion.number), false, &mut Arena::default()).unwrap());
            drop(portion);
            asker.join().unwrap()
        });
        assert_eq!(all(&found), vec![true; ROWS as usize]);
    }
}
