//! `taint-eviction`: deletes pods from nodes whose taints they don't tolerate, or not for ever.
//!
//! Owns:    nothing in the API.
//! Needs:   nodes and pods to look at.
//! Restart: permanent. Waits go on: they are counted from when taints were added. Of taints that don't say when, this is
//!          kept beside the loop; a new process counts from its start.
//! Fails:   never as a whole; a pod that can't be deleted is tried again.

mod core;

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use k3sd_client::controller::indexes::{BY_NODE, by_node};
use k3sd_client::controller::pods::{is_terminating, node as node_of};
use k3sd_client::controller::setup::Setup;
use k3sd_client::controller::{Controller, Failure, Loop, Turn};
use k3sd_client::events::Recorder;
use k3sd_client::informer::{Informer, ObjectKey};
use k3sd_runtime::ChildSpec;
use k8s_openapi::api::core::v1::{Node, ObjectReference, Pod, Taint};
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::{Api, Resource as _};
use serde_json::json;
use tokio::sync::watch;

use self::core::{Fate, evicting, fate, since};
use crate::node::{name, seconds, taints};

/// Who says what happened.
const COMPONENT: &str = "taint-eviction-controller";
const REASON: &str = "TaintManagerEviction";
/// Pods that are looked at side by side; as upstream's.
const WORKERS: usize = 8;

/// A wait of a pod.
#[derive(Clone, Debug)]
struct Wait {
    uid: Option<String>,
    since: Timestamp,
}

struct Eviction {
    api: kube::Client,
    nodes: Informer<Node>,
    pods: Informer<Pod>,
    recorder: Recorder,
    /// The pods that wait, and since when.
    waits: watch::Sender<BTreeMap<ObjectKey, Wait>>,
}

/// The loop.
pub(crate) fn child(setup: &mut Setup<'_>) -> ChildSpec {
    let controller = Eviction {
        // Upstream's acts with the rights of the other controller of nodes, too.
        api: setup.connect("node-controller").client(),
        nodes: setup.informers.informer(),
        pods: setup.informers.indexed(vec![by_node()]),
        recorder: setup.recorder.component(COMPONENT),
        waits: watch::channel(BTreeMap::new()).0,
    };
    let (nodes, pods) = (controller.nodes.clone(), controller.pods.clone());
    let (known, on_node, quarantine) = (nodes.clone(), pods.clone(), pods.clone());
    Loop::new(controller, setup.leading.clone())
        .workers(WORKERS)
        .watch(&pods, move |old, new, keys| pod_changed(&known, old, new, keys))
        .watch(&nodes, move |old, new, keys| node_changed(&on_node, old, new, keys))
        .quarantine(setup.recorder.component(COMPONENT), move |key| {
            Some(quarantine.snapshot()?.get(&key.namespace, &key.name)?.object_ref(&()))
        })
        .child("taint-eviction")
}

/// A pod that came to a node with taints, tolerates something else, or is gone.
fn pod_changed(nodes: &Informer<Node>, old: Option<&Pod>, new: Option<&Pod>, keys: &mut Vec<ObjectKey>) {
    let Some(pod) = new.or(old).filter(|pod| !node_of(pod).is_empty()) else { return };
    let aspect = |pod: &Pod| {
        let tolerations = pod.spec.as_ref().and_then(|spec| spec.tolerations.clone());
        (node_of(pod).to_owned(), tolerations, is_terminating(pod), pod.metadata.uid.clone())
    };
    // A node without such taints needs no look at its pods; when it gets one, all of them are looked at.
    let is_tainted = || {
        let nodes = nodes.snapshot();
        nodes.is_some_and(|nodes| nodes.get("", node_of(pod)).is_some_and(|node| is_evicting(node)))
    };
    if old.map(aspect) != new.map(aspect) && is_tainted() {
        keys.push(ObjectKey::of(pod));
    }
}

fn is_evicting(node: &Node) -> bool {
    evicting(taints(node)).next().is_some()
}

/// All pods of a node whose taints are others.
fn node_changed(pods: &Informer<Pod>, old: Option<&Node>, new: Option<&Node>, keys: &mut Vec<ObjectKey>) {
    let of = |node: Option<&Node>| -> Vec<Taint> {
        node.map(|node| evicting(taints(node)).cloned().collect()).unwrap_or_default()
    };
    let (Some(node), Some(pods)) = (new.or(old), pods.snapshot()) else { return };
    if of(old) != of(new) {
        keys.extend(pods.by(BY_NODE, name(node)).map(|pod| ObjectKey::of(&**pod)));
    }
}

