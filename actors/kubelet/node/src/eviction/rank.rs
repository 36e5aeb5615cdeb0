//! Which pod goes first: pure.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use k3sd_kubelet_base::PodView;
use k3sd_objects::quantity::Quantity;
use k8s_openapi::api::core::v1::{Container, Pod};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;

use super::signal::Signal;
use crate::collect::has_ended;

/// Pods of this priority or above keep the cluster going.
const SYSTEM_CRITICAL: i32 = 2_000_000_000;

/// What somebody uses of what can run out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bytes of the working set.
    pub memory: u64,
    /// Bytes on the file system in question.
    pub disk: u64,
    /// Inodes there.
    pub inodes: u64,
    /// Process ids.
    pub pids: u64,
}

impl Usage {
    /// What it uses of what a signal is about.
    #[must_use]
    pub fn of(self, signal: Signal) -> u64 {
        match signal.resource() {
            "memory" => self.memory,
            "ephemeral-storage" => self.disk,
            "inodes" => self.inodes,
            _ => self.pids,
        }
    }
}

/// A pod, and what it uses.
#[derive(Clone, Debug)]
pub struct PodUse {
    /// The pod.
    pub view: Arc<PodView>,
    /// What it uses; none if that isn't known.
    pub usage: Option<Usage>,
    /// Of that its containers, by name.
    pub containers: Vec<(String, Usage)>,
}

/// Amount of a resource in a map of requests or limits.
pub(super) fn amount(map: Option<&BTreeMap<String, Text>>, resource: &str) -> Option<u64> {
    let text = map?.get(resource)?;
    let quantity: Quantity = text.0.parse().ok()?;
    u64::try_from(quantity.value()).ok()
}

/// What a container asks for.
pub(super) fn request(container: &Container, resource: &str) -> u64 {
    let resources = container.resources.as_ref();
    amount(resources.and_then(|resources| resources.requests.as_ref()), resource).unwrap_or(0)
}

/// Whether an init container goes on running beside the others.
pub(super) fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

/// What a pod asks for: of its containers and sidecars together, or of its largest init container, and the overhead; or
/// what the pod as a whole says.
pub(super) fn pod_request(pod: &Pod, resource: &str) -> u64 {
    let Some(spec) = &pod.spec else { return 0 };
    let overhead = amount(spec.overhead.as_ref(), resource).unwrap_or(0);
    let whole = spec.resources.as_ref().and_then(|resources| amount(resources.requests.as_ref(), resource));
    let (mut sidecars, mut largest) = (0_u64, 0_u64);
    for container in spec.init_containers.iter().flatten() {
        let own = request(container, resource);
        if is_sidecar(container) {
            sidecars = sidecars.saturating_add(own);
            largest = largest.max(sidecars);
        } else {
            largest = largest.max(sidecars.saturating_add(own));
        }
    }
    let together =
        spec.containers.iter().map(|container| request(container, resource)).fold(sidecars, u64::saturating_add);
    whole.unwrap_or_else(|| together.max(largest)).saturating_add(overhead)
}

/// The priority of a pod.
pub(super) fn priority(pod: &Pod) -> i32 {
    pod.spec.as_ref().and_then(|spec| spec.priority).unwrap_or(0)
}

/// Whether a pod may not be evicted: the cluster needs it, or it comes from a file of this node.
pub(super) fn is_critical(pod: &Pod) -> bool {
    let annotations = pod.metadata.annotations.as_ref();
    let says = |name: &str| annotations.and_then(|all| all.get(name));
    let is_static = says("kubernetes.io/config.source").is_some_and(|source| source != "api");
    is_static || says("kubernetes.io/config.mirror").is_some() || priority(pod) >= SYSTEM_CRITICAL
}

/// Puts pods in the order in which they go: those whose use isn't known, those above their requests, low priorities, and
/// those that are most above their requests. Of process ids nobody asks for any.
#[must_use]
pub fn rank(pods: &[PodUse], signal: Signal) -> Vec<PodUse> {
    let resource = signal.resource();
    let mut all: Vec<PodUse> = pods.iter().filter(|pod| !has_ended(&pod.view.pod)).cloned().collect();
    all.sort_by_cached_key(|pod| {
        let asked = if resource == "pids" { 0 } else { pod_request(&pod.view.pod, resource) };
        let used = pod.usage.map(|usage| usage.of(signal));
        let exceeds = resource != "pids" && used.is_none_or(|used| used > asked);
        let above = used.map(|used| i128::from(used) - i128::from(asked));
        // `false` sorts before `true`.
        (used.is_some(), !exceeds, priority(&pod.view.pod), Reverse(above), pod.view.uid.clone())
    });
    all
}
