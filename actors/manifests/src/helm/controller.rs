//! One look at a chart.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use k3sd_client::controller::{Controller, Failure, Turn};
use k3sd_client::events::Recorder;
use k3sd_client::informer::{Informer, ObjectKey};
use k3sd_objects::read::{field, text};
use k3sd_runtime::Clock;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Pod, Secret};
use serde_json::{Value, json};

use super::CONTROLLER;
use super::job::{CHART_LABEL, ChartObjects, objects, variable};
use super::types::{ChartCondition, ChartStatus, GROUP, HelmChart, HelmChartConfig};
use super::values::{CONFIG_HASH, Release, config_hash, label_of, newest};
use crate::api::{Cluster, Gvk, Key, PatchType, Select, Served, code};
use crate::apply::{Applied, Existing, Owner, Set};
use crate::config::HelmConfig;
use crate::parse::Manifest;

/// Annotation: nobody acts on the chart.
const UNMANAGED: &str = "helmcharts.helm.cattle.io/unmanaged";
/// Annotation: who acts on the chart.
const MANAGED_BY: &str = "helmcharts.cattle.io/managed-by";
/// Holds a chart up until its release is gone.
const FINALIZER: &str = "wrangler.cattle.io/on-helm-chart-remove";
/// The set of objects of a chart that is installed, and of one that is deleted.
const INSTALL_SET: &str = "helm-controller-chart-registration";
const REMOVE_SET: &str = "helm-chart-registration";
/// The type of Secrets that hold releases.
const RELEASE_TYPE: &str = "helm.sh/release.v1";
/// How soon is looked again at what waits for something that may not be told of.
const WAIT: Duration = Duration::from_secs(2);
/// Why containers wait whose image isn't there.
const NO_IMAGE: [&str; 3] = ["ImagePullBackOff", "ErrImageNeverPull", "InvalidImageName"];

/// What a look needs.
pub(super) struct Charts {
    pub cluster: Cluster,
    pub clock: Clock,
    pub recorder: Recorder,
    pub helm: HelmConfig,
    pub charts: Informer<HelmChart>,
    pub configs: Informer<HelmChartConfig>,
    pub jobs: Informer<Job>,
    pub pods: Informer<Pod>,
    pub secrets: Informer<Secret>,
}

/// Where a job stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// There is none.
    None,
    /// Its controller has seen it, and it never ran.
    Ready,
    Complete,
    Failed,
    /// Anything else.
    Underway,
}

fn stage(job: Option<&Job>) -> Stage {
    let Some(job) = job else { return Stage::None };
    let conditions = job.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let mut is = conditions.filter(|told| told.status == "True").map(|told| told.type_.as_str());
    let is_suspended = job.spec.as_ref().is_some_and(|spec| spec.suspend == Some(true));
    match is.find(|kind| matches!(*kind, "Complete" | "Failed" | "Suspended")) {
        Some("Complete") => Stage::Complete,
        Some("Failed") => Stage::Failed,
        // It was made suspended; a later generation may have run already.
        Some(_) if is_suspended && job.metadata.generation == Some(1) => Stage::Ready,
        _ => Stage::Underway,
    }
}

/// The hash of what a job was made of.
fn hash_of(job: &Job) -> Option<&str> {
    let template = &job.spec.as_ref()?.template;
    let annotation = template.metadata.as_ref()?.annotations.as_ref()?.get(CONFIG_HASH)?;
    annotation.strip_prefix("SHA256=")
}

/// Where our finalizer is among those of a chart.
fn position(chart: &HelmChart) -> Option<usize> {
    chart.metadata.finalizers.iter().flatten().position(|finalizer| finalizer == FINALIZER)
}

/// Whether this controller acts on a chart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    Ours,
    Others,
    /// Nobody's yet.
    Free,
}

