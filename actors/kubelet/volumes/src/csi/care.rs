//! What drivers want to be asked beside mounting: to be told of pods again, to make volumes larger, how full they are.

use std::time::Duration;

use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use kube::Api;
use kube::api::{Patch, PatchParams};

use super::growth::{Growth, is_infeasible};
use super::messages::{self, CapacityRange, Empty, Expand, Stats, StatsRequest, Usage};
use super::volume::CsiVolume;
use super::{CALL_LIMIT, Csi, Service, grpc};
use crate::disk::{Done, Job};
use crate::error::VolumeError;
use crate::plan::Maker;
use crate::types::{Measured, PodIdentity, VolumeUsage};

/// The reason of events about volumes that have grown.
const GROWN: &str = "FileSystemResizeSuccessful";
/// How long a driver may take to say how full a volume is: others wait for the sum of it.
const STATS_LIMIT: Duration = Duration::from_secs(5);

impl Csi {
    /// Looks after a volume that is there: says whether it wants that again.
    pub(crate) async fn look_after(
        &self,
        maker: &Maker,
        pod: &Pod,
        who: &PodIdentity,
        volume: &CsiVolume,
    ) -> Result<bool, VolumeError> {
        let service = self.service(volume).await?;
        if !service.wants_care(volume) {
            return Ok(false);
        }
        let _turn = self.turn(&volume.driver, &volume.handle).await?;
        let target = self.target(&who.uid, &volume.place, volume.is_block)?;
        // One that was taken away meanwhile doesn't come back.
        if !matches!(maker.disks.run(&who.uid, Job::IsMounted { at: target }).await?, Done::Is(true)) {
            return Ok(false);
        }
        self.care(maker, pod, who, volume, &service).await?;
        Ok(true)
    }

    /// Does what a mounted volume needs. Whoever calls has its turn.
    pub(super) async fn care(
        &self,
        maker: &Maker,
        pod: &Pod,
        who: &PodIdentity,
        volume: &CsiVolume,
        service: &Service,
    ) -> Result<(), VolumeError> {
        if service.republishes() {
            let context = self.context_of_attachment(volume, service).await?;
            self.publish(maker, pod, who, volume, service, context).await?;
        }
        self.grow(pod, who, volume, service).await
    }

    /// Has the driver make the file system as large as the volume, and tells the claim.
    pub(super) async fn grow(
        &self,
        pod: &Pod,
        who: &PodIdentity,
        volume: &CsiVolume,
        service: &Service,
    ) -> Result<(), VolumeError> {
        let Some(growth) = volume.growth.as_ref().filter(|_| service.grows(volume)) else { return Ok(()) };
        let text = |path: std::path::PathBuf| path.to_string_lossy().into_owned();
        let staging_path = match service.stages(volume) {
            true => text(self.staging(&volume.driver, &volume.handle, &volume.place, volume.is_block)),
            false => String::new(),
        };
        let request = Expand {
            volume_id: volume.handle.clone(),
            volume_path: text(self.target(&who.uid, &volume.place, volume.is_block)?),
            range: Some(CapacityRange { required_bytes: growth.bytes }),
            staging_path,
            capability: Some(service.capability(volume, who)),
            secrets: self.secrets(volume.expand_secret.as_ref()).await?,
        };
        let grown: Result<Empty, _> =
            grpc::call(&service.socket, "/csi.v1.Node/NodeExpandVolume", &request, CALL_LIMIT).await;
        let told = match &grown {
            Ok(_) => Some(growth.done()),
            Err(VolumeError::Driver { code, .. }) if is_infeasible(code) => growth.infeasible(),
            Err(_) => None,
        };
        if let Some(patch) = told {
            let claims: Api<PersistentVolumeClaim> = Api::namespaced(self.connect.client(), &growth.namespace);
            let patched = claims.patch_status(&growth.claim, &PatchParams::default(), &Patch::Merge(patch)).await;
            patched.map_err(VolumeError::api(format!("failed to update the status of PVC {}", growth.claim)))?;
        }
        grown.map(|_| {
            tracing::info!(volume = volume.place, bytes = growth.bytes, "a volume has grown");
            self.tell_growth(pod, volume, growth);
        })
    }

    /// Tells who looks at the pod or at the claim.
    fn tell_growth(&self, pod: &Pod, volume: &CsiVolume, growth: &Growth) {
        let Some(recorder) = &self.recorder else { return };
        let text = format!("MountVolume.NodeExpandVolume succeeded for volume {:?} {}", volume.place, self.node);
        recorder.normal(pod, GROWN, text.clone());
        recorder.about(growth.reference(), "Normal", GROWN, text);
    }

    /// How full a pod's volumes are, as far as drivers say.
    pub(crate) async fn stats(&self, maker: &Maker, uid: &str) -> Result<Vec<Measured>, VolumeError> {
        let mut found = Vec::new();
        for (directory, record) in self.records(maker, Some(uid)).await? {
            let (place, is_block) = super::place_of(&directory);
            let Ok(socket) = self.socket(&record.driver) else { continue };
            let says = super::capabilities(&socket, STATS_LIMIT).await;
            let Ok(can) = says.inspect_err(|error| tracing::debug!(%error, "a storage driver can't be asked")) else {
                continue;
            };
            if !can.contains(&messages::GET_STATS) {
                continue;
            }
            let staged = can.contains(&messages::STAGES) && !record.is_ephemeral();
            let staging = self.staging(&record.driver, &record.handle, &place, is_block);
            let request = StatsRequest {
                volume_id: record.handle.clone(),
                volume_path: self.target(uid, &place, is_block)?.to_string_lossy().into_owned(),
                staging_path: if staged { staging.to_string_lossy().into_owned() } else { String::new() },
            };
            match grpc::call::<_, Stats>(&socket, "/csi.v1.Node/NodeGetVolumeStats", &request, STATS_LIMIT).await {
                Ok(stats) => {
                    let (is_persistent, usage) = (!record.is_ephemeral(), usage(&stats.usage));
                    found.push(Measured { is_persistent, place, usage });
                }
                Err(error) => tracing::debug!(%error, place, "a storage driver doesn't say how full a volume is"),
            }
        }
        Ok(found)
    }
}

fn usage(all: &[Usage]) -> VolumeUsage {
    let number = |value: i64| u64::try_from(value).ok();
    let mut found = VolumeUsage::default();
    for one in all {
        match one.unit {
            messages::BYTES => {
                found.used_bytes = number(one.used);
                found.capacity_bytes = number(one.total);
                found.available_bytes = number(one.available);
            }
            messages::INODES => {
                found.inodes_used = number(one.used);
                found.inodes = number(one.total);
                found.inodes_free = number(one.available);
            }
            _ => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_that_nobody_knows_are_left_out() {
        let one = |unit, used| Usage { available: 5, total: -1, used, unit };
        let found = usage(&[one(1, 3), one(2, 4), one(7, 9)]);
        assert_eq!((found.used_bytes, found.capacity_bytes, found.available_bytes), (Some(3), None, Some(5)));
        assert_eq!((found.inodes_used, found.inodes_free), (Some(4), Some(5)));
    }
}
