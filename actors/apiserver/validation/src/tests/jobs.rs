//! Jobs and CronJobs.

use super::*;

const JOB: (&str, &str) = ("batch", "Job");
const CRON_JOB: (&str, &str) = ("batch", "CronJob");

fn job() -> Value {
    let mut template = pods::pod();
    template["metadata"] = json!({"labels": {"a": "b"}});
    template["spec"]["restartPolicy"] = json!("Never");
    json!({"metadata": {"name": "x", "namespace": "ns", "uid": "u"},
        "spec": {"manualSelector": true, "selector": {"matchLabels": {"a": "b"}}, "completions": 3, "parallelism": 3,
            "completionMode": "Indexed", "template": template}})
}

fn cron_job() -> Value {
    let job = job();
    json!({"metadata": {"name": "x", "namespace": "ns"},
        "spec": {"schedule": "*/5 * * * *", "concurrencyPolicy": "Allow",
            "jobTemplate": {"spec": {"template": job["spec"]["template"]}}}})
}

pub(super) fn examples() -> Vec<((&'static str, &'static str), Value)> {
    vec![(JOB, job()), (CRON_JOB, cron_job())]
}

#[test]
fn pods_of_a_job_come_to_an_end() {
    let restart = "spec.template.spec.restartPolicy";
    check_creates(
        JOB,
        &job(),
        &[
            ("/spec/template/spec/restartPolicy", json!("OnFailure"), &[]),
            (
                "/spec/template/spec/restartPolicy",
                json!("Always"),
                &[&format!("{restart}: Required value: valid values: \"OnFailure\", \"Never\"")],
            ),
            (
                "/spec/backoffLimit",
                json!(-1),
                &["spec.backoffLimit: Invalid value: -1: must be greater than or equal to 0"],
            ),
            ("/spec/completions", json!(null), &["spec.completions: Required value: when completion mode is Indexed"]),
            (
                "/spec/maxFailedIndexes",
                json!(1),
                &["spec.backoffLimitPerIndex: Required value: when maxFailedIndexes is specified"],
            ),
            (
                "/metadata/name",
                json!("a.b"),
                &["metadata.name: Invalid value: \"a.b\": will not able to create pod with invalid DNS label: a.b-2"],
            ),
            (
                "/spec/managedBy",
                json!("me"),
                &["spec.managedBy: Invalid value: \"me\": must be a domain-prefixed path (such as \"acme.io/foo\")"],
            ),
            (
                "/spec/selector",
                json!(null),
                &[
                    "spec.selector: Required value",
                    "spec.template.metadata.labels: Invalid value: {\"a\":\"b\"}: `selector` does not match template \
                     `labels`",
                ],
            ),
            (
                "/spec/podReplacementPolicy",
                json!("Never"),
                &["spec.podReplacementPolicy: Unsupported value: \"Never\": supported values: \"Failed\", \
                   \"TerminatingOrFailed\""],
            ),
        ],
    );
}

#[test]
fn a_generated_selector_is_that_of_the_job() {
    let labels = json!({"batch.kubernetes.io/controller-uid": "u", "batch.kubernetes.io/job-name": "x",
        "controller-uid": "u", "job-name": "x"});
    let generated = with(&job(), "/spec/manualSelector", json!(null));
    let generated = with(&generated, "/spec/selector/matchLabels", json!({"batch.kubernetes.io/controller-uid": "u"}));
    let generated = with(&generated, "/spec/template/metadata/labels", labels);
    assert_eq!(texts(&create(JOB, &generated, &Context::default())), [""; 0]);
    check_creates(
        JOB,
        &generated,
        &[
            (
                "/spec/template/metadata/labels/job-name",
                json!(null),
                &["spec.template.metadata.labels[job-name]: Required value: must be 'x'"],
            ),
            (
                "/spec/selector",
                json!({"matchExpressions": [{"key": "job-name", "operator": "Exists"}, {"key": "a", "operator": "DoesNotExist"}]}),
                &[],
            ),
        ],
    );
}

