//! What the pods of a Job say: pure.

use std::cmp::Reverse;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::{Job, PodFailurePolicy, PodFailurePolicyRule};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod, PodStatus};

/// Keeps a pod until the Job has counted it.
pub const FINALIZER: &str = "batch.kubernetes.io/job-tracking";
/// Annotation and label with the index.
pub const INDEX: &str = "batch.kubernetes.io/job-completion-index";
/// How often the index failed before this pod.
pub const FAILURES: &str = "batch.kubernetes.io/job-index-failure-count";
/// The same for failures that the policy ignores.
pub const IGNORED_FAILURES: &str = "batch.kubernetes.io/job-index-ignored-failure-count";

/// The phase of a pod.
pub fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default()
}

/// Whether it has succeeded.
pub fn has_succeeded(pod: &Pod) -> bool {
    phase(pod) == "Succeeded"
}

/// Whether it has ended.
pub fn has_ended(pod: &Pod) -> bool {
    matches!(phase(pod), "Succeeded" | "Failed")
}

/// Whether its deletion was asked for.
pub fn is_deleted(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some()
}

/// Whether it counts as running.
pub fn is_active(pod: &Pod) -> bool {
    !has_ended(pod) && !is_deleted(pod)
}

/// Whether it is on its way out.
pub fn is_terminating(pod: &Pod) -> bool {
    !has_ended(pod) && is_deleted(pod)
}

/// Whether it hasn't been counted yet.
pub fn is_tracked(pod: &Pod) -> bool {
    pod.metadata.finalizers.iter().flatten().any(|finalizer| finalizer == FINALIZER)
}

fn conditions(status: &PodStatus) -> impl Iterator<Item = (&str, &str, Option<Timestamp>)> {
    let all = status.conditions.iter().flatten();
    all.map(|condition| {
        let since = condition.last_transition_time.as_ref().map(|since| since.0);
        (condition.type_.as_str(), condition.status.as_str(), since)
    })
}

fn ready(pod: &Pod) -> Option<(&str, Option<Timestamp>)> {
    let found = conditions(pod.status.as_ref()?).find(|(kind, ..)| *kind == "Ready")?;
    Some((found.1, found.2))
}

/// Whether it is ready.
pub fn is_ready(pod: &Pod) -> bool {
    ready(pod).is_some_and(|(status, _)| status == "True")
}

/// The index it is for, of an Indexed Job of so many.
pub fn index(pod: &Pod, completions: u32) -> Option<u32> {
    let text = pod.metadata.annotations.as_ref()?.get(INDEX)?;
    text.parse().ok().filter(|index| *index < completions)
}

/// A number in an annotation.
pub fn number(pod: &Pod, annotation: &str) -> u32 {
    let text = pod.metadata.annotations.as_ref().and_then(|all| all.get(annotation));
    text.and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// Whether a pod is only replaced when it has ended, and not as soon as it is deleted.
pub fn replaces_ended_only(job: &Job) -> bool {
    job.spec.as_ref().is_some_and(|spec| {
        spec.pod_replacement_policy.as_deref() == Some("Failed") || spec.pod_failure_policy.is_some()
    })
}

/// Whether it counts as failed.
pub fn has_failed(pod: &Pod, job: &Job) -> bool {
    phase(pod) == "Failed" || !replaces_ended_only(job) && is_deleted(pod) && !has_succeeded(pod)
}

fn container_statuses(status: &PodStatus) -> impl Iterator<Item = &ContainerStatus> {
    let init = status.init_container_statuses.iter().flatten();
    status.container_statuses.iter().flatten().chain(init)
}

/// When it ended, as well as can be told.
pub fn finished_at(pod: &Pod) -> Timestamp {
    let status = pod.status.as_ref();
    let ends: Option<Vec<Timestamp>> = status
        .into_iter()
        .flat_map(|status| status.container_statuses.iter().flatten())
        .map(|container| Some(container.state.as_ref()?.terminated.as_ref()?.finished_at.as_ref()?.0))
        .collect();
    if let Some(end) = ends.and_then(|ends| ends.into_iter().max()) {
        return end;
    }
    if let Some((status, Some(since))) = ready(pod)
        && status == "False"
    {
        return since;
    }
    let meta = &pod.metadata;
    if let Some(deleted) = &meta.deletion_timestamp {
        let grace = SignedDuration::from_secs(meta.deletion_grace_period_seconds.unwrap_or(0));
        return deleted.0.checked_sub(grace).unwrap_or(deleted.0);
    }
    meta.creation_timestamp.as_ref().map_or(Timestamp::UNIX_EPOCH, |made| made.0)
}

/// How often its containers were started again.
pub fn restarts(pod: &Pod) -> i64 {
    let statuses = pod.status.iter().flat_map(container_statuses);
    statuses.map(|container| i64::from(container.restart_count)).sum()
}

/// What a failed pod means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// It counts against the limit.
    Count,
    /// It doesn't.
    Ignore,
    /// Its index has failed.
    FailIndex,
    /// The Job has failed, with this message.
    FailJob(String),
}

/// What a policy says about a failed pod.
pub fn meaning(policy: Option<&PodFailurePolicy>, per_index: bool, pod: &Pod) -> Meaning {
    let rules = policy.into_iter().flat_map(|policy| policy.rules.iter().enumerate());
    for (place, rule) in rules {
        let Some(cause) = cause(rule, pod) else { continue };
        return match rule.action.as_str() {
            "Ignore" => Meaning::Ignore,
            "Count" => Meaning::Count,
            "FailIndex" if per_index => Meaning::FailIndex,
            "FailJob" => Meaning::FailJob(format!("{cause} matching FailJob rule at index {place}")),
            _ => continue,
        };
    }
    Meaning::Count
}

/// Why a rule is about a pod.
fn cause(rule: &PodFailurePolicyRule, pod: &Pod) -> Option<String> {
    let status = pod.status.as_ref()?;
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let (namespace, name) = (text(&pod.metadata.namespace), text(&pod.metadata.name));
    if let Some(wanted) = &rule.on_exit_codes {
        return container_statuses(status).find_map(|container| {
            let code = container.state.as_ref()?.terminated.as_ref()?.exit_code;
            let named = wanted.container_name.as_ref().is_none_or(|wanted| *wanted == container.name);
            let listed = wanted.values.contains(&code);
            let matches = code != 0 && if wanted.operator == "In" { listed } else { !listed };
            let container = &container.name;
            (named && matches)
                .then(|| format!("Container {container} for pod {namespace}/{name} failed with exit code {code}"))
        });
    }
    let patterns = rule.on_pod_conditions.iter().flatten();
    patterns.into_iter().find_map(|wanted| {
        let found = conditions(status).any(|(kind, status, _)| kind == wanted.type_ && status == wanted.status);
        found.then(|| format!("Pod {namespace}/{name} has condition {}", wanted.type_))
    })
}

/// The order in which active pods go when there are too many.
pub fn removal_order(pod: &Pod) -> impl Ord + use<> {
    let rank = match phase(pod) {
        "Running" => 2,
        "Unknown" => 1,
        _ => 0,
    };
    let bound = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).is_some_and(|node| !node.is_empty());
    let made = pod.metadata.creation_timestamp.as_ref().map(|made| made.0);
    let ready_since = ready(pod).and_then(|(_, since)| since);
    (bound, rank, is_ready(pod), Reverse(ready_since), Reverse(restarts(pod)), Reverse(made), pod.metadata.name.clone())
}
