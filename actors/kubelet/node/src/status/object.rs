//! The node's status, made anew from what is known.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k3sd_cri::v1::{Image, RuntimeFeatures, RuntimeHandler};
use k8s_openapi::api::core::v1::{
    ContainerImage, DaemonEndpoint, Node, NodeAddress, NodeCondition, NodeDaemonEndpoints, NodeFeatures,
    NodeRuntimeHandler, NodeRuntimeHandlerFeatures, NodeStatus, NodeSwapStatus, NodeSystemInfo,
};

use super::conditions::conditions;
use super::machine::{Machine, architecture};
use super::resources::{Resources, texts};
use crate::eviction::Pressures;

/// Names of one image that the status says, as upstream.
const IMAGE_NAMES_MAX: usize = 5;

/// All that the status is made of.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// The machine.
    pub machine: Machine,
    /// What it has; none if nothing is known.
    pub resources: Resources,
    /// The name and version of the runtime, as `containerd://1.6.20`.
    pub runtime_version: String,
    /// `v1.34.0+k3sd1`.
    pub kubelet_version: String,
    /// The port of the kubelet's server.
    pub port: u16,
    /// Images there are, largest first.
    pub images: Vec<ContainerImage>,
    /// What the runtime's handlers can do.
    pub handlers: Vec<NodeRuntimeHandler>,
    /// What the runtime can do.
    pub features: Option<NodeFeatures>,
    /// Addresses; none to leave those that somebody else says.
    pub addresses: Option<Vec<NodeAddress>>,
    /// Volumes that pods of this node use, of those that a controller attaches.
    pub volumes_in_use: Vec<String>,
    /// What the node is short of.
    pub pressures: Pressures,
    /// Why it isn't ready.
    pub problems: Vec<String>,
}

/// Images as the status names them: the largest ones, at most so many, -1 for all.
#[must_use]
pub fn images(found: &[Image], most: i32) -> Vec<ContainerImage> {
    let mut all: Vec<&Image> = found.iter().collect();
    all.sort_by(|one, other| other.size.cmp(&one.size).then_with(|| one.id.cmp(&other.id)));
    all.truncate(usize::try_from(most).unwrap_or(usize::MAX));
    let one = |image: &Image| {
        let names = image.repo_digests.iter().chain(&image.repo_tags).take(IMAGE_NAMES_MAX).cloned().collect();
        ContainerImage { names: Some(names), size_bytes: i64::try_from(image.size).ok() }
    };
    all.into_iter().map(one).collect()
}

/// Handlers as the status names them, by name.
#[must_use]
pub fn handlers(found: &[RuntimeHandler]) -> Vec<NodeRuntimeHandler> {
    let mut all: Vec<NodeRuntimeHandler> = found
        .iter()
        .map(|handler| NodeRuntimeHandler {
            name: Some(handler.name.clone()),
            features: handler.features.as_ref().map(|features| NodeRuntimeHandlerFeatures {
                recursive_read_only_mounts: Some(features.recursive_read_only_mounts),
                user_namespaces: Some(features.user_namespaces),
            }),
        })
        .collect();
    all.sort_by(|one, other| one.name.cmp(&other.name));
    all
}

/// Features as the status names them.
#[must_use]
pub fn features(found: Option<&RuntimeFeatures>) -> Option<NodeFeatures> {
    found.map(|features| NodeFeatures { supplemental_groups_policy: Some(features.supplemental_groups_policy) })
}

/// What keeps a node without CPUs, memory or places for pods from being ready.
fn missing(resources: &Resources) -> Option<String> {
    let missing: Vec<&str> =
        ["cpu", "memory", "pods"].into_iter().filter(|name| !resources.capacity.contains_key(*name)).collect();
    (!missing.is_empty()).then(|| format!("missing node capacity for resources: {}", missing.join(", ")))
}

/// Makes the status. What others write of it, such as volumes that are attached, stays.
#[must_use]
pub fn status(node: &Node, facts: &Facts, now: Timestamp) -> NodeStatus {
    let before = node.status.clone().unwrap_or_default();
    let machine = &facts.machine;
    let problems: Vec<String> = facts.problems.iter().cloned().chain(missing(&facts.resources)).collect();
    let own = conditions(before.conditions.as_deref().unwrap_or_default(), facts.pressures, &problems, now);
    let is_own = |other: &NodeCondition| own.iter().any(|condition| condition.type_ == other.type_);
    let mut all: Vec<NodeCondition> = before.conditions.into_iter().flatten().filter(|other| !is_own(other)).collect();
    all.extend(own);
    let some = |map: BTreeMap<_, _>| (!map.is_empty()).then_some(map);
    NodeStatus {
        addresses: facts.addresses.clone().or(before.addresses),
        capacity: some(texts(&facts.resources.capacity)),
        allocatable: some(texts(&facts.resources.allocatable)),
        conditions: Some(all),
        daemon_endpoints: Some(NodeDaemonEndpoints {
            kubelet_endpoint: Some(DaemonEndpoint { port: i32::from(facts.port) }),
        }),
        features: facts.features.clone(),
        images: (!facts.images.is_empty()).then(|| facts.images.clone()),
        node_info: Some(NodeSystemInfo {
            architecture: architecture().to_owned(),
            boot_id: machine.boot_id.clone(),
            container_runtime_version: facts.runtime_version.clone(),
            kernel_version: machine.kernel_version.clone(),
            kube_proxy_version: String::new(),
            kubelet_version: facts.kubelet_version.clone(),
            machine_id: machine.machine_id.clone(),
            operating_system: "linux".to_owned(),
            os_image: machine.os_image.clone(),
            swap: i64::try_from(machine.swap_bytes)
                .ok()
                .filter(|swap| *swap > 0)
                .map(|capacity| NodeSwapStatus { capacity: Some(capacity) }),
            system_uuid: machine.system_uuid.clone(),
        }),
        runtime_handlers: (!facts.handlers.is_empty()).then(|| facts.handlers.clone()),
        volumes_in_use: (!facts.volumes_in_use.is_empty()).then(|| facts.volumes_in_use.clone()),
        config: before.config,
        phase: before.phase,
        volumes_attached: before.volumes_attached,
    }
}