impl Controller for Eviction {
    type Key = ObjectKey;

    async fn reconcile(&self, key: &ObjectKey, turn: &mut Turn) -> Result<(), Failure> {
        let (Some(pods), Some(nodes)) = (self.pods.snapshot(), self.nodes.snapshot()) else { return Ok(()) };
        let Some(pod) = pods.get(&key.namespace, &key.name) else {
            self.cancel(key);
            return Ok(());
        };
        let Some(node) = nodes.get("", node_of(pod)) else {
            // Whoever collects the pods of nodes that are gone sees to it.
            self.take(key);
            return Ok(());
        };
        if is_terminating(pod) {
            self.take(key);
            return Ok(());
        }
        let tolerations = pod.spec.as_ref().and_then(|spec| spec.tolerations.as_deref()).unwrap_or_default();
        match fate(taints(node), tolerations) {
            Fate::Stays => {
                self.cancel(key);
                Ok(())
            }
            Fate::Goes => {
                self.cancel(key);
                self.evict(key, pod, turn).await
            }
            Fate::GoesAfter(span) => {
                let due = self.wait(key, pod, taints(node), turn).saturating_add(span).unwrap_or(Timestamp::MAX);
                if due > turn.now() {
                    turn.again_at(due);
                    return Ok(());
                }
                self.evict(key, pod, turn).await?;
                self.take(key);
                Ok(())
            }
        }
    }
}

impl Eviction {
    /// Since when the pod waits.
    fn wait(&self, key: &ObjectKey, pod: &Pod, taints: &[Taint], turn: &Turn) -> Timestamp {
        let known = self.waits.borrow().get(key).filter(|wait| wait.uid == pod.metadata.uid).map(|wait| wait.since);
        known.unwrap_or_else(|| {
            let wait = Wait { uid: pod.metadata.uid.clone(), since: since(taints, pod, turn.now()) };
            let begun = wait.since;
            self.waits.send_modify(|waits| _ = waits.insert(key.clone(), wait));
            begun
        })
    }

    /// Ends a wait; says whether there was one.
    fn take(&self, key: &ObjectKey) -> bool {
        let mut found = false;
        self.waits.send_if_modified(|waits| {
            found = waits.remove(key).is_some();
            found
        });
        found
    }

    fn cancel(&self, key: &ObjectKey) {
        if self.take(key) {
            self.recorder.about(reference(key), "Normal", REASON, format!("Cancelling deletion of Pod {key}"));
        }
    }

    async fn evict(&self, key: &ObjectKey, pod: &Arc<Pod>, turn: &mut Turn) -> Result<(), Failure> {
        self.recorder.about(reference(key), "Normal", REASON, format!("Marking for deletion Pod {key}"));
        let api: Api<Pod> = Api::namespaced(self.api.clone(), &key.namespace);
        let condition = json!({"type": "DisruptionTarget", "status": "True", "reason": "DeletionByTaintManager",
            "message": "Taint manager: deleting due to NoExecute taint", "lastTransitionTime": seconds(turn.now()),
            "observedGeneration": pod.metadata.generation});
        let patch = json!({"metadata": {"uid": pod.metadata.uid}, "status": {"conditions": [condition]}});
        let known = k3sd_client::controller::pods::condition(pod, "DisruptionTarget");
        if known.is_none_or(|known| known.status != "True" || known.reason.as_deref() != Some("DeletionByTaintManager"))
        {
            gone_is_fine(api.patch_status(&key.name, &PatchParams::default(), &Patch::Strategic(patch)).await)?;
        }
        let preconditions = Preconditions { uid: pod.metadata.uid.clone(), ..Preconditions::default() };
        gone_is_fine(api.delete(&key.name, &DeleteParams::default().preconditions(preconditions)).await)?;
        turn.deleted(&self.pods, &**pod);
        Ok(())
    }
}

/// What is gone, or another, needn't be deleted.
fn gone_is_fine<T>(outcome: Result<T, kube::Error>) -> Result<(), Failure> {
    match outcome.map_err(Failure::from) {
        Err(failure) if !failure.is_stale() => Err(failure),
        _ => Ok(()),
    }
}

/// As upstream refers to the pod: by its name alone.
fn reference(key: &ObjectKey) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Pod".to_owned()),
        namespace: Some(key.namespace.clone()),
        name: Some(key.name.clone()),
        ..ObjectReference::default()
    }
}
