//! How the proxy is doing, in numbers.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use k3sd_runtime::exposition::{Histogram, head, line, write_process};
use k3sd_runtime::{Clock, Moment};

use crate::sync::Round;

/// Upper bounds of how long a round takes, in milliseconds.
const ROUND_MS: [u64; 15] = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384];

/// Counted by whoever does something, read by whoever asks.
#[derive(Debug)]
pub(crate) struct Meters {
    clock: Clock,
    proc: PathBuf,
    /// Changes that wait for longer than this are a sign that something is wrong.
    patience: Duration,
    rounds: Histogram<15>,
    full_rounds: Histogram<15>,
    partial_rounds: Histogram<15>,
    failures: AtomicU64,
    /// Changes that the round in hand takes over, and all that ever were: services, slices.
    pending: [AtomicUsize; 2],
    total: [AtomicU64; 2],
    without_local: [AtomicUsize; 2],
    forgotten: AtomicU64,
    /// Moments in nanoseconds; zero is never.
    oldest_queued: AtomicU64,
    last_queued: AtomicU64,
    last_synced: AtomicU64,
    is_going: AtomicBool,
    /// How often health was asked for, by what the answer was: good, bad.
    pub(crate) healthz: [AtomicU64; 2],
    pub(crate) livez: [AtomicU64; 2],
}

impl Meters {
    pub(crate) fn new(clock: Clock, patience: Duration) -> Self {
        Self {
            clock,
            proc: "/proc".into(),
            patience,
            rounds: Histogram::new(&ROUND_MS),
            full_rounds: Histogram::new(&ROUND_MS),
            partial_rounds: Histogram::new(&ROUND_MS),
            failures: AtomicU64::default(),
            pending: Default::default(),
            total: Default::default(),
            without_local: Default::default(),
            forgotten: AtomicU64::default(),
            oldest_queued: AtomicU64::default(),
            last_queued: AtomicU64::default(),
            last_synced: AtomicU64::default(),
            is_going: AtomicBool::default(),
            healthz: Default::default(),
            livez: Default::default(),
        }
    }

    /// Changes have come.
    pub(crate) fn queued(&self, now: Moment) {
        let now = now.as_nanos().max(1);
        self.last_queued.store(now, Relaxed);
        self.oldest_queued.compare_exchange(0, now, Relaxed, Relaxed).ok();
    }

    /// A round has begun, with so many changes; or is over.
    pub(crate) fn pending(&self, services: usize, slices: usize) {
        for (place, (total, count)) in self.pending.iter().zip(self.total.iter().zip([services, slices])) {
            place.store(count, Relaxed);
            total.fetch_add(count as u64, Relaxed);
        }
    }

    /// A round has ended well.
    pub(crate) fn synced(&self, now: Moment, took: Duration, round: &Round) {
        self.rounds.observe(took);
        let kind = if round.was_full { &self.full_rounds } else { &self.partial_rounds };
        kind.observe(took);
        let (inside, outside) = round.without_local;
        self.without_local[0].store(inside, Relaxed);
        self.without_local[1].store(outside, Relaxed);
        self.forgotten.fetch_add(round.forgotten as u64, Relaxed);
        self.is_going.store(round.is_going, Relaxed);
        self.last_synced.store(now.as_nanos().max(1), Relaxed);
        self.oldest_queued.store(0, Relaxed);
    }

    /// A round has ended badly.
    pub(crate) fn failed(&self) {
        self.failures.fetch_add(1, Relaxed);
    }

    /// Whether the kernel was in order once, and nothing waits for too long since.
    pub(crate) fn is_healthy(&self) -> bool {
        let is_patient = match self.oldest_queued.load(Relaxed) {
            0 => true,
            queued => self.clock.now().since(Moment::from_nanos(queued)) < self.patience,
        };
        is_patient && self.last_synced.load(Relaxed) > 0
    }

    /// Whether load balancers should send clients here.
    pub(crate) fn is_eligible(&self) -> bool {
        !self.is_going.load(Relaxed)
    }

    pub(crate) fn clock(&self) -> &Clock {
        &self.clock
    }

    /// When the kernel was last in order; `None` before.
    pub(crate) fn last_synced(&self) -> Option<Moment> {
        match self.last_synced.load(Relaxed) {
            0 => None,
            nanos => Some(Moment::from_nanos(nanos)),
        }
    }

    fn wall(&self, nanos: &AtomicU64) -> f64 {
        match nanos.load(Relaxed) {
            0 => 0.0,
            nanos => self.clock.wall_at(Moment::from_nanos(nanos)).as_secs_f64(),
        }
    }

