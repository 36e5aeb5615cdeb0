//! The controller of charts: a job that runs Helm for each.
//!
//! ```text
//!            values or fields changed: suspended, deleted, made again
//!                 ┌───────────────────────────────┐
//!                 ▼                               │
//! chart ─▶ job, suspended ─ seen by its controller ─▶ resumed ─▶ complete: its release has the hash
//!                                                          └──▶ failed: said so
//! chart that goes ─▶ job that deletes ─ complete ─▶ objects gone, finalizer gone
//! ```
//!
//! Whether there is anything to do follows from the job and from Helm's own release, which carries the hash of what it
//! was made of. So nothing is remembered here, and a controller that dies leaves nothing behind.

mod controller;
mod job;
mod types;
mod values;

use std::time::Duration;

use k3sd_client::api::Connect;
use k3sd_client::controller::{Loop, key_of};
use k3sd_client::election::Leading;
use k3sd_client::events::Recorder;
use k3sd_client::informer::{InformerArgs, Kind, ObjectKey, informer};
use k3sd_runtime::{Backoff, Clock, Spec, Strategy, task};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::Resource as _;

use self::controller::Charts;
use self::job::CHART_LABEL;
use self::types::{HelmChart, HelmChartConfig};
use crate::api::Cluster;
use crate::config::HelmConfig;
use crate::definitions;

/// How K3s's part of this is called, in Events and on charts.
pub(crate) const CONTROLLER: &str = "helm-controller";
/// Deaths that are borne; nothing takes another along.
const RESTARTS: u32 = 10;
const PERIOD: Duration = Duration::from_secs(60);
/// The waits while the API is away.
const AWAY: Backoff = Backoff {
    free_attempts: 0,
    delay_min: Duration::from_millis(50),
    delay_max: Duration::from_secs(15),
    factor: 2.0,
    jitter: 0.1,
    reset_after: Duration::from_secs(120),
};
/// What Helm keeps is none of what charts read, and may be large.
const NO_RELEASES: &str = "type!=helm.sh/release.v1";

/// What the subtree is made of.
pub(crate) struct HelmArgs {
    pub(crate) config: HelmConfig,
    pub(crate) node_name: String,
    pub(crate) connect: Connect,
    pub(crate) recorder: Recorder,
    pub(crate) leading: Leading,
    pub(crate) clock: Clock,
}

/// The subtree.
pub(crate) fn spec(args: HelmArgs) -> Spec {
    let HelmArgs { config, node_name, connect, recorder, leading, clock } = args;
    let (charts_child, charts) = informer("charts", InformerArgs::<HelmChart>::all(connect.clone()));
    let (configs_child, configs) = informer("configs", InformerArgs::<HelmChartConfig>::all(connect.clone()));
    let (jobs_child, jobs) = informer("jobs", InformerArgs::<Job>::all(connect.clone()).labels(CHART_LABEL));
    let (pods_child, pods) = informer("pods", InformerArgs::<Pod>::all(connect.clone()).labels(CHART_LABEL));
    let (secrets_child, secrets) =
        informer("secrets", InformerArgs::<Secret>::all(connect.clone()).fields(NO_RELEASES));
    let cluster = Cluster::new(connect.clone(), CONTROLLER, &node_name);
    let controller = Charts {
        cluster: cluster.clone(),
        clock: clock.clone(),
        recorder: recorder.component(CONTROLLER).host(&node_name),
        helm: config,
        charts: charts.clone(),
        configs: configs.clone(),
        jobs: jobs.clone(),
        pods: pods.clone(),
        secrets: secrets.clone(),
    };
    let with_secret = {
        let (charts, configs) = (charts.clone(), configs.clone());
        move |secret: &Secret, keys: &mut Vec<ObjectKey>| {
            let (Some(charts), Some(configs)) = (charts.snapshot(), configs.snapshot()) else { return };
            let key = key_of(secret);
            for chart in charts.of_namespace(&key.namespace) {
                let config = configs.get(chart.namespace(), chart.name()).map(|config| &**config);
                if chart.watched_secrets(config).any(|watched| watched.name == key.name) {
                    keys.push(key_of(&**chart));
                }
            }
        }
    };
    let charts_loop = Loop::new(controller, leading)
        .watch(&charts, |was, is, keys| keys.extend(is.or(was).map(key_of)))
        .watch(&configs, |was, is, keys| keys.extend(is.or(was).map(key_of)))
        .watch(&jobs, |was, is, keys| keys.extend(is.or(was).and_then(chart_of)))
        .watch(&pods, |was, is, keys| keys.extend(is.or(was).and_then(chart_of)))
        .watch(&secrets, move |was, is, keys| {
            if let Some(secret) = is.or(was) {
                with_secret(secret, keys);
            }
        })
        .quarantine(recorder.component(CONTROLLER), move |key| {
            let chart = charts.snapshot()?.get(&key.namespace, &key.name).cloned();
            chart.map(|chart| chart.object_ref(&()))
        });
    let definitions = task("definitions", move |handle| {
        let cluster = cluster.clone();
        async move {
            let (clock, mut rng) = (handle.system().clock().clone(), handle.rng());
            let mut failures = 0;
            while let Err(problem) = definitions::ensure(&cluster, &clock, &definitions::charts()).await {
                tracing::debug!(problem, "the definitions of charts wait");
                failures += 1;
                clock.sleep_until(clock.now() + AWAY.delay(failures, &mut rng)).await;
            }
            // Done, and in its place: a tree with somebody missing is one that heals.
            std::future::pending().await
        }
    });
    Spec::new(Strategy::OneForOne)
        .budget(RESTARTS, PERIOD)
        .child(definitions)
        .child(charts_child)
        .child(configs_child)
        .child(jobs_child)
        .child(pods_child)
        .child(secrets_child)
        .child(charts_loop.child("charts-loop"))
}

/// The chart that an object of a job belongs to.
fn chart_of<K: Kind>(object: &K) -> Option<ObjectKey> {
    let meta = object.meta();
    let name = meta.labels.as_ref()?.get(CHART_LABEL)?.clone();
    Some(ObjectKey { namespace: meta.namespace.clone().unwrap_or_default(), name })
}
