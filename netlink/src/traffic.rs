//! Limits on what a link sends, and on what it receives by way of an ifb device.

use rustix::io::Errno;

use crate::error::NetlinkError;
use crate::route::Route;
use crate::wire::{Message, find, flags, number, string};

const NEW_QDISC: u16 = 36;
const DELETE_QDISC: u16 = 37;
const GET_QDISC: u16 = 38;
const NEW_FILTER: u16 = 44;
const GET_FILTER: u16 = 46;

/// Bytes of `struct tcmsg`.
const HEADER_BYTES: usize = 20;
const KIND: u16 = 1;
const OPTIONS: u16 = 2;
const ROOT: u32 = u32::MAX;
const INGRESS: u32 = 0xffff_fff1;
const INGRESS_HANDLE: u32 = 0xffff_0000;
const TBF_HANDLE: u32 = 1 << 16;

const TBF_PARAMETERS: u16 = 1;
const TBF_RATE: u16 = 4;
const TBF_BURST: u16 = 6;
const LINK_LAYER_ETHERNET: u8 = 1;

const U32_CLASS: u16 = 1;
const U32_SELECTOR: u16 = 5;
const U32_ACTIONS: u16 = 7;
/// The match's verdict is final.
const U32_TERMINAL: u8 = 1;
const MIRRED_PARAMETERS: u16 = 2;
const MIRRED_REDIRECT_EGRESS: u32 = 1;
const ACTION_STOLEN: u32 = 4;
/// Every protocol, in the network's byte order.
const PROTOCOL_ALL: u16 = 3;
const FILTER_PRIORITY: u32 = 1;

/// How long a packet may wait in the queue before it is dropped.
const QUEUE_MS: u64 = 25;

/// A limit by token bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// Bytes in each second, in the long run.
    pub bytes_per_second: u64,
    /// Bytes that may go at once.
    pub burst_bytes: u32,
}

fn header(index: u32, handle: u32, parent: u32, info: u32) -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[8..12].copy_from_slice(&handle.to_ne_bytes());
    header[12..16].copy_from_slice(&parent.to_ne_bytes());
    header[16..].copy_from_slice(&info.to_ne_bytes());
    header
}

/// Limits what a link sends, instead of the limit before.
///
/// # Errors
/// The kernel refused: ENOENT says that it lacks the token bucket filter.
pub fn limit(route: &mut Route, link: &str, index: u32, limit: Limit) -> Result<(), NetlinkError> {
    let extra = flags::CREATE | flags::REPLACE;
    let mut message = Message::new(NEW_QDISC, extra).raw(&header(index, TBF_HANDLE, ROOT, 0));
    message.text(KIND, "tbf");
    message.nest(OPTIONS, |options| {
        options.attribute(TBF_PARAMETERS, &parameters(limit));
        options.attribute(TBF_RATE, &limit.bytes_per_second.to_ne_bytes());
        options.u32(TBF_BURST, limit.burst_bytes);
    });
    route.socket().request(&format!("limit what {link} sends (needs the kernel's tbf)"), message).map(drop)
}

/// `struct tc_tbf_qopt`. The rate is told here too, for those who list it; it ends at 4 GB/s.
fn parameters(limit: Limit) -> [u8; 36] {
    let mut bytes = [0; 36];
    bytes[1] = LINK_LAYER_ETHERNET;
    let rate = u32::try_from(limit.bytes_per_second).unwrap_or(u32::MAX);
    bytes[8..12].copy_from_slice(&rate.to_ne_bytes());
    let queue = limit.bytes_per_second * QUEUE_MS / 1000 + u64::from(limit.burst_bytes);
    bytes[24..28].copy_from_slice(&u32::try_from(queue).unwrap_or(u32::MAX).to_ne_bytes());
    bytes[28..32].copy_from_slice(&u32::MAX.to_ne_bytes());
    bytes
}

