//! How the proxy is doing, in numbers.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use k3sd_runtime::exposition::{Histogram, head, line, write_process};
use k3sd_runtime::{Clock, Moment};

use crate::sync::{FAMILIES, Round};

/// Upper bounds of how long a round takes, in milliseconds.
const ROUND_MS: [u64; 15] = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384];
const PROGRAMMING_BUCKETS: usize = 81;
/// Upper bounds of the time from what led to a change until the kernel has it, in milliseconds.
const PROGRAMMING_MS: [u64; PROGRAMMING_BUCKETS] = programming_ms();

/// Zero, two quarters of a second, then seconds up to a minute, fives up to two, and halves of minutes up to five.
const fn programming_ms() -> [u64; PROGRAMMING_BUCKETS] {
    let mut bounds = [0; PROGRAMMING_BUCKETS];
    let mut at = 1;
    while at < PROGRAMMING_BUCKETS {
        let last = bounds[at - 1];
        bounds[at] = match last {
            0 | 250 => last + 250,
            500 => 1000,
            1000..60_000 => last + 1000,
            60_000..115_000 => last + 5000,
            115_000 => 120_000,
            _ => last + 30_000,
        };
        at += 1;
    }
    bounds
}

/// What is counted for each IP family.
#[derive(Debug)]
struct OfFamily {
    rounds: Histogram<15>,
    full_rounds: Histogram<15>,
    partial_rounds: Histogram<15>,
    programming: Histogram<PROGRAMMING_BUCKETS>,
    conntrack: Histogram<15>,
    forgotten: AtomicU64,
    failures: AtomicU64,
    /// For clients inside the cluster, and outside.
    without_local: [AtomicUsize; 2],
}

impl OfFamily {
    fn new() -> Self {
        let rounds = || Histogram::new(&ROUND_MS);
        Self {
            rounds: rounds(),
            full_rounds: rounds(),
            partial_rounds: rounds(),
            programming: Histogram::new(&PROGRAMMING_MS),
            conntrack: rounds(),
            forgotten: AtomicU64::default(),
            failures: AtomicU64::default(),
            without_local: Default::default(),
        }
    }
}

/// Counted by whoever does something, read by whoever asks.
#[derive(Debug)]
pub(crate) struct Meters {
    clock: Clock,
    proc: PathBuf,
    /// Changes that wait for longer than this are a sign that something is wrong.
    patience: Duration,
    families: [OfFamily; 2],
    /// Whether the kernel has tables of IPv6.
    has_ipv6: AtomicBool,
    /// Changes that the round in hand takes over, and all that ever were: services, slices.
    pending: [AtomicUsize; 2],
    total: [AtomicU64; 2],
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
            families: [OfFamily::new(), OfFamily::new()],
            has_ipv6: AtomicBool::new(true),
            pending: Default::default(),
            total: Default::default(),
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

