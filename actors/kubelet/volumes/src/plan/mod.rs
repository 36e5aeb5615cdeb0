//! Finds out what each volume of a pod is made of. What it waits for is the API and storage drivers; what is made on this
//! host, threads make.

mod files;
mod mounted;
mod plugin;
mod used;

use std::collections::BTreeMap;
use std::sync::Arc;

use k3sd_client::api::Connect;
use k3sd_objects::quantity::Quantity;
use k3sd_runtime::Moment;
use k8s_openapi::api::core::v1::{EmptyDirVolumeSource, Pod, Volume};

pub(crate) use self::files::token_ref;
pub(crate) use self::plugin::{of_persistent, of_volume};
pub(crate) use self::used::{Use, used};
use crate::config::VolumesConfig;
use crate::csi::Csi;
use crate::disk::{Disks, Done, Group, Job, Medium, Planned, What};
use crate::error::VolumeError;
use crate::objects::Objects;
use crate::paths::Paths;
use crate::tokens::Tokens;
use crate::types::{Mounted, PodIdentity};

/// Everything that volumes are made with. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Maker {
    pub(crate) config: Arc<VolumesConfig>,
    pub(crate) paths: Paths,
    pub(crate) connect: Connect,
    pub(crate) objects: Objects,
    pub(crate) tokens: Tokens,
    pub(crate) disks: Disks,
    pub(crate) csi: Csi,
}

/// When the first of some tokens has to be renewed.
pub(crate) type Refresh = Option<Moment>;

/// What has to be known of a pod's volumes as long as they are there.
#[derive(Debug, Clone, Default)]
pub(crate) struct Upkeep {
    /// When files have to be written again.
    pub(crate) refresh: Refresh,
    /// Some storage driver wants to be asked now and then.
    pub(crate) wants_care: bool,
    /// Names in the pod, with those of the persistent volumes behind them.
    pub(crate) persistent: BTreeMap<String, String>,
    /// Names in the pod of those that claims stand for, with what serves them.
    pub(crate) plugins: BTreeMap<String, String>,
}

impl Maker {
    /// Has all volumes there that the pod's containers use.
    pub(crate) async fn set_up(&self, pod: &Pod, who: &PodIdentity) -> (Result<Mounted, VolumeError>, Upkeep) {
        let mut planned = Vec::new();
        let mut upkeep = Upkeep::default();
        let mut failure = None;
        for (volume, how) in used(pod) {
            match self.volume(pod, who, volume, how, &mut upkeep).await {
                Ok(what) => planned.push(Planned { name: volume.name.clone(), what }),
                Err(error) => {
                    failure.get_or_insert(error.of(&volume.name));
                }
            }
        }
        let made = self.make(pod, who, planned).await;
        let outcome = failure.map_or(Ok(()), Err).and(made);
        (outcome, upkeep)
    }

    /// Writes the files of a pod's volumes again, where they are others by now, and asks storage drivers what they want.
    pub(crate) async fn refresh(&self, pod: &Pod, who: &PodIdentity) -> Result<Upkeep, VolumeError> {
        let mut planned = Vec::new();
        let mut others = Vec::new();
        let mut upkeep = Upkeep::default();
        for (volume, how) in used(pod) {
            let files = self.files(pod, who, volume, &mut upkeep.refresh).await;
            match files.map_err(|error| error.of(&volume.name))? {
                Some(what) => planned.push(Planned { name: volume.name.clone(), what }),
                None => others.push((volume, how)),
            }
        }
        if !planned.is_empty() {
            let job = Job::Rewrite { uid: who.uid.clone(), group: group(pod, who), volumes: planned };
            self.disks.run(&who.uid, job).await?;
        }
        for (volume, how) in others {
            self.look_after(pod, who, volume, how, &mut upkeep).await;
        }
        Ok(upkeep)
    }

