//! What a deletion does to an object: a function of the object, the options and the time.

use std::time::Duration;

use jiff::Timestamp;
use k3sd_apiserver_store::Resource;
use serde_json::{Value, json};

use crate::api::time_text;
use crate::meta;
use crate::options::{DeleteOptions, Propagation};
use crate::strategy::{Dependents, Strategy};

/// The finalizer of who releases dependents.
const ORPHAN: &str = "orphan";

/// The finalizer of who deletes dependents first.
const FOREGROUND: &str = "foregroundDeletion";

/// What matters of a kind.
#[derive(Clone, Copy, Debug)]
pub(super) struct Subject {
    pub(super) is_pod: bool,
    pub(super) is_namespace: bool,
    pub(super) is_definition: bool,
    pub(super) dependents: Dependents,
}

impl Subject {
    pub(super) fn of(resource: &Resource, strategy: &Strategy) -> Self {
        let is = |group: &str, plural: &str| (&*resource.group, &*resource.plural) == (group, plural);
        Self {
            is_pod: is("", "pods"),
            is_namespace: is("", "namespaces"),
            is_definition: is("apiextensions.k8s.io", "customresourcedefinitions"),
            dependents: strategy.dependents,
        }
    }
}

/// What is to be done.
#[derive(Debug, PartialEq)]
pub(super) enum Plan {
    /// Nothing: the object is on its way, and this deletion doesn't hasten it.
    Pending,
    /// The object goes.
    Remove,
    /// The object is written so.
    Mark {
        /// Its new state.
        object: Value,
        /// Whether it goes right after, since nothing keeps it.
        then_remove: bool,
    },
}

/// Decides. `object` is in the stored version.
pub(super) fn plan(mut object: Value, subject: &Subject, options: &DeleteOptions, now: Timestamp) -> Plan {
    let is_going = meta::get(&object, "deletionTimestamp").is_some();
    if subject.is_namespace && (!is_going || has_content(&object)) {
        return if is_going { Plan::Pending } else { mark_namespace(object, subject, options, now) };
    }
    if subject.is_definition && !is_going {
        k3sd_apiserver_custom::definition::prepare_delete(&mut object, &time_text(now));
        return Plan::Mark { object, then_remove: false };
    }
    let grace = if subject.is_pod { graceful(&mut object, options, now) } else { Grace::None };
    if grace == Grace::Pending {
        return Plan::Pending;
    }
    let was_kept = meta::finalizers(&object).next().is_some();
    let changed = settle_finalizers(&mut object, subject, options);
    let is_kept = meta::finalizers(&object).next().is_some();
    match grace {
        Grace::None if !was_kept && !changed => return Plan::Remove,
        Grace::None if is_kept => mark(&mut object, now),
        _ => {}
    }
    let lingers = is_kept || matches!(grace, Grace::Seconds(seconds) if seconds > 0);
    Plan::Mark { object, then_remove: !lingers }
}

fn has_content(namespace: &Value) -> bool {
    meta::at(namespace, &["spec", "finalizers"]).and_then(Value::as_array).is_some_and(|list| !list.is_empty())
}

fn mark_namespace(mut namespace: Value, subject: &Subject, options: &DeleteOptions, now: Timestamp) -> Plan {
    meta::set(&mut namespace, "deletionTimestamp", time_text(now));
    if let Some(status) = meta::part(&mut namespace, "status") {
        status.insert("phase".to_owned(), json!("Terminating"));
    }
    settle_finalizers(&mut namespace, subject, options);
    Plan::Mark { object: namespace, then_remove: false }
}

/// How much time an object gets to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Grace {
    /// Its kind knows no grace, or it is over.
    None,
    /// It is going already, no later than this deletion wants.
    Pending,
    /// It gets so many seconds, and is marked so.
    Seconds(i64),
}

fn graceful(pod: &mut Value, options: &DeleteOptions, now: Timestamp) -> Grace {
    if let Some(until) = meta::get(pod, "deletionTimestamp").and_then(Value::as_str).map(str::to_owned) {
        let Some(before) = meta::number(pod, "deletionGracePeriodSeconds") else { return Grace::None };
        let Some(seconds) = options.grace_seconds.filter(|seconds| *seconds < before.max(0)) else {
            return Grace::Pending;
        };
        // A shorter grace counts from when the first one began, but nobody has to have ended in the past.
        let until: Timestamp = until.parse().unwrap_or(now);
        let shorter = until.saturating_sub(Duration::from_secs(before.abs_diff(seconds)));
        let until = shorter.map_or(now, |shorter| shorter.max(now));
        set_deletion(pod, until, seconds);
        return Grace::Seconds(seconds);
    }
    let seconds = grace_seconds(pod, options);
    let until = now.saturating_add(Duration::from_secs(seconds.unsigned_abs())).unwrap_or(Timestamp::MAX);
    set_deletion(pod, until, seconds);
    meta::next_generation(pod);
    Grace::Seconds(seconds)
}

fn set_deletion(object: &mut Value, until: Timestamp, seconds: i64) {
    meta::set(object, "deletionTimestamp", time_text(until));
    meta::set(object, "deletionGracePeriodSeconds", seconds);
}

