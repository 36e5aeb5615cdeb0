//! How large things were, counted in buckets.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::line;

/// Counts sizes in `N` buckets and one for all that is larger. Shared by whoever counts.
#[derive(Debug)]
pub struct Sizes<const N: usize> {
    bounds: &'static [u64; N],
    buckets: [AtomicU64; N],
    beyond: AtomicU64,
    sum: AtomicU64,
}

impl<const N: usize> Sizes<N> {
    /// With these upper bounds, ascending and in the unit of what is counted.
    #[must_use]
    pub fn new(bounds: &'static [u64; N]) -> Self {
        let buckets = std::array::from_fn(|_| AtomicU64::new(0));
        Self { bounds, buckets, beyond: AtomicU64::new(0), sum: AtomicU64::new(0) }
    }

    /// One with the same bounds, which has counted nothing.
    #[must_use]
    pub fn empty(&self) -> Self {
        Self::new(self.bounds)
    }

    fn all(&self) -> impl Iterator<Item = &AtomicU64> {
        self.buckets.iter().chain([&self.beyond])
    }

    /// Something was so large.
    pub fn observe(&self, size: u64) {
        let place = self.bounds.iter().position(|bound| size <= *bound);
        place.map_or(&self.beyond, |place| &self.buckets[place]).fetch_add(1, Relaxed);
        self.sum.fetch_add(size, Relaxed);
    }

    /// Adds what another one counted, which has the same bounds.
    pub fn absorb(&self, other: &Self) {
        for (own, other) in self.all().zip(other.all()) {
            own.fetch_add(other.load(Relaxed), Relaxed);
        }
        self.sum.fetch_add(other.sum.load(Relaxed), Relaxed);
    }

    /// How many sizes were counted.
    pub fn count(&self) -> u64 {
        self.all().map(|bucket| bucket.load(Relaxed)).sum()
    }

    /// Writes the lines of the metric `name` with these labels, behind its [`head`](super::head).
    pub fn write(&self, text: &mut String, name: &str, labels: &str) {
        let (bucket, mut below) = (format!("{name}_bucket"), 0);
        for (bound, count) in self.bounds.iter().zip(&self.buckets) {
            below += count.load(Relaxed);
            line(text, &bucket, &format!("{labels},le=\"{}\"", go_float(*bound)), below);
        }
        below += self.beyond.load(Relaxed);
        line(text, &bucket, &format!("{labels},le=\"+Inf\""), below);
        line(text, &format!("{name}_sum"), labels, self.sum.load(Relaxed));
        line(text, &format!("{name}_count"), labels, below);
    }
}

/// A whole number as Go writes a floating one: from a million on with an exponent. Bounds are compared as text.
fn go_float(number: u64) -> String {
    if number < 1_000_000 {
        return number.to_string();
    }
    #[expect(clippy::cast_precision_loss, reason = "Prometheus' numbers are floating")]
    let written = format!("{:e}", number as f64);
    match written.split_once('e') {
        Some((digits, exponent)) => format!("{digits}e+{exponent:0>2}"),
        None => written,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_counted_up_to_their_bound_and_added() {
        let sizes = Sizes::new(&[1000, 131_072, 1_000_000]);
        for size in [0, 1000, 1001, 5_000_000] {
            sizes.observe(size);
        }
        let other = Sizes::new(&[1000, 131_072, 1_000_000]);
        other.observe(7);
        sizes.absorb(&other);
        let mut text = String::new();
        sizes.write(&mut text, "size_bytes", "kind=\"a\"");
        let lines = [
            "size_bytes_bucket{kind=\"a\",le=\"1000\"} 3",
            "size_bytes_bucket{kind=\"a\",le=\"131072\"} 4",
            "size_bytes_bucket{kind=\"a\",le=\"1e+06\"} 4",
            "size_bytes_bucket{kind=\"a\",le=\"+Inf\"} 5",
            "size_bytes_sum{kind=\"a\"} 5002008",
            "size_bytes_count{kind=\"a\"} 5",
        ];
        assert_eq!(text.lines().collect::<Vec<_>>(), lines);
        assert_eq!((sizes.count(), go_float(1_250_000_000)), (5, "1.25e+09".to_owned()));
    }
}
