//! Some neighbouring keys of the index, in order.

use super::versions::{Version, Versions};
use crate::types::Revision;

/// How many keys a leaf has at most. With few a search goes through many leaves, with many an insertion moves much.
pub(super) const LEAF_KEYS_MAX: usize = 128;

#[derive(Debug)]
pub(super) struct Entry {
    /// A copy of its own: what a request brought may hold on to all of that request.
    pub(super) key: Box<[u8]>,
    pub(super) versions: Versions,
}

#[derive(Debug, Default)]
pub(super) struct Leaf {
    /// Never empty in an index.
    pub(super) entries: Vec<Entry>,
    /// How many of the keys are there now.
    live: usize,
    /// No version is newer.
    newest: Revision,
}

impl Leaf {
    /// The first key, which is what leaves are sorted by.
    pub(super) fn first(&self) -> &[u8] {
        self.entries.first().map_or(&[], |entry| &entry.key)
    }

    /// The place of a key, or where it would be.
    pub(super) fn find(&self, key: &[u8]) -> Result<usize, usize> {
        self.entries.binary_search_by(|entry| (*entry.key).cmp(key))
    }

    /// Adds the newest version of a key, whose place may be known.
    pub(super) fn push(&mut self, key: &[u8], place: Result<usize, usize>, version: Version) {
        self.newest = self.newest.max(version.revision);
        let was_live = match place {
            Ok(place) => {
                let versions = &mut self.entries[place].versions;
                let was_live = !versions.newest().deleted;
                versions.push(version);
                was_live
            }
            Err(place) => {
                self.entries.insert(place, Entry { key: key.into(), versions: Versions::new(version) });
                false
            }
        };
        self.live = self.live + usize::from(!version.deleted) - usize::from(was_live);
    }

    /// Takes the newest version of a key back, if it is of this revision.
    pub(super) fn pop(&mut self, key: &[u8], revision: Revision) {
        let Ok(place) = self.find(key) else { return };
        let versions = &mut self.entries[place].versions;
        if versions.newest().revision == revision {
            if !versions.pop() {
                self.entries.remove(place);
            }
            self.count();
        }
    }

    /// How many of the keys from one place up to another are there at a revision.
    pub(super) fn live(&self, from: usize, to: usize, at: Revision) -> usize {
        if from == 0 && to == self.entries.len() && self.newest <= at {
            return self.live;
        }
        let live = |entry: &&Entry| entry.versions.at(at).is_some_and(|version| !version.deleted);
        self.entries[from..to].iter().filter(live).count()
    }

    /// Drops what can only be seen before `compacted`, but nothing from `kept_from` on.
    pub(super) fn prune(&mut self, compacted: Revision, kept_from: Revision) {
        self.entries.retain_mut(|entry| entry.versions.prune(compacted, kept_from));
        self.count();
    }

    /// Takes its upper half away.
    pub(super) fn split(&mut self) -> Self {
        let entries = self.entries.split_off(self.entries.len() / 2);
        let mut upper = Self { entries, live: 0, newest: self.newest };
        upper.count();
        self.count();
        upper
    }

    /// Takes in the keys of the leaf behind it.
    pub(super) fn append(&mut self, mut behind: Self) {
        self.entries.append(&mut behind.entries);
        self.newest = self.newest.max(behind.newest);
        self.count();
    }

    fn count(&mut self) {
        self.live = self.entries.iter().filter(|entry| !entry.versions.newest().deleted).count();
    }
}
