//! What a pod asks for, added up, and its class. Pure.

use std::collections::BTreeMap;

use k3sd_objects::quantity::Quantity;
use k8s_openapi::api::core::v1::{Container, Pod, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;

use crate::limits::{cpu_quota, cpu_shares};
use crate::names::QosClass;

/// Amounts of resources.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Amounts {
    /// Thousandths of a CPU.
    pub cpu_milli: u64,
    /// Bytes.
    pub memory: u64,
    /// Bytes by size of page, which is named as in `hugepages-2Mi`.
    pub hugepages: BTreeMap<String, u64>,
    /// All others by name, in whole units: local disk in bytes, and what devices are called.
    pub others: BTreeMap<String, u64>,
}

const HUGEPAGES: &str = "hugepages-";

impl Amounts {
    fn of(texts: Option<&BTreeMap<String, Text>>) -> Self {
        let mut amounts = Self::default();
        for (name, text) in texts.into_iter().flatten() {
            // The API server has checked them; what is none counts as nothing.
            let Ok(quantity) = text.0.parse::<Quantity>() else { continue };
            let whole = |number: i64| u64::try_from(number).unwrap_or(0);
            match name.as_str() {
                "cpu" => amounts.cpu_milli = whole(quantity.milli_value()),
                "memory" => amounts.memory = whole(quantity.value()),
                other => {
                    let (list, key) = match other.strip_prefix(HUGEPAGES) {
                        Some(page) => (&mut amounts.hugepages, page),
                        None => (&mut amounts.others, other),
                    };
                    list.insert(key.to_owned(), whole(quantity.value()));
                }
            }
        }
        amounts
    }

    fn add(&mut self, other: &Self) {
        self.cpu_milli = self.cpu_milli.saturating_add(other.cpu_milli);
        self.memory = self.memory.saturating_add(other.memory);
        for (own, added) in [(&mut self.hugepages, &other.hugepages), (&mut self.others, &other.others)] {
            for (name, amount) in added {
                let sum = own.entry(name.clone()).or_default();
                *sum = sum.saturating_add(*amount);
            }
        }
    }

    fn raise(&mut self, other: &Self) {
        self.cpu_milli = self.cpu_milli.max(other.cpu_milli);
        self.memory = self.memory.max(other.memory);
        for (own, asked) in [(&mut self.hugepages, &other.hugepages), (&mut self.others, &other.others)] {
            for (name, amount) in asked {
                let most = own.entry(name.clone()).or_default();
                *most = (*most).max(*amount);
            }
        }
    }
}

type Pick = fn(&ResourceRequirements) -> Option<&BTreeMap<String, Text>>;

fn requests(resources: &ResourceRequirements) -> Option<&BTreeMap<String, Text>> {
    resources.requests.as_ref()
}

fn limits(resources: &ResourceRequirements) -> Option<&BTreeMap<String, Text>> {
    resources.limits.as_ref()
}

fn of_container(container: &Container, pick: Pick) -> Amounts {
    Amounts::of(container.resources.as_ref().and_then(pick))
}

/// A container that starts before the others and goes on running beside them.
fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

/// The most that the pod's containers have at once, without what the pod itself says.
fn of_containers(pod: &Pod, pick: Pick) -> Amounts {
    let Some(spec) = &pod.spec else { return Amounts::default() };
    let mut together = Amounts::default();
    for container in &spec.containers {
        together.add(&of_container(container, pick));
    }
    let mut sidecars = Amounts::default();
    let mut starting = Amounts::default();
    for container in spec.init_containers.iter().flatten() {
        let own = of_container(container, pick);
        if is_sidecar(container) {
            together.add(&own);
            sidecars.add(&own);
            starting.raise(&sidecars);
        } else {
            let mut with = own;
            with.add(&sidecars);
            starting.raise(&with);
        }
    }
    together.raise(&starting);
    together
}

fn whole(pod: &Pod, pick: Pick) -> Amounts {
    let mut amounts = of_containers(pod, pick);
    let Some(spec) = &pod.spec else { return amounts };
    if let Some(own) = spec.resources.as_ref().and_then(pick) {
        let own = Amounts::of(Some(own));
        if own.cpu_milli > 0 {
            amounts.cpu_milli = own.cpu_milli;
        }
        if own.memory > 0 {
            amounts.memory = own.memory;
        }
        amounts.hugepages.extend(own.hugepages);
    }
    amounts
}

