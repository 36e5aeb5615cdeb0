//! Writes an answer into a buffer that is used again and again.

use std::net::IpAddr;

use super::name::{labels, same, without_labels};
use super::query::Query;
use super::{CLASS_IN, HEADER_BYTES, Rcode, flag, kind};

/// Bytes of our own extension record.
const OPT_BYTES: usize = 11;
/// What we take by UDP from a client, as we tell it: what goes through most networks in one piece.
const UDP_BYTES_OURS: u16 = 1232;
/// Places of names that are remembered for compression.
const PLACES_MAX: usize = 24;
/// A pointer to the name of the question.
const TO_QUESTION: [u8; 2] = [0xc0, HEADER_BYTES as u8];

/// Which part of an answer a record is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Section {
    Answer,
    Authority,
    Additional,
}

/// An answer in the making.
#[derive(Debug)]
pub(crate) struct Writer<'b> {
    out: &'b mut Vec<u8>,
    begin: usize,
    limit: usize,
    flags: u16,
    rcode: Rcode,
    counts: [u16; 3],
    signatures: Option<bool>,
    has_question: bool,
    places: [u16; PLACES_MAX],
    places_used: usize,
    full: bool,
}

impl<'b> Writer<'b> {
    /// Begins an answer at the end of a buffer, which may have `limit` bytes at most.
    pub(crate) fn answer(query: &Query<'_>, limit: usize, out: &'b mut Vec<u8>) -> Self {
        let mut writer = Self::begin(query.id, query.flags, query.question, limit, out);
        writer.signatures = query.edns.map(|edns| edns.wants_signatures);
        if query.edns.is_some() {
            writer.limit = writer.limit.saturating_sub(OPT_BYTES);
        }
        writer
    }

    /// Begins an answer to something that was perhaps not understood.
    pub(crate) fn begin(id: u16, flags: u16, question: &[u8], limit: usize, out: &'b mut Vec<u8>) -> Self {
        let begin = out.len();
        out.extend_from_slice(&id.to_be_bytes());
        out.extend_from_slice(&[0; HEADER_BYTES - 2]);
        out.extend_from_slice(question);
        let kept = flag::OPCODE | flag::RECURSION_DESIRED | flag::CHECKING_DISABLED;
        let flags = flag::RESPONSE | flag::RECURSION_AVAILABLE | flags & kept;
        let mut writer = Self {
            out,
            begin,
            limit,
            flags,
            rcode: Rcode::NO_ERROR,
            counts: [0; 3],
            signatures: None,
            has_question: !question.is_empty(),
            places: [0; PLACES_MAX],
            places_used: 0,
            full: false,
        };
        if let Some(name) = question.get(..question.len().saturating_sub(4)) {
            let mut at = HEADER_BYTES;
            for label in labels(name) {
                writer.remember(at);
                at += 1 + label.len();
            }
        }
        writer
    }

    pub(crate) fn set_rcode(&mut self, rcode: Rcode) {
        self.rcode = rcode;
    }

    pub(crate) fn set_flag(&mut self, flag: u16) {
        self.flags |= flag;
    }

    /// An extended code needs the extension.
    pub(crate) fn needs_edns(&mut self) {
        self.signatures.get_or_insert(false);
    }

    /// Whether a record found no room.
    pub(crate) fn is_full(&self) -> bool {
        self.full
    }

    /// Adds a record about `owner`; `None` stands for the name of the question. What has no room is left out, and the
    /// answer says so unless it is an extra.
    pub(crate) fn record(&mut self, section: Section, owner: Option<&[u8]>, (kind, ttl): (u16, u32), data: &[&[u8]]) {
        self.record_of_class(section, owner, (kind, CLASS_IN, ttl), data);
    }

    /// The same, of another class.
    pub(crate) fn record_of_class(
        &mut self,
        section: Section,
        owner: Option<&[u8]>,
        (kind, class, ttl): (u16, u16, u32),
        data: &[&[u8]],
    ) {
        let length: usize = data.iter().map(|part| part.len()).sum();
        let (Ok(data_length), false) = (u16::try_from(length), self.full) else { return };
        let (start, places_used) = (self.out.len(), self.places_used);
        match owner {
            None => self.out.extend_from_slice(&TO_QUESTION),
            Some(owner) => self.name(owner),
        }
        self.out.extend_from_slice(&kind.to_be_bytes());
        self.out.extend_from_slice(&class.to_be_bytes());
        self.out.extend_from_slice(&ttl.to_be_bytes());
        self.out.extend_from_slice(&data_length.to_be_bytes());
        for part in data {
            self.out.extend_from_slice(part);
        }
        if self.out.len() - self.begin > self.limit {
            self.out.truncate(start);
            self.places_used = places_used;
            self.full = true;
            if section != Section::Additional {
                self.flags |= flag::TRUNCATED;
            }
            return;
        }
        let count = match section {
            Section::Answer => &mut self.counts[0],
            Section::Authority => &mut self.counts[1],
            Section::Additional => &mut self.counts[2],
        };
        *count = count.saturating_add(1);
    }

    /// Adds an address about `owner`.
    pub(crate) fn address(&mut self, section: Section, owner: Option<&[u8]>, ttl: u32, address: IpAddr) {
        match address {
            IpAddr::V4(address) => self.record(section, owner, (kind::A, ttl), &[&address.octets()]),
            IpAddr::V6(address) => self.record(section, owner, (kind::AAAA, ttl), &[&address.octets()]),
        }
    }

