//! The rows that were written or asked for lately, in memory. A row never changes, so what is here by its number is
//! right for as long as anybody may ask for it; whether it is a key's present one is for the index to say.
//!
//! The writer needs what a key held before every write of it, and what is written is often read soon. A page of the file
//! has three such rows, and each of them would be found by way of a statement, a search and a call of the kernel.
//!
//! What goes when there is no room any more is what came first, unless it was asked for since; then it has one more turn.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::row::Held;
use crate::types::Revision;

/// What an entry takes beside its value: its places in map and queue, and the allocation.
const ENTRY_BYTES: usize = 160;
/// No value takes more than this part of the whole.
const VALUE_SHARE: usize = 64;
/// How many numbers of rows that are gone may stand in the queue before it is swept, beside as many as there are rows.
const STALE_SLACK: usize = 1024;

/// See the module's page.
#[derive(Debug)]
pub(super) struct RowCache {
    bytes_max: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    rows: HashMap<Revision, Entry>,
    /// In the order in which they came, and some that are gone.
    order: VecDeque<Revision>,
    bytes: usize,
}

#[derive(Debug)]
struct Entry {
    held: Held,
    /// It was asked for since it last came to the front.
    used: bool,
}

fn cost(held: &Held) -> usize {
    held.value.len() + ENTRY_BYTES
}

impl RowCache {
    /// Keeps at most so many bytes, and nothing if there are none.
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { bytes_max, state: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic under the lock would be a bug of this file; the worst that it leaves is a wrong count of bytes.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a row says, if that is known here.
    pub(super) fn get(&self, revision: Revision) -> Option<Held> {
        self.lock().get(revision)
    }

    /// The same of many, under one lock.
    pub(super) fn get_many(&self, revisions: impl Iterator<Item = Revision>) -> Vec<Option<Held>> {
        let mut state = self.lock();
        revisions.map(|revision| state.get(revision)).collect()
    }

    /// Adds rows that are in the file, and then lets go of those that no key has any more, which may be among them.
    pub(super) fn replace(&self, rows: impl Iterator<Item = (Revision, Held)>, gone: impl Iterator<Item = Revision>) {
        let mut state = self.lock();
        for (revision, held) in rows {
            if held.value.len() <= self.bytes_max / VALUE_SHARE {
                state.insert(revision, held);
            }
        }
        for revision in gone {
            state.remove(revision);
        }
        state.shrink(self.bytes_max);
    }

    /// Adds rows that were read. Their values should be allocations of their own: what is kept keeps its neighbours.
    pub(super) fn add(&self, rows: impl Iterator<Item = (Revision, Held)>) {
        self.replace(rows, std::iter::empty());
    }
}

impl State {
    fn get(&mut self, revision: Revision) -> Option<Held> {
        let entry = self.rows.get_mut(&revision)?;
        entry.used = true;
        Some(entry.held.clone())
    }

    fn insert(&mut self, revision: Revision, held: Held) {
        self.bytes += cost(&held);
        match self.rows.insert(revision, Entry { held, used: false }) {
            Some(before) => self.bytes -= cost(&before.held),
            None => self.order.push_back(revision),
        }
    }

    fn remove(&mut self, revision: Revision) {
        if let Some(entry) = self.rows.remove(&revision) {
            self.bytes -= cost(&entry.held);
        }
    }

    fn shrink(&mut self, bytes_max: usize) {
        while self.bytes > bytes_max {
            let Some(first) = self.order.pop_front() else { break };
            match self.rows.get_mut(&first) {
                Some(entry) if entry.used => {
                    entry.used = false;
                    self.order.push_back(first);
                }
                _ => self.remove(first),
            }
        }
        if self.order.len() > 2 * self.rows.len() + STALE_SLACK {
            let rows = &self.rows;
            self.order.retain(|revision| rows.contains_key(revision));
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::types::Ttl;

    const VALUE_BYTES: usize = 1000;

    fn row(number: i64) -> (Revision, Held) {
        let value = Bytes::from(vec![b'v'; VALUE_BYTES]);
        (Revision::new(number), Held { value, create_revision: Revision::new(number), ttl: Ttl::NONE })
    }

    fn kept(cache: &RowCache, numbers: std::ops::Range<i64>) -> Vec<i64> {
        let state = cache.lock();
        numbers.filter(|number| state.rows.contains_key(&Revision::new(*number))).collect()
    }

    #[test]
    fn what_came_first_goes_first_unless_it_was_asked_for() {
        let cache = RowCache::new(100 * (VALUE_BYTES + ENTRY_BYTES));
        cache.add((0..100).map(row));
        assert_eq!(kept(&cache, 0..100).len(), 100);
        let asked = cache.get_many([3, 7, 500].map(Revision::new).into_iter());
        assert_eq!(asked.iter().map(Option::is_some).collect::<Vec<_>>(), [true, true, false]);
        cache.add((100..110).map(row));
        assert_eq!(kept(&cache, 0..20), [3, 7].into_iter().chain(12..20).collect::<Vec<_>>());
        // One more turn, not two.
        cache.add((110..300).map(row));
        assert_eq!(kept(&cache, 0..300), (200..300).collect::<Vec<_>>());
    }

    #[test]
    fn rows_that_are_replaced_for_ever_leave_nothing_behind() {
        let cache = RowCache::new(1 << 20);
        cache.add(std::iter::once(row(0)));
        for number in 1..100_000 {
            let before = Revision::new(number - 1);
            cache.replace(
                std::iter::once(row(number)),
                std::iter::once(before).filter(|before| *before != Revision::ZERO),
            );
        }
        assert_eq!(kept(&cache, 0..100_000), [0, 99_999]);
        let state = cache.lock();
        assert!(state.order.len() < 2 * STALE_SLACK, "{}", state.order.len());
        assert_eq!(state.bytes, 2 * (VALUE_BYTES + ENTRY_BYTES));
    }

    #[test]
    fn what_is_too_large_is_not_kept() {
        for bytes_max in [0, 63 * VALUE_BYTES] {
            let cache = RowCache::new(bytes_max);
            cache.add((0..10).map(row));
            assert!(kept(&cache, 0..10).is_empty());
        }
    }
}
