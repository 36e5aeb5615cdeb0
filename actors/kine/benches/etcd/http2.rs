//! As much of HTTP/2 as a client of gRPC needs that shares two cores with the server it measures: requests are written
//! into one buffer and leave together, answers are looked at where they lie, and nobody is woken for one of them.
//!
//! Headers of requests are indexed after the first time, as every client's are. Headers of answers are not decoded: in
//! gRPC a refusal has no message, so that an answer with one whole message, and trailers behind it, is none.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::client::CallError;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// What a server may send ahead, on a stream and on the connection; Go's client grows its windows to that by itself.
const WINDOW_BYTES: u32 = 16 << 20;
/// What HTTP/2 begins with on both sides.
const WINDOW_BYTES_FIRST: i64 = 65_535;
/// The longest frame, unless more is agreed upon.
const FRAME_BYTES_MAX: usize = 16 << 10;
const FRAME_HEADER_BYTES: usize = 9;
/// What is read at a time: a few dozen frames.
const READ_BYTES: usize = 512 << 10;
/// gRPC's mark of compression and the length.
const PREFIX_BYTES: usize = 5;

// Frames, and flags of frames.
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RESET: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GO_AWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;
/// The setting of how much may be sent ahead on a stream, and of whether a server may push.
const INITIAL_WINDOW: u16 = 4;
const ENABLE_PUSH: u16 = 2;

// The table of headers that both sides know: methods, schemes, and the names of what we say ourselves.
const POST: u8 = 0x83;
const HTTP: u8 = 0x86;
const AUTHORITY: u8 = 1;
const PATH: u8 = 4;
/// Where the part of the table begins that a connection fills itself.
const TABLE_FIRST: usize = 62;

/// What comes of a stream.
pub(crate) enum Arrival<'a> {
    /// A piece of the answer's body.
    Piece(u32, &'a [u8]),
    /// The answer is whole.
    Done(u32),
}

/// A stream under way.
#[derive(Default)]
struct Stream {
    /// How much of the body has come, and how much there is once that is known.
    received: usize,
    prefix: Vec<u8>,
    /// What has come since the server was told to go on.
    unacknowledged: u32,
}

/// One connection.
pub(crate) struct Connection {
    stream: TcpStream,
    authority: String,
    incoming: BytesMut,
    outgoing: BytesMut,
    streams: HashMap<u32, Stream>,
    next: u32,
    /// What was said in headers so far, in that order: the server knows it by its number.
    said: Vec<(u8, String)>,
    /// How much may be sent, and what waits for its turn.
    window: i64,
    waiting: VecDeque<(u32, Bytes, bool)>,
    unacknowledged: u32,
}

