//! The bus's socket, as zbus reads it, but for one thing: descriptors that come are closed in programs that are started.
//! zbus leaves them open there for a moment, and whoever has a copy of the inhibitor holds the machine up.

use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use tokio::io::{AsyncWriteExt as _, Interest};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use zbus::connection::socket::{ReadHalf, Socket, Split, WriteHalf};
use zbus::export::async_trait::async_trait;

/// Descriptors that may come at once; a message of logind has one.
const DESCRIPTORS_MAX: usize = 8;

/// A connected socket.
#[derive(Debug)]
pub(super) struct BusSocket(pub(super) UnixStream);

#[derive(Debug)]
pub(super) struct Reads(OwnedReadHalf);

#[derive(Debug)]
pub(super) struct Writes(OwnedWriteHalf);

impl Socket for BusSocket {
    type ReadHalf = Reads;
    type WriteHalf = Writes;

    fn split(self) -> Split<Reads, Writes> {
        let (reads, writes) = self.0.into_split();
        Split::new(Reads(reads), Writes(writes))
    }
}

#[async_trait]
impl ReadHalf for Reads {
    async fn recvmsg(&mut self, into: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
        let stream: &UnixStream = self.0.as_ref();
        let receive = || {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let into = &mut [IoSliceMut::new(&mut *into)];
            let count = recvmsg(stream.as_fd(), into, &mut control, RecvFlags::CMSG_CLOEXEC)?.bytes;
            let mut descriptors = Vec::new();
            for message in control.drain() {
                if let RecvAncillaryMessage::ScmRights(came) = message {
                    descriptors.extend(came);
                }
            }
            Ok((count, descriptors))
        };
        stream.async_io(Interest::READABLE, receive).await
    }

    fn can_pass_unix_fd(&self) -> bool {
        true
    }
}

#[async_trait]
impl WriteHalf for Writes {
    /// Nothing that is asked here has descriptors.
    async fn sendmsg(&mut self, bytes: &[u8], _: &[BorrowedFd<'_>]) -> io::Result<usize> {
        self.0.write(bytes).await
    }

    async fn close(&mut self) -> io::Result<()> {
        self.0.shutdown().await
    }
}

#[cfg(test)]
mod tests {
    use rustix::io::{FdFlags, fcntl_getfd};
    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

    use super::*;

    #[tokio::test]
    async fn no_program_inherits_what_comes() {
        let (here, there) = UnixStream::pair().unwrap();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let sent = [there.as_fd()];
        assert!(control.push(SendAncillaryMessage::ScmRights(&sent)));
        sendmsg(&there, &[io::IoSlice::new(b"it")], &mut control, SendFlags::empty()).unwrap();
        let (mut reads, _) = BusSocket(here).split().take();
        let (count, came) = reads.recvmsg(&mut [0; 16]).await.unwrap();
        assert_eq!((count, came.len()), (2, 1));
        assert!(fcntl_getfd(&came[0]).unwrap().contains(FdFlags::CLOEXEC));
    }
}
