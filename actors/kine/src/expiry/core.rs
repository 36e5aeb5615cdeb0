//! Leases: what keeps keys alive beyond their own time. Pure.
//!
//! The store knows no leases, only how many seconds a value lives after its last write. The number of a lease that we
//! draw holds those seconds in its lower half, and in its upper half a check, so that a write with it is understood even
//! by a process that has never heard of it:
//!
//! ```text
//!   bit 63   62      44 43      32 31         0
//!       0  │  random   │  check   │  seconds  │      ours
//!       0  │  0        │  0       │  seconds  │      kine's, and no lease at all: only a time to live
//! ```
//!
//! Numbers that clients choose are taken as they are, and mean nothing to a process that has not heard of them. Which
//! keys a lease has is known in memory only: after a restart of the process the lease is unknown, its holder is told so
//! when it next renews it, and its keys live for their own time. A restart of the actor forgets nothing.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use k3sd_datastore::{Key, Ttl};

/// What is known of one lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Lease {
    /// As granted.
    pub ttl: Ttl,
    /// When it ends, unless it is renewed.
    pub end: Duration,
    /// What was written with it.
    pub keys: BTreeSet<Key>,
}

/// All leases, by number.
#[derive(Debug, Default)]
pub(crate) struct Leases {
    by_id: BTreeMap<i64, Lease>,
    by_key: HashMap<Key, i64>,
}

/// Why a number can't be that of a new lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// A lease has it.
    Taken,
    /// It would be read as a time to live.
    Plain,
}

/// The greatest number that is only a time to live.
pub(crate) const PLAIN_MAX: i64 = u32::MAX as i64;

/// Where the random bits begin, and how many there are: half a million leases of the same length.
const RANDOM_AT: u32 = 44;
const RANDOM_MASK: u64 = (1 << 19) - 1;
/// How many numbers are looked at for one that is free.
const LOOKS_MAX: u64 = 1000;

/// Makes a number of ours from random bits.
fn draw(ttl: Ttl, random: u64) -> i64 {
    let random = random & RANDOM_MASK;
    let id = random << RANDOM_AT | check(random, ttl) << 32 | u64::from(ttl.as_seconds());
    i64::try_from(id).unwrap_or(i64::MAX)
}

/// Twelve bits that few other numbers have at this place.
fn check(random: u64, ttl: Ttl) -> u64 {
    let mixed = (random << 32 | u64::from(ttl.as_seconds())).wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 52).max(1)
}

/// The time to live that a number tells by itself; nothing when it is one that somebody chose.
pub(crate) fn told_by_number(id: i64) -> Option<Ttl> {
    let number = u64::try_from(id).ok()?;
    let ttl = Ttl::seconds(u32::try_from(number & u64::from(u32::MAX)).unwrap_or(u32::MAX));
    (id <= PLAIN_MAX || draw(ttl, number >> RANDOM_AT) == id).then_some(ttl)
}

fn length(ttl: Ttl) -> Duration {
    Duration::from_secs(u64::from(ttl.as_seconds()))
}

impl Leases {
    /// A new lease; `random` makes its number unlike others. Nothing when no number is left for so many seconds.
    pub(crate) fn grant(&mut self, ttl: Ttl, random: u64, now: Duration) -> Option<i64> {
        self.drop_ended(now);
        // The step is odd, so that it comes by every number.
        let mut numbers = (0..LOOKS_MAX).map(|look| draw(ttl, random.wrapping_add(look.wrapping_mul(0x9e37))));
        let id = numbers.find(|id| !self.by_id.contains_key(id))?;
        self.by_id.insert(id, Lease { ttl, end: now.saturating_add(length(ttl)), keys: BTreeSet::new() });
        Some(id)
    }

    /// A new lease with a number that its holder has chosen.
    pub(crate) fn grant_as(&mut self, id: i64, ttl: Ttl, now: Duration) -> Result<(), Refusal> {
        self.drop_ended(now);
        if id <= PLAIN_MAX {
            return Err(Refusal::Plain);
        }
        let Entry::Vacant(place) = self.by_id.entry(id) else { return Err(Refusal::Taken) };
        place.insert(Lease { ttl, end: now.saturating_add(length(ttl)), keys: BTreeSet::new() });
        Ok(())
    }

    fn drop_ended(&mut self, now: Duration) {
        let ended: Vec<i64> = self.by_id.iter().filter(|(_, lease)| lease.end <= now).map(|(id, _)| *id).collect();
        for id in ended {
            self.revoke(id);
        }
    }

    /// A key is about to be written with a lease: how long it lives. An unknown lease leaves the key the time that its
    /// number tells; one that tells none is no lease at all.
    pub(crate) fn attach(&mut self, id: i64, key: Key) -> Option<Ttl> {
        let known = self.by_id.get(&id).map(|lease| lease.ttl);
        let ttl = known.or_else(|| told_by_number(id))?;
        if let Some(before) = self.by_key.remove(&key).and_then(|before| self.by_id.get_mut(&before)) {
            before.keys.remove(&key);
        }
        if let Some(lease) = self.by_id.get_mut(&id) {
            lease.keys.insert(key.clone());
            self.by_key.insert(key, id);
        }
        Some(ttl)
    }

