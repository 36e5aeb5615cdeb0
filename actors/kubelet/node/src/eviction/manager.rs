//! Which thresholds count at a moment, and what the node is short of: pure.

use std::collections::BTreeMap;
use std::time::Duration;

use k3sd_runtime::Moment;

use super::Pressures;
use super::signal::{Observations, Signal, Threshold};

/// How it decides.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Below what something is done.
    pub thresholds: Vec<Threshold>,
    /// How long a pressure is told of after it was last seen.
    pub transition: Duration,
    /// Most seconds a pod has to end after a soft threshold.
    pub soft_grace_seconds_max: i64,
}

/// Something the node can be short of, as a condition says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Shortage {
    Memory,
    Disk,
    Pids,
}

fn shortage(signal: Signal) -> Shortage {
    match signal.resource() {
        "memory" => Shortage::Memory,
        "pids" => Shortage::Pids,
        _ => Shortage::Disk,
    }
}

/// What is to be done now.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Decision {
    /// What the node says of itself.
    pub pressures: Pressures,
    /// The threshold to do something about: memory comes first.
    pub reclaim: Option<Threshold>,
}

/// What is remembered between two looks.
#[derive(Clone, Debug)]
pub struct Manager {
    settings: Settings,
    /// Thresholds that were met, grace included, at the last look.
    met: Vec<Threshold>,
    /// Since when each one has been met: signal, and whether it is a soft one.
    since: BTreeMap<(Signal, bool), Moment>,
    /// When the node was last short of something.
    short: BTreeMap<Shortage, Moment>,
}

impl Manager {
    /// Nothing seen yet.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self { settings, met: Vec::new(), since: BTreeMap::new(), short: BTreeMap::new() }
    }

    /// Takes in a look and decides.
    pub fn look(&mut self, seen: &Observations, now: Moment) -> Decision {
        let is_met = |threshold: &Threshold, with_reclaim| {
            seen.get(&threshold.signal).is_some_and(|found| threshold.is_met(*found, with_reclaim))
        };
        let thresholds = self.settings.thresholds.iter();
        // One that was met is over only when the reclaim is there too.
        let met: Vec<Threshold> = thresholds
            .filter(|threshold| is_met(threshold, false) || (self.met.contains(threshold) && is_met(threshold, true)))
            .copied()
            .collect();
        let key = |threshold: &Threshold| (threshold.signal, threshold.grace.is_some());
        let since = met.iter().map(|one| (key(one), self.since.get(&key(one)).copied().unwrap_or(now))).collect();
        self.since = since;
        for threshold in &met {
            self.short.insert(shortage(threshold.signal), now);
        }
        let transition = self.settings.transition;
        self.short.retain(|_, last| now.since(*last) < transition || now == *last);
        let due = |threshold: &Threshold| match threshold.grace {
            Some(grace) => self.since.get(&key(threshold)).is_some_and(|since| now.since(*since) >= grace),
            None => true,
        };
        self.met = met.into_iter().filter(due).collect();
        Decision { pressures: self.pressures(), reclaim: self.first() }
    }

    /// What the node is short of, at the last look.
    #[must_use]
    pub fn pressures(&self) -> Pressures {
        let is = |what| self.short.contains_key(&what);
        Pressures { memory: is(Shortage::Memory), disk: is(Shortage::Disk), pids: is(Shortage::Pids) }
    }

    /// Whether garbage collection was enough: after it nothing is met any more, reclaims included.
    #[must_use]
    pub fn is_resolved(&self, seen: &Observations) -> bool {
        let is_met =
            |threshold: &Threshold| seen.get(&threshold.signal).is_some_and(|found| threshold.is_met(*found, true));
        !self.met.iter().any(is_met)
    }

    /// How long a pod has to end: one second when it is urgent.
    #[must_use]
    pub fn grace_seconds(&self, threshold: &Threshold, wanted: Option<i64>) -> i64 {
        match threshold.grace {
            None => 1,
            Some(_) => wanted.map_or(self.settings.soft_grace_seconds_max, |wanted| {
                wanted.min(self.settings.soft_grace_seconds_max)
            }),
        }
    }

    /// Memory first, hard ones before soft ones, then in the order of signals.
    fn first(&self) -> Option<Threshold> {
        self.met.iter().min_by_key(|one| (one.signal, one.grace.is_some())).copied()
    }
}
