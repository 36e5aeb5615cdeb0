//! Which nodes a pod can be on at all. What can be computed once for all nodes is computed first.

pub(crate) mod affinity;
pub(crate) mod node;
pub(crate) mod spread;
#[cfg(test)]
mod tests;
mod volumes;

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::Arc;

use self::affinity::AffinityFilter;
use self::spread::SpreadFilter;
use crate::config::Profile;
use crate::labels::NamedNodes;
use crate::plugin::{Plugin, Refusal};
use crate::pod::{Key, PodInfo};
use crate::snapshot::{NodeInfo, Slot, Snapshot};
use crate::volumes::{ClaimCheck, PodClaims, VolumePlan};

/// What a pod asks of nodes, ready to be asked of each.
#[derive(Clone, Debug)]
pub struct Filters<'a> {
    snapshot: &'a Snapshot,
    pod: &'a PodInfo,
    profile: &'a Profile,
    spread: Option<SpreadFilter<'a>>,
    affinity: Option<AffinityFilter<'a>>,
    claims: PodClaims,
    single_use: Vec<Key>,
    /// Other pods that use a claim which only one may use.
    single_use_conflicts: i64,
}

/// Which nodes need to be looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Nodes {
    /// All of them.
    All,
    /// Only these.
    Only(Vec<Slot>),
}

impl<'a> Filters<'a> {
    /// Computes what is the same for all nodes.
    ///
    /// # Errors
    /// No node will do, whatever it is.
    pub fn new(snapshot: &'a Snapshot, pod: &'a PodInfo, profile: &'a Profile) -> Result<(Self, Nodes), Refusal> {
        let on = |plugin| profile.filters.contains(plugin);
        let nodes = if on(Plugin::NodeAffinity) { named(snapshot, pod, profile)? } else { Nodes::All };
        let mut single_use = Vec::new();
        let mut conflicts = 0;
        if on(Plugin::VolumeRestrictions) && !pod.claims.is_empty() {
            single_use = volumes::single_use(snapshot, pod);
            conflicts = single_use.iter().map(|key| snapshot.claim_users(key)).sum::<usize>();
        }
        let mut claims = PodClaims::default();
        if on(Plugin::VolumeBinding) && !pod.claims.is_empty() {
            claims = match snapshot.volumes.check_claims(pod) {
                ClaimCheck::Ready(claims) => claims,
                ClaimCheck::Refused(reason) => return Err(Refusal::for_good(Plugin::VolumeBinding, reason)),
            };
        }
        let spread = if on(Plugin::PodTopologySpread) { SpreadFilter::new(snapshot, pod, profile) } else { None };
        let affinity = if on(Plugin::InterPodAffinity) { AffinityFilter::new(snapshot, pod) } else { None };
        let single_use_conflicts = i64::try_from(conflicts).unwrap_or(i64::MAX);
        let filters = Self { snapshot, pod, profile, spread, affinity, claims, single_use, single_use_conflicts };
        Ok((filters, nodes))
    }

    /// Whether the pod can be on a node as it is.
    ///
    /// # Errors
    /// The first reason why not.
    pub fn check(&self, node: &NodeInfo) -> Result<(), Refusal> {
        self.check_node(node)?;
        self.check_volumes(node)?;
        if let Some(spread) = &self.spread {
            spread.check(node).map_err(|why| refusal(Plugin::PodTopologySpread, why))?;
        }
        if let Some(affinity) = &self.affinity {
            affinity.check(node).map_err(|why| refusal(Plugin::InterPodAffinity, why))?;
        }
        Ok(())
    }

    fn check_node(&self, node: &NodeInfo) -> Result<(), Refusal> {
        let (pod, on) = (self.pod, |plugin| self.profile.filters.contains(plugin));
        if on(Plugin::NodeUnschedulable) {
            node::cordon(pod, node)?;
        }
        if on(Plugin::NodeName) {
            node::name(pod, node)?;
        }
        if on(Plugin::TaintToleration) {
            node::taints(pod, node)?;
        }
        if on(Plugin::NodeAffinity) {
            let added = self.profile.added_affinity.as_ref();
            if added.is_some_and(|added| !added.admits(&node.name, node.labels())) {
                let reason = "node(s) didn't match scheduler-enforced node affinity";
                return Err(Refusal::for_good(Plugin::NodeAffinity, reason));
            }
            if pod.node.is_required() && !pod.node.admits(&node.name, node.labels()) {
                let reason = "node(s) didn't match Pod's node affinity/selector";
                return Err(Refusal::for_good(Plugin::NodeAffinity, reason));
            }
        }
        if on(Plugin::NodePorts) && !pod.ports.is_empty() {
            node::ports(pod, node)?;
        }
        if on(Plugin::NodeResourcesFit) {
            node::fit(pod, node, |name| self.profile.is_ignored_resource(name))?;
        }
        Ok(())
    }

    fn check_volumes(&self, node: &NodeInfo) -> Result<(), Refusal> {
        let (pod, on) = (self.pod, |plugin| self.profile.filters.contains(plugin));
        if on(Plugin::VolumeRestrictions) {
            if !pod.disks.is_empty() {
                volumes::disks(pod, node)?;
            }
            if self.single_use_conflicts > 0 {
                let reason =
                    "node has pod using PersistentVolumeClaim with the same name and ReadWriteOncePod access mode";
                return Err(Refusal::for_now(Plugin::VolumeRestrictions, reason));
            }
        }
        if pod.claims.is_empty() {
            return Ok(());
        }
        if on(Plugin::NodeVolumeLimits) {
            volumes::limits(self.snapshot, pod, node)?;
        }
        if on(Plugin::VolumeBinding) {
            self.volumes(node)?;
        }
        if on(Plugin::VolumeZone) {
            volumes::zones(self.snapshot, pod, node)?;
        }
        Ok(())
    }

