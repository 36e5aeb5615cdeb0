//! Which volumes a pod would have on a node: pure.

use std::collections::BTreeSet;
use std::sync::Arc;

use k3sd_objects::quantity::Quantity;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;

use super::{SELECTED_NODE, Volumes, claim_class, is_bound, volume_class};
use crate::labels::{NodeSelector, selector, selects};
use crate::pod::{Key, PodInfo};
use crate::snapshot::NodeInfo;

/// A provisioner that makes nothing: volumes are there or aren't.
const NO_PROVISIONER: &str = "kubernetes.io/no-provisioner";

const NODE_CONFLICT: &str = "node(s) had volume node affinity conflict";
const BIND_CONFLICT: &str = "node(s) didn't find available persistent volumes to bind";
const NOT_ENOUGH_SPACE: &str = "node(s) did not have enough free storage";
const NO_SUCH_VOLUME: &str = "node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)";

/// What has to be done about a pod's volumes before it can be bound.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VolumePlan {
    /// Claims, each with the volume chosen for it.
    pub bind: Vec<(Key, String)>,
    /// Claims whose volumes are to be made.
    pub provision: Vec<Key>,
}

impl VolumePlan {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.bind.is_empty() && self.provision.is_empty()
    }
}

/// A pod's claims, sorted by what is still to be done about them.
#[derive(Clone, Debug, Default)]
pub struct PodClaims {
    bound: Vec<Arc<PersistentVolumeClaim>>,
    delayed: Vec<Arc<PersistentVolumeClaim>>,
}

/// Whether a pod's claims allow it to be scheduled at all.
#[derive(Clone, Debug)]
pub enum ClaimCheck {
    /// On some node, perhaps.
    Ready(PodClaims),
    /// Nowhere, because of this.
    Refused(String),
}

impl Volumes {
    /// Looks at a pod's claims before any node is looked at.
    pub fn check_claims(&self, pod: &PodInfo) -> ClaimCheck {
        let mut found = PodClaims::default();
        let mut has_immediate = false;
        for wanted in &pod.claims {
            let name = &wanted.name;
            let Some(claim) = self.claims.get(&Key::new(&pod.key.namespace, name)) else {
                return ClaimCheck::Refused(if wanted.is_ephemeral {
                    format!("waiting for ephemeral volume controller to create the persistentvolumeclaim \"{name}\"")
                } else {
                    format!("persistentvolumeclaim \"{name}\" not found")
                });
            };
            if let Some(refusal) = refuse(claim, pod, wanted.is_ephemeral, name) {
                return ClaimCheck::Refused(refusal);
            }
            let has_volume =
                claim.spec.as_ref().and_then(|spec| spec.volume_name.as_deref()).is_some_and(|name| !name.is_empty());
            if is_bound(claim) {
                found.bound.push(claim.clone());
            } else if self.is_delayed(claim) && !has_volume {
                found.delayed.push(claim.clone());
            } else {
                has_immediate = true;
            }
        }
        if has_immediate {
            return ClaimCheck::Refused("pod has unbound immediate PersistentVolumeClaims".to_owned());
        }
        ClaimCheck::Ready(found)
    }

    /// Whether a claim's volume is chosen only when its first pod is scheduled.
    pub fn is_delayed(&self, claim: &PersistentVolumeClaim) -> bool {
        let class = claim_class(claim).and_then(|name| self.classes.get(name));
        class.and_then(|class| class.volume_binding_mode.as_deref()) == Some("WaitForFirstConsumer")
    }

    /// Whether a node is one where a volume can be used.
    pub fn admits(volume: &PersistentVolume, node: &NodeInfo) -> bool {
        let affinity = volume.spec.as_ref().and_then(|spec| spec.node_affinity.as_ref());
        let Some(required) = affinity.and_then(|affinity| affinity.required.as_ref()) else { return true };
        NodeSelector::read(required).matches(&node.name, node.labels())
    }