    /// The families that rules are written for, by name.
    pub(crate) fn families(&self) -> &'static [&'static str] {
        if self.has_ipv6.load(Relaxed) { &FAMILIES } else { &FAMILIES[..1] }
    }

    fn in_use(&self) -> impl Iterator<Item = (&'static str, &OfFamily)> {
        self.families().iter().copied().zip(&self.families)
    }

    /// A round has ended well. One round brings both families in order, so it counts for each.
    pub(crate) fn synced(&self, now: Moment, took: Duration, round: &Round) {
        self.has_ipv6.store(round.has_ipv6, Relaxed);
        for (at, (_, family)) in self.in_use().enumerate() {
            family.rounds.observe(took);
            let kind = if round.was_full { &family.full_rounds } else { &family.partial_rounds };
            kind.observe(took);
            for (place, count) in family.without_local.iter().zip(round.without_local[at]) {
                place.store(count, Relaxed);
            }
            if let Some((took, forgotten)) = round.conntrack {
                family.conntrack.observe(took);
                family.forgotten.fetch_add(forgotten[at] as u64, Relaxed);
            }
        }
        self.is_going.store(round.is_going, Relaxed);
        self.last_synced.store(now.as_nanos().max(1), Relaxed);
        self.oldest_queued.store(0, Relaxed);
    }

    /// So long after what led to it the kernel has a change of endpoints; the family by its place in [`FAMILIES`].
    pub(crate) fn programmed(&self, family: usize, after: Duration) {
        self.families[family].programming.observe(after);
    }

    /// A round has ended badly: in this family, or in both.
    pub(crate) fn failed(&self, family: Option<&str>) {
        let concerned = self.in_use().filter(|(name, _)| family.is_none_or(|family| family == *name));
        concerned.for_each(|(_, family)| _ = family.failures.fetch_add(1, Relaxed));
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

    /// All numbers, as Prometheus reads them. Names and labels are those of upstream's nftables mode.
    pub(crate) fn write(&self) -> String {
        let mut text = String::new();
        self.write_times(&mut text);
        let mut one = |name: &str, kind: &str, help: &str, rows: &[(String, f64)]| {
            let name = format!("kubeproxy_{name}");
            head(&mut text, &name, kind, help);
            rows.iter().for_each(|(labels, value)| line(&mut text, &name, labels, value));
        };
        let by_family = |value: &dyn Fn(&OfFamily) -> f64| -> Vec<_> {
            self.in_use().map(|(name, family)| (of_family(name), value(family))).collect()
        };
        let of = "sync_proxy_rules";
        let last = by_family(&|_| self.wall(&self.last_synced));
        one(&format!("{of}_last_timestamp_seconds"), "gauge", "When the rules were last in order.", &last);
        let queued = by_family(&|_| self.wall(&self.last_queued));
        one(&format!("{of}_last_queued_timestamp_seconds"), "gauge", "When a change last came.", &queued);
        let alone = |value: f64| [(String::new(), value)];
        for (at, what) in ["service", "endpoint"].into_iter().enumerate() {
            let (pending, total) = (alone(size(&self.pending[at])), alone(count(&self.total[at])));
            one(&format!("{of}_{what}_changes_pending"), "gauge", "Changes that are being written.", &pending);
            one(&format!("{of}_{what}_changes_total"), "counter", "Changes that have come.", &total);
        }
        let policies = ["internal", "external"].into_iter().enumerate().flat_map(|(at, policy)| {
            let row = move |(name, family): (&str, &OfFamily)| {
                (format!("{},traffic_policy=\"{policy}\"", of_family(name)), size(&family.without_local[at]))
            };
            self.in_use().map(row)
        });
        let help = "Ports that have endpoints, but none on this node, where policy shows no others.";
        one(&format!("{of}_no_local_endpoints_total"), "gauge", help, &policies.collect::<Vec<_>>());
        let failures = by_family(&|family| count(&family.failures));
        one(&format!("{of}_nftables_sync_failures_total"), "counter", "Rounds that the kernel refused.", &failures);
        let forgotten = by_family(&|family| count(&family.forgotten));
        let help = "UDP exchanges that were forgotten, as their endpoint is gone.";
        one("conntrack_reconciler_deleted_entries_total", "counter", help, &forgotten);
        for (name, [good, bad]) in [("proxy_healthz_total", &self.healthz), ("proxy_livez_total", &self.livez)] {
            let rows = [("code=\"200\"".to_owned(), count(good)), ("code=\"503\"".to_owned(), count(bad))];
            one(name, "counter", "How often health was asked for.", &rows);
        }
        write_process(&mut text, &self.proc);
        text
    }

    fn write_times(&self, text: &mut String) {
        let mut of_rounds = |name: &str, help: &str, histogram: fn(&OfFamily) -> &Histogram<15>| {
            let name = format!("kubeproxy_{name}");
            head(text, &name, "histogram", help);
            self.in_use().for_each(|(family, all)| histogram(all).write(text, &name, &of_family(family)));
        };
        let help = "How long it took to bring the rules in order.";
        of_rounds("sync_proxy_rules_duration_seconds", help, |all| &all.rounds);
        let help = "The same where everything was looked at.";
        of_rounds("sync_full_proxy_rules_duration_seconds", help, |all| &all.full_rounds);
        let help = "The same where changes were written.";
        of_rounds("sync_partial_proxy_rules_duration_seconds", help, |all| &all.partial_rounds);
        let help = "How long it took to find UDP exchanges to forget.";
        of_rounds("conntrack_reconciler_sync_duration_seconds", help, |all| &all.conntrack);
        let name = "kubeproxy_network_programming_duration_seconds";
        head(text, name, "histogram", "How long after what led to a change of endpoints the kernel had it.");
        self.in_use().for_each(|(family, all)| all.programming.write(text, name, &of_family(family)));
    }
}

