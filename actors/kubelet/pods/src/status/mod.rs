//! A pod's status, from what the runtime has and what was in the way.
//!
//! * [`containers`] makes the status of each container, [`phase`] the pod's phase, [`conditions`] its conditions.
//! * [`message`] finds a container's last words.

pub mod conditions;
pub mod containers;
pub mod message;
pub mod phase;

use std::collections::BTreeMap;

use jiff::Timestamp;
use k3sd_kubelet_cgroups::qos_class;
use k8s_openapi::api::core::v1::{HostIP, Pod, PodIP, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::probes::Results;
use crate::resize::Progress;
use crate::runtime::Runtime;
use crate::spec::{self, is_final, is_host_network};

/// Why a container waits, as its status says: reason and message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hindrance {
    /// Such as `ErrImagePull`.
    pub reason: String,
    /// For people.
    pub message: String,
}

/// Why a pod was ended by its node: reason, message, and the condition that says so, if any.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ending {
    /// Such as `Evicted`.
    pub reason: String,
    /// For people.
    pub message: String,
    /// Whether the pod gets the condition `DisruptionTarget`.
    pub disruption: bool,
}

/// What a status is made from beside the pod.
#[derive(Debug)]
pub struct StatusFacts<'a> {
    /// What the runtime has.
    pub runtime: &'a Runtime,
    /// What probes say.
    pub results: &'a Results,
    /// Why containers wait, by name.
    pub hindrances: &'a BTreeMap<String, Hindrance>,
    /// Why the node ended the pod, if it did.
    pub ending: Option<&'a Ending>,
    /// How far a resize is.
    pub resize: &'a Progress,
    /// Whether nothing of the pod will run any more.
    pub terminal: bool,
    /// The node's addresses, the first one first.
    pub host_addresses: &'a [String],
    /// Now.
    pub now: Timestamp,
}

/// Makes the status. Phases that a pod stays in are stayed in, and what others wrote is kept.
#[must_use]
pub fn status(pod: &Pod, old: &PodStatus, facts: &StatusFacts<'_>) -> PodStatus {
    let mut made = PodStatus {
        qos_class: Some(qos_class(pod).word().to_owned()),
        observed_generation: pod.metadata.generation,
        start_time: old.start_time.clone().or(Some(Time(facts.now))),
        reason: old.reason.clone(),
        message: old.message.clone(),
        nominated_node_name: old.nominated_node_name.clone(),
        resize: old.resize.clone(),
        resource_claim_statuses: old.resource_claim_statuses.clone(),
        ..PodStatus::default()
    };
    containers::fill(pod, old, facts, &mut made);
    let before = old.phase.as_deref();
    let mut phase = phase::phase(pod, &made, facts.terminal);
    if is_final(before) {
        phase = before.unwrap_or_default();
    } else if let Some(ending) = facts.ending {
        phase = "Failed";
        made.reason = Some(ending.reason.clone());
        made.message = Some(ending.message.clone());
    } else {
        (made.reason, made.message) = (None, None);
    }
    made.phase = Some(phase.to_owned());
    addresses(pod, old, facts, &mut made);
    made.conditions = Some(conditions::conditions(pod, old, facts, &made));
    made
}

fn addresses(pod: &Pod, old: &PodStatus, facts: &StatusFacts<'_>, made: &mut PodStatus) {
    let hosts = facts.host_addresses;
    made.host_ip = hosts.first().cloned();
    made.host_ips = (!hosts.is_empty()).then(|| hosts.iter().map(|ip| HostIP { ip: ip.clone() }).collect());
    let newest = facts.runtime.sandboxes.first().map(|sandbox| sandbox.addresses.clone()).unwrap_or_default();
    let own = if is_host_network(pod) && !facts.runtime.sandboxes.is_empty() {
        hosts.to_vec()
    } else if newest.is_empty() && (facts.terminal || is_final(made.phase.as_deref())) {
        // The sandbox is gone; its address stays written down.
        old.pod_ips.iter().flatten().map(|one| one.ip.clone()).collect()
    } else {
        newest
    };
    made.pod_ip = own.first().cloned();
    made.pod_ips = (!own.is_empty()).then(|| own.into_iter().map(|ip| PodIP { ip }).collect());
}

/// The status of a pod that this node doesn't take.
#[must_use]
pub fn rejected(pod: &Pod, reason: &str, message: &str, now: Timestamp) -> PodStatus {
    let old = spec::status(pod).into_owned();
    PodStatus {
        phase: Some("Failed".to_owned()),
        reason: Some(reason.to_owned()),
        message: Some(format!("Pod was rejected: {message}")),
        qos_class: Some(qos_class(pod).word().to_owned()),
        observed_generation: pod.metadata.generation,
        start_time: old.start_time.clone().or(Some(Time(now))),
        ..old
    }
}

/// Whether a status says nothing that another doesn't. Times of conditions count only with what they are times of.
#[must_use]
pub fn same(one: &PodStatus, other: &PodStatus) -> bool {
    one == other
}

#[cfg(test)]
mod tests;
