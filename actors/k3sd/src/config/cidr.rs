//! IP networks, as written in `--cluster-cidr` and `--service-cidr`.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use thiserror::Error;

/// An IP network: an address whose host bits are zero, and the length of its prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Cidr {
    network: IpAddr,
    prefix_bits: u8,
}

/// One of the two IP families.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// The family of an address.
    #[must_use]
    pub const fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }

    /// Bits in an address.
    #[must_use]
    pub const fn bits(self) -> u8 {
        match self {
            Self::V4 => 32,
            Self::V6 => 128,
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}

/// The text is not an address, a slash and the length of a prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("not a network in CIDR notation")]
pub struct NotACidr;

impl Cidr {
    /// The network that holds `address`, or nothing when the prefix is longer than an address.
    #[must_use]
    pub fn new(address: IpAddr, prefix_bits: u8) -> Option<Self> {
        let family = Family::of(address);
        let host_bits = family.bits().checked_sub(prefix_bits)?;
        let host_mask = (1_u128.checked_shl(host_bits.into()).unwrap_or(0)).wrapping_sub(1);
        Some(Self { network: address_of(family, number_of(address) & !host_mask), prefix_bits })
    }

    /// The family of the network's addresses.
    #[must_use]
    pub const fn family(&self) -> Family {
        Family::of(self.network)
    }

    /// The first address of the network.
    #[must_use]
    pub const fn network(&self) -> IpAddr {
        self.network
    }

    /// Length of the prefix in bits.
    #[must_use]
    pub const fn prefix_bits(&self) -> u8 {
        self.prefix_bits
    }

    /// Whether the address lies in the network.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        Self::new(address, self.prefix_bits) == Some(*self)
    }

    /// The address that many after the first one; nothing when the network is smaller.
    #[must_use]
    pub fn nth(&self, offset: u128) -> Option<IpAddr> {
        let host_bits = self.family().bits() - self.prefix_bits;
        let fits = 1_u128.checked_shl(host_bits.into()).is_none_or(|size| offset < size);
        fits.then(|| address_of(self.family(), number_of(self.network) + offset))
    }
}

const fn number_of(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_bits() as u128,
        IpAddr::V6(address) => address.to_bits(),
    }
}

const fn address_of(family: Family, number: u128) -> IpAddr {
    match family {
        // Numbers of this family come from 32 bits, so nothing is cut off.
        Family::V4 => IpAddr::V4(Ipv4Addr::from_bits(number as u32)),
        Family::V6 => IpAddr::V6(Ipv6Addr::from_bits(number)),
    }
}

/// Reads `10.42.0.0/16`. Host bits are dropped, as Go does it.
impl FromStr for Cidr {
    type Err = NotACidr;

    fn from_str(text: &str) -> Result<Self, NotACidr> {
        let (address, prefix) = text.split_once('/').ok_or(NotACidr)?;
        if prefix.is_empty() || !prefix.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(NotACidr);
        }
        let address = address.parse().map_err(|_| NotACidr)?;
        Self::new(address, prefix.parse().map_err(|_| NotACidr)?).ok_or(NotACidr)
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.prefix_bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cidr(text: &str) -> Cidr {
        text.parse().unwrap()
    }

    #[test]
    fn texts_are_read_and_host_bits_dropped() {
        let rows = [
            ("10.42.0.0/16", Some("10.42.0.0/16")),
            ("10.42.7.9/16", Some("10.42.0.0/16")),
            ("10.42.7.9/32", Some("10.42.7.9/32")),
            ("255.255.255.255/0", Some("0.0.0.0/0")),
            ("fd00:42::1/56", Some("fd00:42::/56")),
            ("ffff::1/0", Some("::/0")),
            ("::1/128", Some("::1/128")),
            ("10.42.0.0", None),
            ("10.42.0.0/", None),
            ("10.42.0.0/33", None),
            ("::/129", None),
            ("::/999", None),
            ("10.42.0.0/+8", None),
            ("10.42.0.0/-1", None),
            ("10.42.0/16", None),
            ("host/16", None),
            ("", None),
        ];
        for (text, expected) in rows {
            let read = text.parse::<Cidr>().ok().map(|cidr| cidr.to_string());
            assert_eq!(read.as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn membership() {
        assert!(cidr("10.43.0.0/16").contains("10.43.255.255".parse().unwrap()));
        assert!(!cidr("10.43.0.0/16").contains("10.44.0.0".parse().unwrap()));
        assert!(!cidr("0.0.0.0/0").contains("::".parse().unwrap()), "another family is never inside");
        assert!(cidr("fd00::/8").contains("fdff::1".parse().unwrap()));
    }

    #[test]
    fn addresses_by_number() {
        assert_eq!(cidr("10.43.0.0/16").nth(10), Some("10.43.0.10".parse().unwrap()));
        assert_eq!(cidr("fd00:43::/112").nth(10), Some("fd00:43::a".parse().unwrap()));
        assert_eq!(cidr("10.0.0.0/30").nth(3), Some("10.0.0.3".parse().unwrap()));
        assert_eq!(cidr("10.0.0.0/30").nth(4), None);
        assert_eq!(cidr("10.0.0.1/32").nth(0), Some("10.0.0.1".parse().unwrap()));
        assert_eq!(cidr("::/0").nth(u128::MAX), Some(IpAddr::V6(Ipv6Addr::from_bits(u128::MAX))));
    }
}
