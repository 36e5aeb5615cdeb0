//! What the parts of the node hand each other: snapshots of its pods.
//!
//! The pods' part owns them and publishes; figures, eviction, the server and the network read.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use tokio::sync::watch;

pub mod stats;

/// The node's pods at one moment, by uid.
///
/// The uid of a static pod is its own, made from its file, not that of its mirror.
#[derive(Debug, Clone, Default)]
pub struct PodsSnapshot {
    /// Every pod that this node runs, or still has something of.
    pub pods: BTreeMap<String, Arc<PodView>>,
}

impl PodsSnapshot {
    /// The pod of this namespace and name; the youngest, if an older one of that name is still going away.
    #[must_use]
    pub fn named(&self, namespace: &str, name: &str) -> Option<&Arc<PodView>> {
        let is_it = |view: &&Arc<PodView>| {
            let metadata = &view.pod.metadata;
            metadata.namespace.as_deref() == Some(namespace) && metadata.name.as_deref() == Some(name)
        };
        self.pods.values().filter(is_it).max_by_key(|view| &view.pod.metadata.creation_timestamp)
    }
}

/// One pod, and what runs for it.
#[derive(Debug, Clone)]
pub struct PodView {
    /// The object, with the status that this node last made for it.
    pub pod: Arc<Pod>,
    /// Its uid on this node.
    pub uid: String,
    /// Id of the sandbox that is ready, if one is.
    pub sandbox: Option<String>,
    /// Addresses of the sandbox; the host's for a pod on the host's network.
    pub addresses: Vec<String>,
    /// The pod's cgroup, relative to the root of the hierarchies, if it has one of its own.
    pub cgroup: Option<PathBuf>,
    /// Newest first within a name; init and ephemeral containers too.
    pub containers: Vec<ContainerView>,
}

/// One container of a pod, as the runtime knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerView {
    /// The name in the pod.
    pub name: String,
    /// The runtime's id, without a scheme.
    pub id: String,
    /// How many came before it.
    pub attempt: u32,
    /// Whether it runs, or has ended, or not started yet.
    pub state: ContainerState,
    /// The file of its log.
    pub log: PathBuf,
    /// The image's id, as the runtime names it.
    pub image: String,
}

/// What a container is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContainerState {
    /// Made and not started.
    Created,
    /// Running.
    Running,
    /// Ended.
    Exited,
}

/// Where the newest snapshot is read; a change wakes who waits for it.
pub type Pods = watch::Receiver<Arc<PodsSnapshot>>;

/// Where the pods' part puts it.
pub type PodsPublisher = watch::Sender<Arc<PodsSnapshot>>;
