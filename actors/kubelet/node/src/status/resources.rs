//! What the node has, and what of it pods may use.

use std::collections::BTreeMap;

use k3sd_objects::quantity::{Format, Quantity};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;
use thiserror::Error;

use super::machine::Machine;
use crate::config::{KubeletConfiguration, Texts};
use crate::eviction::{Signal, Threshold};

/// Amounts by resource.
pub type Amounts = BTreeMap<String, Quantity>;

/// An amount that can't be read.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{field}: {value:?} of {resource} is no amount that can be reserved")]
pub struct ReservedError {
    /// `kubeReserved` or `systemReserved`.
    pub field: &'static str,
    /// Of which resource.
    pub resource: String,
    /// As written.
    pub value: String,
}

/// What is kept from pods.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reserved {
    /// For this process and for the system.
    pub amounts: Amounts,
    /// Below what pods are evicted at once.
    pub hard: Vec<Threshold>,
}

impl Reserved {
    /// Reads what the configuration reserves.
    ///
    /// # Errors
    /// An amount isn't one, is negative, or is of a resource that can't be reserved.
    pub fn of(config: &KubeletConfiguration, hard: Vec<Threshold>) -> Result<Self, ReservedError> {
        let mut amounts = Amounts::new();
        for (field, texts) in [("kubeReserved", &config.kube_reserved), ("systemReserved", &config.system_reserved)] {
            add(&mut amounts, field, texts)?;
        }
        Ok(Self { amounts, hard })
    }
}

fn add(amounts: &mut Amounts, field: &'static str, texts: &Texts) -> Result<(), ReservedError> {
    for (resource, value) in texts {
        let is_known = matches!(resource.as_str(), "cpu" | "memory" | "ephemeral-storage" | "pid")
            || resource.starts_with("hugepages-");
        let amount = value.parse::<Quantity>().ok().filter(|amount| is_known && amount.signum() >= 0);
        let Some(amount) = amount else {
            return Err(ReservedError { field, resource: resource.clone(), value: value.clone() });
        };
        *amounts.entry(resource.clone()).or_insert(Quantity::ZERO) += amount;
    }
    Ok(())
}

/// What there is, and what pods may use of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Resources {
    /// `status.capacity`.
    pub capacity: Amounts,
    /// `status.allocatable`.
    pub allocatable: Amounts,
}

/// What pods have of a machine.
#[derive(Clone, Debug, Default)]
pub struct Supply<'a> {
    /// The machine.
    pub machine: Machine,
    /// Bytes of the file system of the kubelet's root; none while it isn't known, or not counted.
    pub storage_bytes: Option<u64>,
    /// `maxPods`.
    pub max_pods: i64,
    /// `podsPerCore`.
    pub pods_per_core: i64,
    /// Resources of device plugins: how many devices there are, and how many of them are healthy.
    pub devices: BTreeMap<String, (u64, u64)>,
    /// What the Node says it has, from somebody else or from before.
    pub existing: Option<&'a BTreeMap<String, Text>>,
    /// Resources of others that no longer count: after a start on which no plugin's state was found.
    pub resets_extended: bool,
}

fn bytes(amount: u64) -> Quantity {
    Quantity::from_i64(i64::try_from(amount).unwrap_or(i64::MAX), Format::BinarySi)
}

fn count(amount: u64) -> Quantity {
    Quantity::from_i64(i64::try_from(amount).unwrap_or(i64::MAX), Format::DecimalSi)
}

/// A page of huge pages, as resources are named: `hugepages-2Mi`.
fn page_name(page: u64) -> String {
    format!("hugepages-{}", bytes(page))
}

/// Whether a resource is one of somebody else: its name has a domain that isn't Kubernetes' own.
#[must_use]
pub fn is_extended(resource: &str) -> bool {
    let is_native = !resource.contains('/') || resource.contains("kubernetes.io/");
    !is_native && !resource.starts_with("requests.")
}