    /// The volumes that a pod would have on a node.
    ///
    /// # Errors
    /// Why it can't have them there.
    pub fn find(&self, claims: &PodClaims, node: &NodeInfo) -> Result<VolumePlan, Vec<&'static str>> {
        let mut reasons = Vec::new();
        let volume_of = |claim: &PersistentVolumeClaim| {
            self.volumes.get(claim.spec.as_ref().and_then(|spec| spec.volume_name.as_deref()).unwrap_or_default())
        };
        if claims.bound.iter().filter_map(|claim| volume_of(claim)).any(|volume| !Self::admits(volume, node)) {
            reasons.push(NODE_CONFLICT);
        }
        let plan = match self.choose(&claims.delayed, node) {
            Ok(plan) => plan,
            Err(reason) => {
                reasons.push(reason);
                VolumePlan::default()
            }
        };
        if claims.bound.iter().any(|claim| volume_of(claim).is_none()) {
            reasons.push(NO_SUCH_VOLUME);
        }
        if reasons.is_empty() { Ok(plan) } else { Err(reasons) }
    }

    fn choose(&self, delayed: &[Arc<PersistentVolumeClaim>], node: &NodeInfo) -> Result<VolumePlan, &'static str> {
        let mut plan = VolumePlan::default();
        let mut to_make = Vec::new();
        let mut to_find = Vec::new();
        for claim in delayed {
            match self.selected_node(claim) {
                Some(name) if name != &*node.name => return Err(BIND_CONFLICT),
                Some(_) => to_make.push(claim),
                None => to_find.push(claim),
            }
        }
        // The smallest first, so that small claims don't take what only large ones need.
        to_find.sort_by_key(|claim| asked(claim));
        let mut taken = BTreeSet::new();
        for claim in to_find {
            match self.smallest(claim, node, &taken) {
                Some(volume) => {
                    taken.insert(volume.clone());
                    plan.bind.push((key_of(claim), volume));
                }
                None => to_make.push(claim),
            }
        }
        for claim in to_make {
            self.can_make(claim, node)?;
            plan.provision.push(key_of(claim));
        }
        Ok(plan)
    }

    fn selected_node<'a>(&'a self, claim: &'a PersistentVolumeClaim) -> Option<&'a str> {
        let annotation = claim.metadata.annotations.as_ref().and_then(|known| known.get(SELECTED_NODE));
        annotation.or_else(|| self.selected.get(&key_of(claim))).map(String::as_str)
    }

    /// The smallest volume that does for a claim.
    fn smallest(&self, claim: &PersistentVolumeClaim, node: &NodeInfo, taken: &BTreeSet<String>) -> Option<String> {
        let key = key_of(claim);
        let (wanted, class) = (asked(claim), claim_class(claim).unwrap_or_default());
        let mut best: Option<(Quantity, &String)> = None;
        for (name, volume) in &self.volumes {
            let Some(spec) = &volume.spec else { continue };
            let size = spec.capacity.as_ref().and_then(|list| list.get("storage")).map_or(Quantity::ZERO, read);
            let is_free = !taken.contains(name) && self.reserved.get(name).is_none_or(|other| *other == key);
            if !is_free || size < wanted || volume.metadata.deletion_timestamp.is_some() || !is_alike(volume, claim) {
                continue;
            }
            if let Some(holder) = &spec.claim_ref {
                let is_ours = holder.namespace.as_deref() == Some(&key.namespace)
                    && holder.name.as_deref() == Some(&key.name)
                    && holder
                        .uid
                        .as_deref()
                        .is_none_or(|uid| uid.is_empty() || claim.metadata.uid.as_deref() == Some(uid));
                if is_ours && Self::admits(volume, node) {
                    return Some(name.clone());
                }
                continue;
            }
            let phase = volume.status.as_ref().and_then(|status| status.phase.as_deref());
            if phase != Some("Available") || volume_class(volume) != class || !is_selected(volume, claim) {
                continue;
            }
            if best.is_none_or(|(smallest, _)| size < smallest) && Self::admits(volume, node) {
                best = Some((size, name));
            }
        }
        best.map(|(_, name)| name.clone())
    }

    /// Whether a claim's volume can be made on a node.
    fn can_make(&self, claim: &PersistentVolumeClaim, node: &NodeInfo) -> Result<(), &'static str> {
        let class = claim_class(claim).and_then(|name| self.classes.get(name)).ok_or(BIND_CONFLICT)?;
        if class.provisioner.is_empty() || class.provisioner == NO_PROVISIONER || !allows(class, node) {
            return Err(BIND_CONFLICT);
        }
        let driver = self.drivers.get(&class.provisioner);
        if !driver.is_some_and(|driver| driver.spec.storage_capacity.unwrap_or(false)) {
            return Ok(());
        }
        let wanted = asked(claim);
        let class_name = class.metadata.name.as_deref().unwrap_or_default();
        let has_room = self.capacities.values().any(|capacity| {
            let limit = capacity.maximum_volume_size.as_ref().or(capacity.capacity.as_ref());
            capacity.storage_class_name == class_name
                && limit.is_some_and(|limit| read(limit) >= wanted)
                && capacity.node_topology.as_ref().is_some_and(|source| selects(&selector(Some(source)), node.labels()))
        });
        if has_room { Ok(()) } else { Err(NOT_ENOUGH_SPACE) }
    }
}

