//! How much a container may use, in the kernel's terms.

use k3sd_cri::v1::{HugepageLimit, LinuxContainerResources};
use k3sd_kubelet_cgroups::{CPU_PERIOD_US, QosClass, cpu_quota, cpu_shares, qos_class};
use k3sd_objects::quantity::Quantity;
use k8s_openapi::api::core::v1::{Container, Pod};

use crate::spec::{self, limit, main_containers, quantity, requested};

/// Microseconds that a quota is counted in.
const PERIOD: i64 = 100_000;
/// Score of those that must not be killed for memory: guaranteed pods, and those a node needs.
const SCORE_GUARANTEED: i64 = -997;
/// Score of those that promise nothing.
const SCORE_BEST_EFFORT: i64 = 1000;
/// The kernel's shares for thousandths of a CPU.
fn shares(milli: i64) -> i64 {
    i64::try_from(cpu_shares(u64::try_from(milli).unwrap_or_default())).unwrap_or(i64::MAX)
}

/// The kernel's quota for thousandths of a CPU; none for none.
fn quota(milli: i64) -> i64 {
    cpu_quota(u64::try_from(milli).unwrap_or_default(), CPU_PERIOD_US).unwrap_or_default()
}

/// Who is killed first when there is no memory; `capacity` is the node's, in bytes.
#[must_use]
pub fn oom_score(pod: &Pod, container: &Container, capacity: i64) -> i64 {
    if spec::has_critical_priority(pod) {
        return SCORE_GUARANTEED;
    }
    match qos_class(pod) {
        QosClass::Guaranteed => SCORE_GUARANTEED,
        QosClass::BestEffort => SCORE_BEST_EFFORT,
        QosClass::Burstable => {
            let request = memory_request(container);
            let share = if capacity > 0 { 1000i128 * i128::from(request) / i128::from(capacity) } else { 0 };
            let mut score = 1000 - i64::try_from(share).unwrap_or(1000);
            if spec::is_sidecar(container) {
                // A sidecar isn't killed before what it serves.
                let least = main_containers(pod).iter().map(memory_request).min().unwrap_or_default();
                let share = if capacity > 0 { 1000i128 * i128::from(least) / i128::from(capacity) } else { 0 };
                score = score.min(1000 - i64::try_from(share).unwrap_or(1000));
            }
            if score < 1000 + SCORE_GUARANTEED {
                1000 + SCORE_GUARANTEED
            } else if score == SCORE_BEST_EFFORT {
                score - 1
            } else {
                score
            }
        }
    }
}

fn memory_request(container: &Container) -> i64 {
    requested(container.resources.as_ref(), "memory").map_or(0, Quantity::value)
}

/// What containers may swap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Swap {
    /// The kernel can't limit it.
    #[default]
    Unknown,
    /// Nothing, with cgroups of the first version.
    NoneV1,
    /// Nothing.
    NoneV2,
    /// Those of burstable pods their share of so many bytes, by what they request of the node's memory.
    Limited(i64),
}

/// How the node gives resources.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Means {
    /// The node's memory, in bytes.
    pub memory_capacity: i64,
    /// Whether limits of CPU become quotas.
    pub with_quota: bool,
    /// What containers may swap.
    pub swap: Swap,
}

/// The file that limits swap in cgroups of the second version.
const SWAP_FILE: &str = "memory.swap.max";

fn set_swap(pod: &Pod, container: &Container, means: Means, made: &mut LinuxContainerResources) {
    let bytes = match means.swap {
        Swap::Unknown => return,
        Swap::NoneV1 => {
            // Memory and swap together are as much as memory alone.
            made.memory_swap_limit_in_bytes = made.memory_limit_in_bytes;
            return;
        }
        Swap::NoneV2 => 0,
        Swap::Limited(total) => {
            let request = memory_request(container);
            let limit = limit(container.resources.as_ref(), "memory").map_or(0, Quantity::value);
            let may = qos_class(pod) == QosClass::Burstable && !spec::is_critical(pod) && request != limit;
            let share = i128::from(request) * i128::from(total) / i128::from(means.memory_capacity.max(1));
            if may { i64::try_from(share).unwrap_or(i64::MAX) } else { 0 }
        }
    };
    made.unified.insert(SWAP_FILE.to_owned(), bytes.to_string());
}

