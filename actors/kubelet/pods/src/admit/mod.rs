//! Whether the node takes a pod that was bound to it.
//!
//! * [`room`] counts what is asked for and what is left; [`preempt`] says who has to make room for critical pods.
//! * [`sysctls`] knows which settings of the kernel a pod may change, [`apparmor`] whether its profiles are enforced.

pub mod apparmor;
pub mod preempt;
pub mod room;
pub mod sysctls;

use std::collections::BTreeMap;

use k3sd_objects::quantity::Quantity;
use k8s_openapi::api::core::v1::{Node, NodeSelectorRequirement, NodeSelectorTerm, Pod};

use self::room::Lack;
use crate::spec::{self, init_containers, is_critical, is_sidecar, is_static, main_containers};

/// Why a pod isn't taken: reason and message.
pub type Refusal = (String, String);

/// The reason for what can't be put into a category.
pub const UNEXPECTED: &str = "UnexpectedAdmissionError";

/// What admission looks at.
#[derive(Clone, Copy, Debug)]
pub struct Room<'a> {
    /// The pods that the node has taken and that haven't finished.
    pub others: &'a [&'a Pod],
    /// The node's object, if it is known.
    pub node: Option<&'a Node>,
    /// What pods may use altogether; what isn't in it is not counted.
    pub allocatable: &'a BTreeMap<String, Quantity>,
    /// Pods that the node takes.
    pub pods_max: usize,
    /// Sysctls beside the safe ones that pods may set; with `*` at their ends for any.
    pub unsafe_sysctls: &'a [String],
    /// Whether the kernel enforces profiles of AppArmor.
    pub has_apparmor: bool,
    /// Whether the machine is about to go down.
    pub is_ending: bool,
}

/// What becomes of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The node takes it.
    Admit,
    /// It doesn't.
    Refuse(Refusal),
    /// It does when these, by uid, are gone.
    Preempt(Vec<String>),
}

/// Decides. For a critical pod that only lacks resources others make room.
#[must_use]
pub fn decide(pod: &Pod, room: Room<'_>) -> Verdict {
    if let Err(refusal) = forbidden(pod, room) {
        return Verdict::Refuse(refusal);
    }
    let lacks = room::lacks(pod, room);
    let others = misfits(pod, room);
    match (lacks.first(), others.into_iter().next()) {
        (None, None) => Verdict::Admit,
        // Nobody has to go for a pod that doesn't come anyway.
        (Some(_), Some(other)) if is_critical(pod) => Verdict::Refuse(other),
        (Some(_), None) if is_critical(pod) => match preempt::victims(pod, room.others, &lacks) {
            Ok(victims) => Verdict::Preempt(victims.into_iter().map(|pod| spec::uid(pod).to_owned()).collect()),
            Err(error) => Verdict::Refuse((
                UNEXPECTED.to_owned(),
                format!("Unexpected error while attempting to recover from admission failure: {error}"),
            )),
        },
        (Some(lack), _) => Verdict::Refuse(lack.refusal()),
        (None, Some(other)) => Verdict::Refuse(other),
    }
}

/// Whether the node would take the pod without anybody making room for it.
///
/// # Errors
/// Why not.
pub fn admit(pod: &Pod, room: Room<'_>) -> Result<(), Refusal> {
    forbidden(pod, room)?;
    let lack = room::lacks(pod, room).first().map(Lack::refusal);
    lack.or_else(|| misfits(pod, room).into_iter().next()).map_or(Ok(()), Err)
}

fn refusal(reason: &str, message: impl Into<String>) -> Refusal {
    (reason.to_owned(), message.into())
}

/// What no change of the node's other pods would help against.
fn forbidden(pod: &Pod, room: Room<'_>) -> Result<(), Refusal> {
    if room.is_ending {
        return Err(refusal("NodeShutdown", "Pod was rejected as the node is shutting down."));
    }
    sysctls::check(pod, room.unsafe_sysctls)?;
    apparmor::check(pod, room.has_apparmor)?;
    let spec = spec::spec(pod);
    let label = pod.metadata.labels.as_ref().and_then(|labels| labels.get("kubernetes.io/os"));
    if label.is_some_and(|os| os != "linux") {
        let text = "Failed to admit pod as the `kubernetes.io/os` label doesn't match node label";
        return Err(refusal("PodOSSelectorNodeLabelDoesNotMatch", text));
    }
    if spec.os.as_ref().is_some_and(|os| os.name != "linux") {
        let text = "Failed to admit pod as the OS field doesn't match node OS";
        return Err(refusal("PodOSNotSupported", text));
    }
    let groups = spec.security_context.as_ref().and_then(|context| context.supplemental_groups_policy.as_deref());
    let features = room.node.and_then(|node| node.status.as_ref()?.features.as_ref());
    let has_groups = features.and_then(|features| features.supplemental_groups_policy).unwrap_or_default();
    if groups == Some("Strict") && room.node.is_some() && !has_groups {
        let text = "SupplementalGroupsPolicy=Strict is not supported in this node";
        return Err(refusal("SupplementalGroupsPolicyNotSupported", text));
    }
    Ok(())
}

