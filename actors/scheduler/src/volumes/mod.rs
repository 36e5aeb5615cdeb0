//! Volumes, claims, and what makes volumes: as they are, and as decisions under way will leave them.

mod find;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::{CSIDriver, CSINode, CSIStorageCapacity, StorageClass};

pub use self::find::{ClaimCheck, PodClaims, VolumePlan};
use crate::pod::{Key, PodInfo};

/// Says which node a claim's volume is wanted on.
pub const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
/// Says that a claim's binding is complete.
pub const BIND_COMPLETED: &str = "pv.kubernetes.io/bind-completed";
/// Says that a volume was chosen for its claim, and not by its user.
pub const BOUND_BY_CONTROLLER: &str = "pv.kubernetes.io/bound-by-controller";
/// The class of a claim or volume, before there was a field.
const CLASS_ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";

/// See the [module](self).
#[derive(Clone, Debug, Default)]
pub struct Volumes {
    /// All claims.
    pub claims: HashMap<Key, Arc<PersistentVolumeClaim>>,
    /// All volumes.
    pub volumes: BTreeMap<String, Arc<PersistentVolume>>,
    /// All classes.
    pub classes: BTreeMap<String, Arc<StorageClass>>,
    /// What drivers say of each node.
    pub csi_nodes: BTreeMap<String, Arc<CSINode>>,
    /// All drivers.
    pub drivers: BTreeMap<String, Arc<CSIDriver>>,
    /// How much room there is, where drivers tell.
    pub capacities: BTreeMap<Key, Arc<CSIStorageCapacity>>,
    /// Volumes that a decision under way takes, and for which claim.
    reserved: HashMap<String, Key>,
    /// Claims whose volume a decision under way has made, and on which node.
    selected: HashMap<Key, String>,
}

impl Volumes {
    /// Notes what a decision takes, so that the next doesn't take it too.
    pub fn reserve(&mut self, plan: &VolumePlan, node: &str) {
        for (claim, volume) in &plan.bind {
            self.reserved.insert(volume.clone(), claim.clone());
        }
        for claim in &plan.provision {
            self.selected.insert(claim.clone(), node.to_owned());
        }
    }

    /// Forgets what a decision took: it failed, or what it took shows by now.
    pub fn release(&mut self, plan: &VolumePlan) {
        for (claim, volume) in &plan.bind {
            if self.reserved.get(volume) == Some(claim) {
                self.reserved.remove(volume);
            }
        }
        for claim in &plan.provision {
            self.selected.remove(claim);
        }
    }

    /// The volume that a claim is bound to, once that is complete and the volume is known.
    pub fn bound_volume(&self, claim: &PersistentVolumeClaim) -> Option<&Arc<PersistentVolume>> {
        if !is_bound(claim) {
            return None;
        }
        self.volumes.get(claim.spec.as_ref()?.volume_name.as_deref()?)
    }

    /// The driver of a claim's volume and what the driver calls it. A volume that isn't there yet is called as its claim.
    pub fn attached_as(&self, key: &Key) -> Option<(String, String)> {
        let claim = self.claims.get(key)?;
        let volume = claim.spec.as_ref()?.volume_name.as_ref().and_then(|name| self.volumes.get(name));
        if let Some(volume) = volume {
            let csi = volume.spec.as_ref()?.csi.as_ref()?;
            return Some((csi.driver.clone(), csi.volume_handle.clone()));
        }
        let class = self.classes.get(claim_class(claim)?)?;
        Some((class.provisioner.clone(), format!("claim/{key}")))
    }

    /// Whether a claim may be used by one pod only.
    pub fn is_for_one_pod(&self, key: &Key) -> bool {
        let spec = self.claims.get(key).and_then(|claim| claim.spec.as_ref());
        spec.and_then(|spec| spec.access_modes.as_ref())
            .is_some_and(|modes| modes.iter().any(|mode| mode == "ReadWriteOncePod"))
    }
}

/// Keys of the claims of a pod.
pub fn claim_keys(pod: &PodInfo) -> impl Iterator<Item = Key> {
    pod.claims.iter().map(|claim| Key::new(&pod.key.namespace, &claim.name))
}

/// Whether a claim's binding is complete.
pub fn is_bound(claim: &PersistentVolumeClaim) -> bool {
    let volume = claim.spec.as_ref().and_then(|spec| spec.volume_name.as_deref());
    let annotations = claim.metadata.annotations.as_ref();
    volume.is_some_and(|name| !name.is_empty()) && annotations.is_some_and(|known| known.contains_key(BIND_COMPLETED))
}

/// The class of a claim; `None` for the class without a name.
pub fn claim_class(claim: &PersistentVolumeClaim) -> Option<&str> {
    let annotation = claim.metadata.annotations.as_ref().and_then(|known| known.get(CLASS_ANNOTATION));
    let field = claim.spec.as_ref().and_then(|spec| spec.storage_class_name.as_ref());
    annotation.or(field).map(String::as_str).filter(|name| !name.is_empty())
}

/// The class of a volume; empty for none.
fn volume_class(volume: &PersistentVolume) -> &str {
    let annotation = volume.metadata.annotations.as_ref().and_then(|known| known.get(CLASS_ANNOTATION));
    let field = volume.spec.as_ref().and_then(|spec| spec.storage_class_name.as_ref());
    annotation.or(field).map(String::as_str).unwrap_or_default()
}
