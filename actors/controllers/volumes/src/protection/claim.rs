//! Claims stay as long as a pod uses them.

use k3sd_client::controller::setup::Setup;
use k3sd_client::controller::{Controller, Failure, Loop, Turn};
use k3sd_client::informer::{Informer, ObjectKey};
use k3sd_runtime::ChildSpec;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use kube::api::ListParams;
use kube::{Api, Client};

use super::{Duty, duty, write};
use crate::claims::{BY_CLAIM, by_claim, claim_keys};

const FINALIZER: &str = "kubernetes.io/pvc-protection";

struct Claims {
    client: Client,
    claims: Informer<PersistentVolumeClaim>,
    pods: Informer<Pod>,
}

/// Whether the pod keeps the claim. One without a node has no volumes yet, and gets no node while its claim goes; one
/// that is shut down needs nothing that was made for it.
fn uses(pod: &Pod, claim: &PersistentVolumeClaim) -> bool {
    let Some(spec) = pod.spec.as_ref().filter(|spec| spec.node_name.as_ref().is_some_and(|node| !node.is_empty()))
    else {
        return false;
    };
    let is_shut_down =
        pod.metadata.deletion_timestamp.is_some() && pod.metadata.deletion_grace_period_seconds == Some(0);
    let owners = claim.metadata.owner_references.iter().flatten();
    let is_owner = owners
        .filter(|owner| owner.controller == Some(true))
        .any(|owner| Some(&owner.uid) == pod.metadata.uid.as_ref());
    let name = claim.metadata.name.as_deref().unwrap_or_default();
    let pod_name = pod.metadata.name.as_deref().unwrap_or_default();
    spec.volumes.iter().flatten().any(|volume| {
        volume.persistent_volume_claim.as_ref().is_some_and(|source| source.claim_name == name)
            || !is_shut_down
                && volume.ephemeral.is_some()
                && is_owner
                && name.strip_prefix(pod_name).and_then(|rest| rest.strip_prefix('-')) == Some(&volume.name)
    })
}

/// The loop; its keys are claims.
pub(crate) fn claims(setup: &mut Setup<'_>) -> ChildSpec {
    let claims = setup.informers.informer::<PersistentVolumeClaim>();
    let pods = setup.informers.indexed(vec![by_claim()]);
    let client = setup.connect("pvc-protection-controller").client();
    Loop::new(Claims { client, claims: claims.clone(), pods: pods.clone() }, setup.leading.clone())
        .watch(&claims, |_, new, keys| keys.extend(new.map(ObjectKey::of)))
        // Only a pod that ends lets go of anything.
        .watch(&pods, |old, new, keys| {
            let ends = new.is_none_or(|new| new.metadata.deletion_timestamp.is_some());
            keys.extend(old.or(new).filter(|_| ends).into_iter().flat_map(claim_keys));
        })
        .child("persistentvolumeclaim-protection")
}

impl Claims {
    /// Whether any pod keeps the claim: first of those that are known, then of all that the API has, for a copy may lag.
    async fn is_used(&self, key: &ObjectKey, claim: &PersistentVolumeClaim) -> Result<bool, Failure> {
        let text = key.to_string();
        if self.pods.snapshot().is_some_and(|pods| pods.by(BY_CLAIM, &text).any(|pod| uses(pod, claim))) {
            return Ok(true);
        }
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &key.namespace);
        Ok(api.list(&ListParams::default()).await?.iter().any(|pod| uses(pod, claim)))
    }
}

impl Controller for Claims {
    type Key = ObjectKey;

    async fn reconcile(&self, key: &ObjectKey, turn: &mut Turn) -> Result<(), Failure> {
        let shown = self.claims.snapshot();
        let Some(claim) = shown.as_ref().and_then(|claims| claims.get(&key.namespace, &key.name)) else {
            return Ok(());
        };
        let keep = match duty(&claim.metadata, FINALIZER) {
            Duty::Nothing => return Ok(()),
            Duty::Add => true,
            // The end of the pod is told of.
            Duty::Release if self.is_used(key, claim).await? => return Ok(()),
            Duty::Release => false,
        };
        let api: Api<PersistentVolumeClaim> = Api::namespaced(self.client.clone(), &key.namespace);
        if let Some(written) = write(&api, claim.as_ref(), FINALIZER, keep).await? {
            turn.wrote(&self.claims, &written);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_scheduled_pod_keeps_its_claims() {
        let claim = |owner: Option<&str>, name: &str| -> PersistentVolumeClaim {
            let owners = owner
                .map(|uid| json!([{"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": uid, "controller": true}]));
            serde_json::from_value(json!({"metadata": {"name": name, "namespace": "a", "ownerReferences": owners}}))
                .expect("a claim")
        };
        let pod = |node: &str, grace: Option<i64>| -> Pod {
            let deleted = grace.map(|_| "2030-01-01T00:00:00Z");
            serde_json::from_value(json!({
                "metadata": {"name": "p", "namespace": "a", "uid": "1", "deletionTimestamp": deleted,
                    "deletionGracePeriodSeconds": grace},
                "spec": {"nodeName": node, "containers": [], "volumes": [
                    {"name": "data", "persistentVolumeClaim": {"claimName": "named"}},
                    {"name": "scratch", "ephemeral": {}}]},
            }))
            .expect("a pod")
        };
        let (named, made, stranger) =
            (claim(None, "named"), claim(Some("1"), "p-scratch"), claim(Some("2"), "p-scratch"));
        for (node, grace, wanted) in [
            ("n", None, [true, true, false]),
            ("", None, [false, false, false]),
            ("n", Some(30), [true, true, false]),
            ("n", Some(0), [true, false, false]),
        ] {
            let pod = pod(node, grace);
            assert_eq!([&named, &made, &stranger].map(|claim| uses(&pod, claim)), wanted, "{node} {grace:?}");
        }
        let keys: Vec<String> = claim_keys(&pod("n", None)).map(|key| key.to_string()).collect();
        assert_eq!(keys, ["a/named", "a/p-scratch"]);
    }
}
