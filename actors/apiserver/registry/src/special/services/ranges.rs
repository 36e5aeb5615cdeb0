//! Ranges of cluster IPs: what belongs to them, and in which order free addresses are looked for.
//!
//! The lower part of a range is left to addresses that people choose, as long as there are others: a Service that gets any
//! address gets one of the upper part.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use k3sd_runtime::Rng;
use thiserror::Error;

/// Bounds of the part that is left to chosen addresses.
const STATIC_LEAST: u128 = 16;
const STATIC_MOST: u128 = 256;
/// Which part of a range that is, within the bounds.
const STATIC_PART: u128 = 16;

/// A family of addresses, under the names that Services use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// `IPv4`.
    V4,
    /// `IPv6`.
    V6,
}

impl Family {
    /// The family of an address.
    #[must_use]
    pub const fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    /// Reads `IPv4` or `IPv6`.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "IPv4" => Some(Self::V4),
            "IPv6" => Some(Self::V6),
            _ => None,
        }
    }

    /// The name.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        }
    }

    /// The other one.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::V4 => Self::V6,
            Self::V6 => Self::V4,
        }
    }

    const fn bits(self) -> u8 {
        match self {
            Self::V4 => 32,
            Self::V6 => 128,
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.word())
    }
}

/// Why an address isn't given out. The texts are shown to clients.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(crate) enum AddressError {
    /// Every address has an owner.
    #[error("range is full")]
    Full,
    /// This one has.
    #[error("provided IP is already allocated")]
    Allocated,
    /// It is the network's own address, or broadcasts.
    #[error("the provided IP ({0}) is not in the valid range. The range of valid IPs is {1}")]
    NotInRange(IpAddr, Range),
    /// It is in none of the ranges.
    #[error("the provided network does not match the current range")]
    Mismatched,
    /// It couldn't be written down.
    #[error("{0}")]
    Failed(String),
}

/// Why a text is no range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("not an address and the length of a prefix")]
pub struct RangeError;

/// A network that cluster IPs are taken from. The first address is the network's own, and for IPv4 the last one
/// broadcasts: neither is given out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Range {
    family: Family,
    network: u128,
    bits: u8,
}

impl FromStr for Range {
    type Err = RangeError;

    /// Reads `10.43.0.0/16`. Bits behind the prefix are dropped.
    fn from_str(text: &str) -> Result<Self, RangeError> {
        let (address, bits) = text.split_once('/').ok_or(RangeError)?;
        let address: IpAddr = address.parse().map_err(|_| RangeError)?;
        let family = Family::of(address);
        let bits: u8 = bits.parse().map_err(|_| RangeError)?;
        if bits > family.bits() {
            return Err(RangeError);
        }
        let range = Self { family, network: 0, bits };
        Ok(Self { network: number(address) & !range.hosts(), ..range })
    }
}

impl fmt::Display for Range {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}/{}", address(self.family, self.network), self.bits)
    }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(u32::from(address)),
        IpAddr::V6(address) => u128::from(address),
    }
}

fn address(family: Family, number: u128) -> IpAddr {
    match family {
        // A range of IPv4 is made from 32 bits and stays within them.
        Family::V4 => IpAddr::V4(Ipv4Addr::from(u32::try_from(number).unwrap_or(u32::MAX))),
        Family::V6 => IpAddr::V6(Ipv6Addr::from(number)),
    }
}

impl Range {
    /// Which addresses it has.
    #[must_use]
    pub const fn family(self) -> Family {
        self.family
    }

    /// The address of the network itself.
    #[must_use]
    pub fn network(self) -> IpAddr {
        address(self.family, self.network)
    }

    /// The first address that is given out; `None` for a network too small to have one.
    #[must_use]
    pub fn first(self) -> Option<IpAddr> {
        (self.count() > 0).then(|| address(self.family, self.network + 1))
    }

    /// Whether the address lies in the network.
    #[must_use]
    pub fn contains(self, candidate: IpAddr) -> bool {
        Family::of(candidate) == self.family && number(candidate) & !self.hosts() == self.network
    }

    /// Whether the other network lies in this one.
    #[must_use]
    pub fn covers(self, other: Self) -> bool {
        self.family == other.family && self.bits <= other.bits && other.network & !self.hosts() == self.network
    }

    /// Whether the address may be given out.
    pub(crate) fn check(self, candidate: IpAddr) -> Result<(), AddressError> {
        let offset = number(candidate).wrapping_sub(self.network);
        if self.contains(candidate) && (1..=self.count()).contains(&offset) {
            return Ok(());
        }
        Err(AddressError::NotInRange(candidate, self))
    }

    /// The bits behind the prefix.
    const fn hosts(self) -> u128 {
        match self.family.bits() - self.bits {
            128 => u128::MAX,
            free => (1 << free) - 1,
        }
    }

    /// How many addresses it gives out.
    const fn count(self) -> u128 {
        match self.family {
            Family::V4 => self.hosts().saturating_sub(1),
            Family::V6 => self.hosts(),
        }
    }