fn standing(chart: &HelmChart) -> Standing {
    let is_empty = chart.spec.chart.is_empty() && chart.spec.chart_content.is_empty();
    if is_empty || chart.annotation(UNMANAGED).is_some() {
        return Standing::Others;
    }
    match chart.annotation(MANAGED_BY) {
        Some(CONTROLLER) => Standing::Ours,
        Some(_) => Standing::Others,
        None => Standing::Free,
    }
}

impl Controller for Charts {
    type Key = ObjectKey;

    async fn reconcile(&self, key: &ObjectKey, turn: &mut Turn) -> Result<(), Failure> {
        let Some(chart) = self.charts.snapshot().and_then(|all| all.get(&key.namespace, &key.name).cloned()) else {
            return Ok(());
        };
        let finalizers = chart.metadata.finalizers.as_deref().unwrap_or_default();
        let is_held = position(&chart).is_some();
        match standing(&chart) {
            Standing::Others => return Ok(()),
            Standing::Free | Standing::Ours if chart.is_leaving() && !is_held => return Ok(()),
            Standing::Ours if is_held => {}
            _ => return self.claim(&chart, finalizers, is_held, turn).await,
        }
        self.tell_of_images(&chart);
        if !matches!(chart.spec.helm_version.as_str(), "" | "v3") {
            return self.unsupported(&chart, turn).await;
        }
        let config = self.configs.snapshot().and_then(|all| all.get(&key.namespace, &key.name).cloned());
        let job = self.jobs.snapshot().and_then(|all| all.get(chart.namespace(), &chart.job_name()).cloned());
        if stage(job.as_deref()) == Stage::Ready {
            let text = format!("Resumed synced Job {}/{}", chart.namespace(), chart.job_name());
            return self.suspend(&chart, false, "ResumeJob", text).await;
        }
        if chart.is_leaving() {
            self.remove(&chart, job.as_deref(), turn).await
        } else {
            self.install(&chart, config.as_deref(), job.as_deref(), turn).await
        }
    }
}

impl Charts {
    async fn kind(&self, gvk: Gvk) -> Result<Served, Failure> {
        let found = self.cluster.served(&gvk).await?;
        found.ok_or_else(|| Failure::other(format!("{gvk} is not served")))
    }

    async fn own_kind(&self) -> Result<Served, Failure> {
        self.kind(Gvk::new("helm.cattle.io/v1", "HelmChart")).await
    }

    /// Says on a chart that it is ours, and holds it.
    async fn claim(
        &self,
        chart: &HelmChart,
        finalizers: &[String],
        is_held: bool,
        turn: &mut Turn,
    ) -> Result<(), Failure> {
        let mut patch = json!({ "metadata": {
            "resourceVersion": chart.metadata.resource_version,
            "annotations": { (MANAGED_BY): CONTROLLER },
        } });
        if !is_held {
            let held: Vec<&str> = finalizers.iter().map(String::as_str).chain([FINALIZER]).collect();
            patch["metadata"]["finalizers"] = json!(held);
        }
        self.write(chart, &patch, turn).await
    }

    async fn write(&self, chart: &HelmChart, patch: &Value, turn: &mut Turn) -> Result<(), Failure> {
        let (kind, key) = (self.own_kind().await?, key_of(chart));
        let written = self.cluster.patch(&kind, &key, PatchType::Merge, patch).await?;
        self.wrote(written, turn);
        Ok(())
    }

    fn wrote(&self, written: Value, turn: &mut Turn) {
        if let Ok(chart) = serde_json::from_value::<HelmChart>(written) {
            turn.wrote(&self.charts, &chart);
        }
    }

    async fn set_status(&self, chart: &HelmChart, status: ChartStatus, turn: &mut Turn) -> Result<(), Failure> {
        if chart.status == status {
            return Ok(());
        }
        let (kind, key) = (self.own_kind().await?, key_of(chart));
        let written = self.cluster.patch_status(&kind, &key, &json!({ "status": status })).await?;
        self.wrote(written, turn);
        Ok(())
    }