/// Whether a link has a token bucket, and of what rate in bytes per second.
///
/// # Errors
/// The kernel refused.
pub fn limit_of(route: &mut Route, index: u32) -> Result<Option<u64>, NetlinkError> {
    let question = Message::new(GET_QDISC, 0).raw(&header(index, 0, 0, 0));
    let found = route.socket().dump("list queues", &question, |_, payload| {
        let rest = payload.get(HEADER_BYTES..)?;
        let ours = number(payload, 4)? == index && find(rest, KIND).map(string).as_deref() == Some("tbf");
        let options = find(rest, OPTIONS).filter(|_| ours)?;
        let long = find(options, TBF_RATE).and_then(|rate| rate.try_into().ok()).map(u64::from_ne_bytes);
        long.or_else(|| find(options, TBF_PARAMETERS).and_then(|all| number(all, 8)).map(u64::from))
    })?;
    Ok(found.first().copied())
}

/// Sends all that `link` receives out by `to_index` instead, which is how received traffic is limited. Repeating it
/// changes nothing.
///
/// # Errors
/// The kernel refused: ENOENT says that it lacks the ingress queue, the u32 classifier or the mirred action.
pub fn redirect_received(route: &mut Route, link: &str, index: u32, to_index: u32) -> Result<(), NetlinkError> {
    let mut queue = Message::new(NEW_QDISC, flags::CREATE | flags::EXCLUSIVE);
    queue = queue.raw(&header(index, INGRESS_HANDLE, INGRESS, 0));
    queue.text(KIND, "ingress");
    match route.socket().request(&format!("watch what {link} receives (needs the kernel's ingress queue)"), queue) {
        Ok(_) => {}
        Err(error) if error.is_exists() => {}
        Err(error) => return Err(error),
    }
    let question = Message::new(GET_FILTER, 0).raw(&header(index, 0, INGRESS_HANDLE, 0));
    let there = route.socket().dump("list filters", &question, |_, payload| {
        find(payload.get(HEADER_BYTES..)?, OPTIONS).filter(|options| find(options, U32_ACTIONS).is_some()).map(drop)
    })?;
    if !there.is_empty() {
        return Ok(());
    }
    let info = FILTER_PRIORITY << 16 | u32::from(PROTOCOL_ALL.to_be());
    let mut filter = Message::new(NEW_FILTER, flags::CREATE | flags::EXCLUSIVE);
    filter = filter.raw(&header(index, 0, INGRESS_HANDLE, info));
    filter.text(KIND, "u32");
    filter.nest(OPTIONS, |options| {
        options.u32(U32_CLASS, TBF_HANDLE | 1);
        options.attribute(U32_SELECTOR, &match_everything());
        options.nest(U32_ACTIONS, |actions| {
            actions.nest(1, |action| {
                action.text(1, "mirred");
                action.nest(2, |parameters| parameters.attribute(MIRRED_PARAMETERS, &redirect_to(to_index)));
            });
        });
    });
    let what = format!("redirect what {link} receives (needs the kernel's u32 and mirred)");
    route.socket().request(&what, filter).map(drop)
}

/// `struct tc_u32_sel` with one key that any packet matches.
fn match_everything() -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes[0] = U32_TERMINAL;
    bytes[2] = 1;
    bytes
}

/// `struct tc_mirred`.
fn redirect_to(index: u32) -> [u8; 28] {
    let mut bytes = [0; 28];
    bytes[8..12].copy_from_slice(&ACTION_STOLEN.to_ne_bytes());
    bytes[20..24].copy_from_slice(&MIRRED_REDIRECT_EGRESS.to_ne_bytes());
    bytes[24..].copy_from_slice(&index.to_ne_bytes());
    bytes
}

/// Takes the limit from what a link sends, if there is one.
///
/// # Errors
/// The kernel refused for another reason than that there is none.
pub fn unlimit(route: &mut Route, index: u32) -> Result<(), NetlinkError> {
    let message = Message::new(DELETE_QDISC, 0).raw(&header(index, TBF_HANDLE, ROOT, 0));
    match route.socket().request("take a limit away", message) {
        Ok(_) => Ok(()),
        // What is there is not ours: it has another handle.
        Err(error) if error.is_gone() || error.errno() == Some(Errno::INVAL) => Ok(()),
        Err(error) => Err(error),
    }
}
