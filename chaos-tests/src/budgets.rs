//! Which deaths the supervisors of a tree still bear. A supervisor that has no budget left ends its other children too, which
//! is right, but another test.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use k3sd_runtime::inspect::wire::{Actor, Intensity};

/// What each supervisor has spent.
#[derive(Debug, Default)]
pub struct Budgets {
    intensities: BTreeMap<String, Intensity>,
    deaths: BTreeMap<String, Vec<Instant>>,
    slack: Duration,
}

impl Budgets {
    /// Those of the tree under `root`, unspent. A supervisor learns of a death up to `slack` later than whoever wished it.
    #[must_use]
    pub fn of(root: &Actor, slack: Duration) -> Self {
        let mut budgets = Self { slack, ..Self::default() };
        budgets.read(root);
        budgets
    }

    fn read(&mut self, actor: &Actor) {
        self.intensities.extend(actor.intensity.map(|intensity| (actor.path.clone(), intensity)));
        actor.children.iter().for_each(|child| self.read(child));
    }

    /// Whether this path is a supervisor's.
    #[must_use]
    pub fn is_supervisor(&self, path: &str) -> bool {
        self.intensities.contains_key(path)
    }

    /// How long to wait until this one may die.
    #[must_use]
    pub fn wait(&self, victim: &str) -> Duration {
        let parent = parent(victim);
        let (Some(intensity), Some(deaths)) = (self.intensities.get(parent), self.deaths.get(parent)) else {
            return Duration::ZERO;
        };
        let kept = usize::try_from(intensity.restarts).unwrap_or(usize::MAX);
        let oldest = deaths.len().checked_sub(kept).map(|place| deaths[place]);
        oldest.map_or(Duration::ZERO, |death| {
            (Duration::from_millis(intensity.period_ms) + self.slack).saturating_sub(death.elapsed())
        })
    }

    /// Takes note of a death.
    pub fn spend(&mut self, victim: &str) {
        self.deaths.entry(parent(victim).to_owned()).or_default().push(Instant::now());
    }
}

fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("/", |(parent, _)| parent)
}
