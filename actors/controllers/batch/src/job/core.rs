//! What becomes of a Job: pure.
//!
//! A look says what its pods come to and what is to be done. When that is done, the [`account`](super::account) says what
//! the status becomes and which pods are counted.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::{Job, JobCondition, JobSpec, JobStatus, SuccessPolicy};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::indexes::Indexes;
use super::pods::{
    FAILURES, IGNORED_FAILURES, Meaning, finished_at, has_failed, has_succeeded, index, is_active, is_ready,
    is_terminating, is_tracked, meaning, number, phase, removal_order, replaces_ended_only, restarts,
};

/// Pods that are made or deleted in one look; upstream's number.
const CHANGES_MAX: usize = 500;
/// The wait after a failure, doubled by each further one.
const BACKOFF_MIN: SignedDuration = SignedDuration::from_secs(10);
const BACKOFF_MAX: SignedDuration = SignedDuration::from_secs(600);

/// A condition of a Job that holds.
pub fn condition<'a>(status: Option<&'a JobStatus>, kind: &str) -> Option<&'a JobCondition> {
    let all = status?.conditions.as_ref()?;
    all.iter().find(|condition| condition.type_ == kind && condition.status == "True")
}

/// Whether it has come to its end.
pub fn is_finished(job: &Job) -> bool {
    ["Complete", "Failed"].iter().any(|kind| condition(job.status.as_ref(), kind).is_some())
}

/// Whether it counts by index.
pub fn is_indexed(spec: &JobSpec) -> bool {
    spec.completion_mode.as_deref() == Some("Indexed")
}

pub(super) fn is_suspended(spec: &JobSpec) -> bool {
    spec.suspend == Some(true)
}

pub(super) fn number_of(number: Option<i32>) -> u32 {
    u32::try_from(number.unwrap_or(0)).unwrap_or(0)
}

pub(super) fn count(number: usize) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

/// How a Job ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    /// Well, or not.
    pub succeeds: bool,
    /// Why.
    pub reason: String,
    /// What people read.
    pub message: String,
}

impl End {
    fn failure(reason: &str, message: &str) -> Self {
        Self { succeeds: false, reason: reason.to_owned(), message: message.to_owned() }
    }

    pub(super) fn condition(&self, kinds: [&str; 2], now: Timestamp) -> JobCondition {
        let [good, bad] = kinds;
        let kind = if self.succeeds { good } else { bad };
        JobCondition {
            type_: kind.to_owned(),
            status: "True".to_owned(),
            reason: Some(self.reason.clone()),
            message: Some(self.message.clone()),
            last_probe_time: Some(Time(now)),
            last_transition_time: Some(Time(now)),
        }
    }
}

/// A pod to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewPod {
    /// Its index, in an Indexed Job.
    pub index: Option<u32>,
    /// How often the index failed before, and how often that was ignored; where limits are per index.
    pub failures: Option<(u32, u32)>,
}

/// See the module's page.
#[derive(Debug)]
pub struct Look {
    /// All pods.
    pub pods: Vec<Arc<Pod>>,
    pub(super) active: usize,
    pub(super) ready: usize,
    pub(super) terminating: usize,
    pub(super) succeeded_before: Indexes,
    pub(super) succeeded: Indexes,
    pub(super) failed: Option<Indexes>,
    pub(super) succeeded_count: usize,
    /// Failed pods that stay until another one of their index tells how often it has failed.
    pub(super) kept: BTreeMap<u32, String>,
    pub(super) end: Option<End>,
    /// Pods that are in the way; with what they count for if `counted`.
    pub delete: Vec<Arc<Pod>>,
    /// Whether deleted pods count as failed: they do when the Job ends.
    pub counted: bool,
    /// Pods that are missing.
    pub create: Vec<NewPod>,
    /// When to look again.
    pub again: Option<Timestamp>,
    pub(super) managed: bool,
}

/// What was done of what a look asked for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Made {
    /// Pods that were made.
    pub created: usize,
    /// Pods that were deleted.
    pub deleted: usize,
    /// Of these, the ready ones.
    pub deleted_ready: usize,
}