/// What a container is given.
#[must_use]
pub fn of_container(pod: &Pod, container: &Container, means: Means) -> LinuxContainerResources {
    let own = container.resources.as_ref();
    let cpu_limit = limit(own, "cpu").map_or(0, Quantity::milli_value);
    let mut made = LinuxContainerResources {
        cpu_shares: shares(requested(own, "cpu").map_or(0, Quantity::milli_value)),
        memory_limit_in_bytes: limit(own, "memory").map_or(0, Quantity::value),
        oom_score_adj: oom_score(pod, container, means.memory_capacity),
        hugepage_limits: huge_pages(container),
        ..LinuxContainerResources::default()
    };
    if means.with_quota {
        made.cpu_period = PERIOD;
        made.cpu_quota = quota(cpu_limit);
    }
    set_swap(pod, container, means, &mut made);
    made
}

/// Huge pages by their sizes, as the kernel writes them: `2MB`.
fn huge_pages(container: &Container) -> Vec<HugepageLimit> {
    let limits = container.resources.as_ref().and_then(|all| all.limits.as_ref());
    let pages = limits.into_iter().flatten().filter_map(|(name, text)| {
        let size = name.strip_prefix("hugepages-")?.parse::<Quantity>().ok()?.value();
        let page_size = match size {
            size if size >= 1 << 30 => format!("{}GB", size >> 30),
            size if size >= 1 << 20 => format!("{}MB", size >> 20),
            size => format!("{}KB", size >> 10),
        };
        let limit = u64::try_from(quantity(text)?.value()).ok()?;
        Some(HugepageLimit { page_size, limit })
    });
    pages.collect()
}