    async fn unsupported(&self, chart: &HelmChart, turn: &mut Turn) -> Result<(), Failure> {
        if chart.is_leaving() {
            return self.release(chart).await;
        }
        let status = ChartStatus {
            job_name: chart.status.job_name.clone(),
            conditions: vec![
                condition("JobCreated", false, "", ""),
                condition("Failed", true, "Unsupported version", "Only Helm v3 charts are supported"),
            ],
        };
        if chart.status != status {
            let version = &chart.spec.helm_version;
            let text = format!("Unsupported Helm version {version}: only v3 charts are supported");
            self.recorder.warning(chart, "UnsupportedVersion", text);
        }
        self.set_status(chart, status, turn).await
    }

    /// Says on a chart when an image of its job can't be had, and what to do.
    fn tell_of_images(&self, chart: &HelmChart) {
        let Some(pods) = self.pods.snapshot() else { return };
        let of_chart = |pod: &&std::sync::Arc<Pod>| {
            pod.metadata.labels.iter().flatten().any(|(name, value)| name == CHART_LABEL && value == chart.name())
        };
        for pod in pods.of_namespace(chart.namespace()).filter(of_chart) {
            let statuses = pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
            for status in statuses {
                let waiting = status.state.as_ref().and_then(|state| state.waiting.as_ref());
                let reason = waiting.and_then(|waiting| waiting.reason.as_deref()).unwrap_or_default();
                if NO_IMAGE.contains(&reason) {
                    let text = format!(
                        "Job {}/{} can't run because its image {} can't be pulled; put an archive of it into the \
                         directory agent/images of the node, or name a mirror of its registry in registries.yaml",
                        chart.namespace(),
                        chart.job_name(),
                        status.image,
                    );
                    self.recorder.warning(chart, "JobImagePullFailed", text);
                    return;
                }
            }
        }
    }

    async fn install(
        &self,
        chart: &HelmChart,
        config: Option<&HelmChartConfig>,
        job: Option<&Job>,
        turn: &mut Turn,
    ) -> Result<(), Failure> {
        let stage = stage(job);
        let name = format!("{}/{}", chart.namespace(), chart.job_name());
        let created = condition("JobCreated", true, "Job created", &format!("Applying HelmChart using Job {name}"));
        let wanted = objects(chart, config, &self.helm);
        let hash = self.hash(chart, config, &wanted);
        let is_same = job.and_then(hash_of) == Some(hash.as_str());
        if stage == Stage::Failed && is_same {
            let text = "Job has reached configured number of retries without succeeding";
            let status = ChartStatus {
                job_name: chart.job_name(),
                conditions: vec![created, condition("Failed", true, "Job failed", text)],
            };
            if chart.status != status {
                self.recorder.warning(chart, "JobFailed", text);
            }
            return self.set_status(chart, status, turn).await;
        }
        if is_same && stage == Stage::Underway {
            return Ok(());
        }
        let release = self.newest(chart).await?;
        if stage == Stage::Complete && release.status == "deployed" && release.hash == label_of(&hash) {
            return Ok(());
        }
        let status =
            ChartStatus { job_name: chart.job_name(), conditions: vec![created, condition("Failed", false, "", "")] };
        self.set_status(chart, status, turn).await?;
        self.end_job(chart, job, stage).await?;
        let text = format!("Applying HelmChart from {} using Job {name} ", chart.source());
        let applied = self.apply(chart, INSTALL_SET, wanted.all(&hash, release.revision), ("ApplyJob", text)).await?;
        settle(applied, turn)
    }

