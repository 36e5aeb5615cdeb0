//! The way to a node's volumes.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret};

use crate::claims::claim_of;
use crate::disk::{Done, Job};
use crate::error::VolumeError;
use crate::keeper::{Keeper, KeeperMsg};
use crate::plan::{Maker, Upkeep};
use crate::types::{Measured, Mounted, PodIdentity, SubPath, VolumeCounts, VolumeUsage};

/// The way to a node's volumes. Cheap to clone, good across restarts of everything behind it.
///
/// Every call can be repeated, and dropped half-way: what it left is found by the next one.
#[derive(Clone)]
pub struct Volumes {
    pub(crate) maker: Maker,
    pub(crate) keeper: Keeper,
}

impl std::fmt::Debug for Volumes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Volumes")
    }
}

impl Volumes {
    /// Has all volumes there that some container of the pod uses, adopts those that are there, and keeps their files up to
    /// date from now on. To be called again when containers come that use more, and after an error.
    ///
    /// # Errors
    /// The first volume that isn't there; the others may be. [`VolumeError::event`] is the message of a `FailedMount` event.
    pub async fn set_up(&self, pod: &Arc<Pod>, who: &PodIdentity) -> Result<Mounted, VolumeError> {
        self.keeper.tell(|reply| KeeperMsg::Began { pod: pod.clone(), who: who.clone(), reply }).await?;
        let kept = self.maker.objects.keep(&who.uid, Some(pod)).await;
        let (outcome, upkeep) = match kept {
            Ok(()) => self.maker.set_up(pod, who).await,
            Err(error) => (Err(error), Upkeep::default()),
        };
        let (uid, is_whole) = (who.uid.clone(), outcome.is_ok());
        self.keeper.tell(|reply| KeeperMsg::Ended { uid, upkeep, is_whole, reply }).await?;
        outcome
    }

    /// The pod's object is another now. Files that show labels and annotations follow; nothing else happens.
    ///
    /// # Errors
    /// [`VolumeError::Away`]: tell again, or call [`Volumes::set_up`].
    pub async fn pod_changed(&self, uid: &str, pod: &Arc<Pod>) -> Result<(), VolumeError> {
        self.maker.objects.keep(uid, Some(pod)).await?;
        self.keeper.tell(|reply| KeeperMsg::Seen { uid: uid.to_owned(), pod: pod.clone(), reply }).await
    }

    /// Takes everything of a pod away: mounts first, then its whole directory. Its containers must be gone. A pod of which
    /// there is nothing is taken away already.
    ///
    /// # Errors
    /// What holds on to a mount, and a storage driver that doesn't let go. What is left is found again by
    /// [`Volumes::mounted_uids`].
    pub async fn tear_down(&self, uid: &str) -> Result<(), VolumeError> {
        self.keeper.tell(|reply| KeeperMsg::Forget { uid: uid.to_owned(), reply }).await?;
        self.maker.objects.keep(uid, None).await?;
        self.maker.tokens.forget(uid).await?;
        self.maker.csi.tear_down(&self.maker, uid).await?;
        self.maker.disks.run(uid, Job::TearDown { uid: uid.to_owned() }).await.map(drop)
    }

    /// Uids of the pods that have a directory here: to find those that nobody knows any more.
    ///
    /// # Errors
    /// What the file system says.
    pub async fn mounted_uids(&self) -> Result<Vec<String>, VolumeError> {
        match self.maker.disks.run("", Job::Pods).await? {
            Done::Uids(uids) => Ok(uids),
            _ => Err(VolumeError::Away),
        }
    }

    /// Has a part of a volume mounted for one container, made if it isn't there, and says where. It goes with the pod.
    ///
    /// # Errors
    /// A part that leads out of its volume, and what the file system says.
    pub async fn sub_path(&self, wanted: SubPath) -> Result<PathBuf, VolumeError> {
        let uid = wanted.uid.clone();
        match self.maker.disks.run(&uid, Job::SubPath(wanted)).await? {
            Done::Path(path) => Ok(path),
            _ => Err(VolumeError::Away),
        }
    }

