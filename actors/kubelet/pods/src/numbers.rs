//! What is counted about pods, under the names that dashboards know from the kubelet.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use k3sd_runtime::exposition::{Histogram, head, line};
use tokio::sync::watch;

use crate::probes::Kind;
use crate::probes::machine::Try;

/// Upper bounds of the buckets of short times, in milliseconds.
const SHORT_MS: [u64; 11] = [5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10_000];
/// Those of the time until a pod runs.
const START_MS: [u64; 17] = [
    500, 1000, 2000, 3000, 4000, 5000, 6000, 8000, 10_000, 20_000, 30_000, 45_000, 60_000, 120_000, 180_000, 240_000,
    300_000,
];

/// A probe of a container of a pod.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ProbeName {
    pub(crate) uid: String,
    pub(crate) namespace: String,
    pub(crate) pod: String,
    pub(crate) container: String,
    pub(crate) kind: Kind,
}

/// How the tries of a probe went.
#[derive(Debug)]
pub(crate) struct Tries {
    good: AtomicU64,
    bad: AtomicU64,
    unknown: AtomicU64,
    took: Histogram<{ SHORT_MS.len() }>,
}

impl Tries {
    fn new() -> Self {
        let (good, bad, unknown) = Default::default();
        Self { good, bad, unknown, took: Histogram::new(&SHORT_MS) }
    }

    /// One more.
    pub(crate) fn count(&self, tried: &Try, took: Duration) {
        let counter = match tried {
            Try::Good(_) => &self.good,
            Try::Bad(_) => &self.bad,
            Try::Error(_) => &self.unknown,
        };
        counter.fetch_add(1, Relaxed);
        self.took.observe(took);
    }
}

/// All of it. It outlives the actors that count.
#[derive(Debug)]
pub(crate) struct Numbers {
    /// Of pods that are there; whoever counts takes them away with the pod.
    probes: watch::Sender<BTreeMap<ProbeName, Arc<Tries>>>,
    starts: Histogram<{ START_MS.len() }>,
    steps: [Histogram<{ SHORT_MS.len() }>; STEPS.len()],
    looks: Histogram<{ SHORT_MS.len() }>,
    pauses: Histogram<{ SHORT_MS.len() }>,
}

/// What a step of a pod's actor is for, in the kubelet's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// The first one.
    Create,
    /// Any other.
    Sync,
    /// One that ends the pod.
    Kill,
}

const STEPS: [(&str, Step); 3] = [("create", Step::Create), ("sync", Step::Sync), ("kill", Step::Kill)];

impl Numbers {
    pub(crate) fn new() -> Self {
        let short = || Histogram::new(&SHORT_MS);
        Self {
            probes: watch::channel(BTreeMap::new()).0,
            starts: Histogram::new(&START_MS),
            steps: std::array::from_fn(|_| short()),
            looks: short(),
            pauses: short(),
        }
    }

    /// The tries of a probe, from now on.
    pub(crate) fn probe(&self, name: ProbeName) -> Arc<Tries> {
        let mut found = None;
        self.probes.send_modify(|all| {
            found = Some(all.entry(name).or_insert_with(|| Arc::new(Tries::new())).clone());
        });
        found.unwrap_or_else(|| Arc::new(Tries::new()))
    }

    /// Forgets the probes of a pod that is gone.
    pub(crate) fn forget(&self, uid: &str) {
        self.probes.send_if_modified(|all| {
            let before = all.len();
            all.retain(|name, _| name.uid != uid);
            before != all.len()
        });
    }

    /// A pod runs, so long after this node first saw it.
    pub(crate) fn started(&self, took: Duration) {
        self.starts.observe(took);
    }

    /// A step of a pod's actor took so long.
    pub(crate) fn stepped(&self, step: Step, took: Duration) {
        if let Some(place) = STEPS.iter().position(|(_, known)| *known == step) {
            self.steps[place].observe(took);
        }
    }

    /// The runtime was looked at, so long after the look before began.
    pub(crate) fn looked(&self, took: Duration, pause: Option<Duration>) {
        self.looks.observe(took);
        if let Some(pause) = pause {
            self.pauses.observe(pause);
        }
    }

