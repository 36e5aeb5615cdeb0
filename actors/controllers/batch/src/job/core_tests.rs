//! Jobs and their pods as upstream documents them: what is done, and what the status becomes.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::{Job, JobStatus};
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use super::account::{Account, account};
use super::core::{Look, Made, look};
use super::pods::FINALIZER;

fn start() -> Timestamp {
    "2026-01-01T00:00:00Z".parse().expect("a time")
}

fn after(seconds: i64) -> Timestamp {
    start() + SignedDuration::from_secs(seconds)
}

fn job(spec: Value, status: Value) -> Job {
    let mut full = json!({"parallelism": 1, "backoffLimit": 6, "template": {"spec": {"restartPolicy": "Never"}}});
    for (field, value) in spec.as_object().expect("fields") {
        full[field] = value.clone();
    }
    let metadata = json!({"name": "j", "namespace": "a", "uid": "job-uid"});
    serde_json::from_value(json!({"metadata": metadata, "spec": full, "status": status})).expect("a Job")
}

/// A pod: its name is its uid.
fn pod(name: &str, phase: &str) -> Value {
    json!({"metadata": {"name": name, "namespace": "a", "uid": name, "finalizers": [FINALIZER],
            "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"containers": [], "nodeName": "n"}, "status": {"phase": phase}})
}

fn ended(name: &str, code: i32, seconds: i64) -> Value {
    let mut found = pod(name, if code == 0 { "Succeeded" } else { "Failed" });
    let terminated = json!({"exitCode": code, "finishedAt": after(seconds).to_string()});
    found["status"]["containerStatuses"] = json!([{"name": "main", "image": "i", "imageID": "", "ready": false,
        "restartCount": 0, "state": {"terminated": terminated}}]);
    found
}

fn of_index(mut pod: Value, index: u32, failures: u32) -> Value {
    pod["metadata"]["annotations"] = json!({
        "batch.kubernetes.io/job-completion-index": index.to_string(),
        "batch.kubernetes.io/job-index-failure-count": failures.to_string(),
    });
    pod
}

fn deleted(mut pod: Value) -> Value {
    pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    pod
}

fn untracked(mut pod: Value) -> Value {
    pod["metadata"]["finalizers"] = json!([]);
    pod
}

fn pods(all: &[Value]) -> Vec<Arc<Pod>> {
    all.iter().map(|pod| Arc::new(serde_json::from_value(pod.clone()).expect("a pod"))).collect()
}

fn names(pods: &[Arc<Pod>]) -> Vec<&str> {
    pods.iter().filter_map(|pod| pod.metadata.name.as_deref()).collect()
}

/// As if everything that is asked for were done.
fn done(look: &Look) -> Made {
    Made { created: look.create.len(), deleted: look.delete.len(), deleted_ready: 0 }
}

fn at(job: &Job, all: &[Value], now: Timestamp) -> (Look, Account) {
    let look = look(job, pods(all), now);
    let account = account(job, &look, done(&look), now);
    (look, account)
}

fn reasons(status: &JobStatus) -> Vec<String> {
    let all = status.conditions.iter().flatten().filter(|condition| condition.status == "True");
    all.map(|condition| format!("{} {}", condition.type_, condition.reason.as_deref().unwrap_or_default())).collect()
}

#[test]
fn missing_pods_are_made_and_those_too_many_go() {
    let running =
        |count: usize| -> Vec<Value> { (0..count).map(|number| pod(&format!("p{number}"), "Running")).collect() };
    for (spec, status, pods, created, deleted) in [
        (json!({"parallelism": 3, "completions": 5}), json!({}), running(0), 3, 0),
        (json!({"parallelism": 3, "completions": 5}), json!({"succeeded": 4}), running(0), 1, 0),
        (json!({"parallelism": 3, "completions": 5}), json!({}), running(2), 1, 0),
        (json!({"parallelism": 1, "completions": 5}), json!({}), running(3), 0, 2),
        (json!({"parallelism": 0, "completions": 5}), json!({}), running(3), 0, 3),
        // A queue: whoever runs goes on, and nobody is made once one has succeeded.
        (json!({"parallelism": 3}), json!({}), running(1), 2, 0),
        (json!({"parallelism": 3}), json!({"succeeded": 1}), running(1), 0, 0),
        (json!({"parallelism": 3, "completions": 5, "suspend": true}), json!({}), running(2), 0, 2),
        (json!({"parallelism": 1000, "completions": 1000}), json!({}), running(0), 500, 0),
    ] {
        let (look, _) = at(&job(spec.clone(), status), &pods, start());
        assert_eq!((look.create.len(), look.delete.len()), (created, deleted), "{spec}");
    }
}

#[test]
fn a_pod_is_counted_once_whatever_is_seen_again() {
    let spec = json!({"parallelism": 2, "completions": 3});
    let first = job(spec.clone(), json!({}));
    let all = [ended("a", 0, 0), pod("b", "Running")];
    let (_, mut counted) = at(&first, &all, after(5));
    let uncounted = counted.status.uncounted_terminated_pods.clone().expect("it is written first");
    assert_eq!((uncounted.succeeded, counted.status.succeeded), (Some(vec!["a".to_owned()]), None));
    assert_eq!(names(&counted.release), ["a"]);

    // Killed there: the finalizer is still set.
    let mut again = first.clone();
    again.status = Some(counted.status.clone());
    let (_, repeated) = at(&again, &all, after(6));
    assert_eq!(repeated.status.uncounted_terminated_pods, counted.status.uncounted_terminated_pods);
    assert_eq!((repeated.status.succeeded, names(&repeated.release)), (None, vec!["a"]));

    // Killed after the finalizer was gone.
    let gone = [untracked(ended("a", 0, 0)), pod("b", "Running")];
    let (_, moved) = at(&again, &gone, after(7));
    let uncounted = moved.status.uncounted_terminated_pods.clone().expect("it stays");
    assert_eq!((uncounted.succeeded, moved.status.succeeded, moved.release.len()), (None, Some(1), 0));

    // Or all in one turn.
    counted.settle(&["b".to_owned()].into());
    assert_eq!(counted.status.succeeded, Some(1));
    assert!(counted.finish(after(8)).is_none());
}

#[test]
fn a_job_completes_when_its_pods_are_counted() {
    let job = job(json!({"completions": 1}), json!({}));
    let (_, mut account) = at(&job, &[ended("a", 0, 0)], after(1));
    assert_eq!(reasons(&account.status), ["SuccessCriteriaMet CompletionsReached"]);
    assert!(account.finish(after(1)).is_none(), "it isn't counted yet");
    account.settle(&[].into());
    assert!(account.finish(after(1)).is_some());
    let expected = ["SuccessCriteriaMet CompletionsReached", "Complete CompletionsReached"];
    assert_eq!((reasons(&account.status), account.status.succeeded), (expected.map(str::to_owned).to_vec(), Some(1)));
    assert_eq!(account.status.completion_time.map(|time| time.0), Some(after(1)));
}

#[test]
fn failures_wait_longer_each_time_and_end_the_job_at_the_limit() {
    let spec = json!({"completions": 1, "backoffLimit": 2});
    let failed = [ended("a", 1, 0), ended("b", 1, 100)];
    for (failures, now, created, again) in
        [(1, 5, 0, Some(10)), (1, 10, 1, None), (2, 110, 0, Some(120)), (2, 120, 1, None)]
    {
        let (look, _) = at(&job(spec.clone(), json!({})), &failed[..failures], after(now));
        assert_eq!((look.create.len(), look.again), (created, again.map(after)), "{failures} at {now}");
    }
    let all = [ended("a", 1, 0), ended("b", 1, 100), ended("c", 1, 200), pod("d", "Running")];
    let (look, mut account) = at(&job(spec, json!({})), &all, after(201));
    assert_eq!((names(&look.delete), look.counted), (vec!["d"], true));
    assert_eq!(reasons(&account.status), ["FailureTarget BackoffLimitExceeded"]);
    account.settle(&[].into());
    assert_eq!(account.status.failed, Some(4), "whoever still runs has failed too");
    assert!(account.finish(after(201)).is_none(), "one is still on its way out");
}

#[test]
fn restarts_count_where_containers_are_restarted() {
    let mut spec = json!({"completions": 1, "backoffLimit": 3});
    spec["template"] = json!({"spec": {"restartPolicy": "OnFailure"}});
    for (restarts, ends) in [(2, false), (3, true)] {
        let mut running = pod("a", "Running");
        running["status"]["containerStatuses"] =
            json!([{"name": "main", "image": "i", "imageID": "", "ready": true, "restartCount": restarts}]);
        let (_, account) = at(&job(spec.clone(), json!({})), &[running], after(1));
        assert_eq!(!reasons(&account.status).is_empty(), ends, "{restarts}");
    }
}

#[test]
fn a_deadline_ends_the_job_and_suspension_stops_its_clock() {
    let started = json!({"startTime": start().to_string()});
    let spec = json!({"completions": 1, "activeDeadlineSeconds": 60});
    let running = [pod("a", "Running")];
    let (look, account) = at(&job(spec.clone(), started.clone()), &running, after(30));
    assert_eq!((look.again, reasons(&account.status).len()), (Some(after(60)), 0));
    let (_, account) = at(&job(spec, started.clone()), &running, after(60));
    assert_eq!(reasons(&account.status), ["FailureTarget DeadlineExceeded"]);

    let suspended = json!({"completions": 1, "activeDeadlineSeconds": 60, "suspend": true});
    let (look, account) = at(&job(suspended, started.clone()), &running, after(90));
    assert_eq!((names(&look.delete), look.counted), (vec!["a"], false), "it doesn't count as failed");
    assert_eq!(reasons(&account.status), ["Suspended JobSuspended"]);
    assert_eq!(account.events, [("Suspended", "Job suspended")]);

    let mut resumed = job(json!({"completions": 1, "activeDeadlineSeconds": 60}), json!({}));
    resumed.status = Some(account.status);
    // The deadline of before has passed; nobody looks at it before it runs again.
    resumed.status.as_mut().expect("set").start_time = None;
    let (_, account) = at(&resumed, &[], after(100));
    assert_eq!(account.events, [("Resumed", "Job resumed")]);
    assert_eq!(account.status.start_time.map(|time| time.0), Some(after(100)));
}

#[test]
fn each_index_runs_once() {
    let spec = json!({"completions": 4, "parallelism": 4, "completionMode": "Indexed"});
    let all = [of_index(ended("a", 0, 0), 0, 0), of_index(pod("b", "Running"), 1, 0), of_index(ended("c", 1, 0), 2, 0)];
    let (look, account) = at(&job(spec.clone(), json!({})), &all, after(10));
    let indexes: Vec<Option<u32>> = look.create.iter().map(|new| new.index).collect();
    assert_eq!(indexes, [Some(2), Some(3)]);
    assert_eq!((account.status.completed_indexes.as_deref(), account.status.succeeded), (Some("0"), Some(1)));
    // Of two with the same index one goes, and so does one without.
    let doubled = [of_index(pod("x", "Running"), 1, 0), of_index(pod("y", "Pending"), 1, 0), pod("z", "Running")];
    let (look, _) = at(&job(spec, json!({"completedIndexes": "0,2,3"})), &doubled, after(10));
    let mut gone = names(&look.delete);
    gone.sort_unstable();
    assert_eq!(gone, ["y", "z"]);
}

#[test]
fn each_index_has_a_limit_of_its_own() {
    let spec = json!({"completions": 3, "parallelism": 3, "completionMode": "Indexed", "backoffLimitPerIndex": 1,
        "backoffLimit": 2147483647});
    let all = [of_index(ended("a", 1, 0), 0, 0), of_index(ended("b", 1, 0), 1, 1), of_index(ended("c", 0, 0), 2, 0)];
    let (look, account) = at(&job(spec.clone(), json!({})), &all, after(5));
    assert_eq!((look.create.len(), look.again), (0, Some(after(10))), "index 0 waits, index 1 has failed");
    assert_eq!(account.status.failed_indexes.as_deref(), Some("1"));
    let mut released = names(&account.release);
    released.sort_unstable();
    assert_eq!(released, ["b", "c"], "the last of index 0 tells how often it failed");
    let (look, _) = at(&job(spec.clone(), json!({})), &all, after(10));
    assert_eq!(look.create.len(), 1);
    assert_eq!((look.create[0].index, look.create[0].failures), (Some(0), Some((1, 0))));

    let over = [of_index(ended("a", 1, 0), 0, 1), of_index(ended("b", 1, 0), 1, 1), of_index(ended("c", 0, 0), 2, 0)];
    let (_, account) = at(&job(spec.clone(), json!({})), &over, after(5));
    assert_eq!(reasons(&account.status), ["FailureTarget FailedIndexes"]);
    let mut few = spec;
    few["maxFailedIndexes"] = json!(0);
    let (_, account) = at(&job(few, json!({})), &all, after(5));
    assert_eq!(reasons(&account.status), ["FailureTarget MaxFailedIndexesExceeded"]);
}

#[test]
fn a_failure_policy_ends_ignores_or_counts() {
    let policy = json!({"rules": [
        {"action": "FailJob", "onExitCodes": {"containerName": "main", "operator": "In", "values": [42]}},
        {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
        {"action": "Count", "onExitCodes": {"operator": "NotIn", "values": [1]}},
    ]});
    let spec = json!({"completions": 1, "backoffLimit": 0, "podFailurePolicy": policy});
    let (_, account) = at(&job(spec.clone(), json!({})), &[ended("a", 42, 0)], after(1));
    assert_eq!(reasons(&account.status), ["FailureTarget PodFailurePolicy"]);
    let message = account.status.conditions.expect("set")[0].message.clone();
    let expected = "Container main for pod a/a failed with exit code 42 matching FailJob rule at index 0";
    assert_eq!(message.as_deref(), Some(expected));

    let mut disrupted = ended("a", 137, 0);
    disrupted["status"]["conditions"] = json!([{"type": "DisruptionTarget", "status": "True"}]);
    let (_, account) = at(&job(spec.clone(), json!({})), &[disrupted], after(1));
    assert_eq!((reasons(&account.status).len(), names(&account.release)), (0, vec!["a"]));
    assert_eq!(account.status.uncounted_terminated_pods.expect("set").failed, None);

    let (_, account) = at(&job(spec, json!({})), &[ended("a", 7, 0)], after(1));
    assert_eq!(reasons(&account.status), ["FailureTarget BackoffLimitExceeded"]);
}

#[test]
fn a_success_policy_ends_the_job_early() {
    let indexed = json!({"completions": 4, "parallelism": 4, "completionMode": "Indexed"});
    for (rule, ends) in [
        (json!({"succeededIndexes": "0,2"}), true),
        (json!({"succeededIndexes": "0-3"}), false),
        (json!({"succeededIndexes": "0-3", "succeededCount": 2}), true),
        (json!({"succeededCount": 3}), false),
    ] {
        let mut spec = indexed.clone();
        spec["successPolicy"] = json!({"rules": [rule]});
        let all =
            [of_index(ended("a", 0, 0), 0, 0), of_index(ended("c", 0, 0), 2, 0), of_index(pod("d", "Running"), 3, 0)];
        let (look, account) = at(&job(spec, json!({})), &all, after(1));
        if ends {
            assert_eq!(names(&look.delete), ["d"]);
            assert_eq!(reasons(&account.status), ["SuccessCriteriaMet SuccessPolicy"]);
            let message = account.status.conditions.expect("set")[0].message.clone();
            assert_eq!(message.as_deref(), Some("Matched rules at index 0"));
        } else {
            assert_eq!(reasons(&account.status), Vec::<String>::new());
        }
    }
}

#[test]
fn pods_on_their_way_out_are_replaced_as_the_policy_says() {
    let going = [deleted(pod("a", "Running"))];
    let at_once = json!({"completions": 1, "podReplacementPolicy": "TerminatingOrFailed"});
    let (look, account) = at(&job(at_once, json!({})), &going, after(60));
    assert_eq!((look.create.len(), account.status.terminating), (1, Some(1)));
    assert_eq!(names(&account.release), ["a"], "it counts as failed");
    let ended_only = json!({"completions": 1, "podReplacementPolicy": "Failed"});
    let (look, account) = at(&job(ended_only, json!({})), &going, after(60));
    assert_eq!((look.create.len(), account.release.len()), (0, 0));
}
