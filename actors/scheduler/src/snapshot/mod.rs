//! Everything that a decision looks at: nodes with what is on them, counts, volumes, owners.
//!
//! One actor owns and changes it; deciding borrows it. What a change costs depends on what has changed and not on how
//! much there is: a pod that comes or goes touches its node and the counts that it is part of.

mod counts;
mod index;
mod node;
mod owners;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use k8s_openapi::api::core::v1::Node;

use self::counts::{Carriers, Matches};
pub use self::counts::{Carries, PodCounts, Topology};
pub use self::node::{NodeInfo, Slot};
pub use self::owners::{Owner, OwnerKind, Owners};
use crate::labels::Labels;
use crate::pod::{Key, PodInfo, PodMatch};
use crate::preemption::Budget;
use crate::volumes::Volumes;

/// The label that names a node's zone.
pub const ZONE_LABEL: &str = "topology.kubernetes.io/zone";
/// The label that names a node's region.
pub const REGION_LABEL: &str = "topology.kubernetes.io/region";

/// So many domains more than two for each node may be remembered of a label.
const DOMAINS_SPARE: usize = 64;

/// A node that was there when it was asked about.
const HELD: &str = "a slot in the order or the index holds a node";

/// See the [module](self).
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    slots: Vec<Option<Arc<NodeInfo>>>,
    free: Vec<Slot>,
    by_name: HashMap<Arc<str>, Slot>,
    /// The nodes that are there, zone by turns, so that a few in a row are from everywhere.
    order: Vec<Slot>,
    order_is_old: bool,
    /// Where each pod is, by uid.
    pods: HashMap<String, (Slot, Arc<PodInfo>)>,
    topologies: HashMap<String, Topology>,
    matches: Matches,
    carriers: Carriers,
    /// On how many nodes each image is.
    image_nodes: HashMap<String, u32>,
    /// How many pods on nodes mount each claim.
    claim_users: HashMap<Key, usize>,
    /// Labels of namespaces.
    namespaces: BTreeMap<String, Labels>,
    /// Pods that a node is being cleared for, by the node's name.
    nominated: BTreeMap<String, Vec<Arc<PodInfo>>>,
    /// Volumes, claims and what makes them.
    pub volumes: Volumes,
    /// Services and controllers.
    pub owners: Owners,
    /// Disruption budgets.
    pub budgets: BTreeMap<Key, Budget>,
}

impl Snapshot {
    /// The nodes that are there, in the order in which they are tried.
    pub fn order(&self) -> &[Slot] {
        &self.order
    }

    /// The node in a slot that [`Self::order`] or [`Self::slot`] gave.
    ///
    /// # Panics
    /// Nobody is there: the slot is from another moment.
    pub fn node(&self, slot: Slot) -> &Arc<NodeInfo> {
        self.slots.get(slot as usize).and_then(Option::as_ref).expect(HELD)
    }

    /// The slot of a node that is there.
    pub fn slot(&self, name: &str) -> Option<Slot> {
        self.by_name.get(name).copied().filter(|slot| self.node(*slot).node.is_some())
    }

    /// All nodes, those included that are only known by their pods.
    fn all(&self) -> impl Iterator<Item = &NodeInfo> {
        self.slots.iter().flatten().map(|node| &**node)
    }

    /// How many nodes there are.
    pub fn len(&self) -> usize {
        self.order.len()
    }

    /// Whether there are no nodes.
    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// How many pods are on nodes.
    pub fn pods_len(&self) -> usize {
        self.pods.len()
    }

    /// The node that a pod is on.
    pub fn node_of(&self, uid: &str) -> Option<&Arc<NodeInfo>> {
        self.pods.get(uid).map(|(slot, _)| self.node(*slot))
    }

    /// A pod that is on a node, or is assumed to be.
    pub fn pod(&self, uid: &str) -> Option<&Arc<PodInfo>> {
        self.pods.get(uid).map(|(_, pod)| pod)
    }

    /// All pods on nodes.
    pub fn pods(&self) -> impl Iterator<Item = &Arc<PodInfo>> {
        self.pods.values().map(|(_, pod)| pod)
    }

    /// The names of all nodes that are there.
    pub fn node_names(&self) -> impl Iterator<Item = &str> {
        self.all().filter(|node| node.node.is_some()).map(|node| &*node.name)
    }

