//! Numbers of work queues, under the names that dashboards know from client-go.
//!
//! Whoever owns a queue tells them; see [`System::queues`](crate::System::queues). They outlive its incarnations.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::cell::lock;
use crate::clock::Moment;
use crate::exposition::{Histogram, head, line};

/// Upper bounds of the buckets, in milliseconds.
const BUCKETS_MS: [u64; 7] = [1, 10, 100, 1000, 10_000, 100_000, 1_000_000];

/// All queues of a tree that are counted.
#[derive(Debug, Default)]
pub struct Queues(Mutex<BTreeMap<String, Arc<QueueNumbers>>>);

/// What is known of one queue.
#[derive(Debug)]
pub struct QueueNumbers {
    adds: AtomicU64,
    retries: AtomicU64,
    depth: AtomicUsize,
    waited: Histogram<{ BUCKETS_MS.len() }>,
    worked: Histogram<{ BUCKETS_MS.len() }>,
    /// When each look began that goes on.
    working: Mutex<Vec<Moment>>,
}

impl Default for QueueNumbers {
    fn default() -> Self {
        let (waited, worked) = (Histogram::new(&BUCKETS_MS), Histogram::new(&BUCKETS_MS));
        let (adds, retries, depth) = Default::default();
        Self { adds, retries, depth, waited, worked, working: Mutex::default() }
    }
}

impl Queues {
    /// The numbers of the queue of this name, for an incarnation that begins: nothing waits yet, and nothing is worked on.
    pub fn queue(&self, name: &str) -> Arc<QueueNumbers> {
        let numbers = lock(&self.0).entry(name.to_owned()).or_default().clone();
        numbers.depth.store(0, Relaxed);
        lock(&numbers.working).clear();
        numbers
    }

    /// Everything, in Prometheus' text format.
    pub fn write(&self, text: &mut String, now: Moment) {
        let all: Vec<(String, Arc<QueueNumbers>)> = {
            let all = lock(&self.0);
            all.iter().map(|(name, numbers)| (format!("name=\"{name}\""), numbers.clone())).collect()
        };
        let mut tell = |name: &str, kind: &str, help: &str, number: fn(&QueueNumbers, Moment) -> f64| {
            let name = format!("workqueue_{name}");
            head(text, &name, kind, help);
            all.iter().for_each(|(labels, numbers)| line(text, &name, labels, number(numbers, now)));
        };
        tell("adds_total", "counter", "Keys that were added.", |numbers, _| count(numbers.adds.load(Relaxed)));
        tell("retries_total", "counter", "Keys that failed and are tried again.", |numbers, _| {
            count(numbers.retries.load(Relaxed))
        });
        tell("depth", "gauge", "Keys that wait.", |numbers, _| count(numbers.depth.load(Relaxed) as u64));
        tell("unfinished_work_seconds", "gauge", "How long the keys in hand are there, together.", |numbers, now| {
            lock(&numbers.working).iter().map(|began| now.since(*began).as_secs_f64()).fold(0.0, |sum, one| sum + one)
        });
        tell("longest_running_processor_seconds", "gauge", "How long the first of them is.", |numbers, now| {
            lock(&numbers.working).iter().map(|began| now.since(*began).as_secs_f64()).fold(0.0, f64::max)
        });
        let mut tell = |name: &str, help: &str, times: fn(&QueueNumbers) -> &Histogram<{ BUCKETS_MS.len() }>| {
            head(text, name, "histogram", help);
            all.iter().for_each(|(labels, numbers)| times(numbers).write(text, name, labels));
        };
        tell("workqueue_queue_duration_seconds", "How long keys waited.", |numbers| &numbers.waited);
        tell("workqueue_work_duration_seconds", "How long looks at keys took.", |numbers| &numbers.worked);
    }
}

#[expect(clippy::cast_precision_loss, reason = "Prometheus' numbers are floating")]
fn count(number: u64) -> f64 {
    number as f64
}

impl QueueNumbers {
    /// A key was added, which may have been there already.
    pub fn added(&self) {
        self.adds.fetch_add(1, Relaxed);
    }

    /// A key failed and will be tried again.
    pub fn retried(&self) {
        self.retries.fetch_add(1, Relaxed);
    }

    /// So many keys wait.
    pub fn set_depth(&self, keys: usize) {
        self.depth.store(keys, Relaxed);
    }

    /// A look at a key begins, which has waited for so long.
    pub fn began(&self, now: Moment, waited: Duration) {
        self.waited.observe(waited);
        lock(&self.working).push(now);
    }

    /// The look that began then is over.
    pub fn ended(&self, began: Moment, now: Moment) {
        self.worked.observe(now.since(began));
        let mut working = lock(&self.working);
        if let Some(place) = working.iter().position(|other| *other == began) {
            working.swap_remove(place);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queues_are_told_as_dashboards_read_them() {
        let (queues, at) = (Queues::default(), |seconds| Moment::START + Duration::from_secs(seconds));
        let queue = queues.queue("job");
        queue.added();
        queue.added();
        queue.began(at(1), Duration::from_millis(5));
        queue.began(at(2), Duration::ZERO);
        queue.ended(at(1), at(2));
        queue.retried();
        queue.set_depth(3);
        let mut text = String::new();
        queues.write(&mut text, at(10));
        for line in [
            "workqueue_adds_total{name=\"job\"} 2",
            "workqueue_retries_total{name=\"job\"} 1",
            "workqueue_depth{name=\"job\"} 3",
            "workqueue_unfinished_work_seconds{name=\"job\"} 8",
            "workqueue_longest_running_processor_seconds{name=\"job\"} 8",
            "workqueue_queue_duration_seconds_bucket{name=\"job\",le=\"0.01\"} 2",
            "workqueue_queue_duration_seconds_sum{name=\"job\"} 0.005",
            "workqueue_work_duration_seconds_count{name=\"job\"} 1",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
        // A new incarnation has nothing in hand; what was counted stays.
        queues.queue("job");
        let mut text = String::new();
        queues.write(&mut text, at(10));
        assert!(text.contains("workqueue_depth{name=\"job\"} 0\n") && text.contains("adds_total{name=\"job\"} 2\n"));
        assert!(text.contains("unfinished_work_seconds{name=\"job\"} 0\n"), "{text}");
    }
}
