//! As much of PEM and DER as keys need.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

pub(super) const INTEGER: u8 = 0x02;
pub(super) const BIT_STRING: u8 = 0x03;
pub(super) const OCTET_STRING: u8 = 0x04;
pub(super) const OBJECT_IDENTIFIER: u8 = 0x06;
pub(super) const SEQUENCE: u8 = 0x30;

/// Bytes with a tag before them.
#[derive(Clone, Copy)]
pub(super) struct Element<'a> {
    pub(super) tag: u8,
    pub(super) content: &'a [u8],
    /// With the tag and the length.
    pub(super) whole: &'a [u8],
}

impl<'a> Element<'a> {
    /// The parts of a sequence or of anything else that has a tag for its kind.
    pub(super) fn parts(self, tag: u8) -> Option<Vec<Element<'a>>> {
        (self.tag == tag).then(|| elements(self.content)).flatten()
    }

    /// The bytes, if they are of this kind.
    pub(super) fn content(self, tag: u8) -> Option<&'a [u8]> {
        (self.tag == tag).then_some(self.content)
    }

    /// The bytes of a bit string that ends with a whole byte.
    pub(super) fn bits(self) -> Option<&'a [u8]> {
        self.content(BIT_STRING)?.strip_prefix(&[0])
    }
}

/// The first element, and what follows it.
pub(super) fn first(bytes: &[u8]) -> Option<(Element<'_>, &[u8])> {
    let (&tag, rest) = bytes.split_first()?;
    let (&short, rest) = rest.split_first()?;
    let (length, rest) = match short {
        0..=0x7f => (usize::from(short), rest),
        0x81..=0x83 => {
            let (digits, rest) = rest.split_at_checked(usize::from(short & 0x0f))?;
            (digits.iter().fold(0, |length, digit| length << 8 | usize::from(*digit)), rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    let whole = bytes.get(..bytes.len() - rest.len())?;
    Some((Element { tag, content, whole }, rest))
}

/// All elements; `None` if something else is among them.
fn elements(mut bytes: &[u8]) -> Option<Vec<Element<'_>>> {
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let (element, rest) = first(bytes)?;
        found.push(element);
        bytes = rest;
    }
    Some(found)
}

/// An element of these parts.
pub(super) fn encode(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let content = parts.concat();
    let length = content.len().to_be_bytes();
    let digits: Vec<u8> = length.into_iter().skip_while(|byte| *byte == 0).collect();
    let mut bytes = vec![tag];
    match digits.as_slice() {
        [] => bytes.push(0),
        [short @ 0..=0x7f] => bytes.push(*short),
        // A length has no more than eight bytes.
        long => bytes.extend([0x80 | u8::try_from(long.len()).unwrap_or_default()].iter().chain(long)),
    }
    bytes.extend(content);
    bytes
}

/// The sections of a PEM file by label, in their order; what is no base64 is passed over.
pub(super) fn sections(pem: &str) -> Vec<(&str, Vec<u8>)> {
    let mut found = Vec::new();
    let mut rest = pem;
    while let Some((_, after)) = rest.split_once("-----BEGIN ") {
        let Some((label, after)) = after.split_once("-----") else { break };
        rest = after;
        let Some((body, after)) = after.split_once("-----END ") else { break };
        let body: String = body.split_ascii_whitespace().collect();
        if let Ok(bytes) = STANDARD.decode(body) {
            found.push((label, bytes));
            rest = after;
        }
    }
    found
}
