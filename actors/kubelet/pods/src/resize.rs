//! In-place resize: which resources a pod has been granted, which its containers have, and what makes them the same. Pure.
//!
//! ```text
//! asked for (the object) ─▶ granted (the node has room) ─▶ actual (the runtime and the kernel were told)
//! ```
//!
//! The rest of this crate sees only what was granted: [`granted`] puts it in place of what the object asks for.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use k3sd_kubelet_cgroups::{PodLimits, QosClass, pod_requests, qos_class};
use k8s_openapi::api::core::v1::{Container, Pod, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;
use serde_json::{Value, json};

use crate::admit::{Room, admit};
use crate::runtime::Runtime;
use crate::spec::{self, init_containers, is_sidecar, main_containers, quantity};

/// Resources of containers, by their names.
pub type ByContainer = BTreeMap<String, ResourceRequirements>;

/// The condition of a resize that waits.
pub const PENDING: &str = "PodResizePending";
/// The condition of one that is being carried out.
pub const IN_PROGRESS: &str = "PodResizeInProgress";

/// Why a resize waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pending {
    /// `Deferred` if it may pass, `Infeasible` if the node is too small.
    pub reason: &'static str,
    /// For people.
    pub message: String,
}

/// How far a pod's resize is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Progress {
    /// Why it waits, if it does.
    pub pending: Option<Pending>,
    /// Containers that run have something else than they were granted.
    pub is_underway: bool,
    /// What went wrong when it was last tried.
    pub error: Option<String>,
    /// What containers have.
    pub actual: ByContainer,
}

/// What a running container needs so that it has what it was granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The runtime is told.
    Update,
    /// The container is started anew.
    Restart,
}

/// The amounts that a resize may change: CPU in thousandths and memory in bytes, of the request and of the limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Amounts {
    cpu: (Option<i64>, Option<i64>),
    memory: (Option<i64>, Option<i64>),
}

fn amounts(of: Option<&ResourceRequirements>) -> Amounts {
    let Some(of) = of else { return Amounts::default() };
    let both = |name: &str| {
        let one = |list: &Option<BTreeMap<String, Text>>| {
            let amount = quantity(list.as_ref()?.get(name)?)?;
            Some(if name == "cpu" { amount.milli_value() } else { amount.value() })
        };
        (one(&of.requests), one(&of.limits))
    };
    Amounts { cpu: both("cpu"), memory: both("memory") }
}

/// Containers that can be resized: the main ones and sidecars.
fn resizable(pod: &Pod) -> impl Iterator<Item = &Container> {
    main_containers(pod).iter().chain(init_containers(pod).iter().filter(|one| is_sidecar(one)))
}

/// What the pod's containers ask for.
#[must_use]
pub fn asked(pod: &Pod) -> ByContainer {
    resizable(pod).map(|one| (one.name.clone(), one.resources.clone().unwrap_or_default())).collect()
}

/// Whether containers of both have other amounts.
#[must_use]
pub fn differ(one: &ByContainer, other: &ByContainer) -> bool {
    one.iter().any(|(name, own)| other.get(name).is_some_and(|theirs| amounts(Some(own)) != amounts(Some(theirs))))
}

/// The pod with what was granted in place of what it asks for. The same one, if that is what it asks for.
#[must_use]
pub fn granted(pod: &Arc<Pod>, grant: &ByContainer) -> Arc<Pod> {
    if !differ(&asked(pod), grant) {
        return pod.clone();
    }
    let mut made = Pod::clone(pod);
    let Some(spec) = &mut made.spec else { return pod.clone() };
    let sidecars = spec.init_containers.iter_mut().flatten().filter(|one| is_sidecar(one));
    for container in spec.containers.iter_mut().chain(sidecars) {
        if let Some(resources) = grant.get(&container.name) {
            container.resources = Some(resources.clone());
        }
    }
    Arc::new(made)
}

/// What a running container needs; nothing if it has what it was granted, or if nobody knows what it has.
#[must_use]
pub fn step(container: &Container, actual: &ByContainer) -> Option<Step> {
    let has = amounts(Some(actual.get(&container.name)?));
    let granted = amounts(container.resources.as_ref());
    let restarts = |resource: &str| {
        let mut policies = container.resize_policy.iter().flatten().filter(|one| one.resource_name == resource);
        policies.any(|one| one.restart_policy == "RestartContainer")
    };
    match (has.cpu != granted.cpu, has.memory != granted.memory) {
        (false, false) => None,
        (cpu, memory) if (cpu && restarts("cpu")) || (memory && restarts("memory")) => Some(Step::Restart),
        _ => Some(Step::Update),
    }
}

/// Whether a container that runs has something else than it was granted.
#[must_use]
pub fn is_underway(pod: &Pod, runtime: &Runtime, actual: &ByContainer) -> bool {
    runtime.running().any(|found| {
        let container = resizable(pod).find(|one| one.name == found.name);
        container.is_some_and(|container| step(container, actual).is_some())
    })
}

