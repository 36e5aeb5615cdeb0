//! How many pods measured values ask for: pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k3sd_client::controller::pods;
use k3sd_client::controller::setup::AutoscalingConfig;
use k3sd_objects::quantity::Quantity;
use k8s_openapi::api::core::v1::{Container, Pod};

use crate::support::name;

/// When it is asked, and by what settings.
#[derive(Clone, Copy, Debug)]
pub(super) struct Terms {
    pub(super) now: Timestamp,
    pub(super) config: AutoscalingConfig,
}

/// What was measured for a pod.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Sample {
    /// In thousandths.
    pub(super) value: i64,
    /// The end of the time that it was measured over, and how long that was.
    pub(super) at: Timestamp,
    pub(super) window: SignedDuration,
}

/// By the names of pods.
pub(super) type Samples = BTreeMap<String, Sample>;

/// How many pods are asked for, and what was measured, in thousandths; in percent too if it is a part of something.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Proposal {
    pub(super) replicas: i32,
    pub(super) usage: i64,
    pub(super) percent: Option<i32>,
}

/// The pods to be measured.
struct Groups {
    ready: usize,
    unready: BTreeSet<String>,
    missing: BTreeSet<String>,
}

/// Sorts the pods, and takes the samples away that say nothing.
fn group(all: &[Arc<Pod>], samples: &mut Samples, is_cpu: bool, terms: &Terms) -> Groups {
    let mut groups = Groups { ready: 0, unready: BTreeSet::new(), missing: BTreeSet::new() };
    for pod in all {
        let which = name(&**pod).to_owned();
        if pods::is_terminating(pod) || pods::phase(pod) == "Failed" {
            samples.remove(&which);
        } else if pods::phase(pod) == "Pending" {
            samples.remove(&which);
            groups.unready.insert(which);
        } else {
            match samples.get(&which) {
                None => _ = groups.missing.insert(which),
                Some(sample) if is_cpu && is_warming_up(pod, sample, terms) => {
                    samples.remove(&which);
                    groups.unready.insert(which);
                }
                Some(_) => groups.ready += 1,
            }
        }
    }
    groups
}

/// What a pod burns while it starts, says nothing about what it will burn.
fn is_warming_up(pod: &Pod, sample: &Sample, terms: &Terms) -> bool {
    let started = pod.status.as_ref().and_then(|status| status.start_time.as_ref());
    let (Some(ready), Some(started)) = (pods::condition(pod, "Ready"), started) else { return true };
    let is_unready = ready.status == "False";
    let since = ready.last_transition_time.as_ref().map_or(Timestamp::UNIX_EPOCH, |time| time.0);
    let later = |time: Timestamp, by: SignedDuration| time.saturating_add(by).unwrap_or(Timestamp::MAX);
    let by = |span: Duration| SignedDuration::try_from(span).unwrap_or(SignedDuration::MAX);
    if later(started.0, by(terms.config.cpu_initialization_period)) > terms.now {
        is_unready || sample.at < later(since, sample.window)
    } else {
        is_unready && later(started.0, by(terms.config.initial_readiness_delay)) > since
    }
}

impl Terms {
    /// Whether a ratio of the measured to the wanted is so close to 1 that it changes nothing.
    fn is_within(&self, ratio: f64) -> bool {
        (1.0 - self.config.tolerance..=1.0 + self.config.tolerance).contains(&ratio)
    }
}

#[expect(clippy::cast_possible_truncation, reason = "a float is cut off at the bounds of the integer")]
fn ceil(value: f64) -> i32 {
    value.ceil() as i32
}

/// The ratio of what is measured to what is wanted, the mean, and the percentage if there is one.
type Measured = (f64, i64, Option<i32>);

/// A target that each pod should use so much of.
pub(super) enum PerPod<'a> {
    /// A number, in thousandths.
    Value(i64),
    /// So many percent of what each pod requests, in thousandths.
    Percent(i32, &'a BTreeMap<String, i64>),
}

impl PerPod<'_> {
    fn measure(&self, samples: &Samples) -> Result<Measured, String> {
        match self {
            Self::Value(wanted) => {
                let total: i64 = samples.values().map(|sample| sample.value).sum();
                let mean = total / i64::try_from(samples.len().max(1)).unwrap_or(1);
                Ok((mean as f64 / *wanted as f64, mean, None))
            }
            Self::Percent(wanted, requests) => {
                let known = samples.iter().filter_map(|(pod, sample)| Some((sample.value, *requests.get(pod)?)));
                let (mut used, mut requested, mut count) = (0_i64, 0_i64, 0_i64);
                for (value, request) in known {
                    used = used.saturating_add(value);
                    requested = requested.saturating_add(request);
                    count += 1;
                }
                if requested == 0 {
                    return Err("no metrics returned matched known pods".to_owned());
                }
                let percent = i32::try_from(used.saturating_mul(100) / requested).unwrap_or(i32::MAX);
                Ok((f64::from(percent) / f64::from(*wanted), used / count.max(1), Some(percent)))
            }
        }
    }

    /// What a pod without a sample is taken to use, if fewer pods were asked for.
    fn assumed(&self, pod: &str) -> i64 {
        match self {
            Self::Value(wanted) => *wanted,
            Self::Percent(wanted, requests) => {
                requests.get(pod).copied().unwrap_or(0).saturating_mul(i64::from((*wanted).max(100))) / 100
            }
        }
    }
}

