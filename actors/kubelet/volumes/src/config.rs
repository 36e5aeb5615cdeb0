//! What the volumes of a node are made from.

use std::path::PathBuf;

use k3sd_client::events::Recorder;

/// What the volumes of a node are made from.
#[derive(Debug, Clone)]
pub struct VolumesConfig {
    /// The kubelet's directory, `/var/lib/kubelet` as a rule. Absolute.
    pub root: PathBuf,
    /// This node.
    pub node_name: String,
    /// What the node has for pods: the limit of containers that name none, in downward API volumes, and of volumes in
    /// memory.
    pub allocatable: Allocatable,
    /// The host's program that mounts NFS, found on the path of this process unless it is absolute.
    pub mount_program: PathBuf,
    /// Where events about volumes go; without it nobody is told.
    pub recorder: Option<Recorder>,
}

/// What the node has for pods.
#[derive(Debug, Clone, Copy, Default)]
pub struct Allocatable {
    /// Thousandths of a CPU.
    pub cpu_milli: i64,
    /// Bytes.
    pub memory: i64,
    /// Bytes.
    pub ephemeral_storage: i64,
}