/// Looks at a Job that isn't finished and all of its pods.
pub fn look(job: &Job, pods: Vec<Arc<Pod>>, now: Timestamp) -> Look {
    let spec = job.spec.clone().unwrap_or_default();
    let status = job.status.clone().unwrap_or_default();
    let active: Vec<&Arc<Pod>> = pods.iter().filter(|pod| is_active(pod)).collect();
    let completions = number_of(spec.completions);
    let uncounted = status.uncounted_terminated_pods.clone().unwrap_or_default();
    let (uncounted_succeeded, uncounted_failed) =
        (uncounted.succeeded.unwrap_or_default(), uncounted.failed.unwrap_or_default());
    let new = |known: &[String], pod: &Pod| {
        is_tracked(pod) && !known.iter().any(|uid| Some(uid) == pod.metadata.uid.as_ref())
    };
    let newly_succeeded = pods.iter().filter(|pod| has_succeeded(pod) && new(&uncounted_succeeded, pod)).count();
    let per_index = spec.backoff_limit_per_index.is_some();
    let counts = |pod: &Pod| meaning(spec.pod_failure_policy.as_ref(), per_index, pod) != Meaning::Ignore;
    let newly_failed =
        pods.iter().filter(|pod| has_failed(pod, job) && new(&uncounted_failed, pod) && counts(pod)).count();
    let succeeded_before = Indexes::parse(status.completed_indexes.as_deref().unwrap_or_default(), completions);
    let mut look = Look {
        active: active.len(),
        ready: active.iter().filter(|pod| is_ready(pod)).count(),
        terminating: pods.iter().filter(|pod| is_terminating(pod)).count(),
        succeeded: succeeded_before.clone(),
        succeeded_before,
        failed: None,
        succeeded_count: number_of(status.succeeded) as usize + newly_succeeded + uncounted_succeeded.len(),
        kept: BTreeMap::new(),
        end: None,
        delete: Vec::new(),
        counted: false,
        create: Vec::new(),
        again: None,
        managed: false,
        pods: Vec::new(),
    };
    let failed = number_of(status.failed) as usize + newly_failed + uncounted_failed.len();
    look.end = decided(job, &spec, &pods, failed, now, &mut look.again);
    if is_indexed(&spec) {
        look.count_indexes(job, &spec, &pods, completions);
    }
    if look.end.is_some() {
        look.delete = active.into_iter().cloned().collect();
        look.counted = true;
    } else if job.metadata.deletion_timestamp.is_none() {
        look.manage(job, &spec, &active, &pods, now);
        look.managed = true;
    }
    look.pods = pods;
    look
}

/// The end that is certain, whatever indexes say.
fn decided(
    job: &Job,
    spec: &JobSpec,
    pods: &[Arc<Pod>],
    failed: usize,
    now: Timestamp,
    again: &mut Option<Timestamp>,
) -> Option<End> {
    let status = job.status.as_ref();
    let known = |kind: &str, succeeds| {
        let found = condition(status, kind)?;
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        Some(End { succeeds, reason: text(&found.reason), message: text(&found.message) })
    };
    if let Some(end) = known("SuccessCriteriaMet", true).or_else(|| known("FailureTarget", false)) {
        return Some(end);
    }
    if let Some(policy) = &spec.pod_failure_policy {
        let failed = pods.iter().filter(|pod| has_failed(pod, job));
        let meanings = failed.map(|pod| meaning(Some(policy), spec.backoff_limit_per_index.is_some(), pod));
        for meaning in meanings {
            if let Meaning::FailJob(message) = meaning {
                return Some(End::failure("PodFailurePolicy", &message));
            }
        }
    }
    let limit = number_of(spec.backoff_limit.or(Some(6)));
    if failed > limit as usize || has_restarted_too_often(spec, pods, limit) {
        return Some(End::failure("BackoffLimitExceeded", "Job has reached the specified backoff limit"));
    }
    let (limit, started) = (spec.active_deadline_seconds?, status.and_then(|status| status.start_time.as_ref()));
    if is_suspended(spec) {
        return None;
    }
    let due = started.map_or(now, |started| started.0).checked_add(SignedDuration::from_secs(limit)).ok()?;
    if due <= now {
        return Some(End::failure("DeadlineExceeded", "Job was active longer than specified deadline"));
    }
    *again = Some(due);
    None
}

fn has_restarted_too_often(spec: &JobSpec, pods: &[Arc<Pod>], limit: u32) -> bool {
    let policy = spec.template.spec.as_ref().and_then(|spec| spec.restart_policy.as_deref());
    if policy != Some("OnFailure") {
        return false;
    }
    let running = pods.iter().filter(|pod| matches!(phase(pod), "Running" | "Pending"));
    let total: i64 = running.map(|pod| restarts(pod)).sum();
    if limit == 0 { total > 0 } else { total >= i64::from(limit) }
}

