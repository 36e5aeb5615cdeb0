//! Noticing that somebody changed a table of ours.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use rustix::io::Errno;
use rustix::net::{RecvFlags, netlink};

use super::codec;
use super::model::Family;
use crate::error::NetlinkError;
use crate::socket::Socket;
use crate::wire::{Received, messages};

/// The group in which nftables tells its changes, as a bit.
const GROUP: u32 = 1 << 6;
/// Kinds of news that are about what we mend; elements come and go all the time.
const STRUCTURAL: [u16; 9] = [0, 2, 3, 5, 6, 8, 9, 11, 14];
/// All kinds of news about a table and what is in it.
const ANY: [u16; 10] = [0, 2, 3, 5, 6, 8, 9, 11, 12, 14];
const DATAGRAM_BYTES: usize = 64 * 1024;

/// Hears of every change to the tables of the namespace in which it was opened. It never blocks: wait until the file
/// descriptor is readable.
#[derive(Debug)]
pub struct News {
    fd: OwnedFd,
}

impl News {
    /// Starts to listen, in the calling thread's namespace.
    ///
    /// # Errors
    /// The kernel has no netfilter, or the privilege is missing.
    pub fn open() -> Result<Self, NetlinkError> {
        Ok(Self { fd: Socket::subscribe(Some(netlink::NETFILTER), GROUP)?.into_fd() })
    }

    /// Reads all that is there. Whether any of it was about this table, or was lost; new elements don't count.
    ///
    /// # Errors
    /// The socket is broken.
    pub fn drain(&self, family: Family, table: &str) -> Result<bool, NetlinkError> {
        self.hear(|news| is_about(news, &STRUCTURAL, family, table))
    }

    /// As [`News::drain`], of the table of this name in each family, new elements included; but not what was changed by
    /// way of `own`, the port of a [`Netfilter`](super::Netfilter).
    ///
    /// # Errors
    /// The socket is broken.
    pub fn drain_foreign(&self, families: &[Family], table: &str, own: u32) -> Result<bool, NetlinkError> {
        self.hear(|news| news.port != own && families.iter().any(|family| is_about(news, &ANY, *family, table)))
    }

    fn hear(&self, concerns: impl Fn(&Received<'_>) -> bool) -> Result<bool, NetlinkError> {
        let mut concerned = false;
        let mut buffer = vec![0; DATAGRAM_BYTES];
        loop {
            match rustix::net::recv(&self.fd, &mut buffer[..], RecvFlags::TRUNC) {
                Ok((_, length)) => match buffer.get(..length) {
                    Some(datagram) => concerned = concerned || messages(datagram).any(|news| concerns(&news)),
                    None => concerned = true,
                },
                Err(Errno::AGAIN) => return Ok(concerned),
                Err(Errno::INTR) => {}
                // More came than there was room for; what it was can only be found out by looking.
                Err(Errno::NOBUFS) => concerned = true,
                Err(errno) => return Err(NetlinkError::Socket { what: "hear of changes", errno }),
            }
        }
    }
}

fn is_about(news: &Received<'_>, kinds: &[u16], family: Family, table: &str) -> bool {
    let counts = codec::kind(news.kind).is_some_and(|kind| kinds.contains(&kind));
    counts && codec::table_of(news.payload).is_some_and(|(of, name)| of == family && name == table)
}

impl AsFd for News {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl AsRawFd for News {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}
