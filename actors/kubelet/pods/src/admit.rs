//! Whether the node takes a pod that was bound to it.

use std::collections::BTreeMap;

use k3sd_kubelet_cgroups::pod_requests;
use k3sd_objects::quantity::Quantity;
use k8s_openapi::api::core::v1::{Node, NodeSelectorRequirement, NodeSelectorTerm, Pod};

use crate::spec::{self, init_containers, is_sidecar, main_containers};

/// Why a pod isn't taken: reason and message.
pub type Refusal = (String, String);

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
}

/// Decides. Static pods are not asked for tolerations.
///
/// # Errors
/// Why not.
pub fn admit(pod: &Pod, room: Room<'_>) -> Result<(), Refusal> {
    if let Some(node) = room.node {
        fits_labels(pod, node)?;
        tolerates(pod, node)?;
    }
    fits_ports(pod, room.others)?;
    fits_resources(pod, room)
}

fn refuse(reason: &str, message: impl Into<String>) -> Result<(), Refusal> {
    Err((reason.to_owned(), message.into()))
}

fn fits_resources(pod: &Pod, room: Room<'_>) -> Result<(), Refusal> {
    let lacks = |name: &str, requested: u64, used: u64, capacity: u64| {
        refuse(
            &format!("OutOf{name}"),
            format!(
                "Node didn't have enough resource: {name}, requested: {requested}, used: {used}, capacity: {capacity}"
            ),
        )
    };
    if room.others.len() >= room.pods_max {
        return lacks("pods", 1, room.others.len() as u64, room.pods_max as u64);
    }
    let own = pod_requests(pod);
    let (mut cpu, mut memory) = (0u64, 0u64);
    for other in room.others {
        let requests = pod_requests(other);
        (cpu, memory) = (cpu.saturating_add(requests.cpu_milli), memory.saturating_add(requests.memory));
    }
    let capacity = |name: &str| room.allocatable.get(name).copied();
    let number = |of: i64| u64::try_from(of).unwrap_or_default();
    if let Some(all) = capacity("cpu").map(|all| number(all.milli_value()))
        && own.cpu_milli > 0
        && own.cpu_milli.saturating_add(cpu) > all
    {
        return lacks("cpu", own.cpu_milli, cpu, all);
    }
    if let Some(all) = capacity("memory").map(|all| number(all.value()))
        && own.memory > 0
        && own.memory.saturating_add(memory) > all
    {
        return lacks("memory", own.memory, memory, all);
    }
    Ok(())
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

fn fits_ports(pod: &Pod, others: &[&Pod]) -> Result<(), Refusal> {
    let own = ports(pod);
    let any = |address: &str| address == "0.0.0.0";
    let meets = |one: &(String, String, i32), other: &(String, String, i32)| {
        one.1 == other.1 && one.2 == other.2 && (one.0 == other.0 || any(&one.0) || any(&other.0))
    };
    let taken = !own.is_empty()
        && others.iter().flat_map(|other| ports(other)).any(|other| own.iter().any(|one| meets(one, &other)));
    if taken {
        return refuse(
            "NodePorts",
            "Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports",
        );
    }
    Ok(())
}

fn fits_labels(pod: &Pod, node: &Node) -> Result<(), Refusal> {
    let spec = spec::spec(pod);
    let labels = node.metadata.labels.clone().unwrap_or_default();
    let os = labels.get("kubernetes.io/os").map_or("linux", String::as_str);
    if let Some(wanted) = spec.node_selector.as_ref().and_then(|all| all.get("kubernetes.io/os"))
        && wanted != os
    {
        return refuse(
            "PodOSSelectorNodeLabelDoesNotMatch",
            "Failed to admit pod as the `kubernetes.io/os` label doesn't match node label",
        );
    }
    if let Some(wanted) = &spec.os
        && wanted.name != "linux"
    {
        return refuse("PodOSNotSupported", "Failed to admit pod as the OS field doesn't match node OS");
    }
    let selected = spec.node_selector.iter().flatten().all(|(key, value)| labels.get(key) == Some(value));
    let required = spec.affinity.as_ref().and_then(|affinity| {
        affinity.node_affinity.as_ref()?.required_during_scheduling_ignored_during_execution.as_ref()
    });
    let name = node.metadata.name.as_deref().unwrap_or_default();
    let wanted =
        required.is_none_or(|required| required.node_selector_terms.iter().any(|term| matches(term, name, &labels)));
    if selected && wanted {
        return Ok(());
    }
    refuse("NodeAffinity", "Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector")
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

fn tolerates(pod: &Pod, node: &Node) -> Result<(), Refusal> {
    let spec = spec::spec(pod);
    let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or_default();
    let tolerations = spec.tolerations.as_deref().unwrap_or_default();
    for taint in taints.iter().filter(|taint| taint.effect == "NoExecute") {
        let tolerated = tolerations.iter().any(|one| {
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
        });
        if !tolerated {
            let value = taint.value.as_deref().unwrap_or_default();
            return refuse(
                "TaintToleration",
                format!("Predicate TaintToleration failed: node(s) had untolerated taint {{{}: {value}}}", taint.key),
            );
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::pod;

    fn of(spec: &str) -> Pod {
        pod(&format!("{{spec: {spec}}}"))
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let node: Node = serde_json::from_value(serde_json::json!({
            "metadata": {"name": "a", "labels": {"kubernetes.io/os": "linux", "disk": "ssd", "gen": "5"}},
            "spec": {"taints": [{"key": "k", "value": "v", "effect": "NoExecute"}]}
        }))
        .unwrap();
        let allocatable =
            [("cpu", "2"), ("memory", "1Gi")].map(|(key, value)| (key.to_owned(), value.parse().unwrap())).into();
        let other = of(
            "{containers: [{name: c, resources: {requests: {cpu: '1', memory: 512Mi}}, ports: [{containerPort: 1, hostPort: 80}]}]}",
        );
        let tolerant = "tolerations: [{key: k, operator: Exists}]";
        let affine = |operator: &str, key: &str, values: &str| {
            format!(
                "{{{tolerant}, affinity: {{nodeAffinity: {{requiredDuringSchedulingIgnoredDuringExecution: {{nodeSelectorTerms: [{{matchExpressions: [{{key: {key}, operator: {operator}, values: [{values}]}}]}}]}}}}}}, containers: []}}"
            )
        };
        for (spec, expected) in [
            (format!("{{{tolerant}, containers: [{{name: c}}]}}"), ""),
            ("{containers: [{name: c}]}".to_owned(), "TaintToleration"),
            ("{tolerations: [{key: k, value: v}], containers: []}".to_owned(), ""),
            ("{tolerations: [{key: k, value: w}], containers: []}".to_owned(), "TaintToleration"),
            ("{tolerations: [{operator: Exists, effect: NoSchedule}], containers: []}".to_owned(), "TaintToleration"),
            (format!("{{{tolerant}, containers: [{{name: c, resources: {{requests: {{cpu: '1'}}}}}}]}}"), ""),
            (format!("{{{tolerant}, containers: [{{name: c, resources: {{requests: {{cpu: 1001m}}}}}}]}}"), "OutOfcpu"),
            (
                format!("{{{tolerant}, containers: [{{name: c, resources: {{requests: {{memory: 513Mi}}}}}}]}}"),
                "OutOfmemory",
            ),
            (
                format!(
                    "{{{tolerant}, containers: [{{name: c, ports: [{{containerPort: 1, hostPort: 80, hostIP: 1.2.3.4}}]}}]}}"
                ),
                "NodePorts",
            ),
            (
                format!(
                    "{{{tolerant}, containers: [{{name: c, ports: [{{containerPort: 1, hostPort: 80, protocol: UDP}}]}}]}}"
                ),
                "",
            ),
            (format!("{{{tolerant}, nodeSelector: {{disk: ssd}}, containers: []}}"), ""),
            (format!("{{{tolerant}, nodeSelector: {{disk: hdd}}, containers: []}}"), "NodeAffinity"),
            (
                format!("{{{tolerant}, nodeSelector: {{kubernetes.io/os: windows}}, containers: []}}"),
                "PodOSSelectorNodeLabelDoesNotMatch",
            ),
            (format!("{{{tolerant}, os: {{name: windows}}, containers: []}}"), "PodOSNotSupported"),
            (affine("In", "disk", "ssd"), ""),
            (affine("NotIn", "disk", "ssd"), "NodeAffinity"),
            (affine("Gt", "gen", "'4'"), ""),
            (affine("Lt", "gen", "'5'"), "NodeAffinity"),
            (affine("DoesNotExist", "none", ""), ""),
        ] {
            let room = Room { others: &[&other], node: Some(&node), allocatable: &allocatable, pods_max: 5 };
            let found = admit(&of(&spec), room).err().map(|(reason, _)| reason).unwrap_or_default();
            assert_eq!(found, expected, "{spec}");
        }
        let room = Room { others: &[&other], node: None, allocatable: &allocatable, pods_max: 1 };
        let (reason, message) = admit(&of("{containers: []}"), room).unwrap_err();
        assert_eq!(reason, "OutOfpods");
        assert_eq!(message, "Node didn't have enough resource: pods, requested: 1, used: 1, capacity: 1");
    }
}
