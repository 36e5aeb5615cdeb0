//! The `persistentvolume-expander` controller: says who makes the volume of a claim larger.
//!
//! Nothing in here does that: it is the work of the driver's own controller, which looks at the claim. Volumes of kinds
//! that were once built in have drivers outside today, and their claims are told which.

use k3sd_client::controller::setup::Setup;
use k3sd_client::controller::{Controller, Failure, Loop, Turn};
use k3sd_client::events::Recorder;
use k3sd_client::informer::{Informer, ObjectKey};
use k3sd_runtime::ChildSpec;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::json;

use crate::sizes::{given, wanted};
use crate::support::{annotation, said, text};

const COMPONENT: &str = "volume_expand";
const REASON: &str = "ExternalExpanding";
/// Claims say who resizes their volume.
const RESIZER: &str = "volume.kubernetes.io/storage-resizer";
/// Volumes say how large they were, while a node still has to make their file system larger.
const SIZE_BEFORE: &str = "volume.alpha.kubernetes.io/pre-resize-capacity";

struct Expander {
    client: Client,
    claims: Informer<PersistentVolumeClaim>,
    volumes: Informer<PersistentVolume>,
    recorder: Recorder,
}

/// The loop; its keys are claims.
pub(crate) fn expand(setup: &mut Setup<'_>) -> ChildSpec {
    let claims = setup.informers.informer::<PersistentVolumeClaim>();
    let volumes = setup.informers.informer::<PersistentVolume>();
    let recorder = setup.recorder.component(COMPONENT);
    let controller = Expander {
        client: setup.connect("expand-controller").client(),
        claims: claims.clone(),
        volumes: volumes.clone(),
        recorder: recorder.clone(),
    };
    let known = claims.clone();
    Loop::new(controller, setup.leading.clone())
        .watch(&claims, |old, new: Option<&PersistentVolumeClaim>, keys| {
            keys.extend(new.filter(|new| is_news(old, new)).map(ObjectKey::of));
        })
        .needs(&volumes)
        .quarantine(recorder, move |key| {
            let shown = known.snapshot()?;
            shown.get(&key.namespace, &key.name).map(|claim| kube::Resource::object_ref(&**claim, &()))
        })
        .child("persistentvolume-expander")
}

fn is_bound(claim: &PersistentVolumeClaim) -> bool {
    claim.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Bound")
}

/// Whether a change of a claim may mean that its volume is to grow: it wants more, or has got more.
fn is_news(old: Option<&PersistentVolumeClaim>, new: &PersistentVolumeClaim) -> bool {
    is_bound(new) && old.is_none_or(|old| wanted(new) > wanted(old) || given(new) > given(old))
}

/// What is to be done for a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// Its volume is as large as it wants.
    Nothing,
    /// The volume is another claim's.
    Refuse,
    /// Whoever has the volume sees to it.
    Wait,
    /// The driver of this name sees to it, instead of what was built in under the other name.
    Hand { kind: &'static str, driver: &'static str },
}

/// The kinds of volumes that were built in once, and the drivers that have them today.
fn successor(volume: &PersistentVolume) -> Option<(&'static str, &'static str)> {
    let spec = volume.spec.as_ref()?;
    let kinds = [
        (spec.aws_elastic_block_store.is_some(), "kubernetes.io/aws-ebs", "ebs.csi.aws.com"),
        (spec.azure_disk.is_some(), "kubernetes.io/azure-disk", "disk.csi.azure.com"),
        (spec.azure_file.is_some(), "kubernetes.io/azure-file", "file.csi.azure.com"),
        (spec.cinder.is_some(), "kubernetes.io/cinder", "cinder.csi.openstack.org"),
        (spec.gce_persistent_disk.is_some(), "kubernetes.io/gce-pd", "pd.csi.storage.gke.io"),
        (spec.portworx_volume.is_some(), "kubernetes.io/portworx-volume", "pxd.portworx.com"),
        (spec.vsphere_volume.is_some(), "kubernetes.io/vsphere-volume", "csi.vsphere.vmware.com"),
    ];
    kinds.into_iter().find(|(is, ..)| *is).map(|(_, kind, driver)| (kind, driver))
}

fn decide(claim: &PersistentVolumeClaim, volume: &PersistentVolume) -> Step {
    let reference = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref());
    let is_its = reference.is_some_and(|reference| {
        reference.namespace == claim.metadata.namespace && reference.uid == claim.metadata.uid
    });
    if !is_its {
        return Step::Refuse;
    }
    if wanted(claim) <= given(claim) && annotation(&volume.metadata, SIZE_BEFORE).is_none() {
        return Step::Nothing;
    }
    successor(volume).map_or(Step::Wait, |(kind, driver)| Step::Hand { kind, driver })
}

