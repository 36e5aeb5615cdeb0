//! `--kube-…-arg`: flags of upstream's programs, as data.
//!
//! Each flag is a row of a table. What maps to a setting works; what would have no effect is refused by name, with the
//! reason; what the program doesn't know either is refused as unknown. Flags whose value here is what it would be anyway
//! are accepted with that value alone.
//!
//! As K3s has it, `name=value` stands in place of what K3s sets by itself, `name+=value` behind that, and `name-=value` in
//! front of it. Of a flag with one value the last one counts, of a list all of them.

use std::collections::BTreeMap;
use std::time::Duration;

use thiserror::Error;

#[cfg(feature = "api")]
use crate::election::{Election, Terms};

/// What becomes of a flag of a program whose settings are a `C`.
#[derive(Debug)]
pub enum Rule<C> {
    /// It is a setting. Otherwise the error says what was wanted; it completes "is not ...".
    Sets(fn(&mut C, &str) -> Result<(), &'static str>),
    /// It is a setting with many values.
    Lists(fn(&mut C) -> &mut Vec<String>),
    /// It has one meaning here, so only these values are taken.
    Only(&'static [&'static str]),
    /// It would have no effect, and why.
    Refused(&'static str),
}

/// Why an argument was not applied.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ArgumentError {
    /// No flag of that program.
    #[error("{program} has no flag --{name}")]
    Unknown {
        /// The program.
        program: &'static str,
        /// As written.
        name: String,
    },
    /// A flag for which there is nothing here.
    #[error("--{name} has no effect here and is refused: {why}")]
    Refused {
        /// The flag.
        name: String,
        /// Why there is nothing.
        why: &'static str,
    },
    /// A value that means nothing.
    #[error("--{name}: {value:?} is not {wanted}")]
    Value {
        /// The flag.
        name: String,
        /// As written.
        value: String,
        /// What it should have been.
        wanted: &'static str,
    },
}

/// Where the value of an argument goes among the others of its flag.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// `=`: behind the others, without what was there by itself.
    Instead,
    /// `+=`.
    Behind,
    /// `-=`.
    Before,
}

/// Takes an argument apart: leading dashes are let pass, and no value means `true`.
fn split(argument: &str) -> (&str, Place, &str) {
    let argument = argument.trim_start_matches("--");
    let (name, value) = argument.split_once('=').unwrap_or((argument, "true"));
    let place = match name.as_bytes().last() {
        Some(b'+') => Place::Behind,
        Some(b'-') => Place::Before,
        _ => Place::Instead,
    };
    (name.trim_end_matches(['+', '-']), place, value)
}

/// The flag that an argument is about, and its value.
#[must_use]
pub fn flag(argument: &str) -> (&str, &str) {
    let (name, _, value) = split(argument);
    (name, value)
}

/// Applies one argument, as [`apply_all`] does.
///
/// # Errors
/// See [`ArgumentError`]. The settings are as they were then.
pub fn apply<C>(
    program: &'static str,
    flags: &[(&str, Rule<C>)],
    settings: &mut C,
    argument: &str,
) -> Result<(), ArgumentError> {
    apply_all(program, flags, &[], settings, [argument])
}

