//! Links, addresses and routes on the wire.

use std::net::IpAddr;

use super::model::{Address, Kind, Link, LinkChange, Mac, RouteEntry, RouteSpec};
use crate::cidr::Cidr;
use crate::error::NetlinkError;
use crate::wire::{Message, attributes, find, flags, number, string};

pub(super) const NEW_LINK: u16 = 16;
pub(super) const DELETE_LINK: u16 = 17;
pub(super) const GET_LINK: u16 = 18;
pub(super) const NEW_ADDRESS: u16 = 20;
pub(super) const DELETE_ADDRESS: u16 = 21;
pub(super) const GET_ADDRESS: u16 = 22;
pub(super) const NEW_ROUTE: u16 = 24;
pub(super) const GET_ROUTE: u16 = 26;

/// Bytes of `struct ifinfomsg`.
const LINK_BYTES: usize = 16;
/// Bytes of `struct ifaddrmsg`.
const ADDRESS_BYTES: usize = 8;
/// Bytes of `struct rtmsg`.
const ROUTE_BYTES: usize = 12;

const FLAG_UP: u32 = 0x1;
const FLAG_PROMISCUOUS: u32 = 0x100;

const LINK_MAC: u16 = 1;
const LINK_NAME: u16 = 3;
const LINK_MTU: u16 = 4;
const LINK_MASTER: u16 = 10;
const LINK_INFO: u16 = 18;
const LINK_ALIAS: u16 = 20;
const LINK_NAMESPACE_FD: u16 = 28;
const LINK_EXTENSIONS: u16 = 29;
const INFO_KIND: u16 = 1;
const INFO_DATA: u16 = 2;
const INFO_PORT_KIND: u16 = 4;
const INFO_PORT_DATA: u16 = 5;
const VETH_PEER: u16 = 1;
const PORT_HAIRPIN: u16 = 4;
/// Counters are half of an answer, and nobody reads them.
const WITHOUT_STATISTICS: u32 = 8;

const ADDRESS_ADDRESS: u16 = 1;
const ADDRESS_LOCAL: u16 = 2;
const ADDRESS_BROADCAST: u16 = 4;
const ADDRESS_FLAGS: u16 = 8;
/// Nobody is asked whether the address is taken; it was given out by us.
const ADDRESS_WITHOUT_PROBE: u32 = 0x2;

const ROUTE_DESTINATION: u16 = 1;
const ROUTE_LINK: u16 = 4;
const ROUTE_GATEWAY: u16 = 5;
const ROUTE_METRIC: u16 = 6;
const ROUTE_METRICS: u16 = 8;
const ROUTE_TABLE: u16 = 15;
const METRICS_MTU: u16 = 2;
const ROUTE_STATIC: u8 = 4;
const ROUTE_UNICAST: u8 = 1;
const SCOPE_UNIVERSE: u8 = 0;
const SCOPE_LINK: u8 = 253;

const FAMILY_V4: u8 = 2;
const FAMILY_V6: u8 = 10;

/// Names longer than this are refused by the kernel, without a word.
const NAME_BYTES_MAX: usize = 15;

/// Whether the kernel takes this as the name of a link.
pub(super) fn check_name(name: &str) -> Result<(), NetlinkError> {
    let bad = name.is_empty() || name.len() > NAME_BYTES_MAX || name == "." || name == "..";
    if bad || name.contains(|c: char| c == '/' || c == ':' || c == '\0' || c.is_whitespace()) {
        return Err(NetlinkError::Invalid(format!("{name:?} is not the name of a link")));
    }
    Ok(())
}

fn link_header(index: u32, values: u32, mask: u32) -> [u8; LINK_BYTES] {
    let mut header = [0; LINK_BYTES];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[8..12].copy_from_slice(&values.to_ne_bytes());
    header[12..].copy_from_slice(&mask.to_ne_bytes());
    header
}

fn flag(wanted: Option<bool>, flag: u32) -> (u32, u32) {
    match wanted {
        Some(true) => (flag, flag),
        Some(false) => (0, flag),
        None => (0, 0),
    }
}

fn flags_of(change: &LinkChange) -> (u32, u32) {
    let (up, up_mask) = flag(change.up, FLAG_UP);
    let (promiscuous, promiscuous_mask) = flag(change.promiscuous, FLAG_PROMISCUOUS);
    (up | promiscuous, up_mask | promiscuous_mask)
}

/// A question about one link, or about all.
pub(super) fn get_link(name: Option<&str>) -> Message {
    let mut message = Message::new(GET_LINK, 0).raw(&link_header(0, 0, 0));
    message.u32(LINK_EXTENSIONS, WITHOUT_STATISTICS);
    if let Some(name) = name {
        message.text(LINK_NAME, name);
    }
    message
}

