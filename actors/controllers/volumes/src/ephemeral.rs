//! The `ephemeral-volume` controller: makes the claims of volumes that live as long as their pod.
//!
//! The claim is called `POD-VOLUME` and belongs to the pod, so the garbage collector takes it away with that. One of that
//! name that somebody else made is left alone: the pod waits until it is gone.

use k3sd_client::controller::owners::{controller_ref, is_controlled_by};
use k3sd_client::controller::setup::Setup;
use k3sd_client::controller::{Controller, Failure, Loop, Turn};
use k3sd_client::events::Recorder;
use k3sd_client::informer::{Informer, ObjectKey};
use k3sd_runtime::ChildSpec;
use k8s_openapi::api::core::v1::{EphemeralVolumeSource, PersistentVolumeClaim, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::PostParams;
use kube::{Api, Client};

use crate::claims::{BY_CLAIM, by_claim};
use crate::support::{said, text, uid};

const COMPONENT: &str = "ephemeral_volume";

struct Ephemeral {
    client: Client,
    pods: Informer<Pod>,
    claims: Informer<PersistentVolumeClaim>,
    recorder: Recorder,
}

/// The loop; its keys are pods.
pub(crate) fn ephemeral(setup: &mut Setup<'_>) -> ChildSpec {
    let pods = setup.informers.indexed(vec![by_claim()]);
    let claims = setup.informers.informer::<PersistentVolumeClaim>();
    let recorder = setup.recorder.component(COMPONENT);
    let controller = Ephemeral {
        client: setup.connect("ephemeral-volume-controller").client(),
        pods: pods.clone(),
        claims: claims.clone(),
        recorder: recorder.clone(),
    };
    let (users, known) = (pods.clone(), pods.clone());
    Loop::new(controller, setup.leading.clone())
        // The volumes of a pod never change, so one look is enough unless it fails.
        .watch(&pods, |old, new: Option<&Pod>, keys| {
            let is_new = old.is_none();
            keys.extend(new.filter(|pod| is_new && wants(pod)).map(ObjectKey::of));
        })
        // A claim that somebody deleted is made anew.
        .watch(&claims, move |old: Option<&PersistentVolumeClaim>, new, keys| {
            let Some(gone) = old.filter(|_| new.is_none()) else { return };
            let (key, shown) = (ObjectKey::of(gone).to_string(), users.snapshot());
            let found = shown.iter().flat_map(|pods| pods.by(BY_CLAIM, &key));
            keys.extend(found.filter(|pod| wants(pod)).map(|pod| ObjectKey::of(&**pod)));
        })
        .quarantine(recorder, move |key| {
            let shown = known.snapshot()?;
            shown.get(&key.namespace, &key.name).map(|pod| kube::Resource::object_ref(&**pod, &()))
        })
        .child("ephemeral-volume")
}

/// The volumes of a pod that get claims of their own, with their names.
fn sources(pod: &Pod) -> impl Iterator<Item = (&str, &EphemeralVolumeSource)> {
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    volumes.filter_map(|volume| Some((volume.name.as_str(), volume.ephemeral.as_ref()?)))
}

/// Whether claims may have to be made for a pod.
fn wants(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_none() && sources(pod).next().is_some()
}

/// The name of the claim of a pod's volume.
pub(crate) fn claim_name(pod: &Pod, volume: &str) -> String {
    format!("{}-{volume}", text(pod.metadata.name.as_ref()))
}

/// Whether a claim was made for the pod, in the pod's present life.
///
/// # Errors
/// It wasn't; the words are upstream's.
pub(crate) fn check_owner(pod: &Pod, claim: &PersistentVolumeClaim) -> Result<(), String> {
    let (pod, claim) = (&pod.metadata, &claim.metadata);
    if pod.namespace == claim.namespace && is_controlled_by(claim, uid(pod)) {
        return Ok(());
    }
    let (namespace, name) = (text(claim.namespace.as_ref()), text(claim.name.as_ref()));
    let owner = format!("{}/{}", text(pod.namespace.as_ref()), text(pod.name.as_ref()));
    Err(format!("PVC {namespace}/{name} was not created for pod {owner} (pod is not owner)"))
}

/// The claim that is to be made for a volume of the pod.
fn claim(pod: &Pod, volume: &str, source: &EphemeralVolumeSource) -> PersistentVolumeClaim {
    let template = source.volume_claim_template.clone().unwrap_or_default();
    let meta = template.metadata.unwrap_or_default();
    PersistentVolumeClaim {
        metadata: ObjectMeta {
            name: Some(claim_name(pod, volume)),
            labels: meta.labels,
            annotations: meta.annotations,
            owner_references: Some(vec![controller_ref(pod)]),
            ..ObjectMeta::default()
        },
        spec: Some(template.spec),
        status: None,
    }
}

impl Ephemeral {
    /// Sees to one volume. Fails with the words for people.
    async fn volume(
        &self,
        pod: &Pod,
        (name, source): (&str, &EphemeralVolumeSource),
        turn: &mut Turn,
    ) -> Result<(), (String, Failure)> {
        let namespace = text(pod.metadata.namespace.as_ref());
        let claim = claim(pod, name, source);
        let claim_name = text(claim.metadata.name.as_ref());
        let shown = self.claims.snapshot();
        if let Some(found) = shown.as_ref().and_then(|claims| claims.get(namespace, claim_name)) {
            return check_owner(pod, found).map_err(|why| (why.clone(), Failure::other(why)));
        }
        let api: Api<PersistentVolumeClaim> = Api::namespaced(self.client.clone(), namespace);
        let made = api.create(&PostParams::default(), &claim).await.map_err(Failure::from);
        let made = made.map_err(|failure| (format!("create PVC {claim_name}: {}", said(&failure)), failure))?;
        turn.wrote(&self.claims, &made);
        Ok(())
    }
}

impl Controller for Ephemeral {
    type Key = ObjectKey;

    async fn reconcile(&self, key: &ObjectKey, turn: &mut Turn) -> Result<(), Failure> {
        let shown = self.pods.snapshot();
        let Some(pod) = shown.as_ref().and_then(|pods| pods.get(&key.namespace, &key.name)) else { return Ok(()) };
        if !wants(pod) {
            return Ok(());
        }
        for (name, source) in sources(pod) {
            if let Err((why, failure)) = self.volume(pod, (name, source), turn).await {
                // The copy lags behind what was made, perhaps by an incarnation that was killed.
                if failure.code() == Some(409) {
                    return Err(failure);
                }
                self.recorder.warning(&**pod, "FailedBinding", format!("ephemeral volume {name}: {why}"));
                return Err(failure);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(metadata: Value) -> Pod {
        let template = json!({"metadata": {"labels": {"a": "b"}, "annotations": {"c": "d"}},
            "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}});
        let volumes = json!([{"name": "data", "persistentVolumeClaim": {"claimName": "x"}},
            {"name": "scratch", "ephemeral": {"volumeClaimTemplate": template}}]);
        let mut whole = json!({"name": "p", "namespace": "n", "uid": "1"});
        for (key, value) in metadata.as_object().expect("an object") {
            whole[key] = value.clone();
        }
        serde_json::from_value(json!({"metadata": whole, "spec": {"containers": [], "volumes": volumes}}))
            .expect("a pod")
    }

    #[test]
    fn a_claim_is_made_of_the_template_and_belongs_to_the_pod() {
        let pod = pod(json!({}));
        let found: Vec<_> = sources(&pod).map(|(name, source)| claim(&pod, name, source)).collect();
        let wanted: PersistentVolumeClaim = serde_json::from_value(json!({
            "metadata": {"name": "p-scratch", "labels": {"a": "b"}, "annotations": {"c": "d"}, "ownerReferences": [
                {"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "1", "controller": true,
                    "blockOwnerDeletion": true}]},
            "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
        }))
        .expect("a claim");
        assert_eq!(found, [wanted]);
    }

    #[test]
    fn only_a_pod_that_stays_gets_claims() {
        assert!(wants(&pod(json!({}))));
        assert!(!wants(&pod(json!({"deletionTimestamp": "2030-01-01T00:00:00Z"}))));
        let plain = json!({"metadata": {"name": "p"}, "spec": {"containers": [], "volumes": [{"name": "v"}]}});
        assert!(!wants(&serde_json::from_value(plain).expect("a pod")));
    }

    #[test]
    fn a_claim_of_somebody_else_is_named() {
        let claim = |namespace: &str, owners: Value| -> PersistentVolumeClaim {
            let meta = json!({"name": "p-scratch", "namespace": namespace, "ownerReferences": owners});
            serde_json::from_value(json!({ "metadata": meta })).expect("a claim")
        };
        let owner = |uid: &str, controller: bool| json!([{"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": uid, "controller": controller}]);
        let pod = pod(json!({}));
        for (namespace, owners, is_its) in [
            ("n", owner("1", true), true),
            ("n", owner("1", false), false),
            ("n", owner("2", true), false),
            ("n", json!([]), false),
            ("m", owner("1", true), false),
        ] {
            let found = check_owner(&pod, &claim(namespace, owners.clone()));
            let words = format!("PVC {namespace}/p-scratch was not created for pod n/p (pod is not owner)");
            assert_eq!(found, if is_its { Ok(()) } else { Err(words) }, "{namespace} {owners}");
        }
    }
}
