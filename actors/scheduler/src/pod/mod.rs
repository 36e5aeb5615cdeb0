//! A pod, with all that deciding needs of it read once.

mod affinity;
mod resources;

use std::fmt;
use std::sync::Arc;

use k3sd_objects::selector::{LabelSelector, Operator};
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::core::v1::Pod;

pub use self::affinity::{Affinity, PodMatch, PodSelector, Term};
pub use self::resources::{Resources, pod_requests};
use crate::labels::{Labels, NodeSelector, NodeTerm, narrowed, selector};

/// Which scheduler a pod is for unless it says otherwise.
pub const DEFAULT_SCHEDULER: &str = "default-scheduler";

/// Namespace and name.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl Key {
    /// The key of an object.
    pub fn new(namespace: &str, name: &str) -> Self {
        Self { namespace: namespace.to_owned(), name: name.to_owned() }
    }

    /// The key of a pod.
    pub fn of(pod: &Pod) -> Self {
        let meta = &pod.metadata;
        Self::new(meta.namespace.as_deref().unwrap_or_default(), meta.name.as_deref().unwrap_or_default())
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// A port of the host that a pod takes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HostPort {
    /// The address; `0.0.0.0` is all.
    pub ip: String,
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: String,
    /// The port.
    pub port: i32,
}

/// Any address of the host.
const ANY_ADDRESS: &str = "0.0.0.0";

impl HostPort {
    /// Whether both can't be on one host.
    pub fn conflicts(&self, other: &Self) -> bool {
        let same_address = self.ip == other.ip || self.ip == ANY_ADDRESS || other.ip == ANY_ADDRESS;
        self.port == other.port && self.protocol == other.protocol && same_address
    }
}

/// One constraint on how pods are spread over domains.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spread {
    /// How much fuller than the emptiest a domain may be.
    pub max_skew: i32,
    /// The label of nodes whose value makes a domain.
    pub topology_key: String,
    /// Nodes that break it are refused; otherwise they are only liked less.
    pub is_hard: bool,
    /// The pods that count.
    pub selector: LabelSelector,
    /// With fewer domains than this the emptiest counts as empty.
    pub min_domains: i32,
    /// Only nodes that the pod's node affinity admits count.
    pub honors_affinity: bool,
    /// Only nodes whose taints the pod tolerates count.
    pub honors_taints: bool,
}

impl Spread {
    fn read(source: &core::TopologySpreadConstraint, labels: Option<&Labels>) -> Self {
        let keys = source.match_label_keys.as_deref();
        let more = affinity::key_requirements(keys, labels, Operator::In);
        Self {
            max_skew: source.max_skew,
            topology_key: source.topology_key.clone(),
            is_hard: source.when_unsatisfiable == "DoNotSchedule",
            selector: narrowed(&selector(source.label_selector.as_ref()), more),
            min_domains: source.min_domains.unwrap_or(1),
            honors_affinity: source.node_affinity_policy.as_deref() != Some("Ignore"),
            honors_taints: source.node_taints_policy.as_deref() == Some("Honor"),
        }
    }
}

/// What a pod asks of the node itself.
#[derive(Clone, Debug, Default)]
pub struct NodeAffinity {
    /// Labels that the node has to have.
    pub labels: Vec<(String, String)>,
    /// Terms of which the node has to meet one.
    pub required: Option<NodeSelector>,
    /// Terms that are liked, by weight.
    pub preferred: Vec<(i32, NodeTerm)>,
}

