//! Which devices there are, and who has them: pure.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::status::DeviceCounts;

/// What a container needs to use its devices.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Given {
    /// Variables.
    pub envs: BTreeMap<String, String>,
    /// Files and directories of the host.
    pub mounts: Vec<GivenMount>,
    /// Device nodes.
    pub nodes: Vec<GivenNode>,
    /// Annotations for the runtime.
    pub annotations: BTreeMap<String, String>,
    /// Devices that the runtime knows by name (CDI).
    pub cdi: Vec<String>,
}

/// A file or directory of the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GivenMount {
    /// In the container.
    pub container_path: String,
    /// On the host.
    pub host_path: String,
    /// Whether it can't be written to.
    pub read_only: bool,
}

/// A device node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GivenNode {
    /// In the container.
    pub container_path: String,
    /// On the host.
    pub host_path: String,
    /// Any of `r`, `w` and `m`.
    pub permissions: String,
}

impl Given {
    /// Adds what another resource needs. Of a variable that both set the first one counts, as upstream.
    pub fn add(&mut self, other: Self) {
        for (name, value) in other.envs {
            self.envs.entry(name).or_insert(value);
        }
        for (name, value) in other.annotations {
            self.annotations.entry(name).or_insert(value);
        }
        self.mounts.extend(other.mounts);
        self.nodes.extend(other.nodes);
        self.cdi.extend(other.cdi);
    }
}

/// What a container has of a resource.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Allocation {
    pub(super) pod: String,
    pub(super) container: String,
    pub(super) resource: String,
    /// Whether it is an init container that ends before others begin, which may have the same devices then.
    pub(super) is_passing: bool,
    pub(super) ids: BTreeSet<String>,
    pub(super) given: Given,
}

/// What is kept in the file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Checkpoint {
    /// The sockets of plugins, by resource.
    pub(super) endpoints: BTreeMap<String, String>,
    pub(super) allocations: Vec<Allocation>,
}

/// What a container asks for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted<'a> {
    pub(super) pod: &'a str,
    pub(super) resource: &'a str,
    pub(super) count: usize,
}

/// Devices to choose from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Choice {
    /// Those that have to be among them: what the pod has already.
    pub(super) must: BTreeSet<String>,
    /// All that may be, those with them.
    pub(super) available: BTreeSet<String>,
}

/// All devices and who has them.
#[derive(Clone, Debug, Default)]
pub(super) struct Inventory {
    /// By resource and id, whether it is healthy.
    devices: BTreeMap<String, BTreeMap<String, bool>>,
    pub(super) allocations: Vec<Allocation>,
}

impl Inventory {
    pub(super) fn new(allocations: Vec<Allocation>) -> Self {
        Self { devices: BTreeMap::new(), allocations }
    }

    /// A plugin says what it has.
    pub(super) fn listed(&mut self, resource: &str, devices: BTreeMap<String, bool>) {
        self.devices.insert(resource.to_owned(), devices);
    }

    /// A plugin went away: nobody can say how its devices are.
    pub(super) fn silent(&mut self, resource: &str) {
        self.devices.entry(resource.to_owned()).or_default().values_mut().for_each(|is_healthy| *is_healthy = false);
    }

    /// It didn't come back.
    pub(super) fn gone(&mut self, resource: &str) {
        self.devices.insert(resource.to_owned(), BTreeMap::new());
    }

    /// Whether a plugin has ever offered it.
    pub(super) fn knows(&self, resource: &str) -> bool {
        self.devices.contains_key(resource)
    }

    pub(super) fn counts(&self) -> DeviceCounts {
        let count = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
        let one = |(resource, devices): (&String, &BTreeMap<String, bool>)| {
            let healthy = devices.values().filter(|is_healthy| **is_healthy).count();
            (resource.clone(), (count(devices.len()), count(healthy)))
        };
        self.devices.iter().map(one).collect()
    }

    /// What a container has of a resource already.
    pub(super) fn has(&self, pod: &str, container: &str, resource: &str) -> Option<&Allocation> {
        let is_it = |one: &&Allocation| one.pod == pod && one.container == container && one.resource == resource;
        self.allocations.iter().find(is_it)
    }

    /// Takes devices back from pods for which `keeps` is false; whether there were any.
    pub(super) fn release(&mut self, keeps: impl Fn(&str) -> bool) -> bool {
        let before = self.allocations.len();
        self.allocations.retain(|one| keeps(&one.pod));
        self.allocations.len() != before
    }

