//! Noticing that somebody changed the addresses of links.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use rustix::io::Errno;
use rustix::net::RecvFlags;

use crate::error::NetlinkError;
use crate::socket::Socket;

/// The groups in which changes of IPv4 and IPv6 addresses are told, a bit for each.
const GROUPS: u32 = 1 << 4 | 1 << 8;
const DATAGRAM_BYTES: usize = 64 * 1024;

/// Hears of every address that comes or goes in the namespace in which it was opened. It never blocks: wait until the file
/// descriptor is readable.
#[derive(Debug)]
pub struct AddressNews {
    fd: OwnedFd,
}

impl AddressNews {
    /// Starts to listen, in the calling thread's namespace.
    ///
    /// # Errors
    /// The kernel has no netlink, or no file descriptor is left.
    pub fn open() -> Result<Self, NetlinkError> {
        Ok(Self { fd: Socket::subscribe(None, GROUPS)?.into_fd() })
    }

    /// Reads all that is there. Whether there was anything, or something was lost: what it was can only be found out by
    /// looking.
    ///
    /// # Errors
    /// The socket is broken.
    pub fn drain(&self) -> Result<bool, NetlinkError> {
        let mut heard = false;
        let mut buffer = vec![0; DATAGRAM_BYTES];
        loop {
            match rustix::net::recv(&self.fd, &mut buffer[..], RecvFlags::TRUNC) {
                Ok(_) | Err(Errno::NOBUFS) => heard = true,
                Err(Errno::AGAIN) => return Ok(heard),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(NetlinkError::Socket { what: "hear of addresses", errno }),
            }
        }
    }
}

impl AsFd for AddressNews {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl AsRawFd for AddressNews {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}
