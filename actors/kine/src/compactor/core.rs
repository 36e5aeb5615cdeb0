//! Up to where history is dropped, and when: pure.

use std::time::Duration;

use k3sd_datastore::{Revision, Status};

use crate::config::CompactConfig;

/// What is remembered between two ticks.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    seen: Option<Revision>,
}

impl Plan {
    /// A tick: what to compact up to, if anything. That is where the store was one tick ago, so a client that lists and
    /// then watches has an interval's time. The first tick only looks.
    pub(crate) fn tick(&mut self, status: Status) -> Option<Revision> {
        let target = self.seen.replace(status.revision)?;
        (target > status.compacted).then_some(target)
    }
}

/// The time to the next tick; `fraction` is a random number from 0 to 1.
pub(crate) fn pause(config: CompactConfig, fraction: f64) -> Duration {
    config.interval.mul_f64(1.0 + f64::from(config.jitter_percent.min(100)) / 100.0 * fraction)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(revision: i64, compacted: i64) -> Status {
        Status { revision: Revision::new(revision), compacted: Revision::new(compacted), ..Status::default() }
    }

    #[test]
    fn an_interval_of_history_is_kept() {
        let mut plan = Plan::default();
        assert_eq!(plan.tick(status(10, 0)), None, "nothing is known of the past yet");
        assert_eq!(plan.tick(status(25, 0)), Some(Revision::new(10)));
        assert_eq!(plan.tick(status(25, 10)), Some(Revision::new(25)));
        assert_eq!(plan.tick(status(25, 25)), None, "nothing has happened since");
        assert_eq!(plan.tick(status(40, 30)), None, "somebody else was quicker");
        assert_eq!(plan.tick(status(41, 30)), Some(Revision::new(40)));
    }

    #[test]
    fn jitter_only_makes_it_longer() {
        let config = CompactConfig { interval: Duration::from_secs(100), jitter_percent: 10 };
        assert_eq!(pause(config, 0.0), Duration::from_secs(100));
        assert_eq!(pause(config, 0.5), Duration::from_secs(105));
        assert_eq!(pause(CompactConfig { jitter_percent: 0, ..config }, 0.9), Duration::from_secs(100));
    }
}
