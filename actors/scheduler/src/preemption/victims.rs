//! The fewest and least important pods that have to leave one node.

use std::sync::Arc;

use super::Candidate;
use crate::filter::Filters;
use crate::plugin::{Plugin, Refusal};
use crate::pod::{Key, PodInfo};
use crate::snapshot::{NodeInfo, Snapshot};

/// What comes of it.
pub(super) enum Try {
    /// These have to go.
    Fits(Candidate),
    /// It wouldn't help.
    Fails(Refusal),
}

/// Takes all less important pods off the node, and puts back one after another as long as the pod still fits; those
/// first whose budgets don't allow them to go.
pub(super) fn select(snapshot: &Snapshot, filters: &Filters<'_>, pod: &PodInfo, node: &NodeInfo) -> Try {
    let mut less: Vec<Arc<PodInfo>> = node.pods.iter().filter(|other| other.priority < pod.priority).cloned().collect();
    if less.is_empty() {
        let reason = "No preemption victims found for incoming pod";
        return Try::Fails(Refusal::for_good(Plugin::DefaultPreemption, reason));
    }
    let (mut filters, mut node) = (filters.clone(), node.clone());
    for other in &less {
        filters.remove(&mut node, &other.uid);
    }
    if let Err(refusal) = filters.check_beside_nominated(&node) {
        return Try::Fails(refusal);
    }
    less.sort_by_key(|pod| importance(pod));
    let (violating, others) = sort_by_budget(snapshot, less);
    let (mut victims, mut violations) = (Vec::new(), 0);
    let count = violating.len();
    for (index, other) in violating.into_iter().chain(others).enumerate() {
        filters.add(&mut node, other.clone());
        if filters.check_beside_nominated(&node).is_err() {
            filters.remove(&mut node, &other.uid);
            violations += usize::from(index < count);
            victims.push(other);
        }
    }
    if victims.is_empty() {
        let reason = "No preemption victims found for incoming pod";
        return Try::Fails(Refusal::for_good(Plugin::DefaultPreemption, reason));
    }
    victims.sort_by_key(|pod| importance(pod));
    Try::Fits(Candidate { slot: node.slot, victims, violations })
}

/// Sorts the most important first: by priority, then by how long they run.
fn importance(pod: &PodInfo) -> (std::cmp::Reverse<i32>, i64) {
    (std::cmp::Reverse(pod.priority), started(pod))
}

/// When a pod started, in seconds since 1970; the latest possible if it hasn't.
pub(super) fn started(pod: &PodInfo) -> i64 {
    let start = pod.pod.status.as_ref().and_then(|status| status.start_time.as_ref());
    start.map_or(i64::MAX, |time| time.0.as_second())
}

/// Pods whose budgets don't allow them to go, if all before them go, and the others; in the order given.
fn sort_by_budget(snapshot: &Snapshot, pods: Vec<Arc<PodInfo>>) -> (Vec<Arc<PodInfo>>, Vec<Arc<PodInfo>>) {
    let mut budgets: Vec<_> = snapshot.budgets.iter().map(|(key, budget)| (key, budget, budget.allowed)).collect();
    let mut violates = |pod: &Arc<PodInfo>| {
        let mut violates = false;
        for (Key { namespace, .. }, budget, left) in &mut budgets {
            let is_meant = *namespace == pod.key.namespace
                && pod.labels().is_some_and(|labels| !labels.is_empty())
                && !budget.selector.is_everything()
                && crate::labels::selects(&budget.selector, pod.labels());
            if is_meant && !budget.going.contains(&pod.key.name) {
                *left -= 1;
                violates |= *left < 0;
            }
        }
        violates
    };
    pods.into_iter().partition(|pod| violates(pod))
}
