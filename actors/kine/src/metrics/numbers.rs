//! The counters. There is a fixed number of them, whatever happens.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use k3sd_datastore::{Op, Remedy, StoreError};

use k3sd_runtime::exposition::{head, line};

/// Kinds of operations, under the names that they have in labels.
const OPS: [(Op, &str); 8] = [
    (Op::Open, "open"),
    (Op::Write, "write"),
    (Op::Get, "get"),
    (Op::List, "list"),
    (Op::Count, "count"),
    (Op::Watch, "watch"),
    (Op::Compact, "compact"),
    (Op::Status, "status"),
];
/// Outcomes: the first is success, which kine leaves without a code.
const CODES: [&str; 11] = [
    "",
    "conflict",
    "compacted",
    "future_revision",
    "invalid",
    "unknown",
    "full",
    "locked",
    "unreachable",
    "database",
    "closed",
];
/// From a millisecond on, each bucket is twice the one before.
const BUCKETS: usize = 14;
const BUCKET_FIRST: Duration = Duration::from_millis(1);

/// Times of one kind of operation with one kind of outcome.
#[derive(Debug, Default)]
struct Histogram {
    /// How many fell into each bucket and into none of those before; the last is for the rest.
    buckets: [AtomicU64; BUCKETS + 1],
    nanos: AtomicU64,
}

impl Histogram {
    fn observe(&self, took: Duration) {
        let mut bucket = 0;
        let mut bound = BUCKET_FIRST;
        while bucket < BUCKETS && took > bound {
            bucket += 1;
            bound *= 2;
        }
        self.buckets[bucket].fetch_add(1, Relaxed);
        self.nanos.fetch_add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX), Relaxed);
    }

    fn count(&self) -> u64 {
        self.buckets.iter().map(|bucket| bucket.load(Relaxed)).sum()
    }

    fn write(&self, text: &mut String, labels: &str) {
        let (mut below, mut bound) = (0, BUCKET_FIRST);
        for bucket in &self.buckets[..BUCKETS] {
            below += bucket.load(Relaxed);
            let labels = format!("{labels},le=\"{}\"", bound.as_secs_f64());
            line(text, "kine_sql_time_seconds_bucket", &labels, below);
            bound *= 2;
        }
        let count = below + self.buckets[BUCKETS].load(Relaxed);
        line(text, "kine_sql_time_seconds_bucket", &format!("{labels},le=\"+Inf\""), count);
        let seconds = Duration::from_nanos(self.nanos.load(Relaxed)).as_secs_f64();
        line(text, "kine_sql_time_seconds_sum", labels, seconds);
        line(text, "kine_sql_time_seconds_count", labels, count);
    }
}

/// All counters of a datastore.
#[derive(Debug, Default)]
pub(crate) struct Numbers {
    operations: [[Histogram; CODES.len()]; OPS.len()],
    under_way: AtomicUsize,
    compactions: [AtomicU64; 2],
    insert_errors: [AtomicU64; 2],
}

fn code(error: &StoreError) -> &'static str {
    match error {
        StoreError::Conflict(_) => "conflict",
        StoreError::Compacted { .. } => "compacted",
        StoreError::FutureRevision { .. } => "future_revision",
        StoreError::Invalid { .. } => "invalid",
        StoreError::Unknown { .. } => "unknown",
        StoreError::Full { .. } => "full",
        StoreError::Locked { .. } => "locked",
        StoreError::Unreachable { .. } => "unreachable",
        StoreError::Damaged { .. } | StoreError::Database { .. } => "database",
        StoreError::Closed => "closed",
    }
}

/// Counts an operation as under way for as long as it lives.
pub(crate) struct UnderWay<'a>(&'a Numbers);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Relaxed);
    }
}

