//! Deletes pods that nobody waits for: those that have ended when there are very many, those of nodes that are gone or
//! down for good, and those that are to be deleted and never had a node.

pub mod core;

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use futures_util::{StreamExt as _, TryStreamExt as _};
use k3sd_client::controller::indexes::{BY_NODE, by_node};
use k3sd_client::controller::setup::Setup;
use k3sd_client::controller::{Controller, Failure, Loop, Turn};
use k3sd_client::informer::{Index, Informer, ObjectKey};
use k3sd_runtime::{ChildSpec, Moment};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::{Api, ResourceExt as _};
use serde_json::json;
use tokio::sync::watch;

use self::core::{is_out_of_service, is_terminated, is_unscheduled_terminating, node_of, surplus};

/// How long a node may be missing before its pods are; upstream's number.
const QUARANTINE: Duration = Duration::from_secs(40);
/// Pods that are deleted side by side.
const DELETIONS_AT_ONCE: usize = 10;
/// Pods that have ended and are kept; upstream's number.
const KEPT_MAX: usize = 12_500;
/// Finds pods that have ended.
const TERMINATED: &str = "terminated";
/// What is said about a pod whose node is gone.
const NODE_GONE: &str = "PodGC: node no longer exists";

/// What is looked at.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Place {
    /// A pod that is to be deleted and has no node.
    Pod(ObjectKey),
    /// The pods of a node that may be gone or down.
    Node(String),
    /// All pods that have ended.
    Terminated,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pod(key) => key.fmt(f),
            Self::Node(name) => write!(f, "pods of {name}"),
            Self::Terminated => f.write_str("terminated pods"),
        }
    }
}

struct PodCollector {
    api: kube::Client,
    pods: Informer<Pod>,
    nodes: Informer<Node>,
    kept_max: usize,
    /// Since when nodes are missing, as far as this process knows: whoever begins anew waits anew.
    missing: watch::Sender<BTreeMap<String, Moment>>,
}

/// The loop.
pub fn collector(setup: &mut Setup<'_>) -> ChildSpec {
    let texts = |pod: &Pod| if is_terminated(pod) { vec![String::new()] } else { Vec::new() };
    let terminated = Index { name: TERMINATED, texts };
    let (pods, nodes) = (setup.informers.indexed(vec![by_node(), terminated]), setup.informers.informer::<Node>());
    let controller = PodCollector {
        api: setup.connect("pod-garbage-collector").client(),
        pods: pods.clone(),
        nodes: nodes.clone(),
        kept_max: setup.config.terminated_pods_max.unwrap_or(KEPT_MAX),
        missing: watch::Sender::default(),
    };
    let known = nodes.clone();
    Loop::new(controller, setup.leading.clone())
        .watch(&pods, move |old, new, keys| {
            let Some(pod) = new else { return };
            if is_terminated(pod) && !old.is_some_and(is_terminated) {
                keys.push(Place::Terminated);
            }
            let node = node_of(pod);
            if is_unscheduled_terminating(pod) {
                keys.push(Place::Pod(ObjectKey::of(pod)));
            } else if !node.is_empty() {
                let shown = known.snapshot();
                let node_is = shown.as_ref().and_then(|shown| shown.get("", node));
                let goes = pod.metadata.deletion_timestamp.is_some();
                if node_is.is_none_or(|node| goes && is_out_of_service(node)) {
                    keys.push(Place::Node(node.to_owned()));
                }
            }
        })
        .watch(&nodes, |_, new, keys| {
            keys.extend(new.filter(|node| is_out_of_service(node)).map(|node| Place::Node(node.name_any())));
        })
        .watch(&nodes, |old, new, keys| {
            if let (Some(old), None) = (old, new) {
                keys.push(Place::Node(old.name_any()));
            }
        })
        .child("pod-garbage-collector")
}

impl Controller for PodCollector {
    type Key = Place;

