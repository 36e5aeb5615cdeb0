//! Every controller and the scheduler are killed again and again while workloads change. In the end the cluster is what
//! it is when nobody disturbs it.

mod whole;

use std::time::Duration;

use chaos_tests::cluster::Cluster;
use chaos_tests::cluster::nodes::NodesArgs;
use chaos_tests::cluster::state::{difference, state};
use chaos_tests::{Replay, is_long, seed};
use k3sd_controllers::ControllersConfig;
use k3sd_runtime::{Clock, Rng, Signal};
use kube::api::{ApiResource, DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt as _};
use serde_json::{Value, json};

const SECOND: Duration = Duration::from_secs(1);
/// The cluster is at rest when nothing has changed for so long, and has to be after at most so many of these.
const REST: Duration = Duration::from_secs(40);
const RESTS_MAX: usize = 60;
/// What supervisors of the loops are asked for.
const LIMIT: Duration = Duration::from_secs(5);

/// One thing that somebody does.
enum Step {
    /// Make it.
    Make(Value),
    /// Change it, by kind, name and patch; and wait until its controller has taken note, where that can be seen. Changes
    /// that follow each other too quickly to be noticed may leave fewer traces.
    Change(&'static str, &'static str, Value),
    /// Delete it, with what it owns or without.
    Delete(&'static str, &'static str, fn() -> DeleteParams),
}

use Step::{Change, Delete, Make};

fn template(app: &str, image: &str, annotations: Value, policy: &str) -> Value {
    json!({
        "metadata": {"labels": {"app": app}, "annotations": annotations},
        "spec": {"restartPolicy": policy, "containers": [{"name": "c", "image": image}]},
    })
}

fn service(app: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": app},
        "spec": {"selector": {"app": app}, "ports": [{"port": 80}]}})
}

/// A kind of `apps/v1` whose pods run for ever.
fn app(kind: &str, app: &str, spec: Value) -> Value {
    let mut spec = spec;
    spec["selector"] = json!({"matchLabels": {"app": app}});
    spec["template"] = template(app, "v1", json!({}), "Always");
    json!({"apiVersion": "apps/v1", "kind": kind, "metadata": {"name": app}, "spec": spec})
}

fn job(name: &str, code: &str, spec: Value) -> Value {
    let mut spec = spec;
    spec["template"] =
        template(name, "v1", json!({"fake.k3sd.io/exit-code": code, "fake.k3sd.io/run-for": "3s"}), "Never");
    json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name}, "spec": spec})
}

fn image(image: &str) -> Value {
    json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": image}]}}}})
}

fn scale(replicas: u32) -> Value {
    json!({"spec": {"replicas": replicas}})
}

/// What happens in the namespace `work`.
fn script() -> Vec<Step> {
    let map = |name: &str| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}});
    vec![
        Make(app("Deployment", "web", json!({"replicas": 4}))),
        Make(service("web")),
        Make(app("Deployment", "doomed", json!({"replicas": 3}))),
        Make(app("StatefulSet", "db", json!({"replicas": 3, "serviceName": "db"}))),
        Make(job("done", "0", json!({"completions": 4, "parallelism": 2}))),
        Change("Deployment", "web", scale(7)),
        Make(job("failing", "1", json!({"backoffLimit": 1}))),
        Change("Deployment", "web", image("v2")),
        Make(app("DaemonSet", "agent", json!({}))),
        Make(map("kept")),
        Delete("Deployment", "doomed", DeleteParams::background),
        Make(app("Deployment", "left", json!({"replicas": 2}))),
        Change("StatefulSet", "db", scale(5)),
        Change("DaemonSet", "agent", image("v2")),
        Change("StatefulSet", "db", image("v2")),
        Delete("Deployment", "left", DeleteParams::orphan),
        Change("Deployment", "web", json!({"spec": {"paused": true}})),
        Change("Deployment", "web", image("v3")),
        Make(app("Deployment", "brief", json!({"replicas": 2}))),
        Change("Deployment", "web", json!({"spec": {"paused": false}})),
        Delete("Deployment", "brief", DeleteParams::foreground),
        Delete("Job", "done", DeleteParams::background),
        Change("Deployment", "web", scale(2)),
        Change("StatefulSet", "db", scale(1)),
    ]
}