/// What all main containers together are given, as the sandbox is told; and what the pod costs beside them.
#[must_use]
pub fn of_sandbox(pod: &Pod) -> (LinuxContainerResources, LinuxContainerResources) {
    let mut sum = LinuxContainerResources::default();
    let (mut request, mut cpu, mut memory) = (0i64, Some(0i64), Some(0i64));
    for container in main_containers(pod) {
        let own = container.resources.as_ref();
        request = request.saturating_add(requested(own, "cpu").map_or(0, Quantity::milli_value));
        // One without a limit leaves the sum without one.
        cpu = cpu.and_then(|sum| Some(sum.saturating_add(limit(own, "cpu")?.milli_value())));
        memory = memory.and_then(|sum| Some(sum.saturating_add(limit(own, "memory")?.value())));
    }
    sum.cpu_shares = shares(request);
    sum.cpu_period = PERIOD;
    sum.cpu_quota = quota(cpu.unwrap_or_default());
    sum.memory_limit_in_bytes = memory.unwrap_or_default();
    let mut overhead = LinuxContainerResources::default();
    if let Some(list) = pod.spec.as_ref().and_then(|spec| spec.overhead.as_ref()) {
        let of = |name: &str| list.get(name).and_then(quantity);
        if let Some(cpu) = of("cpu").map(Quantity::milli_value) {
            overhead.cpu_shares = shares(cpu);
            overhead.cpu_period = PERIOD;
            overhead.cpu_quota = quota(cpu);
        }
        overhead.memory_limit_in_bytes = of("memory").map_or(0, Quantity::value);
    }
    (sum, overhead)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::pod;

    const GIB: i64 = 1 << 30;

    fn containers(list: &str) -> Pod {
        pod(&format!("{{spec: {{containers: [{list}]}}}}"))
    }

    #[test]
    fn classes_and_scores_are_upstreams() {
        let full = "resources: {limits: {cpu: '1', memory: 1Gi}, requests: {cpu: '1', memory: 1Gi}}";
        for (list, class, score) in [
            ("{name: a}", QosClass::BestEffort, 1000),
            ("{name: a, resources: {requests: {cpu: '0'}}}", QosClass::BestEffort, 1000),
            (&format!("{{name: a, {full}}}"), QosClass::Guaranteed, -997),
            (&format!("{{name: a, {full}}}, {{name: b}}"), QosClass::Burstable, 750),
            (
                "{name: a, resources: {limits: {cpu: '1', memory: 1Gi}, requests: {memory: 512Mi}}}",
                QosClass::Burstable,
                875,
            ),
            ("{name: a, resources: {requests: {cpu: '1'}}}", QosClass::Burstable, 999),
            ("{name: a, resources: {requests: {memory: 4Gi}}}", QosClass::Burstable, 3),
            ("{name: a, resources: {requests: {memory: 8Gi}}}", QosClass::Burstable, 3),
        ] {
            let pod = containers(list);
            assert_eq!(qos_class(&pod), class, "{list}");
            assert_eq!(oom_score(&pod, &main_containers(&pod)[0], 4 * GIB), score, "{list}");
        }
        let critical = pod("{spec: {priority: 2000001000, containers: [{name: a}]}}");
        assert_eq!(oom_score(&critical, &main_containers(&critical)[0], GIB), -997);
    }

    #[test]
    fn a_pods_own_resources_make_its_class() {
        let whole = pod(
            "{spec: {resources: {limits: {cpu: '1', memory: 1Gi}, requests: {cpu: '1', memory: 1Gi}}, containers: [{name: a}]}}",
        );
        assert_eq!(qos_class(&whole), QosClass::Guaranteed);
    }

    #[test]
    fn numbers_are_the_kernels() {
        for (milli, expected_shares, expected_quota) in
            [(0, 2, 0), (1, 2, 1000), (5, 5, 1000), (100, 102, 10_000), (1000, 1024, 100_000), (2500, 2560, 250_000)]
        {
            assert_eq!((shares(milli), quota(milli)), (expected_shares, expected_quota), "{milli}");
        }
        let pod = containers(
            "{name: a, resources: {limits: {cpu: 500m, memory: 64Mi, hugepages-2Mi: 4Mi}, requests: {cpu: 250m}}}",
        );
        let means = Means { memory_capacity: GIB, with_quota: true, swap: Swap::Unknown };
        let made = of_container(&pod, &main_containers(&pod)[0], means);
        assert_eq!((made.cpu_shares, made.cpu_quota, made.cpu_period), (256, 50_000, 100_000));
        assert_eq!(made.memory_limit_in_bytes, 64 << 20);
        assert_eq!((made.hugepage_limits[0].page_size.as_str(), made.hugepage_limits[0].limit), ("2MB", 4 << 20));
        let without = Means { with_quota: false, ..means };
        assert_eq!(of_container(&pod, &main_containers(&pod)[0], without).cpu_quota, 0);
    }

    #[test]
    fn swap_is_for_burstable_pods() {
        let of = |swap, resources: &str, priority: i32| {
            let pod = pod(&format!(
                "{{spec: {{priority: {priority}, containers: [{{name: a, resources: {{{resources}}}}}]}}}}"
            ));
            let means = Means { memory_capacity: 4 * GIB, with_quota: true, swap };
            let made = of_container(&pod, &main_containers(&pod)[0], means);
            (made.memory_swap_limit_in_bytes, made.unified.get(SWAP_FILE).cloned())
        };
        let file = |bytes: i64| (0, Some(bytes.to_string()));
        let (limited, some) = (Swap::Limited(2 * GIB), "requests: {memory: 1Gi}");
        for (swap, resources, priority, expected) in [
            (Swap::Unknown, some, 0, (0, None)),
            (Swap::NoneV1, "limits: {memory: 1Gi}", 0, (GIB, None)),
            (Swap::NoneV2, some, 0, file(0)),
            (limited, some, 0, file(GIB / 2)),
            (limited, some, 2_000_000_000, file(0)),
            (limited, "limits: {memory: 1Gi}", 0, file(0)),
            (limited, "", 0, file(0)),
        ] {
            assert_eq!(of(swap, resources, priority), expected, "{swap:?} {resources} {priority}");
        }
    }

    #[test]
    fn sandboxes_are_told_sums() {
        let pod = containers(
            "{name: a, resources: {limits: {cpu: '1', memory: 1Gi}}}, {name: b, resources: {limits: {cpu: '1'}}}",
        );
        let (sum, overhead) = of_sandbox(&pod);
        assert_eq!((sum.cpu_quota, sum.memory_limit_in_bytes, sum.cpu_shares), (200_000, 0, 2048));
        assert_eq!(overhead, LinuxContainerResources::default());
    }
}
