//! What others are told about a pod's volumes.

use std::collections::BTreeMap;
use std::path::PathBuf;

/// What has to be known of a pod beside its object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodIdentity {
    /// Its uid on this node; of a static pod not that of its mirror.
    pub uid: String,
    /// The group that its volumes are given to: `spec.securityContext.fsGroup`, or that of the range of its user namespace.
    pub fs_group: Option<u32>,
    /// The limit of its cgroup in bytes, which volumes in memory count towards.
    pub memory_limit: Option<u64>,
}

/// The volumes of a pod that its containers use, all of them there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mounted {
    /// By the names that the pod has for them.
    pub volumes: BTreeMap<String, HostVolume>,
}

/// Where a volume is on the host, and what is to be heeded when a container gets it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostVolume {
    /// A directory or file of the host; with `is_block` a device.
    pub path: PathBuf,
    /// No container may write to it, whatever its mount says.
    pub read_only: bool,
    /// It goes to `volumeDevices`, not to `volumeMounts`.
    pub is_block: bool,
    /// The runtime may label it for SELinux, because it is this pod's alone.
    pub selinux_relabel: bool,
}

/// Which part of a volume a container wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubPath {
    /// The pod's uid on this node.
    pub uid: String,
    /// The volume's name in the pod.
    pub volume: String,
    /// Where the volume is.
    pub host_path: PathBuf,
    /// The part, expanded already; relative and without `..`.
    pub sub_path: String,
    /// The container's name.
    pub container: String,
    /// Position of the mount among the container's.
    pub index: usize,
    /// Nothing is made in a volume that can't be written to.
    pub read_only: bool,
}

/// How many volumes pods want, and how many of them are there, by what serves them: `kubernetes.io/empty-dir`, with a
/// storage driver's name `kubernetes.io/csi:example.com`.
pub type VolumeCounts = BTreeMap<String, (u64, u64)>;

/// What was measured of a volume, under its name on disk.
#[derive(Debug)]
pub(crate) struct Measured {
    /// Whether that name is the persistent volume's, not the pod's.
    pub(crate) is_persistent: bool,
    pub(crate) place: String,
    pub(crate) usage: VolumeUsage,
}

/// How much a volume takes. Figures that can't be had cheaply or safely are `None`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VolumeUsage {
    /// The claim that the volume is there for, in the pod's namespace.
    pub claim: Option<String>,
    /// What the pod has put there, in bytes.
    pub used_bytes: Option<u64>,
    /// Size of the file system around it, in bytes.
    pub capacity_bytes: Option<u64>,
    /// Of it free for anybody, in bytes.
    pub available_bytes: Option<u64>,
    /// Files and directories that the pod has put there.
    pub inodes_used: Option<u64>,
    /// Files that fit into the file system.
    pub inodes: Option<u64>,
    /// Of them those that can still be made.
    pub inodes_free: Option<u64>,
}
