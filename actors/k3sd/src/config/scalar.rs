//! Single values as K3s reads them, which is how Go's standard library reads them.

use std::time::Duration;

use thiserror::Error;

use crate::cli::flag::Kind;

/// Why a text is not a value of the wanted kind. Says what is wrong and what to write instead, not where.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("is not {wanted}; write {example}")]
pub struct ScalarError {
    /// What it should have been, with its article.
    pub wanted: &'static str,
    /// What to write, ready to be copied.
    pub example: &'static str,
}

const fn wrong(wanted: &'static str, example: &'static str) -> ScalarError {
    ScalarError { wanted, example }
}

/// Reads on or off. Accepts exactly what Go's `strconv.ParseBool` accepts.
///
/// # Errors
/// When the text is none of those words.
pub fn parse_bool(text: &str) -> Result<bool, ScalarError> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(wrong("a boolean", "true or false")),
    }
}

/// Reads a whole number: decimal, `0x` hexadecimal, `0b` binary, or octal after `0o` or a leading zero.
///
/// # Errors
/// When the text is no such number or does not fit in 64 bits.
pub fn parse_int(text: &str) -> Result<i64, ScalarError> {
    const ERROR: ScalarError = wrong("a whole number", "one such as 5");
    let (negative, digits) = match text.as_bytes() {
        [b'-', ..] => (true, &text[1..]),
        [b'+', ..] => (false, &text[1..]),
        _ => (false, text),
    };
    let lower = digits.to_ascii_lowercase();
    let (radix, digits) = match lower.as_bytes() {
        [b'0', b'x', ..] => (16, &lower[2..]),
        [b'0', b'o', ..] => (8, &lower[2..]),
        [b'0', b'b', ..] => (2, &lower[2..]),
        [b'0', _, ..] => (8, &lower[1..]),
        _ => (10, lower.as_str()),
    };
    if digits.starts_with(['+', '-']) {
        return Err(ERROR);
    }
    let magnitude = i128::from_str_radix(digits, radix).map_err(|_| ERROR)?;
    i64::try_from(if negative { -magnitude } else { magnitude }).map_err(|_| ERROR)
}

/// Reads a length of time as Go writes it: numbers with units, such as `1h30m`, `5m0s`, `1.5h` or `100ms`; `0` needs no
/// unit. A negative length is an error, nothing here takes one.
///
/// # Errors
/// When the text is no length of time, or a negative one, or longer than 292 years.
pub fn parse_duration(text: &str) -> Result<Duration, ScalarError> {
    const ERROR: ScalarError = wrong("a duration", "one such as 1h30m, 10m or 30s");
    let negative = text.starts_with('-');
    let mut rest = text.strip_prefix(['-', '+']).unwrap_or(text);
    if rest == "0" {
        return Ok(Duration::ZERO);
    }
    if rest.is_empty() {
        return Err(ERROR);
    }
    let mut nanos: u128 = 0;
    while !rest.is_empty() {
        let number_end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or(ERROR)?;
        let (number, after) = rest.split_at(number_end);
        let unit_end = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, after) = after.split_at(unit_end);
        nanos = nanos.checked_add(nanos_of(number, unit).ok_or(ERROR)?).ok_or(ERROR)?;
        rest = after;
    }
    // Go counts nanoseconds in a signed 64-bit integer.
    let nanos = i64::try_from(nanos).map_err(|_| ERROR)?.unsigned_abs();
    if negative && nanos > 0 {
        return Err(wrong("a length of time, it is negative", "one such as 10m"));
    }
    Ok(Duration::from_nanos(nanos))
}

/// One term of a duration in nanoseconds, fractions below a nanosecond dropped.
fn nanos_of(number: &str, unit: &str) -> Option<u128> {
    let unit_nanos: u128 = match unit {
        "ns" => 1,
        "us" | "µs" | "μs" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60 * 1_000_000_000,
        "h" => 3_600 * 1_000_000_000,
        _ => return None,
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
        return None;
    }
    let whole: u128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let mut nanos = whole.checked_mul(unit_nanos)?;
    let mut scale = unit_nanos;
    for digit in fraction.bytes() {
        scale /= 10;
        nanos = nanos.checked_add(u128::from(digit - b'0') * scale)?;
    }
    Some(nanos)
}

/// Reads a file mode in octal, with or without leading zeros or `0o`.
///
/// # Errors
/// When the text is not octal or sets bits above `07777`.
pub fn parse_mode(text: &str) -> Result<u32, ScalarError> {
    const ERROR: ScalarError = wrong("an octal file mode", "one such as 0600");
    let digits = text.strip_prefix("0o").unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|digit| (b'0'..=b'7').contains(&digit)) {
        return Err(ERROR);
    }
    u32::from_str_radix(digits, 8).ok().filter(|mode| *mode <= 0o7777).ok_or(ERROR)
}

