//! Volumes stay as long as they are bound.

use k3sd_client::controller::setup::Setup;
use k3sd_client::controller::{Controller, Failure, Loop, Turn};
use k3sd_client::informer::Informer;
use k3sd_runtime::ChildSpec;
use k8s_openapi::api::core::v1::PersistentVolume;
use kube::{Api, Client};

use super::{Duty, duty, write};

const FINALIZER: &str = "kubernetes.io/pv-protection";

struct Volumes {
    client: Client,
    volumes: Informer<PersistentVolume>,
}

/// The loop; its keys are names of volumes.
pub(crate) fn volumes(setup: &mut Setup<'_>) -> ChildSpec {
    let volumes = setup.informers.informer::<PersistentVolume>();
    let client = setup.connect("pv-protection-controller").client();
    Loop::new(Volumes { client, volumes: volumes.clone() }, setup.leading.clone())
        .watch(&volumes, |_, new, keys| keys.extend(new.and_then(|new| new.metadata.name.clone())))
        .child("persistentvolume-protection")
}

impl Controller for Volumes {
    type Key = String;

    async fn reconcile(&self, key: &String, turn: &mut Turn) -> Result<(), Failure> {
        let shown = self.volumes.snapshot();
        let Some(volume) = shown.as_ref().and_then(|volumes| volumes.get("", key)) else { return Ok(()) };
        let is_bound = volume.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Bound");
        let keep = match duty(&volume.metadata, FINALIZER) {
            Duty::Nothing => return Ok(()),
            // Its next phase is told of.
            Duty::Release if is_bound => return Ok(()),
            Duty::Release => false,
            Duty::Add => true,
        };
        let api: Api<PersistentVolume> = Api::all(self.client.clone());
        if let Some(written) = write(&api, volume.as_ref(), FINALIZER, keep).await? {
            turn.wrote(&self.volumes, &written);
        }
        Ok(())
    }
}
