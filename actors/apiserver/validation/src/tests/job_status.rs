//! What is reported of a Job.

use super::*;

const START: &str = "2024-01-02T03:04:05Z";
const END: &str = "2024-01-02T04:04:05Z";

fn conditions(of: &[&str]) -> Value {
    of.iter().map(|kind| json!({ "type": kind, "status": "True" })).collect()
}

/// Each row: the report before, the report now, what is wrong.
fn check(spec: &Value, rows: &[(Value, Value, &[&str])]) {
    for (old, new, expected) in rows {
        let object =
            |status: &Value| json!({ "metadata": { "name": "x", "namespace": "ns" }, "spec": spec, "status": status });
        let kind = ("batch", "Job");
        let errors = subresource(kind, Subresource::Status, &object(new), &object(old), &Context::default());
        assert_eq!(texts(&errors), *expected, "{new}");
    }
}

fn done() -> Value {
    json!({ "startTime": START, "completionTime": END, "succeeded": 1,
        "conditions": conditions(&["SuccessCriteriaMet", "Complete"]) })
}

fn running() -> Value {
    json!({ "startTime": START, "active": 1, "ready": 1 })
}

#[test]
fn a_job_ends_as_upstreams_controller_ends_it() {
    let failed = json!({ "startTime": START, "failed": 1, "conditions": conditions(&["FailureTarget", "Failed"]) });
    check(
        &json!({}),
        &[
            (json!({}), running(), &[]),
            (running(), done(), &[]),
            (running(), failed.clone(), &[]),
            (done(), done(), &[]),
        ],
    );
    check(
        &json!({}),
        &[
            (
                running(),
                with(&done(), "/conditions", conditions(&["Complete"])),
                &["status.conditions: Invalid value: cannot set Complete=True condition without the \
                   SuccessCriteriaMet=true condition"],
            ),
            (
                running(),
                with(&done(), "/completionTime", Value::Null),
                &["status.completionTime: Required value: completionTime is required for Complete jobs"],
            ),
            (
                running(),
                with(&done(), "/active", json!(1)),
                &["status.active: Invalid value: 1: active>0 is invalid for finished job"],
            ),
            (
                running(),
                with(&done(), "/completionTime", json!("2024-01-01T00:00:00Z")),
                &[
                    "status.completionTime: Invalid value: \"2024-01-01T00:00:00Z\": completionTime cannot be set before \
                   startTime",
                ],
            ),
            (
                running(),
                with(&failed, "/conditions", conditions(&["Failed"])),
                &["status.conditions: Invalid value: cannot set Failed=True condition without the FailureTarget=true \
                   condition"],
            ),
            (
                running(),
                with(&running(), "/completionTime", json!(END)),
                &[
                    "status.completionTime: Invalid value: \"2024-01-02T04:04:05Z\": cannot set completionTime when there \
                   is no Complete=True condition",
                ],
            ),
        ],
    );
}

#[test]
fn a_job_that_ended_stays_so() {
    check(
        &json!({}),
        &[
            (
                done(),
                with(&with(&done(), "/conditions", json!([])), "/completionTime", Value::Null),
                &[
                    "status.conditions: Invalid value: cannot disable the terminal Complete=True condition",
                    "status.conditions: Invalid value: cannot disable the SuccessCriteriaMet=True condition",
                ],
            ),
            (
                done(),
                with(&done(), "/completionTime", json!("2024-01-02T05:04:05Z")),
                &["status.completionTime: Invalid value: \"2024-01-02T05:04:05Z\": completionTime cannot be mutated"],
            ),
            (
                done(),
                with(&done(), "/succeeded", json!(0)),
                &["status.succeeded: Invalid value: 0: cannot decrease the succeeded counter"],
            ),
            (
                running(),
                with(&running(), "/startTime", Value::Null),
                &["status.startTime: Required value: startTime cannot be removed for unsuspended job"],
            ),
            // What was wrong before may stay while something else changes.
            (with(&done(), "/active", json!(1)), with(&with(&done(), "/active", json!(1)), "/failed", json!(1)), &[]),
        ],
    );
    check(&json!({ "suspend": true }), &[(running(), with(&running(), "/startTime", json!(END)), &[])]);
}

#[test]
fn counts_and_indexes_fit_together() {
    check(
        &json!({ "completionMode": "Indexed", "completions": 5, "parallelism": 2, "backoffLimitPerIndex": 1 }),
        &[
            (json!({}), json!({ "completedIndexes": "0-2", "failedIndexes": "3" }), &[]),
            (
                json!({}),
                json!({ "completedIndexes": "0-2", "failedIndexes": "2,4" }),
                &[
                    "status.failedIndexes: Invalid value: \"2,4\": failedIndexes and completedIndexes overlap at index: 2",
                ],
            ),
            (
                json!({}),
                json!({ "active": 1, "ready": 2 }),
                &["status.ready: Invalid value: 2: cannot set more ready pods than active"],
            ),
            (
                json!({}),
                json!({ "uncountedTerminatedPods": { "succeeded": ["a", ""], "failed": ["a"] } }),
                &[
                    "status.uncountedTerminatedPods.succeeded[1]: Invalid value: \"\": must not be empty",
                    "status.uncountedTerminatedPods.failed[0]: Duplicate value: \"a\"",
                ],
            ),
        ],
    );
    check(
        &json!({}),
        &[
            (
                json!({}),
                json!({ "completedIndexes": "1" }),
                &["status.completedIndexes: Invalid value: \"1\": cannot set non-empty completedIndexes when \
                   non-indexed completion mode"],
            ),
            (json!({}), json!({ "failedIndexes": "" }), &[]),
        ],
    );
}