    /// What there is to choose from; the error says what is missing, in upstream's words.
    pub(super) fn choice(&self, wanted: Wanted<'_>) -> Result<Choice, String> {
        let Wanted { pod, resource, count } = wanted;
        let of = self.allocations.iter().filter(|one| one.resource == resource);
        // What an init container of the same pod had is free when it has ended, unless another container has it by now.
        let (passing, taken): (Vec<_>, Vec<_>) = of.partition(|one| one.pod == pod && one.is_passing);
        let taken: BTreeSet<&String> = taken.iter().flat_map(|one| &one.ids).collect();
        let devices = self.devices.get(resource);
        let healthy = devices.into_iter().flatten().filter(|(_, is_healthy)| **is_healthy).map(|(id, _)| id);
        let mut available: BTreeSet<String> = healthy.filter(|id| !taken.contains(id)).cloned().collect();
        let reusable = passing.iter().flat_map(|one| &one.ids).filter(|id| available.contains(*id));
        let must: BTreeSet<String> = reusable.take(count).cloned().collect();
        let reserved: BTreeSet<&String> = passing.iter().flat_map(|one| &one.ids).collect();
        let needed = count - must.len();
        let free = available.iter().filter(|id| !reserved.contains(id)).count();
        if free < needed {
            return Err(format!(
                "requested number of devices unavailable for {resource}. Requested: {needed}, Available: {free}"
            ));
        }
        available.retain(|id| must.contains(id) || !reserved.contains(id));
        Ok(Choice { must, available })
    }
}

impl Choice {
    /// So many of them: what has to be, what the plugin prefers if that makes sense, and the first others.
    pub(super) fn take(&self, count: usize, preferred: &[String]) -> BTreeSet<String> {
        let mut chosen = self.must.clone();
        let others = preferred.iter().filter(|id| self.available.contains(*id)).chain(&self.available);
        for id in others {
            if chosen.len() >= count {
                break;
            }
            chosen.insert(id.clone());
        }
        chosen
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GPU: &str = "example.com/gpu";

    fn inventory(devices: &[(&str, bool)]) -> Inventory {
        let mut inventory = Inventory::default();
        inventory.listed(GPU, devices.iter().map(|(id, is_healthy)| ((*id).to_owned(), *is_healthy)).collect());
        inventory
    }

    fn give(inventory: &mut Inventory, pod: &str, container: &str, is_passing: bool, ids: &[&str]) {
        inventory.allocations.push(Allocation {
            pod: pod.to_owned(),
            container: container.to_owned(),
            resource: GPU.to_owned(),
            is_passing,
            ids: ids.iter().map(|id| (*id).to_owned()).collect(),
            given: Given::default(),
        });
    }

    fn chosen(inventory: &Inventory, pod: &str, count: usize, preferred: &[&str]) -> Result<Vec<String>, String> {
        let preferred: Vec<String> = preferred.iter().map(|id| (*id).to_owned()).collect();
        let choice = inventory.choice(Wanted { pod, resource: GPU, count })?;
        Ok(choice.take(count, &preferred).into_iter().collect())
    }

    #[test]
    fn only_healthy_devices_that_nobody_has_are_given() {
        let mut all = inventory(&[("a", true), ("b", false), ("c", true), ("d", true)]);
        assert_eq!(all.counts()[GPU], (4, 3));
        give(&mut all, "p", "c", false, &["a"]);
        assert_eq!(chosen(&all, "q", 1, &[]).unwrap(), ["c"]);
        assert_eq!(chosen(&all, "q", 1, &["d", "a"]).unwrap(), ["d"]);
        let missing = "requested number of devices unavailable for example.com/gpu. Requested: 3, Available: 2";
        assert_eq!(chosen(&all, "q", 3, &[]).unwrap_err(), missing);
    }

    #[test]
    fn what_an_init_container_had_goes_to_the_next_one_of_its_pod() {
        let mut all = inventory(&[("a", true), ("b", true)]);
        give(&mut all, "p", "init", true, &["b"]);
        assert_eq!(chosen(&all, "p", 1, &["a"]).unwrap(), ["b"]);
        assert_eq!(chosen(&all, "p", 2, &[]).unwrap(), ["a", "b"]);
        assert_eq!(chosen(&all, "q", 1, &[]).unwrap(), ["a"]);
        assert!(chosen(&all, "q", 2, &[]).is_err());
        give(&mut all, "p", "main", false, &["b"]);
        assert_eq!(chosen(&all, "p", 1, &[]).unwrap(), ["a"]);
    }

    #[test]
    fn a_plugin_that_goes_away_offers_nothing() {
        let mut all = inventory(&[("a", true)]);
        all.silent(GPU);
        assert_eq!(all.counts()[GPU], (1, 0));
        all.gone(GPU);
        assert_eq!(all.counts()[GPU], (0, 0));
        assert!(all.knows(GPU) && !all.knows("example.com/other"));
    }

    #[test]
    fn devices_come_back_from_pods_that_are_gone() {
        let mut all = inventory(&[("a", true)]);
        give(&mut all, "p", "c", false, &["a"]);
        assert!(!all.release(|pod| pod == "p"));
        assert!(all.release(|_| false));
        assert_eq!(chosen(&all, "q", 1, &[]).unwrap(), ["a"]);
    }

    #[test]
    fn the_first_to_set_a_variable_wins() {
        let with = |value: &str| Given { envs: [("A".to_owned(), value.to_owned())].into(), ..Given::default() };
        let mut given = with("1");
        given.add(with("2"));
        assert_eq!(given.envs["A"], "1");
    }
}
