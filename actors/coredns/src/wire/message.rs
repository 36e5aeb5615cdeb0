//! A whole message with its records, as upstream servers send it.

use thiserror::Error;

use super::name::{Name, NameError, read};
use super::{HEADER_BYTES, Rcode, flag, kind, u16_at, u32_at};

/// A record on its own: no name in it is compressed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) owner: Name,
    pub(crate) kind: u16,
    pub(crate) class: u16,
    /// Seconds.
    pub(crate) ttl: u32,
    pub(crate) data: Box<[u8]>,
}

/// Why bytes are no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(crate) enum Malformed {
    #[error("the message is cut off")]
    Short,
    #[error("a name in the message is wrong")]
    Name(#[from] NameError),
}

/// A message with one question.
#[derive(Clone, Debug)]
pub(crate) struct Message {
    pub(crate) id: u16,
    pub(crate) flags: u16,
    pub(crate) rcode: Rcode,
    /// Name, type and class.
    pub(crate) question: (Name, u16, u16),
    pub(crate) answers: Vec<Record>,
    pub(crate) authority: Vec<Record>,
    /// Without the extension.
    pub(crate) additional: Vec<Record>,
}

impl Message {
    /// Reads a message.
    ///
    /// # Errors
    /// See [`Malformed`]; that there isn't exactly one question is one of them.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        let word = |at| u16_at(bytes, at).ok_or(Malformed::Short);
        let (id, flags) = (word(0)?, word(2)?);
        if word(4)? != 1 {
            return Err(Malformed::Short);
        }
        let mut name = Vec::new();
        let end = read(bytes, HEADER_BYTES, &mut name)?;
        let question = (Name::from_wire(&name), word(end)?, word(end + 2)?);
        let mut at = end + 4;
        let mut sections = [Vec::new(), Vec::new(), Vec::new()];
        let mut rcode = flags & 0xf;
        for (section, count) in sections.iter_mut().zip([word(6)?, word(8)?, word(10)?]) {
            for _ in 0..count {
                let (record, end) = read_record(bytes, at)?;
                at = end;
                if record.kind == kind::OPT {
                    rcode |= u16::try_from(record.ttl >> 24).unwrap_or_default() << 4;
                } else {
                    section.push(record);
                }
            }
        }
        let [answers, authority, additional] = sections;
        Ok(Self { id, flags, rcode: Rcode(rcode), question, answers, authority, additional })
    }

    /// Whether more was to be said than had room.
    pub(crate) fn is_truncated(&self) -> bool {
        self.flags & flag::TRUNCATED != 0
    }
}

fn read_record(bytes: &[u8], at: usize) -> Result<(Record, usize), Malformed> {
    let word = |at| u16_at(bytes, at).ok_or(Malformed::Short);
    let mut owner = Vec::new();
    let at = read(bytes, at, &mut owner)?;
    let (kind, class) = (word(at)?, word(at + 2)?);
    let ttl = u32_at(bytes, at + 4).ok_or(Malformed::Short)?;
    let begin = at + 10;
    let end = begin + usize::from(word(at + 8)?);
    let data = read_data(bytes, kind, begin, end)?;
    Ok((Record { owner: Name::from_wire(&owner), kind, class, ttl, data }, end))
}

/// What a record says. Names in it may be compressed only in types from before that was forbidden; in those they are
/// written out.
fn read_data(bytes: &[u8], kind: u16, begin: usize, end: usize) -> Result<Box<[u8]>, Malformed> {
    let raw = bytes.get(begin..end).ok_or(Malformed::Short)?;
    // Bytes before the names, and how many names there are; the old types for mail are from RFC 1035.
    let (before, names) = match kind {
        kind::NS | kind::CNAME | kind::PTR | kind::DNAME | 3 | 4 | 7 | 8 | 9 => (0, 1),
        kind::MX | kind::AFSDB => (2, 1),
        kind::SRV => (6, 1),
        kind::SOA | 14 | 17 => (0, 2),
        _ => return Ok(raw.into()),
    };
    let mut data = raw.get(..before).ok_or(Malformed::Short)?.to_vec();
    let mut at = begin + before;
    for _ in 0..names {
        at = read(bytes, at, &mut data)?;
    }
    data.extend_from_slice(bytes.get(at..end).ok_or(Malformed::Short)?);
    Ok(data.into())
}

/// The name that such a record is about nothing but.
pub(crate) fn target(record: &Record) -> Option<&[u8]> {
    matches!(record.kind, kind::CNAME | kind::PTR | kind::NS | kind::DNAME).then_some(&record.data)
}

#[cfg(test)]
mod tests {
    use super::super::name::text;
    use super::*;

    /// An answer with a CNAME whose target is compressed, an address behind it, and an extension.
    const ANSWER: &[u8] = b"\x12\x34\x81\x80\x00\x01\x00\x02\x00\x00\x00\x01\
        \x03www\x07example\x00\x00\x01\x00\x01\
        \xc0\x0c\x00\x05\x00\x01\x00\x00\x00\x3c\x00\x04\x01a\xc0\x10\
        \xc0\x29\x00\x01\x00\x01\x00\x00\x00\x3c\x00\x04\x0a\x00\x00\x01\
        \x00\x00\x29\x04\xd0\x01\x00\x00\x00\x00\x00";

    #[test]
    fn an_answer_is_read_with_its_names_written_out() {
        let message = Message::parse(ANSWER).expect("a message");
        assert_eq!((message.id, message.rcode, message.is_truncated()), (0x1234, Rcode(0x10), false));
        assert_eq!(message.answers.len(), 2);
        assert_eq!(target(&message.answers[0]).map(text), Some("a.example.".to_owned()));
        assert_eq!(message.answers[1].owner.to_string(), "a.example.");
        assert_eq!(*message.answers[1].data, [10, 0, 0, 1]);
        assert!(message.additional.is_empty());
    }

    #[test]
    fn no_bytes_make_it_panic() {
        for length in 0..ANSWER.len() {
            assert!(Message::parse(&ANSWER[..length]).is_err(), "{length}");
        }
        for at in 0..ANSWER.len() {
            for byte in [0, 1, 0x3f, 0x40, 0x7f, 0x80, 0xc0, 0xff] {
                let mut bytes = ANSWER.to_vec();
                bytes[at] = byte;
                Message::parse(&bytes).ok();
            }
        }
    }
}
