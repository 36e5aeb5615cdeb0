//! Networks for the pods of nodes, cut from the cluster's: pure.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use k3sd_client::controller::setup::Network;

/// How much longer the prefix of a node's network may be than the cluster's, as upstream has it: 65,536 nodes.
const DIFFERENCE_MAX: u8 = 16;

/// What can't be done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum RangeError {
    /// All are taken.
    #[error("CIDR allocation failed; there are no remaining CIDRs left to allocate in the accepted range")]
    Full,
    /// The settings make no sense.
    #[error("New CIDR set failed; the node CIDR size is too big")]
    TooBig,
}

/// The networks that one of the cluster's is cut into, by number, and which of them are taken.
#[derive(Clone, Debug)]
pub(super) struct Ranges {
    cluster: Network,
    /// The length of each one's prefix.
    bits: u8,
    taken: BTreeSet<u32>,
}

impl Ranges {
    /// None is taken.
    pub(super) fn new(cluster: Network, bits: u8) -> Result<Self, RangeError> {
        let is_possible = bits <= width(cluster.address) && bits >= cluster.prefix_bits;
        if !is_possible || bits - cluster.prefix_bits > DIFFERENCE_MAX {
            return Err(RangeError::TooBig);
        }
        Ok(Self { cluster, bits, taken: BTreeSet::new() })
    }

    fn count(&self) -> u32 {
        1 << (self.bits - self.cluster.prefix_bits)
    }

    /// All that have an address in common with another network are taken; says whether there are any.
    pub(super) fn occupy(&mut self, other: Network) -> bool {
        if width(other.address) != width(self.cluster.address) {
            return false;
        }
        let common = self.cluster.prefix_bits.min(other.prefix_bits);
        if masked(self.cluster.address, common) != masked(other.address, common) {
            return false;
        }
        if other.prefix_bits <= self.cluster.prefix_bits {
            self.taken.extend(0..self.count());
            return true;
        }
        let first = self.number(other.address);
        let more = self.bits.saturating_sub(other.prefix_bits);
        self.taken.extend(first..=first + ((1 << more) - 1));
        true
    }

    /// The number of the network that an address is in.
    fn number(&self, address: IpAddr) -> u32 {
        let offset =
            number(masked(address, self.bits)) ^ number(masked(self.cluster.address, self.cluster.prefix_bits));
        let shifted = offset.checked_shr(u32::from(width(address) - self.bits)).unwrap_or_default();
        u32::try_from(shifted).unwrap_or_default()
    }

    /// Takes the next one: behind the last that is taken, and from the beginning when the end is reached. What a node
    /// that is gone had is taken again as late as possible.
    pub(super) fn take(&mut self) -> Result<Network, RangeError> {
        let behind = self.taken.last().map_or(0, |last| last + 1);
        let number = if behind < self.count() { Some(behind) } else { (0..behind).find(|at| !self.taken.contains(at)) };
        let number = number.ok_or(RangeError::Full)?;
        self.taken.insert(number);
        let offset =
            u128::from(number).checked_shl(u32::from(width(self.cluster.address) - self.bits)).unwrap_or_default();
        let address = self::number(masked(self.cluster.address, self.cluster.prefix_bits)) | offset;
        Ok(Network { address: address_of(address, self.cluster.address), prefix_bits: self.bits })
    }
}

/// The text of a network.
pub(super) fn text(network: &Network) -> String {
    format!("{}/{}", network.address, network.prefix_bits)
}

/// A network, from its text.
pub(super) fn parse(text: &str) -> Option<Network> {
    let (address, bits) = text.split_once('/')?;
    let (address, prefix_bits): (IpAddr, u8) = (address.parse().ok()?, bits.parse().ok()?);
    (prefix_bits <= width(address)).then_some(Network { address, prefix_bits })
}

fn width(address: IpAddr) -> u8 {
    if address.is_ipv6() { 128 } else { 32 }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u32::from(address).into(),
        IpAddr::V6(address) => address.into(),
    }
}

/// The address of that number, of the family that another is of.
fn address_of(number: u128, like: IpAddr) -> IpAddr {
    match like {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::from(u32::try_from(number).unwrap_or_default())),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::from(number)),
    }
}

/// With the bits behind the prefix set to zero.
fn masked(address: IpAddr, bits: u8) -> IpAddr {
    let behind = u32::from(width(address) - bits);
    let mask = u128::MAX.checked_shl(behind).unwrap_or_default();
    address_of(number(address) & mask, address)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranges(cluster: &str, bits: u8) -> Ranges {
        Ranges::new(parse(cluster).expect("a network"), bits).expect("it makes sense")
    }

    fn taken<const N: usize>(ranges: &mut Ranges) -> [String; N] {
        std::array::from_fn(|_| ranges.take().map_or_else(|error| error.to_string(), |network| text(&network)))
    }

    #[test]
    fn networks_are_handed_out_in_order() {
        assert_eq!(taken(&mut ranges("10.42.0.0/16", 24)), ["10.42.0.0/24", "10.42.1.0/24", "10.42.2.0/24"]);
        assert_eq!(taken(&mut ranges("10.42.7.9/16", 23)), ["10.42.0.0/23", "10.42.2.0/23"]);
        assert_eq!(taken(&mut ranges("fd00:42::/56", 64)), ["fd00:42::/64", "fd00:42:0:1::/64"]);
        assert_eq!(taken(&mut ranges("fd00::/108", 124)), ["fd00::/124", "fd00::10/124"]);
        assert_eq!(taken(&mut ranges("0.0.0.0/0", 1)), ["0.0.0.0/1", "128.0.0.0/1"]);
    }

    #[test]
    fn what_is_taken_stays_so_and_what_is_free_comes_last() {
        let mut ranges = ranges("10.0.0.0/22", 24);
        assert!(ranges.occupy(parse("10.0.1.0/24").expect("a network")));
        let full = RangeError::Full.to_string();
        assert_eq!(taken(&mut ranges), ["10.0.2.0/24", "10.0.3.0/24", "10.0.0.0/24", &full, &full]);
    }

    #[test]
    fn whatever_overlaps_is_taken() {
        for (other, expected) in [
            ("10.0.0.0/8", 4),
            ("10.0.0.0/23", 2),
            ("10.0.2.128/25", 1),
            ("10.0.3.7/32", 1),
            ("10.0.4.0/24", 0),
            ("fd00::/8", 0),
        ] {
            let mut ranges = ranges("10.0.0.0/22", 24);
            assert_eq!(ranges.occupy(parse(other).expect("a network")), expected > 0, "{other}");
            assert_eq!(ranges.taken.len(), expected, "{other}");
        }
    }

    #[test]
    fn settings_that_make_no_sense_are_refused() {
        for (cluster, bits) in [("10.0.0.0/16", 8), ("10.0.0.0/16", 33), ("fd00::/40", 64), ("fd00::/64", 129)] {
            assert!(Ranges::new(parse(cluster).expect("a network"), bits).is_err(), "{cluster} {bits}");
        }
        assert!(parse("10.0.0.0/33").is_none() && parse("10.0.0.0").is_none() && parse("x/8").is_none());
    }
}