impl Look {
    fn count_indexes(&mut self, job: &Job, spec: &JobSpec, pods: &[Arc<Pod>], completions: u32) {
        for pod in pods.iter().filter(|pod| has_succeeded(pod) && is_tracked(pod)) {
            if let Some(index) = index(pod, completions) {
                self.succeeded.add(index);
            }
        }
        self.succeeded_count = self.succeeded.len();
        if let Some(limit) = spec.backoff_limit_per_index {
            let status = job.status.as_ref().and_then(|status| status.failed_indexes.as_deref());
            let mut failed = Indexes::parse(status.unwrap_or_default(), completions);
            for pod in pods.iter().filter(|pod| has_failed(pod, job) && is_tracked(pod)) {
                let Some(index) = index(pod, completions) else { continue };
                let is_last = match meaning(spec.pod_failure_policy.as_ref(), true, pod) {
                    Meaning::FailIndex => true,
                    Meaning::Ignore => false,
                    Meaning::Count | Meaning::FailJob(_) => number(pod, FAILURES) >= number_of(Some(limit)),
                };
                if is_last {
                    failed.add(index);
                }
            }
            let too_many = spec.max_failed_indexes.is_some_and(|most| failed.len() > number_of(Some(most)) as usize);
            if self.end.is_none() && too_many {
                let message = "Job has exceeded the specified maximal number of failed indexes";
                self.end = Some(End::failure("MaxFailedIndexesExceeded", message));
            } else if self.end.is_none()
                && !failed.is_empty()
                && failed.len() + self.succeeded.len() >= completions as usize
            {
                self.end = Some(End::failure("FailedIndexes", "Job has failed indexes"));
            }
            self.failed = Some(failed);
            self.keep(job, pods, completions);
        }
        if self.end.is_none()
            && let Some(message) = success(spec.success_policy.as_ref(), &self.succeeded, completions)
        {
            self.end = Some(End { succeeds: true, reason: "SuccessPolicy".to_owned(), message });
        }
    }

    /// Finds, for each index that has no pod now, the failed one that tells how often it has failed.
    fn keep(&mut self, job: &Job, pods: &[Arc<Pod>], completions: u32) {
        let active: HashSet<u32> =
            pods.iter().filter(|pod| is_active(pod)).filter_map(|pod| index(pod, completions)).collect();
        let mut last: BTreeMap<u32, &Arc<Pod>> = BTreeMap::new();
        let order = |pod: &Pod| (number(pod, FAILURES) + number(pod, IGNORED_FAILURES), finished_at(pod));
        for pod in pods.iter().filter(|pod| is_tracked(pod) && has_failed(pod, job)) {
            let Some(index) = index(pod, completions) else { continue };
            let is_over = self.succeeded.has(index) || self.failed.as_ref().is_some_and(|failed| failed.has(index));
            if is_over || active.contains(&index) {
                continue;
            }
            let known = last.entry(index).or_insert(pod);
            if order(known) <= order(pod) {
                *known = pod;
            }
        }
        let uid = |pod: &Pod| pod.metadata.uid.clone().unwrap_or_default();
        self.kept = last.into_iter().map(|(index, pod)| (index, uid(pod))).collect();
    }

    /// Compares what is with what is wanted.
    fn manage(&mut self, job: &Job, spec: &JobSpec, active: &[&Arc<Pod>], pods: &[Arc<Pod>], now: Timestamp) {
        if is_suspended(spec) {
            self.delete = active.iter().map(|pod| (*pod).clone()).collect();
            return;
        }
        let parallelism = number_of(spec.parallelism.or(Some(1))) as usize;
        let wanted = match spec.completions {
            None if self.succeeded_count > 0 => active.len(),
            None => parallelism,
            Some(completions) => {
                (number_of(Some(completions)) as usize).saturating_sub(self.succeeded_count).min(parallelism)
            }
        };
        self.delete = surplus(spec, active, active.len().saturating_sub(wanted));
        if !self.delete.is_empty() {
            self.delete.truncate(CHANGES_MAX);
            return;
        }
        let going = if replaces_ended_only(job) { self.terminating } else { 0 };
        let missing = wanted.saturating_sub(going + active.len()).min(CHANGES_MAX);
        if missing == 0 {
            return;
        }
        if spec.backoff_limit_per_index.is_some() {
            return self.create_indexes(job, spec, pods, missing, now);
        }
        if let Some(due) = backoff_until(job, pods).filter(|due| *due > now) {
            self.again = Some(self.again.map_or(due, |sooner| sooner.min(due)));
            return;
        }
        let indexes: Vec<Option<u32>> = if is_indexed(spec) {
            self.pending(job, spec, pods).take(missing).map(Some).collect()
        } else {
            vec![None; missing]
        };
        self.create = indexes.into_iter().map(|index| NewPod { index, failures: None }).collect();
    }

