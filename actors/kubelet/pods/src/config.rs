//! What the pods of a node are run with.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use k3sd_client::api::Connect;
use k3sd_client::events::Recorder;
use k3sd_client::informer::Informer;
use k3sd_cri::Cri;
use k3sd_kubelet_cgroups::Cgroups;
use k3sd_objects::quantity::Quantity;
use k8s_openapi::api::core::v1::{Node, Pod, Service};
use tokio::sync::watch;

use crate::credentials::CredentialProviders;
use crate::translate::dns::DnsFacts;
use crate::translate::mounts::HostVolume;
use crate::translate::resources::{Means, Swap};

/// How the node runs its pods.
#[derive(Clone, Debug)]
pub struct PodsConfig {
    /// The node's name.
    pub node: String,
    /// The kubelet's directory, `/var/lib/kubelet`.
    pub root: PathBuf,
    /// Where logs of pods are, `/var/log/pods`.
    pub logs: PathBuf,
    /// Where links to logs by container are, `/var/log/containers`.
    pub log_links: PathBuf,
    /// The directory of static pods' files; without one there are none.
    pub static_pods: Option<PathBuf>,
    /// The host's names of hosts, `/etc/hosts`.
    pub hosts_file: PathBuf,
    /// The kernel's log, `/dev/kmsg`.
    pub kernel_log: PathBuf,
    /// Name servers of the cluster and of the host.
    pub dns: DnsFacts,
    /// Whether pods that name no profile of seccomp get the runtime's.
    pub seccomp_default: bool,
    /// The node's memory, in bytes, from which scores for its killer are made.
    pub memory_capacity: i64,
    /// Whether limits of CPU become quotas.
    pub cpu_quota: bool,
    /// What containers may swap.
    pub swap: Swap,
    /// Processes that a pod may have; no limit if none.
    pub pids_max: Option<u64>,
    /// Pods that the node takes.
    pub pods_max: usize,
    /// Sysctls beside the safe ones that pods may set; with `*` at their ends for any.
    pub allowed_unsafe_sysctls: Vec<String>,
    /// Whether the kernel enforces profiles of AppArmor; see [`crate::admit::apparmor::is_enabled`].
    pub has_apparmor: bool,
    /// Images that are pulled at the same time; no limit if none.
    pub pulls_max: Option<usize>,
}

impl PodsConfig {
    /// How the node gives resources.
    #[must_use]
    pub fn means(&self) -> Means {
        Means { memory_capacity: self.memory_capacity, with_quota: self.cpu_quota, swap: self.swap }
    }
}

/// Volumes, as pods need them.
pub trait PodVolumes: Send + Sync + 'static {
    /// Mounts what the pod needs; harmless to repeat. Its volumes by name.
    fn set_up<'a>(&'a self, pod: &'a Arc<Pod>) -> BoxFuture<'a, Result<BTreeMap<String, HostVolume>, String>>;

    /// Makes a part of a volume fit to be mounted, following no link out of it. `index` is the mount's place in the
    /// container's list. Answers the path to mount.
    fn sub_path<'a>(
        &'a self,
        pod: &'a Arc<Pod>,
        volume: (&'a str, &'a HostVolume),
        container: (&'a str, usize),
        path: &'a str,
    ) -> BoxFuture<'a, Result<String, String>>;

    /// Unmounts and removes all that a pod had; harmless to repeat.
    fn tear_down<'a>(&'a self, uid: &'a str) -> BoxFuture<'a, Result<(), String>>;

    /// The pods of which something is left.
    fn leftovers(&self) -> BoxFuture<'_, Vec<String>>;
}

/// What device plugins give a container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeviceGrant {
    /// Variables; those that the container sets itself count more.
    pub variables: BTreeMap<String, String>,
    /// Path inside, path on the host, whether to be read only.
    pub mounts: Vec<(String, String, bool)>,
    /// Path inside, path on the host, permissions.
    pub devices: Vec<(String, String, String)>,
    /// Annotations for the runtime.
    pub annotations: BTreeMap<String, String>,
    /// Devices that the runtime knows by name (CDI).
    pub named: Vec<String>,
}

/// Devices, as pods need them.
pub trait PodDevices: Send + Sync + 'static {
    /// Gives a container what its limits name; the same again for a container that has it. The uid is that on this node.
    fn allocate<'a>(
        &'a self,
        pod: &'a Arc<Pod>,
        uid: &'a str,
        container: &'a str,
    ) -> BoxFuture<'a, Result<DeviceGrant, String>>;
}

/// Where whoever hands out devices will be; none, and containers get none.
pub type DevicesSeat = watch::Receiver<Option<Arc<dyn PodDevices>>>;

/// What the pods need from others.
#[derive(Clone)]
pub struct PodsDeps {
    /// The runtime.
    pub cri: Cri,
    /// The way to the API, as the node.
    pub connect: Connect,
    /// Where events go, as `kubelet`, from this host.
    pub recorder: Recorder,
    /// Volumes.
    pub volumes: Arc<dyn PodVolumes>,
    /// The cgroup tree; without it the runtime puts containers where it likes.
    pub cgroups: Option<Arc<Cgroups>>,
    /// Services, for environment variables; without it pods learn of none.
    pub services: Option<Informer<Service>>,
    /// The node's own object, for admission; without it labels are not looked at.
    pub own_node: Option<Informer<Node>>,
    /// The node's addresses, the first one first.
    pub addresses: watch::Receiver<Vec<String>>,
    /// What pods may use altogether.
    pub allocatable: watch::Receiver<BTreeMap<String, Quantity>>,
    /// Whether the machine is about to go down; no pod is taken then.
    pub is_ending: watch::Receiver<bool>,
    /// Who hands out devices.
    pub devices: Option<DevicesSeat>,
    /// Programs that know credentials for registries.
    pub credentials: Option<Arc<CredentialProviders>>,
    /// Changes when something happened in the runtime; without it the runtime is asked each second.
    pub nudge: Option<watch::Receiver<()>>,
}

impl std::fmt::Debug for PodsDeps {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PodsDeps").field("cri", &self.cri).finish_non_exhaustive()
    }
}
