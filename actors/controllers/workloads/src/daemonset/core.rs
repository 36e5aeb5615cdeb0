//! What a DaemonSet has to do on each node, and what it says of itself: pure.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k3sd_client::controller::pods;
use k3sd_runtime::Moment;
use k8s_openapi::api::apps::v1::{DaemonSet, DaemonSetStatus};
use k8s_openapi::api::core::v1::{Node, Pod, PodSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::nodes::{Place, bear, place, target};
use crate::support::{annotation, label, name, scaled};

/// The revision that a pod is of.
pub(super) const REVISION: &str = "controller-revision-hash";
/// The how-manyth template a pod is of, as older clients know it.
pub(super) const GENERATION: &str = "pod-template-generation";
const GENERATION_NOTE: &str = "deprecated.daemonset.template.generation";

/// A pod, shared with the copies that it comes from.
pub(super) type Shared = Arc<Pod>;

/// What is wanted.
#[derive(Debug)]
pub(super) struct Wanted {
    /// The template's, with what daemons bear.
    pub(super) spec: PodSpec,
    /// The revision of the template.
    pub(super) hash: String,
    /// The number of the template, if somebody counts.
    pub(super) generation: Option<String>,
    pub(super) min_ready_seconds: i32,
    on_delete: bool,
    max_unavailable: IntOrString,
    max_surge: IntOrString,
}

impl Wanted {
    pub(super) fn of(set: &DaemonSet, hash: &str) -> Self {
        let none = Default::default();
        let spec = set.spec.as_ref().unwrap_or(&none);
        let strategy = spec.update_strategy.as_ref();
        let rolling = strategy.and_then(|strategy| strategy.rolling_update.as_ref());
        let mut pod = spec.template.spec.clone().unwrap_or_default();
        bear(&mut pod);
        Self {
            spec: pod,
            hash: hash.to_owned(),
            generation: annotation(set, GENERATION_NOTE).map(str::to_owned),
            min_ready_seconds: spec.min_ready_seconds.unwrap_or(0),
            on_delete: strategy.and_then(|strategy| strategy.type_.as_deref()) == Some("OnDelete"),
            max_unavailable: rolling.and_then(|it| it.max_unavailable.clone()).unwrap_or(IntOrString::Int(1)),
            max_surge: rolling.and_then(|it| it.max_surge.clone()).unwrap_or(IntOrString::Int(0)),
        }
    }

    fn is_current(&self, pod: &Pod) -> bool {
        let counted = self.generation.as_deref();
        label(pod, REVISION) == Some(&*self.hash) || (counted.is_some() && label(pod, GENERATION) == counted)
    }

    fn is_available(&self, pod: &Pod, now: Timestamp) -> bool {
        pods::is_available(pod, self.min_ready_seconds, now)
    }

    /// How many more pods there may be while they are replaced, and how many may be missing, of so many nodes.
    fn bounds(&self, nodes: usize) -> (usize, usize) {
        let nodes = i32::try_from(nodes).unwrap_or(i32::MAX);
        let part = |value: &IntOrString| usize::try_from(scaled(value, nodes, true).unwrap_or(0)).unwrap_or(0);
        match (part(&self.max_surge), part(&self.max_unavailable)) {
            (0, 0) => (0, 1),
            bounds => bounds,
        }
    }
}

/// Something to do.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Action {
    /// Make a pod for this node.
    Create(String),
    /// Delete it.
    Delete(Shared),
    /// It failed on this node: delete it, but not too often.
    Retry(Shared, String),
    /// It succeeded on this node, which no daemon should: delete it.
    Renew(Shared, String),
}