    async fn reconcile(&self, key: &Place, turn: &mut Turn) -> Result<(), Failure> {
        let Some(pods) = self.pods.snapshot() else { return Ok(()) };
        match key {
            Place::Pod(key) => match pods.get(&key.namespace, &key.name) {
                Some(pod) if is_unscheduled_terminating(pod) => self.remove(pod, None, turn).await,
                _ => Ok(()),
            },
            Place::Terminated => {
                let terminated = pods.by(TERMINATED, "").map(|pod| &**pod);
                self.remove_all(surplus(terminated, self.kept_max), None, turn).await
            }
            Place::Node(name) => {
                let on_node = || pods.by(BY_NODE, name).map(|pod| &**pod);
                let node = self.nodes.snapshot().and_then(|nodes| nodes.get("", name).cloned());
                if let Some(node) = node {
                    self.missing.send_if_modified(|missing| missing.remove(name).is_some());
                    let goes = |pod: &&Pod| pod.metadata.deletion_timestamp.is_some();
                    let stuck = if is_out_of_service(&node) { on_node().filter(goes).collect() } else { Vec::new() };
                    return self.remove_all(stuck, None, turn).await;
                }
                let orphans: Vec<&Pod> = on_node().collect();
                if orphans.is_empty() {
                    self.missing.send_if_modified(|missing| missing.remove(name).is_some());
                    return Ok(());
                }
                let (now, mut since) = (turn.moment(), None);
                self.missing.send_modify(|missing| since = Some(*missing.entry(name.clone()).or_insert(now)));
                let waited = now.since(since.unwrap_or(now));
                if waited < QUARANTINE {
                    turn.again(QUARANTINE - waited);
                    return Ok(());
                }
                let nodes: Api<Node> = Api::all(self.api.clone());
                if nodes.get_metadata_opt(name).await?.is_some() {
                    // The copy will show it.
                    return Ok(());
                }
                self.remove_all(orphans, Some(NODE_GONE), turn).await?;
                self.missing.send_modify(|missing| _ = missing.remove(name));
                Ok(())
            }
        }
    }
}

impl PodCollector {
    async fn remove_all(&self, pods: Vec<&Pod>, why: Option<&str>, turn: &mut Turn) -> Result<(), Failure> {
        let now = turn.now();
        let mut removals = Vec::new();
        for pod in &pods {
            removals.push(self.force(pod, why, now));
        }
        let outcome =
            futures_util::stream::iter(removals).buffer_unordered(DELETIONS_AT_ONCE).try_collect::<()>().await;
        pods.iter().for_each(|pod| turn.deleted(&self.pods, *pod));
        outcome
    }

    async fn remove(&self, pod: &Pod, why: Option<&str>, turn: &mut Turn) -> Result<(), Failure> {
        self.force(pod, why, turn.now()).await
    }

    /// Marks a pod as failed, unless it has ended, and deletes it at once.
    async fn force(&self, pod: &Pod, why: Option<&str>, now: jiff::Timestamp) -> Result<(), Failure> {
        let api: Api<Pod> = Api::namespaced(self.api.clone(), &pod.namespace().unwrap_or_default());
        let (name, uid) = (pod.name_any(), pod.metadata.uid.clone());
        if !is_terminated(pod) {
            let conditions: Vec<_> = why
                .map(|message| {
                    json!({"type": "DisruptionTarget", "status": "True", "reason": "DeletionByPodGC", "message": message,
                        "lastTransitionTime": now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()})
                })
                .into_iter()
                .collect();
            let status = json!({"metadata": {"uid": uid}, "status": {"phase": "Failed", "conditions": conditions}});
            match api.patch_status(&name, &PatchParams::default(), &Patch::Strategic(status)).await {
                Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => return Ok(()),
                Err(error) => return Err(error.into()),
                Ok(_) => {}
            }
        }
        let preconditions = Some(Preconditions { uid, resource_version: None });
        let params = DeleteParams { grace_period_seconds: Some(0), preconditions, ..DeleteParams::default() };
        match api.delete(&name, &params).await {
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
            Err(error) => Err(error.into()),
            Ok(_) => Ok(()),
        }
    }
}
