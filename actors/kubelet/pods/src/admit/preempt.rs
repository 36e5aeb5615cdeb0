//! Who goes so that a critical pod can come: as few as possible, those that promise least first. Pure.

use std::cmp::Ordering;

use k3sd_kubelet_cgroups::{QosClass, qos_class};
use k8s_openapi::api::core::v1::Pod;

use super::room::{Lack, requests};
use crate::spec::is_critical;

/// The reason that a pod which had to go fails with.
pub const REASON: &str = "Preempting";
/// The text.
pub const MESSAGE: &str = "Preempted in order to admit critical pod";

/// What is still missing, by resource.
type Missing = Vec<(String, u64)>;

/// Whether one pod may make another go.
fn may_displace(critical: &Pod, other: &Pod) -> bool {
    let priority = |pod: &Pod| pod.spec.as_ref().and_then(|spec| spec.priority);
    (is_critical(critical) && !is_critical(other))
        || priority(critical).zip(priority(other)).is_some_and(|(own, other)| own > other)
}

/// How much of a resource a pod gives back.
fn gives(pod: &Pod, resource: &str) -> u64 {
    if resource == "pods" { 1 } else { requests(pod).get(resource).copied().unwrap_or_default() }
}

fn subtract<'a>(missing: &Missing, pods: impl IntoIterator<Item = &'a &'a Pod> + Clone) -> Missing {
    let left = missing.iter().map(|(resource, amount)| {
        let given = pods.clone().into_iter().map(|pod| gives(pod, resource)).fold(0, u64::saturating_add);
        (resource.clone(), amount.saturating_sub(given))
    });
    left.filter(|(_, amount)| *amount > 0).collect()
}

/// How far from enough a pod alone would be: each resource counts as much as any other.
fn distance(missing: &Missing, pod: &Pod) -> f64 {
    let part = |(resource, amount): &(String, u64)| {
        let left = amount.saturating_sub(gives(pod, resource));
        (left as f64 / *amount as f64).powi(2)
    };
    missing.iter().map(part).sum()
}

fn by_size(one: &Pod, other: &Pod) -> Ordering {
    let size = |pod: &Pod| (gives(pod, "memory"), gives(pod, "cpu"));
    size(one).cmp(&size(other))
}

fn text(missing: &Missing) -> String {
    let all: String = missing.iter().map(|(resource, amount)| format!("(res: {resource}, q: {amount}), ")).collect();
    format!("no set of running pods found to reclaim resources: [{all}]")
}

/// Of these, those that have to go, nearest first.
fn nearest(mut pods: Vec<&Pod>, mut missing: Missing) -> Result<Vec<&Pod>, String> {
    let mut chosen = Vec::new();
    while !missing.is_empty() {
        let order = |one: &&Pod, other: &&Pod| {
            distance(&missing, one).total_cmp(&distance(&missing, other)).then_with(|| by_size(one, other))
        };
        let best = (0..pods.len()).min_by(|&one, &other| order(&pods[one], &pods[other]));
        let pod = pods.swap_remove(best.ok_or_else(|| text(&missing))?);
        missing = subtract(&missing, [&pod]);
        chosen.push(pod);
    }
    Ok(chosen)
}

/// Who has to go for a critical pod that lacks these.
///
/// # Errors
/// There would not be enough if all went that may be made to.
pub fn victims<'a>(pod: &Pod, others: &[&'a Pod], lacks: &[Lack]) -> Result<Vec<&'a Pod>, String> {
    let missing: Missing = lacks.iter().map(|lack| (lack.resource.clone(), lack.missing())).collect();
    let of = |class: QosClass| -> Vec<&'a Pod> {
        let may_go = others.iter().copied().filter(|other| may_displace(pod, other));
        may_go.filter(|other| qos_class(other) == class).collect()
    };
    let (best_effort, burstable, guaranteed) =
        (of(QosClass::BestEffort), of(QosClass::Burstable), of(QosClass::Guaranteed));
    let lower = [best_effort.as_slice(), burstable.as_slice()].concat();
    let all = [lower.as_slice(), guaranteed.as_slice()].concat();
    let failed = |error| format!("preemption: error finding a set of pods to preempt: {error}");
    let short = subtract(&missing, &all);
    if !short.is_empty() {
        return Err(failed(text(&short)));
    }
    // Of the better classes go those without whom all of the lower ones wouldn't do; of the lower ones, who is then needed.
    let guaranteed = nearest(guaranteed, subtract(&missing, &lower)).map_err(failed)?;
    let with = [best_effort.as_slice(), guaranteed.as_slice()].concat();
    let burstable = nearest(burstable, subtract(&missing, &with)).map_err(failed)?;
    let with = [burstable.as_slice(), guaranteed.as_slice()].concat();
    let best_effort = nearest(best_effort, subtract(&missing, &with)).map_err(failed)?;
    Ok([best_effort, burstable, guaranteed].concat())
}