/// Whether the text is a value of the kind.
///
/// # Errors
/// When it is not.
pub fn check(kind: Kind, text: &str) -> Result<(), ScalarError> {
    match kind {
        Kind::Bool => parse_bool(text).map(drop),
        Kind::Int => parse_int(text).map(drop),
        Kind::Duration => parse_duration(text).map(drop),
        Kind::Mode => parse_mode(text).map(drop),
        Kind::Text | Kind::List | Kind::OptionalText => Ok(()),
    }
}

/// Whether two texts mean the same value, `5m` and `300s` for example.
#[must_use]
pub fn same(kind: Kind, one: &str, other: &str) -> bool {
    fn equal<T: PartialEq>(parse: fn(&str) -> Result<T, ScalarError>, one: &str, other: &str) -> bool {
        matches!((parse(one), parse(other)), (Ok(one), Ok(other)) if one == other)
    }
    match kind {
        Kind::Bool => equal(parse_bool, one, other),
        Kind::Int => equal(parse_int, one, other),
        Kind::Duration => equal(parse_duration, one, other),
        Kind::Mode => equal(parse_mode, one, other),
        Kind::Text | Kind::List | Kind::OptionalText => one == other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn booleans_are_those_of_go() {
        for text in ["1", "t", "T", "TRUE", "true", "True"] {
            assert_eq!(parse_bool(text), Ok(true), "{text}");
        }
        for text in ["0", "f", "F", "FALSE", "false", "False"] {
            assert_eq!(parse_bool(text), Ok(false), "{text}");
        }
        for text in ["", "yes", "on", "tRUE", "2", " true"] {
            assert!(parse_bool(text).is_err(), "{text}");
        }
    }

    #[test]
    fn integers_in_each_base() {
        let rows = [
            ("0", Some(0)),
            ("6443", Some(6443)),
            ("-5", Some(-5)),
            ("+5", Some(5)),
            ("0x1F", Some(31)),
            ("017", Some(15)),
            ("0o17", Some(15)),
            ("0b101", Some(5)),
            ("9223372036854775807", Some(i64::MAX)),
            ("-9223372036854775808", Some(i64::MIN)),
            ("9223372036854775808", None),
            ("", None),
            ("-", None),
            ("--5", None),
            ("0x", None),
            ("0x-5", None),
            ("09", None),
            ("1.5", None),
            ("12a", None),
            ("5 ", None),
        ];
        for (text, number) in rows {
            assert_eq!(parse_int(text).ok(), number, "{text:?}");
        }
    }

    #[test]
    fn durations_as_go_writes_them() {
        let rows = [
            ("0", Some(Duration::ZERO)),
            ("10m", Some(Duration::from_secs(600))),
            ("5m0s", Some(Duration::from_secs(300))),
            ("1h30m", Some(Duration::from_secs(5400))),
            ("1.5h", Some(Duration::from_secs(5400))),
            (".5s", Some(Duration::from_millis(500))),
            ("1.s", Some(Duration::from_secs(1))),
            ("100ms", Some(Duration::from_millis(100))),
            ("3us", Some(Duration::from_micros(3))),
            ("3µs", Some(Duration::from_micros(3))),
            ("1s2ns", Some(Duration::new(1, 2))),
            ("+1s", Some(Duration::from_secs(1))),
            ("-0s", Some(Duration::ZERO)),
            ("-1s", None),
            ("", None),
            ("5", None),
            ("m", None),
            (".m", None),
            ("1.2.3s", None),
            ("5 m", None),
            ("1d", None),
            ("10M", None),
            ("2562047h", Some(Duration::from_secs(2_562_047 * 3600))),
            ("2562048h", None),
            ("99999999999999999999999999999999999999999h", None),
        ];
        for (text, duration) in rows {
            assert_eq!(parse_duration(text).ok(), duration, "{text:?}");
        }
    }

    #[test]
    fn modes_are_octal() {
        for (text, mode) in [("0600", 0o600), ("644", 0o644), ("0o640", 0o640), ("7777", 0o7777), ("0", 0)] {
            assert_eq!(parse_mode(text), Ok(mode), "{text}");
        }
        for text in ["", "0o", "888", "rw-r--r--", "-600", "17777", "0x1ff", "77777777777777"] {
            assert!(parse_mode(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sameness_looks_at_the_meaning() {
        assert!(same(Kind::Duration, "5m0s", "300s"));
        assert!(same(Kind::Mode, "600", "0600"));
        assert!(same(Kind::Bool, "F", "false"));
        assert!(!same(Kind::Int, "10", "010"));
        assert!(!same(Kind::Int, "x", "x"), "no number equals no number");
        assert!(!same(Kind::Text, "a", "b"));
    }
}
