//! The fields of an object, as places in its JSON.

use std::ops::Range;

use crate::object::ObjectError;
use crate::object::scan::Scanner;

/// A field of an object in its JSON.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// From the quote of the name to the end of the value.
    pub whole: Range<usize>,
    /// The value.
    pub value: Range<usize>,
}

/// Finds some fields of a JSON object, which stand at its top. Stops when it has them all, so that what comes after
/// them may be broken.
///
/// Fails when the bytes before that are no JSON object.
pub fn members<const N: usize>(json: &[u8], names: [&str; N]) -> Result<[Option<Member>; N], ObjectError> {
    let mut found = [const { None }; N];
    let mut missing = N;
    let mut scanner = Scanner::new(json);
    if scanner.peek() != Some(b'{') {
        return Err(ObjectError::Malformed { at: scanner.offset() });
    }
    let walked = scanner.object(|scanner, name| {
        let value = scanner.skip()?;
        if let Some(index) = names.iter().position(|wanted| wanted.as_bytes() == &json[name.start..name.end])
            && found[index].is_none()
        {
            found[index] = Some(Member { whole: name.start - 1..value.end, value: value.start..value.end });
            missing -= 1;
        }
        // The rest is of no interest; this is how the walk ends early.
        if missing == 0 { Err(ObjectError::Malformed { at: value.end }) } else { Ok(()) }
    });
    match walked {
        Err(error) if missing > 0 => Err(error),
        _ => Ok(found),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_at_the_top_only() {
        let json = br#"{"a":{"kind":"no"},"kind":"Pod", "metadata":{"name":"\"}"},"z":[1,{"b":2}]}"#;
        let [kind, metadata, other] = members(json, ["kind", "metadata", "b"]).unwrap();
        assert_eq!(&json[kind.clone().unwrap().whole], br#""kind":"Pod""#);
        assert_eq!(&json[kind.unwrap().value], br#""Pod""#);
        assert_eq!(&json[metadata.unwrap().value], br#"{"name":"\"}"}"#);
        assert_eq!(other, None);
    }

    #[test]
    fn broken_bytes_are_refused_up_to_what_is_looked_for() {
        assert!(members(b"[1]", ["a"]).is_err());
        assert!(members(b"", ["a"]).is_err());
        assert!(members(br#"{"b":1,"#, ["a"]).is_err());
        assert!(members(br#"{"a":1,@"#, ["a"]).unwrap()[0].is_some());
    }
}
