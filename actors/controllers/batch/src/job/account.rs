//! What the status of a Job becomes, and which pods are counted: pure.
//!
//! A pod is counted once: its uid stands in `uncountedTerminatedPods` before its finalizer goes, and leaves it for the
//! counters afterwards.

use std::collections::HashSet;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{Job, JobCondition, JobSpec, JobStatus};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::core::{End, Look, Made, condition, count, is_indexed, is_suspended, number_of};
use super::indexes::Indexes;
use super::pods::{Meaning, has_failed, has_succeeded, index, is_tracked, meaning};

/// Pods that may be on their way into the counters; upstream's number.
const UNCOUNTED_MAX: usize = 500;

/// What the status becomes, and what follows.
#[derive(Debug)]
pub struct Account {
    /// The status before the finalizers go.
    pub status: JobStatus,
    /// Pods that are counted, and lose their finalizer once the status is written.
    pub release: Vec<Arc<Pod>>,
    /// What is told of: type, reason, message.
    pub events: Vec<(&'static str, &'static str)>,
    end: Option<End>,
    terminating: usize,
    is_all: bool,
}

/// Says what the status becomes.
pub fn account(job: &Job, look: &Look, made: Made, now: Timestamp) -> Account {
    let spec = job.spec.clone().unwrap_or_default();
    let mut status = job.status.clone().unwrap_or_default();
    if status.start_time.is_none() && !is_suspended(&spec) {
        status.start_time = Some(Time(now));
    }
    let (active, mut events) = (look.active + made.created - made.deleted.min(look.active), Vec::new());
    let mut end = look.end.clone();
    if look.counted && made.deleted < look.delete.len() {
        // Some are still there; the next look sees them.
        end = None;
    }
    if look.end.is_none() {
        let complete = match spec.completions {
            None => look.succeeded_count > 0,
            Some(completions) => look.succeeded_count >= number_of(Some(completions)) as usize,
        };
        if complete && active == 0 {
            let message = "Reached expected number of succeeded pods".to_owned();
            end = Some(End { succeeds: true, reason: "CompletionsReached".to_owned(), message });
        } else if look.managed {
            events.extend(suspension(&spec, &mut status, now));
        }
    }
    let terminating = look.terminating + made.deleted;
    status.active = Some(count(active)).filter(|active| *active > 0);
    status.ready = Some(count(look.ready - made.deleted_ready.min(look.ready)));
    status.terminating = Some(count(terminating));
    let mut account = Account { status, release: Vec::new(), events, end, terminating, is_all: true };
    account
        .settle(&look.pods.iter().filter(|pod| is_tracked(pod)).filter_map(|pod| pod.metadata.uid.clone()).collect());
    account.count(job, &spec, look);
    if let Some(end) = &account.end {
        let kind = end.condition(["SuccessCriteriaMet", "FailureTarget"], now);
        if condition(Some(&account.status), &kind.type_).is_none() {
            account.status.conditions.get_or_insert_default().push(kind);
        }
    }
    account
}

/// Notes whether the Job is suspended; the event, if that is new.
fn suspension(spec: &JobSpec, status: &mut JobStatus, now: Timestamp) -> Option<(&'static str, &'static str)> {
    let conditions = status.conditions.get_or_insert_default();
    let known = conditions.iter().position(|condition| condition.type_ == "Suspended");
    let holds = is_suspended(spec);
    let was = known.and_then(|place| conditions.get(place)).is_some_and(|condition| condition.status == "True");
    if holds == was {
        if conditions.is_empty() {
            status.conditions = None;
        }
        return None;
    }
    let (value, reason, message) =
        if holds { ("True", "JobSuspended", "Job suspended") } else { ("False", "JobResumed", "Job resumed") };
    let condition = JobCondition {
        type_: "Suspended".to_owned(),
        status: value.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        last_probe_time: Some(Time(now)),
        last_transition_time: Some(Time(now)),
    };
    match known {
        Some(place) => conditions[place] = condition,
        None => conditions.push(condition),
    }
    if !holds {
        // What it may take counts from here.
        status.start_time = Some(Time(now));
    }
    Some(if holds { ("Suspended", message) } else { ("Resumed", message) })
}

