//! What a StatefulSet has to do about its pods, and what it says of them: pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use k3sd_client::controller::pods;
use k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetSpec, StatefulSetStatus};
use k8s_openapi::api::core::v1::Pod;

use super::identity::{REVISION, is_identical, ordinal};
use crate::support::{label, scaled};

/// A pod, shared with the copies that it comes from.
pub(super) type Shared = Arc<Pod>;

/// What is wanted, in numbers.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    /// The ordinal of the first pod.
    pub(super) start: i32,
    /// How many there are to be.
    pub(super) replicas: i32,
    /// One after the other.
    pub(super) in_order: bool,
    /// Pods are only replaced when somebody deletes them.
    pub(super) on_delete: bool,
    /// So many of the first pods keep the current revision.
    pub(super) partition: i32,
    /// So many may be unavailable while pods are replaced.
    pub(super) max_unavailable: i32,
    /// Seconds that a pod has to be ready for.
    pub(super) min_ready_seconds: i32,
}

impl Wanted {
    pub(super) fn of(set: &StatefulSet) -> Self {
        let none = StatefulSetSpec::default();
        let spec = set.spec.as_ref().unwrap_or(&none);
        let strategy = spec.update_strategy.as_ref();
        let rolling = strategy.and_then(|strategy| strategy.rolling_update.as_ref());
        let replicas = spec.replicas.unwrap_or(1).max(0);
        let unavailable = rolling.and_then(|rolling| rolling.max_unavailable.as_ref());
        Self {
            start: spec.ordinals.as_ref().and_then(|ordinals| ordinals.start).unwrap_or(0),
            replicas,
            in_order: spec.pod_management_policy.as_deref() != Some("Parallel"),
            on_delete: strategy.and_then(|strategy| strategy.type_.as_deref()) == Some("OnDelete"),
            partition: rolling.and_then(|rolling| rolling.partition).unwrap_or(0),
            max_unavailable: unavailable.and_then(|it| scaled(it, replicas, true)).unwrap_or(1).max(1),
            min_ready_seconds: spec.min_ready_seconds.unwrap_or(0),
        }
    }

    /// The ordinals that are wanted.
    pub(super) fn ordinals(&self) -> std::ops::Range<i32> {
        self.start..self.start.saturating_add(self.replicas)
    }
}

/// Why a pod is deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// It failed, and is made again.
    Failed,
    /// It succeeded, and is made again.
    Succeeded,
    /// There are too many.
    Surplus,
    /// It is of another revision.
    Outdated,
}

/// Something to do.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Action {
    /// Make the pod of this ordinal and its claims, of the current revision or of the updated one.
    Create { ordinal: i32, current: bool },
    /// Delete it.
    Delete(Shared, Why),
    /// It waits: make its claims, if they aren't there.
    Claim(Shared),
    /// Its labels say something else than who it is.
    Identify(Shared),
}

/// What to do now; what it leads to is seen by the next look.
pub(super) fn plan(wanted: &Wanted, owned: &[Shared], (current, updated): (&str, &str), now: Timestamp) -> Vec<Action> {
    let by_ordinal: BTreeMap<i32, &Shared> = owned.iter().filter_map(|pod| Some((ordinal(pod)?, pod))).collect();
    let mut actions = Vec::new();
    if !replicas(wanted, &by_ordinal, (current, updated), now, &mut actions) {
        return actions;
    }
    if !surplus(wanted, &by_ordinal, now, &mut actions) || wanted.on_delete {
        return actions;
    }
    outdated(wanted, &by_ordinal, updated, now, &mut actions);
    actions
}

fn is_healthy(pod: &Pod) -> bool {
    pods::phase(pod) == "Running" && pods::is_ready(pod) && !pods::is_terminating(pod)
}

fn is_available(wanted: &Wanted, pod: &Pod, now: Timestamp) -> bool {
    pods::phase(pod) == "Running" && pods::is_available(pod, wanted.min_ready_seconds, now)
}

/// Goes through the ordinals that are wanted, and says whether there is nothing to wait for.
fn replicas(
    wanted: &Wanted,
    pods: &BTreeMap<i32, &Shared>,
    (current, updated): (&str, &str),
    now: Timestamp,
    actions: &mut Vec<Action>,
) -> bool {
    for ordinal in wanted.ordinals() {
        let Some(pod) = pods.get(&ordinal) else {
            let keeps = !wanted.on_delete && current != updated && ordinal - wanted.start < wanted.partition;
            actions.push(Action::Create { ordinal, current: keeps });
            if wanted.in_order {
                return false;
            }
            continue;
        };
        if pods::is_finished(pod) {
            let why = if pods::phase(pod) == "Failed" { Why::Failed } else { Why::Succeeded };
            if !pods::is_terminating(pod) {
                actions.push(Action::Delete((*pod).clone(), why));
            }
            if wanted.in_order {
                return false;
            }
            continue;
        }
        if pods::phase(pod) == "Pending" && !pods::is_terminating(pod) {
            actions.push(Action::Claim((*pod).clone()));
        }
        if wanted.in_order && (pods::is_terminating(pod) || !is_available(wanted, pod, now)) {
            return false;
        }
        if !is_identical(pod) {
            actions.push(Action::Identify((*pod).clone()));
        }
    }
    true
}