/// What the pod requests: what it says for itself, or the most that its containers request at once; and its overhead.
#[must_use]
pub fn pod_requests(pod: &Pod) -> Amounts {
    let mut amounts = whole(pod, requests);
    amounts.add(&Amounts::of(pod.spec.as_ref().and_then(|spec| spec.overhead.as_ref())));
    amounts
}

/// The same of limits. Overhead counts only on top of a limit.
fn pod_maximum(pod: &Pod) -> Amounts {
    let mut amounts = whole(pod, limits);
    let overhead = Amounts::of(pod.spec.as_ref().and_then(|spec| spec.overhead.as_ref()));
    if amounts.cpu_milli > 0 {
        amounts.cpu_milli = amounts.cpu_milli.saturating_add(overhead.cpu_milli);
    }
    if amounts.memory > 0 {
        amounts.memory = amounts.memory.saturating_add(overhead.memory);
    }
    amounts
}

/// The containers that count for the class: all but ephemeral ones.
fn counted(pod: &Pod) -> impl Iterator<Item = &Container> {
    let spec = pod.spec.iter();
    spec.flat_map(|spec| spec.containers.iter().chain(spec.init_containers.iter().flatten()))
}

/// The pod's class, by what it asks for. The status is not looked at.
#[must_use]
pub fn qos_class(pod: &Pod) -> QosClass {
    let own = pod.spec.as_ref().and_then(|spec| spec.resources.as_ref());
    let says = |resources: &&ResourceRequirements| {
        let has = |amounts: Amounts| amounts.cpu_milli > 0 || amounts.memory > 0;
        has(Amounts::of(requests(resources))) || has(Amounts::of(limits(resources)))
    };
    let (mut requested, mut limited) = (Amounts::default(), Amounts::default());
    let mut all_limited = true;
    if let Some(own) = own.filter(says) {
        (requested, limited) = (Amounts::of(requests(own)), Amounts::of(limits(own)));
        all_limited = limited.cpu_milli > 0 && limited.memory > 0;
    } else {
        for container in counted(pod) {
            let limit = of_container(container, limits);
            all_limited &= limit.cpu_milli > 0 && limit.memory > 0;
            requested.add(&of_container(container, requests));
            limited.add(&limit);
        }
    }
    let figures = |amounts: &Amounts| (amounts.cpu_milli, amounts.memory);
    if figures(&requested) == (0, 0) && figures(&limited) == (0, 0) {
        return QosClass::BestEffort;
    }
    let is_guaranteed = all_limited && figures(&requested) == figures(&limited);
    if is_guaranteed { QosClass::Guaranteed } else { QosClass::Burstable }
}

/// What a pod's cgroup is told.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PodLimits {
    /// v1's shares, whatever the version; converted where it is v2.
    pub cpu_shares: u64,
    /// Microseconds per period; `None` for no limit.
    pub cpu_quota: Option<i64>,
    /// Microseconds.
    pub cpu_period: u64,
    /// Bytes; `None` for no limit.
    pub memory_limit: Option<u64>,
    /// Processes and threads; `None` leaves it as it is.
    pub pids: Option<u64>,
    /// Bytes by size of page, as `2Mi`; pages of other sizes are forbidden.
    pub hugepages: BTreeMap<String, u64>,
}

/// What the pod's cgroup is told: a limit counts only if every container has one, because a cgroup can't tell them apart.
/// `period_us` is the node's `cpuCFSQuotaPeriod`; without `enforce_quota` (`cpuCFSQuota: false`) there is no quota.
#[must_use]
pub fn pod_limits(pod: &Pod, period_us: u64, enforce_quota: bool, pids: Option<u64>) -> PodLimits {
    let (requested, limited) = (pod_requests(pod), pod_maximum(pod));
    let own = pod.spec.as_ref().and_then(|spec| spec.resources.as_ref());
    let own = Amounts::of(own.and_then(limits));
    let all = |pick: fn(&Amounts) -> u64| counted(pod).all(|container| pick(&of_container(container, limits)) > 0);
    let class = qos_class(pod);
    let has_cpu = own.cpu_milli > 0 || class == QosClass::Guaranteed || all(|amounts| amounts.cpu_milli);
    let has_memory = own.memory > 0 || class == QosClass::Guaranteed || all(|amounts| amounts.memory);
    let is_bounded = class != QosClass::BestEffort;
    let milli = if is_bounded { requested.cpu_milli } else { 0 };
    let quota = cpu_quota(limited.cpu_milli, period_us);
    PodLimits {
        cpu_shares: cpu_shares(milli),
        cpu_quota: quota.filter(|_| enforce_quota && has_cpu && is_bounded),
        cpu_period: period_us,
        memory_limit: Some(limited.memory).filter(|bytes| *bytes > 0 && has_memory && is_bounded),
        pids,
        hugepages: limited.hugepages,
    }
}