    /// All numbers, as Prometheus reads them.
    pub(crate) fn write(&self) -> String {
        let mut text = String::new();
        let prefix = "kubeproxy_sync";
        for (name, histogram, help) in [
            ("proxy_rules_duration_seconds", &self.rounds, "How long it took to bring the rules in order."),
            ("full_proxy_rules_duration_seconds", &self.full_rounds, "The same where everything was looked at."),
            ("partial_proxy_rules_duration_seconds", &self.partial_rounds, "The same where changes were written."),
        ] {
            let name = format!("{prefix}_{name}");
            head(&mut text, &name, "histogram", help);
            histogram.write(&mut text, &name, "");
        }
        let mut one = |name: &str, kind: &str, help: &str, rows: &[(&str, f64)]| {
            let name = format!("kubeproxy_{name}");
            head(&mut text, &name, kind, help);
            rows.iter().for_each(|(labels, value)| line(&mut text, &name, labels, value));
        };
        let (count, size) = (
            |number: &AtomicU64| precise(number.load(Relaxed)),
            |number: &AtomicUsize| precise(number.load(Relaxed) as u64),
        );
        let of = "sync_proxy_rules";
        let last = self.wall(&self.last_synced);
        one(&format!("{of}_last_timestamp_seconds"), "gauge", "When the rules were last in order.", &[("", last)]);
        let queued = self.wall(&self.last_queued);
        one(&format!("{of}_last_queued_timestamp_seconds"), "gauge", "When a change last came.", &[("", queued)]);
        for (at, what) in ["service", "endpoint"].into_iter().enumerate() {
            let (pending, total) = (size(&self.pending[at]), count(&self.total[at]));
            one(&format!("{of}_{what}_changes_pending"), "gauge", "Changes that are being written.", &[("", pending)]);
            one(&format!("{of}_{what}_changes_total"), "counter", "Changes that have come.", &[("", total)]);
        }
        let [inside, outside] = &self.without_local;
        let rows = [("traffic_policy=\"internal\"", size(inside)), ("traffic_policy=\"external\"", size(outside))];
        let help = "Ports that have endpoints, but none on this node, where policy shows no others.";
        one(&format!("{of}_no_local_endpoints_total"), "gauge", help, &rows);
        let failures = count(&self.failures);
        one(
            &format!("{of}_nftables_sync_failures_total"),
            "counter",
            "Rounds that the kernel refused.",
            &[("", failures)],
        );
        let forgotten = count(&self.forgotten);
        let help = "UDP exchanges that were forgotten, as their endpoint is gone.";
        one("conntrack_reconciler_deleted_entries_total", "counter", help, &[("ip_family=\"\"", forgotten)]);
        for (name, [good, bad]) in [("proxy_healthz_total", &self.healthz), ("proxy_livez_total", &self.livez)] {
            let rows = [("code=\"200\"", count(good)), ("code=\"503\"", count(bad))];
            one(name, "counter", "How often health was asked for.", &rows);
        }
        write_process(&mut text, &self.proc);
        text
    }
}

#[expect(clippy::cast_precision_loss, reason = "Prometheus' numbers are floating")]
fn precise(number: u64) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn changes_that_wait_too_long_are_a_sign() {
        let meters = Meters::new(Clock::simulated(1), Duration::from_secs(60));
        assert!(!meters.is_healthy(), "nothing was ever in order");
        let clock = meters.clock().clone();
        tokio::time::advance(Duration::from_secs(5)).await;
        meters.queued(clock.now());
        assert!(!meters.is_healthy(), "nor is it now");
        meters.synced(clock.now(), Duration::ZERO, &Round::default());
        meters.queued(clock.now());
        assert!(meters.is_healthy());
        tokio::time::advance(Duration::from_secs(59)).await;
        meters.queued(clock.now());
        assert!(meters.is_healthy());
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(!meters.is_healthy(), "the oldest counts");
        let round = Round { is_going: true, was_full: true, without_local: (1, 2), ..Round::default() };
        meters.synced(clock.now(), Duration::from_millis(3), &round);
        tokio::time::advance(Duration::from_secs(3600)).await;
        assert!(meters.is_healthy() && !meters.is_eligible(), "with nothing to do there is nothing to wait for");
        let text = meters.write();
        for line in [
            "kubeproxy_sync_proxy_rules_duration_seconds_count 2",
            "kubeproxy_sync_full_proxy_rules_duration_seconds_bucket{le=\"0.004\"} 1",
            "kubeproxy_sync_partial_proxy_rules_duration_seconds_count 1",
            "kubeproxy_sync_proxy_rules_last_timestamp_seconds 1893456065",
            "kubeproxy_sync_proxy_rules_no_local_endpoints_total{traffic_policy=\"external\"} 2",
            "kubeproxy_proxy_healthz_total{code=\"503\"} 0",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}:\n{text}");
        }
    }
}