    async fn make(&self, pod: &Pod, who: &PodIdentity, volumes: Vec<Planned>) -> Result<Mounted, VolumeError> {
        if volumes.is_empty() {
            return Ok(Mounted::default());
        }
        let job = Job::SetUp { uid: who.uid.clone(), group: group(pod, who), volumes };
        match self.disks.run(&who.uid, job).await? {
            Done::Mounted(volumes) => Ok(Mounted { volumes }),
            _ => Err(VolumeError::Away),
        }
    }

    async fn volume(
        &self,
        pod: &Pod,
        who: &PodIdentity,
        volume: &Volume,
        how: Use,
        upkeep: &mut Upkeep,
    ) -> Result<What, VolumeError> {
        if let Some(files) = self.files(pod, who, volume, &mut upkeep.refresh).await? {
            return Ok(files);
        }
        if let Some(empty_dir) = &volume.empty_dir {
            return self.empty_dir(pod, who, empty_dir);
        }
        if let Some(host_path) = &volume.host_path {
            let kind = host_path.type_.clone().unwrap_or_default();
            return Ok(What::HostPath { path: host_path.path.clone().into(), kind, read_only: false });
        }
        self.mounted(pod, who, volume, how, upkeep).await
    }

    /// The most that a volume in memory may take, in bytes: what the pod may have, or what the node has for pods.
    fn memory_max(&self, who: &PodIdentity) -> u64 {
        let node = u64::try_from(self.config.allocatable.memory).unwrap_or(0);
        match who.memory_limit.filter(|limit| *limit > 0) {
            Some(limit) if node == 0 || limit < node => limit,
            _ => node,
        }
    }

    fn empty_dir(&self, pod: &Pod, who: &PodIdentity, volume: &EmptyDirVolumeSource) -> Result<What, VolumeError> {
        let medium = match volume.medium.as_deref().unwrap_or_default() {
            "" => Medium::Disk,
            "Memory" => {
                let limit =
                    volume.size_limit.as_ref().map(|text| bytes(&text.0)).transpose()?.filter(|limit| *limit > 0);
                let most = self.memory_max(who);
                let bytes_max = if most == 0 { limit } else { Some(limit.map_or(most, |limit| limit.min(most))) };
                Medium::Memory { bytes_max }
            }
            medium => match medium.strip_prefix("HugePages") {
                Some(size) => Medium::HugePages { page_bytes: page_bytes(pod, size)? },
                None => return Err(VolumeError::Refused(format!("unknown storage medium {medium:?}"))),
            },
        };
        Ok(What::EmptyDir { medium })
    }
}

/// To whom the pod's volumes are given, and how thoroughly.
fn group(pod: &Pod, who: &PodIdentity) -> Group {
    let context = pod.spec.as_ref().and_then(|spec| spec.security_context.as_ref());
    let policy = context.and_then(|context| context.fs_group_change_policy.as_deref());
    Group { id: who.fs_group, on_root_mismatch: policy == Some("OnRootMismatch") }
}

fn bytes(text: &str) -> Result<u64, VolumeError> {
    let quantity: Quantity = text.parse().map_err(|error| VolumeError::Refused(format!("{text:?}: {error}")))?;
    Ok(u64::try_from(quantity.value()).unwrap_or(0))
}

/// The size of pages: named by the medium, or the only one that the pod's containers ask for.
fn page_bytes(pod: &Pod, size: &str) -> Result<u64, VolumeError> {
    if let Some(size) = size.strip_prefix('-') {
        return bytes(size);
    }
    let spec = pod.spec.iter();
    let containers = spec.flat_map(|spec| spec.containers.iter().chain(spec.init_containers.iter().flatten()));
    let limits = containers.filter_map(|container| container.resources.as_ref()?.limits.as_ref()).flatten();
    let sizes: std::collections::BTreeSet<_> = limits.filter_map(|(name, _)| name.strip_prefix("hugepages-")).collect();
    match sizes.iter().collect::<Vec<_>>()[..] {
        [size] => bytes(size),
        [] => Err(VolumeError::refused("medium HugePages needs containers that request hugepages")),
        _ => Err(VolumeError::refused("medium HugePages must name its size where containers request several")),
    }
}
