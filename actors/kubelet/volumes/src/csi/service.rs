//! What is known of a driver, and what follows from it for a volume. Pure.

use std::path::{Path, PathBuf};

use k8s_openapi::api::storage::v1::CSIDriverSpec;

use super::messages::{EXPANDS, MOUNT_GROUP, SINGLE_NODE_MULTI_WRITER, STAGES, VolumeCapability};
use super::volume::CsiVolume;
use crate::disk::What;
use crate::paths::CSI;
use crate::types::PodIdentity;

/// A driver that is registered here.
pub(super) struct Service {
    pub(super) socket: PathBuf,
    /// What it can do on a node, in CSI's numbers.
    pub(super) can: Vec<i32>,
    /// What its object in the cluster says.
    pub(super) says: CSIDriverSpec,
}

impl Service {
    /// Whether a volume is staged for the node before pods get it.
    pub(super) fn stages(&self, volume: &CsiVolume) -> bool {
        self.can.contains(&STAGES) && !volume.is_ephemeral
    }

    /// Whether the driver wants to be told of each pod again and again.
    pub(super) fn republishes(&self) -> bool {
        self.says.requires_republish == Some(true)
    }

    /// Whether the driver makes this volume larger on the node.
    pub(super) fn grows(&self, volume: &CsiVolume) -> bool {
        self.can.contains(&EXPANDS) && !volume.is_ephemeral && !volume.read_only
    }

    /// Whether there may be something to do for the volume while it is there.
    pub(super) fn wants_care(&self, volume: &CsiVolume) -> bool {
        self.republishes() || self.grows(volume)
    }

    /// The group that the driver itself gives the volume to.
    fn group(&self, volume: &CsiVolume, who: &PodIdentity) -> Option<u32> {
        who.fs_group.filter(|_| self.can.contains(&MOUNT_GROUP) && !volume.is_block)
    }

    /// How the pod uses the volume.
    pub(super) fn capability(&self, volume: &CsiVolume, who: &PodIdentity) -> VolumeCapability {
        volume.capability(self.can.contains(&SINGLE_NODE_MULTI_WRITER), self.group(volume, who))
    }

    /// What the volume is once it is there.
    pub(super) fn what(&self, volume: &CsiVolume, who: &PodIdentity, target: &Path) -> What {
        let read_only = volume.read_only;
        if volume.is_block {
            return What::Device { plugin: CSI, place: volume.place.clone(), device: target.to_owned(), read_only };
        }
        let owned = self.group(volume, who).is_none() && volume.may_be_given(&self.says);
        What::There { path: target.to_owned(), read_only, is_block: false, owned, selinux_relabel: true }
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::{CSIVolumeSource, PersistentVolume, Pod};
    use serde_json::json;

    use super::*;

    fn service(can: &[i32], republishes: bool) -> Service {
        let says = CSIDriverSpec { requires_republish: Some(republishes), ..CSIDriverSpec::default() };
        Service { socket: PathBuf::new(), can: can.to_vec(), says }
    }

    fn persistent(read_only: bool) -> CsiVolume {
        let volume: PersistentVolume = serde_json::from_value(json!({"metadata": {"name": "pv"}})).unwrap();
        let source = json!({"driver": "d", "volumeHandle": "h"});
        CsiVolume::persistent(&volume, serde_json::from_value(source).unwrap(), read_only, false)
    }

    #[test]
    fn care_is_for_those_that_want_it() {
        let source: CSIVolumeSource = serde_json::from_value(json!({"driver": "d"})).unwrap();
        let inline = CsiVolume::inline(&Pod::default(), "v", &source);
        for (can, republishes, volume, expected) in [
            (&[STAGES][..], false, persistent(false), false),
            (&[EXPANDS], false, persistent(false), true),
            (&[EXPANDS], false, persistent(true), false),
            (&[EXPANDS], false, inline.clone(), false),
            (&[], true, inline.clone(), true),
        ] {
            let found = service(can, republishes).wants_care(&volume);
            assert_eq!(found, expected, "{can:?} {republishes} {volume:?}");
        }
        assert!(service(&[STAGES], false).stages(&persistent(true)) && !service(&[STAGES], false).stages(&inline));
    }

    #[test]
    fn who_gives_to_the_group_is_told_the_group() {
        let who = PodIdentity { uid: "u".to_owned(), fs_group: Some(7), memory_limit: None };
        let group = |can: &[i32]| {
            let capability = service(can, false).capability(&persistent(false), &who);
            capability.mount.unwrap().group
        };
        assert_eq!((group(&[MOUNT_GROUP]).as_str(), group(&[]).as_str()), ("7", ""));
    }
}
