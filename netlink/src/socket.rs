//! One conversation with the kernel.

use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::sockopt::{self, Timeout};
use rustix::net::{AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType};

use crate::error::NetlinkError;
use crate::wire::{DONE, ERROR, Message, Received, flags, messages, number};

/// Room for the longest datagram of a dump, which the kernel keeps below 32 KiB, twice.
const DATAGRAM_BYTES: usize = 64 * 1024;
/// The kernel answers before a request returns; who waits longer than this waits for nothing.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);
/// Bytes that may wait for us: the acknowledgements of a large batch, or a burst of news.
const RECEIVE_BUFFER_BYTES: usize = 4 * 1024 * 1024;
/// A message in an answer says that what was listed changed meanwhile.
const DUMP_INTERRUPTED: u16 = 0x10;
/// Listings that are begun again when what they list changes meanwhile.
const DUMPS_MAX: u32 = 16;

/// A socket of one netlink family, in the namespace of the thread that opened it.
#[derive(Debug)]
pub(crate) struct Socket {
    fd: OwnedFd,
    sequence: u32,
    buffer: Vec<u8>,
}

/// One message of an answer, on its own.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) kind: u16,
    pub(crate) payload: Vec<u8>,
}

impl Socket {
    /// `None` is the family of links, addresses and routes, whose number is zero.
    pub(crate) fn open(protocol: Option<Protocol>) -> Result<Self, NetlinkError> {
        Self::listening(protocol, 0, SocketFlags::CLOEXEC)
    }

    /// One that also hears the news of these groups, a bit for each; it does not block.
    pub(crate) fn subscribe(protocol: Option<Protocol>, groups: u32) -> Result<Self, NetlinkError> {
        Self::listening(protocol, groups, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)
    }

