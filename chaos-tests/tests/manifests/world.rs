//! A cluster with a directory of manifests.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use chaos_tests::cluster::{Cluster, Plane};
use k3sd_client::api::Connect;
use k3sd_client::election::Leading;
use k3sd_manifests::{HelmConfig, ManifestsConfig, ManifestsDeps, Packaged, Variables};
use k3sd_runtime::{ChildSpec, Clock, subtree};
use k8s_openapi::api::core::v1::Event;
use kube::Api;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams, PostParams};
use serde_json::Value;
use tempfile::TempDir;

/// Label and annotations that K3s writes.
pub(crate) const HASH: &str = "objectset.rio.cattle.io/hash";
pub(crate) const APPLIED: &str = "objectset.rio.cattle.io/applied";
/// How long commands to supervisors may take.
const LIMIT: Duration = Duration::from_secs(20);

/// The cluster, and the directory, which goes with it.
pub(crate) struct World {
    pub(crate) cluster: Cluster,
    pub(crate) dir: PathBuf,
    _place: TempDir,
}

/// Settings of a test.
pub(crate) fn config(dir: &Path) -> ManifestsConfig {
    ManifestsConfig {
        dir: dir.to_owned(),
        packaged: Vec::new(),
        variables: Variables::default(),
        disabled: BTreeSet::new(),
        skips: BTreeSet::new(),
        node_name: "server".to_owned(),
        helm: None,
    }
}

pub(crate) fn helm() -> HelmConfig {
    HelmConfig::new(6443, None, |_| None)
}

pub(crate) fn packaged(path: &str, text: &str) -> Packaged {
    Packaged { path: path.to_owned(), text: text.to_owned() }
}

fn child(name: &str, config: ManifestsConfig, connect: Connect, clock: Clock) -> ChildSpec {
    let deps = ManifestsDeps { connect, leading: Leading::always(), clock };
    subtree(name, k3sd_manifests::tree(config, deps).expect("the settings make sense").spec)
}

impl World {
    /// With these files from the start.
    pub(crate) async fn start(files: &[(&str, &str)], change: impl FnOnce(&mut ManifestsConfig)) -> Self {
        let place = tempfile::tempdir().expect("a directory");
        let dir = place.path().join("server/manifests");
        fs::create_dir_all(&dir).expect("a directory");
        for (path, text) in files {
            put(&dir, path, text);
        }
        let mut settings = config(&dir);
        change(&mut settings);
        let plane = Plane::new(Clock::system());
        let connect = plane.identities().user("system:k3s-supervisor", &["system:masters"]);
        let manifests = child("manifests", settings, connect, plane.clock().clone());
        let cluster = plane.start(vec![manifests]).await;
        Self { cluster, dir, _place: place }
    }

    /// Stops the controllers and starts them with other settings, as a restart of the server does.
    pub(crate) async fn restart(&self, change: impl FnOnce(&mut ManifestsConfig)) {
        let loops = self.cluster.system().supervisor("loops").expect("there are loops");
        loops.remove(LIMIT, "manifests").await.expect("they stop");
        let mut settings = config(&self.dir);
        change(&mut settings);
        let connect = self.cluster.identities().user("system:k3s-supervisor", &["system:masters"]);
        let manifests = child("manifests", settings, connect, self.cluster.clock().clone());
        loops.add(LIMIT, manifests).await.expect("they start");
    }

    pub(crate) fn put(&self, path: &str, text: &str) {
        put(&self.dir, path, text);
    }

    pub(crate) fn remove(&self, path: &str) {
        fs::remove_file(self.dir.join(path)).expect("it is there");
    }

    pub(crate) fn api(&self, api_version: &str, kind: &str, namespace: &str) -> Api<DynamicObject> {
        let (group, version) = api_version.rsplit_once('/').unwrap_or(("", api_version));
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
        match namespace {
            "" => Api::all_with(self.cluster.admin(), &resource),
            namespace => Api::namespaced_with(self.cluster.admin(), namespace, &resource),
        }
    }

    /// An object as JSON; null if it isn't there, or the API is away.
    pub(crate) async fn get(&self, api_version: &str, kind: &str, key: &str) -> Value {
        let (namespace, name) = key.split_once('/').unwrap_or(("", key));
        let found = self.api(api_version, kind, namespace).get_opt(name).await.ok().flatten();
        found.map_or(Value::Null, |object| serde_json::to_value(object).expect("it is JSON"))
    }

