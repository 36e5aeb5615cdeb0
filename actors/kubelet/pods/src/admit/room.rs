//! What a pod asks for, and what is left of it.

use std::collections::BTreeMap;

use k3sd_kubelet_cgroups::pod_requests;
use k8s_openapi::api::core::v1::Pod;

use super::{Refusal, Room, refusal};

/// Something that there is too little of. CPU is in thousandths, all else in whole units.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lack {
    /// Its name.
    pub resource: String,
    /// How much of it the pod asks for.
    pub requested: u64,
    /// How much others have.
    pub used: u64,
    /// How much there is.
    pub capacity: u64,
}

impl Lack {
    /// Why a pod isn't taken for it.
    #[must_use]
    pub fn refusal(&self) -> Refusal {
        let Self { resource, requested, used, capacity } = self;
        let text = format!(
            "Node didn't have enough resource: {resource}, requested: {requested}, used: {used}, capacity: {capacity}"
        );
        refusal(&format!("OutOf{resource}"), text)
    }

    /// How much more of it there would have to be.
    #[must_use]
    pub fn missing(&self) -> u64 {
        self.requested.saturating_sub(self.capacity.saturating_sub(self.used))
    }
}

/// What a pod asks for, by the names of the API: CPU in thousandths, all else in whole units.
#[must_use]
pub fn requests(pod: &Pod) -> BTreeMap<String, u64> {
    let asked = pod_requests(pod);
    let pages = asked.hugepages.into_iter().map(|(size, bytes)| (format!("hugepages-{size}"), bytes));
    let main = [("cpu".to_owned(), asked.cpu_milli), ("memory".to_owned(), asked.memory)];
    main.into_iter().chain(pages).chain(asked.others).filter(|(_, amount)| *amount > 0).collect()
}

/// What there isn't enough of: places for pods first, then by importance. What the node doesn't know of isn't counted: it
/// is the cluster's.
#[must_use]
pub fn lacks(pod: &Pod, room: Room<'_>) -> Vec<Lack> {
    let mut found = Vec::new();
    let count = room.others.len();
    if count >= room.pods_max {
        let (used, capacity) = (count as u64, room.pods_max as u64);
        found.push(Lack { resource: "pods".to_owned(), requested: 1, used, capacity });
    }
    let asked = requests(pod);
    if asked.is_empty() {
        return found;
    }
    let mut taken: BTreeMap<String, u64> = BTreeMap::new();
    for (name, amount) in room.others.iter().flat_map(|other| requests(other)) {
        let sum = taken.entry(name).or_default();
        *sum = sum.saturating_add(amount);
    }
    let mut names: Vec<&String> = asked.keys().collect();
    names.sort_by_key(|name| match name.as_str() {
        "cpu" => 0,
        "memory" => 1,
        "ephemeral-storage" => 2,
        _ => 3,
    });
    for name in names {
        let Some(all) = room.allocatable.get(name) else { continue };
        let all = if name == "cpu" { all.milli_value() } else { all.value() };
        let capacity = u64::try_from(all).unwrap_or_default();
        let (requested, used) = (asked[name], taken.get(name).copied().unwrap_or_default());
        if requested.saturating_add(used) > capacity {
            found.push(Lack { resource: name.clone(), requested, used, capacity });
        }
    }
    found
}
