//! As much of DER as keys and certificates need that no typed reader or writer covers: tags, lengths, nothing else.

/// `INTEGER`.
pub(crate) const INTEGER: u8 = 0x02;
/// `BIT STRING`.
pub(crate) const BIT_STRING: u8 = 0x03;
/// `OCTET STRING`.
pub(crate) const OCTET_STRING: u8 = 0x04;
/// `UTF8String`.
pub(crate) const UTF8_STRING: u8 = 0x0c;
/// `PrintableString`.
pub(crate) const PRINTABLE_STRING: u8 = 0x13;
/// `SEQUENCE`.
pub(crate) const SEQUENCE: u8 = 0x30;
/// `SET`.
pub(crate) const SET: u8 = 0x31;

/// The tag `[number]` of a constructed value.
pub(crate) const fn context(number: u8) -> u8 {
    0xa0 | number
}

/// One element: tag, length, content.
pub(crate) fn element(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    match u8::try_from(content.len()) {
        Ok(short @ 0..=127) => out.push(short),
        _ => {
            let length: Vec<u8> = content.len().to_be_bytes().into_iter().skip_while(|byte| *byte == 0).collect();
            out.push(0x80 | length.len() as u8); // At most the eight bytes of a length.
            out.extend(length);
        }
    }
    out.extend_from_slice(content);
    out
}

/// One element that holds others.
pub(crate) fn group(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    element(tag, &parts.concat())
}

/// A number without sign, from its bytes, the most significant first.
pub(crate) fn integer(bytes: &[u8]) -> Vec<u8> {
    let mut content: Vec<u8> = bytes.iter().copied().skip_while(|byte| *byte == 0).collect();
    if content.first().is_none_or(|first| first & 0x80 != 0) {
        content.insert(0, 0);
    }
    element(INTEGER, &content)
}

/// An element of an input, and where it lies.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Element<'a> {
    /// Its tag.
    pub tag: u8,
    /// What is in it.
    pub content: &'a [u8],
    /// All of it, with tag and length.
    pub whole: &'a [u8],
}

/// The first element of an input, and what follows it. `None` when there is none, or its length lies.
pub(crate) fn first(input: &[u8]) -> Option<(Element<'_>, &[u8])> {
    let (&[tag, length], rest) = input.split_first_chunk::<2>()?;
    let (length, header) = match length {
        0..=127 => (usize::from(length), 2),
        // Four bytes of length are 4 GiB, more than any certificate.
        0x81..=0x84 => {
            let bytes = rest.get(..usize::from(length & 0x7f))?;
            (bytes.iter().fold(0_usize, |all, byte| all << 8 | usize::from(*byte)), 2 + bytes.len())
        }
        _ => return None,
    };
    let end = header.checked_add(length)?;
    let whole = input.get(..end)?;
    Some((Element { tag, content: whole.get(header..)?, whole }, input.get(end..)?))
}

/// All elements of an input, as long as they can be read.
pub(crate) fn elements(mut input: &[u8]) -> Vec<Element<'_>> {
    let mut found = Vec::new();
    while let Some((element, rest)) = first(input) {
        found.push(element);
        input = rest;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        for length in [0, 1, 127, 128, 255, 256, 65_535, 65_536] {
            let content = vec![7; length];
            let written = element(OCTET_STRING, &content);
            let (read, rest) = first(&written).expect("one element");
            assert_eq!((read.tag, read.content, read.whole), (OCTET_STRING, &content[..], &written[..]));
            assert!(rest.is_empty());
        }
        assert_eq!(elements(&[INTEGER, 1, 5, OCTET_STRING, 0, SEQUENCE, 9]).len(), 2, "the third is cut off");
    }

    #[test]
    fn numbers_are_as_short_as_can_be_and_never_negative() {
        for (bytes, wanted) in
            [(&[][..], &[2, 1, 0][..]), (&[0, 0, 1], &[2, 1, 1]), (&[0x80], &[2, 2, 0, 0x80]), (&[0x7f], &[2, 1, 0x7f])]
        {
            assert_eq!(integer(bytes), wanted);
        }
    }

    #[test]
    fn lying_lengths_end_the_reading() {
        for input in [
            &[][..],
            &[0x30],
            &[0x30, 0x05, 1],
            &[0x30, 0x80],
            &[0x30, 0x85, 1, 1, 1, 1, 1],
            &[0x30, 0x84, 255, 255, 255, 255],
        ] {
            assert!(first(input).is_none(), "{input:?}");
        }
    }
}
