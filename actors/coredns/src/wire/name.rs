//! Names as they are on the wire: labels with their lengths before them, and an empty one at the end.

use std::fmt;

use thiserror::Error;

/// Bytes of the longest name, with its lengths.
pub(crate) const NAME_BYTES_MAX: usize = 255;
/// Bytes of the longest label.
pub(crate) const LABEL_BYTES_MAX: usize = 63;

/// Why a text or some bytes are no name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(crate) enum NameError {
    #[error("a label of the name is empty or longer than 63 bytes")]
    Label,
    #[error("the name is longer than 255 bytes")]
    Length,
    #[error("the name has an invalid escape")]
    Escape,
    #[error("the name is cut off, or its pointers lead nowhere")]
    Malformed,
}

/// A name of its own, in the case in which it was given.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Name(Box<[u8]>);

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&text(&self.0))
    }
}

impl Name {
    /// The root.
    pub(crate) fn root() -> Self {
        Self(Box::new([0]))
    }

    /// From bytes that are known to be a name.
    pub(crate) fn from_wire(bytes: &[u8]) -> Self {
        debug_assert!(is_wire(bytes), "{bytes:?}");
        Self(bytes.into())
    }

    /// From `a.b.c`, with or without a dot at the end.
    ///
    /// # Errors
    /// See [`NameError`].
    pub(crate) fn parse(text: &str) -> Result<Self, NameError> {
        Self::parse_below(text, &[0])
    }

    /// The same in small letters.
    pub(crate) fn parse_lower(text: &str) -> Result<Self, NameError> {
        Self::parse(text).map(|name| name.lower())
    }

    /// From a text that, without a dot at its end, is below another name.
    ///
    /// # Errors
    /// See [`NameError`].
    pub(crate) fn parse_below(text: &str, origin: &[u8]) -> Result<Self, NameError> {
        if text == "." {
            return Ok(Self::root());
        }
        let mut bytes = Vec::with_capacity(text.len() + 2);
        let mut label = Vec::new();
        let mut rest = text.bytes();
        let mut is_absolute = false;
        while let Some(byte) = rest.next() {
            is_absolute = false;
            match byte {
                b'.' => {
                    end_label(&mut bytes, &mut label)?;
                    is_absolute = true;
                }
                b'\\' => label.push(unescape(&mut rest)?),
                byte => label.push(byte),
            }
        }
        if is_absolute {
            bytes.push(0);
        } else {
            end_label(&mut bytes, &mut label)?;
            bytes.extend_from_slice(origin);
        }
        if bytes.len() > NAME_BYTES_MAX {
            return Err(NameError::Length);
        }
        Ok(Self(bytes.into()))
    }

    /// The same in small letters.
    pub(crate) fn lower(&self) -> Self {
        Self(self.0.to_ascii_lowercase().into())
    }

    pub(crate) fn wire(&self) -> &[u8] {
        &self.0
    }
}

fn end_label(bytes: &mut Vec<u8>, label: &mut Vec<u8>) -> Result<(), NameError> {
    match u8::try_from(label.len()) {
        Ok(length @ 1..=63) => {
            bytes.push(length);
            bytes.append(label);
            Ok(())
        }
        _ => Err(NameError::Label),
    }
}

/// What a backslash stands before: a character, or three digits.
fn unescape(rest: &mut std::str::Bytes<'_>) -> Result<u8, NameError> {
    let first = rest.next().ok_or(NameError::Escape)?;
    if !first.is_ascii_digit() {
        return Ok(first);
    }
    let mut number = u32::from(first - b'0');
    for _ in 0..2 {
        let digit = rest.next().filter(u8::is_ascii_digit).ok_or(NameError::Escape)?;
        number = number * 10 + u32::from(digit - b'0');
    }
    u8::try_from(number).map_err(|_| NameError::Escape)
}

/// A name on the stack.
#[derive(Clone)]
pub(crate) struct NameBuf {
    bytes: [u8; NAME_BYTES_MAX],
    length: u8,
}

