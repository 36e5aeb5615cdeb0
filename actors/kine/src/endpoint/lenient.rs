//! Makes old clients of unix sockets welcome.
//!
//! A gRPC client of 2020, which Debian's `etcdctl` is, sends the path of the socket as the authority of its requests.
//! HTTP/2 forbids slashes there, and hyper resets such requests. So the bytes of a connection pass by here, and slashes
//! in the authority become hyphens: that changes no length anywhere, not even in compressed form, because both have six
//! bits in the code that HTTP/2 prescribes. Nothing else is touched. Once the first request has turned out to be proper,
//! nothing is looked at any more, since a client does not change its ways.
//!
//! ```text
//!   Other (the preface) ──▶ Header ──of a request──▶ Request ──proper──▶ Proper
//!                            ▲  └──of anything else──▶ Other ─┐  └─mended─┐
//!                            └────────────────────────────────┴───────────┘
//! ```

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What every connection begins with.
const PREFACE_BYTES: usize = 24;
const HEADER_BYTES: usize = 9;
/// The most that we let a peer put into one frame. It is HTTP/2's, and hyper's, unless somebody says more, and then a
/// frame for which that matters is left as it is.
const FRAME_BYTES_MAX: usize = 16 << 10;
const READ_BYTES: usize = 16 << 10;

/// Types and flags of frames.
const HEADERS: u8 = 1;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;
const PRIORITY_BYTES: usize = 5;
/// The place of `:authority` in the table of names that both sides know.
const AUTHORITY: usize = 1;

/// The codes of a slash and of a hyphen, which have this many bits.
const SLASH: u32 = 0b01_1000;
const HYPHEN: u32 = 0b01_0110;
const SLASH_BITS: u32 = 6;
/// How many bits codes have, and the greatest code of so many. Longer ones are for what no path is made of.
const CODES: [(u32, u32); 10] = [
    (5, 0x9),
    (6, 0x2d),
    (7, 0x7b),
    (8, 0xfd),
    (10, 0x3fc),
    (11, 0x7fc),
    (12, 0xffb),
    (13, 0x1ffd),
    (14, 0x3ffd),
    (15, 0x7ffe),
];

#[derive(Debug, PartialEq, Eq)]
enum State {
    Header,
    /// The rest of a frame that begins a request.
    Request {
        length: usize,
        flags: u8,
    },
    /// So much is left that concerns nobody here.
    Other {
        left: usize,
    },
    /// Nothing is looked at any more.
    Proper,
}

/// A connection that may be an old client's. What it sends back passes through.
pub(crate) struct Lenient<S> {
    inner: S,
    state: State,
    /// Where bytes are read to; nothing once nobody looks at them.
    chunk: Vec<u8>,
    /// What was read and not looked at.
    raw: BytesMut,
    /// What may be handed on.
    clean: BytesMut,
}

impl<S> Lenient<S> {
    pub(crate) fn new(inner: S) -> Self {
        let (raw, clean) = (BytesMut::new(), BytesMut::new());
        Self { inner, state: State::Other { left: PREFACE_BYTES }, chunk: vec![0; READ_BYTES], raw, clean }
    }

    /// Moves what is complete from raw to clean. Whether something moved.
    fn sift(&mut self) -> bool {
        let before = self.clean.len();
        loop {
            let take = match self.state {
                State::Header => HEADER_BYTES,
                State::Request { length, .. } => length,
                State::Other { left } => left.min(self.raw.len()),
                State::Proper => self.raw.len(),
            };
            let is_done = self.state == (State::Other { left: 0 });
            if self.raw.len() < take || (self.raw.is_empty() && !is_done) {
                return self.clean.len() > before;
            }
            let mut part = self.raw.split_to(take);
            self.state = match self.state {
                State::Header => behind_header(&part),
                State::Request { flags, .. } => match mend(&mut part, flags) {
                    Some(Authority::Proper) => State::Proper,
                    Some(Authority::Mended) | None => State::Header,
                },
                State::Other { left } if left > take => State::Other { left: left - take },
                State::Other { .. } => State::Header,
                State::Proper => State::Proper,
            };
            self.clean.unsplit(part);
        }
    }
}

/// What follows a frame's header.
fn behind_header(header: &[u8]) -> State {
    let length = u32::from_be_bytes([0, header[0], header[1], header[2]]) as usize;
    let (kind, flags) = (header[3], header[4]);
    if kind == HEADERS && length <= FRAME_BYTES_MAX {
        State::Request { length, flags }
    } else {
        State::Other { left: length }
    }
}

/// How the authority of a request was.
#[derive(Debug, PartialEq, Eq)]
enum Authority {
    Proper,
    Mended,
}