impl Numbers {
    /// An operation begins.
    pub(crate) fn begin(&self) -> UnderWay<'_> {
        self.under_way.fetch_add(1, Relaxed);
        UnderWay(self)
    }

    /// How many operations are under way.
    pub(crate) fn under_way(&self) -> u64 {
        self.under_way.load(Relaxed) as u64
    }

    /// An operation has ended.
    pub(crate) fn observe(&self, op: Op, took: Duration, error: Option<&StoreError>) {
        let code = error.map_or("", code);
        let place = |found: Option<usize>| found.expect("the tables have every kind");
        let op_number = place(OPS.iter().position(|(known, _)| *known == op));
        let code_number = place(CODES.iter().position(|known| *known == code));
        self.operations[op_number][code_number].observe(took);
        match (op, error) {
            // Nothing to do is no failure.
            (Op::Compact, None | Some(StoreError::Compacted { .. } | StoreError::FutureRevision { .. })) => {
                self.compactions[0].fetch_add(u64::from(error.is_none()), Relaxed);
            }
            (Op::Compact, Some(_)) => {
                self.compactions[1].fetch_add(1, Relaxed);
            }
            (Op::Write, Some(error)) if is_failure(error) => {
                let retriable = error.remedy() == Remedy::Retry;
                self.insert_errors[usize::from(retriable)].fetch_add(1, Relaxed);
            }
            _ => {}
        }
    }

    /// Everything, in Prometheus' text format. What was never counted is left out.
    pub(super) fn write(&self, text: &mut String) {
        let used = || {
            OPS.iter().zip(&self.operations).flat_map(|((_, op), histograms)| {
                let used = CODES.iter().zip(histograms).filter(|(_, histogram)| histogram.count() > 0);
                used.map(move |(code, histogram)| (format!("error_code=\"{code}\",name=\"{op}\""), histogram))
            })
        };
        head(text, "kine_sql_total", "counter", "How many operations the database has carried out.");
        for (labels, histogram) in used() {
            line(text, "kine_sql_total", &labels, histogram.count());
        }
        head(text, "kine_sql_time_seconds", "histogram", "How long they took, waiting included.");
        for (labels, histogram) in used() {
            histogram.write(text, &labels);
        }
        head(text, "kine_compact_total", "counter", "How many compactions there were.");
        for (result, count) in ["success", "error"].iter().zip(&self.compactions) {
            line(text, "kine_compact_total", &format!("result=\"{result}\""), count.load(Relaxed));
        }
        head(text, "kine_insert_errors_total", "counter", "How many writes the database failed to carry out.");
        for (retriable, count) in ["false", "true"].iter().zip(&self.insert_errors) {
            line(text, "kine_insert_errors_total", &format!("retriable=\"{retriable}\""), count.load(Relaxed));
        }
    }
}

/// Whether it is the database that failed, and not the request.
fn is_failure(error: &StoreError) -> bool {
    !matches!(error, StoreError::Conflict(_) | StoreError::Invalid { .. } | StoreError::Closed)
}

#[cfg(test)]
mod tests {
    use k3sd_datastore::Revision;

    use super::*;

    #[test]
    fn operations_are_counted_by_kind_outcome_and_time() {
        let numbers = Numbers::default();
        for millis in [0, 1, 3, 100_000] {
            numbers.observe(Op::Get, Duration::from_millis(millis), None);
        }
        let compacted = StoreError::Compacted { requested: Revision::new(1), compacted: Revision::new(2) };
        numbers.observe(Op::Get, Duration::ZERO, Some(&compacted));
        let mut text = String::new();
        numbers.write(&mut text);
        for line in [
            "kine_sql_total{error_code=\"\",name=\"get\"} 4",
            "kine_sql_total{error_code=\"compacted\",name=\"get\"} 1",
            "kine_sql_time_seconds_bucket{error_code=\"\",name=\"get\",le=\"0.001\"} 2",
            "kine_sql_time_seconds_bucket{error_code=\"\",name=\"get\",le=\"0.002\"} 2",
            "kine_sql_time_seconds_bucket{error_code=\"\",name=\"get\",le=\"0.004\"} 3",
            "kine_sql_time_seconds_bucket{error_code=\"\",name=\"get\",le=\"8.192\"} 3",
            "kine_sql_time_seconds_bucket{error_code=\"\",name=\"get\",le=\"+Inf\"} 4",
            "kine_sql_time_seconds_sum{error_code=\"\",name=\"get\"} 100.004",
            "kine_sql_time_seconds_count{error_code=\"\",name=\"get\"} 4",
            "# TYPE kine_sql_time_seconds histogram",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
        assert!(!text.contains("name=\"list\""), "what never happened is not there");
    }

    #[test]
    fn failures_of_the_database_are_told_from_those_of_requests() {
        let numbers = Numbers::default();
        let unknown = StoreError::Unknown { op: Op::Write, reason: String::new() };
        let source: k3sd_datastore::Source = std::sync::Arc::new(std::io::Error::other("full"));
        let full = StoreError::Full { op: Op::Write, source };
        let invalid = StoreError::Invalid { reason: String::new() };
        let nothing = StoreError::Compacted { requested: Revision::new(1), compacted: Revision::new(2) };
        for (op, error) in [
            (Op::Write, Some(&unknown)),
            (Op::Write, Some(&full)),
            (Op::Write, Some(&invalid)),
            (Op::Compact, None),
            (Op::Compact, Some(&nothing)),
            (Op::Compact, Some(&unknown)),
        ] {
            numbers.observe(op, Duration::ZERO, error);
        }
        let mut text = String::new();
        numbers.write(&mut text);
        for line in [
            "kine_insert_errors_total{retriable=\"false\"} 1",
            "kine_insert_errors_total{retriable=\"true\"} 1",
            "kine_compact_total{result=\"success\"} 1",
            "kine_compact_total{result=\"error\"} 1",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
    }

    #[test]
    fn what_is_under_way_is_known() {
        let numbers = Numbers::default();
        let (one, other) = (numbers.begin(), numbers.begin());
        assert_eq!(numbers.under_way(), 2);
        drop((one, other));
        assert_eq!(numbers.under_way(), 0);
    }
}
