//! The syntax of schedules: five fields, or a word for them.
//!
//! Only faults are found here, in the words of the parser that upstream uses; times are the controller's business.

/// Lowest and highest number of each field, with names for the numbers from the lowest on.
const FIELDS: &[(i64, i64, &[&str])] = &[
    (0, 59, &[]),
    (0, 23, &[]),
    (1, 31, &[]),
    (1, 12, &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]),
    (0, 6, &["sun", "mon", "tue", "wed", "thu", "fri", "sat"]),
];

/// Words that stand for a whole schedule.
const WORDS: &[&str] = &["@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly"];

/// What stands before a schedule's interval.
const EVERY: &str = "@every ";

/// Units of an interval.
const UNITS: &[&str] = &["ns", "us", "µs", "μs", "ms", "s", "m", "h"];

/// What is wrong with a schedule. A time zone in front of it is skipped, whatever it is.
pub(super) fn check(schedule: &str) -> Result<(), String> {
    let zoned = ["TZ=", "CRON_TZ="].iter().any(|prefix| schedule.starts_with(prefix));
    let schedule = match schedule.split_once(' ') {
        Some((_, rest)) if zoned => rest.trim(),
        None if zoned => "",
        _ => schedule,
    };
    if schedule.is_empty() {
        return Err("empty spec string".to_owned());
    }
    if schedule.starts_with('@') {
        return check_word(schedule);
    }
    let fields: Vec<&str> = schedule.split_whitespace().collect();
    if fields.len() != FIELDS.len() {
        let (expected, found) = (FIELDS.len(), fields.len());
        return Err(format!("expected exactly {expected} fields, found {found}: [{}]", fields.join(" ")));
    }
    for (field, bounds) in fields.iter().zip(FIELDS) {
        field.split(',').filter(|range| !range.is_empty()).try_for_each(|range| check_range(range, *bounds))?;
    }
    Ok(())
}

fn check_word(word: &str) -> Result<(), String> {
    if WORDS.contains(&word) {
        return Ok(());
    }
    match word.strip_prefix(EVERY) {
        Some(text) => check_duration(text).map_err(|fault| format!("failed to parse duration {word}: {fault}")),
        None => Err(format!("unrecognized descriptor: {word}")),
    }
}

/// A length of time as Go writes them, such as `1h30m`.
fn check_duration(text: &str) -> Result<(), String> {
    let invalid = || format!("time: invalid duration {text:?}");
    let mut rest = text.strip_prefix(['+', '-']).unwrap_or(text);
    if rest == "0" {
        return Ok(());
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    while !rest.is_empty() {
        let unit = rest.trim_start_matches(|letter: char| letter.is_ascii_digit());
        let unit = match unit.strip_prefix('.') {
            Some(fraction) => fraction.trim_start_matches(|letter: char| letter.is_ascii_digit()),
            None => unit,
        };
        if !rest[..rest.len() - unit.len()].contains(|letter: char| letter.is_ascii_digit()) {
            return Err(invalid());
        }
        let end = unit.find(|letter: char| letter == '.' || letter.is_ascii_digit()).unwrap_or(unit.len());
        let (unit, after) = unit.split_at(end);
        if unit.is_empty() {
            return Err(format!("time: missing unit in duration {text:?}"));
        }
        if !UNITS.contains(&unit) {
            return Err(format!("time: unknown unit {unit:?} in duration {text:?}"));
        }
        rest = after;
    }
    Ok(())
}

/// One number, a range, or all there are; with a step or without.
fn check_range(range: &str, (least, most, names): (i64, i64, &[&str])) -> Result<(), String> {
    let mut parts = range.split('/');
    let mut limits = parts.next().unwrap_or_default().split('-');
    let (low, high) = (limits.next().unwrap_or_default(), limits.next());
    let (start, mut end) = if matches!(low, "*" | "?") {
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
    Ok(())
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
    use super::check;

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
}
