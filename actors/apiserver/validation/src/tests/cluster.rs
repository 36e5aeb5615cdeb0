//! Small kinds.

use super::*;

pub(super) fn examples() -> Vec<((&'static str, &'static str), Value)> {
    let (inside, outside) = (json!({"name": "x", "namespace": "ns"}), json!({"name": "x"}));
    vec![
        (("", "Namespace"), json!({"metadata": outside, "spec": {"finalizers": ["kubernetes"]}})),
        (("", "ServiceAccount"), json!({"metadata": inside})),
        (("coordination.k8s.io", "Lease"), json!({"metadata": inside, "spec": {"leaseDurationSeconds": 1}})),
        (("scheduling.k8s.io", "PriorityClass"), json!({"metadata": outside, "value": 1})),
        (("node.k8s.io", "RuntimeClass"), json!({"metadata": outside, "handler": "runc"})),
        (("policy", "PodDisruptionBudget"), json!({"metadata": inside, "spec": {"minAvailable": 1, "selector": {}}})),
    ]
}

fn check(kind: &str, rows: Rows<'_>) {
    let (kind, object) = examples().into_iter().find(|((_, name), _)| *name == kind).expect("an example");
    check_creates(kind, &object, rows);
}

#[test]
fn a_lease_lasts() {
    check(
        "Lease",
        &[
            (
                "/spec/leaseDurationSeconds",
                json!(0),
                &["spec.leaseDurationSeconds: Invalid value: 0: must be greater than 0"],
            ),
            (
                "/spec/leaseTransitions",
                json!(-1),
                &["spec.leaseTransitions: Invalid value: -1: must be greater than or equal to 0"],
            ),
        ],
    );
}

#[test]
fn the_highest_priorities_are_the_systems() {
    check(
        "PriorityClass",
        &[
            (
                "/value",
                json!(1_000_000_001),
                &["value: Forbidden: maximum allowed value of a user defined priority is 1000000000"],
            ),
            (
                "/metadata/name",
                json!("system-mine"),
                &[
                    "metadata.name: Forbidden: priority class names with 'system-' prefix are reserved for system use only",
                ],
            ),
        ],
    );
    let object = json!({"metadata": {"name": "x"}, "value": 1});
    check_updates(
        ("scheduling.k8s.io", "PriorityClass"),
        &object,
        &[("/value", json!(2), &["value: Forbidden: may not be changed in an update."])],
    );
}

#[test]
fn a_budget_counts_one_way() {
    check(
        "PodDisruptionBudget",
        &[
            (
                "/spec",
                json!({"minAvailable": "101%"}),
                &["spec.minAvailable: Invalid value: \"101%\": must not be greater than 100%"],
            ),
            (
                "/spec",
                json!({"minAvailable": 1, "maxUnavailable": 1}),
                &[
                    "spec: Invalid value: {\"maxUnavailable\":1,\"minAvailable\":1}: minAvailable and maxUnavailable cannot be \
             both set",
                ],
            ),
        ],
    );
}

#[test]
fn a_runtime_class_keeps_its_handler() {
    let object = json!({"metadata": {"name": "x"}, "handler": "runc"});
    check_updates(
        ("node.k8s.io", "RuntimeClass"),
        &object,
        &[("/handler", json!("crun"), &["handler: Invalid value: \"crun\": field is immutable"])],
    );
}

#[test]
fn a_namespace_terminates_when_it_is_being_deleted() {
    check(
        "Namespace",
        &[
            ("/metadata/namespace", json!("n"), &["metadata.namespace: Forbidden: not allowed on this type"]),
            (
                "/spec/finalizers/0",
                json!("mine"),
                &[
                    "spec.finalizers: Invalid value: \"mine\": name is neither a standard finalizer name nor is it fully \
             qualified",
                ],
            ),
        ],
    );
    let (context, object) = (Context::default(), json!({"metadata": {"name": "x"}, "status": {"phase": "Active"}}));
    let ending = with(&object, "/status/phase", json!("Terminating"));
    assert_eq!(texts(&subresource(("", "Namespace"), Subresource::Status, &object, &object, &context)), [""; 0]);
    assert_eq!(
        texts(&subresource(("", "Namespace"), Subresource::Status, &ending, &object, &context)),
        ["status.Phase: Invalid value: \"Terminating\": may only be 'Active' if `deletionTimestamp` is empty"]
    );
}
