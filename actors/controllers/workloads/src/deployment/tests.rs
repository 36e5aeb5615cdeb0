//! Sizes, revisions and conditions.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::{Deployment, DeploymentStatus, ReplicaSet};
use serde_json::{Value, json};

use super::rollout::{self, Set, active_or_latest, is_saturated, new_size, old_sizes, proportional};
use super::sets::{
    DESIRED_REPLICAS, MAX_REPLICAS, REVISION, forgotten, is_same_template, is_scaling, next_revision, note, split,
};
use super::status::{self, condition};

fn now() -> Timestamp {
    "2026-01-01T12:00:00Z".parse().expect("a time")
}

fn of<K: serde::de::DeserializeOwned>(json: Value) -> K {
    serde_json::from_value(json).expect("such an object")
}

/// A Deployment that wants so many pods, with a surge and so many unavailable.
fn deployment(replicas: i32, surge: Value, unavailable: Value) -> Deployment {
    let rolling = json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}});
    of(json!({"metadata": {"name": "web", "generation": 2, "uid": "u"}, "spec": {"replicas": replicas,
        "progressDeadlineSeconds": 600, "strategy": rolling, "selector": {"matchLabels": {"app": "web"}},
        "template": {"metadata": {"labels": {"app": "web"}}}}}))
}

/// A set of such a size and so many available pods, made in this minute.
fn set(name: &str, size: i32, available: i32, minute: u8) -> ReplicaSet {
    of(json!({"metadata": {"name": name, "uid": name, "creationTimestamp": format!("2026-01-01T11:{minute:02}:00Z")},
        "spec": {"replicas": size, "selector": {}, "template": {"metadata": {"labels":
            {"app": "web", "version": name, "pod-template-hash": "x"}}}},
        "status": {"replicas": size, "readyReplicas": available, "availableReplicas": available}}))
}

fn sizes(sizes: &[(&str, i32)]) -> Vec<(String, i32)> {
    sizes.iter().map(|(name, size)| ((*name).to_owned(), *size)).collect()
}

#[test]
fn surge_is_rounded_up_and_unavailable_down() {
    for (replicas, surge, unavailable, expected) in [
        (10, json!("25%"), json!("25%"), (3, 2)),
        (4, json!("25%"), json!("25%"), (1, 1)),
        (1, json!("25%"), json!("25%"), (1, 0)),
        (3, json!(0), json!("10%"), (0, 1)),
        (3, json!(0), json!(5), (0, 3)),
        (0, json!("25%"), json!("25%"), (0, 0)),
        (10, json!(2), json!(0), (2, 0)),
    ] {
        let deployment = deployment(replicas, surge, unavailable);
        let found = (rollout::max_surge(&deployment), rollout::max_unavailable(&deployment));
        if replicas == 0 {
            assert_eq!(found.1, 0);
        } else {
            assert_eq!(found, expected, "{replicas}");
        }
    }
    let mut at_once = deployment(10, json!(1), json!(1));
    at_once.spec.as_mut().expect("set").strategy = of(json!({"type": "Recreate"}));
    assert_eq!((rollout::max_surge(&at_once), rollout::max_unavailable(&at_once)), (0, 0));
}

#[test]
fn the_new_set_grows_into_what_room_there_is() {
    for (replicas, surge, total, size, expected) in [
        (10, 3, 10, 0, 3),
        (10, 3, 13, 3, 3),
        (10, 3, 11, 3, 5),
        (10, 0, 0, 0, 10),
        (10, 3, 0, 12, 10),
        (10, 3, 0, 8, 10),
    ] {
        let deployment = deployment(replicas, json!(surge), json!(1));
        assert_eq!(new_size(&deployment, total, size), expected);
    }
}

#[test]
fn old_pods_go_as_new_ones_become_available() {
    let wanted = deployment(10, json!(3), json!(2));
    for (new, old, expected) in [
        // Nothing is available yet beyond what may be missing.
        (set("new", 3, 0, 9), vec![set("old", 10, 10, 1)], vec![("old", 8)]),
        (set("new", 5, 0, 9), vec![set("old", 8, 8, 1)], vec![]),
        (set("new", 5, 3, 9), vec![set("old", 8, 8, 1)], vec![("old", 5)]),
        // What isn't healthy goes first, even of the younger set, and costs nothing.
        (set("new", 3, 0, 9), vec![set("b", 8, 8, 2), set("c", 2, 0, 3)], vec![("c", 0)]),
        (set("new", 10, 10, 9), vec![set("a", 1, 1, 1), set("b", 2, 0, 2)], vec![("a", 0), ("b", 0)]),
        (set("new", 10, 10, 9), vec![set("a", 0, 0, 1)], vec![]),
    ] {
        let old: Vec<Set> = old.into_iter().map(Arc::new).collect();
        let found = old_sizes(&wanted, &new, &old);
        assert_eq!(found, sizes(&expected), "{:?}", old.iter().map(|set| rollout::size(set)).collect::<Vec<_>>());
    }
}

