//! DNS messages, as bytes: what is read of a query, how an answer is written, and what upstream servers say.
//!
//! Cluster answers are written straight into a buffer that is used again and again, so the codec is our own: a library that
//! builds messages from objects allocates for each record, and what is needed of the format is this folder. It never
//! panics on what comes from outside, and follows no pointer that doesn't lead backwards.

pub(crate) mod message;
pub(crate) mod name;
pub(crate) mod query;
pub(crate) mod writer;

/// The class of the Internet.
pub(crate) const CLASS_IN: u16 = 1;
/// Bytes of the header of a message.
pub(crate) const HEADER_BYTES: usize = 12;

/// Types of records, by their numbers.
pub(crate) mod kind {
    pub(crate) const A: u16 = 1;
    pub(crate) const NS: u16 = 2;
    pub(crate) const CNAME: u16 = 5;
    pub(crate) const SOA: u16 = 6;
    pub(crate) const PTR: u16 = 12;
    pub(crate) const MX: u16 = 15;
    pub(crate) const TXT: u16 = 16;
    pub(crate) const AFSDB: u16 = 18;
    pub(crate) const AAAA: u16 = 28;
    pub(crate) const SRV: u16 = 33;
    pub(crate) const DNAME: u16 = 39;
    pub(crate) const OPT: u16 = 41;
    pub(crate) const IXFR: u16 = 251;
    pub(crate) const AXFR: u16 = 252;
    pub(crate) const ANY: u16 = 255;
    pub(crate) const CAA: u16 = 257;

    /// Names and numbers, for the types that people write down.
    const NAMES: [(&str, u16); 26] = [
        ("A", A),
        ("NS", NS),
        ("CNAME", CNAME),
        ("SOA", SOA),
        ("PTR", PTR),
        ("HINFO", 13),
        ("MX", MX),
        ("TXT", TXT),
        ("RP", 17),
        ("AFSDB", AFSDB),
        ("AAAA", AAAA),
        ("LOC", 29),
        ("SRV", SRV),
        ("NAPTR", 35),
        ("DNAME", DNAME),
        ("DS", 43),
        ("SSHFP", 44),
        ("RRSIG", 46),
        ("NSEC", 47),
        ("DNSKEY", 48),
        ("TLSA", 52),
        ("SVCB", 64),
        ("HTTPS", 65),
        ("SPF", 99),
        ("ANY", ANY),
        ("CAA", CAA),
    ];

    /// The number of a type, by its name or as `TYPE123`.
    pub(crate) fn of(text: &str) -> Option<u16> {
        let known = NAMES.iter().find(|(name, _)| name.eq_ignore_ascii_case(text)).map(|(_, number)| *number);
        let digits = text.get(..4).filter(|prefix| prefix.eq_ignore_ascii_case("TYPE")).and_then(|_| text.get(4..));
        known.or_else(|| digits?.parse().ok())
    }

    /// The name of a type, for people.
    pub(crate) fn name(number: u16) -> String {
        let known = NAMES.iter().find(|(_, known)| *known == number);
        known.map_or_else(|| format!("TYPE{number}"), |(name, _)| (*name).to_owned())
    }
}

/// How a request went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rcode(pub(crate) u16);

impl Rcode {
    pub(crate) const NO_ERROR: Self = Self(0);
    pub(crate) const FORMAT_ERROR: Self = Self(1);
    pub(crate) const SERVER_FAILURE: Self = Self(2);
    pub(crate) const NO_SUCH_NAME: Self = Self(3);
    pub(crate) const NOT_IMPLEMENTED: Self = Self(4);
    pub(crate) const REFUSED: Self = Self(5);
    /// An EDNS version that isn't known; only fits with EDNS.
    pub(crate) const BAD_VERSION: Self = Self(16);

    /// What people call it.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::NO_ERROR => "NOERROR",
            Self::FORMAT_ERROR => "FORMERR",
            Self::SERVER_FAILURE => "SERVFAIL",
            Self::NO_SUCH_NAME => "NXDOMAIN",
            Self::NOT_IMPLEMENTED => "NOTIMP",
            Self::REFUSED => "REFUSED",
            Self::BAD_VERSION => "BADVERS",
            _ => "other",
        }
    }
}

/// Bits of the second word of the header.
pub(crate) mod flag {
    pub(crate) const RESPONSE: u16 = 0x8000;
    pub(crate) const OPCODE: u16 = 0x7800;
    pub(crate) const AUTHORITATIVE: u16 = 0x0400;
    pub(crate) const TRUNCATED: u16 = 0x0200;
    pub(crate) const RECURSION_DESIRED: u16 = 0x0100;
    pub(crate) const RECURSION_AVAILABLE: u16 = 0x0080;
    pub(crate) const AUTHENTIC: u16 = 0x0020;
    pub(crate) const CHECKING_DISABLED: u16 = 0x0010;
}

/// Two bytes at a place.
pub(crate) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at.checked_add(2)?)?.try_into().ok().map(u16::from_be_bytes)
}

/// Four bytes at a place.
pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at.checked_add(4)?)?.try_into().ok().map(u32::from_be_bytes)
}
