//! Ports for servers that tests start.

use std::net::{Ipv6Addr, TcpListener};
use std::sync::atomic::{AtomicU32, Ordering};

/// Ports below those that the kernel gives to connections going out (32768 and up), so that none of these takes it between
/// the choice and the start of the server.
const FIRST: u32 = 10_000;
const COUNT: u32 = 20_000;

/// How many were handed out by this process.
static HANDED_OUT: AtomicU32 = AtomicU32::new(0);

/// A port that nobody listens on. No two calls of a process get the same, and those of different processes begin at
/// different places.
pub(crate) fn free_port() -> u16 {
    loop {
        let number = HANDED_OUT.fetch_add(1, Ordering::Relaxed);
        assert!(number < COUNT, "all ports are taken");
        let port = FIRST + (std::process::id().wrapping_mul(97).wrapping_add(number)) % COUNT;
        let port = u16::try_from(port).expect("below 30,000");
        if TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).is_ok() {
            return port;
        }
    }
}
