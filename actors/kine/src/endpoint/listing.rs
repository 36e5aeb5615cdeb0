//! The answer to a list, written piece by piece while it is sent. As one message it would be in memory twice, and
//! nothing of it would be under way before all of it is written.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{BufMut, Bytes, BytesMut};
use http::HeaderMap;
use hyper::body::Frame;
use k3sd_datastore::{KeyValue, Revision};
use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint, message};

use crate::translate;
use crate::wire::etcdserverpb::RangeResponse;
use crate::wire::mvccpb;

/// How much is written at a time.
const PIECE_BYTES: usize = 64 << 10;
/// Fewer keys are quicker written at once.
const PIECES_FROM: usize = 64;
/// The number of the field with the keys.
const KEYS_FIELD: u32 = 2;

/// What a list has found.
#[derive(Debug)]
pub(crate) struct Listing {
    /// The store's revision.
    pub(crate) revision: Revision,
    /// In the order of the answer.
    pub(crate) kvs: Vec<KeyValue>,
    /// Whether a limit left any out.
    pub(crate) more: bool,
    /// How many there are without the limit.
    pub(crate) count: i64,
}

impl Listing {
    /// As a message.
    pub(crate) fn into_response(self) -> RangeResponse {
        let kvs = self.kvs.iter().map(translate::kv).collect();
        RangeResponse { kvs, ..self.frame() }
    }

    /// Whether it is worth sending in pieces.
    pub(crate) fn is_long(&self) -> bool {
        self.kvs.len() >= PIECES_FROM
    }

    /// The message without its keys.
    fn frame(&self) -> RangeResponse {
        RangeResponse { header: translate::header(self.revision), kvs: Vec::new(), more: self.more, count: self.count }
    }

    /// The length of the message.
    pub(crate) fn encoded_len(&self) -> usize {
        let key = |kv| {
            let length = body_len(kv);
            1 + encoded_len_varint(length as u64) + length
        };
        self.frame().encoded_len() + self.kvs.iter().map(key).sum::<usize>()
    }
}

/// The fields of a key that are numbers and not zero, with their numbers.
fn numbers(kv: &KeyValue) -> impl Iterator<Item = (u32, u64)> {
    let fields = [
        (2, kv.create_revision.get().cast_unsigned()),
        (3, kv.mod_revision.get().cast_unsigned()),
        (4, translate::version(kv).cast_unsigned()),
        (6, u64::from(kv.ttl.as_seconds())),
    ];
    fields.into_iter().filter(|(_, value)| *value != 0)
}

/// Key and value, unless they are empty, with their numbers.
fn strings(kv: &KeyValue) -> impl Iterator<Item = (u32, &[u8])> {
    [(1, kv.key.as_bytes()), (5, &kv.value[..])].into_iter().filter(|(_, bytes)| !bytes.is_empty())
}

/// The length of a key as a message. All tags are of one byte.
fn body_len(kv: &KeyValue) -> usize {
    if translate::is_kept_marker(kv) {
        return translate::kv(kv).encoded_len();
    }
    let strings = strings(kv).map(|(_, bytes)| 1 + encoded_len_varint(bytes.len() as u64) + bytes.len());
    strings.sum::<usize>() + numbers(kv).map(|(_, value)| 1 + encoded_len_varint(value)).sum::<usize>()
}

/// Writes a key as a field of the answer. The same as the generated code writes, from borrowed bytes.
fn write_key(kv: &KeyValue, bytes: &mut BytesMut) {
    if translate::is_kept_marker(kv) {
        return message::encode::<mvccpb::KeyValue>(KEYS_FIELD, &translate::kv(kv), bytes);
    }
    encode_key(KEYS_FIELD, WireType::LengthDelimited, bytes);
    encode_varint(body_len(kv) as u64, bytes);
    for (field, string) in strings(kv) {
        encode_key(field, WireType::LengthDelimited, bytes);
        encode_varint(string.len() as u64, bytes);
        bytes.put_slice(string);
    }
    for (field, value) in numbers(kv) {
        encode_key(field, WireType::Varint, bytes);
        encode_varint(value, bytes);
    }
}

/// The body of the answer. Fields may come in any order, so what is not a key comes first.
pub(crate) struct Pieces {
    begin: Option<BytesMut>,
    kvs: std::vec::IntoIter<KeyValue>,
    trailers: Option<HeaderMap>,
}

impl Pieces {
    /// Behind gRPC's prefix.
    pub(crate) fn new(mut prefix: BytesMut, listing: Listing, trailers: HeaderMap) -> Self {
        prefix.reserve(PIECE_BYTES);
        listing.frame().encode_raw(&mut prefix);
        Self { begin: Some(prefix), kvs: listing.kvs.into_iter(), trailers: Some(trailers) }
    }

    fn piece(&mut self) -> Option<Bytes> {
        let mut bytes = match self.begin.take() {
            Some(begin) => begin,
            None if self.kvs.len() == 0 => return None,
            None => BytesMut::with_capacity(PIECE_BYTES),
        };
        // The key that would pass the end goes into the next piece, unless it is longer than any.
        while let Some(kv) = self.kvs.as_slice().first()
            && (bytes.is_empty() || bytes.len() + kv.value.len() < PIECE_BYTES)
        {
            write_key(kv, &mut bytes);
            self.kvs.next();
        }
        Some(bytes.freeze())
    }
}

impl hyper::body::Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let piece = self.piece().map(Frame::data);
        let frame = piece.or_else(|| self.trailers.take().map(Frame::trailers));
        Poll::Ready(frame.map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        self.trailers.is_none()
    }
}

#[cfg(test)]
mod tests {
    use k3sd_datastore::{Key, Ttl};

    use super::*;

    fn listing() -> Listing {
        let kv = |number: i64| KeyValue {
            key: if number == 7 { "compact_rev_key_apiserver".into() } else { Key::from(format!("/k/{number:04}")) },
            value: Bytes::from(vec![b'v'; usize::try_from(number % 5 * 700).expect("it is small")]),
            create_revision: Revision::new(number),
            mod_revision: Revision::new(if number % 4 == 0 { number } else { number << 20 }),
            ttl: Ttl::seconds(u32::try_from(number % 3).expect("it is small")),
        };
        let mut kvs: Vec<_> = (1..500).map(kv).collect();
        kvs[6].value = Bytes::from_static(b"3|17");
        kvs[100].value = Bytes::from(vec![b'w'; 3 * PIECE_BYTES]);
        Listing { revision: Revision::new(9), kvs, more: true, count: 12_345 }
    }

    #[test]
    fn the_pieces_are_the_message() {
        let length = listing().encoded_len();
        let mut pieces = Pieces::new(BytesMut::new(), listing(), HeaderMap::new());
        let (mut whole, mut number) = (BytesMut::new(), 0);
        while let Some(piece) = pieces.piece() {
            assert!(!piece.is_empty());
            whole.extend_from_slice(&piece);
            number += 1;
        }
        assert_eq!(whole.len(), length);
        assert_eq!(RangeResponse::decode(whole.freeze()).expect("a message"), listing().into_response());
        assert!(number > 5, "{number}");
    }
}
