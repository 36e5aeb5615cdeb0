//! Pieces of nftables rules that the plugins' table and the node's have in common.

use std::net::IpAddr;

use k3sd_netlink::Cidr;
use k3sd_netlink::nft::{Base, Compare, CtKey, Expression, FibResult, MetaKey, Register, Rule, Verdict};

/// Where values are compared.
const R: Register = Register(0);
/// "It is one of this machine's own", as the routing tables say it.
const ADDRESS_LOCAL: u32 = 2;
/// The destination of the connection was translated, as connection tracking says it.
const STATUS_DESTINATION_TRANSLATED: u32 = 1 << 5;

/// The bytes of an address.
pub(crate) fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

fn equal(how: Compare, with: Vec<u8>) -> Expression {
    Expression::Compare { from: R, how, with }
}

/// Only packets of this family go on.
pub(crate) fn of_family(is_ipv6: bool) -> [Expression; 2] {
    let family = if is_ipv6 { 10 } else { 2 };
    [Expression::Meta { key: MetaKey::Family, to: R }, equal(Compare::Equal, vec![family])]
}

/// Loads the source or the destination; the family is known by then.
pub(crate) fn load_address(is_ipv6: bool, is_destination: bool, to: Register) -> Expression {
    let (offset, bytes) = match (is_ipv6, is_destination) {
        (false, false) => (12, 4),
        (false, true) => (16, 4),
        (true, false) => (8, 16),
        (true, true) => (24, 16),
    };
    Expression::Payload { to, base: Base::Network, offset, bytes }
}

/// Only packets from or to this network go on. The family is asked for each time: without, `nft list` shows bytes.
pub(crate) fn in_network(network: Cidr, is_destination: bool) -> [Expression; 5] {
    let mask = octets(network.mask());
    let xor = vec![0; mask.len()];
    let [load_family, family] = of_family(network.is_ipv6());
    [
        load_family,
        family,
        load_address(network.is_ipv6(), is_destination, R),
        Expression::Bitwise { from: R, to: R, mask, xor },
        equal(Compare::Equal, octets(network.first())),
    ]
}

/// Only packets to this machine's own addresses go on.
pub(crate) fn to_this_machine() -> [Expression; 2] {
    [
        Expression::FibDestination { result: FibResult::AddressType, to: R },
        equal(Compare::Equal, ADDRESS_LOCAL.to_ne_bytes().to_vec()),
    ]
}

/// Only packets whose destination was translated go on.
pub(crate) fn translated() -> [Expression; 3] {
    let mask = STATUS_DESTINATION_TRANSLATED.to_ne_bytes().to_vec();
    [
        Expression::Ct { key: CtKey::Status, to: R },
        Expression::Bitwise { from: R, to: R, mask, xor: vec![0; 4] },
        equal(Compare::NotEqual, vec![0; 4]),
    ]
}

/// Groups of receivers, which nobody translates.
pub(crate) fn multicast(is_ipv6: bool) -> Cidr {
    let address: IpAddr =
        if is_ipv6 { [0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0].into() } else { [224, 0, 0, 0].into() };
    Cidr::new(address, if is_ipv6 { 8 } else { 4 }).expect("both families have that many bits")
}

/// A rule of conditions and what follows from them.
pub(crate) fn rule(conditions: impl IntoIterator<Item = Expression>, last: Expression) -> Rule {
    Rule { expressions: conditions.into_iter().chain([last]).collect() }
}

/// A verdict as an expression.
pub(crate) fn verdict(verdict: Verdict) -> Expression {
    Expression::Verdict(verdict)
}
