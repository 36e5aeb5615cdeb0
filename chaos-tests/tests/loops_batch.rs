//! Jobs and CronJobs over the API server with fake nodes: every pod is counted once, whatever dies, and times are kept.

use std::time::Duration;

use chaos_tests::cluster::nodes::{NodesArgs, fake_nodes};
use chaos_tests::cluster::{Cluster, Plane};
use k3sd_client::controller::setup::{ControllerConfig, Setup};
use k3sd_runtime::Clock;
use k8s_openapi::api::batch::v1::{CronJob, Job, JobStatus};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt as _};
use serde_json::{Value, json};

const SECOND: Duration = Duration::from_secs(1);
/// 2030-01-01, when simulated clocks begin.
const EPOCH: i64 = 1_893_456_000;

async fn start(clock: Clock) -> Cluster {
    let plane = Plane::new(clock);
    let (nodes, _) = fake_nodes("nodes", &plane.manager(), NodesArgs::count(1));
    let loops = |setup: &mut Setup<'_>| {
        let mut loops = k3sd_controllers_batch::loops(setup);
        loops.extend(k3sd_controllers_collection::loops(setup));
        loops
    };
    let cluster = plane.start_controllers(ControllerConfig::default(), vec![nodes], loops).await;
    make_account(cluster.admin()).await;
    cluster
}

async fn make_account(client: Client) {
    let accounts: Api<k8s_openapi::api::core::v1::ServiceAccount> = Api::namespaced(client, "default");
    let account = serde_json::from_value(json!({"metadata": {"name": "default"}})).expect("an account");
    accounts.create(&PostParams::default(), &account).await.expect("it may be made");
}

fn jobs(cluster: &Cluster) -> Api<Job> {
    Api::namespaced(cluster.admin(), "default")
}

fn pods(cluster: &Cluster) -> Api<Pod> {
    Api::namespaced(cluster.admin(), "default")
}

/// What a pod does, for the fake kubelet; nobody has to schedule it.
fn template(annotations: Value) -> Value {
    json!({"metadata": {"annotations": annotations}, "spec": {"restartPolicy": "Never", "nodeName": "node-0",
        "automountServiceAccountToken": false, "containers": [{"name": "main", "image": "busybox"}]}})
}

async fn make(cluster: &Cluster, name: &str, spec: Value) -> Job {
    let job = serde_json::from_value(json!({"metadata": {"name": name}, "spec": spec})).expect("a Job");
    jobs(cluster).create(&PostParams::default(), &job).await.expect("it may be made")
}

async fn status(cluster: &Cluster, name: &str) -> JobStatus {
    jobs(cluster).get_status(name).await.ok().and_then(|job| job.status).unwrap_or_default()
}

fn holds(status: &JobStatus, kind: &str) -> Option<String> {
    let all = status.conditions.iter().flatten();
    let found = all.into_iter().find(|condition| condition.type_ == kind && condition.status == "True")?;
    found.reason.clone()
}

async fn all_pods(cluster: &Cluster) -> Vec<Pod> {
    pods(cluster).list(&ListParams::default()).await.map(|list| list.items).unwrap_or_default()
}