/// What stands against the pod besides resources, the first to be told first. Static pods aren't asked for tolerations.
fn misfits(pod: &Pod, room: Room<'_>) -> Vec<Refusal> {
    let mut found = Vec::new();
    let mut failed = |name: &str, text: &str| found.push(refusal(name, format!("Predicate {name} failed: {text}")));
    if room.node.is_some_and(|node| !fits_labels(pod, node)) {
        failed("NodeAffinity", "node(s) didn't match Pod's node affinity/selector");
    }
    if !fits_ports(pod, room.others) {
        failed("NodePorts", "node(s) didn't have free ports for the requested pod ports");
    }
    if !is_static(pod) && room.node.is_some_and(|node| !tolerates(pod, node)) {
        failed("TaintToleration", "node(s) had taints that the pod didn't tolerate");
    }
    found
}

/// Host ports: address, protocol, number.
fn ports(pod: &Pod) -> Vec<(String, String, i32)> {
    let sidecars = init_containers(pod).iter().filter(|one| is_sidecar(one));
    let all = main_containers(pod).iter().chain(sidecars).flat_map(|one| one.ports.iter().flatten());
    all.filter_map(|port| {
        let number = port.host_port.filter(|number| *number > 0)?;
        let address = port.host_ip.clone().filter(|ip| !ip.is_empty()).unwrap_or_else(|| "0.0.0.0".to_owned());
        Some((address, port.protocol.clone().unwrap_or_else(|| "TCP".to_owned()), number))
    })
    .collect()
}

fn fits_ports(pod: &Pod, others: &[&Pod]) -> bool {
    let own = ports(pod);
    let any = |address: &str| address == "0.0.0.0";
    let meets = |one: &(String, String, i32), other: &(String, String, i32)| {
        one.1 == other.1 && one.2 == other.2 && (one.0 == other.0 || any(&one.0) || any(&other.0))
    };
    own.is_empty()
        || !others.iter().flat_map(|other| ports(other)).any(|other| own.iter().any(|one| meets(one, &other)))
}

fn fits_labels(pod: &Pod, node: &Node) -> bool {
    let spec = spec::spec(pod);
    let labels = node.metadata.labels.clone().unwrap_or_default();
    let selected = spec.node_selector.iter().flatten().all(|(key, value)| labels.get(key) == Some(value));
    let required = spec.affinity.as_ref().and_then(|affinity| {
        affinity.node_affinity.as_ref()?.required_during_scheduling_ignored_during_execution.as_ref()
    });
    let name = node.metadata.name.as_deref().unwrap_or_default();
    selected
        && required.is_none_or(|required| required.node_selector_terms.iter().any(|term| matches(term, name, &labels)))
}

fn matches(term: &NodeSelectorTerm, name: &str, labels: &BTreeMap<String, String>) -> bool {
    let expressions = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    if expressions.is_empty() && fields.is_empty() {
        return false;
    }
    expressions.iter().all(|one| holds(one, labels.get(&one.key).map(String::as_str)))
        && fields.iter().all(|one| holds(one, (one.key == "metadata.name").then_some(name)))
}

fn holds(requirement: &NodeSelectorRequirement, value: Option<&str>) -> bool {
    let values = requirement.values.as_deref().unwrap_or_default();
    let listed = value.is_some_and(|value| values.iter().any(|one| one == value));
    let compare = |than: fn(i64, i64) -> bool| {
        let (Some(value), [limit]) = (value.and_then(|value| value.parse().ok()), values) else { return false };
        limit.parse().is_ok_and(|limit| than(value, limit))
    };
    match requirement.operator.as_str() {
        "In" => listed,
        "NotIn" => !listed,
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => compare(|value, limit| value > limit),
        "Lt" => compare(|value, limit| value < limit),
        _ => false,
    }
}

fn tolerates(pod: &Pod, node: &Node) -> bool {
    let spec = spec::spec(pod);
    let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or_default();
    let tolerations = spec.tolerations.as_deref().unwrap_or_default();
    taints.iter().filter(|taint| taint.effect == "NoExecute").all(|taint| {
        tolerations.iter().any(|one| {
            let key = one.key.as_deref().filter(|key| !key.is_empty());
            let effect = one.effect.as_deref().filter(|effect| !effect.is_empty());
            effect.is_none_or(|effect| effect == taint.effect)
                && key.is_none_or(|key| key == taint.key)
                && match one.operator.as_deref() {
                    Some("Exists") => true,
                    _ => {
                        key.is_some()
                            && one.value.as_deref().unwrap_or_default() == taint.value.as_deref().unwrap_or_default()
                    }
                }
        })
    })
}

#[cfg(test)]
mod tests;