/// Applies arguments, in their order: `name=value`, `name+=value`, `name-=value`, or `name`, which means `name=true`.
/// `initial` is what K3s sets of the flags with one value; lists begin with what the settings hold.
///
/// # Errors
/// See [`ArgumentError`]. Some of the arguments may be applied then.
pub fn apply_all<'a, C>(
    program: &'static str,
    flags: &[(&str, Rule<C>)],
    initial: &[(&str, &str)],
    settings: &mut C,
    arguments: impl IntoIterator<Item = &'a str>,
) -> Result<(), ArgumentError> {
    let rule = |name: &str| flags.iter().find(|(flag, _)| *flag == name).map(|(_, rule)| rule);
    let mut said: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for argument in arguments {
        let (name, place, value) = split(argument);
        let values = said.entry(name).or_insert_with(|| match (place, rule(name)) {
            (Place::Instead, _) => Vec::new(),
            (_, Some(Rule::Lists(list))) => list(settings).clone(),
            _ => initial.iter().filter(|(flag, _)| *flag == name).map(|(_, value)| (*value).to_owned()).collect(),
        });
        let at = if place == Place::Before { 0 } else { values.len() };
        values.insert(at, value.to_owned());
    }
    for (name, values) in said {
        let wrong =
            |value: &str, wanted| ArgumentError::Value { name: name.to_owned(), value: value.to_owned(), wanted };
        match rule(name) {
            None => return Err(ArgumentError::Unknown { program, name: name.to_owned() }),
            Some(Rule::Refused(why)) => return Err(ArgumentError::Refused { name: name.to_owned(), why }),
            Some(Rule::Only(only)) => {
                if let Some(value) = values.iter().find(|value| !only.contains(&value.as_str())) {
                    return Err(wrong(value, "the one value that it has here"));
                }
            }
            Some(Rule::Sets(set)) => {
                values.iter().try_for_each(|value| set(settings, value).map_err(|wanted| wrong(value, wanted)))?;
            }
            Some(Rule::Lists(all)) => {
                *all(settings) = values.iter().flat_map(|value| list(value).into_iter().flatten()).collect()
            }
        }
    }
    Ok(())
}

/// Reads a truth value as Go does.
///
/// # Errors
/// What was wanted; so for all functions below.
pub fn boolean(value: &str) -> Result<bool, &'static str> {
    match value {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err("true or false"),
    }
}

/// Reads a text that says something.
///
/// # Errors
/// It is empty.
pub fn text(value: &str) -> Result<String, &'static str> {
    if value.is_empty() { Err("a text that isn't empty") } else { Ok(value.to_owned()) }
}

/// Reads what stands between commas.
///
/// # Errors
/// None; a table needs the type.
pub fn list(value: &str) -> Result<Vec<String>, &'static str> {
    Ok(value.split(',').map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned).collect())
}

/// Reads how many of something there are, at least one.
///
/// # Errors
/// It is no such number.
pub fn count(value: &str) -> Result<usize, &'static str> {
    value.parse().ok().filter(|count| *count > 0).ok_or("a number above zero")
}

/// Reads a number with a fraction that isn't negative.
///
/// # Errors
/// It is no such number.
pub fn fraction(value: &str) -> Result<f64, &'static str> {
    value.parse().ok().filter(|number: &f64| number.is_finite() && *number >= 0.0).ok_or("a number, zero or more")
}

/// Reads a time as Go writes it; zero is one.
///
/// # Errors
/// It is no time.
pub fn duration(value: &str) -> Result<Duration, &'static str> {
    if matches!(value, "0" | "0s") {
        return Ok(Duration::ZERO);
    }
    go_duration(value).ok_or("a duration such as 90s or 1h30m")
}

/// A time above zero as Go writes it: `1h30m`, `1.5s`.
pub fn go_duration(text: &str) -> Option<Duration> {
    const UNITS: [(&str, f64); 7] =
        [("ns", 1e-9), ("us", 1e-6), ("µs", 1e-6), ("ms", 1e-3), ("s", 1.0), ("m", 60.0), ("h", 3600.0)];
    let (mut rest, mut seconds) = (text, 0.0);
    while !rest.is_empty() {
        let digits = rest.find(|found: char| !found.is_ascii_digit() && found != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let end = rest.find(|found: char| found.is_ascii_digit() || found == '.').unwrap_or(rest.len());
        let (_, unit) = UNITS.iter().find(|(unit, _)| *unit == &rest[..end])?;
        seconds += number * unit;
        rest = &rest[end..];
    }
    Duration::try_from_secs_f64(seconds).ok().filter(|found| !found.is_zero())
}

/// Reads `--leader-elect`. Where a process doesn't compete for a lease, there is none to ask for.
///
/// # Errors
/// What was wanted; so for the other flags of elections.
#[cfg(feature = "api")]
pub fn leader_elect(election: &mut Option<Election>, value: &str) -> Result<(), &'static str> {
    if !boolean(value)? {
        *election = None;
    } else if election.is_none() {
        return Err("false: a server whose datastore is its own leads without a lease");
    }
    Ok(())
}

