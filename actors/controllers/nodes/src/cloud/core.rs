//! What a cloud would know of a node, read from what K3s's agents write into annotations: pure.

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Node, NodeAddress};

use crate::node::{Change, annotation, label, name, taints};

/// Keeps pods away until this manager has looked at the node.
pub(super) const UNINITIALIZED: &str = "node.cloudprovider.kubernetes.io/uninitialized";
/// What the agent knows.
const INTERNAL_IP: &str = "k3s.io/internal-ip";
const EXTERNAL_IP: &str = "k3s.io/external-ip";
const INTERNAL_DNS: &str = "k3s.io/internal-dns";
const EXTERNAL_DNS: &str = "k3s.io/external-dns";
const HOSTNAME: &str = "k3s.io/hostname";
/// What the kubelet was told to be reached at.
const PROVIDED_IP: &str = "alpha.kubernetes.io/provided-node-ip";
/// What kind of machine it is.
const TYPE: &str = "node.kubernetes.io/instance-type";
const TYPE_BEFORE: &str = "beta.kubernetes.io/instance-type";
const K3S: &str = "k3s";
/// Labels, and the newer ones that say the same.
const LABELS: [(&str, &str); 3] = [
    ("failure-domain.beta.kubernetes.io/zone", "topology.kubernetes.io/zone"),
    ("failure-domain.beta.kubernetes.io/region", "topology.kubernetes.io/region"),
    (TYPE_BEFORE, TYPE),
];

/// What is to be written.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Plan {
    /// Of the node itself.
    pub(super) change: Change,
    /// Its addresses.
    pub(super) addresses: Option<Vec<NodeAddress>>,
    /// It is looked at for the first time.
    pub(super) is_first: bool,
}

/// Decides. Nothing is to be done before the agent has written where it is.
pub(super) fn plan(node: &Node) -> Result<Plan, String> {
    let mut plan = Plan { is_first: is_uninitialized(node), ..Plan::default() };
    if annotation(node, INTERNAL_IP).is_empty() && label(node, INTERNAL_IP).is_empty() {
        plan.is_first = false;
        return Ok(plan);
    }
    let wanted = addresses(node)?;
    plan.addresses = Some(wanted).filter(|wanted| {
        let known = node.status.as_ref().and_then(|status| status.addresses.as_deref()).unwrap_or_default();
        !wanted.is_empty() && wanted != known
    });
    let pairs = LABELS.iter().map(|(from, to)| (*to, label(node, from).to_owned()));
    let mut labels: BTreeMap<&str, String> = pairs.filter(|(_, value)| !value.is_empty()).collect();
    if plan.is_first {
        labels.extend(first_labels(node));
        let id = node.spec.as_ref().and_then(|spec| spec.provider_id.as_deref()).unwrap_or_default();
        plan.change.provider_id = id.is_empty().then(|| format!("{K3S}://{}", name(node)));
        let kept = taints(node).iter().filter(|taint| taint.key != UNINITIALIZED);
        plan.change.taints = Some(kept.cloned().collect());
    }
    let missing = labels.into_iter().filter(|(name, value)| label(node, name) != *value);
    plan.change.labels = missing.map(|(name, value)| (name.to_owned(), value)).collect();
    Ok(plan)
}

fn is_uninitialized(node: &Node) -> bool {
    taints(node).iter().any(|taint| taint.key == UNINITIALIZED)
}

/// The labels that a node gets once. What it has stays.
fn first_labels(node: &Node) -> BTreeMap<&'static str, String> {
    let known = |name: &str| Some(label(node, name).to_owned()).filter(|value| !value.is_empty());
    let kind = known(TYPE).unwrap_or_else(|| K3S.to_owned());
    let mut labels = BTreeMap::from([(TYPE, kind.clone()), (TYPE_BEFORE, kind)]);
    for (before, now) in &LABELS[..2] {
        if let Some(value) = known(now).or_else(|| known(before)) {
            labels.insert(before, value.clone());
            labels.insert(now, value);
        }
    }
    labels
}

/// Where the node is reached.
fn addresses(node: &Node) -> Result<Vec<NodeAddress>, String> {
    let mut found = Vec::new();
    let mut add = |kind: &str, values: &str| {
        let values = values.split(',').map(str::trim).filter(|value| !value.is_empty());
        found.extend(values.map(|value| NodeAddress { type_: kind.to_owned(), address: value.to_owned() }));
    };
    let either = |key: &str| {
        let noted = annotation(node, key);
        if noted.is_empty() { label(node, key) } else { noted }
    };
    add("InternalIP", either(INTERNAL_IP));
    add("ExternalIP", either(EXTERNAL_IP));
    add("InternalDNS", annotation(node, INTERNAL_DNS));
    add("ExternalDNS", annotation(node, EXTERNAL_DNS));
    add("Hostname", either(HOSTNAME));
    if !found.iter().any(|address| address.type_ == "Hostname") {
        let known = node.status.iter().flat_map(|status| status.addresses.iter().flatten());
        found.extend(known.filter(|address| address.type_ == "Hostname").cloned());
    }
    prefer(found, annotation(node, PROVIDED_IP))
}

