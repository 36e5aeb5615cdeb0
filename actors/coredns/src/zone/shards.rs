//! A map in pieces: a copy shares all of them, and a change copies one.
//!
//! The owner changes its map and publishes a copy after each batch, while answers are read from the copy before. With 512
//! pieces a copy costs microseconds, and a change what one piece holds; nothing is stored beside the entries themselves,
//! which a tree with a node for each would double.

use std::hash::{DefaultHasher, Hash, Hasher as _};
use std::sync::Arc;

/// Pieces. A service more costs a copy of a few hundred bytes at ten thousand services.
const SHARDS: usize = 512;

/// A multimap by hash; what an entry is found by is part of it.
#[derive(Debug)]
pub(crate) struct Shards<T> {
    shards: Vec<Arc<Vec<(u32, T)>>>,
}

impl<T> Clone for Shards<T> {
    fn clone(&self) -> Self {
        Self { shards: self.shards.clone() }
    }
}

impl<T: Clone> Default for Shards<T> {
    fn default() -> Self {
        // An empty piece is the same as any other.
        let empty = Arc::new(Vec::new());
        Self { shards: vec![empty; SHARDS] }
    }
}

/// What an entry is filed under.
pub(crate) fn hash_of(key: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    hasher.finish()
}

/// The piece, and what tells most entries of a piece apart without a look at them.
fn split(hash: u64) -> (usize, u32) {
    ((hash % SHARDS as u64) as usize, (hash >> 32) as u32)
}

impl<T: Clone> Shards<T> {
    /// All entries that were filed under a hash, and perhaps a few others.
    pub(crate) fn at(&self, hash: u64) -> impl Iterator<Item = &T> {
        let (shard, tag) = split(hash);
        let found = self.shards.get(shard).into_iter().flat_map(|entries| entries.iter());
        found.filter(move |(known, _)| *known == tag).map(|(_, entry)| entry)
    }

    /// Files an entry, beside those that are there.
    pub(crate) fn insert(&mut self, hash: u64, entry: T) {
        let (shard, tag) = split(hash);
        let Some(shard) = self.shards.get_mut(shard) else { return };
        let entries = Arc::make_mut(shard);
        // No more room than there are entries: pieces are small, and there are many.
        entries.reserve_exact(1);
        entries.push((tag, entry));
    }

    /// Takes the first entry away that is meant.
    pub(crate) fn remove(&mut self, hash: u64, is_meant: impl Fn(&T) -> bool) -> Option<T> {
        let (shard, tag) = split(hash);
        let shard = self.shards.get_mut(shard)?;
        let at = shard.iter().position(|(known, entry)| *known == tag && is_meant(entry))?;
        Some(Arc::make_mut(shard).swap_remove(at).1)
    }

    /// All entries, in no order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.shards.iter().flat_map(|entries| entries.iter()).map(|(_, entry)| entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_keep_what_they_showed() {
        let mut map = Shards::default();
        for number in 0..10_000_u32 {
            map.insert(hash_of(number), number);
        }
        let old = map.clone();
        assert_eq!(map.remove(hash_of(7_u32), |entry| *entry == 7), Some(7));
        assert_eq!(map.remove(hash_of(7_u32), |entry| *entry == 7), None);
        assert_eq!((map.at(hash_of(7_u32)).count(), map.iter().count()), (0, 9_999));
        assert_eq!(old.at(hash_of(7_u32)).copied().collect::<Vec<_>>(), [7]);
        assert_eq!(old.iter().count(), 10_000);
        let shared = map.shards.iter().zip(&old.shards).filter(|(new, old)| Arc::ptr_eq(new, old)).count();
        assert_eq!(shared, SHARDS - 1, "one piece was copied");
    }
}
