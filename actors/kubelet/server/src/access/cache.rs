//! Answers that are remembered for a while, and not too many of them: pure.

use std::collections::BTreeMap;
use std::time::Duration;

use k3sd_runtime::Moment;

/// As many answers of one kind are remembered; each belongs to somebody who may ask.
const ENTRIES_MAX: usize = 2048;

/// Answers by question.
#[derive(Debug)]
pub(crate) struct Cache<K, V>(BTreeMap<K, (V, Moment)>);

impl<K, V> Default for Cache<K, V> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<K: Ord, V: Clone> Cache<K, V> {
    /// The answer, if it is known and still counts.
    pub(crate) fn get(&self, question: &K, now: Moment) -> Option<V> {
        self.0.get(question).filter(|(_, until)| now < *until).map(|(answer, _)| answer.clone())
    }

    /// Remembers an answer for so long.
    pub(crate) fn put(&mut self, question: K, answer: V, lasts: Duration, now: Moment) {
        if self.0.len() >= ENTRIES_MAX {
            self.0.retain(|_, (_, until)| now < *until);
        }
        if self.0.len() >= ENTRIES_MAX {
            // Whoever is forgotten is asked about again.
            self.0.pop_first();
        }
        self.0.insert(question, (answer, now + lasts));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_forgotten_in_time() {
        let mut cache = Cache::default();
        let (now, minute) = (Moment::START, Duration::from_secs(60));
        cache.put("a", 1, minute, now);
        assert_eq!(cache.get(&"a", now), Some(1));
        assert_eq!(cache.get(&"a", now + minute), None);
        assert_eq!(cache.get(&"b", now), None);
    }

    #[test]
    fn there_are_never_too_many() {
        let mut cache = Cache::default();
        for number in 0..3 * ENTRIES_MAX {
            cache.put(number, (), Duration::from_secs(60), Moment::START);
        }
        assert_eq!(cache.0.len(), ENTRIES_MAX);
        let later = Moment::START + Duration::from_secs(61);
        cache.put(0, (), Duration::from_secs(60), later);
        assert_eq!(cache.0.len(), 1);
    }
}
