//! Kinds that keep pods running.

use super::*;

/// An object with a selector and a template that fits, and these fields of its spec beside.
fn workload(fields: Value) -> Value {
    let mut template = pods::pod();
    template["metadata"] = json!({"labels": {"a": "b"}});
    let mut object = json!({
        "metadata": {"name": "x", "namespace": "ns"},
        "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": template},
    });
    for (name, value) in fields.as_object().expect("fields") {
        object["spec"][name] = value.clone();
    }
    object
}

pub(super) fn examples() -> Vec<((&'static str, &'static str), Value)> {
    let rolling = |fields: Value| json!({"type": "RollingUpdate", "rollingUpdate": fields});
    let deployment = json!({"replicas": 1, "progressDeadlineSeconds": 600,
        "strategy": rolling(json!({"maxUnavailable": "25%", "maxSurge": "25%"}))});
    let daemon_set = json!({"updateStrategy": rolling(json!({"maxUnavailable": 1, "maxSurge": 0}))});
    let stateful_set = json!({"replicas": 1, "serviceName": "s", "podManagementPolicy": "OrderedReady",
        "updateStrategy": rolling(json!({"partition": 0}))});
    let revision = json!({"metadata": {"name": "x", "namespace": "ns"}, "revision": 1, "data": {"a": 1}});
    vec![
        (("", "ReplicationController"), workload(json!({"replicas": 1, "selector": {"a": "b"}}))),
        (("apps", "Deployment"), workload(deployment)),
        (("apps", "ReplicaSet"), workload(json!({"replicas": 1}))),
        (("apps", "DaemonSet"), workload(daemon_set)),
        (("apps", "StatefulSet"), workload(stateful_set)),
        (("apps", "ControllerRevision"), revision),
    ]
}

fn example(kind: &str) -> Value {
    examples().into_iter().find(|((_, name), _)| *name == kind).expect("an example").1
}

#[test]
fn a_selector_fits_its_template_and_stays() {
    let kinds = examples().into_iter().filter(|((group, kind), _)| *group == "apps" && *kind != "ControllerRevision");
    for (kind, object) in kinds {
        // A Deployment speaks of the ReplicaSet that it will make.
        let said = if kind.1 == "Deployment" { "ReplicaSet" } else { kind.1 };
        check_creates(
            kind,
            &object,
            &[
                (
                    "/spec/template/metadata/labels",
                    json!({"a": "c"}),
                    &[
                        "spec.template.metadata.labels: Invalid value: {\"a\":\"c\"}: `selector` does not match template \
                       `labels`",
                    ],
                ),
                (
                    "/spec/template/spec/restartPolicy",
                    json!("Never"),
                    &["spec.template.spec.restartPolicy: Unsupported value: \"Never\": supported values: \"Always\""],
                ),
                (
                    "/spec/template/spec/activeDeadlineSeconds",
                    json!(1),
                    &[&format!(
                        "spec.template.spec.activeDeadlineSeconds: Forbidden: activeDeadlineSeconds in {said} is not Supported"
                    )],
                ),
                ("/spec/template/spec/containers", json!([]), &["spec.template.spec.containers: Required value"]),
            ],
        );
        if kind.1 == "StatefulSet" {
            continue;
        }
        let changed = with(&object, "/spec/template/metadata/labels", json!({"a": "b", "c": "d"}));
        let changed = with(&changed, "/spec/selector", json!({"matchLabels": {"c": "d"}}));
        assert_eq!(
            texts(&update(kind, &changed, &object, &Context::default())),
            ["spec.selector: Invalid value: {\"matchLabels\":{\"c\":\"d\"}}: field is immutable"],
            "{kind:?}"
        );
    }
}