    /// On how many nodes an image is.
    pub fn nodes_with_image(&self, image: &str) -> u32 {
        self.image_nodes.get(image).copied().unwrap_or(0)
    }

    /// How many pods on nodes mount a claim.
    pub fn claim_users(&self, claim: &Key) -> usize {
        self.claim_users.get(claim).copied().unwrap_or(0)
    }

    /// Labels of a namespace.
    pub fn namespace_labels(&self, name: &str) -> Option<&Labels> {
        self.namespaces.get(name)
    }

    /// All namespaces with their labels.
    pub fn namespaces(&self) -> impl Iterator<Item = (&String, &Labels)> {
        self.namespaces.iter()
    }

    /// The pods that a node is being cleared for.
    pub fn nominated(&self, node: &str) -> &[Arc<PodInfo>] {
        self.nominated.get(node).map(Vec::as_slice).unwrap_or_default()
    }

    /// The domains that a label makes.
    pub fn topology(&self, key: &str) -> Cow<'_, Topology> {
        match self.topologies.get(key) {
            Some(topology) => Cow::Borrowed(topology),
            None => Cow::Owned(Topology::of(key, self.all())),
        }
    }

    /// How many such pods are on each node.
    pub fn counts(&self, what: &PodMatch) -> Cow<'_, PodCounts> {
        match self.matches.get(what) {
            Some(counts) => Cow::Borrowed(counts),
            None => Cow::Owned(counts::count_all(self.all(), what)),
        }
    }

    /// The terms of pods on nodes that mean a pod, and how many carry them where.
    pub fn terms_about<'a>(
        &'a self,
        pod: &'a PodInfo,
    ) -> impl Iterator<Item = (&'a crate::pod::Term, Carries, &'a BTreeMap<Slot, u32>)> {
        self.carriers.about(pod, self.namespace_labels(&pod.key.namespace))
    }

    /// Keeps what a decision will ask for up to date from now on. Decisions are the same without, but slower.
    pub fn keep(&mut self, topologies: &[&str], matches: &[PodMatch]) {
        for key in topologies {
            if !self.topologies.contains_key(*key) {
                let topology = Topology::of(key, self.all());
                self.topologies.insert((*key).to_owned(), topology);
            }
        }
        let slots = &self.slots;
        for what in matches {
            self.matches
                .keep(what, slots.len(), || counts::count_all(slots.iter().flatten().map(|node| &**node), what));
        }
    }

    fn place(&mut self, name: &str) -> Slot {
        if let Some(slot) = self.by_name.get(name) {
            return *slot;
        }
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            Slot::try_from(self.slots.len() - 1).unwrap_or(Slot::MAX)
        });
        let name: Arc<str> = name.into();
        self.slots[slot as usize] = Some(Arc::new(NodeInfo::named(slot, name.clone())));
        self.by_name.insert(name, slot);
        slot
    }

    fn change(&mut self, slot: Slot, change: impl FnOnce(&mut NodeInfo)) {
        if let Some(node) = self.slots[slot as usize].as_mut() {
            change(Arc::make_mut(node));
        }
    }

    /// Forgets a node that neither is there nor has pods.
    fn sweep(&mut self, slot: Slot) {
        let is_idle = |node: &Arc<NodeInfo>| node.node.is_none() && node.pods.is_empty();
        if self.slots[slot as usize].as_ref().is_some_and(is_idle)
            && let Some(node) = self.slots[slot as usize].take()
        {
            self.by_name.remove(&node.name);
            self.free.push(slot);
        }
    }

    /// Takes a node in.
    pub fn apply_node(&mut self, node: Arc<Node>) {
        let slot = self.place(node.metadata.name.as_deref().unwrap_or_default());
        let zone = |node: &NodeInfo| (node.label(ZONE_LABEL).map(str::to_owned), node.node.is_some());
        let before = zone(self.node(slot));
        self.count_images(slot, false);
        self.change(slot, |info| info.set_node(Some(node)));
        self.count_images(slot, true);
        self.order_is_old |= before != zone(self.node(slot));
        self.place_in_topologies(slot);
    }

    /// Forgets a node. Its pods stay until they are deleted.
    pub fn delete_node(&mut self, name: &str) {
        let Some(slot) = self.slot(name) else { return };
        self.count_images(slot, false);
        self.change(slot, |info| info.set_node(None));
        // Domains that nobody is in any more go too; what is asked for is made again.
        self.topologies.clear();
        self.order_is_old = true;
        self.order.retain(|other| *other != slot);
        self.sweep(slot);
    }

    fn count_images(&mut self, slot: Slot, came: bool) {
        let node = self.slots[slot as usize].clone();
        for image in node.iter().flat_map(|node| node.images.keys()) {
            if came {
                *self.image_nodes.entry(image.clone()).or_default() += 1;
            } else if let Some(count) = self.image_nodes.get_mut(image) {
                *count -= 1;
                if *count == 0 {
                    self.image_nodes.remove(image);
                }
            }
        }
    }

    fn place_in_topologies(&mut self, slot: Slot) {
        let Some(node) = &self.slots[slot as usize] else { return };
        for (key, topology) in &mut self.topologies {
            topology.set(slot, node.label(key));
        }
        // As above, for labels whose values change.
        let domains_max = 2 * self.slots.len() + DOMAINS_SPARE;
        self.topologies.retain(|_, topology| topology.len() <= domains_max);
    }

    /// Brings the order of nodes up to date; a decision needs it. The names of nodes are tried in order within a zone.
    pub fn settle(&mut self) {
        if !self.order_is_old {
            return;
        }
        self.order_is_old = false;
        let mut zones: BTreeMap<(&str, &str), BTreeMap<&str, Slot>> = BTreeMap::new();
        for node in self.slots.iter().flatten().filter(|node| node.node.is_some()) {
            let label = |key| node.label(key).unwrap_or_default();
            zones.entry((label(REGION_LABEL), label(ZONE_LABEL))).or_default().insert(&node.name, node.slot);
        }
        let mut turns: Vec<_> = zones.into_values().map(BTreeMap::into_values).collect();
        let mut order = Vec::new();
        while !turns.is_empty() {
            turns.retain_mut(|zone| zone.next().map(|slot| order.push(slot)).is_some());
        }
        self.order = order;
    }

    /// Puts a pod on a node, known or not. One that is there already is replaced.
    pub fn add_pod(&mut self, node: &str, pod: Arc<PodInfo>) {
        self.remove_pod(&pod.uid);
        let slot = self.place(node);
        self.pods.insert(pod.uid.clone(), (slot, pod.clone()));
        self.matches.changed(slot, &pod, true);
        self.carriers.changed(slot, &pod, true);
        for claim in &pod.claims {
            *self.claim_users.entry(Key::new(&pod.key.namespace, &claim.name)).or_default() += 1;
        }
        self.change(slot, |info| info.add(pod));
    }

    /// Takes a pod off its node. `None` if it is on none.
    pub fn remove_pod(&mut self, uid: &str) -> Option<Arc<PodInfo>> {
        let (slot, _) = self.pods.remove(uid)?;
        let mut removed = None;
        self.change(slot, |info| removed = info.remove(uid));
        if let Some(pod) = &removed {
            self.matches.changed(slot, pod, false);
            self.carriers.changed(slot, pod, false);
            for claim in &pod.claims {
                let key = Key::new(&pod.key.namespace, &claim.name);
                if let Some(count) = self.claim_users.get_mut(&key) {
                    *count -= 1;
                    if *count == 0 {
                        self.claim_users.remove(&key);
                    }
                }
            }
        }
        self.sweep(slot);
        removed
    }

    /// Takes the labels of a namespace in.
    pub fn apply_namespace(&mut self, name: &str, labels: Labels) {
        self.namespaces.insert(name.to_owned(), labels);
    }

    /// Forgets a namespace.
    pub fn delete_namespace(&mut self, name: &str) {
        self.namespaces.remove(name);
    }

    /// A node is being cleared for a pod; for no other from now on.
    pub fn nominate(&mut self, node: &str, pod: Arc<PodInfo>) {
        self.denominate(&pod.uid);
        self.nominated.entry(node.to_owned()).or_default().push(pod);
    }

    /// No node is being cleared for a pod any more.
    pub fn denominate(&mut self, uid: &str) {
        self.nominated.retain(|_, pods| {
            pods.retain(|pod| pod.uid != uid);
            !pods.is_empty()
        });
    }

    /// The node that is being cleared for a pod.
    pub fn nomination(&self, uid: &str) -> Option<&str> {
        let has = |pods: &[Arc<PodInfo>]| pods.iter().any(|pod| pod.uid == uid);
        self.nominated.iter().find(|(_, pods)| has(pods)).map(|(node, _)| node.as_str())
    }
}
