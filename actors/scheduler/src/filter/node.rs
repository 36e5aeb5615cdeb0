//! What is asked of the node itself: its name, its taints, its labels, its ports and its room.

use std::borrow::Cow;

use k8s_openapi::api::core::v1::Taint;

use crate::labels::tolerates;
use crate::plugin::{Plugin, Reason, Refusal};
use crate::pod::{PodInfo, Resources};
use crate::snapshot::NodeInfo;

const UNSCHEDULABLE_TAINT: &str = "node.kubernetes.io/unschedulable";

/// Whether a pod puts up with all taints that would keep it away.
pub(crate) fn tolerates_all(pod: &PodInfo, node: &NodeInfo) -> bool {
    untolerated(pod, node).is_none()
}

/// The first taint that keeps a pod away.
pub(crate) fn untolerated<'n>(pod: &PodInfo, node: &'n NodeInfo) -> Option<&'n Taint> {
    let is_tolerated = |taint: &&Taint| pod.tolerations().iter().any(|toleration| tolerates(toleration, taint));
    node.hard_taints.iter().find(|taint| !is_tolerated(taint))
}

/// Whether a pod may be on a node that takes no new ones.
pub(crate) fn tolerates_cordon(pod: &PodInfo) -> bool {
    let taint =
        Taint { key: UNSCHEDULABLE_TAINT.to_owned(), effect: "NoSchedule".to_owned(), value: None, time_added: None };
    pod.tolerations().iter().any(|toleration| tolerates(toleration, &taint))
}

pub(super) fn cordon(pod: &PodInfo, node: &NodeInfo) -> Result<(), Refusal> {
    if node.is_cordoned && !tolerates_cordon(pod) {
        return Err(Refusal::for_good(Plugin::NodeUnschedulable, "node(s) were unschedulable"));
    }
    Ok(())
}

pub(super) fn name(pod: &PodInfo, node: &NodeInfo) -> Result<(), Refusal> {
    if pod.node_name().is_some_and(|name| name != &*node.name) {
        return Err(Refusal::for_good(Plugin::NodeName, "node(s) didn't match the requested node name"));
    }
    Ok(())
}

pub(super) fn taints(pod: &PodInfo, node: &NodeInfo) -> Result<(), Refusal> {
    let Some(taint) = untolerated(pod, node) else { return Ok(()) };
    let value = taint.value.as_deref().unwrap_or_default();
    let reason = format!("node(s) had untolerated taint {{{}: {value}}}", taint.key);
    Err(Refusal::for_good(Plugin::TaintToleration, reason))
}

pub(super) fn ports(pod: &PodInfo, node: &NodeInfo) -> Result<(), Refusal> {
    let is_taken = |wanted: &crate::pod::HostPort| node.ports.iter().any(|taken| taken.conflicts(wanted));
    if pod.ports.iter().any(is_taken) {
        let reason = "node(s) didn't have free ports for the requested pod ports";
        return Err(Refusal::for_now(Plugin::NodePorts, reason));
    }
    Ok(())
}

/// One resource of which a node has too little.
struct Lack {
    reason: Reason,
    /// Not even the empty node has enough.
    is_hopeless: bool,
}

pub(super) fn fit(pod: &PodInfo, node: &NodeInfo, is_ignored: impl Fn(&str) -> bool) -> Result<(), Refusal> {
    let lacks = lacks(&pod.requests, node, is_ignored);
    if lacks.is_empty() {
        return Ok(());
    }
    let is_resolvable = !lacks.iter().any(|lack| lack.is_hopeless);
    let reasons = lacks.into_iter().map(|lack| lack.reason).collect();
    Err(Refusal { plugin: Plugin::NodeResourcesFit, is_resolvable, reasons })
}

/// Whether a node would have enough if it were empty.
pub(crate) fn fits_empty(requests: &Resources, node: &NodeInfo) -> bool {
    let mut others = requests.others.iter();
    let has = &node.allocatable;
    requests.cpu <= has.cpu
        && requests.memory <= has.memory
        && requests.ephemeral <= has.ephemeral
        && others.all(|(name, amount)| *amount <= has.get(name))
}

fn lacks(wants: &Resources, node: &NodeInfo, is_ignored: impl Fn(&str) -> bool) -> Vec<Lack> {
    let mut lacks = Vec::new();
    let (has, used) = (&node.allocatable, &node.requested);
    if i64::try_from(node.pods.len()).unwrap_or(i64::MAX) >= has.pods {
        lacks.push(Lack { reason: Cow::Borrowed("Too many pods"), is_hopeless: false });
    }
    let rows = [
        (wants.cpu, has.cpu, used.cpu, "Insufficient cpu"),
        (wants.memory, has.memory, used.memory, "Insufficient memory"),
        (wants.ephemeral, has.ephemeral, used.ephemeral, "Insufficient ephemeral-storage"),
    ];
    for (wants, has, used, reason) in rows {
        if wants > 0 && wants > has - used {
            lacks.push(Lack { reason: Cow::Borrowed(reason), is_hopeless: wants > has });
        }
    }
    for (name, wants) in wants.others.iter().filter(|(name, wants)| *wants > 0 && !is_ignored(name)) {
        let (has, used) = (has.get(name), used.get(name));
        if *wants > has - used {
            lacks.push(Lack { reason: Cow::Owned(format!("Insufficient {name}")), is_hopeless: *wants > has });
        }
    }
    lacks
}