#[test]
fn a_change_in_the_middle_hits_each_set_by_its_share() {
    let with = |name: &str, size, minute| {
        let mut set = set(name, size, size, minute);
        let notes = [(DESIRED_REPLICAS.to_owned(), "10".to_owned()), (MAX_REPLICAS.to_owned(), "13".to_owned())];
        set.metadata.annotations = Some(notes.into());
        Arc::new(set)
    };
    let old = [with("old", 8, 1)];
    let new = with("new", 5, 2);
    // The documentation's example: 10 to 15, of which the larger set gets 3 and the smaller 2.
    let wanted = deployment(15, json!(3), json!(2));
    assert!(is_scaling(&wanted, old.iter().chain([&new])));
    assert_eq!(proportional(&wanted, Some(&new), &old), sizes(&[("old", 11), ("new", 7)]));
    let fewer = deployment(5, json!(3), json!(2));
    assert_eq!(proportional(&fewer, Some(&new), &old), sizes(&[("old", 5), ("new", 3)]));
    let none = deployment(0, json!(3), json!(2));
    assert_eq!(proportional(&none, Some(&new), &old), sizes(&[("old", 0), ("new", 0)]));
    let same = deployment(10, json!(3), json!(2));
    assert!(!is_scaling(&same, old.iter().chain([&new])));
    assert_eq!(proportional(&same, Some(&new), &old), sizes(&[("old", 8), ("new", 5)]));
}

#[test]
fn one_set_alone_is_scaled_at_once() {
    let name = |set: Option<&Set>| set.map(|set| set.metadata.name.clone().expect("set"));
    let (a, b) = (Arc::new(set("a", 0, 0, 1)), Arc::new(set("b", 0, 0, 2)));
    let full = Arc::new(set("c", 3, 3, 3));
    assert_eq!(name(active_or_latest(None, &[a.clone(), b.clone()])).as_deref(), Some("b"));
    assert_eq!(name(active_or_latest(Some(&a), std::slice::from_ref(&b))).as_deref(), Some("a"));
    assert_eq!(name(active_or_latest(Some(&a), std::slice::from_ref(&full))).as_deref(), Some("c"));
    assert_eq!(name(active_or_latest(Some(&Arc::new(set("d", 1, 1, 4))), std::slice::from_ref(&full))), None);
    assert!(!is_saturated(&deployment(3, json!(1), json!(1)), Some(&full)), "it isn't noted for which number");
}

#[test]
fn sets_are_found_by_their_templates() {
    let mut wanted = deployment(1, json!(1), json!(1));
    let all = vec![Arc::new(set("b", 1, 1, 2)), Arc::new(set("a", 1, 1, 1))];
    assert!(split(&wanted, all.clone()).0.is_none());
    let labels = json!({"metadata": {"labels": {"app": "web", "version": "a"}}});
    wanted.spec.as_mut().expect("set").template = of(labels);
    let (new, old) = split(&wanted, all);
    assert_eq!((new.expect("there").metadata.name.as_deref(), old.len()), (Some("a"), 1));
    let with = |env: Value| of(json!({"spec": {"containers": [{"name": "a", "env": env}]}}));
    assert!(is_same_template(&with(json!([])), &with(Value::Null)));
    assert!(!is_same_template(&with(json!([{"name": "A"}])), &with(Value::Null)));
}

#[test]
fn revisions_grow_and_remember() {
    let mut wanted = deployment(3, json!(1), json!(1));
    wanted.metadata.annotations = Some([("team", "a"), (REVISION, "7")].map(|(k, v)| (k.into(), v.into())).into());
    let mut set = set("a", 1, 1, 1);
    let get = |set: &ReplicaSet, name: &str| set.metadata.annotations.as_ref().expect("set").get(name).cloned();
    assert!(note(&wanted, &mut set, 1, false));
    assert_eq!(get(&set, REVISION).as_deref(), Some("1"));
    assert_eq!(get(&set, "team").as_deref(), Some("a"));
    assert_eq!((get(&set, DESIRED_REPLICAS), get(&set, MAX_REPLICAS)), (Some("3".into()), Some("4".into())));
    assert!(!note(&wanted, &mut set, 1, true));
    assert!(note(&wanted, &mut set, 3, true) && note(&wanted, &mut set, 5, true));
    assert_eq!(get(&set, "deployment.kubernetes.io/revision-history").as_deref(), Some("1,3"));
    assert_eq!(next_revision(&[Arc::new(set)]), 6);
    assert_eq!(next_revision(&[]), 1);
}

#[test]
fn history_beyond_the_limit_is_forgotten() {
    let mut wanted = deployment(1, json!(1), json!(1));
    let with = |name: &str, size, revision: &str| {
        let mut set = set(name, size, size, 1);
        set.metadata.annotations = Some([(REVISION.to_owned(), revision.to_owned())].into());
        Arc::new(set)
    };
    let old = [with("a", 0, "10"), with("b", 0, "2"), with("c", 1, "1"), with("d", 0, "3")];
    let names = |wanted: &Deployment| -> Vec<String> {
        forgotten(wanted, &old).iter().filter_map(|set| set.metadata.name.clone()).collect()
    };
    assert!(names(&wanted).is_empty());
    wanted.spec.as_mut().expect("set").revision_history_limit = Some(1);
    assert_eq!(names(&wanted), ["b", "d"], "c has pods");
    wanted.spec.as_mut().expect("set").revision_history_limit = Some(0);
    assert_eq!(names(&wanted), ["b", "d", "a"]);
}

