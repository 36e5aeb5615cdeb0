//! As much of SPDY/3.1 as a client needs that opens streams and lets them carry bytes: pure.
//!
//! What the other side says in headers means nothing here, so they aren't read, and need not be unpacked. Our own are
//! wrapped in blocks of zlib that hold them as they are. Nobody in Kubernetes heeds SPDY's windows; what holds back a
//! writer is the connection.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};

/// The version in control frames.
const VERSION: u16 = 3;
/// The bit that tells control frames from data.
const CONTROL: u32 = 1 << 31;
/// What stands before a frame's contents.
const HEAD_BYTES: usize = 8;
/// The flag of a stream's last frame.
const FIN: u8 = 1;
/// The longest frame that is taken. Data comes in pieces of 32 KiB from whom we speak to.
const FRAME_BYTES_MAX: usize = 1 << 20;
/// The longest piece of data that is sent in one frame.
pub(crate) const DATA_BYTES_MAX: usize = 32 * 1024;

const SYN_STREAM: u16 = 1;
const SYN_REPLY: u16 = 2;
const RST_STREAM: u16 = 3;
const PING: u16 = 6;
const GOAWAY: u16 = 7;
const HEADERS: u16 = 8;

/// The first bytes of a zlib stream: a window of 32 KiB, no dictionary.
const ZLIB_HEAD: [u8; 2] = [0x78, 0x01];
/// An empty block, which makes whoever unpacks hand out all before it.
const ZLIB_FLUSH: [u8; 5] = [0, 0, 0, 0xff, 0xff];

/// A stream of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct StreamId(u32);

/// What the other side says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    /// It takes a stream.
    Taken(StreamId),
    /// Bytes on a stream; whether they are the last.
    Data(StreamId, Bytes, bool),
    /// A stream has ended, without another word.
    Reset(StreamId),
    /// To be answered with the same number.
    Ping(u32),
    /// It will take no more streams.
    Leaving,
}

/// What comes is no SPDY.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SpdyError {
    /// A frame is longer than anybody's frames are.
    #[error("a SPDY frame of {0} bytes is too long")]
    TooLong(usize),
    /// A control frame of another version.
    #[error("a SPDY frame of version {0}")]
    Version(u16),
    /// A control frame without what its kind has.
    #[error("a SPDY frame is cut short")]
    Short,
}

/// Writes frames.
#[derive(Debug, Default)]
pub(crate) struct Writer {
    streams: u32,
    /// Whether the zlib stream of headers has begun.
    begun: bool,
}

fn control(out: &mut BytesMut, kind: u16, flags: u8, length: usize) {
    out.put_u16(0x8000 | VERSION);
    out.put_u16(kind);
    put_length(out, flags, length);
}

/// `length` is that of a frame we make, which fits.
fn put_length(out: &mut BytesMut, flags: u8, length: usize) {
    out.put_u32(u32::from(flags) << 24 | u32::try_from(length).unwrap_or(0) & 0x00ff_ffff);
}

impl Writer {
    /// Opens a stream with these headers, names in lower case. All of them together are short.
    pub(crate) fn open(&mut self, headers: &[(&str, &str)], out: &mut BytesMut) -> StreamId {
        let id = StreamId(2 * self.streams + 1);
        self.streams += 1;
        let mut plain = BytesMut::new();
        let put = |plain: &mut BytesMut, text: &str| {
            plain.put_u32(u32::try_from(text.len()).unwrap_or(0));
            plain.put_slice(text.as_bytes());
        };
        plain.put_u32(u32::try_from(headers.len()).unwrap_or(0));
        for (name, value) in headers {
            put(&mut plain, name);
            put(&mut plain, value);
        }
        let mut packed = BytesMut::new();
        if !std::mem::replace(&mut self.begun, true) {
            packed.put_slice(&ZLIB_HEAD);
        }
        for piece in plain.chunks(usize::from(u16::MAX)) {
            let length = u16::try_from(piece.len()).unwrap_or(0);
            packed.put_u8(0);
            packed.put_u16_le(length);
            packed.put_u16_le(!length);
            packed.put_slice(piece);
        }
        packed.put_slice(&ZLIB_FLUSH);
        // The stream, the one it belongs to (none), its priority and slot.
        control(out, SYN_STREAM, 0, 10 + packed.len());
        out.put_u32(id.0);
        out.put_u32(0);
        out.put_u16(0);
        out.put_slice(&packed);
        id
    }

    /// Sends bytes on a stream.
    pub(crate) fn data(id: StreamId, bytes: &[u8], out: &mut BytesMut) {
        for piece in bytes.chunks(DATA_BYTES_MAX) {
            out.put_u32(id.0);
            put_length(out, 0, piece.len());
            out.put_slice(piece);
        }
    }

    /// Says that there are no more bytes on a stream.
    pub(crate) fn finish(id: StreamId, out: &mut BytesMut) {
        out.put_u32(id.0);
        put_length(out, FIN, 0);
    }

    /// Answers a ping.
    pub(crate) fn pong(number: u32, out: &mut BytesMut) {
        control(out, PING, 0, 4);
        out.put_u32(number);
    }
}

/// Takes the next thing that is said from what was read; `None` until a frame is whole. Frames that mean nothing here
/// are left out.
///
/// # Errors
/// See [`SpdyError`]; the connection can't go on.
pub(crate) fn read(input: &mut BytesMut) -> Result<Option<Heard>, SpdyError> {
    loop {
        let Some(mut head) = input.get(..HEAD_BYTES) else { return Ok(None) };
        let (first, second) = (head.get_u32(), head.get_u32());
        let (flags, length) = ((second >> 24) as u8, (second & 0x00ff_ffff) as usize);
        if length > FRAME_BYTES_MAX {
            return Err(SpdyError::TooLong(length));
        }
        let version = (first >> 16 & 0x7fff) as u16;
        if first & CONTROL != 0 && version != VERSION {
            return Err(SpdyError::Version(version));
        }
        if input.len() < HEAD_BYTES + length {
            return Ok(None);
        }
        input.advance(HEAD_BYTES);
        let contents = input.split_to(length).freeze();
        if let Some(heard) = meaning(first, flags, contents)? {
            return Ok(Some(heard));
        }
    }
}

