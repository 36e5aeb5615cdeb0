//! What happens in the cluster, and whether it may help a pod that found no node.

use std::sync::Arc;

use crate::filter::affinity::resolve;
use crate::filter::node::{fits_empty, tolerates_cordon, untolerated};
use crate::plugin::{Plugin, PluginSet};
use crate::pod::{Key, PodInfo};
use crate::snapshot::{NodeInfo, Snapshot};
use crate::volumes::claim_keys;

/// Something that happened.
#[derive(Clone, Debug)]
pub enum ClusterEvent {
    /// A node is there.
    NodeAdded(Arc<NodeInfo>),
    /// A node is another.
    NodeUpdated {
        /// As it was.
        old: Arc<NodeInfo>,
        /// As it is.
        new: Arc<NodeInfo>,
    },
    /// A node is gone.
    NodeDeleted,
    /// A pod came to a node.
    PodAdded(Arc<PodInfo>),
    /// A pod on a node is another.
    PodUpdated {
        /// As it was.
        old: Arc<PodInfo>,
        /// As it is.
        new: Arc<PodInfo>,
    },
    /// A pod left a node.
    PodDeleted(Arc<PodInfo>),
    /// A claim is there, or is another.
    ClaimChanged(Key),
    /// Volumes, classes, or what drivers say of nodes have changed.
    StorageChanged,
    /// Labels of namespaces have changed.
    NamespaceChanged,
}

impl ClusterEvent {
    /// Whose refusals it may change at all.
    pub fn concerns(&self) -> PluginSet {
        let list: &[Plugin] = match self {
            Self::NodeAdded(_) | Self::NodeUpdated { .. } => &[
                Plugin::NodeUnschedulable,
                Plugin::NodeName,
                Plugin::TaintToleration,
                Plugin::NodeAffinity,
                Plugin::NodePorts,
                Plugin::NodeResourcesFit,
                Plugin::VolumeRestrictions,
                Plugin::NodeVolumeLimits,
                Plugin::VolumeBinding,
                Plugin::VolumeZone,
                Plugin::PodTopologySpread,
                Plugin::InterPodAffinity,
            ],
            Self::NodeDeleted => &[Plugin::PodTopologySpread],
            Self::PodAdded(_) => &[Plugin::PodTopologySpread, Plugin::InterPodAffinity],
            Self::PodUpdated { .. } => &[Plugin::NodeResourcesFit, Plugin::PodTopologySpread, Plugin::InterPodAffinity],
            Self::PodDeleted(_) => &[
                Plugin::NodePorts,
                Plugin::NodeResourcesFit,
                Plugin::VolumeRestrictions,
                Plugin::NodeVolumeLimits,
                Plugin::PodTopologySpread,
                Plugin::InterPodAffinity,
            ],
            Self::ClaimChanged(_) | Self::StorageChanged => {
                &[Plugin::VolumeRestrictions, Plugin::NodeVolumeLimits, Plugin::VolumeBinding, Plugin::VolumeZone]
            }
            Self::NamespaceChanged => &[Plugin::InterPodAffinity],
        };
        list.iter().copied().collect()
    }

    /// Whether it may change what one part said about a pod. Too much hope costs a vain try, too little leaves a pod
    /// waiting for minutes: when in doubt, yes.
    pub fn may_help(&self, plugin: Plugin, pod: &PodInfo, snapshot: &Snapshot) -> bool {
        if !self.concerns().contains(plugin) {
            return false;
        }
        match self {
            Self::NodeAdded(node) => node_helps(plugin, pod, None, node),
            Self::NodeUpdated { old, new } => node_helps(plugin, pod, Some(old), new),
            Self::PodDeleted(other) => deletion_helps(plugin, pod, other, snapshot),
            Self::PodAdded(other) => pod_matters(plugin, pod, other, snapshot),
            Self::PodUpdated { old, new } => match plugin {
                Plugin::NodeResourcesFit => asks_less(old, new),
                _ => {
                    old.labels() != new.labels()
                        && (pod_matters(plugin, pod, old, snapshot) || pod_matters(plugin, pod, new, snapshot))
                }
            },
            Self::ClaimChanged(key) => claim_keys(pod).any(|claim| claim == *key),
            Self::NodeDeleted | Self::StorageChanged | Self::NamespaceChanged => true,
        }
    }
}

