//! Which revisions each key has: in memory, so that the file needs no index by name and a write only appends to it. The
//! rows are the truth; this is read from them when the file is opened, and follows them.
//!
//! ```text
//!   writer ──a version per write, before the commit──▶ ┌───────────────────────┐ ◀──keys and revisions of a range── readers
//!          ──takes them back if the commit fails─────▶ │ leaves of ≤ 128 keys  │
//!          ──drops what is compacted, piece by piece─▶ └───────────────────────┘
//! ```
//!
//! A version is here before any snapshot of the file shows its row, so whoever reads takes the snapshot first, and then
//! asks for what was there at the snapshot's revision: newer versions don't matter to him. Versions that he needs may
//! be gone only if a compaction was finished since, which he is told ([`Pruned`]). Nobody holds the lock for longer than
//! it takes to walk a few leaves.
//!
//! A key takes its own bytes and some 70 more, and 8 for each revision that is not compacted.

mod leaf;
mod versions;

use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use self::leaf::{LEAF_KEYS_MAX, Leaf};
pub(super) use self::versions::Version;
use super::row::Arena;
use crate::types::{Key, KeyRange, KeyValue, Revision, Ttl};

/// How many leaves are walked before others get their turn: some ten thousand keys, a tenth of a millisecond.
const LEAVES_AT_ONCE: usize = 64;

/// The index has forgotten what was there at the revision that was asked for: history is compacted up to this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pruned(pub(super) Revision);

/// See the module's page.
#[derive(Debug, Default)]
pub(super) struct Index {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// In order, none of them empty.
    leaves: Vec<Leaf>,
    /// Every row up to here is in.
    newest: Revision,
    /// Versions may be gone that can only be seen before.
    pruned: Revision,
}

/// Where a key was found. It may be elsewhere by now.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    leaf: usize,
    entry: usize,
}

/// How far a pruning has come.
#[derive(Debug)]
pub(super) struct Pruning {
    compacted: Revision,
    /// The first key that was not looked at.
    next: Option<Box<[u8]>>,
}

impl Index {
    /// A panic under the lock would be a bug of this file. What it leaves behind is still in order; the worst that can
    /// be wrong is a leaf's count.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The newest row that is in; with it all those before it.
    pub(super) fn newest(&self) -> Revision {
        self.lock().newest
    }

    /// Adds the row of a revision, unless it is in already. Where the key was found spares looking for it again.
    pub(super) fn push(&self, key: &[u8], found: Option<Place>, version: Version) {
        let mut state = self.lock();
        if version.revision > state.newest {
            state.push(key, found, version);
            state.newest = version.revision;
        }
    }

    /// Notes that a row is no key's.
    pub(super) fn skip(&self, revision: Revision) {
        let mut state = self.lock();
        state.newest = state.newest.max(revision);
    }

