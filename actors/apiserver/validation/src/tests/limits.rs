//! What a namespace may use, and what happened in it.

use super::*;

pub(super) fn examples() -> Vec<((&'static str, &'static str), Value)> {
    let metadata = json!({"name": "x", "namespace": "ns"});
    let limits = json!([{"type": "Container", "max": {"cpu": "2"}, "min": {"cpu": "1"}, "default": {"cpu": "2"},
        "defaultRequest": {"cpu": "1"}}]);
    let event = json!({"metadata": metadata, "type": "Normal", "involvedObject": {"kind": "Pod", "namespace": "ns"}});
    let new = json!({"metadata": metadata, "type": "Normal", "eventTime": "2026-01-01T00:00:00.000000Z",
        "regarding": {"kind": "Pod", "namespace": "ns"}, "reportingController": "example.com/x",
        "reportingInstance": "x-1", "action": "Start", "reason": "Started", "note": "It runs."});
    vec![
        (
            ("", "ResourceQuota"),
            json!({"metadata": metadata, "spec": {"hard": {"pods": "2"}, "scopes": ["BestEffort"]}}),
        ),
        (("", "LimitRange"), json!({"metadata": metadata, "spec": {"limits": limits}})),
        (("", "Event"), event),
        (("events.k8s.io", "Event"), new),
    ]
}

fn example(kind: (&str, &str)) -> Value {
    examples().into_iter().find(|(known, _)| *known == kind).expect("an example").1
}

#[test]
fn a_quota_limits_what_there_is_within_its_scopes() {
    let kind = ("", "ResourceQuota");
    let needless = "must be a standard resource type or fully qualified";
    check_creates(
        kind,
        &example(kind),
        &[
            (
                "/spec/hard/cpu",
                json!("1"),
                &["spec.scopes: Invalid value: [\"BestEffort\"]: unsupported scope applied to resource"],
            ),
            ("/spec/hard/count~1pods", json!("1"), &[]),
            (
                "/spec/hard/storage",
                json!("1"),
                &["spec.hard[storage]: Invalid value: \"storage\": must be a standard resource for quota"],
            ),
            (
                "/spec/hard/apples",
                json!("1"),
                &[
                    &format!("spec.hard[apples]: Invalid value: \"apples\": {needless}"),
                    "spec.hard[apples]: Invalid value: \"apples\": must be a standard resource for quota",
                ],
            ),
            (
                "/spec/hard/pods",
                json!("-1"),
                &["spec.hard[pods]: Invalid value: \"-1\": must be greater than or equal to 0"],
            ),
            ("/spec/scopes", json!(["Any"]), &["spec.scopes: Invalid value: [\"Any\"]: unsupported scope"]),
            (
                "/spec/scopes",
                json!(["BestEffort", "NotBestEffort"]),
                &["spec.scopes: Invalid value: [\"BestEffort\",\"NotBestEffort\"]: conflicting scopes"],
            ),
            (
                "/spec/scopeSelector",
                json!({"matchExpressions": [{"scopeName": "PriorityClass", "operator": "In"}]}),
                &[
                    "spec.scopeSelector.matchExpressions.values: Required value: must be at least one value when `operator` is 'In' or 'NotIn' for scope selector",
                ],
            ),
        ],
    );
    check_updates(
        kind,
        &example(kind),
        &[
            ("/spec/hard/pods", json!("3"), &[]),
            ("/spec/scopes", json!([]), &["spec.scopes: Invalid value: []: field is immutable"]),
        ],
    );
    let used = with(&example(kind), "/status", json!({"used": {"pods": "-1"}}));
    let errors = subresource(kind, Subresource::Status, &used, &example(kind), &Context::default());
    assert_eq!(texts(&errors), ["status.used[pods]: Invalid value: \"-1\": must be greater than or equal to 0"]);
}