    /// How much a pod's volumes take, by their names in the pod. Walks through files and asks storage drivers, so not to be
    /// asked more often than a few times a minute.
    ///
    /// # Errors
    /// [`VolumeError::Away`]. Volumes that can't be looked at are left out.
    pub async fn usage(&self, uid: &str) -> Result<BTreeMap<String, VolumeUsage>, VolumeError> {
        let Done::Usage(mut found) = self.maker.disks.run(uid, Job::Usage { uid: uid.to_owned() }).await? else {
            return Err(VolumeError::Away);
        };
        found.extend(self.maker.csi.stats(&self.maker, uid).await?);
        let (pod, persistent) = self.keeper.about(uid).await?.unwrap_or_default();
        Ok(named(&pod, &persistent, found))
    }

    /// How many volumes the pods here want, and how many of them are there.
    ///
    /// # Errors
    /// [`VolumeError::Away`].
    pub async fn counts(&self) -> Result<VolumeCounts, VolumeError> {
        self.keeper.counts().await
    }

    /// The volumes of storage drivers that pods here use, as `status.volumesInUse` of the node has them: whoever attaches
    /// disks doesn't detach these.
    ///
    /// # Errors
    /// [`VolumeError::Away`], and records that can't be read.
    pub async fn in_use(&self) -> Result<Vec<String>, VolumeError> {
        self.maker.csi.in_use(&self.maker).await
    }

    /// A `ConfigMap` that a pod names anywhere, from memory; `None` if there is none. [`Volumes::set_up`] or
    /// [`Volumes::pod_changed`] comes first, so that it is watched.
    ///
    /// # Errors
    /// [`VolumeError::NotSynced`] as long as the API doesn't answer, and when no pod here names it.
    pub async fn config_map(&self, namespace: &str, name: &str) -> Result<Option<Arc<ConfigMap>>, VolumeError> {
        self.maker.objects.config_map(namespace, name).await
    }

    /// The same of a Secret.
    ///
    /// # Errors
    /// As [`Volumes::config_map`].
    pub async fn secret(&self, namespace: &str, name: &str) -> Result<Option<Arc<Secret>>, VolumeError> {
        self.maker.objects.secret(namespace, name).await
    }
}

/// What was measured by whether it is persistent and its name on disk, by the names in the pod.
fn named(pod: &Pod, persistent: &BTreeMap<String, String>, found: Vec<Measured>) -> BTreeMap<String, VolumeUsage> {
    let mut by_name = BTreeMap::new();
    for Measured { is_persistent, place, usage } in found {
        if !is_persistent {
            by_name.insert(place, usage);
            continue;
        }
        // Several volumes of a pod may stand for one claim.
        for (name, _) in persistent.iter().filter(|(_, behind)| **behind == place) {
            let mut volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
            let claim = volumes.find(|volume| volume.name == *name).and_then(|volume| claim_of(pod, volume));
            by_name.insert(name.clone(), VolumeUsage { claim, ..usage.clone() });
        }
    }
    by_name
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn volumes_are_called_as_the_pod_calls_them() {
        let pod: Pod =
            serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": {"containers": [], "volumes": [
                {"name": "pv", "emptyDir": {}},
                {"name": "a", "persistentVolumeClaim": {"claimName": "c"}},
                {"name": "b", "persistentVolumeClaim": {"claimName": "c", "readOnly": true}},
                {"name": "own", "ephemeral": {}},
            ]}}))
            .unwrap();
        let name = |name: &str| name.to_owned();
        let persistent = [("a", "pv"), ("b", "pv"), ("own", "pv-2")].map(|(a, b)| (name(a), name(b))).into();
        let one = |is_persistent, place: &str, bytes| {
            let usage = VolumeUsage { used_bytes: Some(bytes), ..VolumeUsage::default() };
            Measured { is_persistent, place: name(place), usage }
        };
        let found = vec![one(false, "pv", 1), one(true, "pv", 2), one(true, "pv-2", 3), one(true, "of nobody", 4)];
        let shown: Vec<_> = named(&pod, &persistent, found)
            .into_iter()
            .map(|(name, usage)| (name, usage.used_bytes.unwrap(), usage.claim))
            .collect();
        let expected = [
            (name("a"), 2, Some(name("c"))),
            (name("b"), 2, Some(name("c"))),
            (name("own"), 3, Some(name("p-own"))),
            (name("pv"), 1, None),
        ];
        assert_eq!(shown, expected);
    }
}