impl fmt::Debug for NameBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&text(self.wire()))
    }
}

impl NameBuf {
    /// A copy in small letters, of bytes that are known to be a name.
    pub(crate) fn lower(name: &[u8]) -> Self {
        let mut copy = Self { bytes: [0; NAME_BYTES_MAX], length: 0 };
        let length = name.len().min(NAME_BYTES_MAX);
        if let (Some(to), Some(from)) = (copy.bytes.get_mut(..length), name.get(..length)) {
            to.copy_from_slice(from);
            to.make_ascii_lowercase();
        }
        copy.length = u8::try_from(length).unwrap_or(u8::MAX);
        copy
    }

    pub(crate) fn wire(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.length)).unwrap_or_default()
    }
}

/// The labels of a name, without the empty one.
pub(crate) fn labels(mut name: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (length, rest) = name.split_first()?;
        let (label, rest) = rest.split_at_checked(usize::from(*length)).filter(|(label, _)| !label.is_empty())?;
        name = rest;
        Some(label)
    })
}

/// How many labels a name has, without the empty one.
pub(crate) fn label_count(name: &[u8]) -> usize {
    labels(name).count()
}

/// A name without its first labels; the root if there are no more.
pub(crate) fn without_labels(mut name: &[u8], count: usize) -> &[u8] {
    for _ in 0..count {
        let Some((length, rest)) = name.split_first().filter(|(length, _)| **length > 0) else { break };
        name = rest.get(usize::from(*length)..).unwrap_or(&[0]);
    }
    name
}

/// What stands before a zone in a name: the labels in front, as bytes of the wire without an end. `None` if the name isn't
/// in the zone. Both in small letters.
pub(crate) fn below<'a>(name: &'a [u8], zone: &[u8]) -> Option<&'a [u8]> {
    let front = name.len().checked_sub(zone.len())?;
    let (before, end) = name.split_at_checked(front)?;
    if end != zone {
        return None;
    }
    // The end has to begin where a label does.
    let mut at = 0;
    while at < front {
        at += 1 + usize::from(*before.get(at)?);
    }
    (at == front).then_some(before)
}

/// Whether two names are the same, whatever the case of their letters.
pub(crate) fn same(one: &[u8], other: &[u8]) -> bool {
    // Lengths are below 64, so that no length looks like a letter.
    one.eq_ignore_ascii_case(other)
}

/// A name for people: with a dot at the end, strange bytes escaped.
pub(crate) fn text(name: &[u8]) -> String {
    let mut text = String::new();
    for label in labels(name) {
        for byte in label {
            match byte {
                b'.' | b'\\' | b'"' | b';' => {
                    text.push('\\');
                    text.push(char::from(*byte));
                }
                0x21..=0x7e => text.push(char::from(*byte)),
                byte => text.push_str(&format!("\\{byte:03}")),
            }
        }
        text.push('.');
    }
    if text.is_empty() { ".".to_owned() } else { text }
}

fn is_wire(name: &[u8]) -> bool {
    let mut at = 0;
    loop {
        match name.get(at) {
            Some(0) => return at + 1 == name.len() && name.len() <= NAME_BYTES_MAX,
            Some(length) if usize::from(*length) <= LABEL_BYTES_MAX => at += 1 + usize::from(*length),
            _ => return false,
        }
    }
}