    /// Renews a lease, for as long as it was granted; nothing when it is unknown or has ended.
    pub(crate) fn keep_alive(&mut self, id: i64, now: Duration) -> Option<Ttl> {
        let lease = self.by_id.get_mut(&id).filter(|lease| lease.end > now)?;
        lease.end = now.saturating_add(length(lease.ttl));
        Some(lease.ttl)
    }

    /// Forgets a lease. Returns what it was.
    pub(crate) fn revoke(&mut self, id: i64) -> Option<Lease> {
        let lease = self.by_id.remove(&id)?;
        for key in &lease.keys {
            self.by_key.remove(key);
        }
        Some(lease)
    }

    /// Until when a key lives on although its own time is over.
    pub(crate) fn extended(&self, key: &Key, now: Duration) -> Option<Duration> {
        let lease = self.by_id.get(self.by_key.get(key)?)?;
        (lease.end > now).then_some(lease.end)
    }

    /// A lease that has not ended.
    pub(crate) fn get(&self, id: i64, now: Duration) -> Option<&Lease> {
        self.by_id.get(&id).filter(|lease| lease.end > now)
    }

    /// All leases that have not ended.
    pub(crate) fn ids(&self, now: Duration) -> Vec<i64> {
        self.by_id.iter().filter(|(_, lease)| lease.end > now).map(|(id, _)| *id).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_lease_keeps_its_keys_as_long_as_it_is_renewed() {
        let mut leases = Leases::default();
        let id = leases.grant(Ttl::seconds(10), 7, at(0)).expect("there is a number");
        assert_eq!(told_by_number(id), Some(Ttl::seconds(10)), "its number tells the time to live");
        assert_ne!(leases.grant(Ttl::seconds(10), 7, at(0)), Some(id));
        assert_eq!(leases.attach(id, "k".into()), Some(Ttl::seconds(10)));
        assert_eq!(leases.extended(&"k".into(), at(5)), Some(at(10)));
        assert_eq!(leases.keep_alive(id, at(8)), Some(Ttl::seconds(10)));
        assert_eq!(leases.extended(&"k".into(), at(12)), Some(at(18)));
        assert_eq!(leases.extended(&"k".into(), at(18)), None);
        assert_eq!(leases.keep_alive(id, at(18)), None, "it has ended, and does not come back");
        assert!(leases.ids(at(18)).is_empty());
    }

    #[test]
    fn a_key_has_one_lease_and_loses_it_with_it() {
        let mut leases = Leases::default();
        let one = leases.grant(Ttl::seconds(10), 1, at(0)).expect("there is a number");
        let two = leases.grant(Ttl::seconds(20), 2, at(0)).expect("there is a number");
        leases.attach(one, "k".into());
        leases.attach(two, "k".into());
        assert!(leases.get(one, at(0)).is_some_and(|lease| lease.keys.is_empty()));
        assert_eq!(leases.revoke(two).map(|lease| lease.keys), Some(BTreeSet::from(["k".into()])));
        assert_eq!(leases.extended(&"k".into(), at(0)), None);
        assert_eq!(leases.attach(99, "k".into()), Some(Ttl::seconds(99)), "it is only a time to live");
        assert_eq!(leases.extended(&"k".into(), at(0)), None, "an unknown lease keeps nothing alive");
        assert_eq!(leases.attach(two, "k".into()), Some(Ttl::seconds(20)), "it is told by the number");
    }

    #[test]
    fn a_number_can_be_chosen() {
        let (mut leases, chosen) = (Leases::default(), 0x1234_5678_9abc);
        assert_eq!(leases.attach(chosen, "k".into()), None, "nobody knows it yet");
        assert_eq!(leases.grant_as(chosen, Ttl::seconds(5), at(0)), Ok(()));
        assert_eq!(leases.grant_as(chosen, Ttl::seconds(5), at(1)), Err(Refusal::Taken));
        assert_eq!(leases.grant_as(7, Ttl::seconds(60), at(0)), Err(Refusal::Plain));
        assert_eq!(leases.attach(chosen, "k".into()), Some(Ttl::seconds(5)));
        assert_eq!(leases.grant_as(chosen, Ttl::seconds(6), at(5)), Ok(()), "the first has ended");
    }

    #[test]
    fn every_number_that_is_drawn_tells_its_time_and_hardly_any_other_does() {
        for (seconds, random) in [(1, 0), (60, 1), (3600, RANDOM_MASK), (u32::MAX, 77)] {
            let id = draw(Ttl::seconds(seconds), random);
            assert!(id > PLAIN_MAX);
            assert_eq!(told_by_number(id), Some(Ttl::seconds(seconds)));
        }
        let others = (1..10_000_i64).filter(|number| told_by_number(number << 33 | 60).is_some()).count();
        assert!(others <= 10, "{others}");
        assert_eq!(told_by_number(-1), None);
    }
}
