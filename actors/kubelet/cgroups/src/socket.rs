//! systemd's own socket, as zbus reads it, but for one thing: its messages say there that they are from
//! `org.freedesktop.systemd1`, and zbus takes none whose sender isn't a connection's name, which begins with a colon.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use zbus::connection::socket::{ReadHalf, Socket, Split, WriteHalf};
use zbus::export::async_trait::async_trait;

/// What is before the name in a header: the sender's field, which holds a text, of 24 letters.
#[cfg(target_endian = "little")]
const BEFORE: [u8; 8] = [7, 1, b's', 0, 24, 0, 0, 0];
#[cfg(target_endian = "big")]
const BEFORE: [u8; 8] = [7, 1, b's', 0, 0, 0, 0, 24];

/// A connected socket.
#[derive(Debug)]
pub(crate) struct PrivateSocket(pub(crate) UnixStream);

#[derive(Debug)]
pub(crate) struct Reads {
    half: OwnedReadHalf,
    /// How much of [`BEFORE`] was read last.
    seen: usize,
}

#[derive(Debug)]
pub(crate) struct Writes(OwnedWriteHalf);

impl Socket for PrivateSocket {
    type ReadHalf = Reads;
    type WriteHalf = Writes;

    fn split(self) -> Split<Reads, Writes> {
        let (reads, writes) = self.0.into_split();
        Split::new(Reads { half: reads, seen: 0 }, Writes(writes))
    }
}

#[async_trait]
impl ReadHalf for Reads {
    async fn recvmsg(&mut self, into: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
        let count = self.half.read(into).await?;
        for byte in into.iter_mut().take(count) {
            self.seen = match BEFORE.get(self.seen) {
                Some(next) if next == byte => self.seen + 1,
                None if *byte == b'o' => {
                    *byte = b':';
                    0
                }
                _ => usize::from(*byte == BEFORE[0]),
            };
        }
        Ok((count, Vec::new()))
    }
}

#[async_trait]
impl WriteHalf for Writes {
    async fn sendmsg(&mut self, bytes: &[u8], _: &[BorrowedFd<'_>]) -> io::Result<usize> {
        self.0.write(bytes).await
    }

    async fn close(&mut self) -> io::Result<()> {
        self.0.shutdown().await
    }
}
