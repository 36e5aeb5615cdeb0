//! How much of each resource there is, or is asked for.

use std::collections::BTreeMap;
use std::sync::Arc;

use k3sd_objects::quantity::Quantity;
use k8s_openapi::api::core::v1::{Container, Pod};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;

/// CPU of a container that asks for none, for scores only, in thousandths.
pub(super) const DEFAULT_CPU_MILLI: i64 = 100;
/// Memory of a container that asks for none, for scores only, in bytes.
pub(super) const DEFAULT_MEMORY_BYTES: i64 = 200 * 1024 * 1024;

/// Amounts of resources.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resources {
    /// CPU in thousandths.
    pub cpu: i64,
    /// Memory in bytes.
    pub memory: i64,
    /// Local disk in bytes.
    pub ephemeral: i64,
    /// Pods; only of a node's allocatable resources.
    pub pods: i64,
    /// All others, sorted by name.
    pub others: Vec<(Arc<str>, i64)>,
}

type List = BTreeMap<String, Text>;

/// A quantity that can't be read counts as nothing: the API admits none.
fn quantity(text: &Text) -> Quantity {
    text.0.parse().unwrap_or(Quantity::ZERO)
}

impl Resources {
    /// Reads a list of resources.
    pub fn read(list: Option<&List>) -> Self {
        let mut read = Self::default();
        for (name, text) in list.into_iter().flatten() {
            let amount = quantity(text);
            read.set(name, if name == "cpu" { amount.milli_value() } else { amount.value() });
        }
        read
    }

    /// The amount of a resource: CPU in thousandths, others in units.
    pub fn get(&self, name: &str) -> i64 {
        match name {
            "cpu" => self.cpu,
            "memory" => self.memory,
            "ephemeral-storage" => self.ephemeral,
            "pods" => self.pods,
            _ => self.others.iter().find(|(known, _)| &**known == name).map_or(0, |(_, amount)| *amount),
        }
    }

    fn set(&mut self, name: &str, amount: i64) {
        match name {
            "cpu" => self.cpu = amount,
            "memory" => self.memory = amount,
            "ephemeral-storage" => self.ephemeral = amount,
            "pods" => self.pods = amount,
            _ => match self.others.binary_search_by(|(known, _)| (**known).cmp(name)) {
                Ok(place) => self.others[place].1 = amount,
                Err(place) => self.others.insert(place, (name.into(), amount)),
            },
        }
    }

    fn merge(&mut self, other: &Self, merge: impl Fn(i64, i64) -> i64) {
        self.cpu = merge(self.cpu, other.cpu);
        self.memory = merge(self.memory, other.memory);
        self.ephemeral = merge(self.ephemeral, other.ephemeral);
        for (name, amount) in &other.others {
            let merged = merge(self.get(name), *amount);
            self.set(name, merged);
        }
    }

    /// Adds what another has; pods aren't added.
    pub fn add(&mut self, other: &Self) {
        self.merge(other, i64::saturating_add);
    }

    /// Takes away what another has; pods stay.
    pub fn subtract(&mut self, other: &Self) {
        self.merge(other, i64::saturating_sub);
    }

    /// Raises each to what another has.
    pub fn raise(&mut self, other: &Self) {
        self.merge(other, i64::max);
    }

    /// Whether nothing is asked for.
    pub fn is_zero(&self) -> bool {
        self.cpu == 0 && self.memory == 0 && self.ephemeral == 0 && self.others.iter().all(|(_, amount)| *amount == 0)
    }
}

/// What a pod asks of a node: its containers together, or a step of its start if that needs more, and its overhead.
pub fn pod_requests(pod: &Pod) -> Resources {
    requests(pod, false)
}

/// As [`pod_requests`], with defaults for containers that ask for no CPU or memory. For scores.
pub(super) fn pod_requests_nonzero(pod: &Pod) -> Resources {
    requests(pod, true)
}

fn requests(pod: &Pod, with_defaults: bool) -> Resources {
    let Some(spec) = &pod.spec else { return Resources::default() };
    let pod_level = spec.resources.as_ref().and_then(|resources| resources.requests.as_ref());
    let with_defaults =
        with_defaults && pod_level.is_none_or(|list| !list.contains_key("cpu") && !list.contains_key("memory"));
    let mut total = Resources::default();
    for container in &spec.containers {
        total.add(&container_requests(pod, container, true, with_defaults));
    }
    let mut sidecars = Resources::default();
    let mut start = Resources::default();
    for container in spec.init_containers.iter().flatten() {
        let is_sidecar = container.restart_policy.as_deref() == Some("Always");
        let mut step = container_requests(pod, container, is_sidecar, with_defaults);
        if is_sidecar {
            total.add(&step);
            sidecars.add(&step);
            step = sidecars.clone();
        } else {
            step.add(&sidecars);
        }
        start.raise(&step);
    }
    total.raise(&start);
    for (name, text) in pod_level.into_iter().flatten() {
        if name == "cpu" || name == "memory" || name.starts_with("hugepages-") {
            let amount = quantity(text);
            total.set(name, if name == "cpu" { amount.milli_value() } else { amount.value() });
        }
    }
    total.add(&Resources::read(spec.overhead.as_ref()));
    total
}

