//! A user who has applications, and changes them all the time.

use std::future::Future;
use std::time::Duration;

use http::Request;
use k3sd_runtime::{Clock, Rng};
use kube::Client;
use serde_json::{Value, json};

use super::trace::Trace;
use crate::checkers::containers::ONCE;

/// Replicas in the end.
const WEB: u64 = 3;
const DB: u64 = 2;
/// The longest pause between two changes.
const PAUSE_MS_MAX: u64 = 3000;
/// The pause after a failure, and how often something is tried: for longer than any fault lasts.
const AGAIN: Duration = Duration::from_millis(500);
const TRIES: usize = 240;
/// A Service that nodes are to balance, and how else the web may be reached: by clients of endpoints on their own node
/// only, or not at all from outside.
const BALANCED: &str = "LoadBalancer";
const EXPOSED: [(&str, Option<&str>); 3] =
    [(BALANCED, Some("Cluster")), (BALANCED, Some("Local")), ("ClusterIP", None)];
/// What volumes of the database are called.
const STORE: &str = "store";
/// How often, and after which pauses, it is looked in the end whether pods wait for claims that wait for them.
const LOOKS: usize = 3;
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// What a merge patch is sent as.
const MERGE: &str = "application/merge-patch+json";

const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";
const SETS: &str = "/apis/apps/v1/namespaces/default/statefulsets";
const SERVICES: &str = "/api/v1/namespaces/default/services";
const JOBS: &str = "/apis/batch/v1/namespaces/default/jobs";
/// Where its claims are.
pub(super) const CLAIMS: &str = "/api/v1/namespaces/default/persistentvolumeclaims";
const PODS: &str = "/api/v1/namespaces/default/pods";

/// Reads; null if that fails.
pub(super) async fn get(client: &Client, path: &str) -> Value {
    let request = Request::get(path).body(Vec::new()).expect("a path");
    client.request(request).await.unwrap_or_default()
}

/// The user.
pub struct Apps {
    client: Client,
    clock: Clock,
    rng: Rng,
    trace: Trace,
    jobs: u64,
    changes: u64,
}

impl std::fmt::Debug for Apps {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Apps")
    }
}

fn template(app: &str, policy: &str, container: Value) -> Value {
    json!({
        "metadata": {"labels": {"app": app}},
        "spec": {"restartPolicy": policy, "automountServiceAccountToken": false, "terminationGracePeriodSeconds": 2,
            "volumes": [{"name": "data", "emptyDir": {}}], "containers": [container]},
    })
}

fn container(name: &str) -> Value {
    json!({"name": name, "image": "app:v1", "volumeMounts": [{"name": "data", "mountPath": "/data"}]})
}

fn workload(kind: &str, app: &str, spec: Value) -> Value {
    let mut spec = spec;
    spec["selector"] = json!({"matchLabels": {"app": app}});
    spec["template"] = template(app, "Always", container("c"));
    json!({"apiVersion": "apps/v1", "kind": kind, "metadata": {"name": app}, "spec": spec})
}

/// One whose pods have a volume each, in a directory of the node.
fn stateful(app: &str) -> Value {
    let mut set = workload("StatefulSet", app, json!({"replicas": DB, "serviceName": app}));
    let claim = json!({"storageClassName": "local-path", "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": "1Gi"}}});
    set["spec"]["volumeClaimTemplates"] = json!([{"metadata": {"name": STORE}, "spec": claim}]);
    if let Some(mounts) = set.pointer_mut("/spec/template/spec/containers/0/volumeMounts").and_then(Value::as_array_mut)
    {
        mounts.push(json!({"name": STORE, "mountPath": "/store"}));
    }
    set
}

fn service(app: &str, kind: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": app},
        "spec": {"type": kind, "selector": {"app": app}, "ports": [{"port": 80, "targetPort": 8080}]}})
}

fn job(name: &str) -> Value {
    let mut ends = container(ONCE);
    ends["command"] = json!(["exit", "2", "0"]);
    json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name},
        "spec": {"completions": 2, "parallelism": 2, "backoffLimit": 100, "template": template(name, "Never", ends)}})
}

impl Apps {
    /// Of a user who reaches the API like this.
    #[must_use]
    pub fn new(client: Client, clock: Clock, rng: Rng, trace: Trace) -> Self {
        Self { client, clock, rng, trace, jobs: 0, changes: 0 }
    }

    /// Makes the applications.
    pub async fn make(&mut self) {
        let account = "/api/v1/namespaces/default/serviceaccounts/default";
        while get(&self.client, account).await.is_null() {
            self.pass(AGAIN).await;
        }
        self.send("POST", DEPLOYMENTS, workload("Deployment", "web", json!({"replicas": WEB}))).await;
        self.send("POST", SERVICES, service("web", BALANCED)).await;
        self.send("POST", SETS, stateful("db")).await;
        self.send("POST", SERVICES, service("db", "ClusterIP")).await;
        self.run_job().await;
    }

    /// Changes them for so long.
    pub async fn change_for(&mut self, span: Duration) {
        let end = self.clock.now() + span;
        while self.clock.now() < end {
            self.change().await;
            let pause = Duration::from_millis(self.rng.below(PAUSE_MS_MAX));
            self.pass(pause).await;
        }
    }

    /// Asks for what there is to be in the end.
    pub async fn come_to_rest(&mut self) {
        self.scale(&format!("{DEPLOYMENTS}/web"), WEB).await;
        self.scale(&format!("{SETS}/db"), DB).await;
        self.expose(BALANCED, Some("Cluster")).await;
    }