    fn listening(protocol: Option<Protocol>, groups: u32, flags: SocketFlags) -> Result<Self, NetlinkError> {
        let failed = |what| move |errno| NetlinkError::Socket { what, errno };
        let fd = rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, protocol);
        let fd = fd.map_err(failed("open"))?;
        rustix::net::bind(&fd, &SocketAddrNetlink::new(0, groups)).map_err(failed("bind"))?;
        sockopt::set_socket_timeout(&fd, Timeout::Recv, Some(ANSWER_LIMIT)).map_err(failed("set the time limit"))?;
        // Without the privilege it stays as it is; the usual requests need no more.
        sockopt::set_socket_recv_buffer_size_force(&fd, RECEIVE_BUFFER_BYTES).ok();
        Ok(Self { fd, sequence: 0, buffer: vec![0; DATAGRAM_BYTES] })
    }

    /// The number by which the kernel knows it.
    pub(crate) fn port(&self) -> Result<u32, NetlinkError> {
        let failed = |errno| NetlinkError::Socket { what: "ask for its port", errno };
        let address = rustix::net::getsockname(&self.fd).map_err(failed)?;
        SocketAddrNetlink::try_from(address).map(|address| address.pid()).map_err(failed)
    }

    pub(crate) fn into_fd(self) -> OwnedFd {
        self.fd
    }

    fn next_sequence(&mut self) -> u32 {
        self.sequence = self.sequence.wrapping_add(1).max(1);
        self.sequence
    }

    fn send(&self, bytes: &[u8]) -> Result<(), NetlinkError> {
        // A message longer than the socket's buffer is refused, not split; the force needs the privilege that all of
        // this needs anyway.
        if bytes.len() > DATAGRAM_BYTES {
            sockopt::set_socket_send_buffer_size_force(&self.fd, bytes.len() * 2).ok();
        }
        let failed = |errno| NetlinkError::Socket { what: "send", errno };
        let kernel = SocketAddrNetlink::new(0, 0);
        rustix::net::sendto(&self.fd, bytes, SendFlags::empty(), &kernel).map_err(failed).map(drop)
    }

    /// Hands each message of the next datagram to `each`.
    fn receive(&mut self, mut each: impl FnMut(Received<'_>) -> Result<(), NetlinkError>) -> Result<(), NetlinkError> {
        let failed = |errno| NetlinkError::Socket { what: "receive", errno };
        let length = loop {
            match rustix::net::recv(&self.fd, &mut self.buffer[..], RecvFlags::TRUNC) {
                Ok((_, length)) => break length,
                Err(Errno::INTR) => {}
                Err(errno) => return Err(failed(errno)),
            }
        };
        let datagram = self.buffer.get(..length).ok_or(NetlinkError::Malformed("a datagram is too long"))?;
        messages(datagram).try_for_each(&mut each)
    }

    /// Sends one request and returns what came before its acknowledgement.
    pub(crate) fn request(&mut self, what: &str, mut message: Message) -> Result<Vec<Answer>, NetlinkError> {
        message.add_flags(flags::REQUEST | flags::ACK);
        let sequence = self.next_sequence();
        self.send(&message.finish(sequence)?)?;
        let (mut answers, mut over) = (Vec::new(), false);
        while !over {
            self.receive(|received| {
                if received.sequence != sequence || over {
                    return Ok(());
                }
                match received.kind {
                    ERROR => {
                        over = true;
                        return refusal(received, what).map_or(Ok(()), Err);
                    }
                    kind => answers.push(Answer { kind, payload: received.payload.to_vec() }),
                }
                Ok(())
            })?;
        }
        Ok(answers)
    }

    /// Lists: hands every message of the listing to `read`, which keeps what it wants. A listing during which things
    /// changed is begun again.
    pub(crate) fn dump<T>(
        &mut self,
        what: &str,
        message: &Message,
        mut read: impl FnMut(u16, &[u8]) -> Option<T>,
    ) -> Result<Vec<T>, NetlinkError> {
        for _ in 0..DUMPS_MAX {
            if let Some(found) = self.dump_once(what, message.clone(), &mut read)? {
                return Ok(found);
            }
        }
        Err(NetlinkError::Unsettled(what.to_owned()))
    }

    fn dump_once<T>(
        &mut self,
        what: &str,
        mut message: Message,
        read: &mut impl FnMut(u16, &[u8]) -> Option<T>,
    ) -> Result<Option<Vec<T>>, NetlinkError> {
        message.add_flags(flags::REQUEST | flags::DUMP);
        let sequence = self.next_sequence();
        self.send(&message.finish(sequence)?)?;
        let (mut found, mut over, mut interrupted) = (Vec::new(), false, false);
        while !over {
            self.receive(|received| {
                if received.sequence != sequence || over {
                    return Ok(());
                }
                interrupted |= received.flags & DUMP_INTERRUPTED != 0;
                match received.kind {
                    DONE | ERROR => {
                        over = true;
                        return match refusal(received, what) {
                            Some(error) if error.errno() == Some(Errno::INTR) => {
                                interrupted = true;
                                Ok(())
                            }
                            Some(error) => Err(error),
                            None => Ok(()),
                        };
                    }
                    kind => found.extend(read(kind, received.payload)),
                }
                Ok(())
            })?;
        }
        Ok((!interrupted).then_some(found))
    }

    /// Sends messages as one datagram, and waits for the last one's acknowledgement. The first refusal of any of them is
    /// the answer; `describe` names a message by its place.
    pub(crate) fn batch(
        &mut self,
        mut batch: Vec<Message>,
        last_acknowledged: usize,
        describe: impl Fn(usize) -> String,
    ) -> Result<(), NetlinkError> {
        if let Some(last) = batch.get_mut(last_acknowledged) {
            last.add_flags(flags::ACK);
        }
        let mut bytes = Vec::with_capacity(batch.iter().map(Message::len).sum());
        let first = self.sequence.wrapping_add(1).max(1);
        let mut acknowledged = first;
        for (place, message) in batch.into_iter().enumerate() {
            let sequence = self.next_sequence();
            if place == last_acknowledged {
                acknowledged = sequence;
            }
            bytes.extend_from_slice(&message.finish(sequence)?);
        }
        let end = self.sequence;
        self.send(&bytes)?;
        let (mut refused, mut over) = (None, false);
        while !over {
            self.receive(|received| {
                let ours = (first..=end).contains(&received.sequence);
                if received.kind != ERROR || !ours {
                    return Ok(());
                }
                let place = (received.sequence - first) as usize;
                if let Some(error) = refusal(received, &describe(place)) {
                    refused.get_or_insert(error);
                }
                // A refused beginning refuses all, and nothing else is answered.
                over |= received.sequence == acknowledged || received.sequence == first;
                Ok(())
            })?;
        }
        refused.map_or(Ok(()), Err)
    }
}

/// The error in a message that ends an answer, if it is not a plain acknowledgement.
fn refusal(received: Received<'_>, what: &str) -> Option<NetlinkError> {
    let code = number(received.payload, 0)?.cast_signed();
    (code != 0).then(|| NetlinkError::Refused {
        what: what.to_owned(),
        errno: Errno::from_raw_os_error(code.checked_neg().unwrap_or(i32::MAX)),
    })
}