impl Expander {
    /// Tells the driver that the claim is its business.
    async fn hand(&self, claim: &PersistentVolumeClaim, driver: &str, turn: &mut Turn) -> Result<(), Failure> {
        if annotation(&claim.metadata, RESIZER) == Some(driver) {
            return Ok(());
        }
        let key = ObjectKey::of(claim);
        let api: Api<PersistentVolumeClaim> = Api::namespaced(self.client.clone(), &key.namespace);
        let patch = json!({"metadata": {"annotations": {RESIZER: driver}, "uid": claim.metadata.uid}});
        let written = api.patch_status(&key.name, &PatchParams::default(), &Patch::Strategic(patch)).await;
        match written.map_err(Failure::from) {
            Ok(written) => turn.wrote(&self.claims, &written),
            Err(failure) => {
                let message = format!("error setting resizer annotation to pvc {key}, with error {}", said(&failure));
                self.recorder.warning(claim, REASON, message);
                return Err(failure);
            }
        }
        Ok(())
    }
}

impl Controller for Expander {
    type Key = ObjectKey;

    async fn reconcile(&self, key: &ObjectKey, turn: &mut Turn) -> Result<(), Failure> {
        let (Some(claims), Some(volumes)) = (self.claims.snapshot(), self.volumes.snapshot()) else { return Ok(()) };
        let found = claims.get(&key.namespace, &key.name).filter(|claim| is_bound(claim));
        let Some(claim) = found else { return Ok(()) };
        let name = text(claim.spec.as_ref().and_then(|spec| spec.volume_name.as_ref()));
        let volume = volumes.get("", name).ok_or_else(|| Failure::other(format!("there is no volume {name} yet")))?;
        match decide(claim, volume) {
            Step::Nothing => Ok(()),
            Step::Refuse => Err(Failure::other(format!("volume {name} isn't bound to claim {key}"))),
            Step::Wait => {
                self.recorder.normal(&**claim, REASON, "waiting for an external controller to expand this PVC");
                Ok(())
            }
            Step::Hand { kind, driver } => {
                let message =
                    format!("CSI migration enabled for {kind}; waiting for external resizer to expand the pvc");
                self.recorder.normal(&**claim, REASON, message);
                self.hand(claim, driver, turn).await
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn claim(wanted: &str, given: &str, phase: &str) -> PersistentVolumeClaim {
        serde_json::from_value(json!({
            "metadata": {"name": "c", "namespace": "n", "uid": "1"},
            "spec": {"resources": {"requests": {"storage": wanted}}, "volumeName": "v"},
            "status": {"phase": phase, "capacity": {"storage": given}},
        }))
        .expect("a claim")
    }

    fn volume(uid: &str, source: Value, annotations: Value) -> PersistentVolume {
        let mut spec = json!({"claimRef": {"namespace": "n", "name": "c", "uid": uid}});
        for (key, value) in source.as_object().expect("an object") {
            spec[key] = value.clone();
        }
        let meta = json!({"name": "v", "annotations": annotations});
        serde_json::from_value(json!({"metadata": meta, "spec": spec})).expect("a volume")
    }

    #[test]
    fn only_growth_of_a_bound_claim_is_news() {
        for (old, new, is) in [
            (None, claim("2Gi", "1Gi", "Bound"), true),
            (None, claim("2Gi", "1Gi", "Pending"), false),
            (Some(claim("1Gi", "1Gi", "Bound")), claim("2Gi", "1Gi", "Bound"), true),
            (Some(claim("2Gi", "1Gi", "Bound")), claim("2Gi", "1Gi", "Bound"), false),
            (Some(claim("2Gi", "1Gi", "Bound")), claim("2Gi", "2Gi", "Bound"), true),
            (Some(claim("2Gi", "1Gi", "Bound")), claim("1Gi", "1Gi", "Bound"), false),
        ] {
            assert_eq!(is_news(old.as_ref(), &new), is, "{old:?} {new:?}");
        }
    }

    #[test]
    fn somebody_outside_makes_volumes_larger() {
        let csi = || json!({"csi": {"driver": "d", "volumeHandle": "h"}});
        let ebs = || json!({"awsElasticBlockStore": {"volumeID": "x"}});
        let before = || json!({"volume.alpha.kubernetes.io/pre-resize-capacity": "1Gi"});
        let ebs_step = Step::Hand { kind: "kubernetes.io/aws-ebs", driver: "ebs.csi.aws.com" };
        for (wanted, given, volume, step) in [
            ("2Gi", "1Gi", volume("1", csi(), json!({})), Step::Wait),
            ("1Gi", "1Gi", volume("1", csi(), json!({})), Step::Nothing),
            ("1Gi", "2Gi", volume("1", csi(), json!({})), Step::Nothing),
            ("1Gi", "1Gi", volume("1", csi(), before()), Step::Wait),
            ("2Gi", "1Gi", volume("2", csi(), json!({})), Step::Refuse),
            ("2Gi", "1Gi", volume("1", json!({"hostPath": {"path": "/x"}}), json!({})), Step::Wait),
            ("2Gi", "1Gi", volume("1", ebs(), json!({})), ebs_step),
        ] {
            assert_eq!(decide(&claim(wanted, given, "Bound"), &volume), step, "{wanted} {given} {volume:?}");
        }
    }
}
