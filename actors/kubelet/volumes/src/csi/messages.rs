//! The messages of storage drivers and of their registration, as far as a node needs them: facts of CSI 1.x and of the
//! kubelet's plugin registration v1. What isn't here is skipped when it comes.

use std::collections::HashMap;

/// Who a plugin is that has put a socket into the registry.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct PluginInfo {
    #[prost(string, tag = "1")]
    pub(crate) kind: String,
    #[prost(string, tag = "2")]
    pub(crate) name: String,
    #[prost(string, tag = "3")]
    pub(crate) endpoint: String,
    #[prost(string, repeated, tag = "4")]
    pub(crate) versions: Vec<String>,
}

/// What became of it.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct RegistrationStatus {
    #[prost(bool, tag = "1")]
    pub(crate) registered: bool,
    #[prost(string, tag = "2")]
    pub(crate) error: String,
}

/// Requests and answers without fields, or whose fields don't matter.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub(crate) struct Empty {}

/// Where a driver says this node is.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct NodeInfo {
    #[prost(string, tag = "1")]
    pub(crate) node_id: String,
    #[prost(int64, tag = "2")]
    pub(crate) volumes_max: i64,
    #[prost(message, optional, tag = "3")]
    pub(crate) topology: Option<Topology>,
}

/// Labels of a place.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Topology {
    #[prost(map = "string, string", tag = "1")]
    pub(crate) segments: HashMap<String, String>,
}

/// What a driver can do on a node.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Capabilities {
    #[prost(message, repeated, tag = "1")]
    pub(crate) capabilities: Vec<Capability>,
}

/// One of these.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub(crate) struct Capability {
    #[prost(message, optional, tag = "1")]
    pub(crate) rpc: Option<Rpc>,
}

/// Which.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub(crate) struct Rpc {
    #[prost(int32, tag = "1")]
    pub(crate) kind: i32,
}

/// Volumes are staged for the node before they are published to pods.
pub(crate) const STAGES: i32 = 1;
/// The driver says how full volumes are.
pub(crate) const GET_STATS: i32 = 2;
/// Volumes that have grown have to grow on the node too.
pub(crate) const EXPANDS: i32 = 3;
/// Single-node access modes are told apart.
pub(crate) const SINGLE_NODE_MULTI_WRITER: i32 = 5;
/// The driver itself gives volumes to the pod's group.
pub(crate) const MOUNT_GROUP: i32 = 6;

/// How a volume is used.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct VolumeCapability {
    #[prost(message, optional, tag = "1")]
    pub(crate) block: Option<Empty>,
    #[prost(message, optional, tag = "2")]
    pub(crate) mount: Option<MountVolume>,
    #[prost(message, optional, tag = "3")]
    pub(crate) access: Option<AccessMode>,
}

/// As a file system.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct MountVolume {
    #[prost(string, tag = "1")]
    pub(crate) fs_type: String,
    #[prost(string, repeated, tag = "2")]
    pub(crate) flags: Vec<String>,
    #[prost(string, tag = "3")]
    pub(crate) group: String,
}

/// By whom.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub(crate) struct AccessMode {
    #[prost(int32, tag = "1")]
    pub(crate) mode: i32,
}

/// Have a volume ready on this node.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Stage {
    #[prost(string, tag = "1")]
    pub(crate) volume_id: String,
    #[prost(map = "string, string", tag = "2")]
    pub(crate) publish_context: HashMap<String, String>,
    #[prost(string, tag = "3")]
    pub(crate) staging_path: String,
    #[prost(message, optional, tag = "4")]
    pub(crate) capability: Option<VolumeCapability>,
    #[prost(map = "string, string", tag = "5")]
    pub(crate) secrets: HashMap<String, String>,
    #[prost(map = "string, string", tag = "6")]
    pub(crate) volume_context: HashMap<String, String>,
}

/// Give it to a pod.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Publish {
    #[prost(string, tag = "1")]
    pub(crate) volume_id: String,
    #[prost(map = "string, string", tag = "2")]
    pub(crate) publish_context: HashMap<String, String>,
    #[prost(string, tag = "3")]
    pub(crate) staging_path: String,
    #[prost(string, tag = "4")]
    pub(crate) target_path: String,
    #[prost(message, optional, tag = "5")]
    pub(crate) capability: Option<VolumeCapability>,
    #[prost(bool, tag = "6")]
    pub(crate) read_only: bool,
    #[prost(map = "string, string", tag = "7")]
    pub(crate) secrets: HashMap<String, String>,
    #[prost(map = "string, string", tag = "8")]
    pub(crate) volume_context: HashMap<String, String>,
}

/// Take it back from a pod, or from the node: the path is where it is.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Release {
    #[prost(string, tag = "1")]
    pub(crate) volume_id: String,
    #[prost(string, tag = "2")]
    pub(crate) path: String,
}

/// How full is it?
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct StatsRequest {
    #[prost(string, tag = "1")]
    pub(crate) volume_id: String,
    #[prost(string, tag = "2")]
    pub(crate) volume_path: String,
    #[prost(string, tag = "3")]
    pub(crate) staging_path: String,
}

/// So full.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Stats {
    #[prost(message, repeated, tag = "1")]
    pub(crate) usage: Vec<Usage>,
}

/// Of one unit.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub(crate) struct Usage {
    #[prost(int64, tag = "1")]
    pub(crate) available: i64,
    #[prost(int64, tag = "2")]
    pub(crate) total: i64,
    #[prost(int64, tag = "3")]
    pub(crate) used: i64,
    #[prost(int32, tag = "4")]
    pub(crate) unit: i32,
}

/// Units of [`Usage`].
pub(crate) const BYTES: i32 = 1;
pub(crate) const INODES: i32 = 2;

/// Make the file system as large as the volume is now.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Expand {
    #[prost(string, tag = "1")]
    pub(crate) volume_id: String,
    #[prost(string, tag = "2")]
    pub(crate) volume_path: String,
    #[prost(message, optional, tag = "3")]
    pub(crate) range: Option<CapacityRange>,
    #[prost(string, tag = "4")]
    pub(crate) staging_path: String,
    #[prost(message, optional, tag = "5")]
    pub(crate) capability: Option<VolumeCapability>,
    #[prost(map = "string, string", tag = "6")]
    pub(crate) secrets: HashMap<String, String>,
}

/// At least so large, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub(crate) struct CapacityRange {
    #[prost(int64, tag = "1")]
    pub(crate) required_bytes: i64,
}
