//! Where things are below the kubelet's directory. Pure; the layout is the kubelet's, because storage drivers, backup
//! tools and people know it.

use std::path::{Path, PathBuf};

use crate::error::VolumeError;

pub(crate) const EMPTY_DIR: &str = "kubernetes.io~empty-dir";
pub(crate) const CONFIG_MAP: &str = "kubernetes.io~configmap";
pub(crate) const SECRET: &str = "kubernetes.io~secret";
pub(crate) const PROJECTED: &str = "kubernetes.io~projected";
pub(crate) const DOWNWARD_API: &str = "kubernetes.io~downward-api";
pub(crate) const LOCAL: &str = "kubernetes.io~local-volume";
pub(crate) const NFS: &str = "kubernetes.io~nfs";
pub(crate) const CSI: &str = "kubernetes.io~csi";

/// What is kept about a storage driver's volume: a file beside the mount.
pub(crate) const RECORD: &str = "vol_data.json";

/// The kubelet's directory.
#[derive(Debug, Clone)]
pub(crate) struct Paths {
    root: PathBuf,
}

impl Paths {
    pub(crate) fn new(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    /// Of all pods.
    pub(crate) fn pods(&self) -> PathBuf {
        self.root.join("pods")
    }

    /// Of one pod.
    pub(crate) fn pod(&self, uid: &str) -> Result<PathBuf, VolumeError> {
        Ok(self.pods().join(part(uid)?))
    }

    /// A volume of a pod. `name` is the volume's, or that of its persistent volume.
    pub(crate) fn volume(&self, uid: &str, plugin: &str, name: &str) -> Result<PathBuf, VolumeError> {
        Ok(self.pod(uid)?.join("volumes").join(plugin).join(part(name)?))
    }

    /// A block device of a pod.
    pub(crate) fn device(&self, uid: &str, plugin: &str, name: &str) -> Result<PathBuf, VolumeError> {
        Ok(self.pod(uid)?.join("volumeDevices").join(plugin).join(part(name)?))
    }

    /// Says that an emptyDir was finished.
    pub(crate) fn ready(&self, uid: &str, name: &str) -> Result<PathBuf, VolumeError> {
        Ok(self.pod(uid)?.join("plugins").join(EMPTY_DIR).join(part(name)?).join("ready"))
    }

    /// Where parts of volumes are mounted for one container.
    pub(crate) fn sub_paths(&self, uid: &str, volume: &str, container: &str) -> Result<PathBuf, VolumeError> {
        Ok(self.pod(uid)?.join("volume-subpaths").join(part(volume)?).join(part(container)?))
    }

    /// Where storage drivers say that they are there.
    pub(crate) fn registry(&self) -> PathBuf {
        self.root.join("plugins_registry")
    }

    /// What is kept for storage drivers.
    pub(crate) fn csi(&self) -> PathBuf {
        self.root.join("plugins").join("kubernetes.io").join("csi")
    }
}

/// One part of a path. Names come from outside and must not lead anywhere else.
pub(crate) fn part(name: &str) -> Result<&str, VolumeError> {
    let fits = !name.is_empty() && name.len() <= 253 && !matches!(name, "." | "..") && !name.contains(['/', '\0']);
    if fits { Ok(name) } else { Err(VolumeError::refused(format!("{name:?} can't be part of a path"))) }
}