fn said(status: &DeploymentStatus, kind: &str) -> (String, String, String) {
    let found = condition(status, kind).expect("it is said");
    (found.status.clone(), found.reason.clone().expect("set"), found.message.clone().expect("set"))
}

fn text(status: &str, reason: &str, message: &str) -> (String, String, String) {
    (status.to_owned(), reason.to_owned(), message.to_owned())
}

#[test]
fn a_rollout_is_told_from_beginning_to_end() {
    let mut wanted = deployment(3, json!(1), json!(1));
    let rollout = |wanted: &mut Deployment, available, at: Timestamp| {
        let new = Arc::new(set("web-1", 3, available, 1));
        let status = status::rollout(wanted, Some(&new), &[], at);
        wanted.status = Some(status.clone());
        status
    };
    let first = rollout(&mut wanted, 0, now());
    assert_eq!(said(&first, "Progressing"), text("True", "ReplicaSetUpdated", "ReplicaSet \"web-1\" is progressing."));
    let missing = "Deployment does not have minimum availability.";
    assert_eq!(said(&first, "Available"), text("False", "MinimumReplicasUnavailable", missing));
    assert_eq!((first.replicas, first.updated_replicas, first.unavailable_replicas), (Some(3), Some(3), Some(3)));
    assert_eq!(first.available_replicas, None);
    let due = status::check_at(&wanted, &first).expect("the deadline runs");
    assert_eq!(due, now() + SignedDuration::from_secs(601));

    let later = now() + SignedDuration::from_secs(500);
    assert_eq!(rollout(&mut wanted, 0, later), first, "nothing happened, and it isn't over yet");
    let second = rollout(&mut wanted, 2, later);
    assert_eq!(said(&second, "Available").1, "MinimumReplicasAvailable");
    let progressing = condition(&second, "Progressing").expect("it is said");
    assert_eq!(progressing.last_update_time.as_ref().map(|time| time.0), Some(later), "the deadline begins again");
    assert_eq!(progressing.last_transition_time.as_ref().map(|time| time.0), Some(now()));

    let over = later + SignedDuration::from_secs(601);
    let third = rollout(&mut wanted, 2, over);
    let late = "ReplicaSet \"web-1\" has timed out progressing.";
    assert_eq!(said(&third, "Progressing"), text("False", "ProgressDeadlineExceeded", late));
    assert_eq!(status::check_at(&wanted, &third), None);

    let done = rollout(&mut wanted, 3, over);
    let progressed = "ReplicaSet \"web-1\" has successfully progressed.";
    assert_eq!(said(&done, "Progressing"), text("True", "NewReplicaSetAvailable", progressed));
    assert!(status::is_complete(&wanted, &done));
    assert_eq!(rollout(&mut wanted, 3, over + SignedDuration::from_secs(1)), done);
    // Pods that fail later are no rollout.
    let broken = rollout(&mut wanted, 1, over + SignedDuration::from_secs(9999));
    assert_eq!(said(&broken, "Progressing").1, "NewReplicaSetAvailable");
}

#[test]
fn a_pause_is_noted_and_a_missed_deadline_kept() {
    let mut wanted = deployment(1, json!(1), json!(1));
    let mut status = DeploymentStatus::default();
    status::note_pause(&wanted, &mut status, now());
    assert_eq!(status.conditions, None);
    wanted.spec.as_mut().expect("set").paused = Some(true);
    status::note_pause(&wanted, &mut status, now());
    assert_eq!(said(&status, "Progressing"), text("Unknown", "DeploymentPaused", "Deployment is paused"));
    wanted.spec.as_mut().expect("set").paused = None;
    status::note_pause(&wanted, &mut status, now());
    assert_eq!(said(&status, "Progressing"), text("Unknown", "DeploymentResumed", "Deployment is resumed"));
    let late = status::new_condition("Progressing", "False", "ProgressDeadlineExceeded", "", now());
    status::set(&mut status, late);
    wanted.spec.as_mut().expect("set").paused = Some(true);
    status::note_pause(&wanted, &mut status, now());
    assert_eq!(said(&status, "Progressing").1, "ProgressDeadlineExceeded");
}

#[test]
fn what_keeps_a_set_from_its_pods_is_passed_on() {
    let wanted = deployment(1, json!(1), json!(1));
    let mut bad = set("a", 1, 0, 1);
    let failure = json!([{"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": "quota"}]);
    bad.status.as_mut().expect("set").conditions = of(failure);
    let status = status::rollout(&wanted, None, &[Arc::new(bad)], now());
    assert_eq!(said(&status, "ReplicaFailure"), text("True", "FailedCreate", "quota"));
    let healed = Deployment { status: Some(status), ..wanted };
    let status = status::rollout(&healed, None, &[Arc::new(set("a", 1, 0, 1))], now());
    assert_eq!(condition(&status, "ReplicaFailure"), None);
}