/// What the Burstable pods among these request together, in thousandths of a CPU: what their class's shares are made of.
#[must_use]
pub fn burstable_milli<'a>(pods: impl IntoIterator<Item = &'a Pod>) -> u64 {
    let burstable = pods.into_iter().filter(|pod| qos_class(pod) == QosClass::Burstable);
    burstable.map(|pod| pod_requests(pod).cpu_milli).fold(0, u64::saturating_add)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pod(spec: &Value) -> Pod {
        serde_json::from_value(json!({"spec": spec})).unwrap()
    }

    fn container(requests: &Value, limits: &Value) -> Value {
        json!({"name": "c", "resources": {"requests": requests, "limits": limits}})
    }

    fn sidecar(requests: &Value, limits: &Value) -> Value {
        let mut made = container(requests, limits);
        made["restartPolicy"] = json!("Always");
        made
    }

    #[test]
    fn classes() {
        let full = json!({"cpu": "1", "memory": "1Gi"});
        let same = json!({"cpu": "1000m", "memory": "1073741824"});
        let (cpu, none) = (json!({"cpu": "1"}), json!({}));
        let zero = json!({"cpu": "0", "memory": "0"});
        for (spec, expected) in [
            (json!({"containers": [container(&none, &none)]}), QosClass::BestEffort),
            (json!({"containers": [container(&zero, &zero)]}), QosClass::BestEffort),
            (json!({"containers": [container(&full, &same)]}), QosClass::Guaranteed),
            (json!({"containers": [container(&full, &full), container(&none, &none)]}), QosClass::Burstable),
            (json!({"containers": [container(&cpu, &cpu)]}), QosClass::Burstable),
            (json!({"containers": [container(&none, &full)]}), QosClass::Burstable),
            (
                json!({"containers": [container(&full, &full)], "initContainers": [container(&cpu, &none)]}),
                QosClass::Burstable,
            ),
            (json!({"containers": [container(&json!({"example.com/x": "1"}), &none)]}), QosClass::BestEffort),
            (
                json!({"containers": [container(&none, &none)], "resources": {"requests": full, "limits": full}}),
                QosClass::Guaranteed,
            ),
            (json!({"containers": [container(&full, &full)], "resources": {"requests": cpu}}), QosClass::Burstable),
        ] {
            assert_eq!(qos_class(&pod(&spec)), expected, "{spec}");
        }
    }

    #[test]
    fn init_containers_count_by_their_most_and_sidecars_stay() {
        let cpu = |milli: u32| json!({"cpu": format!("{milli}m")});
        let none = json!({});
        let spec = json!({
            "containers": [container(&cpu(100), &none), container(&cpu(200), &none)],
            "initContainers": [container(&cpu(250), &none), sidecar(&cpu(50), &none), container(&cpu(400), &none)],
            "overhead": {"cpu": "10m", "memory": "1Mi"},
        });
        let asked = pod_requests(&pod(&spec));
        assert_eq!((asked.cpu_milli, asked.memory), (460, 1 << 20));
        assert_eq!(burstable_milli([&pod(&spec), &pod(&spec), &pod(&json!({"containers": []}))]), 920);
    }

    #[test]
    fn a_limit_counts_when_every_container_has_one() {
        let both = json!({"cpu": "500m", "memory": "64Mi", "hugepages-2Mi": "4Mi"});
        let (memory, none) = (json!({"memory": "64Mi"}), json!({}));
        let limits_of = |spec: Value| pod_limits(&pod(&spec), crate::CPU_PERIOD_US, true, Some(100));
        let found = limits_of(json!({"containers": [container(&both, &both), container(&none, &memory)]}));
        assert_eq!((found.cpu_quota, found.memory_limit, found.cpu_shares), (None, Some(128 << 20), 512));
        assert_eq!(found.hugepages["2Mi"], 4 << 20);
        let found = limits_of(json!({"containers": [container(&both, &both)]}));
        assert_eq!((found.cpu_quota, found.memory_limit, found.pids), (Some(50_000), Some(64 << 20), Some(100)));
        let found = limits_of(json!({"containers": [container(&none, &none)]}));
        assert_eq!((found.cpu_quota, found.memory_limit, found.cpu_shares), (None, None, 2));
        let own = json!({"containers": [container(&none, &none)], "resources": {"limits": both, "requests": both}});
        assert_eq!(limits_of(own).memory_limit, Some(64 << 20));
    }
}
