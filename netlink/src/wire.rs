//! How messages look on the wire: a header, a fixed part, attributes. Numbers are the machine's own byte order but where
//! netfilter wants the network's.

use crate::error::NetlinkError;

/// Bytes of `struct nlmsghdr`.
const HEADER_BYTES: usize = 16;
/// Bytes in front of an attribute's value.
const ATTRIBUTE_HEADER_BYTES: usize = 4;

/// Set in the kind of an attribute that holds others.
const NESTED: u16 = 0x8000;
/// What of an attribute's kind is its number.
const KIND_MASK: u16 = 0x3fff;

/// Flags of a request.
pub(crate) mod flags {
    pub(crate) const REQUEST: u16 = 0x1;
    pub(crate) const ACK: u16 = 0x4;
    pub(crate) const DUMP: u16 = 0x300;
    pub(crate) const REPLACE: u16 = 0x100;
    pub(crate) const EXCLUSIVE: u16 = 0x200;
    pub(crate) const CREATE: u16 = 0x400;
    pub(crate) const APPEND: u16 = 0x800;
}

/// Kinds of messages that every family has.
pub(crate) const ERROR: u16 = 2;
pub(crate) const DONE: u16 = 3;

/// A message under construction.
#[derive(Debug, Clone)]
pub(crate) struct Message {
    bytes: Vec<u8>,
    /// Something in it was too long for the wire; told when it is sent.
    overflow: bool,
}

impl Message {
    pub(crate) fn new(kind: u16, flags: u16) -> Self {
        let mut bytes = Vec::with_capacity(256);
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&kind.to_ne_bytes());
        bytes.extend_from_slice(&flags.to_ne_bytes());
        bytes.extend_from_slice(&[0; 8]);
        Self { bytes, overflow: false }
    }

    /// The fixed part behind the header, or a piece of it.
    pub(crate) fn raw(mut self, bytes: &[u8]) -> Self {
        self.fixed(bytes);
        self
    }

    /// A fixed part in the middle, in front of the attributes of a nested object.
    pub(crate) fn fixed(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    pub(crate) fn attribute(&mut self, kind: u16, value: &[u8]) {
        match u16::try_from(value.len() + ATTRIBUTE_HEADER_BYTES) {
            Ok(length) => {
                self.bytes.extend_from_slice(&length.to_ne_bytes());
                self.bytes.extend_from_slice(&kind.to_ne_bytes());
                self.bytes.extend_from_slice(value);
                self.pad();
            }
            Err(_) => self.overflow = true,
        }
    }

    /// A number in the machine's byte order.
    pub(crate) fn u32(&mut self, kind: u16, value: u32) {
        self.attribute(kind, &value.to_ne_bytes());
    }

    /// A number in the network's byte order.
    pub(crate) fn be32(&mut self, kind: u16, value: u32) {
        self.attribute(kind, &value.to_be_bytes());
    }

    /// A text, with the NUL that ends it.
    pub(crate) fn text(&mut self, kind: u16, value: &str) {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.attribute(kind, &bytes);
    }

    /// An attribute that holds what `fill` writes.
    pub(crate) fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 2]);
        self.bytes.extend_from_slice(&(kind | NESTED).to_ne_bytes());
        fill(self);
        match u16::try_from(self.bytes.len() - start) {
            Ok(length) => self.bytes[start..start + 2].copy_from_slice(&length.to_ne_bytes()),
            Err(_) => self.overflow = true,
        }
    }

    /// How long it is so far.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Adds flags to those that it was made with.
    pub(crate) fn add_flags(&mut self, flags: u16) {
        let [.., low, high] = self.bytes[..8] else { unreachable!("a message has its header from the start") };
        let all = u16::from_ne_bytes([low, high]) | flags;
        self.bytes[6..8].copy_from_slice(&all.to_ne_bytes());
    }

    /// The finished bytes.
    pub(crate) fn finish(mut self, sequence: u32) -> Result<Vec<u8>, NetlinkError> {
        let length = u32::try_from(self.bytes.len()).ok().filter(|_| !self.overflow);
        let length = length.ok_or_else(|| NetlinkError::Invalid("the message is too long".to_owned()))?;
        self.bytes[..4].copy_from_slice(&length.to_ne_bytes());
        self.bytes[8..12].copy_from_slice(&sequence.to_ne_bytes());
        Ok(self.bytes)
    }
}

