//! A node and what is on it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Taint};

use crate::labels::Labels;
use crate::pod::{HostPort, Key, PodInfo, Resources};

/// The place of a node in tables; it stays the same as long as the node or a pod on it is there.
pub type Slot = u32;

/// A node, with the sums over its pods.
#[derive(Clone, Debug)]
pub struct NodeInfo {
    /// Where it stands.
    pub slot: Slot,
    /// Its name.
    pub name: Arc<str>,
    /// The object; `None` for a node that isn't there while pods still say that they are on it.
    pub node: Option<Arc<Node>>,
    /// What pods may ask for, all together.
    pub allocatable: Resources,
    /// What they ask for.
    pub requested: Resources,
    /// CPU in thousandths, with a default for those who ask for none.
    pub cpu_nonzero: i64,
    /// Memory in bytes, with a default for those who ask for none.
    pub memory_nonzero: i64,
    /// The pods on it, those included that are only assumed to be.
    pub pods: Vec<Arc<PodInfo>>,
    /// The ports of the host that they take.
    pub ports: Vec<HostPort>,
    /// Taints that keep pods away.
    pub hard_taints: Vec<Taint>,
    /// Taints that pods rather avoid.
    pub soft_taints: Vec<Taint>,
    /// No new pods.
    pub is_cordoned: bool,
    /// Bytes of each image that is there, by each of its names.
    pub images: HashMap<String, i64>,
    /// How many of its pods mount each claim.
    pub claims: BTreeMap<Key, usize>,
}

impl NodeInfo {
    /// A node of which only the name is known.
    pub(super) fn named(slot: Slot, name: Arc<str>) -> Self {
        Self {
            slot,
            name,
            node: None,
            allocatable: Resources::default(),
            requested: Resources::default(),
            cpu_nonzero: 0,
            memory_nonzero: 0,
            pods: Vec::new(),
            ports: Vec::new(),
            hard_taints: Vec::new(),
            soft_taints: Vec::new(),
            is_cordoned: false,
            images: HashMap::new(),
            claims: BTreeMap::new(),
        }
    }

    /// Takes the object over, or forgets it.
    pub(super) fn set_node(&mut self, node: Option<Arc<Node>>) {
        let spec = node.as_ref().and_then(|node| node.spec.as_ref());
        let status = node.as_ref().and_then(|node| node.status.as_ref());
        let taints = spec.and_then(|spec| spec.taints.as_deref()).unwrap_or_default();
        let is_soft = |taint: &&Taint| taint.effect == "PreferNoSchedule";
        self.soft_taints = taints.iter().filter(is_soft).cloned().collect();
        self.hard_taints = taints.iter().filter(|taint| !is_soft(taint)).cloned().collect();
        self.is_cordoned = spec.and_then(|spec| spec.unschedulable).unwrap_or(false);
        self.allocatable = Resources::read(status.and_then(|status| status.allocatable.as_ref()));
        self.images.clear();
        for image in status.and_then(|status| status.images.as_ref()).into_iter().flatten() {
            for name in image.names.iter().flatten() {
                self.images.insert(name.clone(), image.size_bytes.unwrap_or(0));
            }
        }
        self.node = node;
    }

    /// Its labels.
    pub fn labels(&self) -> Option<&Labels> {
        self.node.as_ref().and_then(|node| node.metadata.labels.as_ref())
    }

    /// The value of a label.
    pub fn label(&self, key: &str) -> Option<&str> {
        self.labels().and_then(|labels| labels.get(key)).map(String::as_str)
    }

    /// Puts a pod on it.
    pub fn add(&mut self, pod: Arc<PodInfo>) {
        self.requested.add(&pod.requests);
        self.cpu_nonzero += pod.cpu_nonzero;
        self.memory_nonzero += pod.memory_nonzero;
        self.ports.extend(pod.ports.iter().cloned());
        for claim in &pod.claims {
            *self.claims.entry(Key::new(&pod.key.namespace, &claim.name)).or_default() += 1;
        }
        self.pods.push(pod);
    }

    /// Takes a pod off it. `None` if it isn't there.
    pub fn remove(&mut self, uid: &str) -> Option<Arc<PodInfo>> {
        let place = self.pods.iter().position(|pod| pod.uid == uid)?;
        let pod = self.pods.swap_remove(place);
        self.requested.subtract(&pod.requests);
        self.cpu_nonzero -= pod.cpu_nonzero;
        self.memory_nonzero -= pod.memory_nonzero;
        for port in &pod.ports {
            if let Some(place) = self.ports.iter().position(|taken| taken == port) {
                self.ports.swap_remove(place);
            }
        }
        for claim in &pod.claims {
            let key = Key::new(&pod.key.namespace, &claim.name);
            if let Some(count) = self.claims.get_mut(&key) {
                *count -= 1;
                if *count == 0 {
                    self.claims.remove(&key);
                }
            }
        }
        Some(pod)
    }
}