    /// Takes back rows that came to nothing, the newest ones, after which `newest` is the newest one again.
    pub(super) fn take_back<'k>(&self, rows: impl DoubleEndedIterator<Item = (&'k Key, Revision)>, newest: Revision) {
        let mut state = self.lock();
        for (key, revision) in rows.rev() {
            state.pop(key.as_bytes(), revision);
        }
        state.newest = newest;
    }

    /// What the key is now, rows without a commit included, and where that was found: for the writer.
    pub(super) fn latest(&self, key: &Key) -> Option<(Version, Place)> {
        let state = self.lock();
        let leaf = state.leaf_of(key.as_bytes());
        let entry = state.leaves.get(leaf)?.find(key.as_bytes()).ok()?;
        Some((state.leaves[leaf].entries[entry].versions.newest(), Place { leaf, entry }))
    }

    /// What the key was at a revision.
    pub(super) fn at(&self, key: &Key, at: Revision) -> Result<Option<Version>, Pruned> {
        let state = self.lock();
        state.check(at)?;
        Ok(state.at(key.as_bytes(), at))
    }

    /// The keys of a range that are there at a revision, in order, at most so many. Of each there is only its name and
    /// `mod_revision`.
    pub(super) fn select(&self, range: &KeyRange, at: Revision, limit: usize) -> Result<Vec<KeyValue>, Pruned> {
        let (mut found, mut arena, mut rest) = (Vec::new(), Arena::default(), Some(range.start().as_bytes().into()));
        while let Some(start) = rest.take() {
            let state = self.lock();
            state.check(at)?;
            let end = range.end().map(Key::as_bytes);
            rest = state.walk(start, end, |leaf, from, to| {
                for entry in &leaf.entries[from..to] {
                    if found.len() >= limit {
                        return false;
                    }
                    if let Some(version) = entry.versions.at(at).filter(|version| !version.deleted) {
                        found.push(named(Key::new(arena.keep(&entry.key)), version.revision));
                    }
                }
                true
            });
        }
        Ok(found)
    }

    /// How many keys of a range are there at a revision.
    pub(super) fn count(&self, range: &KeyRange, at: Revision) -> Result<usize, Pruned> {
        let (mut count, mut rest) = (0, Some(range.start().as_bytes().into()));
        while let Some(start) = rest.take() {
            let state = self.lock();
            state.check(at)?;
            rest = state.walk(start, range.end().map(Key::as_bytes), |leaf, from, to| {
                count += leaf.live(from, to, at);
                true
            });
        }
        Ok(count)
    }

    /// Begins to drop what can only be seen before `compacted`, which is compacted in the file already.
    pub(super) fn begin_pruning(&self, compacted: Revision) -> Pruning {
        let mut state = self.lock();
        state.pruned = state.pruned.max(compacted);
        Pruning { compacted, next: Some(Box::default()) }
    }

    /// Goes through some more keys. Whether there are others.
    pub(super) fn prune(&self, pruning: &mut Pruning) -> bool {
        if let Some(next) = pruning.next.take() {
            pruning.next = self.lock().prune(&next, pruning.compacted);
        }
        pruning.next.is_some()
    }
}

/// A key and its revision, and nothing else yet.
fn named(key: Key, mod_revision: Revision) -> KeyValue {
    KeyValue { key, value: Bytes::new(), create_revision: Revision::ZERO, mod_revision, ttl: Ttl::NONE }
}

impl State {
    fn check(&self, at: Revision) -> Result<(), Pruned> {
        if at < self.pruned { Err(Pruned(self.pruned)) } else { Ok(()) }
    }

    /// The leaf that has the key, or would have it. Zero if there is none.
    fn leaf_of(&self, key: &[u8]) -> usize {
        self.leaves.partition_point(|leaf| leaf.first() <= key).saturating_sub(1)
    }

    fn push(&mut self, key: &[u8], found: Option<Place>, version: Version) {
        if self.leaves.is_empty() {
            self.leaves.push(Leaf::default());
        }
        let still_there = |found: &Place| {
            let entry = self.leaves.get(found.leaf).and_then(|leaf| leaf.entries.get(found.entry));
            entry.is_some_and(|entry| *entry.key == *key)
        };
        if let Some(Place { leaf, entry }) = found.filter(still_there) {
            return self.leaves[leaf].push(key, Ok(entry), version);
        }
        let place = self.leaf_of(key);
        let leaf = &mut self.leaves[place];
        leaf.push(key, leaf.find(key), version);
        if leaf.entries.len() > LEAF_KEYS_MAX {
            let upper = leaf.split();
            self.leaves.insert(place + 1, upper);
        }
    }

    fn pop(&mut self, key: &[u8], revision: Revision) {
        let place = self.leaf_of(key);
        if let Some(leaf) = self.leaves.get_mut(place) {
            leaf.pop(key, revision);
            if leaf.entries.is_empty() {
                self.leaves.remove(place);
            }
        }
    }