#[tokio::test(start_paused = true)]
async fn a_job_runs_its_pods_and_goes_after_its_time() {
    let cluster = start(Clock::simulated(1)).await;
    let quick = template(json!({"fake.k3sd.io/exit-code": "0", "fake.k3sd.io/run-for": "2s"}));
    let spec = json!({"completions": 10, "parallelism": 3, "ttlSecondsAfterFinished": 60, "template": quick});
    make(&cluster, "ten", spec).await;
    cluster.wait_until("it completes", async || holds(&status(&cluster, "ten").await, "Complete").is_some()).await;
    let done = status(&cluster, "ten").await;
    assert_eq!((done.succeeded, done.failed, done.active), (Some(10), None, None));
    assert_eq!(holds(&done, "SuccessCriteriaMet").as_deref(), Some("CompletionsReached"));
    let found = all_pods(&cluster).await;
    assert_eq!(found.len(), 10);
    assert!(found.iter().all(|pod| pod.finalizers().is_empty()), "each was counted and let go");
    cluster.pass(59 * SECOND).await;
    assert!(jobs(&cluster).get("ten").await.is_ok());
    cluster
        .wait_until("it goes, with its pods", async || {
            jobs(&cluster).get_opt("ten").await.is_ok_and(|job| job.is_none()) && all_pods(&cluster).await.is_empty()
        })
        .await;
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn kills_count_no_pod_twice_and_make_none_too_many() {
    for seed in 10..14 {
        let cluster = start(Clock::simulated(seed)).await;
        let mut rng = Clock::simulated(seed).rng("kills");
        let quick = template(json!({"fake.k3sd.io/exit-code": "0", "fake.k3sd.io/run-for": "1s"}));
        make(&cluster, "many", json!({"completions": 40, "parallelism": 8, "template": quick})).await;
        let indexed = json!({"completions": 12, "parallelism": 5, "completionMode": "Indexed", "template": quick});
        make(&cluster, "indexed", indexed).await;
        for _ in 0..30 {
            cluster.system().signal("loops/job", k3sd_runtime::Signal::Kill);
            cluster.pass(Duration::from_millis(rng.below(400))).await;
        }
        for name in ["many", "indexed"] {
            cluster
                .wait_until("it completes", async || holds(&status(&cluster, name).await, "Complete").is_some())
                .await;
        }
        let (many, by_index) = (status(&cluster, "many").await, status(&cluster, "indexed").await);
        assert_eq!((many.succeeded, many.failed), (Some(40), None), "seed {seed}");
        assert_eq!(
            (by_index.succeeded, by_index.completed_indexes.as_deref()),
            (Some(12), Some("0-11")),
            "seed {seed}"
        );
        assert_eq!(all_pods(&cluster).await.len(), 52, "seed {seed}");
        cluster.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn failures_end_a_job_and_indexes_fail_alone() {
    let cluster = start(Clock::simulated(2)).await;
    let fails = template(json!({"fake.k3sd.io/exit-code": "3"}));
    make(&cluster, "fails", json!({"backoffLimit": 1, "template": fails})).await;
    cluster.wait_until("it has failed", async || holds(&status(&cluster, "fails").await, "Failed").is_some()).await;
    let failed = status(&cluster, "fails").await;
    assert_eq!((failed.failed, holds(&failed, "Failed").as_deref()), (Some(2), Some("BackoffLimitExceeded")));

    let spec = json!({"completions": 3, "parallelism": 3, "completionMode": "Indexed", "backoffLimitPerIndex": 1,
        "template": fails});
    make(&cluster, "indexes", spec).await;
    cluster.wait_until("all have failed", async || holds(&status(&cluster, "indexes").await, "Failed").is_some()).await;
    let failed = status(&cluster, "indexes").await;
    assert_eq!(holds(&failed, "Failed").as_deref(), Some("FailedIndexes"));
    assert_eq!((failed.failed_indexes.as_deref(), failed.failed), (Some("0-2"), Some(6)));
    let expected = ["0", "1", "2"];
    for pod in all_pods(&cluster).await.iter().filter(|pod| pod.name_any().starts_with("indexes-")) {
        let index = &pod.labels()["batch.kubernetes.io/job-completion-index"];
        assert!(expected.contains(&index.as_str()));
        let hostname = pod.spec.as_ref().and_then(|spec| spec.hostname.clone());
        assert_eq!(hostname, Some(format!("indexes-{index}")));
    }
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_suspended_job_has_no_pods() {
    let cluster = start(Clock::simulated(3)).await;
    let slow = template(json!({"fake.k3sd.io/exit-code": "0", "fake.k3sd.io/run-for": "120s"}));
    make(&cluster, "slow", json!({"completions": 2, "parallelism": 2, "template": slow})).await;
    cluster.wait_until("both run", async || status(&cluster, "slow").await.ready == Some(2)).await;
    let suspend = async |suspend: bool| {
        let patch = Patch::Merge(json!({"spec": {"suspend": suspend}}));
        jobs(&cluster).patch("slow", &PatchParams::default(), &patch).await.expect("it is there");
    };
    suspend(true).await;
    cluster.wait_until("they are gone", async || all_pods(&cluster).await.is_empty()).await;
    cluster.wait_until("it says so", async || holds(&status(&cluster, "slow").await, "Suspended").is_some()).await;
    suspend(false).await;
    cluster
        .wait_within(300 * SECOND, "it completes", async || {
            holds(&status(&cluster, "slow").await, "Complete").is_some()
        })
        .await;
    let done = status(&cluster, "slow").await;
    assert_eq!((done.succeeded, done.failed), (Some(2), None));
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_job_takes_its_pods_along() {
    let cluster = start(Clock::simulated(4)).await;
    let forever = template(json!({}));
    make(&cluster, "runs", json!({"parallelism": 4, "completions": 4, "template": forever})).await;
    cluster.wait_until("they run", async || status(&cluster, "runs").await.ready == Some(4)).await;
    cluster.kill("loops/garbage-collector");
    jobs(&cluster).delete("runs", &DeleteParams::background()).await.expect("it is there");
    cluster.wait_until("all are gone", async || all_pods(&cluster).await.is_empty()).await;
    cluster.stop().await;
}

/// A CronJob at half past two in Berlin, from `from` (UTC) on for some hours: the hours (UTC) of its Jobs.
async fn nights(seed: u64, from: &str, hours: u32) -> Vec<String> {
    let clock = Clock::simulated(seed);
    let from: k8s_openapi::jiff::Timestamp = from.parse().expect("a time");
    tokio::time::advance(Duration::from_secs((from.as_second() - EPOCH) as u64)).await;
    let cluster = start(clock).await;
    let quick = template(json!({"fake.k3sd.io/exit-code": "0"}));
    let spec = json!({"schedule": "30 2 * * *", "timeZone": "Europe/Berlin",
        "jobTemplate": {"spec": {"template": quick}}});
    let cron = serde_json::from_value(json!({"metadata": {"name": "night"}, "spec": spec})).expect("a CronJob");
    let crons: Api<CronJob> = Api::namespaced(cluster.admin(), "default");
    crons.create(&PostParams::default(), &cron).await.expect("it may be made");
    for _ in 0..hours {
        cluster.pass(1800 * SECOND).await;
        cluster.kill("loops/cronjob");
        cluster.pass(1800 * SECOND).await;
    }
    let found = jobs(&cluster).list(&ListParams::default()).await.expect("a list");
    let minutes = |job: &Job| job.name_any().rsplit('-').next().and_then(|text| text.parse::<i64>().ok()).unwrap_or(0);
    let time = |job: &Job| k8s_openapi::jiff::Timestamp::from_second(minutes(job) * 60).expect("a time").to_string();
    let times = found.iter().map(time).collect();
    let status = crons.get_status("night").await.expect("it is there").status.unwrap_or_default();
    assert!(status.active.is_none(), "all have ended");
    assert_eq!(status.last_schedule_time.is_some(), !found.items.is_empty());
    cluster.stop().await;
    times
}

#[tokio::test(start_paused = true)]
async fn a_night_with_an_hour_too_few_has_no_half_past_two() {
    assert_eq!(nights(5, "2030-03-30T23:15:00Z", 4).await, Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn a_night_with_an_hour_too_many_has_two() {
    assert_eq!(nights(6, "2030-10-26T23:15:00Z", 4).await, ["2030-10-27T00:30:00Z", "2030-10-27T01:30:00Z"]);
}

#[tokio::test(start_paused = true)]
async fn jobs_are_replaced_or_waited_for_and_the_old_ones_go() {
    let cluster = start(Clock::simulated(7)).await;
    let crons: Api<CronJob> = Api::namespaced(cluster.admin(), "default");
    let cron = |name: &str, policy: &str, run_for: &str| {
        let pod = template(json!({"fake.k3sd.io/exit-code": "0", "fake.k3sd.io/run-for": run_for}));
        let spec = json!({"schedule": "* * * * *", "concurrencyPolicy": policy, "successfulJobsHistoryLimit": 2,
            "jobTemplate": {"spec": {"template": pod}}});
        serde_json::from_value::<CronJob>(json!({"metadata": {"name": name}, "spec": spec})).expect("a CronJob")
    };
    for (name, policy, run_for) in
        [("forbid", "Forbid", "150s"), ("replace", "Replace", "150s"), ("quick", "Allow", "1s")]
    {
        crons.create(&PostParams::default(), &cron(name, policy, run_for)).await.expect("it may be made");
    }
    let of = async |name: &str| -> Vec<Job> {
        let all = jobs(&cluster).list(&ListParams::default()).await.expect("a list").items;
        all.into_iter().filter(|job| job.name_any().starts_with(name)).collect()
    };
    for minute in 1..=8 {
        cluster.pass(60 * SECOND).await;
        let running = async |name: &str| {
            let all = of(name).await;
            let runs = |job: &&Job| {
                job.metadata.deletion_timestamp.is_none()
                    && holds(&job.status.clone().unwrap_or_default(), "Complete").is_none()
            };
            all.iter().filter(runs).count()
        };
        for name in ["forbid", "replace"] {
            assert!(running(name).await <= 1, "{name} in minute {minute}");
        }
    }
    assert!(of("quick").await.len() <= 3, "two are kept, one may run");
    let forbidden = of("forbid").await;
    assert!((2..=3).contains(&forbidden.len()), "one in three minutes, and two are kept: {}", forbidden.len());
    let suspended = Patch::Merge(json!({"spec": {"suspend": true}}));
    crons.patch("quick", &PatchParams::default(), &suspended).await.expect("it is there");
    cluster.pass(5 * SECOND).await;
    let before: Vec<String> = of("quick").await.iter().map(|job| job.name_any()).collect();
    cluster.pass(180 * SECOND).await;
    assert_eq!(of("quick").await.iter().map(|job| job.name_any()).collect::<Vec<_>>(), before);
    cluster.stop().await;
}