    pub(crate) async fn map(&self, name: &str) -> Value {
        self.get("v1", "ConfigMap", &format!("default/{name}")).await
    }

    pub(crate) async fn addon(&self, name: &str) -> Value {
        self.get("k3s.cattle.io/v1", "Addon", &format!("kube-system/{name}")).await
    }

    pub(crate) async fn make(&self, api_version: &str, kind: &str, namespace: &str, object: Value) -> Value {
        let object: DynamicObject = serde_json::from_value(object).expect("an object");
        let made = self.api(api_version, kind, namespace).create(&PostParams::default(), &object).await;
        serde_json::to_value(made.expect("it may be made")).expect("it is JSON")
    }

    pub(crate) async fn merge(&self, api_version: &str, kind: &str, key: &str, patch: Value) {
        let (namespace, name) = key.split_once('/').unwrap_or(("", key));
        let api = self.api(api_version, kind, namespace);
        api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.expect("it may be changed");
    }

    pub(crate) async fn merge_status(&self, api_version: &str, kind: &str, key: &str, patch: Value) {
        let (namespace, name) = key.split_once('/').unwrap_or(("", key));
        let api = self.api(api_version, kind, namespace);
        api.patch_status(name, &PatchParams::default(), &Patch::Merge(patch)).await.expect("it may be changed");
    }

    /// Waits until the file of this name was applied as it is on the disk.
    pub(crate) async fn applied(&self, path: &str) {
        let name = path.rsplit('/').next().and_then(|name| name.split('.').next()).expect("a name");
        let wanted = sha256(&fs::read(self.dir.join(path)).expect("it is there"));
        let holds = async || self.addon(name).await["spec"]["checksum"] == wanted.as_str();
        self.cluster.wait_until(&format!("{path} is applied"), holds).await;
    }

    /// Messages of Events about an object of this name, by reason.
    pub(crate) async fn events(&self, name: &str) -> BTreeMap<String, Vec<String>> {
        let api: Api<Event> = Api::all(self.cluster.admin());
        let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for event in api.list(&ListParams::default()).await.expect("a list") {
            if event.involved_object.name.as_deref() == Some(name) {
                found.entry(event.reason.unwrap_or_default()).or_default().push(event.message.unwrap_or_default());
            }
        }
        found
    }

    /// Waits for an Event.
    pub(crate) async fn told(&self, name: &str, reason: &str) -> String {
        let mut text = String::new();
        let holds = async || {
            text = self.events(name).await.get(reason).map(|texts| texts.join("\n")).unwrap_or_default();
            !text.is_empty()
        };
        self.cluster.wait_until(&format!("{reason} is told of {name}"), holds).await;
        text
    }

    /// How often each resource was written, as the API counts it.
    pub(crate) async fn writes(&self) -> BTreeMap<String, u64> {
        let request = http::Request::get("/metrics").body(Vec::new()).expect("a request");
        let metrics = self.cluster.admin().request_text(request).await.expect("metrics");
        let mut counts = BTreeMap::new();
        for line in metrics.lines().filter(|line| line.starts_with("apiserver_request_total{")) {
            let label = |name: &str| {
                let (_, rest) = line.split_once(&format!("{name}=\"")).unwrap_or_default();
                rest.split_once('"').map_or("", |(value, _)| value)
            };
            let (verb, resource) = (label("verb"), label("resource"));
            if matches!(verb, "GET" | "LIST" | "WATCH") {
                continue;
            }
            let count: u64 = line.rsplit_once(' ').and_then(|(_, count)| count.parse().ok()).expect("a number");
            *counts.entry(format!("{verb} {resource}")).or_default() += count;
        }
        counts
    }
}

/// Writes a file as an editor does: all at once.
fn put(dir: &Path, path: &str, text: &str) {
    let path = dir.join(path);
    fs::create_dir_all(path.parent().expect("it has one")).expect("a directory");
    let new = path.with_extension("tmp");
    fs::write(&new, text).expect("it can be written");
    fs::rename(new, path).expect("it can be renamed");
}

fn sha256(bytes: &[u8]) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, bytes);
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A ConfigMap in YAML.
pub(crate) fn config_map(name: &str, value: &str) -> String {
    format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}}}\ndata: {{value: \"{value}\"}}\n---\n")
}
