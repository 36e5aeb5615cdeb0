//! When a token is renewed. Pure.

use std::time::Duration;

/// However long a token is good for, it is renewed once a day.
const AGE_MAX: Duration = Duration::from_secs(24 * 3600);
/// So that a node's tokens don't all come at once, up to this much is taken off.
pub(super) const JITTER_MAX: Duration = Duration::from_secs(10);

/// A token is kept for at least this long, whatever its times say: clocks differ, and nobody may ask without end.
const AGE_MIN: Duration = Duration::from_secs(10);
/// How long after a refusal the API is asked again, while the old token is good.
pub(super) const RETRY: Duration = Duration::from_secs(60);

/// How long after it came a token is renewed: when a fifth of its life is left, or after a day.
pub(super) fn refresh_after(lifetime: Duration, jitter: Duration) -> Duration {
    (lifetime - lifetime / 5).min(AGE_MAX).saturating_sub(jitter.min(JITTER_MAX)).max(AGE_MIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_renewed_at_four_fifths_or_after_a_day() {
        let seconds = Duration::from_secs;
        for (lifetime, jitter, expected) in [
            (600, 0, 480),
            (3607, 0, 2885),
            (3600, 7, 2873),
            (7 * 86_400, 0, 86_400),
            (5, 0, 10),
            (0, 9, 10),
            (100, 99, 70),
        ] {
            let found = refresh_after(seconds(lifetime), seconds(jitter));
            assert_eq!(found.as_secs(), expected, "{lifetime} s less {jitter} s");
        }
    }
}
