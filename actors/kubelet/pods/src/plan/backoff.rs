//! How long what failed waits before it is tried again.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

/// The first wait.
const FIRST: Duration = Duration::from_secs(10);
/// The longest wait.
const LONGEST: Duration = Duration::from_secs(300);
/// Quiet for this long, it begins again with the first.
const FORGOTTEN: Duration = Duration::from_secs(600);
/// Entries that are kept; a pod has fewer containers and images than that.
const ENTRIES_MAX: usize = 1024;

/// Waits by what they are for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Backoffs(BTreeMap<String, Entry>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    wait: Duration,
    updated: Timestamp,
}

fn between(earlier: Timestamp, later: Timestamp) -> Duration {
    later.duration_since(earlier).max(SignedDuration::ZERO).unsigned_abs()
}

impl Backoffs {
    /// The wait that holds now, and until when, of something that failed at `failed`.
    #[must_use]
    pub fn waiting(&self, key: &str, failed: Timestamp, now: Timestamp) -> Option<(Duration, Timestamp)> {
        let entry = self.0.get(key)?;
        if between(entry.updated, failed) > FORGOTTEN {
            return None;
        }
        let until = failed.checked_add(entry.wait).ok()?;
        (now < until).then_some((entry.wait, until))
    }

    /// The wait that holds since the last try, and until when.
    #[must_use]
    pub fn since_try(&self, key: &str, now: Timestamp) -> Option<(Duration, Timestamp)> {
        let tried = self.0.get(key)?.updated;
        self.waiting(key, tried, now)
    }

    /// Something that failed at `failed` is tried again now: the next wait is longer.
    pub fn next(&mut self, key: &str, failed: Timestamp, now: Timestamp) {
        let wait = match self.0.get(key) {
            Some(entry) if between(entry.updated, failed) <= FORGOTTEN => (entry.wait * 2).min(LONGEST),
            _ => FIRST,
        };
        if self.0.len() >= ENTRIES_MAX {
            self.0.retain(|_, entry| between(entry.updated, now) <= FORGOTTEN);
        }
        self.0.insert(key.to_owned(), Entry { wait, updated: now });
    }
}

/// A wait as messages show it: `1m20s`.
#[must_use]
pub fn shown(wait: Duration) -> String {
    let seconds = wait.as_secs();
    match (seconds / 60, seconds % 60) {
        (0, seconds) => format!("{seconds}s"),
        (minutes, seconds) => format!("{minutes}m{seconds}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + second).unwrap()
    }

    #[test]
    fn waits_double_up_to_five_minutes_and_are_forgotten() {
        let mut waits = Backoffs::default();
        assert_eq!(waits.waiting("c", at(0), at(0)), None);
        let mut now = 0;
        for expected in [10, 20, 40, 80, 160, 300, 300] {
            waits.next("c", at(now), at(now));
            assert_eq!(
                waits.waiting("c", at(now), at(now)),
                Some((Duration::from_secs(expected), at(now + i64::try_from(expected).unwrap())))
            );
            now += i64::try_from(expected).unwrap();
            assert_eq!(waits.waiting("c", at(now - i64::try_from(expected).unwrap()), at(now)), None);
        }
        assert_eq!(waits.waiting("c", at(now + 1000), at(now + 1000)), None);
        waits.next("c", at(now + 1000), at(now + 1000));
        assert_eq!(waits.waiting("c", at(now + 1000), at(now + 1001)).unwrap().0, FIRST);
    }

    #[test]
    fn waits_are_shown_as_go_does() {
        for (seconds, text) in [(10, "10s"), (60, "1m0s"), (80, "1m20s"), (300, "5m0s")] {
            assert_eq!(shown(Duration::from_secs(seconds)), text);
        }
    }
}