    /// The volumes that the pod would have on a node.
    ///
    /// # Errors
    /// It can't have them there.
    pub fn volumes(&self, node: &NodeInfo) -> Result<VolumePlan, Refusal> {
        if !self.profile.filters.contains(Plugin::VolumeBinding) {
            return Ok(VolumePlan::default());
        }
        let refused = |reasons: Vec<&'static str>| Refusal {
            plugin: Plugin::VolumeBinding,
            is_resolvable: false,
            reasons: reasons.into_iter().map(Cow::Borrowed).collect(),
        };
        self.snapshot.volumes.find(&self.claims, node).map_err(refused)
    }

    /// Whether the pod can be on a node, whether or not the pods that the node is being cleared for come first.
    ///
    /// # Errors
    /// The first reason why not.
    pub fn check_beside_nominated(&self, node: &NodeInfo) -> Result<(), Refusal> {
        let rank = |other: &&Arc<PodInfo>| other.priority >= self.pod.priority && other.uid != self.pod.uid;
        let mut nominated = self.snapshot.nominated(&node.name).iter().filter(rank).peekable();
        if nominated.peek().is_some() {
            let (mut filters, mut with) = (self.clone(), node.clone());
            for other in nominated {
                filters.add(&mut with, other.clone());
            }
            filters.check(&with)?;
        }
        self.check(node)
    }

    /// As if a pod came to a node.
    pub fn add(&mut self, node: &mut NodeInfo, other: Arc<PodInfo>) {
        self.change(node, &other, 1);
        node.add(other);
    }

    /// As if a pod left a node.
    pub fn remove(&mut self, node: &mut NodeInfo, uid: &str) -> Option<Arc<PodInfo>> {
        let other = node.remove(uid)?;
        self.change(node, &other, -1);
        Some(other)
    }

    fn change(&mut self, node: &NodeInfo, other: &PodInfo, delta: i64) {
        if let Some(spread) = &mut self.spread {
            spread.change(node, other, delta);
        }
        if self.affinity.is_none()
            && !other.affinity.anti_required.is_empty()
            && self.profile.filters.contains(Plugin::InterPodAffinity)
        {
            self.affinity = Some(AffinityFilter::idle(self.snapshot, self.pod));
        }
        if let Some(affinity) = &mut self.affinity {
            affinity.change(node, other, delta);
        }
        let shared = crate::volumes::claim_keys(other).filter(|key| self.single_use.contains(key)).count();
        self.single_use_conflicts += delta * i64::try_from(shared).unwrap_or(0);
    }
}

fn refusal(plugin: Plugin, (reason, is_resolvable): (&'static str, bool)) -> Refusal {
    if is_resolvable { Refusal::for_now(plugin, reason) } else { Refusal::for_good(plugin, reason) }
}

/// The nodes that a pod's affinity names, so that a pod of a DaemonSet costs one node and not all.
fn named(snapshot: &Snapshot, pod: &PodInfo, profile: &Profile) -> Result<Nodes, Refusal> {
    let own = pod.node.required.as_ref().map(crate::labels::NodeSelector::named);
    let added = profile.added_affinity.as_ref().and_then(|added| added.required.as_ref());
    let added = added.map(crate::labels::NodeSelector::named);
    let mut names: Option<BTreeSet<String>> = None;
    for list in [own, added].into_iter().flatten() {
        let NamedNodes::Only(list) = list else { continue };
        if list.is_empty() {
            return Err(Refusal::for_good(Plugin::NodeAffinity, "pod affinity terms conflict"));
        }
        let list: BTreeSet<String> = list.into_iter().collect();
        names = Some(names.map_or(list.clone(), |names| names.intersection(&list).cloned().collect()));
    }
    let slots = |names: BTreeSet<String>| names.iter().filter_map(|name| snapshot.slot(name)).collect();
    Ok(names.map_or(Nodes::All, |names| Nodes::Only(slots(names))))
}

/// What a decision about a pod will ask the snapshot to count.
pub(crate) fn asks(
    snapshot: &Snapshot,
    pod: &PodInfo,
    profile: &Profile,
) -> (BTreeSet<String>, Vec<crate::pod::PodMatch>) {
    let mut keys = BTreeSet::new();
    let mut matches = Vec::new();
    for is_hard in [true, false] {
        for spread in spread::constraints(snapshot, pod, profile, is_hard).list {
            keys.insert(spread.topology_key.clone());
            matches.push(spread::counted(pod, &spread));
        }
    }
    let affinity = &pod.affinity;
    matches.extend(affinity::required(snapshot, pod));
    let single = affinity.preferred.iter().chain(&affinity.anti_preferred).map(|(_, term)| term);
    matches.extend(affinity.anti_required.iter().chain(single).map(|term| affinity::meant(snapshot, term)));
    let single = affinity.preferred.iter().chain(&affinity.anti_preferred).map(|(_, term)| term);
    keys.extend(
        affinity.required.iter().chain(&affinity.anti_required).chain(single).map(|term| term.topology_key.clone()),
    );
    keys.extend(snapshot.terms_about(pod).map(|(term, ..)| term.topology_key.clone()));
    (keys, matches)
}