/// Reads one of the times of a lease. It means nothing where there is none.
///
/// # Errors
/// It is no time.
#[cfg(feature = "api")]
pub fn lease_time(
    election: &mut Option<Election>,
    value: &str,
    field: impl FnOnce(&mut Terms) -> &mut Duration,
) -> Result<(), &'static str> {
    let time = duration(value)?;
    if let Some(election) = election {
        *field(&mut election.terms) = time;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_go_writes_them() {
        for (text, millis) in [("34s", 34_000), ("1m30s", 90_000), ("500ms", 500), ("1.5h", 5_400_000)] {
            assert_eq!(go_duration(text), Some(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "0s", "-1s", "5", "s", "1x", "1e9s", "1..5s", "99999999999999999999h"] {
            assert_eq!(go_duration(text), None, "{text}");
        }
    }

    #[cfg(feature = "api")]
    #[test]
    fn who_is_alone_needs_no_lease() {
        let mut alone = None;
        assert!(leader_elect(&mut alone, "false").is_ok() && leader_elect(&mut alone, "true").is_err());
        let mut several = Some(Election { identity: "a".to_owned(), terms: Terms::default() });
        lease_time(&mut several, "20s", |terms| &mut terms.lease_duration).expect("a time");
        assert!(lease_time(&mut several, "soon", |terms| &mut terms.retry_period).is_err());
        let terms = several.as_ref().expect("it competes").terms;
        assert_eq!((terms.lease_duration.as_secs(), terms.retry_period), (20, Terms::default().retry_period));
        leader_elect(&mut several, "true").expect("it may");
        leader_elect(&mut several, "false").expect("it may");
        assert!(several.is_none());
    }

    #[test]
    fn each_rule_does_what_it_says() {
        const FLAGS: &[(&str, Rule<u64>)] = &[
            ("fixed", Rule::Only(&["true"])),
            ("number", Rule::Sets(|number, value| count(value).map(|count| *number = count as u64))),
            ("ours", Rule::Refused("it is ours")),
        ];
        for (argument, said) in [
            ("--number=3", None),
            ("fixed", None),
            ("fixed=false", Some("--fixed: \"false\" is not the one value that it has here")),
            ("number=0", Some("--number: \"0\" is not a number above zero")),
            ("ours=1", Some("--ours has no effect here and is refused: it is ours")),
            ("none=1", Some("kube-x has no flag --none")),
        ] {
            let mut number = 0;
            let applied = apply("kube-x", FLAGS, &mut number, argument);
            assert_eq!(applied.err().map(|error| error.to_string()).as_deref(), said, "{argument}");
            assert_eq!(number, if argument == "--number=3" { 3 } else { 0 });
        }
    }

    #[test]
    fn values_stand_in_place_of_what_is_set_or_around_it() {
        type Settings = (Vec<String>, bool);
        const FLAGS: &[(&str, Rule<Settings>)] = &[
            ("many", Rule::Lists(|(many, _)| many)),
            ("on", Rule::Sets(|(_, on), value| boolean(value).map(|found| *on = found))),
        ];
        let applied = |arguments: &[&str]| {
            let mut settings = (vec!["x".to_owned()], false);
            let arguments = arguments.iter().copied();
            apply_all("kube-x", FLAGS, &[("on", "false")], &mut settings, arguments).expect("they mean something");
            (settings.0.join(","), settings.1)
        };
        for (arguments, expected) in [
            (&["many=a"] as &[&str], "a"),
            (&["many=a", "many=b,c"], "a,b,c"),
            (&["many+=a"], "x,a"),
            (&["--many-=a"], "a,x"),
            (&["many-=a", "many-=b"], "b,a,x"),
            (&["many+=a", "many=b"], "x,a,b"),
            (&["many=a", "many+=b"], "a,b"),
            (&["many="], ""),
        ] {
            assert_eq!(applied(arguments).0, expected, "{arguments:?}");
        }
        assert!(applied(&["on=true"]).1 && applied(&["on+"]).1 && applied(&["on=true", "on-=false"]).1);
        assert!(!applied(&["on-=true"]).1, "what is set by itself comes later");
        assert_eq!(flag("--many+=a=b"), ("many", "a=b"));
    }
}
