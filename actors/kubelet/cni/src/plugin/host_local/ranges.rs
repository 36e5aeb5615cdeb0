//! Ranges of addresses. Pure.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use k3sd_netlink::Cidr;
use serde::Deserialize;

use super::super::error::CniError;

/// A range, as it is written down.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct RangeConfig {
    pub(super) subnet: Option<String>,
    pub(super) range_start: Option<IpAddr>,
    pub(super) range_end: Option<IpAddr>,
    pub(super) gateway: Option<IpAddr>,
}

/// A range that makes sense.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) subnet: Cidr,
    pub(super) start: IpAddr,
    pub(super) end: IpAddr,
    pub(super) gateway: IpAddr,
}

/// Ranges of which one address is handed out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RangeSet(pub(super) Vec<Range>);

/// The address behind this one, within its family.
pub(super) fn next(address: IpAddr) -> Option<IpAddr> {
    match address {
        IpAddr::V4(v4) => v4.to_bits().checked_add(1).map(|bits| Ipv4Addr::from_bits(bits).into()),
        IpAddr::V6(v6) => v6.to_bits().checked_add(1).map(|bits| Ipv6Addr::from_bits(bits).into()),
    }
}

/// The last address that a host may have: in IPv4, the one behind it is everybody's.
fn last_usable(subnet: Cidr) -> IpAddr {
    match subnet.last() {
        IpAddr::V4(v4) => Ipv4Addr::from_bits(v4.to_bits().saturating_sub(1)).into(),
        v6 @ IpAddr::V6(_) => v6,
    }
}

impl Range {
    fn new(config: &RangeConfig) -> Result<Self, CniError> {
        let text = config.subnet.as_deref().ok_or_else(|| CniError::config("invalid range: missing subnet"))?;
        let subnet: Cidr =
            text.parse().map_err(|error: k3sd_netlink::CidrError| CniError::config(error.to_string()))?;
        let width = if subnet.is_ipv6() { 128 } else { 32 };
        if subnet.bits() > width - 2 {
            return Err(CniError::config(format!("Network {subnet} too small to allocate from")));
        }
        if subnet.address() != subnet.first() {
            let (bits, network) = (subnet.bits(), subnet.first());
            return Err(CniError::config(format!(
                "Network has host bits set. For a subnet mask of length {bits} the network address is {network}"
            )));
        }
        let within = |address: Option<IpAddr>, otherwise: IpAddr, what: &str| match address {
            Some(address) if !subnet.contains(address) => {
                Err(CniError::config(format!("{what} {address} not in network {subnet}")))
            }
            address => Ok(address.unwrap_or(otherwise)),
        };
        let first = next(subnet.first()).unwrap_or_else(|| subnet.first());
        let range = Self {
            subnet,
            start: within(config.range_start, first, "RangeStart")?,
            end: within(config.range_end, last_usable(subnet), "RangeEnd")?,
            // A gateway may be elsewhere.
            gateway: config.gateway.unwrap_or(first),
        };
        if range.start > range.end {
            let (start, end) = (range.start, range.end);
            return Err(CniError::config(format!("RangeStart {start} is behind RangeEnd {end}")));
        }
        if range.gateway.is_ipv6() != subnet.is_ipv6() {
            return Err(CniError::config(format!("gateway {} is not of the family of {subnet}", range.gateway)));
        }
        Ok(range)
    }

    pub(super) fn contains(&self, address: IpAddr) -> bool {
        self.subnet.contains(address) && (self.start..=self.end).contains(&address)
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.start, self.end)
    }
}

impl RangeSet {
    /// The ranges, if they are of one family and don't overlap.
    ///
    /// # Errors
    /// They are not, or one of them makes no sense.
    pub(super) fn new(configs: &[RangeConfig]) -> Result<Self, CniError> {
        let ranges = configs.iter().map(Range::new).collect::<Result<Vec<_>, _>>()?;
        let Some(first) = ranges.first() else { return Err(CniError::config("empty range set")) };
        if ranges.iter().any(|range| range.subnet.is_ipv6() != first.subnet.is_ipv6()) {
            return Err(CniError::config("mixed address families"));
        }
        for (place, range) in ranges.iter().enumerate() {
            if let Some(other) = ranges[..place].iter().find(|other| overlap(other, range)) {
                return Err(CniError::config(format!("subnets {other} and {range} overlap")));
            }
        }
        Ok(Self(ranges))
    }

    pub(super) fn range_of(&self, address: IpAddr) -> Option<&Range> {
        self.0.iter().find(|range| range.contains(address))
    }

    pub(super) fn overlaps(&self, other: &Self) -> bool {
        self.0.iter().any(|range| other.0.iter().any(|theirs| overlap(range, theirs)))
    }
}

fn overlap(one: &Range, other: &Range) -> bool {
    one.start.is_ipv6() == other.start.is_ipv6() && one.start <= other.end && other.start <= one.end
}

impl fmt::Display for RangeSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let texts: Vec<String> = self.0.iter().map(ToString::to_string).collect();
        f.write_str(&texts.join(","))
    }
}
