//! Leases: what keeps keys alive beyond their own time. Pure.
//!
//! The store knows no leases, only how many seconds a value lives after its last write. The number of a lease holds
//! those seconds in its lower half, so that a write needs no table to be understood, also after a restart. Which keys a
//! lease has is known in memory only: after a restart the lease is unknown, its holder is told so when it next renews
//! it, and its keys live for their own time.

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

fn length(ttl: Ttl) -> Duration {
    Duration::from_secs(u64::from(ttl.as_seconds()))
}

impl Leases {
    /// A new lease; `random` makes its number unlike others.
    pub(crate) fn grant(&mut self, ttl: Ttl, mut random: u64, now: Duration) -> i64 {
        self.drop_ended(now);
        loop {
            // Positive, and never in the range of plain times to live.
            let high = i64::try_from((random >> 33).max(1)).unwrap_or(1);
            let id = high << 32 | i64::from(ttl.as_seconds());
            if let Entry::Vacant(place) = self.by_id.entry(id) {
                let end = now.saturating_add(length(ttl));
                place.insert(Lease { ttl, end, keys: BTreeSet::new() });
                return id;
            }
            random = random.wrapping_add(1 << 33);
        }
    }

    fn drop_ended(&mut self, now: Duration) {
        let ended: Vec<i64> = self.by_id.iter().filter(|(_, lease)| lease.end <= now).map(|(id, _)| *id).collect();
        for id in ended {
            self.revoke(id);
        }
    }

    /// A key is about to be written with a lease. An unknown lease leaves the key its own time.
    pub(crate) fn attach(&mut self, id: i64, key: Key) {
        if let Some(before) = self.by_key.remove(&key).and_then(|before| self.by_id.get_mut(&before)) {
            before.keys.remove(&key);
        }
        if let Some(lease) = self.by_id.get_mut(&id) {
            lease.keys.insert(key.clone());
            self.by_key.insert(key, id);
        }
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
        let id = leases.grant(Ttl::seconds(10), 7 << 33, at(0));
        assert_eq!(id & 0xffff_ffff, 10, "its number tells the time to live");
        assert_ne!(leases.grant(Ttl::seconds(10), 7 << 33, at(0)), id);
        leases.attach(id, "k".into());
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
        let one = leases.grant(Ttl::seconds(10), 1 << 33, at(0));
        let two = leases.grant(Ttl::seconds(20), 2 << 33, at(0));
        leases.attach(one, "k".into());
        leases.attach(two, "k".into());
        assert!(leases.get(one, at(0)).is_some_and(|lease| lease.keys.is_empty()));
        assert_eq!(leases.revoke(two).map(|lease| lease.keys), Some(BTreeSet::from(["k".into()])));
        assert_eq!(leases.extended(&"k".into(), at(0)), None);
        leases.attach(99, "k".into());
        assert_eq!(leases.extended(&"k".into(), at(0)), None, "an unknown lease keeps nothing alive");
    }
}
