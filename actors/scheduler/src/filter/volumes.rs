//! What is asked of a node's volumes: limits, zones, disks that only one may have.

use std::collections::{BTreeMap, BTreeSet};

use crate::plugin::{Plugin, Refusal};
use crate::pod::{Key, PodInfo};
use crate::snapshot::{NodeInfo, REGION_LABEL, Snapshot, ZONE_LABEL};
use crate::volumes::claim_keys;

/// The labels of volumes that say where they are, the old names too.
const PLACE_LABELS: [&str; 4] =
    ["failure-domain.beta.kubernetes.io/zone", "failure-domain.beta.kubernetes.io/region", ZONE_LABEL, REGION_LABEL];
/// What separates the places of a volume that is in several.
const PLACES_SEPARATOR: &str = "__";

/// Claims of a pod that only one pod may use.
pub(super) fn single_use(snapshot: &Snapshot, pod: &PodInfo) -> Vec<Key> {
    claim_keys(pod).filter(|key| snapshot.volumes.is_for_one_pod(key)).collect()
}

pub(super) fn disks(pod: &PodInfo, node: &NodeInfo) -> Result<(), Refusal> {
    let has = |wanted: &crate::pod::Disk| {
        node.pods.iter().flat_map(|other| &other.disks).any(|taken| taken.conflicts(wanted))
    };
    if pod.disks.iter().any(has) {
        return Err(Refusal::for_now(Plugin::VolumeRestrictions, "node(s) had no available disk"));
    }
    Ok(())
}

/// As many volumes as each driver can attach to the node.
pub(super) fn limits(snapshot: &Snapshot, pod: &PodInfo, node: &NodeInfo) -> Result<(), Refusal> {
    let volumes = &snapshot.volumes;
    let Some(csi_node) = volumes.csi_nodes.get(&*node.name) else { return Ok(()) };
    let mut wanted: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (driver, handle) in claim_keys(pod).filter_map(|key| volumes.attached_as(&key)) {
        wanted.entry(driver).or_default().insert(handle);
    }
    let mut attached: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (driver, handle) in node.claims.keys().filter_map(|key| volumes.attached_as(key)) {
        attached.entry(driver).or_default().insert(handle);
    }
    for driver in &csi_node.spec.drivers {
        let Some(limit) = driver.allocatable.as_ref().and_then(|room| room.count) else { continue };
        let Some(wanted) = wanted.get(&driver.name) else { continue };
        let there = attached.get(&driver.name);
        let new = wanted.iter().filter(|handle| there.is_none_or(|there| !there.contains(*handle))).count();
        let all = new + there.map_or(0, BTreeSet::len);
        if new > 0 && all > usize::try_from(limit).unwrap_or(0) {
            return Err(Refusal::for_now(Plugin::NodeVolumeLimits, "node(s) exceed max volume count"));
        }
    }
    Ok(())
}

/// Volumes that say where they are can only be used there.
pub(super) fn zones(snapshot: &Snapshot, pod: &PodInfo, node: &NodeInfo) -> Result<(), Refusal> {
    let volumes = &snapshot.volumes;
    if !PLACE_LABELS.iter().any(|key| node.label(key).is_some()) {
        return Ok(()); // It says nothing of where it is.
    }
    for key in claim_keys(pod) {
        let claim = volumes.claims.get(&key);
        let name = claim.and_then(|claim| claim.spec.as_ref()?.volume_name.as_ref());
        let Some(volume) = name.and_then(|name| volumes.volumes.get(name)) else { continue };
        for (key, places) in volume.metadata.labels.iter().flatten() {
            if !PLACE_LABELS.contains(&key.as_str()) {
                continue;
            }
            let here = node.label(key).or_else(|| node.label(today(key)));
            if !here.is_some_and(|here| places.split(PLACES_SEPARATOR).any(|place| place == here)) {
                return Err(Refusal::for_good(Plugin::VolumeZone, "node(s) had no available volume zone"));
            }
        }
    }
    Ok(())
}

/// Today's name of a label.
fn today(key: &str) -> &str {
    match key {
        "failure-domain.beta.kubernetes.io/zone" => ZONE_LABEL,
        "failure-domain.beta.kubernetes.io/region" => REGION_LABEL,
        _ => key,
    }
}
