//! What somebody asks.

use super::name::{LABEL_BYTES_MAX, NAME_BYTES_MAX, NameBuf};
use super::{HEADER_BYTES, Rcode, flag, kind, u16_at, u32_at};

/// The smallest room for an answer by UDP that anybody has.
const UDP_BYTES_MIN: u16 = 512;

/// The extension that tells how much room there is, and whether signatures are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Edns {
    /// Bytes that an answer by UDP may have.
    pub(crate) udp_bytes: u16,
    /// Signatures are wanted.
    pub(crate) wants_signatures: bool,
}

/// A question that was understood. Borrows the bytes that it came as.
#[derive(Clone, Debug)]
pub(crate) struct Query<'a> {
    pub(crate) id: u16,
    pub(crate) flags: u16,
    /// The name in small letters.
    pub(crate) name: NameBuf,
    /// The question section, in the case that the asker chose.
    pub(crate) question: &'a [u8],
    pub(crate) kind: u16,
    pub(crate) class: u16,
    pub(crate) edns: Option<Edns>,
}

/// Why something isn't a question that can be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bad<'a> {
    /// No answer is due: it is too short, or an answer itself.
    Silence,
    /// It is refused so.
    Refuse {
        id: u16,
        flags: u16,
        /// The question as far as it was understood; empty if it wasn't.
        question: &'a [u8],
        rcode: Rcode,
    },
}

