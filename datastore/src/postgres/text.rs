//! Between keys and PostgreSQL's text, which is UTF-8 without zero bytes.
//!
//! A key that is no such text can't be stored; the bounds of a range may be any bytes all the same, and are moved to
//! the next text, which leaves the same names inside.

use crate::error::StoreError;
use crate::types::{Key, KeyRange};

/// The name of a key, if it can have one.
pub(super) fn name(key: &Key) -> Option<&str> {
    std::str::from_utf8(key.as_bytes()).ok().filter(|text| !text.contains('\0'))
}

/// The name of a key that is to be written.
pub(super) fn writable_name(key: &Key) -> Result<&str, StoreError> {
    name(key)
        .ok_or_else(|| StoreError::invalid(format!("key {key:?} is not UTF-8 without zero bytes, as PostgreSQL needs")))
}

/// A range over names.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NameRange {
    pub start: String,
    /// None when there is no end.
    pub end: Option<String>,
}

impl NameRange {
    /// None when no name can be inside.
    pub(super) fn new(range: &KeyRange) -> Option<Self> {
        Some(Self {
            start: at_least(range.start().as_bytes())?,
            end: range.end().and_then(|end| at_least(end.as_bytes())),
        })
    }
}

/// The smallest text that is not less than these bytes; none when every text is less.
fn at_least(bytes: &[u8]) -> Option<String> {
    let valid = match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => std::str::from_utf8(&bytes[..error.valid_up_to()]).unwrap_or_default(),
    };
    let prefix = valid.split('\0').next().unwrap_or_default();
    let rest = &bytes[prefix.len()..];
    if rest.is_empty() {
        return Some(prefix.to_owned());
    }
    if let Some(next) = first_char_not_below(rest) {
        return Some(format!("{prefix}{next}"));
    }
    // Nothing that begins with the prefix is great enough: whatever comes behind all of that is.
    KeyRange::prefix(prefix).end().and_then(|end| at_least(end.as_bytes()))
}

/// Characters sort as their bytes do, so the first one can be found by halving.
fn first_char_not_below(bytes: &[u8]) -> Option<char> {
    // The surrogates are no characters; what follows them stands in for them.
    let at = |number: u32| char::from_u32(number).unwrap_or('\u{e000}');
    let (mut low, mut high) = (1, u32::from(char::MAX) + 1);
    while low < high {
        let middle = low.midpoint(high);
        if at(middle).encode_utf8(&mut [0; 4]).as_bytes() >= bytes { high = middle } else { low = middle + 1 }
    }
    (low <= u32::from(char::MAX)).then(|| at(low))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_in_text_leaves_the_same_names_inside() {
        let names =
            ["", "\u{1}", "a", "a\u{1}", "a\u{1}b", "aa", "b", "é", "é/", "ê", "\u{d7ff}", "\u{e000}", "\u{10ffff}x"];
        let bounds: [&[u8]; 13] = [
            b"",
            b"\0",
            b"a",
            b"a\0",
            b"a\0\xff",
            b"a\xff",
            b"\xc3",
            b"\xc3\xa9\0",
            b"\xc3\xc0",
            b"\xed\xa0",
            b"\xff",
            b"a\xf4\x90",
            b"\xf4\x8f\xbf\xbf\xff",
        ];
        for bound in bounds {
            let text = at_least(bound);
            for name in names {
                let inside = text.as_deref().is_some_and(|text| name >= text);
                assert_eq!(inside, name.as_bytes() >= bound, "{name:?} and {bound:?}, as {text:?}");
            }
        }
    }

    #[test]
    fn names_are_text_without_zero() {
        assert_eq!(name(&Key::from("/ü")), Some("/ü"));
        assert_eq!(name(&Key::new(&b"a\0"[..])), None);
        assert!(writable_name(&Key::new(&b"\xff"[..])).is_err());
    }
}