fn meaning(first: u32, flags: u8, contents: Bytes) -> Result<Option<Heard>, SpdyError> {
    let is_last = flags & FIN != 0;
    if first & CONTROL == 0 {
        return Ok(Some(Heard::Data(StreamId(first), contents, is_last)));
    }
    let number = || contents.get(..4).map(|mut bytes| bytes.get_u32()).ok_or(SpdyError::Short);
    let id = || number().map(|number| StreamId(number & !CONTROL));
    Ok(match (first & 0xffff) as u16 {
        SYN_REPLY if is_last => Some(Heard::Data(id()?, Bytes::new(), true)),
        SYN_REPLY => Some(Heard::Taken(id()?)),
        HEADERS if is_last => Some(Heard::Data(id()?, Bytes::new(), true)),
        RST_STREAM => Some(Heard::Reset(id()?)),
        PING => Some(Heard::Ping(number()?)),
        GOAWAY => Some(Heard::Leaving),
        // Settings, windows, and streams of its own, of which there are none.
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use flate2::read::ZlibDecoder;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn streams_are_opened_with_headers_that_zlib_unpacks() {
        let (mut writer, mut out) = (Writer::default(), BytesMut::new());
        let first = writer.open(&[("streamtype", "error")], &mut out);
        let second = writer.open(&[("streamtype", "stdin"), ("a", "b")], &mut out);
        assert_eq!((first, second), (StreamId(1), StreamId(3)));
        let mut packed = Vec::new();
        let mut places = Vec::new();
        while !out.is_empty() {
            assert_eq!(out.get_u32(), 0x8003_0001);
            let length = out.get_u32();
            assert!(length < 1 << 24, "no flags");
            let mut contents = out.split_to(length as usize);
            places.push(contents.get_u32());
            contents.advance(6);
            packed.extend_from_slice(&contents);
        }
        assert_eq!(places, [1, 3]);
        // Both in one go: the counts stand before each block's pairs.
        let mut decoder = ZlibDecoder::new(&packed[..]);
        let mut all = vec![0; 4 + 4 + 10 + 4 + 5 + 4 + 4 + 10 + 4 + 5 + 4 + 1 + 4 + 1];
        decoder.read_exact(&mut all).expect("all of it");
        assert_eq!(all[..4], [0, 0, 0, 1]);
        assert!(all.ends_with(b"stdin\0\0\0\x01a\0\0\0\x01b"));
    }

    #[test]
    fn what_is_no_spdy_is_refused() {
        let read = |bytes: &[u8]| super::read(&mut BytesMut::from(bytes));
        assert_eq!(read(b"HTTP/1.1 400 Bad Request\r\n\r\n"), Err(SpdyError::TooLong(0x0031_2e31)));
        assert_eq!(read(&[0x80, 2, 0, 6, 0, 0, 0, 4, 0, 0, 0, 1]), Err(SpdyError::Version(2)));
        assert_eq!(read(&[0x80, 3, 0, 6, 0, 0, 0, 2, 0, 0]), Err(SpdyError::Short));
        assert_eq!(read(&[0x80, 3, 0, 6]), Ok(None));
    }

    fn frames() -> (Vec<Heard>, BytesMut) {
        let mut out = BytesMut::new();
        let (a, b) = (StreamId(1), StreamId(3));
        control(&mut out, SYN_REPLY, 0, 8);
        out.put_slice(&[0, 0, 0, 1, 9, 9, 9, 9]);
        Writer::data(a, b"hello", &mut out);
        // Settings mean nothing here.
        control(&mut out, 4, 0, 4);
        out.put_u32(0);
        Writer::pong(2, &mut out);
        Writer::data(b, &[7; 300], &mut out);
        Writer::finish(a, &mut out);
        control(&mut out, RST_STREAM, 0, 8);
        out.put_slice(&[0, 0, 0, 3, 0, 0, 0, 5]);
        control(&mut out, GOAWAY, 0, 8);
        out.put_slice(&[0; 8]);
        let heard = vec![
            Heard::Taken(a),
            Heard::Data(a, Bytes::from_static(b"hello"), false),
            Heard::Ping(2),
            Heard::Data(b, Bytes::from(vec![7; 300]), false),
            Heard::Data(a, Bytes::new(), true),
            Heard::Reset(b),
            Heard::Leaving,
        ];
        (heard, out)
    }

    proptest! {
        #[test]
        fn what_is_heard_does_not_depend_on_how_it_comes(cuts in proptest::collection::vec(0_usize..500, 0..20)) {
            let (wanted, whole) = frames();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(whole.len())).collect();
            cuts.extend([0, whole.len()]);
            cuts.sort_unstable();
            let (mut input, mut heard) = (BytesMut::new(), Vec::new());
            for pair in cuts.windows(2) {
                input.extend_from_slice(&whole[pair[0]..pair[1]]);
                while let Some(next) = read(&mut input).unwrap() {
                    heard.push(next);
                }
            }
            prop_assert_eq!(heard, wanted);
            prop_assert!(input.is_empty());
        }

        #[test]
        fn nothing_makes_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let mut input = BytesMut::from(&bytes[..]);
            while let Ok(Some(_)) = read(&mut input) {}
        }
    }
}