/// The memory limit that a container is to get, if it is lower than the one it has, in bytes.
#[must_use]
pub fn lower_limit(container: &Container, actual: &ByContainer) -> Option<i64> {
    let has = amounts(actual.get(&container.name)).memory.1;
    let wanted = amounts(container.resources.as_ref()).memory.1?;
    has.is_none_or(|has| wanted < has).then_some(wanted)
}

/// The limits under which both what a pod had and what it gets fit, for while its containers change.
#[must_use]
pub fn widest(one: &PodLimits, other: &PodLimits) -> PodLimits {
    // None is no limit, which is wider than any.
    let wider = |one: Option<i128>, other: Option<i128>| one.zip(other).map(|(one, other)| one.max(other));
    let quota = wider(one.cpu_quota.map(i128::from), other.cpu_quota.map(i128::from));
    let memory = wider(one.memory_limit.map(i128::from), other.memory_limit.map(i128::from));
    PodLimits {
        cpu_shares: one.cpu_shares.max(other.cpu_shares),
        cpu_quota: quota.and_then(|quota| i64::try_from(quota).ok()),
        memory_limit: memory.and_then(|bytes| u64::try_from(bytes).ok()),
        ..other.clone()
    }
}

/// Whether the node can grant a pod what it asks for. `room.others` are the other pods, with what they were granted.
///
/// # Errors
/// Why it has to wait.
pub fn decide(pod: &Pod, room: Room<'_>) -> Result<(), Pending> {
    let asked = pod_requests(pod);
    let all = |name: &str| {
        let all = room.allocatable.get(name).copied();
        all.map(|all| if name == "cpu" { all.milli_value() } else { all.value() })
    };
    for (name, amount) in [("memory", asked.memory), ("cpu", asked.cpu_milli)] {
        let Some(capacity) = all(name).map(|all| u64::try_from(all).unwrap_or_default()) else { continue };
        if amount > capacity {
            let message =
                format!("Node didn't have enough capacity: {name}, requested: {amount}, capacity: {capacity}");
            return Err(Pending { reason: "Infeasible", message });
        }
    }
    admit(pod, room).map_err(|(_, message)| Pending { reason: "Deferred", message })
}

/// Which of several resizes is looked at first: those that free something, then by priority and class, then who has waited
/// longest.
#[must_use]
pub fn order(asked: &Pod, granted: &Pod) -> impl Ord + use<> {
    let (wanted, has) = (pod_requests(asked), pod_requests(granted));
    let grows = wanted.cpu_milli > has.cpu_milli || wanted.memory > has.memory;
    let priority = asked.spec.as_ref().and_then(|spec| spec.priority).unwrap_or_default();
    let status = spec::status(asked);
    let pending = status.conditions.iter().flatten().find(|one| one.type_ == PENDING);
    let since: Option<Timestamp> = pending.and_then(|one| one.last_transition_time.as_ref()).map(|time| time.0);
    (grows, Reverse(priority), qos_class(asked) != QosClass::Guaranteed, since.is_none(), since)
}

/// What the event says when a resize is complete.
#[must_use]
pub fn completed(pod: &Pod) -> String {
    let list = |containers: &mut dyn Iterator<Item = &Container>| -> Vec<Value> {
        let one = |container: &Container| json!({"name": container.name, "resources": container.resources.clone().unwrap_or_default()});
        containers.map(one).collect()
    };
    let mut said = json!({
        "containers": list(&mut main_containers(pod).iter()),
        "generation": pod.metadata.generation.unwrap_or_default(),
    });
    let before = list(&mut init_containers(pod).iter());
    if !before.is_empty() {
        said["initContainers"] = Value::Array(before);
    }
    format!("Pod resize completed: {said}")
}

#[cfg(test)]
mod tests {
    use k3sd_objects::quantity::Quantity;

    use super::*;
    use crate::testing::{pod, runtime};

    fn of(resources: &str, rest: &str) -> Arc<Pod> {
        Arc::new(pod(&format!(
            "{{metadata: {{uid: u, generation: 3}}, spec: {{containers: [{{name: c, resources: {resources}{rest}}}]}}}}"
        )))
    }

    const SMALL: &str = "{requests: {cpu: 100m, memory: 64Mi}, limits: {cpu: 200m, memory: 128Mi}}";

    #[test]
    fn what_was_granted_counts() {
        let before = of(SMALL, "");
        let grant = asked(&before);
        let same = of("{requests: {cpu: '0.1', memory: 65536Ki}, limits: {cpu: 200m, memory: 128Mi}}", "");
        assert!(Arc::ptr_eq(&granted(&same, &grant), &same), "the same amounts are written otherwise");
        let larger = of("{requests: {cpu: 100m, memory: 64Mi}, limits: {cpu: 300m, memory: 128Mi}}", "");
        assert_eq!(granted(&larger, &grant).spec, before.spec);
        assert!(differ(&asked(&larger), &grant) && !differ(&asked(&larger), &ByContainer::new()));
        let sidecar = Arc::new(pod(
            "{spec: {containers: [], initContainers: [{name: s, restartPolicy: Always, resources: {requests: {cpu: '1'}}}, {name: i, resources: {requests: {cpu: '1'}}}]}}",
        ));
        assert_eq!(asked(&sidecar).into_keys().collect::<Vec<_>>(), ["s"]);
    }

