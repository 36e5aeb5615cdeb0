//! Moments as JSON writes them: RFC 3339.
//!
//! Kept here instead of taking a library's parser, because what upstream takes is narrower than what libraries take.

use std::fmt::Write as _;

const DAY_SECONDS: i64 = 86_400;

/// Nanoseconds of a microsecond.
const MICRO_NANOS: u32 = 1_000;

/// A moment: seconds since 1970, and nanoseconds after that.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Moment {
    pub(crate) seconds: i64,
    pub(crate) nanos: u32,
}

impl Moment {
    /// Go's zero time, the first moment of the year 1. It stands for "not set".
    pub(crate) const UNSET: Self = Self { seconds: -62_135_596_800, nanos: 0 };

    /// Reads `2006-01-02T15:04:05Z` with an optional fraction, or with an offset in place of the `Z`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let bytes = text.as_bytes();
        let number = |from: usize, to: usize| -> Option<i64> {
            let digits = bytes.get(from..to)?;
            digits
                .iter()
                .try_fold(0_i64, |sum, digit| digit.is_ascii_digit().then(|| sum * 10 + i64::from(digit - b'0')))
        };
        let mark = |at: usize, mark: u8| (bytes.get(at) == Some(&mark)).then_some(());
        let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
        let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
        for (at, byte) in [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':')] {
            mark(at, byte)?;
        }
        let in_range = (1..=12).contains(&month) && (1..=days_of(year, month)).contains(&day);
        if !in_range || hour > 23 || minute > 59 || second > 59 {
            return None;
        }
        let mut at = 19;
        let mut nanos = 0;
        if matches!(bytes.get(at), Some(b'.' | b',')) {
            let digits = bytes[at + 1..].iter().take_while(|byte| byte.is_ascii_digit()).count();
            if digits == 0 {
                return None;
            }
            // What is beyond nanoseconds is cut off.
            let kept = digits.min(9);
            nanos = u32::try_from(number(at + 1, at + 1 + kept)?).ok()? * 10_u32.pow(9 - u32::try_from(kept).ok()?);
            at += 1 + digits;
        }
        let offset = match bytes.get(at)? {
            b'Z' if bytes.len() == at + 1 => 0,
            sign @ (b'+' | b'-') if bytes.len() == at + 6 => {
                mark(at + 3, b':')?;
                let (hours, minutes) = (number(at + 1, at + 3)?, number(at + 4, at + 6)?);
                if hours > 23 || minutes > 59 {
                    return None;
                }
                (hours * 3600 + minutes * 60) * if *sign == b'+' { 1 } else { -1 }
            }
            _ => return None,
        };
        let seconds = days_since_1970(year, month, day) * DAY_SECONDS + hour * 3600 + minute * 60 + second - offset;
        Some(Self { seconds, nanos })
    }

    /// To the second, in UTC; none for years that four digits can't write.
    pub(crate) fn to_seconds_text(self) -> Option<String> {
        let mut text = self.date_and_clock()?;
        text.push('Z');
        Some(text)
    }

    /// To the microsecond, in UTC; none for years that four digits can't write.
    pub(crate) fn to_micros_text(self) -> Option<String> {
        let mut text = self.date_and_clock()?;
        write!(text, ".{:06}Z", self.nanos / MICRO_NANOS).expect("strings grow");
        Some(text)
    }

    fn date_and_clock(self) -> Option<String> {
        let (year, month, day) = date_of(self.seconds.div_euclid(DAY_SECONDS));
        if !(0..=9999).contains(&year) {
            return None;
        }
        let clock = self.seconds.rem_euclid(DAY_SECONDS);
        let (hour, minute, second) = (clock / 3600, clock / 60 % 60, clock % 60);
        Some(format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}"))
    }
}

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

fn days_of(year: i64, month: i64) -> i64 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days between two dates of the Gregorian calendar; years start in March, so that the odd day comes last.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let month = (month + 9) % 12;
    let of_year = (153 * month + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// The date of a day since 1970.
fn date_of(days: i64) -> (i64, i64, i64) {
    let days = days.saturating_add(719_468);
    let (era, of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn known_moments_are_read() {
        for (text, seconds, nanos) in [
            ("1970-01-01T00:00:00Z", 0, 0),
            ("2000-02-29T12:00:00Z", 951_825_600, 0),
            ("2024-01-02T03:04:05.123456Z", 1_704_164_645, 123_456_000),
            ("2024-01-02T03:04:05.5+01:00", 1_704_161_045, 500_000_000),
            ("1969-12-31T23:59:59Z", -1, 0),
            ("0001-01-01T00:00:00Z", Moment::UNSET.seconds, 0),
        ] {
            assert_eq!(Moment::parse(text), Some(Moment { seconds, nanos }), "{text}");
        }
    }

    #[test]
    fn what_upstream_refuses_is_refused() {
        for text in [
            "",
            "now",
            "2024-01-02",
            "2024-01-02 03:04:05Z",
            "2024-01-02T03:04:05",
            "2024-13-02T03:04:05Z",
            "2023-02-29T03:04:05Z",
            "2024-01-02T24:00:00Z",
            "2024-01-02T03:04:05.Z",
            "2024-01-02T03:04:05Zx",
            "2024-01-02T03:04:05+1:00",
            "2024-01-02T03:04:05\u{e9}Z",
        ] {
            assert_eq!(Moment::parse(text), None, "{text}");
        }
    }

    #[test]
    fn seconds_and_microseconds_are_written_in_utc() {
        let moment = Moment::parse("2024-01-02T03:04:05.123456789-02:30").unwrap();
        assert_eq!(moment.to_seconds_text().unwrap(), "2024-01-02T05:34:05Z");
        assert_eq!(moment.to_micros_text().unwrap(), "2024-01-02T05:34:05.123456Z");
        assert_eq!(Moment { seconds: i64::MAX, nanos: 0 }.to_seconds_text(), None);
    }

    proptest! {
        #[test]
        fn every_second_of_ten_thousand_years_survives(seconds in -62_167_219_200_i64..253_402_300_800) {
            let moment = Moment { seconds, nanos: 0 };
            prop_assert_eq!(Moment::parse(&moment.to_seconds_text().unwrap()), Some(moment));
        }

        #[test]
        fn no_text_breaks_it(text: String, seconds: i64) {
            Moment::parse(&text);
            Moment { seconds, nanos: 0 }.to_seconds_text();
        }
    }
}