/// Looks for the authority in the frame that begins a request, and mends it. Nothing if there is none to be seen: an old
/// client says it once and then refers to it.
fn mend(frame: &mut [u8], flags: u8) -> Option<Authority> {
    let mut at = 0;
    let mut end = frame.len();
    if flags & PADDED != 0 {
        end = end.checked_sub(usize::from(*frame.first()?))?;
        at += 1;
    }
    if flags & PRIORITY != 0 {
        at += PRIORITY_BYTES;
    }
    while at < end {
        let first = frame[at];
        // A field in the table, a field for the table, a new size of the table, or a field that is not for the table.
        let (prefix, has_value) = match first {
            0x80.. => (7, false),
            0x40.. => (6, true),
            0x20.. => (5, false),
            _ => (4, true),
        };
        let name = integer(frame.get(..end)?, &mut at, prefix)?;
        if !has_value {
            continue;
        }
        if name == 0 {
            text(frame.get(..end)?, &mut at)?;
        }
        let (value, compressed) = text(frame.get(..end)?, &mut at)?;
        if name == AUTHORITY {
            let value = frame.get_mut(value)?;
            let mended = if compressed { mend_compressed(value) } else { mend_plain(value) };
            return Some(if mended { Authority::Mended } else { Authority::Proper });
        }
    }
    None
}

/// A number, of whose first byte the lowest bits belong to it.
fn integer(block: &[u8], at: &mut usize, prefix: u32) -> Option<usize> {
    let mask = (1_usize << prefix) - 1;
    let mut number = usize::from(*block.get(*at)?) & mask;
    *at += 1;
    if number < mask {
        return Some(number);
    }
    for shift in [0, 7, 14] {
        let byte = usize::from(*block.get(*at)?);
        *at += 1;
        number += (byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

/// Where a text is, and whether it is compressed.
fn text(block: &[u8], at: &mut usize) -> Option<(std::ops::Range<usize>, bool)> {
    let compressed = block.get(*at)? & 0x80 != 0;
    let length = integer(block, at, 7)?;
    let range = *at..at.checked_add(length)?;
    *at = range.end;
    block.get(range.clone()).map(|_| (range, compressed))
}

fn mend_plain(value: &mut [u8]) -> bool {
    let mut mended = false;
    for byte in value.iter_mut().filter(|byte| **byte == b'/') {
        *byte = b'-';
        mended = true;
    }
    mended
}

/// The same in the code of HTTP/2, from letter to letter. What no path is made of ends it.
fn mend_compressed(value: &mut [u8]) -> bool {
    let mut mended = false;
    let bits_total = u32::try_from(value.len()).unwrap_or(0).saturating_mul(8);
    let mut at = 0;
    while let Some((bits, code)) = letter(value, at, bits_total) {
        if bits == SLASH_BITS && code == SLASH {
            for bit in 0..SLASH_BITS {
                if (SLASH ^ HYPHEN) >> (SLASH_BITS - 1 - bit) & 1 == 1 {
                    let place = at + bit;
                    value[(place / 8) as usize] ^= 0x80 >> (place % 8);
                }
            }
            mended = true;
        }
        at += bits;
    }
    mended
}

/// The letter that begins at a bit: how many bits it has, and its code.
fn letter(value: &[u8], at: u32, bits_total: u32) -> Option<(u32, u32)> {
    let code = |bits: u32| {
        (at..at + bits).fold(0, |code, bit| code << 1 | u32::from(value[(bit / 8) as usize] >> (7 - bit % 8) & 1))
    };
    CODES.into_iter().take_while(|(bits, _)| at + bits <= bits_total).find_map(|(bits, greatest)| {
        let code = code(bits);
        (code <= greatest).then_some((bits, code))
    })
}

impl<S: AsyncRead + Unpin> AsyncRead for Lenient<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        loop {
            if !this.clean.is_empty() {
                let count = this.clean.len().min(buf.remaining());
                buf.put_slice(&this.clean[..count]);
                this.clean.advance(count);
                return Poll::Ready(Ok(()));
            }
            if this.state == State::Proper && this.raw.is_empty() {
                this.chunk = Vec::new();
                return Pin::new(&mut this.inner).poll_read(cx, buf);
            }
            let mut read = ReadBuf::new(&mut this.chunk);
            ready!(Pin::new(&mut this.inner).poll_read(cx, &mut read))?;
            let ended = read.filled().is_empty();
            this.raw.extend_from_slice(read.filled());
            if !this.sift() && ended {
                // Whatever was begun is handed on as it is: the other side knows best what to make of it.
                this.clean = std::mem::take(&mut this.raw);
                if this.clean.is_empty() {
                    return Poll::Ready(Ok(()));
                }
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Lenient<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
#[path = "lenient_tests.rs"]
mod tests;
