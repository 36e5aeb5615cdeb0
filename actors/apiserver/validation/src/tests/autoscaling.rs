//! HorizontalPodAutoscalers and scales.

use super::*;

const KIND: (&str, &str) = ("autoscaling", "HorizontalPodAutoscaler");
const SCALE: (&str, &str) = ("autoscaling", "Scale");

fn autoscaler() -> Value {
    json!({"metadata": {"name": "x", "namespace": "ns"},
        "spec": {"scaleTargetRef": {"kind": "Deployment", "name": "d"}, "minReplicas": 1, "maxReplicas": 3,
            "metrics": [{"type": "Resource", "resource": {"name": "cpu",
                "target": {"type": "Utilization", "averageUtilization": 80}}}],
            "behavior": {"scaleUp": {"stabilizationWindowSeconds": 0, "selectPolicy": "Max",
                "policies": [{"type": "Pods", "value": 4, "periodSeconds": 15}]}}}})
}

pub(super) fn examples() -> Vec<((&'static str, &'static str), Value)> {
    vec![(KIND, autoscaler()), (SCALE, json!({"metadata": {"name": "x", "namespace": "ns"}, "spec": {"replicas": 1}}))]
}

#[test]
fn bounds_and_target_of_an_autoscaler_make_sense() {
    check_creates(
        KIND,
        &autoscaler(),
        &[
            (
                "/spec/minReplicas",
                json!(0),
                &["spec.minReplicas: Invalid value: 0: must be greater than or equal to 1"],
            ),
            (
                "/spec/minReplicas",
                json!(4),
                &["spec.maxReplicas: Invalid value: 3: must be greater than or equal to `minReplicas`"],
            ),
            ("/spec/scaleTargetRef/name", json!(""), &["spec.scaleTargetRef.name: Required value"]),
        ],
    );
}

#[test]
fn metrics_have_one_source_and_one_goal() {
    let metric = "spec.metrics[0]";
    check_creates(
        KIND,
        &autoscaler(),
        &[
            (
                "/spec/metrics/0/resource/target/averageValue",
                json!("1"),
                &[&format!(
                    "{metric}.resource.target.averageValue: Forbidden: may not set both a target raw value and a \
                     target utilization"
                )],
            ),
            (
                "/spec/metrics/0/resource/target/averageUtilization",
                json!(0),
                &[&format!("{metric}.resource.target.averageUtilization: Invalid value: 0: must be greater than 0")],
            ),
            (
                "/spec/metrics/0/resource",
                json!(null),
                &[&format!("{metric}.resource: Required value: must populate information for the given metric source")],
            ),
            (
                "/spec/metrics/0/pods",
                json!({"metric": {"name": "m"}, "target": {"type": "AverageValue", "averageValue": "1"}}),
                &[&format!("{metric}.pods: Forbidden: must populate the given metric source only")],
            ),
        ],
    );
}

#[test]
fn behavior_is_bounded() {
    let rules = "spec.behavior.scaleUp";
    check_creates(
        KIND,
        &autoscaler(),
        &[
            (
                "/spec/behavior/scaleUp/stabilizationWindowSeconds",
                json!(3601),
                &[&format!(
                    "{rules}.stabilizationWindowSeconds: Invalid value: 3601: must be less than or equal to 3600"
                )],
            ),
            (
                "/spec/behavior/scaleUp/policies/0/periodSeconds",
                json!(1801),
                &[&format!(
                    "{rules}.policies[0].periodSeconds: Invalid value: 1801: must be less than or equal to 1800"
                )],
            ),
            (
                "/spec/behavior/scaleUp/policies",
                json!([]),
                &[&format!("{rules}.policies: Required value: must specify at least one Policy")],
            ),
        ],
    );
}

#[test]
fn a_scale_is_not_negative() {
    let scale = &examples()[1].1;
    let negative = ["spec.replicas: Invalid value: -1: must be greater than or equal to 0"];
    check_creates(SCALE, scale, &[("/spec/replicas", json!(-1), &negative)]);
    check_updates(SCALE, scale, &[("/spec/replicas", json!(-1), &negative)]);
}
