//! Order, revisions and claims.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use serde_json::{Value, json};

use super::core::{Action, Shared, Wanted, Why, plan, status};
use super::identity::{claimants, claims, is_identical, is_member, is_stale, new_pod, ordinal, owners};
use crate::support::name;

fn now() -> Timestamp {
    "2026-01-01T12:00:00Z".parse().expect("a time")
}

fn of<K: serde::de::DeserializeOwned>(json: Value) -> K {
    serde_json::from_value(json).expect("such an object")
}

fn set(replicas: i32, more: Value) -> StatefulSet {
    let mut spec = json!({"replicas": replicas, "serviceName": "db", "selector": {"matchLabels": {"app": "db"}},
        "template": {"metadata": {"labels": {"app": "db"}}, "spec": {"containers": []}}});
    spec.as_object_mut().expect("fields").extend(more.as_object().expect("fields").clone());
    of(json!({"metadata": {"name": "db", "namespace": "n", "uid": "s", "generation": 1}, "spec": spec}))
}

/// A pod of a revision: `ready`, `lately` ready, `running`, `pending`, `failed`, `done` or `going`.
fn pod(ordinal: i32, revision: &str, how: &str) -> Shared {
    let (phase, since) = match how {
        "ready" | "going" => ("Running", Some("2026-01-01T11:00:00Z")),
        "lately" => ("Running", Some("2026-01-01T11:59:58Z")),
        "pending" => ("Pending", None),
        "failed" => ("Failed", None),
        "done" => ("Succeeded", None),
        _ => ("Running", None),
    };
    let conditions = since.map(|since| json!([{"type": "Ready", "status": "True", "lastTransitionTime": since}]));
    let mut pod = new_pod(&set(1, json!({})), &Default::default(), revision, ordinal);
    pod.metadata.uid = Some(format!("uid-{ordinal}"));
    pod.status = of(json!({"phase": phase, "conditions": conditions}));
    if how == "going" {
        pod.metadata.deletion_timestamp = of(json!("2026-01-01T11:59:59Z"));
    }
    Arc::new(pod)
}

/// The plan in short.
fn short(wanted: &StatefulSet, pods: &[Shared], revisions: (&str, &str)) -> String {
    let said = plan(&Wanted::of(wanted), pods, revisions, now()).into_iter().map(|action| match action {
        Action::Create { ordinal, current } => format!("+{ordinal}{}", if current { "old" } else { "" }),
        Action::Delete(pod, why) => format!(
            "-{}{}",
            ordinal(&pod).expect("set"),
            match why {
                Why::Failed => "failed",
                Why::Succeeded => "done",
                Why::Surplus => "",
                Why::Outdated => "outdated",
            }
        ),
        Action::Claim(pod) => format!("?{}", ordinal(&pod).expect("set")),
        Action::Identify(pod) => format!("={}", ordinal(&pod).expect("set")),
    });
    said.collect::<Vec<_>>().join(" ")
}

fn pods(hows: &[&str]) -> Vec<Shared> {
    hows.iter().enumerate().map(|(at, how)| pod(i32::try_from(at).expect("few"), "r1", how)).collect()
}

#[test]
fn one_after_the_other_or_all_at_once() {
    let parallel = json!({"podManagementPolicy": "Parallel"});
    for (replicas, hows, in_order, at_once) in [
        (3, vec![], "+0", "+0 +1 +2"),
        (3, vec!["ready"], "+1", "+1 +2"),
        (3, vec!["running"], "", "+1 +2"),
        (3, vec!["pending"], "?0", "?0 +1 +2"),
        (3, vec!["going"], "", "+1 +2"),
        (2, vec!["failed", "ready"], "-0failed", "-0failed"),
        (2, vec!["ready", "done"], "-1done", "-1done"),
        (1, vec!["ready", "ready", "ready"], "-2", "-2 -1"),
        (1, vec!["ready", "ready", "going"], "", "-1"),
        (1, vec!["ready", "running", "ready"], "-2", "-2 -1"),
        (1, vec!["ready", "ready", "running"], "-2", "-2 -1"),
        (1, vec!["ready", "running", "running"], "", "-2 -1"),
        (1, vec!["running", "ready"], "", "-1"),
        (0, vec!["ready"], "-0", "-0"),
        (2, vec!["ready", "ready"], "", ""),
    ] {
        let pods = pods(&hows);
        assert_eq!(short(&set(replicas, json!({})), &pods, ("r1", "r1")), in_order, "{replicas} of {hows:?}");
        assert_eq!(short(&set(replicas, parallel.clone()), &pods, ("r1", "r1")), at_once, "{replicas} of {hows:?}");
    }
}