/// Computes both.
#[must_use]
pub fn resources(supply: &Supply<'_>, reserved: &Reserved) -> Resources {
    let machine = &supply.machine;
    let mut capacity = Amounts::new();
    for (resource, text) in supply.existing.into_iter().flatten().filter(|(resource, _)| is_extended(resource)) {
        let known = text.0.parse().unwrap_or(Quantity::ZERO);
        let amount = if supply.resets_extended { Quantity::ZERO } else { known };
        capacity.insert(resource.clone(), amount);
    }
    capacity.extend(supply.devices.iter().map(|(resource, (all, _))| (resource.clone(), count(*all))));
    let cpus = i64::try_from(machine.cpus).unwrap_or(i64::MAX);
    capacity.insert("cpu".to_owned(), Quantity::from_i64(cpus, Format::DecimalSi));
    capacity.insert("memory".to_owned(), bytes(machine.memory_bytes));
    if let Some(storage) = supply.storage_bytes {
        capacity.insert("ephemeral-storage".to_owned(), bytes(storage));
    }
    capacity.extend(machine.hugepages.iter().map(|(page, all)| (page_name(*page), bytes(*all))));
    let by_core = supply.pods_per_core.saturating_mul(cpus);
    let pods = if by_core > 0 { by_core.min(supply.max_pods) } else { supply.max_pods };
    capacity.insert("pods".to_owned(), Quantity::from_i64(pods, Format::DecimalSi));

    let healthy = |resource: &str| supply.devices.get(resource).map(|(_, healthy)| count(*healthy));
    let mut allocatable: Amounts = capacity
        .iter()
        .map(|(resource, all)| {
            let left = healthy(resource).unwrap_or(*all) - withheld(resource, &capacity, reserved);
            (resource.clone(), if left.signum() < 0 { Quantity::ZERO.with_format(all.format()) } else { left })
        })
        .collect();
    // Huge pages are memory that nobody else may use.
    let huge = machine.hugepages.keys().filter_map(|page| allocatable.get(&page_name(*page)).copied());
    let huge = huge.fold(Quantity::ZERO, |sum, amount| sum + amount);
    if let Some(memory) = allocatable.get_mut("memory") {
        let left = *memory - huge;
        *memory = if left.signum() < 0 { Quantity::ZERO.with_format(Format::BinarySi) } else { left };
    }
    Resources { capacity, allocatable }
}

/// What pods don't get of a resource.
fn withheld(resource: &str, capacity: &Amounts, reserved: &Reserved) -> Quantity {
    let own = reserved.amounts.get(resource).copied().unwrap_or(Quantity::ZERO);
    let signal = match resource {
        "memory" => Signal::MemoryAvailable,
        "ephemeral-storage" => Signal::NodefsAvailable,
        _ => return own,
    };
    let all = capacity.get(resource).map_or(0, |all| u64::try_from(all.value()).unwrap_or(0));
    let hard = reserved.hard.iter().find(|threshold| threshold.signal == signal && threshold.grace.is_none());
    own + hard.map_or(Quantity::ZERO, |threshold| bytes(threshold.value.of(all)))
}