impl Connection {
    pub(crate) async fn open(address: SocketAddr) -> std::io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let mut outgoing = BytesMut::from(PREFACE);
        frame(&mut outgoing, SETTINGS, 0, 0, 12);
        outgoing.put_u16(ENABLE_PUSH);
        outgoing.put_u32(0);
        outgoing.put_u16(INITIAL_WINDOW);
        outgoing.put_u32(WINDOW_BYTES);
        window_update(&mut outgoing, 0, WINDOW_BYTES);
        Ok(Self {
            stream,
            authority: address.to_string(),
            incoming: BytesMut::with_capacity(READ_BYTES),
            outgoing,
            streams: HashMap::new(),
            next: 1,
            said: Vec::new(),
            window: WINDOW_BYTES_FIRST,
            waiting: VecDeque::new(),
            unacknowledged: 0,
        })
    }

    /// Begins a call with a message that has its prefix. Nothing leaves before [`Self::flush`].
    pub(crate) fn begin(&mut self, path: &str, message: Bytes, only: bool) -> u32 {
        let id = self.next;
        self.next += 2;
        let mut block = BytesMut::with_capacity(128);
        block.put_slice(&[POST, HTTP]);
        let authority = std::mem::take(&mut self.authority);
        self.say(&mut block, PATH, "", path);
        self.say(&mut block, AUTHORITY, "", &authority);
        self.say(&mut block, 0, "content-type", "application/grpc");
        self.say(&mut block, 0, "te", "trailers");
        self.authority = authority;
        frame(&mut self.outgoing, HEADERS, END_HEADERS, id, block.len());
        self.outgoing.put_slice(&block);
        self.streams.insert(id, Stream::default());
        self.waiting.push_back((id, message, only));
        self.send_waiting();
        id
    }

    /// A header, the first time in full.
    fn say(&mut self, block: &mut BytesMut, name: u8, own_name: &str, value: &str) {
        if let Some(number) = self.said.iter().position(|(known, said)| *known == name && said == value) {
            let index = TABLE_FIRST + self.said.len() - 1 - number;
            return block.put_u8(0x80 | u8::try_from(index).expect("few headers are said"));
        }
        block.put_u8(0x40 | name);
        for text in [own_name, value].into_iter().skip(usize::from(name > 0)) {
            block.put_u8(u8::try_from(text.len()).ok().filter(|length| *length < 127).expect("headers are short"));
            block.put_slice(text.as_bytes());
        }
        self.said.push((name, value.to_owned()));
    }

    /// Sends as much as the server lets us.
    fn send_waiting(&mut self) {
        while let Some((id, mut message, only)) = self.waiting.pop_front() {
            let part = message.len().min(FRAME_BYTES_MAX).min(usize::try_from(self.window).unwrap_or(0));
            if part == 0 {
                return self.waiting.push_front((id, message, only));
            }
            let last = part == message.len();
            frame(&mut self.outgoing, DATA, if only && last { END_STREAM } else { 0 }, id, part);
            self.outgoing.put_slice(&message[..part]);
            self.window -= part as i64;
            if !last {
                message.advance(part);
                self.waiting.push_front((id, message, only));
            }
        }
    }

    /// Sends what was begun. To be given up at any moment.
    pub(crate) async fn flush(&mut self) -> Result<(), CallError> {
        while !self.outgoing.is_empty() {
            self.stream.write_buf(&mut self.outgoing).await.map_err(CallError::Connect)?;
        }
        Ok(())
    }

    /// Waits for more, and shows all that is whole. To be given up at any moment.
    pub(crate) async fn receive(&mut self, mut show: impl FnMut(Arrival<'_>)) -> Result<(), CallError> {
        self.flush().await?;
        self.incoming.reserve(READ_BYTES);
        if self.stream.read_buf(&mut self.incoming).await.map_err(CallError::Connect)? == 0 {
            return Err(CallError::Ended);
        }
        let mut incoming = std::mem::take(&mut self.incoming);
        let taken = self.take(&incoming, &mut show);
        incoming.advance(*taken.as_ref().unwrap_or(&0));
        self.incoming = incoming;
        taken.map(drop)
    }

    /// Looks at frames that are whole. How many bytes they had.
    fn take(&mut self, bytes: &[u8], show: &mut impl FnMut(Arrival<'_>)) -> Result<usize, CallError> {
        let mut at = 0;
        while let Some(header) = bytes.get(at..at + FRAME_HEADER_BYTES) {
            let length = u32::from_be_bytes([0, header[0], header[1], header[2]]) as usize;
            let id = u32::from_be_bytes([header[5], header[6], header[7], header[8]]) & 0x7fff_ffff;
            let begin = at + FRAME_HEADER_BYTES;
            let Some(payload) = bytes.get(begin..begin + length) else { break };
            self.take_frame(header[3], header[4], id, payload, show)?;
            at = begin + length;
        }
        Ok(at)
    }

    fn take_frame(
        &mut self,
        kind: u8,
        flags: u8,
        id: u32,
        payload: &[u8],
        show: &mut impl FnMut(Arrival<'_>),
    ) -> Result<(), CallError> {
        let number = |at: usize| payload.get(at..at + 4).map_or(0, |mut bytes| bytes.get_u32());
        match kind {
            DATA | HEADERS if flags & PADDED != 0 => return Err(CallError::Broken("padding")),
            DATA => {
                self.acknowledge(id, payload.len());
                if let Some(stream) = self.streams.get_mut(&id) {
                    let missing = PREFIX_BYTES.saturating_sub(stream.prefix.len()).min(payload.len());
                    stream.prefix.extend_from_slice(&payload[..missing]);
                    stream.received += payload.len();
                    show(Arrival::Piece(id, payload));
                }
                if flags & END_STREAM != 0 {
                    return Err(CallError::Refused { headers: "no trailers".to_owned() });
                }
            }
            HEADERS if flags & END_STREAM != 0 => {
                // Nobody waits for a call that was given up.
                let Some(stream) = self.streams.remove(&id) else { return Ok(()) };
                if !stream.is_one_message() {
                    return Err(CallError::Refused { headers: payload.escape_ascii().to_string() });
                }
                show(Arrival::Done(id));
            }
            RESET => return Err(CallError::Broken("a stream was reset")),
            GO_AWAY => return Err(CallError::Broken("the server says goodbye")),
            SETTINGS if flags & ACK == 0 => frame(&mut self.outgoing, SETTINGS, ACK, 0, 0),
            PING if flags & ACK == 0 => {
                frame(&mut self.outgoing, PING, ACK, 0, payload.len());
                self.outgoing.put_slice(payload);
            }
            // No request is longer than the window of its stream.
            WINDOW_UPDATE if id == 0 => {
                self.window += i64::from(number(0));
                self.send_waiting();
            }
            _ => {}
        }
        Ok(())
    }

    /// Tells the server to go on when half of what it may send ahead has come.
    fn acknowledge(&mut self, id: u32, length: usize) {
        let length = u32::try_from(length).expect("a frame is small");
        let stream = self.streams.get_mut(&id).map(|stream| (id, &mut stream.unacknowledged));
        for (id, unacknowledged) in stream.into_iter().chain([(0, &mut self.unacknowledged)]) {
            *unacknowledged += length;
            if *unacknowledged >= WINDOW_BYTES / 2 {
                window_update(&mut self.outgoing, id, std::mem::take(unacknowledged));
            }
        }
    }
}

impl Stream {
    fn is_one_message(&self) -> bool {
        let Ok([0, length @ ..]) = <[u8; PREFIX_BYTES]>::try_from(&self.prefix[..]) else { return false };
        u32::from_be_bytes(length) as usize + PREFIX_BYTES == self.received
    }
}

fn frame(bytes: &mut BytesMut, kind: u8, flags: u8, id: u32, length: usize) {
    bytes.put_uint(length as u64, 3);
    bytes.put_u8(kind);
    bytes.put_u8(flags);
    bytes.put_u32(id);
}

fn window_update(bytes: &mut BytesMut, id: u32, more: u32) {
    frame(bytes, WINDOW_UPDATE, 0, id, 4);
    bytes.put_u32(more);
}
