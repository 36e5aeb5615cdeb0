//! Which ReplicaSet is the new one, and what a Deployment notes on its ReplicaSets: pure.

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use serde_json::Value;

use super::rollout::{Set, created, max_surge, replicas, size};
use crate::support::{annotation, name};

/// Tells the pods of one ReplicaSet from those of another.
pub(super) const HASH: &str = "pod-template-hash";
/// The how-manyth template this is.
pub(super) const REVISION: &str = "deployment.kubernetes.io/revision";
/// Revisions that this template was earlier.
const REVISION_HISTORY: &str = "deployment.kubernetes.io/revision-history";
/// How many pods the Deployment wanted when the set was last scaled.
pub(super) const DESIRED_REPLICAS: &str = "deployment.kubernetes.io/desired-replicas";
/// How many it allowed then.
pub(super) const MAX_REPLICAS: &str = "deployment.kubernetes.io/max-replicas";
/// Annotations of the Deployment that its sets don't get.
const KEPT_BACK: [&str; 6] = [
    "kubectl.kubernetes.io/last-applied-configuration",
    REVISION,
    REVISION_HISTORY,
    DESIRED_REPLICAS,
    MAX_REPLICAS,
    "deprecated.deployment.rollback.rollback.revision",
];
/// Characters of the history; the oldest revisions are dropped for newer ones.
const HISTORY_CHARS_MAX: usize = 2000;

/// A number in an annotation.
pub(super) fn number(set: &ReplicaSet, name: &str) -> Option<i32> {
    annotation(set, name)?.parse().ok()
}

/// The revision of a set, 0 if it has none.
pub(super) fn revision(set: &ReplicaSet) -> i64 {
    annotation(set, REVISION).and_then(|revision| revision.parse().ok()).unwrap_or(0)
}

/// Whether two templates are the same but for the label that tells sets apart.
pub(crate) fn is_same_template(left: &PodTemplateSpec, right: &PodTemplateSpec) -> bool {
    let plain = |template: &PodTemplateSpec| {
        let mut template = template.clone();
        if let Some(meta) = &mut template.metadata {
            if let Some(labels) = &mut meta.labels {
                labels.remove(HASH);
            }
            meta.labels = meta.labels.take().filter(|labels| !labels.is_empty());
            meta.annotations = meta.annotations.take().filter(|annotations| !annotations.is_empty());
        }
        template.metadata.get_or_insert_default();
        template
    };
    let (left, right) = (plain(left), plain(right));
    left == right || without_empty_lists(&left) == without_empty_lists(&right)
}

/// A list without items says as much as none.
fn without_empty_lists(template: &PodTemplateSpec) -> Option<Value> {
    fn strip(value: &mut Value) {
        match value {
            Value::Object(fields) => {
                fields.retain(|_, field| !matches!(field, Value::Array(items) if items.is_empty()));
                fields.values_mut().for_each(strip);
            }
            Value::Array(items) => items.iter_mut().for_each(strip),
            _ => {}
        }
    }
    let mut value = serde_json::to_value(template).ok()?;
    strip(&mut value);
    Some(value)
}

/// The set of the template that is wanted, the oldest if there are several, and all others.
pub(super) fn split(deployment: &Deployment, mut sets: Vec<Set>) -> (Option<Set>, Vec<Set>) {
    sets.sort_by(|left, right| created(left).cmp(&created(right)));
    let wanted = deployment.spec.as_ref().map(|spec| &spec.template);
    let template = |set: &Set| set.spec.as_ref().and_then(|spec| spec.template.as_ref()).cloned();
    let is_new = |set: &Set| wanted.zip(template(set)).is_some_and(|(wanted, has)| is_same_template(wanted, &has));
    match sets.iter().position(is_new) {
        Some(at) => (Some(sets.remove(at)), sets),
        None => (None, sets),
    }
}

/// The revision that the new set is to have.
pub(super) fn next_revision(old: &[Set]) -> i64 {
    old.iter().map(|set| revision(set)).max().unwrap_or(0).saturating_add(1)
}