    /// Deletes what the chart installed, and then lets it go.
    async fn remove(&self, chart: &HelmChart, job: Option<&Job>, turn: &mut Turn) -> Result<(), Failure> {
        let (stage, name) = (stage(job), format!("{}/{}", chart.namespace(), chart.job_name()));
        if stage == Stage::Complete {
            let text = format!("Uninstalled HelmChart using Job {name}, removing resources");
            let applied = self.apply(chart, REMOVE_SET, Vec::new(), ("RemoveJob", text)).await?;
            settle(applied, turn)?;
            return self.release(chart).await;
        }
        let wanted = objects(chart, None, &self.helm);
        let hash = self.hash(chart, None, &wanted);
        if job.and_then(hash_of) == Some(hash.as_str()) || !self.is_held(chart).await? {
            return Ok(());
        }
        let release = self.newest(chart).await?;
        self.set_status(chart, ChartStatus { job_name: chart.job_name(), ..chart.status.clone() }, turn).await?;
        self.end_job(chart, job, stage).await?;
        let text = format!("Uninstalling HelmChart using Job {name} ");
        let applied = self.apply(chart, REMOVE_SET, wanted.all(&hash, release.revision), ("RemoveJob", text)).await?;
        if applied.errors.iter().any(|error| error.contains("because it is being terminated")) {
            // Its namespace goes, and everything in it; there is nobody to wait for.
            return self.release(chart).await;
        }
        settle(applied, turn)
    }

    /// Whether a chart still waits for us. The copies show late that it went, and what it had must not be made again.
    async fn is_held(&self, chart: &HelmChart) -> Result<bool, Failure> {
        let found = self.cluster.get(&self.own_kind().await?, &key_of(chart)).await?;
        let found = found.and_then(|found| serde_json::from_value::<HelmChart>(found).ok());
        Ok(found.is_some_and(|found| found.metadata.uid == chart.metadata.uid && position(&found).is_some()))
    }