#[test]
fn ordinals_begin_where_they_are_told_to() {
    let wanted = set(2, json!({"ordinals": {"start": 5}}));
    assert_eq!(short(&wanted, &[], ("r1", "r1")), "+5");
    let pods = [pod(5, "r1", "ready"), pod(6, "r1", "ready"), pod(0, "r1", "ready"), pod(9, "r1", "ready")];
    assert_eq!(short(&wanted, &pods, ("r1", "r1")), "-9");
}

#[test]
fn a_pod_has_to_be_ready_for_long_enough() {
    let wanted = set(2, json!({"minReadySeconds": 10}));
    assert_eq!(short(&wanted, &pods(&["lately"]), ("r1", "r1")), "");
    let (status, next) = status(&wanted, &pods(&["lately", "ready"]), ("r1", "r1", 0), now());
    assert_eq!((status.ready_replicas, status.available_replicas), (Some(2), Some(1)));
    assert_eq!(next, "2026-01-01T12:00:08Z".parse().ok());
}

#[test]
fn outdated_pods_are_replaced_from_the_last_to_the_partition() {
    let rolling = |rolling: Value| json!({"updateStrategy": {"type": "RollingUpdate", "rollingUpdate": rolling}});
    let old = pods(&["ready", "ready", "ready"]);
    let between = ("r1", "r2");
    assert_eq!(short(&set(3, json!({})), &old, between), "-2outdated");
    assert_eq!(short(&set(3, rolling(json!({"partition": 2}))), &old, between), "-2outdated");
    assert_eq!(short(&set(3, rolling(json!({"partition": 3}))), &old, between), "");
    assert_eq!(short(&set(3, json!({"updateStrategy": {"type": "OnDelete"}})), &old, between), "");
    assert_eq!(short(&set(3, rolling(json!({"maxUnavailable": 2}))), &old, between), "-2outdated -1outdated");
    let half = [old[0].clone(), old[1].clone(), pod(2, "r2", "ready")];
    assert_eq!(short(&set(3, json!({})), &half, between), "-1outdated");
    let waiting = [old[0].clone(), old[1].clone(), pod(2, "r2", "running")];
    assert_eq!(short(&set(3, json!({"podManagementPolicy": "Parallel"})), &waiting, between), "");
    let two = json!({"podManagementPolicy": "Parallel",
        "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 2}}});
    assert_eq!(short(&set(3, two), &waiting, between), "-1outdated");
    // Pods before the partition are made of what was, the others of what is wanted.
    assert_eq!(short(&set(3, rolling(json!({"partition": 1}))), &[], between), "+0old");
    assert_eq!(short(&set(3, rolling(json!({"partition": 1}))), &old[..1], between), "+1");
}

#[test]
fn a_finished_rollout_makes_the_new_revision_the_current_one() {
    let wanted = set(2, json!({}));
    let half = [pod(0, "r1", "ready"), pod(1, "r2", "ready")];
    let (said, _) = status(&wanted, &half, ("r1", "r2", 0), now());
    assert_eq!((said.current_revision.as_deref(), said.update_revision.as_deref()), (Some("r1"), Some("r2")));
    assert_eq!((said.current_replicas, said.updated_replicas, said.replicas), (Some(1), Some(1), 2));
    let full = [pod(0, "r2", "ready"), pod(1, "r2", "ready")];
    let (said, _) = status(&wanted, &full, ("r1", "r2", 0), now());
    assert_eq!((said.current_revision.as_deref(), said.current_replicas), (Some("r2"), Some(2)));
}

#[test]
fn a_pod_is_who_its_name_says() {
    let wanted = set(1, json!({"volumeClaimTemplates": [{"metadata": {"name": "data"}}]}));
    let template = json!({"metadata": {"labels": {"app": "db"}}, "spec": {"containers": [],
        "volumes": [{"name": "data", "emptyDir": {}}, {"name": "tmp", "emptyDir": {}}]}});
    let pod = new_pod(&wanted, &of(template), "db-abc", 3);
    let found = serde_json::to_value(&pod).expect("JSON");
    assert_eq!(found["metadata"]["name"], "db-3");
    assert_eq!(
        found["metadata"]["labels"],
        json!({"app": "db", "statefulset.kubernetes.io/pod-name": "db-3", "apps.kubernetes.io/pod-index": "3",
            "controller-revision-hash": "db-abc"})
    );
    assert_eq!((&found["spec"]["hostname"], &found["spec"]["subdomain"]), (&json!("db-3"), &json!("db")));
    assert_eq!(
        found["spec"]["volumes"],
        json!([{"name": "data", "persistentVolumeClaim": {"claimName": "data-db-3"}},
        {"name": "tmp", "emptyDir": {}}])
    );
    assert!(is_identical(&pod) && is_member(&wanted, &pod));
    let claim = &claims(&wanted, &pod)[0];
    assert_eq!((name(claim), claim.metadata.labels.clone().expect("set")["app"].as_str()), ("data-db-3", "db"));
    let named = |name: &str| -> Pod { of(json!({"metadata": {"name": name}})) };
    for (text, is_ours) in
        [("db-0", true), ("db-00x", false), ("db-", false), ("db", false), ("other-0", false), ("db-a-0", false)]
    {
        assert_eq!(is_member(&wanted, &named(text)), is_ours, "{text}");
    }
    assert!(!is_identical(&named("db-0")));
}

#[test]
fn claims_are_owned_as_the_policy_says() {
    let policy = |deleted: &str, scaled: &str| {
        set(
            1,
            json!({"persistentVolumeClaimRetentionPolicy": {"whenDeleted": deleted, "whenScaled": scaled},
            "volumeClaimTemplates": [{"metadata": {"name": "data"}}]}),
        )
    };
    let (stays, goes) = (pod(0, "r", "ready"), pod(1, "r", "ready"));
    let foreign = json!([{"apiVersion": "v1", "kind": "ConfigMap", "name": "c", "uid": "c"}]);
    let claim: PersistentVolumeClaim = of(json!({"metadata": {"name": "data-db-0", "ownerReferences": foreign}}));
    let kinds = |wanted: &StatefulSet, pod: &Pod| -> Vec<String> {
        owners(wanted, pod, &claim).into_iter().flatten().map(|owner| owner.kind).collect()
    };
    for (deleted, scaled, staying, going) in [
        ("Retain", "Retain", vec![], vec![]),
        ("Delete", "Retain", vec!["StatefulSet"], vec!["StatefulSet"]),
        ("Retain", "Delete", vec![], vec!["Pod"]),
        ("Delete", "Delete", vec!["StatefulSet"], vec!["Pod"]),
    ] {
        let wanted = policy(deleted, scaled);
        assert_eq!(kinds(&wanted, &stays)[1..], staying, "{deleted} {scaled}");
        assert_eq!(kinds(&wanted, &goes)[1..], going, "{deleted} {scaled}");
    }
    let mut owned = claim.clone();
    owned.metadata.owner_references = owners(&policy("Retain", "Delete"), &goes, &claim);
    assert!(is_stale("db-1", "another", &owned) && !is_stale("db-1", "uid-1", &owned) && !is_stale("db-0", "", &owned));
    assert_eq!(owners(&policy("Retain", "Retain"), &goes, &owned), claim.metadata.owner_references);
}

#[test]
fn a_claim_is_read_in_all_ways_its_name_allows() {
    for (claim, readings) in [
        ("data-db-0", vec![("data", "db")]),
        ("data-of-db-12", vec![("data", "of-db"), ("data-of", "db")]),
        ("data-db", vec![]),
        ("data-0", vec![]),
        ("db-x1", vec![]),
        ("", vec![]),
    ] {
        assert_eq!(claimants(claim).collect::<Vec<_>>(), readings, "{claim}");
    }
}