    #[test]
    fn policies_say_how() {
        let actual = asked(&of(SMALL, ""));
        let cpu = "{requests: {cpu: 150m, memory: 64Mi}, limits: {cpu: 200m, memory: 128Mi}}";
        let memory = "{requests: {cpu: 100m, memory: 64Mi}, limits: {cpu: 200m, memory: 64Mi}}";
        let policy =
            |name: &str| format!(", resizePolicy: [{{resourceName: {name}, restartPolicy: RestartContainer}}]");
        for (resources, rest, expected) in [
            (SMALL, String::new(), None),
            (cpu, String::new(), Some(Step::Update)),
            (memory, String::new(), Some(Step::Update)),
            (cpu, policy("cpu"), Some(Step::Restart)),
            (cpu, policy("memory"), Some(Step::Update)),
            (memory, policy("memory"), Some(Step::Restart)),
        ] {
            let pod = of(resources, &rest);
            assert_eq!(step(&main_containers(&pod)[0], &actual), expected, "{resources}{rest}");
            assert_eq!(is_underway(&pod, &runtime(&pod, "s c=r"), &actual), expected.is_some());
            assert!(!is_underway(&pod, &runtime(&pod, "s c=1"), &actual), "it gets it when it starts");
            assert_eq!(step(&main_containers(&pod)[0], &ByContainer::new()), None, "nobody knows");
        }
        let pod = of(memory, "");
        assert_eq!(lower_limit(&main_containers(&pod)[0], &actual), Some(64 << 20));
        assert_eq!(lower_limit(&main_containers(&of(cpu, ""))[0], &actual), None);
        assert_eq!(lower_limit(&main_containers(&pod)[0], &asked(&of("{}", ""))), Some(64 << 20));
    }

    #[test]
    fn room_decides() {
        let allocatable: BTreeMap<String, Quantity> =
            [("cpu", "2"), ("memory", "1Gi")].map(|(key, value)| (key.to_owned(), value.parse().unwrap())).into();
        let other = of("{requests: {cpu: 1500m, memory: 512Mi}}", "");
        let others = [other.as_ref()];
        let room = Room {
            others: &others,
            node: None,
            allocatable: &allocatable,
            pods_max: 9,
            unsafe_sysctls: &[],
            has_apparmor: false,
            is_ending: false,
        };
        for (resources, expected) in [
            ("{requests: {cpu: 500m, memory: 512Mi}}", None),
            (
                "{requests: {cpu: 501m}}",
                Some(("Deferred", "Node didn't have enough resource: cpu, requested: 501, used: 1500, capacity: 2000")),
            ),
            (
                "{requests: {cpu: '3'}}",
                Some(("Infeasible", "Node didn't have enough capacity: cpu, requested: 3000, capacity: 2000")),
            ),
            (
                "{requests: {memory: 2Gi, cpu: '3'}}",
                Some((
                    "Infeasible",
                    "Node didn't have enough capacity: memory, requested: 2147483648, capacity: 1073741824",
                )),
            ),
        ] {
            let found = decide(&of(resources, ""), room).err();
            let found = found.as_ref().map(|pending| (pending.reason, pending.message.as_str()));
            assert_eq!(found, expected, "{resources}");
        }
    }

    #[test]
    fn who_gives_back_goes_first() {
        let sized = |name: &str, cpu: u32, priority: i32| {
            pod(&format!(
                "{{metadata: {{name: {name}}}, spec: {{priority: {priority}, containers: [{{name: c, resources: {{requests: {{cpu: {cpu}m}}}}}}]}}}}"
            ))
        };
        let before = sized("before", 100, 0);
        let mut all = [sized("low", 200, 0), sized("high", 200, 9), sized("less", 50, 0)];
        all.sort_by_key(|pod| order(pod, &before));
        assert_eq!(all.map(|pod| spec::name(&pod).to_owned()), ["less", "high", "low"]);
    }

    #[test]
    fn limits_make_way_for_both() {
        let limits = |cpu_quota, memory_limit, cpu_shares| PodLimits {
            cpu_quota,
            memory_limit,
            cpu_shares,
            ..PodLimits::default()
        };
        let found = widest(&limits(Some(5), Some(10), 3), &limits(Some(7), Some(8), 2));
        assert_eq!((found.cpu_quota, found.memory_limit, found.cpu_shares), (Some(7), Some(10), 3));
        let found = widest(&limits(Some(5), None, 3), &limits(None, Some(8), 2));
        assert_eq!((found.cpu_quota, found.memory_limit), (None, None));
    }

    #[test]
    fn the_event_names_all_resources() {
        assert_eq!(
            completed(&of("{requests: {cpu: 100m}}", "")),
            "Pod resize completed: {\"containers\":[{\"name\":\"c\",\"resources\":{\"requests\":{\"cpu\":\"100m\"}}}],\"generation\":3}"
        );
    }
}
