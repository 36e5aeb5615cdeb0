//! Some neighbouring keys of the index, in order.
//!
//! Neighbours begin alike, and a search would compare that again and again, each time in another place of the memory. So
//! a leaf knows how long the common beginning is, and has the bytes behind it beside each other.

use super::versions::{Version, Versions};
use crate::types::Revision;

/// How many keys a leaf has at most. With few a search goes through many leaves, with many an insertion moves much.
pub(super) const LEAF_KEYS_MAX: usize = 128;

#[derive(Debug)]
pub(super) struct Entry {
    /// A copy of its own: what a request brought may hold on to all of that request.
    pub(super) key: Box<[u8]>,
    pub(super) versions: Versions,
    /// The first bytes behind what all keys of the leaf begin with.
    head: u64,
}

/// The first eight bytes as a number, in the same order; what is missing counts as zero, so that equal numbers say
/// nothing.
fn head(bytes: &[u8]) -> u64 {
    let mut head = [0; 8];
    let length = bytes.len().min(head.len());
    head[..length].copy_from_slice(&bytes[..length]);
    u64::from_be_bytes(head)
}

#[derive(Debug, Default)]
pub(super) struct Leaf {
    /// Never empty in an index.
    pub(super) entries: Vec<Entry>,
    /// How many of the keys are there now.
    live: usize,
    /// No version is newer.
    newest: Revision,
    /// How many bytes all keys begin with.
    shared: usize,
}

impl Leaf {
    /// The first key, which is what leaves are sorted by.
    pub(super) fn first(&self) -> &[u8] {
        self.entries.first().map_or(&[], |entry| &entry.key)
    }

    /// The place of a key, or where it would be.
    pub(super) fn find(&self, key: &[u8]) -> Result<usize, usize> {
        let shared = &self.first()[..self.shared];
        let Some(rest) = key.strip_prefix(shared) else {
            return Err(if key < shared { 0 } else { self.entries.len() });
        };
        let wanted = head(rest);
        let compare = |entry: &Entry| entry.head.cmp(&wanted).then_with(|| entry.key[self.shared..].cmp(rest));
        self.entries.binary_search_by(compare)
    }

    /// To be called when there are other keys.
    fn share(&mut self) {
        let (Some(first), Some(last)) = (self.entries.first(), self.entries.last()) else { return self.shared = 0 };
        let shared = first.key.iter().zip(&last.key).take_while(|(one, other)| one == other).count();
        if shared != self.shared {
            self.shared = shared;
            self.entries.iter_mut().for_each(|entry| entry.head = head(&entry.key[shared..]));
        }
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
                let head = key.get(self.shared..).map_or(0, head);
                self.entries.insert(place, Entry { key: key.into(), versions: Versions::new(version), head });
                self.share();
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
                self.share();
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
        self.share();
        self.count();
    }

    /// Takes its upper half away.
    pub(super) fn split(&mut self) -> Self {
        let entries = self.entries.split_off(self.entries.len() / 2);
        let mut upper = Self { entries, live: 0, newest: self.newest, shared: self.shared };
        for leaf in [&mut *self, &mut upper] {
            leaf.share();
            leaf.count();
        }
        upper
    }

    /// Takes in the keys of the leaf behind it.
    pub(super) fn append(&mut self, mut behind: Self) {
        let shared = self.shared;
        behind.entries.iter_mut().for_each(|entry| entry.head = entry.key.get(shared..).map_or(0, head));
        self.entries.append(&mut behind.entries);
        self.share();
        self.newest = self.newest.max(behind.newest);
        self.count();
    }

    fn count(&mut self) {
        self.live = self.entries.iter().filter(|entry| !entry.versions.newest().deleted).count();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(leaf: &Leaf, key: &[u8]) -> Result<usize, usize> {
        let found = leaf.find(key);
        assert_eq!(found, leaf.entries.binary_search_by(|entry| (*entry.key).cmp(key)), "{key:?}");
        found
    }

    /// Short keys over few bytes: each begins with another one, and zeroes are as good as missing bytes.
    #[test]
    fn a_key_is_found_where_it_is_whatever_its_neighbours_begin_with() {
        let mut keys = vec![Vec::new()];
        for length in 0..4 {
            let longer: Vec<_> = keys.iter().filter(|key: &&Vec<u8>| key.len() == length).cloned().collect();
            keys.extend(longer.iter().flat_map(|key| [0, 1, b'a'].map(|byte| [&key[..], &[byte]].concat())));
        }
        keys.extend((0..6).map(|zeroes| [b"a".repeat(zeroes + 9), b"\0".repeat(zeroes)].concat()));
        let check = |leaf: &Leaf| {
            for key in &keys {
                place(leaf, key).unwrap_or_default();
            }
        };
        let (mut leaf, mut revision) = (Leaf::default(), 0);
        for number in 0..keys.len() {
            let key = &keys[number * 101 % keys.len()];
            revision += 1;
            leaf.push(key, place(&leaf, key), Version { revision: Revision::new(revision), deleted: false });
            check(&leaf);
        }
        assert_eq!(leaf.entries.len(), keys.len());
        let mut upper = leaf.split();
        check(&leaf);
        while upper.entries.len() > 3 {
            let (key, revision) = (upper.first().to_vec(), upper.entries[0].versions.newest().revision);
            upper.pop(&key, revision);
            check(&upper);
        }
        leaf.append(upper);
        check(&leaf);
    }
}