/// Whether a pod asks for less of anything than before.
pub(crate) fn asks_less(old: &PodInfo, new: &PodInfo) -> bool {
    let (old, new) = (&old.requests, &new.requests);
    let others_less = old.others.iter().any(|(name, amount)| new.get(name) < *amount);
    new.cpu < old.cpu || new.memory < old.memory || new.ephemeral < old.ephemeral || others_less
}

fn node_helps(plugin: Plugin, pod: &PodInfo, old: Option<&NodeInfo>, new: &NodeInfo) -> bool {
    // What the node was like before: if it would have done then, the change is none.
    let changed = |holds: &dyn Fn(&NodeInfo) -> bool| holds(new) && !old.is_some_and(holds);
    let label_of = |key: &str| old.map(|old| old.label(key) != new.label(key)).unwrap_or(true);
    match plugin {
        Plugin::NodeName => pod.node_name().is_none_or(|name| name == &*new.name),
        Plugin::NodeUnschedulable => changed(&|node| !node.is_cordoned || tolerates_cordon(pod)),
        Plugin::TaintToleration => changed(&|node| untolerated(pod, node).is_none()),
        Plugin::NodeAffinity => changed(&|node| pod.node.admits(&node.name, node.labels())),
        Plugin::NodeResourcesFit => {
            let grew = old.is_none_or(|old| grew(old, new));
            grew && fits_empty(&pod.requests, new)
        }
        Plugin::PodTopologySpread => {
            pod.spread.iter().any(|spread| label_of(&spread.topology_key)) || pod.spread.is_empty()
        }
        Plugin::InterPodAffinity => {
            let own = pod.affinity.required.iter().chain(&pod.affinity.anti_required);
            old.is_none_or(|old| old.labels() != new.labels())
                || own.into_iter().any(|term| label_of(&term.topology_key))
        }
        Plugin::NodePorts => old.is_none(),
        _ => old.is_none_or(|old| old.labels() != new.labels() || grew(old, new)),
    }
}

/// Whether a node has more of anything than before.
fn grew(old: &NodeInfo, new: &NodeInfo) -> bool {
    let (old, new) = (&old.allocatable, &new.allocatable);
    let others_grew = new.others.iter().any(|(name, amount)| *amount > old.get(name));
    new.cpu > old.cpu || new.memory > old.memory || new.ephemeral > old.ephemeral || new.pods > old.pods || others_grew
}

fn deletion_helps(plugin: Plugin, pod: &PodInfo, gone: &PodInfo, snapshot: &Snapshot) -> bool {
    match plugin {
        Plugin::NodePorts => gone.ports.iter().any(|freed| pod.ports.iter().any(|wanted| wanted.conflicts(freed))),
        Plugin::NodeVolumeLimits => !gone.claims.is_empty(),
        Plugin::VolumeRestrictions => {
            let shared = claim_keys(gone).any(|key| claim_keys(pod).any(|own| own == key));
            shared || gone.disks.iter().any(|freed| pod.disks.iter().any(|wanted| wanted.conflicts(freed)))
        }
        Plugin::PodTopologySpread | Plugin::InterPodAffinity => pod_matters(plugin, pod, gone, snapshot),
        // Whatever it asked for, it takes up one of the pods that a node may have.
        _ => true,
    }
}

/// Whether a pod that comes, changes or goes is one of those that another asks about.
fn pod_matters(plugin: Plugin, pod: &PodInfo, other: &PodInfo, snapshot: &Snapshot) -> bool {
    match plugin {
        Plugin::PodTopologySpread => {
            let is_counted = |spread: &crate::pod::Spread| crate::labels::selects(&spread.selector, other.labels());
            pod.key.namespace == other.key.namespace && (pod.spread.is_empty() || pod.spread.iter().any(is_counted))
        }
        _ => {
            let own = pod.affinity.required.iter().chain(&pod.affinity.anti_required);
            let labels = snapshot.namespace_labels(&pod.key.namespace);
            let means_it =
                |term: &std::sync::Arc<crate::pod::Term>| term.matches(&pod.key.namespace, pod.labels(), labels);
            own.into_iter().any(|term| resolve(snapshot, term).matches(other))
                || other.affinity.anti_required.iter().any(means_it)
        }
    }
}