/// The time that a pod gets: what the deletion says, or what the pod says, unless nothing of it can be running.
fn grace_seconds(pod: &Value, options: &DeleteOptions) -> i64 {
    let is_placed = meta::at(pod, &["spec", "nodeName"]).and_then(Value::as_str).is_some_and(|node| !node.is_empty());
    let phase = meta::at(pod, &["status", "phase"]).and_then(Value::as_str).unwrap_or_default();
    if !is_placed || matches!(phase, "Succeeded" | "Failed") {
        return 0;
    }
    let own = || meta::at(pod, &["spec", "terminationGracePeriodSeconds"]).and_then(Value::as_i64);
    let seconds = options.grace_seconds.or_else(own).unwrap_or_default();
    if seconds < 0 { 1 } else { seconds }
}

/// Marks an object that has to wait for others.
fn mark(object: &mut Value, now: Timestamp) {
    if meta::number(object, "deletionGracePeriodSeconds").is_none() {
        meta::next_generation(object);
    }
    let until = meta::get(object, "deletionTimestamp").and_then(Value::as_str).and_then(|text| text.parse().ok());
    let until = until.filter(|until: &Timestamp| *until <= now).unwrap_or(now);
    set_deletion(object, until, 0);
}

/// Puts the finalizers in that see to dependents as the deletion wants, and takes the others out. Says whether that
/// changed anything.
fn settle_finalizers(object: &mut Value, subject: &Subject, options: &DeleteOptions) -> bool {
    if subject.dependents == Dependents::Ignored {
        return false;
    }
    let before: Vec<String> = meta::finalizers(object).map(str::to_owned).collect();
    let wanted = match wanted_propagation(&before, subject, options) {
        Propagation::Orphan => Some(ORPHAN),
        Propagation::Foreground => Some(FOREGROUND),
        Propagation::Background => None,
    };
    let others = before.iter().filter(|finalizer| ![ORPHAN, FOREGROUND].contains(&finalizer.as_str())).cloned();
    let after: Vec<String> = others.chain(wanted.map(str::to_owned)).collect();
    let sorted = |list: &[String]| {
        let mut list = list.to_vec();
        list.sort_unstable();
        list
    };
    let changed = sorted(&before) != sorted(&after);
    if changed {
        meta::set_finalizers(object, after);
    }
    changed
}