#[test]
fn amounts_of_a_limit_are_in_order() {
    let kind = ("", "LimitRange");
    let place = "spec.limits[0]";
    check_creates(
        kind,
        &example(kind),
        &[
            (
                "/spec/limits/0/min/cpu",
                json!("3"),
                &[
                    &format!("{place}.min[cpu]: Invalid value: \"3\": min value 3 is greater than max value 2"),
                    &format!(
                        "{place}.defaultRequest[cpu]: Invalid value: \"1\": min value 3 is greater than default request value 1"
                    ),
                    &format!("{place}.default[cpu]: Invalid value: \"3\": min value 3 is greater than default value 2"),
                ],
            ),
            (
                "/spec/limits/0/maxLimitRequestRatio",
                json!({"cpu": "3"}),
                &[&format!(
                    "{place}.maxLimitRequestRatio[cpu]: Invalid value: \"3\": ratio 3 is greater than max/min = 2.000000"
                )],
            ),
            (
                "/spec/limits/0/maxLimitRequestRatio",
                json!({"cpu": "500m"}),
                &[&format!("{place}.maxLimitRequestRatio[cpu]: Invalid value: \"500m\": ratio 500m is less than 1")],
            ),
            (
                "/spec/limits/0/type",
                json!("Pod"),
                &[
                    &format!("{place}.default: Forbidden: may not be specified when `type` is 'Pod'"),
                    &format!("{place}.defaultRequest: Forbidden: may not be specified when `type` is 'Pod'"),
                ],
            ),
            (
                "/spec/limits/0/type",
                json!("Volume"),
                &[&format!(
                    "{place}.type: Invalid value: \"Volume\": must be a standard limit type or fully qualified"
                )],
            ),
            (
                "/spec/limits/-",
                json!({"type": "PersistentVolumeClaim"}),
                &[
                    "spec.limits[1].limits: Required value: either minimum or maximum storage value is required, but neither was provided",
                ],
            ),
            ("/spec/limits/-", json!({"type": "Container"}), &["spec.limits[1].type: Duplicate value: \"Container\""]),
        ],
    );
}

#[test]
fn an_event_is_told_where_it_happened() {
    let kind = ("", "Event");
    let elsewhere = "does not match event.namespace";
    check_creates(
        kind,
        &example(kind),
        &[
            (
                "/involvedObject/namespace",
                json!("other"),
                &[&format!("involvedObject.namespace: Invalid value: \"other\": {elsewhere}")],
            ),
            (
                "/involvedObject/namespace",
                json!(""),
                &[&format!("involvedObject.namespace: Invalid value: \"\": {elsewhere}")],
            ),
            ("/type", json!("Anything"), &[]),
        ],
    );
}

#[test]
fn an_event_of_the_newer_group_says_all_and_keeps_it() {
    let kind = ("events.k8s.io", "Event");
    check_creates(
        kind,
        &example(kind),
        &[
            ("/type", json!("Odd"), &["type: Invalid value: \"\": has invalid value: Odd"]),
            ("/action", json!(""), &["action: Required value"]),
            ("/eventTime", Value::Null, &["eventTime: Required value"]),
            ("/note", json!("x".repeat(1025)), &["message: Invalid value: \"\": can have at most 1024 characters"]),
            ("/deprecatedCount", json!(1), &["count: Invalid value: \"\": needs to be unset"]),
            ("/deprecatedSource", json!({"component": "x"}), &["source: Invalid value: \"\": needs to be unset"]),
            (
                "/series",
                json!({"count": 1}),
                &["series.count: Invalid value: \"\": should be at least 2", "series.lastObservedTime: Required value"],
            ),
        ],
    );
    check_updates(
        kind,
        &example(kind),
        &[
            ("/series", json!({"count": 2, "lastObservedTime": "2026-01-01T00:00:01.000000Z"}), &[]),
            ("/note", json!("It ran."), &["message: Invalid value: \"It ran.\": field is immutable"]),
        ],
    );
}