/// Goes through the pods beyond those, the highest ordinal first, and says whether there is nothing to wait for.
fn surplus(wanted: &Wanted, pods: &BTreeMap<i32, &Shared>, now: Timestamp, actions: &mut Vec<Action>) -> bool {
    let condemned = || pods.iter().rev().filter(|(ordinal, _)| !wanted.ordinals().contains(ordinal));
    let living = pods.range(wanted.ordinals()).filter(|(_, pod)| !is_healthy(pod));
    let sick = condemned().filter(|(_, pod)| !is_healthy(pod));
    let first_sick = living.chain(sick).map(|(ordinal, _)| *ordinal).min();
    for (ordinal, pod) in condemned() {
        if pods::is_terminating(pod) {
            if wanted.in_order {
                return false;
            }
            continue;
        }
        // The pod of the lowest ordinal that isn't well may go: waiting for it would be in vain.
        let waits = !is_available(wanted, pod, now) && first_sick != Some(*ordinal);
        if wanted.in_order && waits {
            return false;
        }
        actions.push(Action::Delete((*pod).clone(), Why::Surplus));
        if wanted.in_order {
            return false;
        }
    }
    true
}

/// Replaces pods of other revisions, the highest ordinal first, while enough of the others are well.
fn outdated(wanted: &Wanted, pods: &BTreeMap<i32, &Shared>, updated: &str, now: Timestamp, actions: &mut Vec<Action>) {
    // A pod that is being made or deleted just now isn't there for anybody.
    let touched = |ordinal: i32| {
        actions.iter().any(|action| match action {
            Action::Create { ordinal: made, .. } => *made == ordinal,
            Action::Delete(pod, _) => super::identity::ordinal(pod) == Some(ordinal),
            _ => false,
        })
    };
    let min = wanted.start.saturating_add(wanted.partition);
    let is_sick = |ordinal: &i32| {
        let pod = pods.get(ordinal).filter(|pod| is_healthy(pod) && is_available(wanted, pod, now));
        touched(*ordinal) || pod.is_none()
    };
    let is_outdated = |pod: &Pod| label(pod, REVISION) != Some(updated);
    if wanted.max_unavailable == 1 {
        for ordinal in wanted.ordinals().rev().take_while(|ordinal| *ordinal >= min) {
            let Some(pod) = pods.get(&ordinal).filter(|_| !touched(ordinal)) else { return };
            if is_outdated(pod) && !pods::is_terminating(pod) {
                actions.push(Action::Delete((*pod).clone(), Why::Outdated));
                return;
            }
            if !is_healthy(pod) {
                return;
            }
        }
        return;
    }
    let sick = wanted.ordinals().filter(is_sick).count();
    let mut room = usize::try_from(wanted.max_unavailable).unwrap_or(1).saturating_sub(sick);
    let mut going = Vec::new();
    for ordinal in wanted.ordinals().rev().take_while(|ordinal| *ordinal >= min) {
        let Some(pod) = pods.get(&ordinal).filter(|_| !touched(ordinal)) else { continue };
        if !is_outdated(pod) || pods::is_terminating(pod) {
            continue;
        }
        // One that isn't well costs nothing.
        if !is_sick(&ordinal) {
            if room == 0 {
                break;
            }
            room -= 1;
        }
        going.push(Action::Delete((*pod).clone(), Why::Outdated));
    }
    actions.extend(going);
}

/// What there is to say of the pods, and when that changes without anything happening.
pub(super) fn status(
    set: &StatefulSet,
    owned: &[Shared],
    (current, updated, collisions): (&str, &str, i32),
    now: Timestamp,
) -> (StatefulSetStatus, Option<Timestamp>) {
    let wanted = Wanted::of(set);
    let shown = set.status.clone().unwrap_or_default();
    let (mut replicas, mut ready, mut available, mut of_current, mut of_updated) = (0, 0, 0, 0, 0);
    let mut next: Option<Timestamp> = None;
    for pod in owned {
        replicas += 1;
        if pods::phase(pod) == "Running" && pods::is_ready(pod) {
            ready += 1;
            match pods::available_from(pod, wanted.min_ready_seconds) {
                Some(from) if from <= now => available += 1,
                Some(from) => next = Some(next.map_or(from, |next| next.min(from))),
                None => {}
            }
        }
        if !pods::is_terminating(pod) {
            of_current += i32::from(label(&**pod, REVISION) == Some(current));
            of_updated += i32::from(label(&**pod, REVISION) == Some(updated));
        }
    }
    let mut current = current.to_owned();
    if !wanted.on_delete && of_updated == wanted.replicas && ready == wanted.replicas && replicas == wanted.replicas {
        of_current = of_updated;
        updated.clone_into(&mut current);
    }
    let some = |number: i32| (number != 0).then_some(number);
    let status = StatefulSetStatus {
        observed_generation: set.metadata.generation,
        replicas,
        ready_replicas: some(ready),
        // Always written by upstream: the field isn't optional there.
        available_replicas: Some(available),
        current_replicas: some(of_current),
        updated_replicas: some(of_updated),
        current_revision: Some(current),
        update_revision: Some(updated.to_owned()),
        collision_count: Some(collisions),
        conditions: shown.conditions,
    };
    (status, next)
}