/// The pods of each node, oldest first; those that are over and going don't count.
pub(super) fn by_node(owned: &[Shared]) -> BTreeMap<&str, Vec<&Shared>> {
    let mut nodes: BTreeMap<&str, Vec<&Shared>> = BTreeMap::new();
    for pod in owned.iter().filter(|pod| !(pods::is_finished(pod) && pods::is_terminating(pod))) {
        if let Some(node) = pod.spec.as_ref().and_then(target) {
            nodes.entry(node).or_default().push(pod);
        }
    }
    for pods in nodes.values_mut() {
        pods.sort_by_key(|pod| {
            let created = pod.metadata.creation_timestamp.as_ref().map(|time| time.0);
            (pods::node(pod).is_empty(), created, name(&***pod))
        });
    }
    nodes
}

/// What to do on all nodes.
pub(super) fn plan(wanted: &Wanted, nodes: &[Arc<Node>], owned: &[Shared], now: Timestamp) -> Vec<Action> {
    let on_nodes = by_node(owned);
    let mut actions = Vec::new();
    let mut running: BTreeMap<&str, &[&Shared]> = BTreeMap::new();
    for node in nodes {
        let (place, on_node) = (place(&wanted.spec, node), on_nodes.get(name(&**node)));
        match (place, on_node) {
            (Place::Runs, None) => actions.push(Action::Create(name(&**node).to_owned())),
            (Place::Runs | Place::Stays, Some(on_node)) => settle(wanted, name(&**node), on_node, now, &mut actions),
            (Place::Nowhere, Some(on_node)) => {
                let going = on_node.iter().filter(|pod| !pods::is_terminating(pod));
                actions.extend(going.map(|pod| Action::Delete((*pod).clone())));
            }
            (Place::Stays | Place::Nowhere, None) => {}
        }
        if place == Place::Runs || on_node.is_some() {
            running.insert(name(&**node), on_node.map_or(&[], Vec::as_slice));
        }
    }
    let is_known = |node: &str| nodes.iter().any(|known| name(&**known) == node);
    for (node, pods) in &on_nodes {
        let lost = pods.iter().filter(|pod| pods::node(pod).is_empty() && !pods::is_terminating(pod));
        if !is_known(node) {
            actions.extend(lost.map(|pod| Action::Delete((*pod).clone())));
        }
    }
    // Pods are replaced when there is nothing else to do: what was just begun is seen by the next look. A node on which
    // pods fail again and again doesn't hold the others up.
    let is_settled = actions.iter().all(|action| matches!(action, Action::Retry(..)));
    if is_settled && !wanted.on_delete {
        let desired = nodes.iter().filter(|node| place(&wanted.spec, node) == Place::Runs).count();
        replace(wanted, desired, &running, now, &mut actions);
    }
    actions
}

/// Leaves as many pods on a node as there should be.
fn settle(wanted: &Wanted, node: &str, on_node: &[&Shared], now: Timestamp, actions: &mut Vec<Action>) {
    let mut running = Vec::new();
    for pod in on_node.iter().filter(|pod| !pods::is_terminating(pod)) {
        match pods::phase(pod) {
            "Failed" => actions.push(Action::Retry((*pod).clone(), node.to_owned())),
            "Succeeded" => actions.push(Action::Renew((*pod).clone(), node.to_owned())),
            _ => running.push(*pod),
        }
    }
    if running.len() < 2 {
        return;
    }
    if wanted.bounds(1).0 == 0 {
        actions.extend(running[1..].iter().map(|pod| Action::Delete((*pod).clone())));
        return;
    }
    let (mut new, mut old) = (None, None);
    for pod in running {
        let place = if wanted.is_current(pod) { &mut new } else { &mut old };
        if place.is_none() {
            *place = Some(pod);
        } else {
            actions.push(Action::Delete(pod.clone()));
        }
    }
    // The old one stays as long as it serves and the new one doesn't yet.
    if let (Some(new), Some(old)) = (new, old)
        && (!pods::is_ready(old) || wanted.is_available(new, now))
    {
        actions.push(Action::Delete(old.clone()));
    }
}