/// Reads a name that may be compressed, and appends it to `out`. Says where it ends in the message.
///
/// # Errors
/// [`NameError::Malformed`], or [`NameError::Length`].
pub(crate) fn read(message: &[u8], mut at: usize, out: &mut Vec<u8>) -> Result<usize, NameError> {
    let begin = out.len();
    let mut end = None;
    // A pointer leads to where a name stood before: each one further to the front than the last, so there is an end.
    let mut floor = at;
    loop {
        let length = usize::from(*message.get(at).ok_or(NameError::Malformed)?);
        match length {
            0 => {
                out.push(0);
                return Ok(end.unwrap_or(at + 1));
            }
            1..=LABEL_BYTES_MAX => {
                let label = message.get(at..at + 1 + length).ok_or(NameError::Malformed)?;
                if out.len() - begin + label.len() + 1 > NAME_BYTES_MAX {
                    return Err(NameError::Length);
                }
                out.extend_from_slice(label);
                at += 1 + length;
            }
            0xc0..=0xff => {
                let low = usize::from(*message.get(at + 1).ok_or(NameError::Malformed)?);
                let target = (length & 0x3f) << 8 | low;
                end.get_or_insert(at + 2);
                if target >= floor {
                    return Err(NameError::Malformed);
                }
                (at, floor) = (target, target);
            }
            _ => return Err(NameError::Malformed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        Name::parse(text).expect("a name")
    }

    #[test]
    fn texts_become_names_and_texts_again() {
        for (given, shown) in [
            ("a.b", "a.b."),
            ("a.b.", "a.b."),
            (".", "."),
            (r"a\.b.c", r"a\.b.c."),
            (r"a\010b.", r"a\010b."),
            ("_http._tcp.x", "_http._tcp.x."),
        ] {
            assert_eq!(name(given).to_string(), shown);
        }
        for (wrong, why) in [
            ("", NameError::Label),
            ("a..b", NameError::Label),
            (".a", NameError::Label),
            (r"a\", NameError::Escape),
            (r"a\25", NameError::Escape),
            (r"a\256", NameError::Escape),
            (&"x".repeat(64), NameError::Label),
            (&"abcdefg.".repeat(32), NameError::Length),
        ] {
            assert_eq!(Name::parse(wrong), Err(why), "{wrong}");
        }
        assert_eq!(
            Name::parse_below("www", name("Example.org").wire()).map(|name| name.to_string()),
            Ok("www.Example.org.".to_owned())
        );
        assert_eq!(
            Name::parse_below("www.", name("example.org").wire()).map(|name| name.to_string()),
            Ok("www.".to_owned())
        );
    }

    #[test]
    fn zones_end_at_labels() {
        let zone = name("cluster.local");
        for (text, front) in [
            ("cluster.local", Some("")),
            ("a.b.cluster.local", Some("\u{1}a\u{1}b")),
            ("xcluster.local", None),
            ("a.cluster.local.x", None),
            ("local", None),
        ] {
            assert_eq!(below(name(text).wire(), zone.wire()), front.map(str::as_bytes), "{text}");
        }
        // The bytes of the zone inside a longer label.
        let tricky = Name(Box::from(&b"\x0fx\x07cluster\x05local\x00"[..]));
        assert_eq!(below(&tricky.0, zone.wire()), None);
        assert_eq!(below(name("a.").wire(), &[0]), Some(&b"\x01a"[..]));
        assert_eq!(text(without_labels(name("a.b.c").wire(), 2)), "c.");
        assert_eq!(without_labels(name("a").wire(), 5), [0]);
    }

    #[test]
    fn pointers_lead_backwards_or_nowhere() {
        let message = b"\x01a\x01b\x00\x01x\xc0\x02\xc0\x05\xc0\x0b\xc0\x63\x40";
        let read_at = |at| {
            let mut out = Vec::new();
            read(message, at, &mut out).map(|end| (text(&out), end))
        };
        assert_eq!(read_at(0), Ok(("a.b.".to_owned(), 5)));
        assert_eq!(read_at(5), Ok(("x.b.".to_owned(), 9)));
        assert_eq!(read_at(9), Ok(("x.b.".to_owned(), 11)));
        assert_eq!(read_at(11), Err(NameError::Malformed), "it leads to itself");
        assert_eq!(read_at(13), Err(NameError::Malformed), "it leads out of the message");
        assert_eq!(read_at(15), Err(NameError::Malformed), "an unknown kind of label");
        assert_eq!(read_at(99), Err(NameError::Malformed));
    }
}
