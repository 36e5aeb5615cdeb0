//! What controllers report.

use super::*;

fn check(kind: (&str, &str), spec: &Value, rows: &[(Value, Value, &[&str])]) {
    for (old, new, expected) in rows {
        let object =
            |status: &Value| json!({ "metadata": { "name": "x", "namespace": "ns" }, "spec": spec, "status": status });
        let errors = subresource(kind, Subresource::Status, &object(new), &object(old), &Context::default());
        assert_eq!(texts(&errors), *expected, "{kind:?} with {new}");
    }
}

#[test]
fn counts_fit_together() {
    let none = json!({});
    check(
        ("apps", "Deployment"),
        &none,
        &[
            (
                none.clone(),
                json!({ "replicas": 3, "updatedReplicas": 3, "readyReplicas": 2, "availableReplicas": 1 }),
                &[],
            ),
            (
                none.clone(),
                json!({ "replicas": 1, "readyReplicas": 2, "availableReplicas": 3 }),
                &[
                    "status.readyReplicas: Invalid value: 2: cannot be greater than status.replicas",
                    "status.availableReplicas: Invalid value: 3: cannot be greater than status.replicas",
                    "status.availableReplicas: Invalid value: 3: cannot be greater than readyReplicas",
                ],
            ),
            (
                json!({ "collisionCount": 2 }),
                json!({ "collisionCount": 1 }),
                &["status.collisionCount: Invalid value: 1: cannot be decremented"],
            ),
            (
                none.clone(),
                json!({ "unavailableReplicas": -1 }),
                &["status.unavailableReplicas: Invalid value: -1: must be greater than or equal to 0"],
            ),
        ],
    );
    for kind in [("apps", "ReplicaSet"), ("", "ReplicationController")] {
        check(
            kind,
            &none,
            &[(
                none.clone(),
                json!({ "replicas": 1, "fullyLabeledReplicas": 2 }),
                &["status.fullyLabeledReplicas: Invalid value: 2: cannot be greater than status.replicas"],
            )],
        );
    }
    check(
        ("apps", "StatefulSet"),
        &none,
        &[(
            none.clone(),
            json!({ "replicas": 2, "availableReplicas": 1 }),
            &["status.availableReplicas: Invalid value: 1: cannot be greater than status.readyReplicas"],
        )],
    );
    check(
        ("apps", "DaemonSet"),
        &none,
        &[(
            none.clone(),
            json!({ "numberReady": -2 }),
            &["status.numberReady: Invalid value: -2: must be greater than or equal to 0"],
        )],
    );
}

#[test]
fn conditions_can_be_read() {
    let condition = json!({ "type": "Ready", "status": "True", "reason": "Good", "message": "",
        "lastTransitionTime": "2024-01-02T03:04:05Z" });
    let with = |field: &str, value: Value| {
        let mut condition = condition.clone();
        condition[field] = value;
        json!({ "conditions": [condition] })
    };
    let none = json!({});
    check(
        ("policy", "PodDisruptionBudget"),
        &none,
        &[
            (none.clone(), json!({ "conditions": [condition] }), &[]),
            (
                none.clone(),
                json!({ "conditions": [condition, condition] }),
                &["status.conditions[1].type: Duplicate value: \"Ready\""],
            ),
            (
                none.clone(),
                with("status", json!("Maybe")),
                &[
                    "status.conditions[0].status: Unsupported value: \"Maybe\": supported values: \"False\", \"True\", \"Unknown\"",
                ],
            ),
            (none.clone(), with("reason", json!("")), &["status.conditions[0].reason: Required value: must be set"]),
            (
                none.clone(),
                with("lastTransitionTime", Value::Null),
                &["status.conditions[0].lastTransitionTime: Required value: must be set"],
            ),
            (
                none.clone(),
                json!({ "disruptionsAllowed": -1 }),
                &["status.disruptionsAllowed: Invalid value: -1: must be greater than or equal to 0"],
            ),
        ],
    );
    let odd = with("reason", json!("9"));
    let object = |status: &Value| json!({ "metadata": { "name": "x", "namespace": "ns" }, "status": status });
    let errors = subresource(
        ("policy", "PodDisruptionBudget"),
        Subresource::Status,
        &object(&odd),
        &object(&none),
        &Context::default(),
    );
    assert!(
        texts(&errors)[0].starts_with("status.conditions[0].reason: Invalid value: \"9\": a condition reason must")
    );
}

#[test]
fn balancers_are_reached_somewhere() {
    let at = |ingress: Value| json!({ "loadBalancer": { "ingress": [ingress] } });
    let none = json!({});
    check(
        ("", "Service"),
        &json!({ "type": "LoadBalancer" }),
        &[
            (none.clone(), at(json!({ "ip": "10.0.0.1", "ipMode": "VIP" })), &[]),
            (none.clone(), at(json!({ "hostname": "lb.example.com" })), &[]),
            (
                none.clone(),
                at(json!({ "ip": "10.0.0.1" })),
                &["status.loadBalancer.ingress[0].ipMode: Required value: must be specified when `ip` is set"],
            ),
            (
                none.clone(),
                at(json!({ "ip": "10.0.0", "ipMode": "VIP" })),
                &["status.loadBalancer.ingress[0].ip: Invalid value: \"10.0.0\": must be a valid IP address, (e.g. \
                   10.9.8.7 or 2001:db8::ffff)"],
            ),
            (
                none.clone(),
                at(json!({ "hostname": "10.0.0.1" })),
                &[
                    "status.loadBalancer.ingress[0].hostname: Invalid value: \"10.0.0.1\": must be a DNS name, not an IP address",
                ],
            ),
        ],
    );
    check(
        ("", "Service"),
        &json!({ "type": "ClusterIP" }),
        &[(
            none.clone(),
            at(json!({ "ip": "10.0.0.1", "ipMode": "VIP" })),
            &["status.loadBalancer.ingress: Forbidden: may only be used when `spec.type` is \"LoadBalancer\""],
        )],
    );
    check(("networking.k8s.io", "Ingress"), &none, &[(none.clone(), at(json!({ "ip": "10.0.0.1" })), &[])]);
}