fn of_family(name: &str) -> String {
    format!("ip_family=\"{name}\"")
}

fn count(number: &AtomicU64) -> f64 {
    precise(number.load(Relaxed))
}

fn size(number: &AtomicUsize) -> f64 {
    precise(number.load(Relaxed) as u64)
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
        let without_local = [[0, 0], [1, 2]];
        let conntrack = Some((Duration::from_millis(2), [3, 0]));
        let round =
            Round { is_going: true, was_full: true, has_ipv6: true, without_local, conntrack, ..Round::default() };
        meters.synced(clock.now(), Duration::from_millis(3), &round);
        tokio::time::advance(Duration::from_secs(3600)).await;
        assert!(meters.is_healthy() && !meters.is_eligible(), "with nothing to do there is nothing to wait for");
        meters.programmed(1, Duration::from_millis(400));
        meters.failed(Some("IPv6"));
        let text = meters.write();
        for line in [
            "kubeproxy_sync_proxy_rules_duration_seconds_count{ip_family=\"IPv4\"} 2",
            "kubeproxy_sync_proxy_rules_duration_seconds_count{ip_family=\"IPv6\"} 1",
            "kubeproxy_sync_full_proxy_rules_duration_seconds_bucket{ip_family=\"IPv4\",le=\"0.004\"} 1",
            "kubeproxy_sync_partial_proxy_rules_duration_seconds_count{ip_family=\"IPv4\"} 1",
            "kubeproxy_sync_proxy_rules_last_timestamp_seconds{ip_family=\"IPv6\"} 1893456065",
            "kubeproxy_sync_proxy_rules_service_changes_total 0",
            "kubeproxy_sync_proxy_rules_no_local_endpoints_total{ip_family=\"IPv6\",traffic_policy=\"external\"} 2",
            "kubeproxy_sync_proxy_rules_nftables_sync_failures_total{ip_family=\"IPv4\"} 0",
            "kubeproxy_sync_proxy_rules_nftables_sync_failures_total{ip_family=\"IPv6\"} 1",
            "kubeproxy_conntrack_reconciler_deleted_entries_total{ip_family=\"IPv4\"} 3",
            "kubeproxy_conntrack_reconciler_sync_duration_seconds_bucket{ip_family=\"IPv6\",le=\"0.002\"} 1",
            "kubeproxy_network_programming_duration_seconds_bucket{ip_family=\"IPv6\",le=\"0.25\"} 0",
            "kubeproxy_network_programming_duration_seconds_bucket{ip_family=\"IPv6\",le=\"0.5\"} 1",
            "kubeproxy_network_programming_duration_seconds_count{ip_family=\"IPv4\"} 0",
            "kubeproxy_proxy_healthz_total{code=\"503\"} 0",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}:\n{text}");
        }
    }

    #[test]
    fn bounds_of_programming_are_upstreams() {
        let seconds: Vec<f64> = PROGRAMMING_MS.iter().map(|ms| Duration::from_millis(*ms).as_secs_f64()).collect();
        let mut wanted = vec![0.0, 0.25, 0.5];
        wanted.extend((1..60).map(f64::from));
        wanted.extend((0..12).map(|at| f64::from(60 + at * 5)));
        wanted.extend((0..7).map(|at| f64::from(120 + at * 30)));
        assert_eq!(seconds, wanted);
    }
}