/// How many pods there should be, so that each uses as much as is wanted.
pub(super) fn per_pod(
    current: i32,
    target: &PerPod<'_>,
    (all, mut samples, is_cpu): (&[Arc<Pod>], Samples, bool),
    terms: &Terms,
) -> Result<Proposal, String> {
    if all.is_empty() {
        return Err("no pods returned by selector while calculating replica count".to_owned());
    }
    let groups = group(all, &mut samples, is_cpu, terms);
    if samples.is_empty() {
        return Err("did not receive metrics for targeted pods (pods might be unready)".to_owned());
    }
    let (ratio, usage, percent) = target.measure(&samples)?;
    let said = |replicas| Proposal { replicas, usage, percent };
    let grows_with_unready = !groups.unready.is_empty() && ratio > 1.0;
    if !grows_with_unready && groups.missing.is_empty() {
        let replicas = if terms.is_within(ratio) { current } else { ceil(ratio * groups.ready as f64) };
        return Ok(said(replicas));
    }
    // What isn't known is taken to speak against the change.
    let filled = |value| Sample { value, at: terms.now, window: SignedDuration::ZERO };
    for pod in &groups.missing {
        if ratio < 1.0 {
            samples.insert(pod.clone(), filled(target.assumed(pod)));
        } else if ratio > 1.0 {
            samples.insert(pod.clone(), filled(0));
        }
    }
    if grows_with_unready {
        samples.extend(groups.unready.iter().map(|pod| (pod.clone(), filled(0))));
    }
    let (new, ..) = target.measure(&samples)?;
    let turns = (ratio < 1.0 && new > 1.0) || (ratio > 1.0 && new < 1.0);
    if terms.is_within(new) || turns {
        return Ok(said(current));
    }
    let replicas = ceil(new * samples.len() as f64);
    let backwards = (new < 1.0 && replicas > current) || (new > 1.0 && replicas < current);
    Ok(said(if backwards { current } else { replicas }))
}

/// How many pods there should be, so that a number that they share is the one that is wanted.
pub(super) fn shared_value(current: i32, usage: i64, wanted: i64, all: &[Arc<Pod>], terms: &Terms) -> Proposal {
    let ratio = usage as f64 / wanted as f64;
    let replicas = if current == 0 {
        ceil(ratio)
    } else if terms.is_within(ratio) {
        current
    } else {
        let ready = all.iter().filter(|pod| pods::phase(pod) == "Running" && pods::is_ready(pod)).count();
        ceil(ratio * ready as f64)
    };
    Proposal { replicas, usage, percent: None }
}

/// How many pods there should be, so that each one's part of a number is the one that is wanted.
pub(super) fn shared_average(current: i32, usage: i64, wanted: i64, terms: &Terms) -> Proposal {
    let ratio = usage as f64 / (wanted as f64 * f64::from(current));
    let replicas = if terms.is_within(ratio) { current } else { ceil(usage as f64 / wanted as f64) };
    let mean = if current > 0 { (usage as f64 / f64::from(current)).ceil() } else { usage as f64 };
    #[expect(clippy::cast_possible_truncation, reason = "a mean of integers")]
    let mean = mean as i64;
    Proposal { replicas, usage: mean, percent: None }
}

/// What each pod requests of a resource, in thousandths; of one container alone if that is named.
pub(super) fn requests(
    all: &[Arc<Pod>],
    container: Option<&str>,
    resource: &str,
) -> Result<BTreeMap<String, i64>, String> {
    let mut requests = BTreeMap::new();
    for pod in all {
        let Some(spec) = &pod.spec else { continue };
        let is_sidecar = |it: &&Container| it.restart_policy.as_deref() == Some("Always");
        let containers = spec.containers.iter().chain(spec.init_containers.iter().flatten().filter(is_sidecar));
        let mut sum = 0_i64;
        for asked in containers.filter(|it| container.is_none_or(|wanted| it.name == wanted)) {
            let amounts = asked.resources.as_ref().and_then(|resources| resources.requests.as_ref());
            let amount = amounts.and_then(|amounts| amounts.get(resource)?.0.parse::<Quantity>().ok());
            let Some(amount) = amount else {
                let place = format!("container {} of Pod {}", asked.name, name(&**pod));
                return Err(format!("missing request for {resource} in {place}"));
            };
            sum = sum.saturating_add(amount.milli_value());
        }
        requests.insert(name(&**pod).to_owned(), sum);
    }
    Ok(requests)
}