#[test]
fn a_deployment_can_make_progress() {
    check_creates(
        ("apps", "Deployment"),
        &example("Deployment"),
        &[
            ("/spec/replicas", json!(-1), &["spec.replicas: Invalid value: -1: must be greater than or equal to 0"]),
            (
                "/spec/strategy/rollingUpdate",
                json!({"maxUnavailable": 0, "maxSurge": "0%"}),
                &["spec.strategy.rollingUpdate.maxUnavailable: Invalid value: 0: may not be 0 when `maxSurge` is 0"],
            ),
            (
                "/spec/strategy/rollingUpdate/maxUnavailable",
                json!("101%"),
                &["spec.strategy.rollingUpdate.maxUnavailable: Invalid value: \"101%\": must not be greater than 100%"],
            ),
            (
                "/spec/strategy/type",
                json!("Recreate"),
                &["spec.strategy.rollingUpdate: Forbidden: may not be specified when strategy `type` is 'Recreate'"],
            ),
            (
                "/spec/minReadySeconds",
                json!(600),
                &["spec.progressDeadlineSeconds: Invalid value: 600: must be greater than minReadySeconds"],
            ),
        ],
    );
}

#[test]
fn a_daemon_set_replaces_either_before_or_after() {
    let place = "/spec/updateStrategy/rollingUpdate";
    let path = "spec.updateStrategy.rollingUpdate";
    check_creates(
        ("apps", "DaemonSet"),
        &example("DaemonSet"),
        &[
            (
                place,
                json!({"maxUnavailable": 0, "maxSurge": 0}),
                &[&format!("{path}.maxUnavailable: Invalid value: 0: cannot be 0 when maxSurge is 0")],
            ),
            (
                place,
                json!({"maxUnavailable": 1, "maxSurge": 1}),
                &[&format!("{path}.maxSurge: Invalid value: 1: may not be set when maxUnavailable is non-zero")],
            ),
            (place, json!({"maxUnavailable": 0, "maxSurge": 1}), &[]),
        ],
    );
}

#[test]
fn claims_of_a_stateful_set_are_volumes_of_its_pods() {
    let claims = json!([{ "metadata": { "name": "data" }, "spec": { "accessModes": ["ReadWriteOnce"] } }]);
    let set = with(&example("StatefulSet"), "/spec/volumeClaimTemplates", claims);
    let place = "/spec/template/spec/containers/0/volumeMounts";
    check_creates(
        ("apps", "StatefulSet"),
        &set,
        &[
            (place, json!([{ "name": "data", "mountPath": "/data" }]), &[]),
            (
                place,
                json!([{ "name": "other", "mountPath": "/data" }]),
                &["spec.template.spec.containers[0].volumeMounts[0].name: Not found: \"other\""],
            ),
        ],
    );
}

#[test]
fn a_stateful_set_changes_in_seven_fields_only() {
    check_updates(
        ("apps", "StatefulSet"),
        &example("StatefulSet"),
        &[
            ("/spec/replicas", json!(3), &[]),
            ("/spec/ordinals", json!({"start": 1}), &[]),
            (
                "/spec/serviceName",
                json!("other"),
                &["spec: Forbidden: updates to statefulset spec for fields other than 'replicas', 'ordinals', \
                   'template', 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and \
                   'minReadySeconds' are forbidden"],
            ),
        ],
    );
}

#[test]
fn the_data_of_a_revision_never_changes() {
    check_updates(
        ("apps", "ControllerRevision"),
        &example("ControllerRevision"),
        &[
            ("/data", json!({"a": 2}), &["data: Invalid value: {\"a\":2}: field is immutable"]),
            ("/revision", json!(-1), &["revision: Invalid value: -1: must be greater than or equal to 0"]),
        ],
    );
}

#[test]
fn a_replication_controller_needs_selector_and_template() {
    let missing = ["spec.selector: Required value"];
    check_creates(
        ("", "ReplicationController"),
        &example("ReplicationController"),
        &[
            ("/spec/selector", json!({}), &missing),
            ("/spec/template", json!(null), &["spec.template: Required value"]),
            (
                "/spec/selector",
                json!({"a": "c"}),
                &["spec.template.metadata.labels: Invalid value: {\"a\":\"b\"}: `selector` does not match template \
                   `labels`"],
            ),
        ],
    );
}
