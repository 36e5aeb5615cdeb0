//! What a Deployment says of itself: pure.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::{Deployment, DeploymentCondition, DeploymentStatus, ReplicaSet};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::rollout::{Set, counts, max_unavailable, replicas, size, sum};
use crate::support::name;

/// Types of conditions.
pub(super) const AVAILABLE: &str = "Available";
pub(super) const PROGRESSING: &str = "Progressing";
pub(super) const REPLICA_FAILURE: &str = "ReplicaFailure";

/// Reasons of the condition [`PROGRESSING`].
pub(super) const PAUSED: &str = "DeploymentPaused";
pub(super) const RESUMED: &str = "DeploymentResumed";
pub(super) const CREATED: &str = "NewReplicaSetCreated";
pub(super) const FOUND: &str = "FoundNewReplicaSet";
pub(super) const NOT_CREATED: &str = "ReplicaSetCreateError";
const COMPLETE: &str = "NewReplicaSetAvailable";
const UPDATED: &str = "ReplicaSetUpdated";
const TIMED_OUT: &str = "ProgressDeadlineExceeded";

/// The condition of a type.
pub(super) fn condition<'a>(status: &'a DeploymentStatus, kind: &str) -> Option<&'a DeploymentCondition> {
    status.conditions.iter().flatten().find(|condition| condition.type_ == kind)
}

/// A condition as of now.
pub(super) fn new_condition(kind: &str, status: &str, reason: &str, text: &str, now: Timestamp) -> DeploymentCondition {
    DeploymentCondition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(text.to_owned()),
        last_update_time: Some(Time(now)),
        last_transition_time: Some(Time(now)),
    }
}

/// Sets a condition, unless it has this status for this reason already. It keeps the time at which its status changed.
pub(super) fn set(status: &mut DeploymentStatus, mut new: DeploymentCondition) {
    if let Some(known) = condition(status, &new.type_) {
        if known.status == new.status && known.reason == new.reason {
            return;
        }
        if known.status == new.status {
            new.last_transition_time.clone_from(&known.last_transition_time);
        }
    }
    remove(status, &new.type_);
    status.conditions.get_or_insert_default().push(new);
}

/// Removes a condition.
pub(super) fn remove(status: &mut DeploymentStatus, kind: &str) {
    let Some(conditions) = &mut status.conditions else { return };
    conditions.retain(|condition| condition.type_ != kind);
    if conditions.is_empty() {
        status.conditions = None;
    }
}

/// Seconds within which there has to be progress, if anybody cares.
pub(super) fn deadline(deployment: &Deployment) -> Option<i32> {
    deployment.spec.as_ref()?.progress_deadline_seconds.filter(|seconds| *seconds != i32::MAX)
}

/// Notes whether it is paused, if its progress is watched.
pub(super) fn note_pause(deployment: &Deployment, status: &mut DeploymentStatus, now: Timestamp) {
    let known = condition(status, PROGRESSING).and_then(|condition| condition.reason.as_deref());
    // The deadline that was missed is worth more.
    if deadline(deployment).is_none() || known == Some(TIMED_OUT) {
        return;
    }
    let is_paused = is_paused(deployment);
    let (reason, text) = match (is_paused, known == Some(PAUSED)) {
        (true, false) => (PAUSED, "Deployment is paused"),
        (false, true) => (RESUMED, "Deployment is resumed"),
        _ => return,
    };
    set(status, new_condition(PROGRESSING, "Unknown", reason, text, now));
}

/// Whether it is paused.
pub(super) fn is_paused(deployment: &Deployment) -> bool {
    deployment.spec.as_ref().and_then(|spec| spec.paused) == Some(true)
}

/// Counts the pods, and says whether enough of them are available.
pub(super) fn counted(deployment: &Deployment, new: Option<&Set>, old: &[Set], now: Timestamp) -> DeploymentStatus {
    let shown = deployment.status.clone().unwrap_or_default();
    let all = || old.iter().chain(new);
    let available = sum(all(), |set| counts(set).2);
    let some = |number: i32| (number != 0).then_some(number);
    let mut status = DeploymentStatus {
        observed_generation: deployment.metadata.generation,
        replicas: some(sum(all(), |set| counts(set).0)),
        updated_replicas: some(sum(new, |set| counts(set).0)),
        ready_replicas: some(sum(all(), |set| counts(set).1)),
        available_replicas: some(available),
        unavailable_replicas: some((sum(all(), size) - available).max(0)),
        collision_count: shown.collision_count,
        conditions: shown.conditions,
        terminating_replicas: shown.terminating_replicas,
    };
    let enough = available >= replicas(deployment) - max_unavailable(deployment);
    let availability = if enough {
        let text = "Deployment has minimum availability.";
        new_condition(AVAILABLE, "True", "MinimumReplicasAvailable", text, now)
    } else {
        let text = "Deployment does not have minimum availability.";
        new_condition(AVAILABLE, "False", "MinimumReplicasUnavailable", text, now)
    };
    set(&mut status, availability);
    status
}