#[test]
fn policies_of_failure_and_success_make_sense() {
    let rule = "spec.podFailurePolicy.rules[0]";
    let codes =
        |values: Value| json!({"rules": [{"action": "FailJob", "onExitCodes": {"operator": "In", "values": values}}]});
    let success = |rule: Value| json!({"rules": [rule]});
    let indexes = "spec.successPolicy.rules[0].succeededIndexes: Invalid value";
    check_creates(
        JOB,
        &job(),
        &[
            ("/spec/podFailurePolicy", codes(json!([1, 2])), &[]),
            (
                "/spec/podFailurePolicy",
                codes(json!([2, 1, 1])),
                &[
                    &format!("{rule}.onExitCodes.values[2]: Duplicate value: 1"),
                    &format!("{rule}.onExitCodes.values: Invalid value: [2,1,1]: must be ordered"),
                ],
            ),
            (
                "/spec/podFailurePolicy",
                codes(json!([0])),
                &[&format!("{rule}.onExitCodes.values[0]: Invalid value: 0: must not be 0 for the In operator")],
            ),
            (
                "/spec/podFailurePolicy",
                json!({"rules": [{}]}),
                &[
                    &format!(
                        "{rule}.action: Required value: valid values: [\"Count\" \"FailIndex\" \"FailJob\" \"Ignore\"]"
                    ),
                    &format!("{rule}: Invalid value: specifying one of OnExitCodes and OnPodConditions is required"),
                ],
            ),
            ("/spec/successPolicy", success(json!({"succeededIndexes": "0,1-2", "succeededCount": 3})), &[]),
            (
                "/spec/successPolicy",
                success(json!({"succeededIndexes": "1-3"})),
                &[&format!("{indexes}: \"1-3\": error parsing succeededIndexes: too large index: \"3\"")],
            ),
            (
                "/spec/successPolicy",
                success(json!({"succeededIndexes": "1,1"})),
                &[&format!(
                    "{indexes}: \"1,1\": error parsing succeededIndexes: non-increasing order, previous: 1, current: 1"
                )],
            ),
            (
                "/spec/successPolicy",
                success(json!({"succeededIndexes": "0-1", "succeededCount": 3})),
                &[
                    "spec.successPolicy.rules[0].succeededCount: Invalid value: 3: must be less than or equal to 2 (the \
                   number of indexes in the specified succeededIndexes field)",
                ],
            ),
        ],
    );
}

#[test]
fn a_job_is_what_it_was() {
    let old = job();
    check_updates(
        JOB,
        &old,
        &[
            ("/spec/backoffLimit", json!(3), &[]),
            (
                "/spec/completions",
                json!(4),
                &["spec.completions: Invalid value: 4: can only be modified in tandem with spec.parallelism"],
            ),
            ("/spec/managedBy", json!("a.b/c"), &["spec.managedBy: Invalid value: \"a.b/c\": field is immutable"]),
        ],
    );
    let moved = with(&old, "/spec/template/spec/nodeSelector", json!({"a": "b"}));
    let fault = texts(&update(JOB, &moved, &old, &Context::default()));
    assert!(fault.len() == 1 && fault[0].starts_with("spec.template: Invalid value: {"), "{fault:?}");
    let suspended = with(&old, "/spec/suspend", json!(true));
    assert_eq!(texts(&update(JOB, &moved, &suspended, &Context::default())), [""; 0]);
    let changed = with(&suspended, "/spec/template/spec/hostname", json!("h"));
    assert_eq!(update(JOB, &changed, &suspended, &Context::default()).len(), 1);
}

#[test]
fn counts_in_the_status_of_a_job_are_not_negative() {
    let new = with(&job(), "/status", json!({"active": -1}));
    let errors = subresource(JOB, Subresource::Status, &new, &job(), &Context::default());
    assert_eq!(texts(&errors), ["status.active: Invalid value: -1: must be greater than or equal to 0"]);
}

#[test]
fn a_cron_job_knows_when_to_run() {
    let name = "a".repeat(53);
    check_creates(
        CRON_JOB,
        &cron_job(),
        &[
            ("/spec/schedule", json!(""), &["spec.schedule: Required value"]),
            (
                "/spec/schedule",
                json!("x"),
                &["spec.schedule: Invalid value: \"x\": expected exactly 5 fields, found 1: [x]"],
            ),
            (
                "/spec/schedule",
                json!("TZ=UTC 0 * * * *"),
                &["spec.schedule: Invalid value: \"TZ=UTC 0 * * * *\": cannot use TZ or CRON_TZ in schedule, use \
                   timeZone field instead"],
            ),
            ("/spec/timeZone", json!("Europe/Berlin"), &[]),
            (
                "/spec/timeZone",
                json!("Europe/Nowhere"),
                &["spec.timeZone: Invalid value: \"Europe/Nowhere\": unknown time zone Europe/Nowhere"],
            ),
            (
                "/spec/timeZone",
                json!(""),
                &["spec.timeZone: Invalid value: \"\": timeZone must be nil or non-empty string"],
            ),
            (
                "/metadata/name",
                json!(name),
                &[&format!("metadata.name: Invalid value: \"{name}\": must be no more than 52 characters")],
            ),
            (
                "/spec/concurrencyPolicy",
                json!("Some"),
                &["spec.concurrencyPolicy: Unsupported value: \"Some\": supported values: \"Allow\", \"Forbid\", \
                   \"Replace\""],
            ),
            (
                "/spec/jobTemplate/spec/manualSelector",
                json!(true),
                &[
                    "spec.jobTemplate.spec.manualSelector: Unsupported value: true: supported values: \"nil\", \"false\"",
                ],
            ),
        ],
    );
}

#[test]
fn a_schedule_keeps_its_old_time_zone_within() {
    let old = with(&cron_job(), "/spec/schedule", json!("TZ=UTC 0 * * * *"));
    check_updates(CRON_JOB, &old, &[("/spec/schedule", json!("TZ=UTC 1 * * * *"), &[])]);
}
