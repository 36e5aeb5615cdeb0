//! An address with the length of its network.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use thiserror::Error;

/// An address and the number of leading bits that name its network; host bits may be set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cidr {
    address: IpAddr,
    bits: u8,
}

/// The text is not an address with a length.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("invalid CIDR address: {0}")]
pub struct CidrError(pub String);

impl Cidr {
    /// The address with `bits` of network; `None` when the family has fewer bits than that.
    #[must_use]
    pub fn new(address: IpAddr, bits: u8) -> Option<Self> {
        (bits <= width(address)).then_some(Self { address, bits })
    }

    /// The one address alone, as /32 or /128.
    #[must_use]
    pub fn host(address: IpAddr) -> Self {
        Self { address, bits: width(address) }
    }

    /// Every address of this family: 0.0.0.0/0 or ::/0.
    #[must_use]
    pub fn everything(is_ipv6: bool) -> Self {
        let address = if is_ipv6 { IpAddr::V6(Ipv6Addr::UNSPECIFIED) } else { IpAddr::V4(Ipv4Addr::UNSPECIFIED) };
        Self { address, bits: 0 }
    }

    /// The address as it was given.
    #[must_use]
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// How many bits name the network.
    #[must_use]
    pub fn bits(&self) -> u8 {
        self.bits
    }

    /// Whether it is IPv6.
    #[must_use]
    pub fn is_ipv6(&self) -> bool {
        self.address.is_ipv6()
    }

    /// The mask, in the family's own form.
    #[must_use]
    pub fn mask(&self) -> IpAddr {
        from_number(self.mask_number(), self.is_ipv6())
    }

    fn mask_number(&self) -> u128 {
        let ones = if self.bits == 0 { 0 } else { u128::MAX << (128 - u32::from(self.bits)) };
        if self.is_ipv6() { ones } else { ones >> 96 }
    }

    /// The first address, whose host bits are zero.
    #[must_use]
    pub fn first(&self) -> IpAddr {
        from_number(number(self.address) & self.mask_number(), self.is_ipv6())
    }

    /// The last address, whose host bits are one.
    #[must_use]
    pub fn last(&self) -> IpAddr {
        let hosts = if self.is_ipv6() { !self.mask_number() } else { !self.mask_number() & u128::from(u32::MAX) };
        from_number(number(self.address) | hosts, self.is_ipv6())
    }

    /// The network: the same with its host bits zero.
    #[must_use]
    pub fn network(&self) -> Self {
        Self { address: self.first(), bits: self.bits }
    }

    /// Whether the address belongs to the network.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        address.is_ipv6() == self.is_ipv6() && number(address) & self.mask_number() == number(self.first())
    }
}

fn width(address: IpAddr) -> u8 {
    if address.is_ipv6() { 128 } else { 32 }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(v4.to_bits()),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

#[expect(clippy::cast_possible_truncation, reason = "an IPv4 address has 32 bits, and nothing above them is set")]
fn from_number(number: u128, is_ipv6: bool) -> IpAddr {
    if is_ipv6 { Ipv6Addr::from_bits(number).into() } else { Ipv4Addr::from_bits(number as u32).into() }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

impl FromStr for Cidr {
    type Err = CidrError;

    fn from_str(text: &str) -> Result<Self, CidrError> {
        let wrong = || CidrError(text.to_owned());
        let (address, bits) = text.split_once('/').ok_or_else(wrong)?;
        if bits.starts_with('+') {
            return Err(wrong());
        }
        let address = address.parse().map_err(|_| wrong())?;
        Self::new(address, bits.parse().map_err(|_| wrong())?).ok_or_else(wrong)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_of_networks() {
        for (text, first, last, mask) in [
            ("10.42.0.7/24", "10.42.0.0", "10.42.0.255", "255.255.255.0"),
            ("10.0.0.1/32", "10.0.0.1", "10.0.0.1", "255.255.255.255"),
            ("1.2.3.4/0", "0.0.0.0", "255.255.255.255", "0.0.0.0"),
            ("fd00::7/64", "fd00::", "fd00::ffff:ffff:ffff:ffff", "ffff:ffff:ffff:ffff::"),
            ("fd00::7/128", "fd00::7", "fd00::7", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
        ] {
            let cidr: Cidr = text.parse().unwrap();
            assert_eq!(cidr.to_string(), text);
            assert_eq!(cidr.first().to_string(), first, "{text}");
            assert_eq!(cidr.last().to_string(), last, "{text}");
            assert_eq!(cidr.mask().to_string(), mask, "{text}");
            assert!(cidr.contains(cidr.first()) && cidr.contains(cidr.last()), "{text}");
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["", "10.0.0.1", "10.0.0.1/33", "::1/129", "10.0.0.1/+8", "10.0.0.1/-1", "a/8", "10.0.0/8"] {
            assert!(text.parse::<Cidr>().is_err(), "{text}");
        }
        assert!(!"10.0.0.0/8".parse::<Cidr>().unwrap().contains("::1".parse().unwrap()));
    }
}