    /// Indexes that nobody works on, in order.
    fn pending(&self, job: &Job, spec: &JobSpec, pods: &[Arc<Pod>]) -> impl Iterator<Item = u32> {
        let completions = number_of(spec.completions);
        let waits = replaces_ended_only(job);
        let works = |pod: &&Arc<Pod>| is_active(pod) || waits && is_terminating(pod);
        let taken: HashSet<u32> = pods.iter().filter(works).filter_map(|pod| index(pod, completions)).collect();
        let is_over = |index: u32| self.succeeded.has(index) || self.failed.as_ref().is_some_and(|all| all.has(index));
        (0..completions).filter(move |index| !taken.contains(index) && !is_over(*index))
    }

    /// Each index waits for itself.
    fn create_indexes(&mut self, job: &Job, spec: &JobSpec, pods: &[Arc<Pod>], missing: usize, now: Timestamp) {
        let mut soonest: Option<Timestamp> = None;
        let mut create = Vec::new();
        for index in self.pending(job, spec, pods).take(missing) {
            let kept = self.kept.get(&index);
            let last = kept.and_then(|uid| pods.iter().find(|pod| pod.metadata.uid.as_ref() == Some(uid)));
            let Some(last) = last else {
                create.push(NewPod { index: Some(index), failures: Some((0, 0)) });
                continue;
            };
            let (mut failures, mut ignored) = (number(last, FAILURES), number(last, IGNORED_FAILURES));
            let due = finished_at(last).checked_add(wait(failures + ignored + 1)).unwrap_or(now);
            if due > now {
                soonest = Some(soonest.map_or(due, |sooner| sooner.min(due)));
                continue;
            }
            match meaning(spec.pod_failure_policy.as_ref(), true, last) {
                Meaning::Ignore => ignored += 1,
                _ => failures += 1,
            }
            create.push(NewPod { index: Some(index), failures: Some((failures, ignored)) });
        }
        self.create = create;
        if let Some(due) = soonest {
            self.again = Some(self.again.map_or(due, |sooner| sooner.min(due)));
        }
    }
}

/// The wait after so many failures in a row.
fn wait(failures: u32) -> SignedDuration {
    let doubled = BACKOFF_MIN.as_secs().saturating_mul(1 << failures.saturating_sub(1).min(16));
    SignedDuration::from_secs(doubled.min(BACKOFF_MAX.as_secs()))
}

/// Until when nothing new is begun, after failures since the last success.
fn backoff_until(job: &Job, pods: &[Arc<Pod>]) -> Option<Timestamp> {
    let succeeded = pods.iter().filter(|pod| has_succeeded(pod)).map(|pod| finished_at(pod)).max();
    let failed = pods.iter().filter(|pod| has_failed(pod, job)).map(|pod| finished_at(pod));
    let since: Vec<Timestamp> = failed.filter(|end| succeeded.is_none_or(|success| *end > success)).collect();
    let last = since.iter().max()?;
    last.checked_add(wait(u32::try_from(since.len()).unwrap_or(u32::MAX))).ok()
}

/// Pods that go: those whose index somebody else has, or nobody knows, and then as many as there are too many.
fn surplus(spec: &JobSpec, active: &[&Arc<Pod>], too_many: usize) -> Vec<Arc<Pod>> {
    let mut sorted: Vec<&Arc<Pod>> = active.to_vec();
    sorted.sort_by_cached_key(|pod| removal_order(pod));
    let (mut goes, mut stays) = (Vec::new(), sorted.clone());
    if is_indexed(spec) {
        let completions = number_of(spec.completions);
        let mut taken = HashSet::new();
        stays.clear();
        // The last of an index in that order is the best one.
        for pod in sorted.into_iter().rev() {
            match index(pod, completions) {
                Some(index) if taken.insert(index) => stays.push(pod),
                _ => goes.push(pod),
            }
        }
        stays.reverse();
    }
    let more = too_many.saturating_sub(goes.len());
    goes.into_iter().chain(stays.into_iter().take(more)).cloned().collect()
}

/// Whether the successes so far are enough; in words.
fn success(policy: Option<&SuccessPolicy>, succeeded: &Indexes, completions: u32) -> Option<String> {
    let rules = &policy?.rules;
    rules
        .iter()
        .position(|rule| {
            let wanted = rule.succeeded_indexes.as_deref().map(|text| Indexes::parse(text, completions));
            let found = match &wanted {
                Some(wanted) => wanted.iter().filter(|index| succeeded.has(*index)).count(),
                None => succeeded.len(),
            };
            match (rule.succeeded_count, wanted) {
                (Some(least), _) => found >= number_of(Some(least)) as usize,
                (None, Some(wanted)) => found >= wanted.len(),
                (None, None) => false,
            }
        })
        .map(|place| format!("Matched rules at index {place}"))
}