fn resource(kind: &str) -> ApiResource {
    let (group, plural) = match kind {
        "Namespace" => ("", "namespaces"),
        "ConfigMap" => ("", "configmaps"),
        "Service" => ("", "services"),
        "Deployment" => ("apps", "deployments"),
        "StatefulSet" => ("apps", "statefulsets"),
        "DaemonSet" => ("apps", "daemonsets"),
        "Job" => ("batch", "jobs"),
        other => panic!("{other} isn't in the script"),
    };
    let api_version = if group.is_empty() { "v1".to_owned() } else { format!("{group}/v1") };
    let (group, version) = (group.to_owned(), "v1".to_owned());
    ApiResource { group, version, api_version, kind: kind.to_owned(), plural: plural.to_owned() }
}

fn api(cluster: &Cluster, namespace: &str, kind: &str) -> Api<DynamicObject> {
    Api::namespaced_with(cluster.admin(), namespace, &resource(kind))
}

async fn make(cluster: &Cluster, namespace: &str, object: &Value) {
    let kind = object["kind"].as_str().expect("a kind");
    let object: DynamicObject = serde_json::from_value(object.clone()).expect("an object");
    api(cluster, namespace, kind).create(&PostParams::default(), &object).await.expect("it may be made");
}

async fn take(cluster: &Cluster, step: &Step) {
    match step {
        Make(object) => {
            make(cluster, "work", object).await;
            let (kind, name) = (&object["kind"], &object["metadata"]["name"]);
            noticed(cluster, kind.as_str().expect("text"), name.as_str().expect("text")).await;
        }
        Change(kind, name, patch) => {
            // A list of containers merges by name, as kubectl has it.
            let patch = Patch::Strategic(patch);
            api(cluster, "work", kind).patch(name, &PatchParams::default(), &patch).await.expect("it is there");
            noticed(cluster, kind, name).await;
        }
        Delete(kind, name, how) => {
            api(cluster, "work", kind).delete(name, &how()).await.expect("it is there");
        }
    }
}

/// Waits until the controller of an object says that it has seen what is wanted.
async fn noticed(cluster: &Cluster, kind: &str, name: &str) {
    if !matches!(kind, "Deployment" | "StatefulSet" | "DaemonSet") {
        return;
    }
    let is_noticed = async || {
        let found = api(cluster, "work", kind).get(name).await;
        found.is_ok_and(|found| found.data["status"]["observedGeneration"].as_i64() == found.metadata.generation)
    };
    cluster.wait_within(300 * SECOND, &format!("{kind} {name} is noticed"), is_noticed).await;
}

/// The paths of everybody below a supervisor, and its own.
async fn paths(cluster: &Cluster, path: String) -> Vec<String> {
    let mut found = Vec::new();
    let mut open = vec![path];
    while let Some(path) = open.pop() {
        if let Ok(supervisor) = cluster.system().supervisor(&path)
            && let Ok(children) = supervisor.list(LIMIT).await
        {
            open.extend(children.iter().map(|child| format!("{path}/{}", child.name)));
        }
        found.push(path);
    }
    found.sort();
    found
}

/// Kills one after the other, each about as often, in an order that the seed draws.
struct Reaper {
    victims: Vec<String>,
    next: usize,
    deaths: u32,
    rng: Rng,
}

