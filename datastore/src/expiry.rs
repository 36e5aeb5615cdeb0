//! Which keys have outlived their time: a pure queue, fed with what was listed and watched.
//!
//! The store keeps the time to live of a value and does nothing about it. Whoever deletes expired keys lists them once
//! ([`ListRequest::expiring_only`](crate::ListRequest)), watches from there, and asks this queue what is due. A key is
//! to be deleted only at the revision the queue names: a newer write has given it a new life.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use crate::types::{Event, EventKind, Key, KeyValue, Revision};

/// Keys by the moment they end. Moments are durations since a start that the caller chose; they never go back.
#[derive(Debug, Default)]
pub struct ExpiryQueue {
    by_moment: BTreeSet<(Duration, Key)>,
    by_key: HashMap<Key, (Duration, Revision)>,
}

impl ExpiryQueue {
    /// With nothing in it.
    pub fn new() -> Self {
        Self::default()
    }

    /// A value that was seen at `now`. Its time begins then: how old it is can't be known, and living too long is the
    /// lesser harm. Something older than what is known of the key is left out.
    pub fn observe(&mut self, kv: &KeyValue, now: Duration) {
        if self.by_key.get(&kv.key).is_some_and(|(_, revision)| *revision >= kv.mod_revision) {
            return;
        }
        self.forget(&kv.key);
        if !kv.ttl.is_none() {
            let end = now.saturating_add(Duration::from_secs(u64::from(kv.ttl.as_seconds())));
            self.by_moment.insert((end, kv.key.clone()));
            self.by_key.insert(kv.key.clone(), (end, kv.mod_revision));
        }
    }

    /// A change that was seen at `now`.
    pub fn observe_event(&mut self, event: &Event, now: Duration) {
        match event.kind {
            EventKind::Delete => self.forget(&event.kv.key),
            EventKind::Create | EventKind::Update => self.observe(&event.kv, now),
        }
    }

    /// When to ask again.
    pub fn next_moment(&self) -> Option<Duration> {
        self.by_moment.first().map(|(moment, _)| *moment)
    }

    /// Takes out what is due at `now`: delete each key if it still is at this revision. Put back what could not be
    /// deleted with [`ExpiryQueue::again`].
    pub fn due(&mut self, now: Duration) -> Vec<(Key, Revision)> {
        let mut due = Vec::new();
        while self.by_moment.first().is_some_and(|(moment, _)| *moment <= now) {
            let Some((_, key)) = self.by_moment.pop_first() else { break };
            if let Some((_, revision)) = self.by_key.remove(&key) {
                due.push((key, revision));
            }
        }
        due
    }

    /// Tries a key again at `moment`, unless it was written in the meantime.
    pub fn again(&mut self, key: Key, revision: Revision, moment: Duration) {
        if !self.by_key.contains_key(&key) {
            self.by_moment.insert((moment, key.clone()));
            self.by_key.insert(key, (moment, revision));
        }
    }

    /// How many keys have an end.
    pub fn len(&self) -> usize {
        self.by_key.len()
    }

    /// Whether no key has an end.
    pub fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }

    fn forget(&mut self, key: &Key) {
        if let Some((moment, _)) = self.by_key.remove(key) {
            self.by_moment.remove(&(moment, key.clone()));
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::types::Ttl;

    const fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn put(key: &str, revision: i64, ttl: u32) -> Event {
        Event::put(key.into(), Bytes::new(), Ttl::seconds(ttl), Revision::new(revision), None)
    }

    #[test]
    fn a_key_ends_when_its_time_is_over_and_not_before() {
        let mut queue = ExpiryQueue::new();
        queue.observe_event(&put("b", 2, 10), at(0));
        queue.observe_event(&put("a", 3, 5), at(1));
        queue.observe_event(&put("for-ever", 4, 0), at(1));
        assert_eq!(queue.next_moment(), Some(at(6)));
        assert_eq!(queue.due(at(5)), []);
        assert_eq!(queue.due(at(10)), [("a".into(), Revision::new(3)), ("b".into(), Revision::new(2))]);
        assert!(queue.is_empty() && queue.next_moment().is_none());
    }

    #[test]
    fn a_write_gives_a_new_life_and_a_delete_takes_it() {
        let mut queue = ExpiryQueue::new();
        queue.observe_event(&put("a", 2, 10), at(0));
        queue.observe_event(&put("a", 5, 10), at(8));
        queue.observe_event(&put("a", 4, 1), at(8));
        assert_eq!(queue.due(at(17)), []);
        assert_eq!(queue.due(at(18)), [("a".into(), Revision::new(5))]);
        queue.observe_event(&put("b", 6, 1), at(20));
        queue.observe_event(&Event::delete("b".into(), Revision::new(7), None), at(20));
        queue.observe_event(&put("c", 8, 1), at(20));
        queue.observe_event(&put("c", 9, 0), at(20));
        assert_eq!(queue.due(at(99)), []);
    }

    #[test]
    fn what_could_not_be_deleted_comes_again() {
        let mut queue = ExpiryQueue::new();
        queue.observe_event(&put("a", 2, 1), at(0));
        let due = queue.due(at(1));
        assert_eq!(due.len(), 1);
        queue.again("a".into(), Revision::new(2), at(3));
        assert_eq!((queue.due(at(2)).len(), queue.due(at(3)).len(), queue.len()), (0, 1, 0));
        queue.observe_event(&put("a", 4, 9), at(3));
        queue.again("a".into(), Revision::new(2), at(4));
        assert_eq!(queue.due(at(4)), [], "the newer write counts");
    }
}