impl<'a> Query<'a> {
    /// Reads a message.
    ///
    /// # Errors
    /// See [`Bad`].
    pub(crate) fn parse(bytes: &'a [u8]) -> Result<Self, Bad<'a>> {
        let header = |at| u16_at(bytes, at).ok_or(Bad::Silence);
        let (id, flags) = (header(0)?, header(2)?);
        let counts = [header(4)?, header(6)?, header(8)?, header(10)?];
        if flags & flag::RESPONSE != 0 {
            return Err(Bad::Silence);
        }
        let refuse = |rcode, question| Bad::Refuse { id, flags, question, rcode };
        if flags & flag::OPCODE != 0 {
            return Err(refuse(Rcode::NOT_IMPLEMENTED, &[]));
        }
        let malformed = refuse(Rcode::FORMAT_ERROR, &[]);
        if counts[0] != 1 {
            return Err(malformed);
        }
        let name_end = plain_name_end(bytes, HEADER_BYTES).ok_or(malformed)?;
        let name = NameBuf::lower(bytes.get(HEADER_BYTES..name_end).ok_or(malformed)?);
        let kind = u16_at(bytes, name_end).ok_or(malformed)?;
        let class = u16_at(bytes, name_end + 2).ok_or(malformed)?;
        let question = bytes.get(HEADER_BYTES..name_end + 4).ok_or(malformed)?;
        let records = counts[1..].iter().map(|count| u32::from(*count)).sum();
        let edns = match find_edns(bytes, name_end + 4, records) {
            Ok(edns) => edns,
            Err(rcode) => return Err(refuse(rcode, question)),
        };
        Ok(Self { id, flags, name, question, kind, class, edns })
    }

    /// Bytes that an answer by UDP may have.
    pub(crate) fn udp_bytes(&self) -> usize {
        usize::from(self.edns.map_or(UDP_BYTES_MIN, |edns| edns.udp_bytes.max(UDP_BYTES_MIN)))
    }
}

/// Where a name ends that may not be compressed: nothing stands before it that a pointer could lead to.
fn plain_name_end(bytes: &[u8], begin: usize) -> Option<usize> {
    let mut at = begin;
    loop {
        match usize::from(*bytes.get(at)?) {
            0 => return (at + 1 - begin <= NAME_BYTES_MAX).then_some(at + 1),
            length if length <= LABEL_BYTES_MAX => at += 1 + length,
            _ => return None,
        }
    }
}

/// Looks through the records behind the question.
fn find_edns(bytes: &[u8], mut at: usize, records: u32) -> Result<Option<Edns>, Rcode> {
    let mut found = None;
    for _ in 0..records {
        let name_end = skip_name(bytes, at).ok_or(Rcode::FORMAT_ERROR)?;
        let field = |at| u16_at(bytes, at).ok_or(Rcode::FORMAT_ERROR);
        let (kind, class) = (field(name_end)?, field(name_end + 2)?);
        let ttl = u32_at(bytes, name_end + 4).ok_or(Rcode::FORMAT_ERROR)?;
        let length = usize::from(field(name_end + 8)?);
        at = name_end + 10 + length;
        if at > bytes.len() {
            return Err(Rcode::FORMAT_ERROR);
        }
        if kind != kind::OPT {
            continue;
        }
        if found.is_some() {
            return Err(Rcode::FORMAT_ERROR);
        }
        if ttl >> 16 & 0xff != 0 {
            return Err(Rcode::BAD_VERSION);
        }
        found = Some(Edns { udp_bytes: class, wants_signatures: ttl & 0x8000 != 0 });
    }
    Ok(found)
}

/// Where a name ends that may be compressed.
pub(crate) fn skip_name(bytes: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match usize::from(*bytes.get(at)?) {
            0 => return Some(at + 1),
            length if length <= LABEL_BYTES_MAX => at += 1 + length,
            length if length >= 0xc0 => return (at + 2 <= bytes.len()).then_some(at + 2),
            _ => return None,
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::super::name::{Name, text};
    use super::*;

    /// A query as a client sends it.
    pub(crate) fn query(name: &str, kind: u16, edns: Option<(u16, bool)>) -> Vec<u8> {
        let mut bytes = vec![0x12, 0x34, 0x01, 0, 0, 1, 0, 0, 0, 0, 0, u8::from(edns.is_some())];
        bytes.extend_from_slice(Name::parse(name).expect("a name").wire());
        bytes.extend_from_slice(&kind.to_be_bytes());
        bytes.extend_from_slice(&[0, 1]);
        if let Some((size, signatures)) = edns {
            bytes.extend_from_slice(&[0, 0, 41]);
            bytes.extend_from_slice(&size.to_be_bytes());
            bytes.extend_from_slice(&[0, 0, if signatures { 0x80 } else { 0 }, 0, 0, 0]);
        }
        bytes
    }

    #[test]
    fn a_question_is_read_with_its_extension() {
        let bytes = query("Web.Example", kind::AAAA, Some((1232, true)));
        let read = Query::parse(&bytes).expect("a question");
        assert_eq!(
            (read.id, read.kind, read.class, text(read.name.wire())),
            (0x1234, 28, 1, "web.example.".to_owned())
        );
        assert_eq!(&read.question[1..4], b"Web");
        assert_eq!(read.edns, Some(Edns { udp_bytes: 1232, wants_signatures: true }));
        let bytes = query("a", kind::A, Some((0, false)));
        assert_eq!(Query::parse(&bytes).map(|query| query.udp_bytes()).ok(), Some(512));
    }

    #[test]
    fn what_is_no_question_is_refused_or_ignored() {
        let good = query("web.example", kind::A, Some((1232, false)));
        let changed = |at: usize, byte: u8| {
            let mut bytes = good.clone();
            bytes[at] = byte;
            bytes
        };
        let refused = |bytes: &[u8]| match Query::parse(bytes) {
            Err(Bad::Refuse { rcode, .. }) => Some(rcode),
            _ => None,
        };
        assert_eq!(Query::parse(&good[..11]).err(), Some(Bad::Silence));
        assert_eq!(Query::parse(&changed(2, 0x81)).err(), Some(Bad::Silence), "an answer");
        assert_eq!(refused(&changed(2, 0x28)), Some(Rcode::NOT_IMPLEMENTED));
        assert_eq!(refused(&changed(5, 2)), Some(Rcode::FORMAT_ERROR));
        assert_eq!(refused(&changed(5, 0)), Some(Rcode::FORMAT_ERROR));
        assert_eq!(refused(&changed(12, 0xc0)), Some(Rcode::FORMAT_ERROR), "a pointer");
        assert_eq!(refused(&changed(11, 9)), Some(Rcode::FORMAT_ERROR), "records that aren't there");
        let version = good.len() - 5;
        assert_eq!(refused(&changed(version, 1)), Some(Rcode::BAD_VERSION));
        for length in 12..good.len() {
            assert_eq!(refused(&good[..length]), Some(Rcode::FORMAT_ERROR), "{length}");
        }
    }
}
