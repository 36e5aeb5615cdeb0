//! Connections that the kernel remembers.

use std::net::IpAddr;

use rustix::net::netlink;

use crate::error::NetlinkError;
use crate::socket::Socket;
use crate::wire::{Message, find};

/// The number of connection tracking among the parts of netfilter, in the upper byte of a message's kind.
const SUBSYSTEM: u16 = 1;
const GET: u16 = 1;
const DELETE: u16 = 2;
/// Bytes of `struct nfgenmsg`.
const HEADER_BYTES: usize = 4;

const TUPLE_ORIGINAL: u16 = 1;
const TUPLE_REPLY: u16 = 2;
const ZONE: u16 = 18;
const TUPLE_IP: u16 = 1;
const TUPLE_PROTOCOL: u16 = 2;
const IP_V4_SOURCE: u16 = 1;
const IP_V4_DESTINATION: u16 = 2;
const IP_V6_SOURCE: u16 = 3;
const IP_V6_DESTINATION: u16 = 4;
const PROTOCOL_NUMBER: u16 = 1;
const PROTOCOL_DESTINATION_PORT: u16 = 3;

/// One connection, as seen from who opened it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flow {
    /// The protocol above IP: 6 is TCP, 17 UDP.
    pub protocol: u8,
    /// Where its first packet was sent to.
    pub destination: IpAddr,
    /// The port there; 0 for protocols without.
    pub destination_port: u16,
    /// Who answers: another address when the destination was translated.
    pub answers_from: IpAddr,
}

/// Forgets the connections that `is_stale` picks; says how many of IPv4, and of IPv6. Packets that go on meet the rules as
/// new ones.
///
/// # Errors
/// The kernel refused: it tracks no connections, or the privilege is missing.
pub fn forget(is_stale: impl Fn(&Flow) -> bool) -> Result<[usize; 2], NetlinkError> {
    let mut socket = Socket::open(Some(netlink::NETFILTER))?;
    let mut forgotten = [0; 2];
    for (family, forgotten) in [2, 10].into_iter().zip(&mut forgotten) {
        let question = Message::new(SUBSYSTEM << 8 | GET, 0).raw(&[family, 0, 0, 0]);
        let stale = socket.dump("list connections", &question, |_, payload| {
            let rest = payload.get(HEADER_BYTES..)?;
            let flow = read(rest)?;
            let original = find(rest, TUPLE_ORIGINAL)?;
            is_stale(&flow).then(|| (original.to_vec(), find(rest, ZONE).map(<[u8]>::to_vec)))
        })?;
        for (original, zone) in stale {
            let mut message = Message::new(SUBSYSTEM << 8 | DELETE, 0).raw(&[family, 0, 0, 0]);
            message.nest(TUPLE_ORIGINAL, |tuple| tuple.fixed(&original));
            if let Some(zone) = zone {
                message.attribute(ZONE, &zone);
            }
            match socket.request("forget a connection", message) {
                Ok(_) => *forgotten += 1,
                Err(error) if error.is_gone() => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(forgotten)
}

fn read(rest: &[u8]) -> Option<Flow> {
    let original = find(rest, TUPLE_ORIGINAL)?;
    let protocol = find(original, TUPLE_PROTOCOL)?;
    let port = find(protocol, PROTOCOL_DESTINATION_PORT).and_then(|port| port.try_into().ok());
    Some(Flow {
        protocol: *find(protocol, PROTOCOL_NUMBER)?.first()?,
        destination: address(find(original, TUPLE_IP)?, IP_V4_DESTINATION, IP_V6_DESTINATION)?,
        destination_port: port.map_or(0, u16::from_be_bytes),
        answers_from: address(find(find(rest, TUPLE_REPLY)?, TUPLE_IP)?, IP_V4_SOURCE, IP_V6_SOURCE)?,
    })
}

fn address(tuple: &[u8], v4: u16, v6: u16) -> Option<IpAddr> {
    let v4 = find(tuple, v4).and_then(|value| <[u8; 4]>::try_from(value).ok()).map(IpAddr::from);
    v4.or_else(|| find(tuple, v6).and_then(|value| <[u8; 16]>::try_from(value).ok()).map(IpAddr::from))
}
