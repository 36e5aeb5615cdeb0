//! The restart decision, pure: no clock, no IO, every row of the matrix a unit test.

use std::collections::VecDeque;
use std::time::Duration;

use crate::clock::Moment;
use crate::exit::Exit;
use crate::spec::{Intensity, Restart, Strategy};

/// The restarts a supervisor has made within its window.
#[derive(Clone, Debug)]
pub struct Budget {
    intensity: Intensity,
    spent: VecDeque<Moment>,
}

impl Budget {
    /// A budget from which nothing was spent.
    pub fn new(intensity: Intensity) -> Self {
        Self { intensity, spent: VecDeque::new() }
    }

    /// Takes one restart at `now`. `false` when it is one too many.
    ///
    /// As in OTP, a restart that is exactly `period` old still counts.
    pub fn spend(&mut self, now: Moment) -> bool {
        self.forget(now);
        if self.spent.len() >= self.intensity.restarts as usize {
            return false;
        }
        self.spent.push_back(now);
        true
    }

    /// Restarts that count at `now`.
    pub fn spent(&mut self, now: Moment) -> usize {
        self.forget(now);
        self.spent.len()
    }

    /// What is borne.
    pub fn intensity(&self) -> Intensity {
        self.intensity
    }

    fn forget(&mut self, now: Moment) {
        let aged = |then: &Moment, period: Duration| now.since(*then) > period;
        while self.spent.front().is_some_and(|then| aged(then, self.intensity.period)) {
            self.spent.pop_front();
        }
    }
}

/// Which children to restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Range {
    /// The dead child only.
    Itself,
    /// The dead child and all that were started after it.
    FromItself,
    /// Every child.
    All,
}

/// What follows from one death.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It stays dead.
    Leave,
    /// These children restart.
    Restart(Range),
    /// The budget is spent: stop all children, then fail, so that the parent decides.
    Escalate,
}

impl Strategy {
    /// The children that a restart takes along.
    pub fn range(self) -> Range {
        match self {
            Self::OneForOne | Self::Dynamic => Range::Itself,
            Self::RestForOne => Range::FromItself,
            Self::OneForAll => Range::All,
        }
    }
}

/// Decides about one dead child.
pub fn verdict(strategy: Strategy, restart: Restart, exit: &Exit, budget: &mut Budget, now: Moment) -> Verdict {
    let wanted = match restart {
        Restart::Permanent => true,
        Restart::Transient => !exit.is_clean(),
        Restart::Temporary => false,
    };
    match (wanted, wanted && budget.spend(now)) {
        (false, _) => Verdict::Leave,
        (true, false) => Verdict::Escalate,
        (true, true) => Verdict::Restart(strategy.range()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Moment {
        Moment::START + Duration::from_secs(seconds)
    }

    #[test]
    fn the_budget_holds_exactly_its_number_within_its_window() {
        let mut budget = Budget::new(Intensity { restarts: 2, period: Duration::from_secs(10) });
        assert!(budget.spend(at(0)));
        assert!(budget.spend(at(5)));
        assert!(!budget.spend(at(10)), "the first is exactly as old as the period and still counts");
        assert!(budget.spend(at(11)));
        assert_eq!(budget.spent(at(15)), 2);
        assert_eq!(budget.spent(at(16)), 1);
        assert_eq!(budget.spent(at(22)), 0);
    }

    #[test]
    fn a_budget_of_zero_escalates_at_once() {
        let mut budget = Budget::new(Intensity { restarts: 0, period: Duration::from_secs(10) });
        let verdict = verdict(Strategy::OneForOne, Restart::Permanent, &Exit::Killed, &mut budget, at(0));
        assert_eq!(verdict, Verdict::Escalate);
    }

    #[test]
    fn restart_types_by_exits_by_strategies() {
        let text = String::new;
        let exits = [
            Exit::Normal,
            Exit::Shutdown,
            Exit::Error(text()),
            Exit::Panic(text()),
            Exit::Killed,
            Exit::StartFailed(text()),
            Exit::Escalated(text()),
        ];
        for strategy in [Strategy::OneForOne, Strategy::RestForOne, Strategy::OneForAll, Strategy::Dynamic] {
            for restart in [Restart::Permanent, Restart::Transient, Restart::Temporary] {
                for exit in &exits {
                    let mut budget = Budget::new(Intensity::default());
                    let expected = match (restart, exit.is_clean()) {
                        (Restart::Permanent, _) | (Restart::Transient, false) => Verdict::Restart(strategy.range()),
                        (Restart::Transient, true) | (Restart::Temporary, _) => Verdict::Leave,
                    };
                    let found = verdict(strategy, restart, exit, &mut budget, at(0));
                    assert_eq!(found, expected, "{strategy:?} {restart:?} {exit}");
                    let cost = usize::from(expected != Verdict::Leave);
                    assert_eq!(budget.spent(at(0)), cost, "leaving a child dead costs nothing");
                }
            }
        }
    }
}
