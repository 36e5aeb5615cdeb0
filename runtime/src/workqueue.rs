//! A queue of keys to look at: each key at most once, never two at a time, failed ones later.
//!
//! Pure: the actor that owns it passes the time in, sets one timer for [`WorkQueue::next_due`], and does the work. The
//! rules are client-go's: a key added while it is being worked on is worked on again afterwards; of several deadlines
//! for one key the earliest wins.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::hash::Hash;

use crate::backoff::Backoff;
use crate::clock::{Moment, Rng};

#[derive(Debug, Default)]
struct Item {
    /// In `ready`.
    queued: bool,
    /// Handed out and not done yet.
    working: bool,
    /// Added again while being worked on.
    again: bool,
    /// In `delayed`, for this moment and with this tie-breaker.
    due: Option<(Moment, u64)>,
    failures: u32,
}

impl Item {
    fn is_idle(&self) -> bool {
        !self.queued && !self.working && !self.again && self.due.is_none() && self.failures == 0
    }
}

/// See the module's page. `K` is a small key, such as a namespace and a name.
#[derive(Debug)]
pub struct WorkQueue<K> {
    items: HashMap<K, Item>,
    ready: VecDeque<K>,
    delayed: BTreeSet<(Moment, u64, K)>,
    backoff: Backoff,
    rng: Rng,
    sequence: u64,
}

impl<K: Clone + Eq + Hash + Ord> WorkQueue<K> {
    /// An empty queue; `rng` only feeds the backoff's jitter.
    pub fn new(backoff: Backoff, rng: Rng) -> Self {
        let (items, ready, delayed) = (HashMap::new(), VecDeque::new(), BTreeSet::new());
        Self { items, ready, delayed, backoff, rng, sequence: 0 }
    }

    /// The key needs a look now. A delay it waits out ends.
    pub fn add(&mut self, key: K) {
        self.clear_delay(&key);
        let item = self.items.entry(key.clone()).or_default();
        if item.working {
            item.again = true;
        } else if !item.queued {
            item.queued = true;
            self.ready.push_back(key);
        }
    }

    /// The key needs a look at `due`. An earlier look that is already planned stays; a later one is moved up.
    pub fn add_at(&mut self, key: K, due: Moment, now: Moment) {
        if due <= now {
            return self.add(key);
        }
        let item = self.items.entry(key.clone()).or_default();
        if item.queued || item.again || item.due.is_some_and(|(planned, _)| planned <= due) {
            return;
        }
        self.clear_delay(&key);
        self.sequence += 1;
        self.items.entry(key.clone()).or_default().due = Some((due, self.sequence));
        self.delayed.insert((due, self.sequence, key));
    }

    /// The key failed: it is looked at again after a wait that grows with each failure in a row. Returns the moment.
    pub fn add_failed(&mut self, key: K, now: Moment) -> Moment {
        let item = self.items.entry(key.clone()).or_default();
        item.failures = item.failures.saturating_add(1);
        let due = now + self.backoff.delay(item.failures, &mut self.rng);
        self.add_at(key, due, now);
        due
    }

    /// The key succeeded: its failures no longer count.
    pub fn forget(&mut self, key: &K) {
        if let Some(item) = self.items.get_mut(key) {
            item.failures = 0;
        }
        self.tidy(key);
    }

    /// Failures of the key in a row.
    pub fn failures(&self, key: &K) -> u32 {
        self.items.get(key).map_or(0, |item| item.failures)
    }

    /// Hands out the next key. It is not handed out again before [`WorkQueue::done`].
    pub fn take(&mut self, now: Moment) -> Option<K> {
        while let Some((due, _, _)) = self.delayed.first()
            && *due <= now
            && let Some((_, _, key)) = self.delayed.pop_first()
        {
            if let Some(item) = self.items.get_mut(&key) {
                item.due = None;
            }
            self.add(key);
        }
        let key = self.ready.pop_front()?;
        if let Some(item) = self.items.get_mut(&key) {
            item.queued = false;
            item.working = true;
        }
        Some(key)
    }

