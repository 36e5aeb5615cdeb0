//! What the index knows of one key: the revisions it was written at, and which of them removed it. Eight bytes each,
//! and no allocation for a key that has one, as most have once history is dropped.

use crate::types::Revision;

/// One revision of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::sqlite) struct Version {
    /// When, which is also the number of the row.
    pub(in crate::sqlite) revision: Revision,
    /// Whether it removed the key.
    pub(in crate::sqlite) deleted: bool,
}

/// A version in eight bytes: twice the revision, and one more if it removed the key.
#[derive(Clone, Copy, Debug)]
struct Packed(u64);

impl Packed {
    fn new(version: Version) -> Self {
        // Rows have numbers above zero.
        Self(version.revision.get().unsigned_abs() << 1 | u64::from(version.deleted))
    }

    fn version(self) -> Version {
        Version { revision: self.revision(), deleted: self.0 & 1 != 0 }
    }

    fn revision(self) -> Revision {
        Revision::new((self.0 >> 1).cast_signed())
    }
}

/// All versions of a key, the oldest first.
#[derive(Debug)]
pub(super) struct Versions {
    newest: Packed,
    /// Those before it; most keys have none, and an empty vector has no allocation.
    older: Vec<Packed>,
}

impl Versions {
    pub(super) fn new(version: Version) -> Self {
        Self { newest: Packed::new(version), older: Vec::new() }
    }

    /// Adds a version that is newer than all.
    pub(super) fn push(&mut self, version: Version) {
        self.older.push(std::mem::replace(&mut self.newest, Packed::new(version)));
    }

    /// Takes the newest away. False if there is no other one, and nothing was taken.
    pub(super) fn pop(&mut self) -> bool {
        let before = self.older.pop();
        if let Some(before) = before {
            self.newest = before;
        }
        before.is_some()
    }

    pub(super) fn newest(&self) -> Version {
        self.newest.version()
    }

    /// What the key was at a revision; nothing if it had never been written then.
    pub(super) fn at(&self, at: Revision) -> Option<Version> {
        if self.newest.revision() <= at {
            return Some(self.newest.version());
        }
        let until = self.older.partition_point(|version| version.revision() <= at);
        self.older[..until].last().map(|version| version.version())
    }

    /// Drops what can only be seen before `compacted`, but nothing from `kept_from` on. Whether anything is left.
    pub(super) fn prune(&mut self, compacted: Revision, kept_from: Revision) -> bool {
        let gone = |version: Version| version.deleted && version.revision <= compacted && version.revision < kept_from;
        if self.newest.revision() <= compacted {
            self.older = Vec::new();
            return !gone(self.newest());
        }
        let until = self.older.partition_point(|version| version.revision() <= compacted);
        let Some(last) = until.checked_sub(1) else { return true };
        self.older.drain(..if gone(self.older[last].version()) { until } else { last });
        if self.older.len() < self.older.capacity() / 4 {
            self.older.shrink_to_fit();
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(revision: i64, deleted: bool) -> Version {
        Version { revision: Revision::new(revision), deleted }
    }

    fn versions(all: &[(i64, bool)]) -> Versions {
        let mut versions = Versions::new(version(all[0].0, all[0].1));
        all[1..].iter().for_each(|(revision, deleted)| versions.push(version(*revision, *deleted)));
        versions
    }

    #[test]
    fn each_revision_shows_the_last_version_before_it() {
        let versions = versions(&[(2, false), (5, true), (i64::MAX, false)]);
        for (at, seen) in [
            (1, None),
            (2, Some(version(2, false))),
            (4, Some(version(2, false))),
            (5, Some(version(5, true))),
            (i64::MAX - 1, Some(version(5, true))),
            (i64::MAX, Some(version(i64::MAX, false))),
        ] {
            assert_eq!(versions.at(Revision::new(at)), seen, "at {at}");
        }
    }

    #[test]
    fn what_is_pruned_can_be_seen_only_before() {
        let all = [(2, false), (5, true), (7, false), (9, true)];
        for compacted in 0..12 {
            let mut pruned = versions(&all);
            let left = pruned.prune(Revision::new(compacted), Revision::new(100));
            assert_eq!(left, compacted < 9);
            for at in (compacted..12).filter(|_| left) {
                // A delete needs no witness.
                let live = |versions: &Versions| versions.at(Revision::new(at)).filter(|version| !version.deleted);
                assert_eq!(live(&pruned), live(&versions(&all)), "at {at} of {compacted}");
            }
            assert!(versions(&all).prune(Revision::new(compacted), Revision::new(9)), "the newest row stays");
        }
    }

    #[test]
    fn a_version_that_came_to_nothing_is_taken_back() {
        let mut versions = versions(&[(2, false), (5, true)]);
        assert!(versions.pop());
        assert_eq!(versions.newest(), version(2, false));
        assert!(!versions.pop());
    }
}