/// Replaces pods of other revisions, as many at once as may be.
fn replace(
    wanted: &Wanted,
    desired: usize,
    nodes: &BTreeMap<&str, &[&Shared]>,
    now: Timestamp,
    actions: &mut Vec<Action>,
) {
    let (max_surge, max_unavailable) = wanted.bounds(desired);
    let (mut busy, mut at_once, mut candidates) = (0_usize, Vec::new(), Vec::new());
    for (node, on_node) in nodes {
        let living = || on_node.iter().filter(|pod| !pods::is_terminating(pod));
        let (new, old): (Vec<&&Shared>, Vec<&&Shared>) = living().partition(|pod| wanted.is_current(pod));
        let (new, old) = match (&new[..], &old[..]) {
            ([], []) => (None, None),
            ([new], []) => (Some(*new), None),
            ([], [old]) => (None, Some(*old)),
            _ => {
                busy += 1;
                continue;
            }
        };
        match (new, old) {
            (None, Some(old)) => {
                let action =
                    if max_surge == 0 { Action::Delete((*old).clone()) } else { Action::Create((*node).to_owned()) };
                // What doesn't serve anybody isn't missed.
                if wanted.is_available(old, now) { candidates.push(action) } else { at_once.push(action) }
            }
            (Some(new), _) if wanted.is_available(new, now) => {}
            _ if max_surge == 0 => busy += 1,
            _ => {}
        }
    }
    let room = if max_surge == 0 { max_unavailable } else { max_surge }.saturating_sub(busy);
    actions.extend(at_once);
    actions.extend(candidates.into_iter().take(room));
}

/// What there is to say, and when that changes without anything happening.
pub(super) fn status(
    set: &DaemonSet,
    wanted: &Wanted,
    nodes: &[Arc<Node>],
    owned: &[Shared],
    (collisions, now): (i32, Timestamp),
) -> (DaemonSetStatus, Option<Timestamp>) {
    let on_nodes = by_node(owned);
    let (mut updated, mut available) = (0, 0);
    let mut next: Option<Timestamp> = None;
    let mut status = DaemonSetStatus {
        observed_generation: set.metadata.generation,
        collision_count: (collisions != 0).then_some(collisions),
        conditions: set.status.as_ref().and_then(|status| status.conditions.clone()),
        ..DaemonSetStatus::default()
    };
    for node in nodes {
        let first = on_nodes.get(name(&**node)).and_then(|pods| pods.first());
        if place(&wanted.spec, node) != Place::Runs {
            status.number_misscheduled += i32::from(first.is_some());
            continue;
        }
        status.desired_number_scheduled += 1;
        let Some(pod) = first else { continue };
        status.current_number_scheduled += 1;
        status.number_ready += i32::from(pods::is_ready(pod));
        updated += i32::from(wanted.is_current(pod));
        match pods::available_from(pod, wanted.min_ready_seconds) {
            Some(from) if from <= now => available += 1,
            Some(from) => next = Some(next.map_or(from, |next| next.min(from))),
            None => {}
        }
    }
    let some = |number: i32| (number != 0).then_some(number);
    status.updated_number_scheduled = some(updated);
    status.number_available = some(available);
    status.number_unavailable = some(status.desired_number_scheduled - available);
    (status, next)
}

/// The shortest and longest wait before a failed pod is deleted again on the same node.
const RETRY_MIN: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(15 * 60);

/// When pods failed on which nodes of which sets. Forgotten with the loop: then the waits begin anew.
#[derive(Debug, Default)]
pub(super) struct Failures(BTreeMap<(String, String), (Duration, Moment)>);

impl Failures {
    /// Says whether a failed pod may be deleted now; otherwise how long to wait.
    pub(super) fn may_retry(&mut self, set: &str, node: &str, now: Moment) -> Result<(), Duration> {
        self.0.retain(|_, (_, last)| now.since(*last) < RETRY_MAX * 2);
        let key = (set.to_owned(), node.to_owned());
        let wait = match self.0.get(&key) {
            Some((wait, last)) if now.since(*last) < *wait => return Err(*wait - now.since(*last)),
            Some((wait, _)) => (*wait * 2).min(RETRY_MAX),
            None => RETRY_MIN,
        };
        self.0.insert(key, (wait, now));
        Ok(())
    }
}