impl Reaper {
    async fn new(cluster: &Cluster, seed: u64) -> Self {
        let mut victims = Vec::new();
        for part in ["informers", "controllers", "scheduler", "nodes"] {
            victims.extend(paths(cluster, format!("loops/{part}")).await);
        }
        assert!(victims.len() > 20, "there are many: {victims:?}");
        let mut rng = Rng::seeded(seed);
        for last in (1..victims.len()).rev() {
            victims.swap(last, usize::try_from(rng.below(last as u64 + 1)).expect("small"));
        }
        Self { victims, next: 0, deaths: 0, rng }
    }

    /// A few deaths, with moments between them.
    async fn reap(&mut self, cluster: &Cluster) {
        for _ in 0..=self.rng.below(4) {
            let victim = &self.victims[self.next % self.victims.len()];
            self.next += 1;
            let signal = if self.rng.below(3) == 0 { Signal::Panic } else { Signal::Kill };
            // Who is between two lives already is spared.
            self.deaths += u32::from(cluster.system().signal(victim, signal));
            cluster.pass(Duration::from_millis(self.rng.below(700))).await;
        }
    }
}

/// Plays the script, and waits until nothing changes any more.
async fn play(seed: u64, kills: bool) -> (Cluster, Vec<String>) {
    let (cluster, _) = whole::start(Clock::simulated(seed), ControllersConfig::default(), NodesArgs::count(5)).await;
    let accounts = async || {
        let accounts: Api<k8s_openapi::api::core::v1::ServiceAccount> = Api::namespaced(cluster.admin(), "work");
        accounts.get("default").await.is_ok()
    };
    for name in ["work", "gone"] {
        make(&cluster, "", &json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})).await;
    }
    cluster.wait_until("pods may be made", accounts).await;
    cluster.pass(5 * SECOND).await;
    make(&cluster, "gone", &app("Deployment", "web", json!({"replicas": 3}))).await;
    let mut reaper = Reaper::new(&cluster, seed).await;
    let mut rng = Rng::seeded(seed);
    for (number, step) in script().iter().enumerate() {
        take(&cluster, step).await;
        if number == 8 {
            let namespaces: Api<DynamicObject> = Api::all_with(cluster.admin(), &resource("Namespace"));
            namespaces.delete("gone", &DeleteParams::default()).await.expect("it is there");
        }
        cluster.pass(Duration::from_millis(rng.below(8000))).await;
        if kills {
            reaper.reap(&cluster).await;
        }
    }
    assert!(!kills || reaper.deaths > 20, "only {} died", reaper.deaths);
    let admin = cluster.admin();
    let mut last = Vec::new();
    for _ in 0..RESTS_MAX {
        cluster.pass(REST).await;
        let now = state(&admin).await.unwrap_or_default();
        if !now.is_empty() && now == last {
            return (cluster, now);
        }
        last = now;
    }
    panic!("the cluster doesn't come to rest");
}

async fn ready(cluster: &Cluster, kind: &str, name: &str) -> Value {
    let found = api(cluster, "work", kind).get(name).await.unwrap_or_else(|error| panic!("{kind} {name}: {error}"));
    let status = &found.data["status"];
    assert_eq!(found.name_any(), name);
    json!([status["readyReplicas"], status["updatedReplicas"]])
}

#[tokio::test(start_paused = true)]
async fn killed_controllers_leave_the_cluster_that_undisturbed_ones_leave() {
    let seed = seed();
    let _replay = Replay { seed, test: "--test loops_chaos" };
    let (calm, expected) = play(seed, false).await;
    assert_eq!(ready(&calm, "Deployment", "web").await, json!([2, 2]));
    assert!(expected.iter().all(|line| !line.contains(" gone/") && !line.contains("/gone ")), "{expected:#?}");
    assert!(expected.iter().all(|line| !line.contains("doomed") && !line.contains("brief")), "{expected:#?}");
    calm.stop().await;
    for round in 0..if is_long() { 20 } else { 2 } {
        let (cluster, found) = play(seed + round, true).await;
        let difference = difference(&expected, &found);
        assert!(difference.is_empty(), "in round {round} it came out otherwise:\n{}", difference.join("\n"));
        cluster.stop().await;
    }
}