/// Why a claim that is there can't be used.
fn refuse(claim: &PersistentVolumeClaim, pod: &PodInfo, is_ephemeral: bool, name: &str) -> Option<String> {
    if claim.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Lost") {
        let volume = claim.spec.as_ref().and_then(|spec| spec.volume_name.as_deref()).unwrap_or_default();
        return Some(format!("persistentvolumeclaim \"{name}\" bound to non-existent persistentvolume \"{volume}\""));
    }
    if claim.metadata.deletion_timestamp.is_some() {
        return Some(format!("persistentvolumeclaim \"{name}\" is being deleted"));
    }
    let mut owners = claim.metadata.owner_references.iter().flatten();
    if is_ephemeral && !owners.any(|owner| owner.uid == pod.uid && owner.controller == Some(true)) {
        let (namespace, pod) = (&pod.key.namespace, &pod.key.name);
        return Some(format!("PVC {namespace}/{name} was not created for pod {namespace}/{pod} (pod is not owner)"));
    }
    None
}

fn key_of(claim: &PersistentVolumeClaim) -> Key {
    let meta = &claim.metadata;
    Key::new(meta.namespace.as_deref().unwrap_or_default(), meta.name.as_deref().unwrap_or_default())
}

fn read(text: &k8s_openapi::apimachinery::pkg::api::resource::Quantity) -> Quantity {
    text.0.parse().unwrap_or(Quantity::ZERO)
}

/// How large a claim's volume has to be.
fn asked(claim: &PersistentVolumeClaim) -> Quantity {
    let resources = claim.spec.as_ref().and_then(|spec| spec.resources.as_ref());
    let requests = resources.and_then(|resources| resources.requests.as_ref());
    requests.and_then(|list| list.get("storage")).map_or(Quantity::ZERO, read)
}

/// Whether a volume is of the mode that a claim asks for, and can be accessed as it asks.
fn is_alike(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    let (Some(has), Some(wants)) = (&volume.spec, &claim.spec) else { return false };
    let mode = |mode: &Option<String>| mode.as_deref().unwrap_or("Filesystem").to_owned();
    let modes = has.access_modes.as_deref().unwrap_or_default();
    let attributes = |name: &Option<String>| name.clone().unwrap_or_default();
    mode(&has.volume_mode) == mode(&wants.volume_mode)
        && wants.access_modes.iter().flatten().all(|wanted| modes.contains(wanted))
        && attributes(&has.volume_attributes_class_name) == attributes(&wants.volume_attributes_class_name)
}

/// Whether a claim's selector, if it has one, selects a volume.
fn is_selected(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    let source = claim.spec.as_ref().and_then(|spec| spec.selector.as_ref());
    source.is_none_or(|source| selects(&selector(Some(source)), volume.metadata.labels.as_ref()))
}

/// Whether a class makes volumes for a node.
fn allows(class: &StorageClass, node: &NodeInfo) -> bool {
    let terms = class.allowed_topologies.as_deref().unwrap_or_default();
    let meets = |requirement: &k8s_openapi::api::core::v1::TopologySelectorLabelRequirement| {
        node.label(&requirement.key).is_some_and(|value| requirement.values.iter().any(|allowed| allowed == value))
    };
    let mut terms_with_content = terms.iter().filter_map(|term| term.match_label_expressions.as_ref());
    terms.is_empty() || terms_with_content.any(|expressions| !expressions.is_empty() && expressions.iter().all(meets))
}