/// As the API has them.
#[must_use]
pub fn texts(amounts: &Amounts) -> BTreeMap<String, Text> {
    amounts.iter().map(|(resource, amount)| (resource.clone(), Text(amount.to_string()))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::texts as rows;
    use crate::eviction::Amount;

    fn supply() -> Supply<'static> {
        let machine = Machine {
            cpus: 4,
            memory_bytes: 8 << 30,
            hugepages: [(2 << 20, 1 << 30), (1 << 30, 0)].into(),
            ..Machine::default()
        };
        Supply { machine, storage_bytes: Some(100 << 30), max_pods: 110, ..Supply::default() }
    }

    fn text(amounts: &Amounts, resource: &str) -> String {
        amounts.get(resource).map_or_else(String::new, ToString::to_string)
    }

    fn hard(signal: Signal, value: Amount) -> Threshold {
        Threshold { signal, value, grace: None, min_reclaim: None }
    }

    #[test]
    fn pods_get_what_is_not_kept() {
        let config = KubeletConfiguration {
            kube_reserved: rows(&[("cpu", "500m"), ("memory", "1Gi")]),
            system_reserved: rows(&[("cpu", "250m"), ("ephemeral-storage", "10Gi")]),
            ..KubeletConfiguration::default()
        };
        let hard = vec![
            hard(Signal::MemoryAvailable, Amount::Bytes(100 << 20)),
            hard(Signal::NodefsAvailable, Amount::Percent(10.0)),
        ];
        let found = resources(&supply(), &Reserved::of(&config, hard).unwrap());
        let expected = [
            ("cpu", "4", "3250m"),
            ("memory", "8Gi", "6044Mi"),
            ("ephemeral-storage", "100Gi", "80Gi"),
            ("hugepages-2Mi", "1Gi", "1Gi"),
            ("hugepages-1Gi", "0", "0"),
            ("pods", "110", "110"),
        ];
        for (resource, capacity, allocatable) in expected {
            let both = (text(&found.capacity, resource), text(&found.allocatable, resource));
            assert_eq!(both, (capacity.to_owned(), allocatable.to_owned()), "{resource}");
        }
        assert_eq!(found.capacity.len(), expected.len());
    }

    #[test]
    fn nothing_is_less_than_nothing() {
        let config =
            KubeletConfiguration { kube_reserved: rows(&[("cpu", "8"), ("memory", "9Gi")]), ..Default::default() };
        let found = resources(&supply(), &Reserved::of(&config, Vec::new()).unwrap());
        assert_eq!((text(&found.allocatable, "cpu"), text(&found.allocatable, "memory")), ("0".into(), "0".into()));
    }

    #[test]
    fn pods_are_counted_by_core_up_to_the_most() {
        for (per_core, expected) in [(0, "110"), (10, "40"), (1000, "110")] {
            let found = resources(&Supply { pods_per_core: per_core, ..supply() }, &Reserved::default());
            assert_eq!(text(&found.capacity, "pods"), expected);
        }
    }

    #[test]
    fn resources_of_others_stay_or_begin_again() {
        let existing = [("example.com/dongle", "3"), ("cpu", "64"), ("hugepages-4Mi", "0")];
        let existing = existing.map(|(name, value)| (name.to_owned(), Text(value.to_owned()))).into();
        let with = |resets_extended| {
            let devices = [("example.com/gpu".to_owned(), (2, 1))].into();
            let supply = Supply { existing: Some(&existing), resets_extended, devices, ..supply() };
            resources(&supply, &Reserved::default())
        };
        let (kept, reset) = (with(false), with(true));
        assert_eq!(text(&kept.capacity, "example.com/dongle"), "3");
        assert_eq!(text(&reset.capacity, "example.com/dongle"), "0");
        assert_eq!((text(&kept.capacity, "cpu"), text(&kept.capacity, "hugepages-4Mi")), ("4".into(), String::new()));
        assert_eq!(text(&kept.capacity, "example.com/gpu"), "2");
        assert_eq!(text(&kept.allocatable, "example.com/gpu"), "1");
    }

    #[test]
    fn amounts_that_mean_nothing_are_refused() {
        for (resource, value) in [("cpu", "many"), ("memory", "-1"), ("pods", "3")] {
            let config = KubeletConfiguration { system_reserved: rows(&[(resource, value)]), ..Default::default() };
            assert!(Reserved::of(&config, Vec::new()).is_err(), "{resource}={value}");
        }
    }

    #[test]
    fn extended_resources_have_a_domain_of_their_own() {
        for (name, expected) in
            [("cpu", false), ("example.com/a", true), ("kubernetes.io/a", false), ("requests.x/a", false)]
        {
            assert_eq!(is_extended(name), expected, "{name}");
        }
    }
}
