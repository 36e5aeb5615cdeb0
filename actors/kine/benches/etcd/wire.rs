//! As much of etcd's messages as a measurement needs, and a counter that looks at an answer without taking it apart:
//! what the client spends is missing on the server's side.

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;

/// Writes one key.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Put {
    #[prost(bytes = "bytes", tag = "1")]
    pub(crate) key: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    pub(crate) value: Bytes,
}

/// Reads keys.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Range {
    #[prost(bytes = "bytes", tag = "1")]
    pub(crate) key: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    pub(crate) range_end: Bytes,
    #[prost(int64, tag = "3")]
    pub(crate) limit: i64,
}

/// Drops history.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Compact {
    #[prost(int64, tag = "1")]
    pub(crate) revision: i64,
}

/// What stands at the front of each answer.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Header {
    #[prost(int64, tag = "3")]
    pub(crate) revision: i64,
}

/// Any answer whose revision is wanted, and nothing else.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Headed {
    #[prost(message, optional, tag = "1")]
    pub(crate) header: Option<Header>,
}

/// Begins a watch.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct WatchRequest {
    #[prost(message, optional, tag = "1")]
    pub(crate) create: Option<Range>,
}

/// What a watch is told.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct WatchResponse {
    #[prost(bool, tag = "3")]
    pub(crate) created: bool,
    #[prost(bool, tag = "4")]
    pub(crate) canceled: bool,
    #[prost(message, repeated, tag = "11")]
    pub(crate) events: Vec<Event>,
}

/// One change.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Event {
    #[prost(message, optional, tag = "2")]
    pub(crate) kv: Option<KeyValue>,
}

/// The part of a key that tells which write it was.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct KeyValue {
    #[prost(int64, tag = "3")]
    pub(crate) mod_revision: i64,
}

/// A message with gRPC's five bytes in front.
pub(crate) fn framed(message: &impl Message) -> Bytes {
    let length = message.encoded_len();
    let mut bytes = BytesMut::with_capacity(length + 5);
    bytes.put_u8(0);
    bytes.put_u32(u32::try_from(length).expect("a request is small"));
    message.encode(&mut bytes).expect("there is room for it");
    bytes.freeze()
}

/// Counts the keys of an answer to [`Range`] while it comes in, in pieces that end anywhere.
#[derive(Debug, Default)]
pub(crate) struct Counter {
    /// Bytes to leave out: gRPC's five first, then the inside of a field.
    skip: usize,
    begun: bool,
    /// The number that is being read: its bits so far, and how many.
    number: u64,
    bits: u32,
    /// The field whose length is awaited.
    field: Option<u64>,
    /// How many keys there were.
    pub(crate) keys: u64,
}

/// The field of keys and the kind of what has a length, in the message's numbering.
const KEYS: u64 = 2;
const LENGTH: u64 = 2;

impl Counter {
    /// Takes the next piece.
    pub(crate) fn take(&mut self, piece: &[u8]) {
        let mut at = 0;
        if !self.begun {
            (self.begun, self.skip) = (true, 5);
        }
        while at < piece.len() {
            if self.skip > 0 {
                let step = self.skip.min(piece.len() - at);
                (at, self.skip) = (at + step, self.skip - step);
                continue;
            }
            let byte = piece[at];
            at += 1;
            self.number |= u64::from(byte & 0x7f) << self.bits;
            self.bits += 7;
            if byte & 0x80 == 0 {
                let number = std::mem::take(&mut self.number);
                self.bits = 0;
                self.numbered(number);
            }
        }
    }

    fn numbered(&mut self, number: u64) {
        match self.field.take() {
            // A tag: the field's number above three bits of kind. Of the kinds only numbers and lengths occur.
            None => self.field = Some(number),
            Some(tag) if tag & 7 == LENGTH => {
                self.skip = usize::try_from(number).expect("an answer fits into memory");
                self.keys += u64::from(tag >> 3 == KEYS);
            }
            Some(_) => {}
        }
    }
}
