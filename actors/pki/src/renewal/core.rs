//! When to look next: pure.

use std::time::Duration;

use crate::plan::{RENEWAL_WINDOW, is_due};

/// The longest time between two looks at the clock. Nothing is read then but the clock: it may have been set, or the
/// machine may have slept, and the timer that waits for the next leaf knows of neither.
const PAUSE_MAX: Duration = Duration::from_secs(6 * 3600);
/// The pause after a failure, and the shortest of all: what could not be renewed is not tried without a break.
const PAUSE_MIN: Duration = Duration::from_secs(5 * 60);

/// How long to wait, given when the first leaf ends. Both are since 1970.
pub(crate) fn pause(first_end: Duration, now: Duration) -> Duration {
    let due = first_end.saturating_sub(RENEWAL_WINDOW);
    due.saturating_sub(now).clamp(PAUSE_MIN, PAUSE_MAX)
}

/// How long to wait after a failure.
pub(crate) fn pause_after_failure() -> Duration {
    PAUSE_MIN
}

/// Whether the files have to be looked at, given when the first leaf ends and when they were looked at last. A clock that
/// was set back may make certificates begin in the future.
pub(crate) fn must_look(first_end: Duration, looked_at: Duration, now: Duration) -> bool {
    is_due(first_end, now) || now < looked_at
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(24 * 3600);

    #[test]
    fn the_next_look_is_when_the_first_leaf_enters_its_window() {
        let now = DAY * 10_000;
        let cases = [
            (DAY * 365, PAUSE_MAX),
            (DAY * 120 + Duration::from_secs(3600), Duration::from_secs(3600)),
            (DAY * 120, PAUSE_MIN),
            (DAY, PAUSE_MIN),
        ];
        for (left, wanted) in cases {
            assert_eq!(pause(now + left, now), wanted, "{left:?}");
        }
    }

    #[test]
    fn files_are_only_read_when_something_is_due_or_the_clock_was_set() {
        let now = DAY * 10_000;
        assert!(!must_look(now + DAY * 121, now - DAY, now));
        assert!(must_look(now + DAY * 120, now - DAY, now), "a leaf is due");
        assert!(must_look(now + DAY * 365, now + DAY, now), "the clock was set back");
    }
}