    /// Lets a chart go.
    async fn release(&self, chart: &HelmChart) -> Result<(), Failure> {
        let Some(at) = position(chart) else { return Ok(()) };
        let path = format!("/metadata/finalizers/{at}");
        let patch = json!([
            { "op": "test", "path": path, "value": FINALIZER },
            { "op": "remove", "path": path },
        ]);
        match self.cluster.patch(&self.own_kind().await?, &key_of(chart), PatchType::Json, &patch).await {
            Ok(_) => Ok(()),
            Err(error) if code(&error) == Some(404) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Stops a job that is to be replaced; its pods end meanwhile.
    async fn end_job(&self, chart: &HelmChart, job: Option<&Job>, stage: Stage) -> Result<(), Failure> {
        let runs = job.and_then(|job| job.spec.as_ref()).is_some_and(|spec| spec.suspend != Some(true));
        if stage != Stage::Underway || !runs {
            return Ok(());
        }
        let text = format!("Suspended Job {}/{} for delete", chart.namespace(), chart.job_name());
        self.suspend(chart, true, "SuspendJob", text).await
    }

    /// Suspends a job, or resumes it; says so if that is a change.
    async fn suspend(&self, chart: &HelmChart, suspend: bool, reason: &str, text: String) -> Result<(), Failure> {
        let kind = self.kind(Gvk::new("batch/v1", "Job")).await?;
        let key = Key::new(chart.namespace(), &chart.job_name());
        let patch = json!([
            { "op": "test", "path": "/spec/suspend", "value": !suspend },
            { "op": "replace", "path": "/spec/suspend", "value": suspend },
        ]);
        match self.cluster.patch(&kind, &key, PatchType::Json, &patch).await {
            Ok(_) => self.recorder.normal(chart, reason, text),
            // It is so already, or the job is gone; the copies don't show it yet.
            Err(error) if matches!(code(&error), Some(404 | 409 | 422)) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    fn hash(&self, chart: &HelmChart, config: Option<&HelmChartConfig>, wanted: &ChartObjects) -> String {
        let secrets = self.secrets.snapshot();
        let watched = chart.watched_secrets(config).filter(|_| !chart.is_leaving());
        let found = watched.filter_map(|watched| secrets.as_ref()?.get(chart.namespace(), &watched.name));
        let found: Vec<Value> = found.filter_map(|secret| serde_json::to_value(&**secret).ok()).collect();
        config_hash(&wanted.job, wanted.content.iter().chain(&wanted.values).chain(&found))
    }

    /// The newest release of a chart.
    async fn newest(&self, chart: &HelmChart) -> Result<Release, Failure> {
        let labels = format!("owner=helm,name={}", chart.name());
        let in_maps = chart.driver() == "configmap";
        let kind = self.kind(Gvk::new("v1", if in_maps { "ConfigMap" } else { "Secret" })).await?;
        let fields = if in_maps { String::new() } else { format!("type={RELEASE_TYPE}") };
        let select = Select { namespace: chart.target_namespace(), labels: &labels, fields: &fields };
        Ok(newest(self.cluster.list(&kind, select).await?.iter()))
    }

    async fn apply(
        &self,
        chart: &HelmChart,
        set: &str,
        objects: Vec<Value>,
        (reason, text): (&str, String),
    ) -> Result<Applied, Failure> {
        let said = AtomicBool::new(false);
        let announce = || {
            if !said.swap(true, Relaxed) {
                self.recorder.normal(chart, reason, text.as_str());
            }
        };
        let job = Gvk::new("batch/v1", "Job");
        let core = ["ConfigMap", "Secret", "ServiceAccount"].map(|kind| Gvk::new("v1", kind));
        let binding = Gvk::new("rbac.authorization.k8s.io/v1", "ClusterRoleBinding");
        let set = Set {
            cluster: &self.cluster,
            clock: &self.clock,
            existing: &Existing::new(1),
            owner: Owner { id: set.to_owned(), gvk: Gvk::new("helm.cattle.io/v1", "HelmChart"), key: key_of(chart) },
            prune: core.into_iter().chain([job.clone(), binding]).collect(),
            prunes: true,
            reference: Some(json!({
                "apiVersion": format!("{GROUP}/v1"),
                "kind": "HelmChart",
                "name": chart.name(),
                "uid": chart.metadata.uid,
                "controller": false,
                "blockOwnerDeletion": false,
            })),
            replaced: Some(job),
            announce: &announce,
        };
        Ok(set.apply(&objects.into_iter().map(manifest).collect::<Vec<_>>()).await)
    }
}

impl ChartObjects {
    /// All of them, the job with its hash and the release that it is to find.
    fn all(self, hash: &str, revision: i64) -> Vec<Value> {
        let Self { mut job, values, content, account, binding } = self;
        let template = &mut job["spec"]["template"];
        template["metadata"]["annotations"] = json!({ (CONFIG_HASH): format!("SHA256={hash}") });
        if let Some(variables) = template["spec"]["containers"][0]["env"].as_array_mut() {
            variables.push(variable("EXPECTED_RELEASE_REVISION", &revision.to_string()));
            variables.push(variable("CONFIG_HASH", label_of(hash)));
        }
        values.into_iter().chain(content).chain([account, binding, job]).collect()
    }
}

fn manifest(object: Value) -> Manifest {
    let gvk = Gvk::new(text(&object, "apiVersion"), text(&object, "kind"));
    let metadata = field(&object, "metadata");
    Manifest { gvk, key: Key::new(text(metadata, "namespace"), text(metadata, "name")), object }
}

fn key_of(chart: &HelmChart) -> Key {
    Key::new(chart.namespace(), chart.name())
}

fn condition(kind: &str, is: bool, reason: &str, message: &str) -> ChartCondition {
    let status = if is { "True" } else { "False" };
    ChartCondition { kind: kind.into(), status: status.into(), reason: reason.into(), message: message.into() }
}

/// What failed is tried again later; what waits is looked at again soon.
fn settle(applied: Applied, turn: &mut Turn) -> Result<(), Failure> {
    if !applied.errors.is_empty() {
        return Err(Failure::other(applied.errors.join(", ")));
    }
    if !applied.waits.is_empty() {
        tracing::debug!(waits = applied.waits.join(", "), "a chart waits");
        turn.again(WAIT);
    }
    Ok(())
}
