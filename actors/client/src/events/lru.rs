//! A map that forgets what nobody has asked for longest: pure.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;

/// See the module's page.
#[derive(Debug)]
pub(super) struct Lru<K, V> {
    entries: HashMap<K, (u64, V)>,
    /// Keys by when they were last asked for.
    order: BTreeMap<u64, K>,
    turn: u64,
    entries_max: usize,
}

impl<K: Copy + Eq + Hash, V> Lru<K, V> {
    /// Empty, for so many entries.
    pub(super) fn new(entries_max: usize) -> Self {
        Self { entries: HashMap::new(), order: BTreeMap::new(), turn: 0, entries_max: entries_max.max(1) }
    }

    /// An entry, made if there is none. It is now the last that will be forgotten.
    pub(super) fn entry(&mut self, key: K, make: impl FnOnce() -> V) -> &mut V {
        self.turn += 1;
        if let Some((turn, _)) = self.entries.get(&key) {
            self.order.remove(turn);
        } else if self.entries.len() == self.entries_max
            && let Some((_, oldest)) = self.order.pop_first()
        {
            self.entries.remove(&oldest);
        }
        self.order.insert(self.turn, key);
        let (turn, value) = self.entries.entry(key).or_insert_with(|| (0, make()));
        *turn = self.turn;
        value
    }

    /// Whether there is an entry; doesn't count as asking for it.
    pub(super) fn contains(&self, key: &K) -> bool {
        self.entries.contains_key(key)
    }

    /// Forgets those for which `keep` says no.
    pub(super) fn retain(&mut self, mut keep: impl FnMut(&K, &mut V) -> bool) {
        let order = &mut self.order;
        self.entries.retain(|key, (turn, value)| {
            let kept = keep(key, value);
            if !kept {
                order.remove(turn);
            }
            kept
        });
    }

    /// How many entries there are.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_asked_for_longest_goes_first() {
        let mut lru = Lru::new(3);
        for key in 1..=3 {
            lru.entry(key, || key * 10);
        }
        assert_eq!(*lru.entry(1, || 0), 10, "asked for again");
        lru.entry(4, || 40);
        assert_eq!((lru.len(), lru.contains(&2), lru.contains(&1)), (3, false, true));
        lru.retain(|key, _| *key == 4);
        assert_eq!((lru.len(), lru.order.len()), (1, 1));
        for key in 10..1000 {
            lru.entry(key, || key);
        }
        assert_eq!((lru.len(), lru.order.len()), (3, 3));
    }
}
