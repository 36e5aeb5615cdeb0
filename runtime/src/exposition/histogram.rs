//! How long things took, counted in buckets.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use super::line;

/// Counts times in `N` buckets and one for all that is longer. Shared by whoever counts.
#[derive(Debug)]
pub struct Histogram<const N: usize> {
    bounds_ms: &'static [u64; N],
    buckets: [AtomicU64; N],
    beyond: AtomicU64,
    micros: AtomicU64,
}

impl<const N: usize> Histogram<N> {
    /// With these upper bounds, in milliseconds and ascending.
    #[must_use]
    pub fn new(bounds_ms: &'static [u64; N]) -> Self {
        let buckets = std::array::from_fn(|_| AtomicU64::new(0));
        Self { bounds_ms, buckets, beyond: AtomicU64::new(0), micros: AtomicU64::new(0) }
    }

    /// Something took so long.
    pub fn observe(&self, took: Duration) {
        let place = self.bounds_ms.iter().position(|bound| took <= Duration::from_millis(*bound));
        place.map_or(&self.beyond, |place| &self.buckets[place]).fetch_add(1, Relaxed);
        self.micros.fetch_add(u64::try_from(took.as_micros()).unwrap_or(u64::MAX), Relaxed);
    }

    /// How many times were counted.
    pub fn count(&self) -> u64 {
        self.buckets.iter().chain([&self.beyond]).map(|bucket| bucket.load(Relaxed)).sum()
    }

    /// Writes the lines of the metric `name` with these labels, behind its [`head`](super::head).
    pub fn write(&self, text: &mut String, name: &str, labels: &str) {
        let (bucket, mut below) = (format!("{name}_bucket"), 0);
        for (bound, count) in self.bounds_ms.iter().zip(&self.buckets) {
            below += count.load(Relaxed);
            let bound = Duration::from_millis(*bound).as_secs_f64();
            line(text, &bucket, &format!("{labels},le=\"{bound}\""), below);
        }
        below += self.beyond.load(Relaxed);
        line(text, &bucket, &format!("{labels},le=\"+Inf\""), below);
        let seconds = Duration::from_micros(self.micros.load(Relaxed)).as_secs_f64();
        line(text, &format!("{name}_sum"), labels, seconds);
        line(text, &format!("{name}_count"), labels, below);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_counted_up_to_their_bound() {
        let histogram = Histogram::new(&[10, 1000]);
        for millis in [0, 10, 11, 5000] {
            histogram.observe(Duration::from_millis(millis));
        }
        assert_eq!(histogram.count(), 4);
        let mut text = String::new();
        histogram.write(&mut text, "took_seconds", "kind=\"a\"");
        let lines = [
            "took_seconds_bucket{kind=\"a\",le=\"0.01\"} 2",
            "took_seconds_bucket{kind=\"a\",le=\"1\"} 3",
            "took_seconds_bucket{kind=\"a\",le=\"+Inf\"} 4",
            "took_seconds_sum{kind=\"a\"} 5.021",
            "took_seconds_count{kind=\"a\"} 4",
        ];
        assert_eq!(text.lines().collect::<Vec<_>>(), lines);
        let mut text = String::new();
        Histogram::new(&[10]).write(&mut text, "took_seconds", "");
        assert!(text.starts_with("took_seconds_bucket{le=\"0.01\"} 0\n"), "{text}");
    }
}