    /// What `/metrics` says about pods.
    pub(crate) fn write(&self, text: &mut String) {
        let mut one = |name: &str, help: &str, times: &dyn Fn(&mut String, &str)| {
            head(text, name, "histogram", help);
            times(text, name);
        };
        one("kubelet_pod_start_duration_seconds", "From the first sight of a pod until it runs.", &|text, name| {
            self.starts.write(text, name, "");
        });
        one("kubelet_pod_worker_duration_seconds", "Steps of pods' actors.", &|text, name| {
            for ((word, _), times) in STEPS.iter().zip(&self.steps) {
                times.write(text, name, &format!("operation_type=\"{word}\""));
            }
        });
        one("kubelet_pleg_relist_duration_seconds", "Looks at all that the runtime has.", &|text, name| {
            self.looks.write(text, name, "");
        });
        one("kubelet_pleg_relist_interval_seconds", "From one such look to the next.", &|text, name| {
            self.pauses.write(text, name, "");
        });
    }

    /// What `/metrics/probes` says.
    pub(crate) fn probes(&self) -> String {
        let mut text = String::new();
        let all = self.probes.borrow().clone();
        let labels = |name: &ProbeName| {
            let ProbeName { namespace, pod, container, kind, .. } = name;
            let kind = kind.word();
            format!("probe_type=\"{kind}\",container=\"{container}\",pod=\"{pod}\",namespace=\"{namespace}\"")
        };
        head(&mut text, "prober_probe_total", "counter", "Tries of probes, by what came of them.");
        for (name, tries) in &all {
            let counts = [("successful", &tries.good), ("failed", &tries.bad), ("unknown", &tries.unknown)];
            for (result, count) in counts {
                let count = count.load(Relaxed);
                if count > 0 {
                    let labels = format!("{},pod_uid=\"{}\",result=\"{result}\"", labels(name), name.uid);
                    line(&mut text, "prober_probe_total", &labels, count);
                }
            }
        }
        head(&mut text, "prober_probe_duration_seconds", "histogram", "How long tries took.");
        for (name, tries) in &all {
            tries.took.write(&mut text, "prober_probe_duration_seconds", &labels(name));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(uid: &str, kind: Kind) -> ProbeName {
        let own = |text: &str| text.to_owned();
        ProbeName { uid: own(uid), namespace: own("n"), pod: own("p"), container: own("c"), kind }
    }

    #[test]
    fn tries_are_told_until_their_pod_is_gone() {
        let numbers = Numbers::new();
        let tries = numbers.probe(name("u", Kind::Liveness));
        tries.count(&Try::Good(None), Duration::from_millis(7));
        tries.count(&Try::Good(None), Duration::from_millis(7));
        numbers.probe(name("u", Kind::Liveness)).count(&Try::Bad("no".to_owned()), Duration::from_secs(1));
        numbers.probe(name("v", Kind::Readiness)).count(&Try::Error("?".to_owned()), Duration::ZERO);
        let text = numbers.probes();
        let of = |kind: &str| format!("probe_type=\"{kind}\",container=\"c\",pod=\"p\",namespace=\"n\"");
        for line in [
            format!("prober_probe_total{{{},pod_uid=\"u\",result=\"successful\"}} 2", of("Liveness")),
            format!("prober_probe_total{{{},pod_uid=\"u\",result=\"failed\"}} 1", of("Liveness")),
            format!("prober_probe_total{{{},pod_uid=\"v\",result=\"unknown\"}} 1", of("Readiness")),
            format!("prober_probe_duration_seconds_bucket{{{},le=\"0.01\"}} 2", of("Liveness")),
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
        numbers.forget("u");
        let text = numbers.probes();
        assert!(!text.contains("Liveness") && text.contains("Readiness"), "{text}");
    }

    #[test]
    fn times_have_the_names_that_dashboards_know() {
        let numbers = Numbers::new();
        numbers.started(Duration::from_millis(700));
        numbers.stepped(Step::Kill, Duration::from_millis(20));
        numbers.looked(Duration::from_millis(3), None);
        let mut text = String::new();
        numbers.write(&mut text);
        for line in [
            "kubelet_pod_start_duration_seconds_bucket{le=\"1\"} 1",
            "kubelet_pod_worker_duration_seconds_count{operation_type=\"kill\"} 1",
            "kubelet_pod_worker_duration_seconds_count{operation_type=\"sync\"} 0",
            "kubelet_pleg_relist_duration_seconds_bucket{le=\"0.005\"} 1",
            "kubelet_pleg_relist_interval_seconds_count 0",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
    }
}