fn put_change(message: &mut Message, change: &LinkChange, master: Option<u32>) {
    if let Some(Mac(mac)) = change.mac {
        message.attribute(LINK_MAC, &mac);
    }
    if let Some(mtu) = change.mtu {
        message.u32(LINK_MTU, mtu);
    }
    if let Some(master) = master {
        message.u32(LINK_MASTER, master);
    }
    if let Some(alias) = &change.alias {
        message.text(LINK_ALIAS, alias);
    }
}

/// Makes a link; `master` is the number of the link that `change` names.
pub(super) fn add_link(
    name: &str,
    kind: &Kind,
    change: &LinkChange,
    master: Option<u32>,
) -> Result<Message, NetlinkError> {
    check_name(name)?;
    let (values, mask) = flags_of(change);
    let mut message = Message::new(NEW_LINK, flags::CREATE | flags::EXCLUSIVE).raw(&link_header(0, values, mask));
    message.text(LINK_NAME, name);
    put_change(&mut message, change, master);
    if let Kind::Veth(peer) = kind {
        check_name(&peer.name)?;
    }
    message.nest(LINK_INFO, |info| {
        info.text(INFO_KIND, kind.word());
        let Kind::Veth(peer) = kind else { return };
        info.nest(INFO_DATA, |data| {
            data.nest(VETH_PEER, |end| {
                end.fixed(&link_header(0, 0, 0));
                end.text(LINK_NAME, &peer.name);
                if let Some(Mac(mac)) = peer.mac {
                    end.attribute(LINK_MAC, &mac);
                }
                if let Some(mtu) = change.mtu {
                    end.u32(LINK_MTU, mtu);
                }
                if let Some(namespace) = &peer.namespace {
                    end.u32(LINK_NAMESPACE_FD, namespace.raw().cast_unsigned());
                }
            });
        });
    });
    Ok(message)
}

pub(super) fn change_link(index: u32, change: &LinkChange, master: Option<u32>) -> Message {
    let (values, mask) = flags_of(change);
    let mut message = Message::new(NEW_LINK, 0).raw(&link_header(index, values, mask));
    put_change(&mut message, change, master);
    message
}

pub(super) fn rename_link(index: u32, name: &str) -> Result<Message, NetlinkError> {
    check_name(name)?;
    let mut message = Message::new(NEW_LINK, 0).raw(&link_header(index, 0, 0));
    message.text(LINK_NAME, name);
    Ok(message)
}

pub(super) fn move_link(index: u32, namespace: i32) -> Message {
    let mut message = Message::new(NEW_LINK, 0).raw(&link_header(index, 0, 0));
    message.u32(LINK_NAMESPACE_FD, namespace.cast_unsigned());
    message
}

pub(super) fn set_hairpin(index: u32, hairpin: bool) -> Message {
    let mut message = Message::new(NEW_LINK, 0).raw(&link_header(index, 0, 0));
    message.nest(LINK_INFO, |info| {
        info.text(INFO_PORT_KIND, "bridge");
        info.nest(INFO_PORT_DATA, |port| port.attribute(PORT_HAIRPIN, &[u8::from(hairpin)]));
    });
    message
}

pub(super) fn delete_link(index: u32) -> Message {
    Message::new(DELETE_LINK, 0).raw(&link_header(index, 0, 0))
}

pub(super) fn read_link(kind: u16, payload: &[u8]) -> Option<Link> {
    if kind != NEW_LINK {
        return None;
    }
    let (index, flags) = (number(payload, 4)?, number(payload, 8)?);
    let mut link = Link {
        index,
        name: String::new(),
        kind: String::new(),
        up: flags & FLAG_UP != 0,
        promiscuous: flags & FLAG_PROMISCUOUS != 0,
        mtu: 0,
        mac: None,
        master: None,
        hairpin: None,
        alias: None,
    };
    for (kind, value) in attributes(payload.get(LINK_BYTES..)?) {
        match kind {
            LINK_NAME => link.name = string(value),
            LINK_MTU => link.mtu = number(value, 0)?,
            LINK_MAC => link.mac = value.try_into().ok().map(Mac),
            LINK_MASTER => link.master = number(value, 0),
            LINK_ALIAS => link.alias = Some(string(value)),
            LINK_INFO => {
                link.kind = find(value, INFO_KIND).map(string).unwrap_or_default();
                let port = find(value, INFO_PORT_DATA).and_then(|port| find(port, PORT_HAIRPIN));
                link.hairpin = port.and_then(|value| value.first()).map(|mode| *mode != 0);
            }
            _ => {}
        }
    }
    Some(link)
}