/// What a container asks for. One that is being resized counts with the larger of what it has and what it wants, or with
/// what it has, if it can't have what it wants.
fn container_requests(pod: &Pod, container: &Container, is_running: bool, with_defaults: bool) -> Resources {
    let wanted = container.resources.as_ref().and_then(|resources| resources.requests.as_ref());
    let mut requests = Resources::read(wanted);
    if is_running && let Some(status) = &pod.status {
        let statuses = status.container_statuses.iter().chain(&status.init_container_statuses).flatten();
        if let Some(found) =
            statuses.filter(|status| status.name == container.name).find(|found| found.resources.is_some())
        {
            let actual = found.resources.as_ref().and_then(|resources| resources.requests.as_ref());
            let actual = Resources::read(actual);
            let is_infeasible = status.conditions.iter().flatten().any(|condition| {
                condition.type_ == "PodResizePending" && condition.reason.as_deref() == Some("Infeasible")
            });
            if is_infeasible {
                requests = actual;
            } else {
                requests.raise(&actual);
            }
            requests.raise(&Resources::read(found.allocated_resources.as_ref()));
        }
    }
    if with_defaults {
        if !wanted.is_some_and(|list| list.contains_key("cpu")) {
            requests.cpu = requests.cpu.max(DEFAULT_CPU_MILLI);
        }
        if !wanted.is_some_and(|list| list.contains_key("memory")) {
            requests.memory = requests.memory.max(DEFAULT_MEMORY_BYTES);
        }
    }
    requests
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(spec: serde_json::Value) -> Pod {
        serde_json::from_value(json!({ "spec": spec })).unwrap()
    }

    fn container(name: &str, cpu: &str, memory: &str) -> serde_json::Value {
        json!({ "name": name, "resources": { "requests": { "cpu": cpu, "memory": memory } } })
    }

    #[test]
    fn containers_add_up_and_a_larger_step_of_the_start_counts() {
        let asked = |spec| {
            let requests = pod_requests(&pod(spec));
            (requests.cpu, requests.memory)
        };
        let two = json!([container("a", "100m", "1Ki"), container("b", "200m", "2Ki")]);
        assert_eq!(asked(json!({ "containers": two })), (300, 3072));
        assert_eq!(asked(json!({ "containers": two, "initContainers": [container("i", "1", "1Ki")] })), (1000, 3072));
        let mut sidecar = container("s", "50m", "1Ki");
        sidecar["restartPolicy"] = json!("Always");
        // The sidecar runs beside the step after it, and beside the containers.
        let init = json!([sidecar, container("i", "1", "1Ki")]);
        assert_eq!(asked(json!({ "containers": two, "initContainers": init })), (1050, 4096));
        let init = json!([container("i", "1", "1Ki"), sidecar]);
        assert_eq!(asked(json!({ "containers": two, "initContainers": init })), (1000, 4096));
        assert_eq!(asked(json!({ "containers": two, "overhead": { "cpu": "10m" } })), (310, 3072));
        assert_eq!(asked(json!({ "containers": two, "resources": { "requests": { "cpu": "2" } } })), (2000, 3072));
    }

    #[test]
    fn scores_count_something_for_those_who_ask_for_nothing() {
        let pod = pod(json!({ "containers": [{ "name": "a" }, container("b", "1", "0")] }));
        let (plain, nonzero) = (pod_requests(&pod), pod_requests_nonzero(&pod));
        assert_eq!((plain.cpu, plain.memory), (1000, 0));
        assert_eq!((nonzero.cpu, nonzero.memory), (1100, DEFAULT_MEMORY_BYTES));
    }

    #[test]
    fn a_resize_counts_with_the_larger_amount() {
        let mut resized = pod(json!({ "containers": [container("a", "1", "1Ki")] }));
        let status = json!({ "containerStatuses": [{
            "name": "a", "image": "", "imageID": "", "ready": true, "restartCount": 0,
            "resources": { "requests": { "cpu": "3", "memory": "1Ki" } },
        }] });
        resized.status = Some(serde_json::from_value(status).unwrap());
        assert_eq!(pod_requests(&resized).cpu, 3000);
    }
}