impl NodeAffinity {
    pub(crate) fn read(spec: &core::PodSpec) -> Self {
        let affinity = spec.affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref());
        let required = affinity.and_then(|found| found.required_during_scheduling_ignored_during_execution.as_ref());
        let preferred = affinity.and_then(|found| found.preferred_during_scheduling_ignored_during_execution.as_ref());
        let weighted = |term: &core::PreferredSchedulingTerm| Some((term.weight, NodeTerm::read(&term.preference)?));
        Self {
            labels: spec.node_selector.clone().unwrap_or_default().into_iter().collect(),
            required: required.map(NodeSelector::read),
            preferred: preferred.into_iter().flatten().filter(|term| term.weight != 0).filter_map(weighted).collect(),
        }
    }

    /// Whether it asks for anything.
    pub fn is_required(&self) -> bool {
        !self.labels.is_empty() || self.required.is_some()
    }

    /// Whether a node is admitted.
    pub fn admits(&self, name: &str, labels: Option<&Labels>) -> bool {
        let has = |key: &String, value: &String| labels.and_then(|labels| labels.get(key)) == Some(value);
        self.labels.iter().all(|(key, value)| has(key, value))
            && self.required.as_ref().is_none_or(|selector| selector.matches(name, labels))
    }
}

/// A claim that a pod mounts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimRef {
    /// The claim's name, in the pod's namespace.
    pub name: String,
    /// It is made for this pod and goes with it.
    pub is_ephemeral: bool,
}

/// A disk that can't be mounted by everybody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disk {
    /// What it is and where.
    id: String,
    /// Conflicts only if one of the two writes.
    read_only: bool,
}

impl Disk {
    /// Whether both can't be on one node.
    pub fn conflicts(&self, other: &Self) -> bool {
        self.id == other.id && !(self.read_only && other.read_only)
    }
}

/// A pod as the scheduler sees it. Never changes; an updated pod is another one.
#[derive(Clone, Debug)]
pub struct PodInfo {
    /// The object.
    pub pod: Arc<Pod>,
    /// Its key.
    pub key: Key,
    /// Its uid.
    pub uid: String,
    /// Its priority.
    pub priority: i32,
    /// What it asks for.
    pub requests: Resources,
    /// CPU in thousandths, with a default, for scores.
    pub cpu_nonzero: i64,
    /// Memory in bytes, with a default, for scores.
    pub memory_nonzero: i64,
    /// Ports of the host that it takes.
    pub ports: Vec<HostPort>,
    /// What it asks of the node.
    pub node: NodeAffinity,
    /// What it asks of other pods.
    pub affinity: Affinity,
    /// How it is to be spread.
    pub spread: Vec<Spread>,
    /// The images of all its containers.
    pub images: Vec<String>,
    /// The claims that it mounts.
    pub claims: Vec<ClaimRef>,
    /// Disks that it mounts without a claim.
    pub disks: Vec<Disk>,
}

impl PodInfo {
    /// Reads a pod.
    pub fn new(pod: Arc<Pod>) -> Self {
        let key = Key::of(&pod);
        let empty = core::PodSpec::default();
        let spec = pod.spec.as_ref().unwrap_or(&empty);
        let labels = pod.metadata.labels.as_ref();
        let nonzero = resources::pod_requests_nonzero(&pod);
        let containers = spec.init_containers.iter().flatten().chain(&spec.containers);
        let spread = spec.topology_spread_constraints.iter().flatten();
        Self {
            uid: pod.metadata.uid.clone().unwrap_or_default(),
            priority: spec.priority.unwrap_or(0),
            requests: pod_requests(&pod),
            cpu_nonzero: nonzero.cpu,
            memory_nonzero: nonzero.memory,
            ports: ports(spec),
            node: NodeAffinity::read(spec),
            affinity: Affinity::read(spec.affinity.as_ref(), &key.namespace, labels),
            spread: spread.map(|constraint| Spread::read(constraint, labels)).collect(),
            images: containers.map(|container| image_name(container.image.as_deref().unwrap_or_default())).collect(),
            claims: claims(spec, &key.name),
            disks: spec.volumes.iter().flatten().filter_map(disk).collect(),
            key,
            pod,
        }
    }

    /// Its labels.
    pub fn labels(&self) -> Option<&Labels> {
        self.pod.metadata.labels.as_ref()
    }

    /// Its specification.
    pub fn spec(&self) -> Option<&core::PodSpec> {
        self.pod.spec.as_ref()
    }

    /// Its tolerations.
    pub fn tolerations(&self) -> &[core::Toleration] {
        self.spec().and_then(|spec| spec.tolerations.as_deref()).unwrap_or_default()
    }

