//! Counting: how many tries in a row make a probe's mind up.

use std::time::Duration;

use k8s_openapi::api::core::v1::Probe;

use super::{Kind, Outcome};

/// How a probe is tried, with the API's defaults where it says nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// After the container's start, nothing is tried for this long.
    pub initial_delay: Duration,
    /// Between two tries.
    pub period: Duration,
    /// How long a try may take.
    pub limit: Duration,
    /// So many good tries in a row make it good.
    pub successes: u32,
    /// So many bad ones in a row make it bad.
    pub failures: u32,
}

impl Pace {
    /// What a probe says about itself.
    #[must_use]
    pub fn of(probe: &Probe) -> Self {
        let seconds = |of: Option<i32>, default: u64, least: u64| {
            Duration::from_secs(of.and_then(|of| u64::try_from(of).ok()).filter(|of| *of >= least).unwrap_or(default))
        };
        let count = |of: Option<i32>, default: u32| {
            of.and_then(|of| u32::try_from(of).ok()).filter(|of| *of > 0).unwrap_or(default)
        };
        Self {
            initial_delay: seconds(probe.initial_delay_seconds, 0, 0),
            period: seconds(probe.period_seconds, 10, 1),
            limit: seconds(probe.timeout_seconds, 1, 1),
            successes: count(probe.success_threshold, 1),
            failures: count(probe.failure_threshold, 3),
        }
    }
}

/// What a try came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Try {
    /// Good; the text, if any, is worth a warning.
    Good(Option<String>),
    /// Bad, and why.
    Bad(String),
    /// It couldn't be tried, for reasons that aren't the container's. Counts for nothing.
    Error(String),
}

/// Counts the tries of one probe of one container.
#[derive(Clone, Debug)]
pub struct Machine {
    kind: Kind,
    pace: Pace,
    last_good: Option<bool>,
    row: u32,
    outcome: Outcome,
    /// It has made its mind up for good: a startup probe after its first result.
    over: bool,
}

impl Machine {
    /// Before the first try.
    #[must_use]
    pub fn new(kind: Kind, pace: Pace) -> Self {
        Self { kind, pace, last_good: None, row: 0, outcome: kind.initial(), over: false }
    }

    /// As it was left: what it said before a restart of ours holds until tries say otherwise.
    #[must_use]
    pub fn resumed(kind: Kind, pace: Pace, outcome: Outcome) -> Self {
        let over = match kind {
            Kind::Startup => outcome != Outcome::Unknown,
            Kind::Liveness => outcome == Outcome::Failure,
            Kind::Readiness => false,
        };
        Self { outcome, over, ..Self::new(kind, pace) }
    }

    /// What it says now.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        self.outcome
    }

    /// Whether nothing more is to be tried of this container: a startup probe that has decided, or a liveness probe that
    /// has ended it.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.over
    }

    /// Counts a try.
    pub fn count(&mut self, tried: &Try) {
        let good = match tried {
            Try::Good(_) => true,
            Try::Bad(_) => false,
            Try::Error(_) => return,
        };
        self.row = if self.last_good == Some(good) { self.row.saturating_add(1) } else { 1 };
        self.last_good = Some(good);
        let wanted = if good { self.pace.successes } else { self.pace.failures };
        if self.row < wanted {
            return;
        }
        self.outcome = if good { Outcome::Success } else { Outcome::Failure };
        // The container is restarted, and its successor starts counting anew.
        self.over = match self.kind {
            Kind::Startup => true,
            Kind::Liveness => !good,
            Kind::Readiness => false,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pace(successes: u32, failures: u32) -> Pace {
        let mut pace = Pace::of(&Probe::default());
        (pace.successes, pace.failures) = (successes, failures);
        pace
    }

    #[test]
    fn tries_are_counted_in_a_row() {
        // g good, b bad, e error; then S, F or U for what it says, and ! when it is over.
        for (kind, successes, failures, tries, expected) in [
            (Kind::Readiness, 1, 3, "", "F"),
            (Kind::Liveness, 1, 3, "", "S"),
            (Kind::Startup, 1, 3, "", "U"),
            (Kind::Readiness, 1, 3, "g", "S"),
            (Kind::Readiness, 2, 3, "g", "F"),
            (Kind::Readiness, 2, 3, "gbg", "F"),
            (Kind::Readiness, 2, 3, "geg", "S"),
            (Kind::Readiness, 1, 3, "gbb", "S"),
            (Kind::Readiness, 1, 3, "gbbb", "F"),
            (Kind::Readiness, 1, 3, "gbbbg", "S"),
            (Kind::Liveness, 1, 3, "bb", "S"),
            (Kind::Liveness, 1, 3, "bbgbb", "S"),
            (Kind::Liveness, 1, 3, "bbb", "F!"),
            (Kind::Startup, 1, 3, "bb", "U"),
            (Kind::Startup, 1, 3, "bbg", "S!"),
            (Kind::Startup, 1, 3, "bbb", "F!"),
            (Kind::Startup, 1, 1, "eee", "U"),
        ] {
            let mut machine = Machine::new(kind, pace(successes, failures));
            for tried in tries.chars() {
                machine.count(&match tried {
                    'g' => Try::Good(None),
                    'b' => Try::Bad(String::new()),
                    _ => Try::Error(String::new()),
                });
            }
            let letter = match machine.outcome() {
                Outcome::Success => "S",
                Outcome::Failure => "F",
                Outcome::Unknown => "U",
            };
            let shown = format!("{letter}{}", if machine.is_over() { "!" } else { "" });
            assert_eq!(shown, expected, "{kind:?} {successes}/{failures} {tries}");
        }
    }

    #[test]
    fn what_was_said_holds_until_tries_say_otherwise() {
        let mut machine = Machine::resumed(Kind::Readiness, pace(1, 2), Outcome::Success);
        for expected in [Outcome::Success, Outcome::Failure] {
            machine.count(&Try::Bad(String::new()));
            assert_eq!(machine.outcome(), expected);
        }
        assert!(Machine::resumed(Kind::Startup, pace(1, 3), Outcome::Success).is_over());
        assert!(!Machine::resumed(Kind::Startup, pace(1, 3), Outcome::Unknown).is_over());
    }

    #[test]
    fn paces_have_defaults() {
        let pace = Pace::of(&Probe::default());
        assert_eq!((pace.period.as_secs(), pace.limit.as_secs(), pace.successes, pace.failures), (10, 1, 1, 3));
        let probe = Probe {
            period_seconds: Some(0),
            timeout_seconds: Some(-1),
            initial_delay_seconds: Some(4),
            ..Probe::default()
        };
        let pace = Pace::of(&probe);
        assert_eq!((pace.period.as_secs(), pace.limit.as_secs(), pace.initial_delay.as_secs()), (10, 1, 4));
    }
}
