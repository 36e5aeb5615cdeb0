//! Times to live as etcd's leases, so that etcd ends the keys, whoever of its clients is alive then.
//!
//! Each write with a time to live has a lease of its own. Sharing one between keys, as API servers do, would save a
//! message, but would end all of these keys in one change, and here each change has a revision of its own. It would
//! also let keys live longer than they were given.
//!
//! Nothing else is kept in etcd about a lease, so its number says whose it is and how many seconds it was granted for:
//!
//! ```text
//!   bit 62      48 47          24 23          0      up to half a year
//!       │  "k3"  │  number       │  seconds    │
//!       │  "k4"  │ number │  seconds           │      longer
//!   bit 62      48 47    32 31                 0
//! ```
//!
//! A lease with another number is somebody else's. Such a key lives as long as that lease does, which etcd sees to; its
//! time to live reads as none. etcd itself numbers leases with 15 bits of the member's number in front, which are ours
//! for two members in 32768; their leases would show a wrong time to live and be none the worse for it.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::types::Ttl;

/// In front of the numbers of leases, above these many bits.
const MARK_BITS: u32 = 48;
const MARK_SHORT: i64 = 0x6b33;
const MARK_LONG: i64 = 0x6b34;
/// How many bits the seconds have.
const SHORT_BITS: u32 = 24;
const LONG_BITS: u32 = 32;

/// Draws numbers for leases.
#[derive(Debug)]
pub(super) struct LeaseNumbers(AtomicU64);

impl LeaseNumbers {
    /// Begins somewhere, so that two servers seldom draw the same.
    pub(super) fn new() -> Self {
        Self(AtomicU64::new(RandomState::new().build_hasher().finish()))
    }

    /// Goes on from somewhere else, after a number turned out to be taken.
    pub(super) fn jump(&self) {
        self.0.store(RandomState::new().build_hasher().finish(), Ordering::Relaxed);
    }

    /// A number for a lease of so many seconds, which are not 0.
    pub(super) fn draw(&self, ttl: Ttl) -> i64 {
        let number = self.0.fetch_add(1, Ordering::Relaxed);
        let seconds = i64::from(ttl.as_seconds());
        let (mark, bits) = if seconds < 1 << SHORT_BITS { (MARK_SHORT, SHORT_BITS) } else { (MARK_LONG, LONG_BITS) };
        let number = i64::try_from(number & ((1 << (MARK_BITS - bits)) - 1)).unwrap_or_default();
        mark << MARK_BITS | number << bits | seconds
    }
}

/// What the number of a lease says about the key; none for 0 and for other people's leases.
pub(super) fn ttl(lease: i64) -> Ttl {
    let bits = match lease >> MARK_BITS {
        MARK_SHORT => SHORT_BITS,
        MARK_LONG => LONG_BITS,
        _ => return Ttl::NONE,
    };
    u32::try_from(lease & ((1 << bits) - 1)).map_or(Ttl::NONE, Ttl::seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_a_lease_tells_its_seconds() {
        let numbers = LeaseNumbers::new();
        for seconds in [1, 60, 3600, (1 << 24) - 1, 1 << 24, u32::MAX] {
            let drawn = [numbers.draw(Ttl::seconds(seconds)), numbers.draw(Ttl::seconds(seconds))];
            numbers.jump();
            assert_ne!(drawn[0], drawn[1]);
            assert!(drawn[0] > 0);
            assert_eq!(drawn.map(ttl), [Ttl::seconds(seconds); 2]);
        }
    }

    #[test]
    fn leases_of_others_are_left_alone() {
        for lease in [0, 1, -1, 7_587_869_111_222, i64::MAX, i64::MIN] {
            assert_eq!(ttl(lease), Ttl::NONE, "{lease}");
        }
    }
}