    /// Whether it is being deleted.
    pub fn is_terminating(&self) -> bool {
        self.pod.metadata.deletion_timestamp.is_some()
    }

    /// Which scheduler it is for.
    pub fn scheduler(&self) -> &str {
        let name = self.spec().and_then(|spec| spec.scheduler_name.as_deref());
        name.filter(|name| !name.is_empty()).unwrap_or(DEFAULT_SCHEDULER)
    }

    /// Whether it waits for somebody to open a gate.
    pub fn is_gated(&self) -> bool {
        self.spec().and_then(|spec| spec.scheduling_gates.as_ref()).is_some_and(|gates| !gates.is_empty())
    }

    /// The node that is being cleared for it.
    pub fn nominated_node(&self) -> Option<&str> {
        let name = self.pod.status.as_ref().and_then(|status| status.nominated_node_name.as_deref());
        name.filter(|name| !name.is_empty())
    }

    /// Where it is bound.
    pub fn node_name(&self) -> Option<&str> {
        self.spec().and_then(|spec| spec.node_name.as_deref()).filter(|name| !name.is_empty())
    }

    /// Whether it may make others go.
    pub fn may_preempt(&self) -> bool {
        self.spec().and_then(|spec| spec.preemption_policy.as_deref()) != Some("Never")
    }
}

/// Whether a pod has ended, so that it takes nothing any more.
pub fn is_terminal(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

fn ports(spec: &core::PodSpec) -> Vec<HostPort> {
    let sidecars = spec.init_containers.iter().flatten();
    let sidecars = sidecars.filter(|container| container.restart_policy.as_deref() == Some("Always"));
    let text = |part: &Option<String>, default: &str| {
        part.as_deref().filter(|part| !part.is_empty()).unwrap_or(default).to_owned()
    };
    let all = spec.containers.iter().chain(sidecars).flat_map(|container| container.ports.iter().flatten());
    let taken = all.filter_map(|port| {
        let number = port.host_port.filter(|number| *number > 0)?;
        let (ip, protocol) = (text(&port.host_ip, ANY_ADDRESS), text(&port.protocol, "TCP"));
        Some(HostPort { ip, protocol, port: number })
    });
    taken.collect()
}

fn claims(spec: &core::PodSpec, pod_name: &str) -> Vec<ClaimRef> {
    let claim = |volume: &core::Volume| match (&volume.persistent_volume_claim, &volume.ephemeral) {
        (Some(source), _) => Some(ClaimRef { name: source.claim_name.clone(), is_ephemeral: false }),
        (None, Some(_)) => Some(ClaimRef { name: format!("{pod_name}-{}", volume.name), is_ephemeral: true }),
        (None, None) => None,
    };
    spec.volumes.iter().flatten().filter_map(claim).collect()
}

fn disk(volume: &core::Volume) -> Option<Disk> {
    if let Some(disk) = &volume.gce_persistent_disk {
        return Some(Disk { id: format!("gce/{}", disk.pd_name), read_only: disk.read_only.unwrap_or(false) });
    }
    if let Some(disk) = &volume.aws_elastic_block_store {
        return Some(Disk { id: format!("aws/{}", disk.volume_id), read_only: false });
    }
    if let Some(disk) = &volume.iscsi {
        return Some(Disk { id: format!("iscsi/{}", disk.iqn), read_only: disk.read_only.unwrap_or(false) });
    }
    let disk = volume.rbd.as_ref()?;
    let pool = disk.pool.as_deref().unwrap_or("rbd");
    let id = format!("rbd/{}/{pool}/{}", disk.monitors.join(","), disk.image);
    Some(Disk { id, read_only: disk.read_only.unwrap_or(false) })
}

/// An image's name as nodes report it: with a tag.
pub(crate) fn image_name(name: &str) -> String {
    let tag = name.rfind(':').is_some_and(|colon| name.rfind('/').is_none_or(|slash| colon > slash));
    if tag { name.to_owned() } else { format!("{name}:latest") }
}