/// What the deletion says about dependents; if it says nothing, what the object says, and if that says nothing, its kind.
fn wanted_propagation(finalizers: &[String], subject: &Subject, options: &DeleteOptions) -> Propagation {
    if let Some(orphan) = options.orphan_dependents {
        return if orphan { Propagation::Orphan } else { Propagation::Background };
    }
    if let Some(propagation) = options.propagation {
        return propagation;
    }
    let said = finalizers.iter().find_map(|finalizer| match finalizer.as_str() {
        ORPHAN => Some(Propagation::Orphan),
        FOREGROUND => Some(Propagation::Foreground),
        _ => None,
    });
    said.unwrap_or(match subject.dependents {
        Dependents::Orphan => Propagation::Orphan,
        _ => Propagation::Background,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: &str = "2025-01-01T00:00:00Z";

    fn subject(is_pod: bool) -> Subject {
        Subject { is_pod, is_namespace: false, is_definition: false, dependents: Dependents::Background }
    }

    fn decide(object: &Value, subject: &Subject, options: &DeleteOptions) -> Plan {
        plan(object.clone(), subject, options, NOW.parse().unwrap())
    }

    fn with_grace(seconds: i64) -> DeleteOptions {
        DeleteOptions { grace_seconds: Some(seconds), ..DeleteOptions::default() }
    }

    fn pod() -> Value {
        json!({
            "metadata": { "generation": 1 },
            "spec": { "nodeName": "n", "terminationGracePeriodSeconds": 30 },
            "status": { "phase": "Running" },
        })
    }

    #[test]
    fn pods_get_the_time_that_somebody_says() {
        let unplaced = json!({ "metadata": {}, "spec": { "terminationGracePeriodSeconds": 30 } });
        let ended = json!({ "metadata": {}, "spec": { "nodeName": "n" }, "status": { "phase": "Failed" } });
        for (object, options, seconds, until, then_remove) in [
            (pod(), DeleteOptions::default(), 30, "2025-01-01T00:00:30Z", false),
            (pod(), with_grace(5), 5, "2025-01-01T00:00:05Z", false),
            (pod(), with_grace(0), 0, NOW, true),
            (unplaced, DeleteOptions::default(), 0, NOW, true),
            (ended, with_grace(60), 0, NOW, true),
        ] {
            let Plan::Mark { object, then_remove: removes } = decide(&object, &subject(true), &options) else {
                panic!("pods are marked first");
            };
            assert_eq!(object["metadata"]["deletionGracePeriodSeconds"], seconds);
            assert_eq!(object["metadata"]["deletionTimestamp"], until);
            assert_eq!(removes, then_remove);
        }
        let Plan::Mark { object, .. } = decide(&pod(), &subject(true), &DeleteOptions::default()) else { panic!() };
        assert_eq!(object["metadata"]["generation"], 2);
    }

    #[test]
    fn a_second_deletion_can_only_shorten() {
        let mut going = pod();
        going["metadata"]["deletionTimestamp"] = json!("2025-01-01T00:00:20Z");
        going["metadata"]["deletionGracePeriodSeconds"] = json!(30);
        for seconds in [None, Some(30), Some(60)] {
            let options = DeleteOptions { grace_seconds: seconds, ..DeleteOptions::default() };
            assert_eq!(decide(&going, &subject(true), &options), Plan::Pending, "{seconds:?}");
        }
        for (seconds, until, removes) in [(20, "2025-01-01T00:00:10Z", false), (1, NOW, false), (0, NOW, true)] {
            let Plan::Mark { object, then_remove } = decide(&going, &subject(true), &with_grace(seconds)) else {
                panic!("{seconds} is shorter");
            };
            assert_eq!(object["metadata"]["deletionTimestamp"], until);
            assert_eq!((then_remove, &object["metadata"]["generation"]), (removes, &json!(1)));
        }
    }

    #[test]
    fn finalizers_keep_an_object() {
        let plain = json!({ "metadata": { "generation": 3 } });
        assert_eq!(decide(&plain, &subject(false), &DeleteOptions::default()), Plan::Remove);
        let kept = json!({ "metadata": { "generation": 3, "finalizers": ["a/b"] } });
        let Plan::Mark { object, then_remove: false } = decide(&kept, &subject(false), &DeleteOptions::default())
        else {
            panic!("a finalizer keeps it");
        };
        assert_eq!(
            object["metadata"],
            json!({
                "generation": 4, "finalizers": ["a/b"], "deletionTimestamp": NOW, "deletionGracePeriodSeconds": 0,
            })
        );
        let again = decide(&object, &subject(false), &DeleteOptions::default());
        assert_eq!(again, Plan::Mark { object, then_remove: false }, "once more changes nothing");
    }

    #[test]
    fn dependents_are_seen_to_as_the_deletion_says() {
        let told = |propagation| DeleteOptions { propagation: Some(propagation), ..DeleteOptions::default() };
        let old_form = |orphan| DeleteOptions { orphan_dependents: Some(orphan), ..DeleteOptions::default() };
        let orphaning = Subject { dependents: Dependents::Orphan, ..subject(false) };
        let ignoring = Subject { dependents: Dependents::Ignored, ..subject(false) };
        for (before, subject, options, after) in [
            (json!([]), subject(false), told(Propagation::Foreground), Some(json!(["foregroundDeletion"]))),
            (json!([]), subject(false), told(Propagation::Orphan), Some(json!(["orphan"]))),
            (json!([]), subject(false), told(Propagation::Background), None),
            (json!([]), subject(false), old_form(true), Some(json!(["orphan"]))),
            (json!([]), orphaning, DeleteOptions::default(), Some(json!(["orphan"]))),
            (json!([]), orphaning, told(Propagation::Background), None),
            (json!([]), ignoring, told(Propagation::Foreground), None),
            (json!(["x/y", "orphan"]), subject(false), DeleteOptions::default(), Some(json!(["x/y", "orphan"]))),
            (
                json!(["x/y", "orphan"]),
                subject(false),
                told(Propagation::Foreground),
                Some(json!(["x/y", "foregroundDeletion"])),
            ),
        ] {
            let decided = decide(&json!({ "metadata": { "finalizers": before } }), &subject, &options);
            match (decided, after) {
                (Plan::Mark { object, then_remove: false }, Some(after)) => {
                    assert_eq!(object["metadata"]["finalizers"], after);
                }
                (Plan::Remove, None) => {}
                (other, after) => panic!("{other:?} instead of {after:?}"),
            }
        }
        let waived = json!({ "metadata": { "finalizers": ["orphan"] } });
        let Plan::Mark { object, then_remove: true } = decide(&waived, &subject(false), &told(Propagation::Background))
        else {
            panic!("the finalizer goes, and the object with it");
        };
        assert_eq!(object, json!({ "metadata": {} }));
    }

    #[test]
    fn namespaces_end_in_two_phases() {
        let namespaces = Subject { is_namespace: true, ..subject(false) };
        let active =
            json!({ "metadata": {}, "spec": { "finalizers": ["kubernetes"] }, "status": { "phase": "Active" } });
        let Plan::Mark { object, then_remove: false } = decide(&active, &namespaces, &DeleteOptions::default()) else {
            panic!("marked first");
        };
        assert_eq!(
            object,
            json!({
                "metadata": { "deletionTimestamp": NOW },
                "spec": { "finalizers": ["kubernetes"] },
                "status": { "phase": "Terminating" },
            })
        );
        assert_eq!(decide(&object, &namespaces, &DeleteOptions::default()), Plan::Pending);
        let emptied = json!({ "metadata": { "deletionTimestamp": NOW }, "spec": {} });
        assert_eq!(decide(&emptied, &namespaces, &DeleteOptions::default()), Plan::Remove);
    }
}