impl Account {
    /// Moves pods that have lost their finalizer into the counters. `tracked` are those that have it.
    pub fn settle(&mut self, tracked: &HashSet<String>) {
        let uncounted = self.status.uncounted_terminated_pods.get_or_insert_default();
        let take = |list: &mut Option<Vec<String>>, counter: &mut Option<i32>| {
            let Some(uids) = list else { return };
            let before = uids.len();
            uids.retain(|uid| tracked.contains(uid));
            let moved = before - uids.len();
            if moved > 0 {
                *counter = Some(counter.unwrap_or(0).saturating_add(count(moved)));
            }
            if uids.is_empty() {
                *list = None;
            }
        };
        take(&mut uncounted.succeeded, &mut self.status.succeeded);
        take(&mut uncounted.failed, &mut self.status.failed);
    }

    fn count(&mut self, job: &Job, spec: &JobSpec, look: &Look) {
        let (indexed, completions) = (is_indexed(spec), number_of(spec.completions));
        let mut counted = look.succeeded_before.clone();
        let uncounted = self.status.uncounted_terminated_pods.get_or_insert_default();
        let (mut succeeded, mut failed) =
            (uncounted.succeeded.take().unwrap_or_default(), uncounted.failed.take().unwrap_or_default());
        let mut pods: Vec<&Arc<Pod>> = look.pods.iter().filter(|pod| is_tracked(pod)).collect();
        if indexed {
            pods.sort_by_key(|pod| index(pod, completions));
        }
        let fails_all = self.end.as_ref().is_some_and(|end| !end.succeeds);
        for pod in pods {
            if counted.len() - look.succeeded_before.len() + succeeded.len() + failed.len() >= UNCOUNTED_MAX {
                self.is_all = false;
                break;
            }
            let has_failed = has_failed(pod, job);
            let index = index(pod, completions);
            let uid = pod.metadata.uid.clone().unwrap_or_default();
            let kept = index.and_then(|index| look.kept.get(&index)) == Some(&uid);
            let ends = job.metadata.deletion_timestamp.is_some() || self.end.is_some() || has_succeeded(pod);
            if !ends && (!has_failed || kept) {
                continue;
            }
            self.release.push(pod.clone());
            if has_succeeded(pod) && !failed.contains(&uid) {
                match index {
                    Some(index) if indexed => counted.add(index),
                    None if indexed => {}
                    _ if !succeeded.contains(&uid) => succeeded.push(uid),
                    _ => {}
                }
            } else if (has_failed || fails_all) && !failed.contains(&uid) && (!indexed || index.is_some()) {
                let per_index = spec.backoff_limit_per_index.is_some();
                if meaning(spec.pod_failure_policy.as_ref(), per_index, pod) != Meaning::Ignore {
                    failed.push(uid);
                }
            }
        }
        uncounted.succeeded = Some(succeeded).filter(|all| !all.is_empty());
        uncounted.failed = Some(failed).filter(|all| !all.is_empty());
        if indexed {
            let text = counted.to_string();
            self.status.succeeded = Some(count(counted.len())).filter(|succeeded| *succeeded > 0);
            self.status.completed_indexes = Some(text).filter(|text| !text.is_empty());
            self.status.failed_indexes = look.failed.as_ref().map(Indexes::to_string);
        }
    }

    /// The last condition, once everything is counted and gone.
    pub fn finish(&mut self, now: Timestamp) -> Option<&End> {
        let uncounted = self.status.uncounted_terminated_pods.as_ref();
        let waits = uncounted.is_some_and(|pods| pods.succeeded.is_some() || pods.failed.is_some());
        let end = self.end.as_ref().filter(|_| !waits && self.is_all && self.terminating == 0)?;
        let condition = end.condition(["Complete", "Failed"], now);
        if end.succeeds {
            self.status.completion_time = Some(Time(now));
        }
        self.status.conditions.get_or_insert_default().push(condition);
        Some(end)
    }
}
