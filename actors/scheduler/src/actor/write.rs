//! What is written to the API.

use std::sync::Arc;

use futures_util::stream::{self, StreamExt as _};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Api, Client};
use serde_json::{Value, json};

use crate::pod::PodInfo;
use crate::preemption::PREEMPTED_REASON;
use crate::volumes::{BOUND_BY_CONTROLLER, SELECTED_NODE};

/// Victims of one preemption that are told at once.
const VICTIMS_AT_ONCE: usize = 16;

fn pods(client: Client, pod: &PodInfo) -> Api<Pod> {
    Api::namespaced(client, &pod.key.namespace)
}

/// Whether an error says that the object isn't there.
pub(crate) fn is_gone(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 404)
}

/// Binds a pod; the uid keeps a pod out that has come by the name since.
pub(crate) async fn bind(client: Client, pod: Arc<PodInfo>, node: String) -> kube::Result<()> {
    let body = json!({
        "apiVersion": "v1",
        "kind": "Binding",
        "metadata": { "namespace": pod.key.namespace, "name": pod.key.name, "uid": pod.uid },
        "target": { "kind": "Node", "name": node },
    });
    let api = pods(client, &pod);
    let _: Value = api.create_subresource("binding", &pod.key.name, &PostParams::default(), &body).await?;
    Ok(())
}

/// What a pod's status is to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// Why it has no node.
    pub(crate) condition: Option<(&'static str, String)>,
    /// The node that is being cleared for it; `Some(None)` takes an old one away.
    pub(crate) nominated: Option<Option<String>>,
}

impl Verdict {
    /// What has to be written, if anything differs from what the pod says already. `now` is a time stamp.
    pub(crate) fn patch(&self, pod: &PodInfo, now: &str) -> Option<Value> {
        let status = pod.pod.status.as_ref();
        let mut changed = serde_json::Map::new();
        if let Some((reason, message)) = &self.condition {
            let mut conditions = status.and_then(|status| status.conditions.as_ref()).into_iter().flatten();
            let old = conditions.find(|condition| condition.type_ == "PodScheduled");
            let is_same = old.is_some_and(|old| {
                old.status == "False" && old.reason.as_deref() == Some(reason) && old.message.as_ref() == Some(message)
            });
            if !is_same {
                let mut condition = json!({
                    "type": "PodScheduled",
                    "status": "False",
                    "reason": reason,
                    "message": message,
                    "lastProbeTime": null,
                });
                if let Some(generation) = pod.pod.metadata.generation {
                    condition["observedGeneration"] = json!(generation);
                }
                if old.is_none_or(|old| old.status != "False") {
                    condition["lastTransitionTime"] = json!(now);
                }
                changed.insert("conditions".to_owned(), json!([condition]));
            }
        }
        if let Some(nominated) = &self.nominated
            && nominated.as_deref() != pod.nominated_node()
        {
            changed.insert("nominatedNodeName".to_owned(), json!(nominated));
        }
        (!changed.is_empty()).then(|| json!({ "metadata": { "uid": pod.uid }, "status": changed }))
    }
}

/// Writes a pod's status.
pub(crate) async fn status(client: Client, pod: Arc<PodInfo>, patch: Value) -> kube::Result<()> {
    let api = pods(client, &pod);
    api.patch_status(&pod.key.name, &PatchParams::default(), &Patch::Strategic(patch)).await?;
    Ok(())
}

/// Makes a pod go for a more important one; says why it goes first. One that is gone by itself is fine too.
pub(crate) async fn evict(client: Client, victim: Arc<PodInfo>, scheduler: String, now: String) -> kube::Result<()> {
    let api = pods(client, &victim);
    let condition = json!({
        "type": "DisruptionTarget",
        "status": "True",
        "reason": PREEMPTED_REASON,
        "message": format!("{scheduler}: preempting to accommodate a higher priority pod"),
        "lastTransitionTime": now,
        "observedGeneration": victim.pod.metadata.generation,
    });
    let patch = json!({ "metadata": { "uid": victim.uid }, "status": { "conditions": [condition] } });
    let written = api.patch_status(&victim.key.name, &PatchParams::default(), &Patch::Strategic(patch)).await;
    let deleted = match written {
        Ok(_) => {
            let preconditions = Preconditions { uid: Some(victim.uid.clone()), resource_version: None };
            let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
            api.delete(&victim.key.name, &params).await.map(drop)
        }
        Err(error) => Err(error),
    };
    match deleted {
        Err(error) if is_gone(&error) => Ok(()),
        other => other,
    }
}

/// Makes several pods go; what came of each.
pub(crate) async fn evict_all(
    client: Client,
    victims: Vec<Arc<PodInfo>>,
    scheduler: String,
    now: String,
) -> Vec<(Arc<PodInfo>, kube::Result<()>)> {
    let one = |victim: Arc<PodInfo>| {
        let evicted = evict(client.clone(), victim.clone(), scheduler.clone(), now.clone());
        async move { (victim, evicted.await) }
    };
    stream::iter(victims.into_iter().map(one)).buffer_unordered(VICTIMS_AT_ONCE).collect().await
}

/// What is to be done about a pod's volumes, with the objects as they were decided about.
#[derive(Clone, Debug, Default)]
pub(crate) struct VolumeWrites {
    /// Volumes, each with the claim that it is for.
    pub(crate) bind: Vec<(Arc<PersistentVolume>, Arc<PersistentVolumeClaim>)>,
    /// Claims whose volumes are to be made.
    pub(crate) provision: Vec<Arc<PersistentVolumeClaim>>,
}

/// Says which volumes are for which claims, and on which node others are to be made. Each write holds only if nobody
/// wrote the object since it was decided about.
pub(crate) async fn ask_for_volumes(client: Client, writes: VolumeWrites, node: String) -> kube::Result<()> {
    for (volume, claim) in writes.bind {
        let api: Api<PersistentVolume> = Api::all(client.clone());
        let patch = json!({
            "metadata": {
                "resourceVersion": volume.metadata.resource_version,
                "annotations": { BOUND_BY_CONTROLLER: "yes" },
            },
            "spec": { "claimRef": {
                "apiVersion": "v1",
                "kind": "PersistentVolumeClaim",
                "namespace": claim.metadata.namespace,
                "name": claim.metadata.name,
                "uid": claim.metadata.uid,
                "resourceVersion": claim.metadata.resource_version,
            } },
        });
        let name = volume.metadata.name.as_deref().unwrap_or_default();
        api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await?;
    }
    for claim in writes.provision {
        let api: Api<PersistentVolumeClaim> =
            Api::namespaced(client.clone(), claim.metadata.namespace.as_deref().unwrap_or_default());
        let patch = json!({ "metadata": {
            "resourceVersion": claim.metadata.resource_version,
            "annotations": { SELECTED_NODE: node },
        } });
        let name = claim.metadata.name.as_deref().unwrap_or_default();
        api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await?;
    }
    Ok(())
}