    /// Writes a name, with a pointer in place of an end that stands somewhere already.
    fn name(&mut self, name: &[u8]) {
        let count = labels(name).count();
        for skipped in 0..count {
            let rest = without_labels(name, skipped);
            if let Some(place) = self.place_of(rest) {
                self.out.extend_from_slice(&(0xc000 | place).to_be_bytes());
                return;
            }
            let at = self.out.len() - self.begin;
            self.remember(at);
            let label = labels(rest).next().unwrap_or_default();
            self.out.extend_from_slice(rest.get(..=label.len()).unwrap_or_default());
        }
        self.out.push(0);
    }

    fn remember(&mut self, at: usize) {
        // A pointer has fourteen bits.
        let Some(place) = u16::try_from(at).ok().filter(|place| *place < 0x4000) else { return };
        if let Some(slot) = self.places.get_mut(self.places_used) {
            *slot = place;
            self.places_used += 1;
        }
    }

    fn place_of(&self, name: &[u8]) -> Option<u16> {
        let places = self.places.get(..self.places_used).unwrap_or_default();
        places.iter().copied().find(|place| self.is_at(usize::from(*place), name))
    }

    /// Whether a name stands at a place that we wrote.
    fn is_at(&self, mut at: usize, mut name: &[u8]) -> bool {
        let message = self.out.get(self.begin..).unwrap_or_default();
        loop {
            let Some(length) = message.get(at).copied() else { return false };
            if length >= 0xc0 {
                at = usize::from(length & 0x3f) << 8 | usize::from(message.get(at + 1).copied().unwrap_or_default());
                continue;
            }
            let Some(label) = message.get(at..=at + usize::from(length)) else { return false };
            if !name.get(..label.len()).is_some_and(|start| same(start, label)) {
                return false;
            }
            if length == 0 {
                return true;
            }
            at += label.len();
            name = name.get(label.len()..).unwrap_or_default();
        }
    }

    /// Completes the answer, and says how many bytes it has.
    pub(crate) fn finish(self) -> usize {
        let Self { out, begin, flags, rcode, counts, signatures, has_question, .. } = self;
        let mut additional = counts[2];
        if let Some(signatures) = signatures {
            additional = additional.saturating_add(1);
            out.extend_from_slice(&[0, 0, kind::OPT as u8]);
            out.extend_from_slice(&UDP_BYTES_OURS.to_be_bytes());
            let extended = u8::try_from(rcode.0 >> 4).unwrap_or_default();
            out.extend_from_slice(&[extended, 0, if signatures { 0x80 } else { 0 }, 0, 0, 0]);
        }
        let words = [flags | rcode.0 & 0xf, u16::from(has_question), counts[0], counts[1], additional];
        let header = out.get_mut(begin + 2..begin + HEADER_BYTES).unwrap_or_default();
        for (place, word) in header.chunks_exact_mut(2).zip(words) {
            place.copy_from_slice(&word.to_be_bytes());
        }
        out.len() - begin
    }
}

/// Refuses something that may not even be a question.
pub(crate) fn refuse(id: u16, flags: u16, question: &[u8], rcode: Rcode, out: &mut Vec<u8>) {
    let mut writer = Writer::begin(id, flags, question, usize::MAX, out);
    writer.set_rcode(rcode);
    if rcode.0 > 0xf {
        writer.needs_edns();
    }
    writer.finish();
}

#[cfg(test)]
mod tests {
    use super::super::message::Message;
    use super::super::name::Name;
    use super::super::query::tests::query;
    use super::*;

    #[test]
    fn names_that_stand_there_already_are_pointed_to() {
        let bytes = query("_http._tcp.Web.ns.svc.cluster.local", kind::SRV, None);
        let asked = Query::parse(&bytes).expect("a question");
        let mut out = vec![9, 9];
        let mut writer = Writer::answer(&asked, 512, &mut out);
        let target = Name::parse("web.ns.svc.cluster.local").expect("a name");
        let other = Name::parse("x.other.example").expect("a name");
        writer.record(Section::Answer, None, (kind::SRV, 5), &[&[0, 0, 0, 100, 0, 80], target.wire()]);
        writer.address(Section::Additional, Some(target.wire()), 5, IpAddr::from([10, 0, 0, 1]));
        writer.address(Section::Additional, Some(other.wire()), 5, IpAddr::from([10, 0, 0, 2]));
        writer.address(Section::Additional, Some(other.wire()), 5, IpAddr::from([10, 0, 0, 3]));
        let length = writer.finish();
        assert_eq!(length, out.len() - 2);
        let message = Message::parse(&out[2..]).expect("it is whole");
        assert_eq!(message.question.0.to_string(), "_http._tcp.Web.ns.svc.cluster.local.", "the asker's own case");
        let owners: Vec<String> = message.additional.iter().map(|record| record.owner.to_string()).collect();
        assert_eq!(owners, ["Web.ns.svc.cluster.local.", "x.other.example.", "x.other.example."]);
        // Header, question, SRV, then pointers: 2 + 14 bytes for each address but the first of another name.
        assert_eq!(length, bytes.len() + 12 + 6 + target.wire().len() + 16 + other.wire().len() + 14 + 16);
    }

    #[test]
    fn what_has_no_room_is_left_out_and_said_so() {
        let bytes = query("a.example", kind::A, Some((512, true)));
        let asked = Query::parse(&bytes).expect("a question");
        let mut out = Vec::new();
        let mut writer = Writer::answer(&asked, 512, &mut out);
        for last in 0..100 {
            writer.address(Section::Answer, None, 5, IpAddr::from([10, 0, 0, last]));
        }
        assert!(writer.is_full());
        assert!(writer.finish() <= 512);
        let message = Message::parse(&out).expect("it is whole");
        assert!(message.flags & flag::TRUNCATED != 0);
        assert_eq!(message.answers.len(), (512 - bytes.len()) / 16);
    }
}
