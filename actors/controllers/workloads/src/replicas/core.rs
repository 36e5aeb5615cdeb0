//! How many pods there should be, and what is said of those there are: pure.

use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;
use k3sd_client::controller::pods;
use k8s_openapi::api::core::v1::Pod;

use crate::support::Matcher;

/// Pods that one look makes or deletes at most; the next one goes on.
pub(super) const BURST: usize = 500;

/// What to do about the number of pods.
#[derive(Debug, PartialEq)]
pub(super) enum Plan {
    /// There are as many as are wanted.
    Nothing,
    /// Make so many.
    Create(usize),
    /// Delete these.
    Delete(Vec<Arc<Pod>>),
}

/// Compares the active pods with the number that is wanted. `related` are the pods of those that belong to the same
/// owner, such as the ReplicaSets of one Deployment: of nodes with several of them, pods are taken first.
pub(super) fn plan(wanted: i32, active: &[Arc<Pod>], related: impl FnOnce() -> Vec<Arc<Pod>>, now: Timestamp) -> Plan {
    let wanted = usize::try_from(wanted).unwrap_or(0);
    if active.len() < wanted {
        return Plan::Create((wanted - active.len()).min(BURST));
    }
    let surplus = (active.len() - wanted).min(BURST);
    if surplus == 0 {
        return Plan::Nothing;
    }
    let mut pods = active.to_vec();
    if surplus < active.len() {
        let (related, mut on_node) = (related(), HashMap::<&str, usize>::new());
        for pod in related.iter().filter(|pod| pods::is_active(pod) && !pods::node(pod).is_empty()) {
            *on_node.entry(pods::node(pod)).or_default() += 1;
        }
        pods::sort_for_deletion(&mut pods, now, |pod| on_node.get(pods::node(pod)).copied().unwrap_or(0));
    }
    pods.truncate(surplus);
    Plan::Delete(pods)
}

/// What it says of itself.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Status {
    pub(super) replicas: i32,
    pub(super) fully_labeled: i32,
    pub(super) ready: i32,
    pub(super) available: i32,
    pub(super) failing: Option<Failing>,
}

/// Pods can't be made or deleted.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Failing {
    pub(super) reason: String,
    pub(super) message: String,
    pub(super) since: Timestamp,
}

/// What there is to say of the active pods, and when that changes without anything happening. `failure`: what went wrong
/// just now, reason and message.
pub(super) fn status(
    active: &[Arc<Pod>],
    template: &Matcher,
    min_ready_seconds: i32,
    (failure, shown): (Option<(&str, String)>, &Status),
    now: Timestamp,
) -> (Status, Option<Timestamp>) {
    let mut status = Status { replicas: count(active.len()), ..Status::default() };
    let mut next: Option<Timestamp> = None;
    for pod in active {
        status.fully_labeled += i32::from(template.matches(pod.metadata.labels.as_ref()));
        status.ready += i32::from(pods::is_ready(pod));
        match pods::available_from(pod, min_ready_seconds) {
            Some(from) if from <= now => status.available += 1,
            Some(from) => next = Some(next.map_or(from, |next| next.min(from))),
            None => {}
        }
    }
    status.failing = failure.map(|(reason, message)| match &shown.failing {
        Some(known) => known.clone(),
        None => Failing { reason: reason.to_owned(), message, since: now },
    });
    (status, next)
}

fn count(pods: usize) -> i32 {
    i32::try_from(pods).unwrap_or(i32::MAX)
}