/// Whether all pods are of the new template, and available.
pub(super) fn is_complete(deployment: &Deployment, status: &DeploymentStatus) -> bool {
    let wanted = replicas(deployment);
    [status.updated_replicas, status.replicas, status.available_replicas].iter().all(|it| it.unwrap_or(0) == wanted)
        && status.observed_generation >= deployment.metadata.generation
}

/// Whether there is progress from one status to another.
fn is_progressing(old: &DeploymentStatus, new: &DeploymentStatus) -> bool {
    let of = |number: Option<i32>| number.unwrap_or(0);
    let outdated = |status: &DeploymentStatus| of(status.replicas) - of(status.updated_replicas);
    of(new.updated_replicas) > of(old.updated_replicas)
        || outdated(new) < outdated(old)
        || of(new.ready_replicas) > of(old.ready_replicas)
        || of(new.available_replicas) > of(old.available_replicas)
}

/// When the deadline for progress is over, as far as it is running.
fn due(deployment: &Deployment, status: &DeploymentStatus) -> Option<Timestamp> {
    let since = condition(status, PROGRESSING)?.last_update_time.as_ref()?.0;
    since.checked_add(SignedDuration::from_secs(deadline(deployment)?.into())).ok()
}

fn is_timed_out(deployment: &Deployment, status: &DeploymentStatus, now: Timestamp) -> bool {
    match condition(status, PROGRESSING).and_then(|condition| condition.reason.as_deref()) {
        None | Some(COMPLETE) => false,
        Some(TIMED_OUT) => true,
        Some(_) => due(deployment, status).is_some_and(|due| due < now),
    }
}

/// When to look whether the deadline is over, should nothing happen until then.
pub(super) fn check_at(deployment: &Deployment, status: &DeploymentStatus) -> Option<Timestamp> {
    let reason = condition(status, PROGRESSING)?.reason.as_deref();
    if is_complete(deployment, status) || reason == Some(TIMED_OUT) || reason == Some(COMPLETE) {
        return None;
    }
    // What is written down has no fractions of seconds.
    due(deployment, status)?.checked_add(SignedDuration::from_secs(1)).ok()
}

/// Counts, and says how the rollout goes.
pub(super) fn rollout(deployment: &Deployment, new: Option<&Set>, old: &[Set], now: Timestamp) -> DeploymentStatus {
    let shown = deployment.status.clone().unwrap_or_default();
    let mut status = counted(deployment, new, old, now);
    let current = condition(&shown, PROGRESSING).cloned();
    let reason = current.as_ref().and_then(|condition| condition.reason.as_deref());
    let was_complete = status.replicas == status.updated_replicas && reason == Some(COMPLETE);
    if deadline(deployment).is_none() {
        remove(&mut status, PROGRESSING);
    } else if !was_complete {
        let who = match new {
            Some(set) => format!("ReplicaSet \"{}\"", name(&**set)),
            None => format!("Deployment \"{}\"", name(deployment)),
        };
        if is_complete(deployment, &status) {
            let text = format!("{who} has successfully progressed.");
            set(&mut status, new_condition(PROGRESSING, "True", COMPLETE, &text, now));
        } else if is_progressing(&shown, &status) {
            let text = format!("{who} is progressing.");
            let mut progress = new_condition(PROGRESSING, "True", UPDATED, &text, now);
            if let Some(current) = current.filter(|current| current.status == "True") {
                progress.last_transition_time = current.last_transition_time;
            }
            // With each progress the deadline begins again, so this is news even for the same reason.
            remove(&mut status, PROGRESSING);
            set(&mut status, progress);
        } else if is_timed_out(deployment, &status, now) {
            let text = format!("{who} has timed out progressing.");
            set(&mut status, new_condition(PROGRESSING, "False", TIMED_OUT, &text, now));
        }
    }
    match failure(new, old) {
        Some(failure) => set(&mut status, failure),
        None => remove(&mut status, REPLICA_FAILURE),
    }
    status
}

/// What a set says about pods that can't be made; the new one's word counts more.
fn failure(new: Option<&Set>, old: &[Set]) -> Option<DeploymentCondition> {
    let of = |set: &ReplicaSet| {
        let conditions = set.status.iter().flat_map(|status| status.conditions.iter().flatten());
        let found = conditions.into_iter().find(|condition| condition.type_ == REPLICA_FAILURE)?;
        Some(DeploymentCondition {
            type_: REPLICA_FAILURE.to_owned(),
            status: found.status.clone(),
            reason: found.reason.clone(),
            message: found.message.clone(),
            last_update_time: found.last_transition_time.clone(),
            last_transition_time: found.last_transition_time.clone(),
        })
    };
    new.into_iter().chain(old).find_map(|set| of(set))
}