/// The addresses with those first that the kubelet was told, in place of others of their types.
fn prefer(found: Vec<NodeAddress>, provided: &str) -> Result<Vec<NodeAddress>, String> {
    let provided: Vec<IpAddr> = provided.split(',').filter_map(|ip| ip.trim().parse().ok()).collect();
    let provided: Vec<_> = provided.into_iter().filter(|ip| !ip.is_unspecified()).collect();
    if provided.is_empty() {
        return Ok(found);
    }
    let mut first = Vec::new();
    for ip in provided {
        let before = first.len();
        first.extend(found.iter().filter(|address| address.address.parse() == Ok(ip)).cloned());
        if first.len() == before {
            return Err(format!("failed to get node address from cloud provider that matches ip: {ip}"));
        }
    }
    let is_replaced = |address: &NodeAddress| first.iter().any(|first: &NodeAddress| first.type_ == address.type_);
    let others: Vec<_> = found.into_iter().filter(|address| !is_replaced(address)).collect();
    first.extend(others);
    Ok(first)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn node(annotations: Value, labels: Value, taints: Value) -> Node {
        serde_json::from_value(json!({"metadata": {"name": "n1", "annotations": annotations, "labels": labels},
            "spec": {"taints": taints}, "status": {"addresses": [{"type": "Hostname", "address": "kubelet-says"}]}}))
        .expect("a node")
    }

    fn short(plan: &Plan) -> Vec<String> {
        let addresses = plan.addresses.iter().flatten();
        addresses.map(|address| format!("{} {}", address.type_, address.address)).collect()
    }

    #[test]
    fn a_node_is_introduced_once_its_addresses_are_known() {
        let taint = json!([{"key": UNINITIALIZED, "value": "true", "effect": "NoSchedule"}, {"key": "mine", "effect": "NoSchedule"}]);
        let silent = plan(&node(json!({}), json!({}), taint.clone())).expect("a plan");
        assert_eq!(silent, Plan::default());

        let annotations = json!({INTERNAL_IP: "10.0.0.1,fd00::1", EXTERNAL_IP: "1.2.3.4", HOSTNAME: "host"});
        let labels = json!({"topology.kubernetes.io/zone": "z1"});
        let first = plan(&node(annotations, labels, taint)).expect("a plan");
        assert!(first.is_first);
        assert_eq!(short(&first), ["InternalIP 10.0.0.1", "InternalIP fd00::1", "ExternalIP 1.2.3.4", "Hostname host"]);
        assert_eq!(first.change.provider_id.as_deref(), Some("k3s://n1"));
        assert_eq!(
            first.change.taints.as_ref().map(|taints| taints.iter().map(|taint| &*taint.key).collect()),
            Some(vec!["mine"])
        );
        assert_eq!(
            json!(first.change.labels),
            json!({TYPE: "k3s", TYPE_BEFORE: "k3s", "failure-domain.beta.kubernetes.io/zone": "z1"})
        );
    }

    #[test]
    fn later_only_addresses_and_labels_follow() {
        let later =
            plan(&node(json!({}), json!({INTERNAL_IP: "10.0.0.1", TYPE_BEFORE: "big"}), json!([]))).expect("a plan");
        assert!(!later.is_first && later.change.provider_id.is_none() && later.change.taints.is_none());
        assert_eq!(short(&later), ["InternalIP 10.0.0.1", "Hostname kubelet-says"]);
        assert_eq!(json!(later.change.labels), json!({TYPE: "big"}));
        let known = json!({INTERNAL_IP: "10.0.0.1", HOSTNAME: "kubelet-says"});
        let mut settled = node(known, json!({}), json!([]));
        settled
            .status
            .as_mut()
            .expect("a status")
            .addresses
            .as_mut()
            .expect("addresses")
            .insert(0, NodeAddress { type_: "InternalIP".to_owned(), address: "10.0.0.1".to_owned() });
        assert_eq!(plan(&settled), Ok(Plan::default()), "nothing is written twice");
    }

    #[test]
    fn the_kubelets_own_address_comes_first() {
        let both = |provided: &str| {
            let annotations = json!({INTERNAL_IP: "10.0.0.1,10.0.0.2", EXTERNAL_IP: "1.2.3.4", PROVIDED_IP: provided});
            plan(&node(annotations, json!({}), json!([]))).map(|plan| short(&plan))
        };
        assert_eq!(
            both("10.0.0.2").expect("a plan"),
            ["InternalIP 10.0.0.2", "ExternalIP 1.2.3.4", "Hostname kubelet-says"]
        );
        assert!(both("10.9.9.9").is_err());
        assert_eq!(both("0.0.0.0").expect("a plan").len(), 4);
    }
}