fn family(address: IpAddr) -> u8 {
    if address.is_ipv6() { FAMILY_V6 } else { FAMILY_V4 }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

fn read_address_value(value: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(value).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(value).map(IpAddr::from)).ok()
}

pub(super) fn get_addresses() -> Message {
    Message::new(GET_ADDRESS, 0).raw(&[0; ADDRESS_BYTES])
}

fn address_message(kind: u16, extra: u16, index: u32, cidr: Cidr) -> Message {
    let mut header = [0; ADDRESS_BYTES];
    header[0] = family(cidr.address());
    header[1] = cidr.bits();
    header[4..].copy_from_slice(&index.to_ne_bytes());
    let mut message = Message::new(kind, extra).raw(&header);
    message.attribute(ADDRESS_LOCAL, &octets(cidr.address()));
    message.attribute(ADDRESS_ADDRESS, &octets(cidr.address()));
    message
}

pub(super) fn add_address(index: u32, cidr: Cidr) -> Message {
    let mut message = address_message(NEW_ADDRESS, flags::CREATE | flags::EXCLUSIVE, index, cidr);
    if cidr.is_ipv6() {
        message.u32(ADDRESS_FLAGS, ADDRESS_WITHOUT_PROBE);
    } else if cidr.bits() < 31 {
        message.attribute(ADDRESS_BROADCAST, &octets(cidr.last()));
    }
    message
}

pub(super) fn delete_address(index: u32, cidr: Cidr) -> Message {
    address_message(DELETE_ADDRESS, 0, index, cidr)
}

pub(super) fn read_address(kind: u16, payload: &[u8]) -> Option<Address> {
    if kind != NEW_ADDRESS {
        return None;
    }
    let (bits, index) = (*payload.get(1)?, number(payload, 4)?);
    let rest = payload.get(ADDRESS_BYTES..)?;
    let value = find(rest, ADDRESS_LOCAL).or_else(|| find(rest, ADDRESS_ADDRESS))?;
    Some(Address { index, cidr: Cidr::new(read_address_value(value)?, bits)? })
}

pub(super) fn get_routes(is_ipv6: bool) -> Message {
    let mut header = [0; ROUTE_BYTES];
    header[0] = if is_ipv6 { FAMILY_V6 } else { FAMILY_V4 };
    Message::new(GET_ROUTE, 0).raw(&header)
}

pub(super) fn put_route(route: &RouteSpec, index: u32) -> Message {
    let mut header = [0; ROUTE_BYTES];
    header[0] = family(route.destination.address());
    header[1] = route.destination.bits();
    header[5] = ROUTE_STATIC;
    header[6] = if route.gateway.is_none() && !route.destination.is_ipv6() { SCOPE_LINK } else { SCOPE_UNIVERSE };
    header[7] = ROUTE_UNICAST;
    let mut message = Message::new(NEW_ROUTE, flags::CREATE | flags::REPLACE).raw(&header);
    message.attribute(ROUTE_DESTINATION, &octets(route.destination.first()));
    message.u32(ROUTE_TABLE, route.table);
    message.u32(ROUTE_LINK, index);
    if let Some(gateway) = route.gateway {
        message.attribute(ROUTE_GATEWAY, &octets(gateway));
    }
    if let Some(metric) = route.metric {
        message.u32(ROUTE_METRIC, metric);
    }
    if let Some(mtu) = route.mtu {
        message.nest(ROUTE_METRICS, |metrics| metrics.u32(METRICS_MTU, mtu));
    }
    message
}

pub(super) fn read_route(kind: u16, payload: &[u8]) -> Option<RouteEntry> {
    let (family, bits, route_kind) = (*payload.first()?, *payload.get(1)?, *payload.get(7)?);
    if kind != NEW_ROUTE || route_kind != ROUTE_UNICAST {
        return None;
    }
    let everything = Cidr::everything(family == FAMILY_V6);
    let mut route = RouteEntry {
        destination: Cidr::new(everything.address(), bits)?,
        gateway: None,
        index: None,
        metric: 0,
        table: u32::from(*payload.get(4)?),
        mtu: None,
    };
    for (kind, value) in attributes(payload.get(ROUTE_BYTES..)?) {
        match kind {
            ROUTE_DESTINATION => route.destination = Cidr::new(read_address_value(value)?, bits)?,
            ROUTE_GATEWAY => route.gateway = read_address_value(value),
            ROUTE_LINK => route.index = number(value, 0),
            ROUTE_METRIC => route.metric = number(value, 0)?,
            ROUTE_TABLE => route.table = number(value, 0)?,
            ROUTE_METRICS => route.mtu = find(value, METRICS_MTU).and_then(|mtu| number(mtu, 0)),
            _ => {}
        }
    }
    Some(route)
}