    /// Deletes pods that wait for claims which wait for them. A pod that had not begun when its claim was deleted never
    /// does, as upstream has it: whoever deletes a claim at such a moment has to delete the pod, too.
    pub async fn free_claims(&mut self) {
        for _ in 0..LOOKS {
            self.pass(LOOK_EVERY).await;
            self.free_claims_once().await;
        }
    }

    async fn free_claims_once(&mut self) {
        let (claims, pods) = (get(&self.client, CLAIMS).await, get(&self.client, PODS).await);
        let items = |list: &Value| list["items"].as_array().cloned().unwrap_or_default();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let going = items(&claims).into_iter().filter(|claim| claim["metadata"]["deletionTimestamp"].is_string());
        let going: Vec<String> = going.map(|claim| text(&claim["metadata"]["name"])).collect();
        for pod in items(&pods) {
            let mut volumes = pod["spec"]["volumes"].as_array().into_iter().flatten();
            let is_held = volumes.any(|volume| going.contains(&text(&volume["persistentVolumeClaim"]["claimName"])));
            let mut containers = pod["status"]["containerStatuses"].as_array().into_iter().flatten();
            let has_begun = containers.any(|container| container["containerID"].is_string());
            if is_held && !has_begun && pod["metadata"]["deletionTimestamp"].is_null() {
                self.send("DELETE", &format!("{PODS}/{}", text(&pod["metadata"]["name"])), json!({})).await;
            }
        }
    }

    async fn change(&mut self) {
        match self.rng.below(10) {
            0 | 1 => {
                let replicas = 1 + self.rng.below(5);
                self.scale(&format!("{DEPLOYMENTS}/web"), replicas).await;
            }
            2 => {
                let replicas = self.rng.below(4);
                self.scale(&format!("{SETS}/db"), replicas).await;
            }
            3 => self.roll(&format!("{DEPLOYMENTS}/web")).await,
            4 => self.roll(&format!("{SETS}/db")).await,
            5 => self.delete_a_pod().await,
            6 => self.run_job().await,
            7 => {
                let (kind, policy) = EXPOSED[usize::try_from(self.rng.below(3)).unwrap_or_default()];
                self.expose(kind, policy).await;
            }
            8 => {
                // A pod that uses a claim keeps it until it goes. Who wants another volume at once deletes both.
                let (number, has_pod_go) = (self.rng.below(4), self.rng.below(2) == 0);
                self.send("DELETE", &format!("{CLAIMS}/{STORE}-db-{number}"), json!({})).await;
                if has_pod_go {
                    self.send("DELETE", &format!("{PODS}/db-{number}"), json!({})).await;
                }
            }
            _ => {
                let number = self.rng.below(self.jobs.max(1));
                let background = json!({"propagationPolicy": "Background"});
                self.send("DELETE", &format!("{JOBS}/job-{number}"), background).await;
            }
        }
    }

    async fn scale(&mut self, path: &str, replicas: u64) {
        self.send("PATCH", path, json!({"spec": {"replicas": replicas}})).await;
    }

    /// A new template, so that all pods are replaced.
    async fn roll(&mut self, path: &str) {
        self.changes += 1;
        let annotations = json!({"change": self.changes.to_string()});
        self.send("PATCH", path, json!({"spec": {"template": {"metadata": {"annotations": annotations}}}})).await;
    }

    /// Has the web reached from outside, by whoever the policy lets in, or not any more.
    async fn expose(&mut self, kind: &str, policy: Option<&str>) {
        let change = json!({"spec": {"type": kind, "externalTrafficPolicy": policy}});
        self.send("PATCH", &format!("{SERVICES}/web"), change).await;
    }

    async fn run_job(&mut self) {
        let name = format!("job-{}", self.jobs);
        self.jobs += 1;
        self.send("POST", JOBS, job(&name)).await;
    }

    async fn delete_a_pod(&mut self) {
        let draw = self.rng.next_u64();
        let found = get(&self.client, PODS).await;
        let pods = found["items"].as_array().cloned().unwrap_or_default();
        let place = usize::try_from(draw % (pods.len().max(1) as u64)).unwrap_or_default();
        let name = pods.get(place).and_then(|pod| pod["metadata"]["name"].as_str());
        if let Some(name) = name {
            self.send("DELETE", &format!("{PODS}/{name}"), json!({})).await;
        }
    }

    /// Asks until it is done, or was done already.
    async fn send(&mut self, method: &str, path: &str, body: Value) {
        for attempt in 0..TRIES {
            let kind = if method == "PATCH" { MERGE } else { "application/json" };
            let request = Request::builder().method(method).uri(path).header("content-type", kind);
            let request = request.body(body.to_string().into_bytes()).expect("a request");
            let outcome = match self.client.request::<Value>(request).await {
                Ok(_) => "done".to_owned(),
                Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) && attempt + 1 < TRIES => {
                    format!("{} {}", status.code, status.reason)
                }
                Err(error) => {
                    self.trace.line(&format!("{method} {path}: {error}"));
                    self.pass(AGAIN).await;
                    continue;
                }
            };
            self.trace.line(&format!("{method} {path}: {outcome}"));
            return;
        }
        self.trace.line(&format!("{method} {path}: given up"));
    }

    fn pass(&self, span: Duration) -> impl Future<Output = ()> + use<> {
        let clock = self.clock.clone();
        async move { clock.sleep_until(clock.now() + span).await }
    }
}