    /// How many of them, from the first one, are left to those who choose.
    fn chosen(self) -> u128 {
        let size = self.hosts().saturating_add(1);
        if size <= STATIC_LEAST { 0 } else { (size / STATIC_PART).clamp(STATIC_LEAST, STATIC_MOST) }
    }

    /// All addresses, each once: those of the upper part from a random one on, then those of the lower part.
    pub(crate) fn candidates(self, rng: &mut Rng) -> impl Iterator<Item = IpAddr> + use<> {
        let (count, chosen) = (self.count(), self.chosen().min(self.count()));
        let upper = Turn::new(chosen, count - chosen, rng);
        let lower = Turn::new(0, chosen, rng);
        upper.chain(lower).map(move |offset| address(self.family, self.network + 1 + offset))
    }
}

/// Numbers of a span, each once, from one in the middle on.
struct Turn {
    base: u128,
    length: u128,
    start: u128,
    done: u128,
}

impl Turn {
    fn new(base: u128, length: u128, rng: &mut Rng) -> Self {
        let start = u128::from(rng.below(u64::try_from(length).unwrap_or(u64::MAX)));
        Self { base, length, start, done: 0 }
    }
}

impl Iterator for Turn {
    type Item = u128;

    fn next(&mut self) -> Option<u128> {
        if self.done == self.length {
            return None;
        }
        let behind = self.length - self.start;
        let at = if self.done < behind { self.start + self.done } else { self.done - behind };
        self.done += 1;
        Some(self.base + at)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn range(text: &str) -> Range {
        text.parse().expect(text)
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().expect(text)
    }

    #[test]
    fn ranges_are_read_and_shown() {
        for (text, shown) in
            [("10.43.0.0/16", "10.43.0.0/16"), ("10.43.7.9/16", "10.43.0.0/16"), ("fd00::5/112", "fd00::/112")]
        {
            assert_eq!(range(text).to_string(), shown);
        }
        for wrong in ["", "10.0.0.0", "10.0.0.0/33", "fd00::/129", "10.0.0/8", "10.0.0.0/-1"] {
            assert_eq!(wrong.parse::<Range>(), Err(RangeError), "{wrong}");
        }
        assert_eq!(range("10.43.0.0/16").first(), Some(ip("10.43.0.1")));
        assert_eq!(range("10.0.0.1/32").first(), None);
    }

    #[test]
    fn what_may_be_given_out() {
        for (text, address, ok) in [
            ("10.0.0.0/24", "10.0.0.0", false),
            ("10.0.0.0/24", "10.0.0.1", true),
            ("10.0.0.0/24", "10.0.0.254", true),
            ("10.0.0.0/24", "10.0.0.255", false),
            ("10.0.0.0/24", "10.0.1.1", false),
            ("fd00::/120", "fd00::", false),
            ("fd00::/120", "fd00::ff", true),
            ("fd00::/120", "10.0.0.1", false),
        ] {
            assert_eq!(range(text).check(ip(address)).is_ok(), ok, "{address} in {text}");
        }
        let error = range("10.0.0.0/24").check(ip("10.0.0.255")).expect_err("broadcast").to_string();
        assert_eq!(
            error,
            "the provided IP (10.0.0.255) is not in the valid range. The range of valid IPs is 10.0.0.0/24"
        );
    }

    #[test]
    fn every_address_comes_once_and_the_lower_part_last() {
        // size, how many are left to those who choose: min(max(16, size / 16), 256)
        for (text, all, chosen) in
            [("10.0.0.0/24", 254, 16), ("10.0.0.0/20", 4094, 256), ("10.0.0.0/28", 14, 0), ("fd00::/120", 255, 16)]
        {
            let range = range(text);
            let found: Vec<IpAddr> = range.candidates(&mut Rng::seeded(7)).collect();
            assert_eq!(found.len(), all, "{text}");
            assert_eq!(found.iter().collect::<BTreeSet<_>>().len(), all, "{text}");
            assert!(found.iter().all(|address| range.check(*address).is_ok()), "{text}");
            let lower: BTreeSet<IpAddr> = (1..=chosen).map(|n| address(range.family, range.network + n)).collect();
            let last: BTreeSet<IpAddr> = found[all - lower.len()..].iter().copied().collect();
            assert_eq!(last, lower, "{text}");
        }
        assert_eq!(range("10.0.0.0/31").candidates(&mut Rng::seeded(1)).count(), 0);
        assert!(range("fd00::/64").candidates(&mut Rng::seeded(1)).take(3).all(|a| range("fd00::/64").contains(a)));
    }

    #[test]
    fn ranges_within_ranges() {
        assert!(range("10.0.0.0/8").covers(range("10.43.0.0/16")));
        assert!(!range("10.43.0.0/16").covers(range("10.0.0.0/8")));
        assert!(!range("10.43.0.0/16").covers(range("10.44.0.0/24")));
        assert!(!range("::/0").covers(range("10.44.0.0/24")));
    }
}
