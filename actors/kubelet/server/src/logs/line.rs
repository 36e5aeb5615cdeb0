//! A line of a container's log as the CRI lays it out: `<time> <stream> <tags> <content>`.

use jiff::Timestamp;

/// Where a container wrote to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Output {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// A line, or a part of a long one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Line<'a> {
    /// When it was written.
    pub(crate) time: Timestamp,
    /// Where to.
    pub(crate) output: Output,
    /// What was written; with its end of line, unless it goes on in the next one.
    pub(crate) content: &'a [u8],
}

/// Why a line is none. It is left out, as upstream leaves it out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

/// The tag of a line that goes on.
const PARTIAL: &[u8] = b"P";
/// What stands between tags.
const TAG_SEPARATOR: u8 = b':';

/// Cuts up to the next space.
fn word<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8], Malformed> {
    let space = rest.iter().position(|byte| *byte == b' ').ok_or(Malformed)?;
    let (word, behind) = rest.split_at(space);
    *rest = &behind[1..];
    Ok(word)
}

impl<'a> Line<'a> {
    /// Reads a line with its end of line, if it has one.
    ///
    /// # Errors
    /// It isn't laid out as a line.
    pub(crate) fn parse(raw: &'a [u8]) -> Result<Self, Malformed> {
        let mut rest = raw;
        let time = std::str::from_utf8(word(&mut rest)?).ok().and_then(|time| time.parse().ok()).ok_or(Malformed)?;
        let output = match word(&mut rest)? {
            b"stdout" => Output::Stdout,
            b"stderr" => Output::Stderr,
            _ => return Err(Malformed),
        };
        let is_partial = word(&mut rest)?.split(|byte| *byte == TAG_SEPARATOR).next() == Some(PARTIAL);
        let content = if is_partial { rest.strip_suffix(b"\n").unwrap_or(rest) } else { rest };
        Ok(Self { time, output, content })
    }

    /// Whether the next line is a part of this one.
    pub(crate) fn goes_on(&self) -> bool {
        !self.content.is_empty() && !self.content.ends_with(b"\n")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lines_are_read_as_the_cri_writes_them() {
        let time: Timestamp = "2016-10-06T00:17:09.669794202Z".parse().unwrap();
        let line = |output, content| Ok(Line { time, output, content });
        for (raw, wanted) in [
            (&b"2016-10-06T00:17:09.669794202Z stdout F a b\n"[..], line(Output::Stdout, &b"a b\n"[..])),
            (b"2016-10-06T00:17:09.669794202Z stderr P a \n", line(Output::Stderr, b"a ")),
            (b"2016-10-06T00:17:09.669794202Z stderr P:x a\n", line(Output::Stderr, b"a")),
            (b"2016-10-06T00:17:09.669794202Z stdout F:P a\n", line(Output::Stdout, b"a\n")),
            (b"2016-10-06T00:17:09.669794202Z stdout F \n", line(Output::Stdout, b"\n")),
            (b"2016-10-06T02:17:09.669794202+02:00 stdout F \xff", line(Output::Stdout, b"\xff")),
            (b"2016-10-06T00:17:09.669794202Z stdin F a\n", Err(Malformed)),
            (b"2016-10-06T00:17:09.669794202Z stdout F\n", Err(Malformed)),
            (b"yesterday stdout F a\n", Err(Malformed)),
            (b"\n", Err(Malformed)),
            (b"", Err(Malformed)),
        ] {
            assert_eq!(Line::parse(raw), wanted, "{}", String::from_utf8_lossy(raw));
        }
    }

    #[test]
    fn a_part_goes_on() {
        let goes_on = |raw: &[u8]| Line::parse(raw).unwrap().goes_on();
        assert!(goes_on(b"2016-10-06T00:17:09Z stdout P a\n"));
        assert!(!goes_on(b"2016-10-06T00:17:09Z stdout F a\n"));
        assert!(!goes_on(b"2016-10-06T00:17:09Z stdout P \n"));
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic(raw in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(Line::parse(&raw).is_err() || raw.len() > 20);
        }
    }
}
