//! Between keys and the names of kine's MySQL table: a column of 630 ASCII characters, compared with trailing spaces
//! filled in.
//!
//! A name is a key of printable ASCII (and DEL) without a space at its end: everything else is either not in the
//! column's character set, or is taken for another name by the comparison, or sorted wrongly, as what is less than a
//! space would be. The bounds of a range may be any bytes all the same, and are moved to the next name, which leaves
//! the same names inside.

use crate::error::StoreError;
use crate::types::{Key, KeyRange};

/// How many characters the column holds.
const NAME_CHARACTERS_MAX: usize = 630;

const SPACE: u8 = b' ';
const LAST: u8 = 0x7f;

/// The name of a key, if it can have one.
pub(super) fn name(key: &Key) -> Option<&str> {
    let bytes = key.as_bytes();
    let fits = bytes.len() <= NAME_CHARACTERS_MAX && bytes.last() != Some(&SPACE);
    let plain = bytes.iter().all(|byte| (SPACE..=LAST).contains(byte));
    std::str::from_utf8(bytes).ok().filter(|_| fits && plain)
}

/// Refuses a key that the column can't hold.
pub(super) fn check_name(key: &Key) -> Result<(), StoreError> {
    if name(key).is_some() {
        return Ok(());
    }
    let length = key.as_bytes().len();
    Err(StoreError::invalid(if length > NAME_CHARACTERS_MAX {
        format!("key is {length} bytes long; kine's table for MySQL holds {NAME_CHARACTERS_MAX}")
    } else {
        format!(
            "key {key:?} is not printable ASCII without a space at its end, which is what kine's table for MySQL holds"
        )
    }))
}

/// A text of the statement's own, in the column's character set, so that an index on it serves.
pub(super) fn literal(name: &str) -> String {
    let digit = |number: u8| char::from_digit(number.into(), 16).unwrap_or_default();
    let digits = name.bytes().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]);
    format!("_ascii x'{}'", digits.collect::<String>())
}

/// The first name that is not less than some bytes.
#[derive(Debug, PartialEq, Eq)]
enum First {
    /// This one, or the one behind it if it isn't there.
    From(String),
    /// The one behind this one.
    Behind(String),
    /// There is none.
    None,
}

/// Finds the first name for a bound.
fn first_not_below(bytes: &[u8]) -> First {
    let valid = bytes.iter().position(|byte| !(SPACE..=LAST).contains(byte)).unwrap_or(bytes.len());
    let prefix = &bytes[..valid];
    let text = |bytes: &[u8]| bytes.iter().map(|byte| char::from(*byte)).collect::<String>();
    match bytes.get(valid) {
        // Nothing that begins with the prefix is great enough: whatever comes behind all of that is.
        Some(byte) if *byte > LAST => match prefix.iter().rposition(|byte| *byte != LAST) {
            Some(last) => First::From(text(&prefix[..last]) + &text(&[prefix[last] + 1])),
            None => First::None,
        },
        // Less than any character that may follow, so that only the prefix itself is too small.
        Some(_) => First::Behind(text(prefix.trim_ascii_end())),
        // No name ends with a space, and the comparison does not see it.
        None if prefix.last() == Some(&SPACE) => First::Behind(text(prefix.trim_ascii_end())),
        None => First::From(text(prefix)),
    }
}

/// The condition under which a name is inside of a range; none when no name can be.
pub(super) fn inside(range: &KeyRange, column: &str) -> Option<String> {
    let mut conditions = Vec::new();
    match first_not_below(range.start().as_bytes()) {
        First::From(name) if name.is_empty() => {}
        First::From(name) => conditions.push(format!("{column} >= {}", literal(&name))),
        First::Behind(name) => conditions.push(format!("{column} > {}", literal(&name))),
        First::None => return None,
    }
    if let Some(end) = range.end() {
        match first_not_below(end.as_bytes()) {
            First::From(name) => conditions.push(format!("{column} < {}", literal(&name))),
            First::Behind(name) => conditions.push(format!("{column} <= {}", literal(&name))),
            First::None => {}
        }
    }
    if conditions.is_empty() {
        conditions.push(format!("{column} >= ''"));
    }
    Some(conditions.join(" AND "))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the column compares: the shorter one is filled with spaces.
    fn compare(one: &str, other: &str) -> std::cmp::Ordering {
        let length = one.len().max(other.len());
        let filled = |text: &str| format!("{text:length$}");
        filled(one).cmp(&filled(other))
    }

    #[test]
    fn a_bound_leaves_the_same_names_inside() {
        let names =
            ["!", "a", "a !", "a b", "a!", "aa", "a\u{7f}", "a\u{7f}\u{7f}", "b", "~", "\u{7f}", "\u{7f}\u{7f}"];
        let bounds: [&[u8]; 20] = [
            b"",
            b"\0",
            b" ",
            b"a",
            b"a\0",
            b"a\0\xff",
            b"a ",
            b"a  ",
            b"a \0",
            b"a \x1f",
            b"a !",
            b"a\x80",
            b"a \xff",
            b"a\xff",
            b"a\x7f\xff",
            b"\x7f",
            b"\x7f\0",
            b"\x7f\x7f\x80",
            b"\xc3\xa9",
            b"\xff",
        ];
        for bound in bounds {
            let first = first_not_below(bound);
            for name in names {
                let inside = match &first {
                    First::From(first) => compare(name, first).is_ge(),
                    First::Behind(before) => compare(name, before).is_gt(),
                    First::None => false,
                };
                assert_eq!(inside, name.as_bytes() >= bound, "{name:?} and {:?}, as {first:?}", bound.escape_ascii());
            }
        }
    }

    #[test]
    fn names_sort_as_their_bytes_do() {
        let names = ["!", "a", "a !", "a  x", "a!", "aa", "b", "b  !", "b a"];
        for one in names {
            for other in names {
                assert_eq!(compare(one, other), one.cmp(other), "{one:?} and {other:?}");
            }
        }
    }

    #[test]
    fn what_the_column_can_not_hold_is_refused() {
        let long = "x".repeat(NAME_CHARACTERS_MAX);
        assert_eq!(name(&Key::from(long.as_str())), Some(long.as_str()));
        assert!(check_name(&Key::from(long + "x")).unwrap_err().to_string().contains("631 bytes"));
        for key in [&b"a\0"[..], b"a ", b"\x1f", b"\xff", "ü".as_bytes()] {
            assert!(check_name(&Key::new(key.to_vec())).is_err(), "{:?}", key.escape_ascii());
        }
        assert!(check_name(&Key::from("/registry/a b/~\u{7f}")).is_ok());
    }

    #[test]
    fn texts_are_written_so_that_nothing_in_them_means_anything() {
        assert_eq!(literal("a'\\"), "_ascii x'61275c'");
        let range = KeyRange::prefix("a");
        assert_eq!(inside(&range, "name").unwrap(), "name >= _ascii x'61' AND name < _ascii x'62'");
        assert_eq!(inside(&KeyRange::from(Key::new(&b"\xff"[..])), "name"), None);
        assert_eq!(inside(&KeyRange::all(), "name").unwrap(), "name >= ''");
    }
}