    fn at(&self, key: &[u8], at: Revision) -> Option<Version> {
        let leaf = self.leaves.get(self.leaf_of(key))?;
        leaf.entries[leaf.find(key).ok()?].versions.at(at)
    }

    /// Shows the leaves from a key on, up to an end, each with the places that are inside; until there is no more, or
    /// nobody wants any, or enough for one turn. Returns where the next turn goes on.
    fn walk(
        &self,
        start: Box<[u8]>,
        end: Option<&[u8]>,
        mut show: impl FnMut(&Leaf, usize, usize) -> bool,
    ) -> Option<Box<[u8]>> {
        let first = self.leaf_of(&start);
        for (number, leaf) in self.leaves.iter().skip(first).enumerate() {
            if end.is_some_and(|end| leaf.first() >= end) {
                return None;
            }
            if number == LEAVES_AT_ONCE {
                return Some(leaf.first().into());
            }
            let place = |key| leaf.find(key).unwrap_or_else(|place| place);
            let from = if number == 0 { place(&start) } else { 0 };
            let to = end.map_or(leaf.entries.len(), place);
            if from < to && !show(leaf, from, to) {
                return None;
            }
        }
        None
    }

    /// Prunes some leaves from a key on, and joins those that have become small. Where to go on, if there are more.
    fn prune(&mut self, next: &[u8], compacted: Revision) -> Option<Box<[u8]>> {
        let first = self.leaf_of(next);
        let last = (first + LEAVES_AT_ONCE).min(self.leaves.len());
        let mut kept: Vec<Leaf> = Vec::with_capacity(last - first);
        for mut leaf in self.leaves.drain(first..last) {
            leaf.prune(compacted, self.newest);
            match kept.last_mut() {
                _ if leaf.entries.is_empty() => {}
                Some(before) if before.entries.len() + leaf.entries.len() <= LEAF_KEYS_MAX / 2 => before.append(leaf),
                _ => kept.push(leaf),
            }
        }
        let behind = first + kept.len();
        self.leaves.splice(first..first, kept);
        self.leaves.get(behind).map(|leaf| leaf.first().into())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    const fn rev(revision: i64) -> Revision {
        Revision::new(revision)
    }

    fn key(number: u16) -> Key {
        // Neighbours in number are none in order, and some keys are prefixes of others.
        Key::from(format!("/{}", u32::from(number) * 7919 % 3000))
    }

    /// Everything that happened, which can be seen to be right.
    #[derive(Default)]
    struct Model(Vec<(Key, bool)>);

    impl Model {
        fn at(&self, at: i64) -> BTreeMap<&Key, i64> {
            let mut live = BTreeMap::new();
            for ((key, deleted), revision) in self.0.iter().zip(1..=at) {
                if *deleted {
                    live.remove(key)
                } else {
                    live.insert(key, revision)
                };
            }
            live
        }
    }

    fn compare(index: &Index, model: &Model, at: i64, range: &KeyRange) {
        let expected: Vec<_> = model.at(at).into_iter().filter(|(key, _)| range.contains(key)).collect();
        let found = index.select(range, rev(at), usize::MAX).unwrap();
        let found: Vec<_> = found.iter().map(|kv| (&kv.key, kv.mod_revision.get())).collect();
        assert_eq!(found, expected, "{range:?} at {at}");
        assert_eq!(index.count(range, rev(at)), Ok(expected.len()), "{range:?} at {at}");
        let some = index.select(range, rev(at), 3).unwrap();
        assert!(some.iter().map(|kv| &kv.key).eq(expected.iter().take(3).map(|(key, _)| *key)));
    }

    #[derive(Clone, Debug)]
    enum Step {
        Write { first: u16, count: u16, deleted: bool },
        TakeBack { first: u16, count: u16 },
        Prune { share: i64 },
    }

    fn step() -> impl Strategy<Value = Step> {
        let write = (0_u16..3000, 1_u16..400, prop::bool::weighted(0.3));
        prop_oneof![
            8 => write.prop_map(|(first, count, deleted)| Step::Write { first, count, deleted }),
            1 => (0_u16..3000, 1_u16..400).prop_map(|(first, count)| Step::TakeBack { first, count }),
            2 => (0_i64..=100).prop_map(|share| Step::Prune { share }),
        ]
    }

    fn write(index: &Index, model: &mut Model, key: Key, deleted: bool) {
        model.0.push((key.clone(), deleted));
        // Every other one where it was found, or where another key was.
        let found = index.latest(&key).map(|(_, place)| place).or(Some(Place { leaf: 1, entry: 5 }));
        let found = found.filter(|_| model.0.len().is_multiple_of(2));
        index.push(key.as_bytes(), found, Version { revision: rev(model.0.len() as i64), deleted });
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn every_revision_that_is_kept_shows_what_was_there(steps in prop::collection::vec(step(), 1..25)) {
            let (index, mut model, mut compacted) = (Index::default(), Model::default(), 0);
            for step in steps {
                let now = model.0.len() as i64;
                match step {
                    Step::Write { first, count, deleted } => {
                        for number in first..first + count {
                            let key = key(number);
                            let there = model.0.iter().rev().find(|(other, _)| *other == key);
                            // Only what is there is removed.
                            let deleted = deleted && there.is_some_and(|(_, deleted)| !deleted);
                            write(&index, &mut model, key, deleted);
                        }
                    }
                    Step::TakeBack { first, count } => {
                        let rows: Vec<_> = (first..first + count).map(key).zip(now + 1..).collect();
                        for (key, revision) in &rows {
                            index.push(key.as_bytes(), None, Version { revision: rev(*revision), deleted: false });
                        }
                        index.take_back(rows.iter().map(|(key, revision)| (key, rev(*revision))), rev(now));
                    }
                    Step::Prune { share } => {
                        compacted = compacted.max(now * share / 100);
                        let mut pruning = index.begin_pruning(rev(compacted));
                        while index.prune(&mut pruning) {}
                    }
                }
                prop_assert_eq!(index.newest().get(), model.0.len() as i64);
            }
            let now = model.0.len() as i64;
            if compacted > 0 {
                prop_assert_eq!(index.count(&KeyRange::all(), rev(compacted - 1)), Err(Pruned(rev(compacted))));
            }
            for at in [compacted, (compacted + now) / 2, now] {
                for range in [KeyRange::all(), KeyRange::prefix("/1"), KeyRange::half_open("/15".into(), "/27".into())] {
                    compare(&index, &model, at, &range);
                }
            }
            for number in (0..3000).step_by(37) {
                let key = key(number);
                let there = index.at(&key, rev(now)).unwrap().filter(|version| !version.deleted);
                prop_assert_eq!(there.map(|version| version.revision.get()), model.at(now).get(&key).copied());
            }
            let state = index.lock();
            prop_assert!(state.leaves.iter().all(|leaf| (1..=LEAF_KEYS_MAX).contains(&leaf.entries.len())));
        }
    }

    #[test]
    fn keys_that_are_gone_leave_no_leaves_behind() {
        let (index, mut model) = (Index::default(), Model::default());
        for deleted in [false, true] {
            (0..3000).for_each(|number| write(&index, &mut model, key(number), deleted));
        }
        write(&index, &mut model, Key::from("/last"), false);
        let mut pruning = index.begin_pruning(rev(6001));
        while index.prune(&mut pruning) {}
        assert_eq!(index.lock().leaves.len(), 1);
        compare(&index, &model, 6001, &KeyRange::all());
    }

    #[test]
    fn a_row_that_is_in_already_changes_nothing() {
        let index = Index::default();
        for revision in [5, 3, 5] {
            index.push(b"k", None, Version { revision: rev(revision), deleted: false });
        }
        index.skip(rev(4));
        assert_eq!((index.newest(), index.at(&"k".into(), rev(4))), (rev(5), Ok(None)));
    }
}
