//! A map in pieces: a copy shares all of them, and a change copies one.
//!
//! The owner changes its map and publishes a copy after each batch, while answers are read from the copy before. With 512
//! pieces a copy costs microseconds, and a change what one piece holds; nothing is stored beside the entries themselves,
//! which a tree with a node for each would double.

use std::hash::{DefaultHasher, Hash, Hasher as _};
use std::sync::Arc;

/// Pieces. A service more costs a copy of a few hundred bytes at ten thousand services.
const SHARDS: usize = 512;

/// A multimap by hash; what an entry is found by is part of it, or can be found by it.
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

/// Where an entry is filed: the piece, and what tells most entries of a piece apart without a look at them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Filed {
    tag: u32,
    shard: u16,
}

/// Where something is filed that is found by this.
pub(crate) fn filed(key: impl Hash) -> Filed {
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    let hash = hasher.finish();
    Filed { tag: (hash >> 32) as u32, shard: (hash % SHARDS as u64) as u16 }
}

impl<T: Clone> Shards<T> {
    /// All entries that were filed there, and perhaps a few others.
    pub(crate) fn at(&self, Filed { tag, shard }: Filed) -> impl Iterator<Item = &T> {
        let found = self.shards.get(usize::from(shard)).into_iter().flat_map(|entries| entries.iter());
        found.filter(move |(known, _)| *known == tag).map(|(_, entry)| entry)
    }

    /// Files an entry, beside those that are there.
    pub(crate) fn insert(&mut self, Filed { tag, shard }: Filed, entry: T) {
        let Some(shard) = self.shards.get_mut(usize::from(shard)) else { return };
        let entries = Arc::make_mut(shard);
        // No more room than there are entries: pieces are small, and there are many.
        entries.reserve_exact(1);
        entries.push((tag, entry));
    }

    /// Takes the first entry away that is meant.
    pub(crate) fn remove(&mut self, Filed { tag, shard }: Filed, is_meant: impl Fn(&T) -> bool) -> Option<T> {
        let shard = self.shards.get_mut(usize::from(shard))?;
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
            map.insert(filed(number), number);
        }
        let old = map.clone();
        assert_eq!(map.remove(filed(7_u32), |entry| *entry == 7), Some(7));
        assert_eq!(map.remove(filed(7_u32), |entry| *entry == 7), None);
        assert_eq!((map.at(filed(7_u32)).count(), map.iter().count()), (0, 9_999));
        assert_eq!(old.at(filed(7_u32)).copied().collect::<Vec<_>>(), [7]);
        assert_eq!(old.iter().count(), 10_000);
        let shared = map.shards.iter().zip(&old.shards).filter(|(new, old)| Arc::ptr_eq(new, old)).count();
        assert_eq!(shared, SHARDS - 1, "one piece was copied");
    }
}