/// One message of an answer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Received<'a> {
    pub(crate) kind: u16,
    pub(crate) flags: u16,
    pub(crate) sequence: u32,
    /// The socket that it answers, or that made what is told of.
    pub(crate) port: u32,
    pub(crate) payload: &'a [u8],
}

/// The messages in a datagram; ends early at one that claims more bytes than there are.
pub(crate) fn messages(mut datagram: &[u8]) -> impl Iterator<Item = Received<'_>> {
    std::iter::from_fn(move || {
        let length = number(datagram, 0)? as usize;
        let payload = datagram.get(HEADER_BYTES..length)?;
        let (kind, flags) = (short(datagram, 4)?, short(datagram, 6)?);
        let (sequence, port) = (number(datagram, 8)?, number(datagram, 12)?);
        datagram = datagram.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(Received { kind, flags, sequence, port, payload })
    })
}

/// The attributes in a piece of a message; ends early at one that claims more bytes than there are.
pub(crate) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(short(bytes, 0)?);
        let kind = short(bytes, 2)? & KIND_MASK;
        let value = bytes.get(ATTRIBUTE_HEADER_BYTES..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// The first attribute of this kind.
pub(crate) fn find(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes).find(|(found, _)| *found == kind).map(|(_, value)| value)
}

fn four(bytes: &[u8], at: usize) -> Option<[u8; 4]> {
    bytes.get(at..at.checked_add(4)?)?.try_into().ok()
}

/// The 32 bits at this place, in the machine's byte order.
pub(crate) fn number(bytes: &[u8], at: usize) -> Option<u32> {
    four(bytes, at).map(u32::from_ne_bytes)
}

/// The 32 bits at the front, in the network's byte order.
pub(crate) fn be(bytes: &[u8]) -> Option<u32> {
    four(bytes, 0).map(u32::from_be_bytes)
}

/// The 16 bits at this place, in the machine's byte order.
pub(crate) fn short(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at.checked_add(2)?)?.try_into().ok().map(u16::from_ne_bytes)
}

/// A text up to its NUL.
pub(crate) fn string(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let mut message = Message::new(16, flags::REQUEST).raw(&[7, 0, 0, 0]);
        message.text(3, "eth0");
        message.nest(18, |inner| {
            inner.u32(1, 42);
            inner.be32(2, 43);
        });
        message.add_flags(flags::ACK);
        let bytes = message.finish(9).unwrap();
        let read: Vec<_> = messages(&bytes).collect();
        let [one] = read[..] else { panic!("one message: {read:?}") };
        assert_eq!((one.kind, one.flags, one.sequence), (16, flags::REQUEST | flags::ACK, 9));
        assert_eq!(find(&one.payload[4..], 3).map(string).as_deref(), Some("eth0"));
        let nested = find(&one.payload[4..], 18).unwrap();
        assert_eq!(find(nested, 1).and_then(|value| number(value, 0)), Some(42));
        assert_eq!(find(nested, 2).and_then(be), Some(43));
    }

    #[test]
    fn what_is_too_long_is_refused() {
        let mut message = Message::new(16, 0);
        message.attribute(1, &[0; 70_000]);
        assert!(matches!(message.finish(1), Err(NetlinkError::Invalid(_))));
    }

    proptest! {
        /// Whatever comes, reading ends, and invents nothing.
        #[test]
        fn noise_is_survived(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let read: usize = messages(&bytes).map(|message| message.payload.len()).sum();
            prop_assert!(read <= bytes.len());
            let read: usize = attributes(&bytes).map(|(_, value)| value.len()).sum();
            prop_assert!(read <= bytes.len());
        }
    }
}
