//! The only source of time and randomness.
//!
//! Whatever decides, decides from a [`Moment`] and an [`Rng`] that it was handed. Both come from a [`Clock`], so a run
//! on a paused tokio clock with the same seed makes the same decisions again.

use std::fmt;
use std::ops::{Add, Sub};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rand::{Rng as _, SeedableRng};
use tokio::time::Instant;

/// A point on a [`Clock`]'s monotonic axis: nanoseconds since that clock was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment(u64);

impl Moment {
    /// The moment the clock was made.
    pub const START: Self = Self(0);

    /// A moment this many nanoseconds after the start of the clock.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since the start of the clock.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// The time from `earlier` to here, zero when `earlier` is later.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Moment {
    type Output = Self;
    /// Saturates: "never" stays "never".
    fn add(self, span: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)))
    }
}

impl Sub<Duration> for Moment {
    type Output = Self;
    /// Saturates at the start of the clock.
    fn sub(self, span: Duration) -> Self {
        Self(self.0.saturating_sub(u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)))
    }
}

/// Seeded random numbers. Small and quick, not for keys or tokens.
#[derive(Debug, Clone)]
pub struct Rng(rand::rngs::SmallRng);

impl Rng {
    /// The generator that always yields the same numbers for `seed`.
    pub fn seeded(seed: u64) -> Self {
        Self(rand::rngs::SmallRng::seed_from_u64(seed))
    }

    /// The next 64 random bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// A number below `limit`; 0 when `limit` is 0.
    pub fn below(&mut self, limit: u64) -> u64 {
        // The bias of a plain remainder is below 2^-32 for every limit used here.
        if limit == 0 { 0 } else { self.next_u64() % limit }
    }

    /// A fraction in `[0, 1)`.
    pub fn fraction(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

#[derive(Debug)]
struct Inner {
    base: Instant,
    /// Wall clock at `base`; only set when the wall clock is simulated.
    simulated_wall: Option<Duration>,
    /// By how many seconds a simulated wall clock was set forward or back since.
    jumped_seconds: AtomicI64,
    seed: u64,
    streams: AtomicU64,
}

/// Hands out moments, wall-clock times and random streams. Cloning shares the clock.
#[derive(Clone)]
pub struct Clock(Arc<Inner>);

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Clock").field("seed", &self.0.seed).field("now", &self.now()).finish()
    }
}

impl Clock {
    /// The machine's clocks and a seed from the operating system.
    pub fn system() -> Self {
        let mut seed = [0; 8];
        // Without a source of randomness a constant seed only makes jitter predictable, so it is no reason to fail.
        rand::TryRng::try_fill_bytes(&mut rand::rngs::SysRng, &mut seed).ok();
        Self::new(u64::from_le_bytes(seed), None)
    }

    /// A replayable clock: randomness from `seed`, and a wall clock that starts at 2030-01-01 and moves with tokio's
    /// (usually paused) clock.
    pub fn simulated(seed: u64) -> Self {
        Self::new(seed, Some(Duration::from_secs(1_893_456_000)))
    }

    fn new(seed: u64, simulated_wall: Option<Duration>) -> Self {
        let (jumped_seconds, streams) = (AtomicI64::new(0), AtomicU64::new(0));
        Self(Arc::new(Inner { base: Instant::now(), simulated_wall, jumped_seconds, seed, streams }))
    }

    /// Whether it is one of [`Clock::simulated`].
    pub fn is_simulated(&self) -> bool {
        self.0.simulated_wall.is_some()
    }

    /// Now, on the monotonic axis.
    pub fn now(&self) -> Moment {
        Moment::START + Instant::now().saturating_duration_since(self.0.base)
    }

    /// Time since 1970-01-01 UTC. For people and wire formats only: it may jump.
    pub fn wall(&self) -> Duration {
        match self.0.simulated_wall {
            Some(start) => {
                let jumped = self.0.jumped_seconds.load(Ordering::Relaxed);
                let (now, by) = (start + self.now().since(Moment::START), Duration::from_secs(jumped.unsigned_abs()));
                if jumped < 0 { now.saturating_sub(by) } else { now + by }
            }
            None => SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default(),
        }
    }

    /// Sets a simulated wall clock forward, or back if `seconds` is negative, as a time server does with a machine's. No
    /// timer notices. Without effect on the machine's own clock.
    pub fn jump_wall(&self, seconds: i64) {
        self.0.jumped_seconds.fetch_add(seconds, Ordering::Relaxed);
    }

    /// The wall-clock time at `moment`, as far as today's offset tells.
    pub fn wall_at(&self, moment: Moment) -> Duration {
        let (now, wall) = (self.now(), self.wall());
        if moment <= now { wall.saturating_sub(now.since(moment)) } else { wall + moment.since(now) }
    }

    /// A stream of random numbers of its own for `name`. The same seed, name and order of asking give the same
    /// stream, whatever else draws numbers in between.
    pub fn rng(&self, name: &str) -> Rng {
        let mut hash = self.0.seed ^ 0xcbf2_9ce4_8422_2325;
        for byte in name.bytes() {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3); // FNV-1a
        }
        let stream = if self.0.simulated_wall.is_some() { 0 } else { self.0.streams.fetch_add(1, Ordering::Relaxed) };
        Rng::seeded(hash.wrapping_add(stream))
    }

    /// Completes at `moment`, at once when it has passed.
    pub async fn sleep_until(&self, moment: Moment) {
        tokio::time::sleep_until(self.instant(moment)).await;
    }

    pub(crate) fn instant(&self, moment: Moment) -> Instant {
        // Thirty years stand for "never": tokio's timers can't hold the far end of the axis.
        const NEVER: Duration = Duration::from_secs(30 * 365 * 24 * 3600);
        self.0.base + moment.since(Moment::START).min(NEVER)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_saturate_instead_of_wrapping() {
        let late = Moment::from_nanos(u64::MAX) + Duration::from_secs(1);
        assert_eq!(late.as_nanos(), u64::MAX);
        assert_eq!(Moment::START - Duration::from_secs(1), Moment::START);
        assert_eq!(Moment::START.since(late), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn a_simulated_clock_moves_with_the_paused_clock_only() {
        let clock = Clock::simulated(7);
        let (now, wall) = (clock.now(), clock.wall());
        tokio::time::advance(Duration::from_secs(90)).await;
        assert_eq!(clock.now().since(now), Duration::from_secs(90));
        assert_eq!(clock.wall() - wall, Duration::from_secs(90));
        assert_eq!(clock.wall_at(now), wall);
        let before = (clock.now(), clock.wall());
        clock.jump_wall(-60);
        assert_eq!((clock.now(), clock.wall() + Duration::from_secs(60)), before);
        clock.jump_wall(100);
        assert_eq!(clock.wall() - before.1, Duration::from_secs(40));
    }

    #[tokio::test(start_paused = true)]
    async fn the_same_seed_and_name_give_the_same_numbers() {
        let draw = |seed, name: &str| Clock::simulated(seed).rng(name).next_u64();
        assert_eq!(draw(1, "a"), draw(1, "a"));
        assert_ne!(draw(1, "a"), draw(1, "b"));
        assert_ne!(draw(1, "a"), draw(2, "a"));
    }

    #[test]
    fn fractions_stay_below_one_and_limits_hold() {
        let mut rng = Rng::seeded(3);
        for _ in 0..10_000 {
            assert!((0.0..1.0).contains(&rng.fraction()));
            assert!(rng.below(10) < 10);
        }
        assert_eq!(rng.below(0), 0);
    }
}
