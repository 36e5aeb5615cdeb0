//! How long to wait before trying again.

use std::time::Duration;

use crate::clock::Rng;

/// Exponential backoff with jitter. Pure data; who counts the attempts is the caller's business.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Backoff {
    /// So many attempts in a row wait nothing at all: one death is mended before anybody notices.
    pub free_attempts: u32,
    /// The first wait that is not zero.
    pub delay_min: Duration,
    /// No wait is longer than this, jitter included.
    pub delay_max: Duration,
    /// Each wait is this many times the one before; at least 1.
    pub factor: f64,
    /// A wait is shortened by a random share of up to this much of it, from 0 (none) to 1. Many actors that died of
    /// one cause then don't return in step.
    pub jitter: f64,
    /// After so long without a death the count of attempts starts again.
    pub reset_after: Duration,
}

impl Backoff {
    /// Never waits.
    pub const OFF: Self = Self {
        free_attempts: u32::MAX,
        delay_min: Duration::ZERO,
        delay_max: Duration::ZERO,
        factor: 1.0,
        jitter: 0.0,
        reset_after: Duration::MAX,
    };

    /// For actors: the first restart at once, then 50 ms doubling up to 10 s, a fifth of jitter.
    pub const RESTART: Self = Self {
        free_attempts: 1,
        delay_min: Duration::from_millis(50),
        delay_max: Duration::from_secs(10),
        factor: 2.0,
        jitter: 0.2,
        reset_after: Duration::from_secs(60),
    };

    /// For keys in a work queue: 5 ms doubling up to 1000 s, as client-go's default item limiter does.
    pub const REQUEUE: Self = Self {
        free_attempts: 0,
        delay_min: Duration::from_millis(5),
        delay_max: Duration::from_secs(1000),
        factor: 2.0,
        jitter: 0.0,
        reset_after: Duration::MAX,
    };

    /// The wait before attempt number `attempt`, counted from 1.
    pub fn delay(&self, attempt: u32, rng: &mut Rng) -> Duration {
        let Some(step) = attempt.checked_sub(self.free_attempts).and_then(|n| n.checked_sub(1)) else {
            return Duration::ZERO;
        };
        // Past 2^64 the cap has long been reached, and powi must not overflow to infinity times zero.
        let growth = self.factor.max(1.0).powi(i32::try_from(step.min(64)).unwrap_or(64));
        let full = (self.delay_min.as_secs_f64() * growth).min(self.delay_max.as_secs_f64());
        let kept = 1.0 - self.jitter.clamp(0.0, 1.0) * rng.fraction();
        Duration::from_secs_f64(full * kept)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_from_the_minimum_to_the_cap_after_the_free_attempts() {
        let backoff = Backoff { jitter: 0.0, ..Backoff::RESTART };
        let mut rng = Rng::seeded(1);
        let waits: Vec<u64> = (1..=11).map(|n| backoff.delay(n, &mut rng).as_millis() as u64).collect();
        assert_eq!(waits, [0, 50, 100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000]);
        assert_eq!(backoff.delay(u32::MAX, &mut rng), Duration::from_secs(10));
    }

    #[test]
    fn jitter_only_shortens_and_by_no_more_than_its_share() {
        let mut rng = Rng::seeded(2);
        for attempt in 2..200 {
            let full = Backoff { jitter: 0.0, ..Backoff::RESTART }.delay(attempt, &mut Rng::seeded(0));
            let wait = Backoff::RESTART.delay(attempt, &mut rng);
            assert!(wait <= full && wait >= full.mul_f64(0.8), "{attempt}: {wait:?} of {full:?}");
        }
    }

    #[test]
    fn off_never_waits() {
        assert_eq!(Backoff::OFF.delay(u32::MAX, &mut Rng::seeded(0)), Duration::ZERO);
    }
}