/// Notes on the new set what its Deployment says, and its revision; says whether that changed something. `is_there`: it
/// isn't being made just now.
pub(super) fn note(deployment: &Deployment, set: &mut ReplicaSet, next: i64, is_there: bool) -> bool {
    let notes = set.metadata.annotations.get_or_insert_default();
    let before = notes.clone();
    let given = deployment.metadata.annotations.iter().flatten();
    for (name, value) in given.filter(|(name, _)| !KEPT_BACK.contains(&name.as_str())) {
        notes.insert(name.clone(), value.clone());
    }
    let had = notes.get(REVISION).cloned();
    let number = had.as_deref().map_or(Some(0), |had| had.parse::<i64>().ok());
    // A revision that is no number is somebody else's business.
    if let Some(number) = number
        && number < next
    {
        notes.insert(REVISION.to_owned(), next.to_string());
        if let Some(had) = had {
            let history = notes.get(REVISION_HISTORY).map_or("", String::as_str);
            if let Some(history) = with_revision(history, &had) {
                notes.insert(REVISION_HISTORY.to_owned(), history);
            }
        }
    }
    let changed = *notes != before;
    let sized = !is_there && note_sizes(deployment, set);
    changed || sized
}

/// The history with a further revision; `None` when it has no room.
fn with_revision(history: &str, revision: &str) -> Option<String> {
    if history.is_empty() {
        return Some(revision.to_owned());
    }
    let mut kept = history;
    while kept.len() + revision.len() + 1 > HISTORY_CHARS_MAX {
        match kept.split_once(',') {
            Some((_, newer)) => kept = newer,
            None => return (revision.len() <= HISTORY_CHARS_MAX).then(|| revision.to_owned()),
        }
    }
    Some(format!("{kept},{revision}"))
}

/// Notes on a set how many pods its Deployment wants and allows; says whether that changed something.
pub(super) fn note_sizes(deployment: &Deployment, set: &mut ReplicaSet) -> bool {
    let notes = set.metadata.annotations.get_or_insert_default();
    let wanted = replicas(deployment);
    let mut changed = false;
    for (name, number) in [(DESIRED_REPLICAS, wanted), (MAX_REPLICAS, wanted.saturating_add(max_surge(deployment)))] {
        let number = number.to_string();
        changed |= notes.insert(name.to_owned(), number.clone()) != Some(number);
    }
    changed
}

/// Whether the wanted number changed since the sets with pods were scaled.
pub(super) fn is_scaling<'a>(deployment: &Deployment, sets: impl IntoIterator<Item = &'a Set>) -> bool {
    let sets = sets.into_iter().filter(|set| size(set) > 0);
    let noted = sets.into_iter().filter_map(|set| number(set, DESIRED_REPLICAS));
    noted.into_iter().any(|noted| noted != replicas(deployment))
}

/// Old sets that nothing keeps: beyond the limit, without pods, and settled. The lowest revisions go first.
pub(super) fn forgotten(deployment: &Deployment, old: &[Set]) -> Vec<Set> {
    let limit = deployment.spec.as_ref().and_then(|spec| spec.revision_history_limit).unwrap_or(10);
    if limit == i32::MAX {
        return Vec::new();
    }
    let mut old: Vec<&Set> = old.iter().filter(|set| set.metadata.deletion_timestamp.is_none()).collect();
    old.sort_by_key(|set| (revision(set), created(set)));
    let surplus = old.len().saturating_sub(usize::try_from(limit).unwrap_or(0));
    let is_settled = |set: &&Set| {
        let status = set.status.as_ref();
        let observed = status.and_then(|status| status.observed_generation).unwrap_or(0);
        let is_empty = size(set) == 0 && status.is_none_or(|status| status.replicas == 0);
        is_empty && set.metadata.generation.unwrap_or(0) <= observed
    };
    old.into_iter().take(surplus).filter(is_settled).cloned().collect()
}

/// The name of a set: the Deployment's, and the hash of the template.
pub(super) fn set_name(deployment: &Deployment, hash: &str) -> String {
    format!("{}-{hash}", name(deployment))
}