    /// The work on a key that was handed out is over, well or badly.
    pub fn done(&mut self, key: &K) {
        if let Some(item) = self.items.get_mut(key) {
            item.working = false;
            if std::mem::take(&mut item.again) {
                self.add(key.clone());
            }
        }
        self.tidy(key);
    }

    /// When [`WorkQueue::take`] should be called again; `now` or earlier when a key is ready, `None` when all is quiet.
    pub fn next_due(&self) -> Option<Moment> {
        if self.ready.is_empty() { self.delayed.first().map(|(due, _, _)| *due) } else { Some(Moment::START) }
    }

    /// Keys ready to be handed out.
    pub fn len(&self) -> usize {
        self.ready.len()
    }

    /// Whether no key is ready.
    pub fn is_empty(&self) -> bool {
        self.ready.is_empty()
    }

    fn clear_delay(&mut self, key: &K) {
        if let Some((due, sequence)) = self.items.get_mut(key).and_then(|item| item.due.take()) {
            self.delayed.remove(&(due, sequence, key.clone()));
        }
    }

    /// A key nothing is known about takes no memory.
    fn tidy(&mut self, key: &K) {
        if self.items.get(key).is_some_and(Item::is_idle) {
            self.items.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn queue() -> WorkQueue<&'static str> {
        WorkQueue::new(Backoff::REQUEUE, Rng::seeded(1))
    }

    fn at(millis: u64) -> Moment {
        Moment::START + Duration::from_millis(millis)
    }

    #[test]
    fn a_key_is_in_the_queue_once_and_in_order_of_its_first_add() {
        let mut queue = queue();
        for key in ["a", "b", "a", "a"] {
            queue.add(key);
        }
        assert_eq!([queue.take(at(0)), queue.take(at(0)), queue.take(at(0))], [Some("a"), Some("b"), None]);
    }

    #[test]
    fn a_key_added_while_worked_on_is_worked_on_once_more_and_never_twice_at_a_time() {
        let mut queue = queue();
        queue.add("a");
        assert_eq!(queue.take(at(0)), Some("a"));
        queue.add("a");
        queue.add("a");
        assert_eq!(queue.take(at(0)), None);
        queue.done(&"a");
        assert_eq!(queue.take(at(0)), Some("a"));
        queue.done(&"a");
        assert_eq!(queue.take(at(0)), None);
        assert!(queue.items.is_empty(), "a quiet key takes no memory");
    }

    #[test]
    fn of_two_deadlines_the_earlier_wins_whichever_came_first() {
        for deadlines in [[50, 20], [20, 50]] {
            let mut queue = queue();
            for due in deadlines {
                queue.add_at("a", at(due), at(0));
            }
            assert_eq!(queue.next_due(), Some(at(20)));
            assert_eq!(queue.take(at(19)), None);
            assert_eq!(queue.take(at(20)), Some("a"));
            queue.done(&"a");
            assert_eq!(queue.take(at(1000)), None, "the later deadline is gone");
        }
    }

    #[test]
    fn an_add_ends_a_delay() {
        let mut queue = queue();
        queue.add_at("a", at(1000), at(0));
        queue.add("a");
        assert_eq!(queue.take(at(0)), Some("a"));
        queue.done(&"a");
        assert_eq!(queue.next_due(), None);
    }

    #[test]
    fn failures_wait_longer_each_time_until_forgotten() {
        let mut queue = queue();
        let waits: Vec<u64> = (0..4).map(|_| queue.add_failed("a", at(0)).since(at(0)).as_millis() as u64).collect();
        assert_eq!(waits, [5, 10, 20, 40]);
        assert_eq!(queue.next_due(), Some(at(5)), "the earliest of them wins");
        assert_eq!(queue.take(at(5)), Some("a"));
        queue.forget(&"a");
        queue.done(&"a");
        assert_eq!(queue.add_failed("a", at(10)), at(15));
    }

    #[test]
    fn a_failed_key_that_is_still_worked_on_waits_for_both() {
        let mut queue = queue();
        queue.add("a");
        assert_eq!(queue.take(at(0)), Some("a"));
        queue.add_failed("a", at(0));
        assert_eq!(queue.take(at(5)), None, "due, but still in hand");
        queue.done(&"a");
        assert_eq!(queue.take(at(5)), Some("a"));
    }
}
