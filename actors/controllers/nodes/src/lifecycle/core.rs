//! What a node's conditions, taints and labels should be: pure.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k3sd_client::controller::setup::NodesConfig;
use k3sd_runtime::Moment;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, NodeCondition, Taint};

use crate::node::{
    Change, NO_EXECUTE, NO_SCHEDULE, NOT_READY, UNREACHABLE, condition, has_taint, label, ready, seconds, taint, taints,
};

/// The conditions that a kubelet reports, and that nobody knows when it doesn't.
const REPORTED: [&str; 4] = ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"];
/// The key of a taint for a condition that has a status.
const OF_CONDITIONS: [(&str, &str, &str); 6] = [
    ("Ready", "False", NOT_READY),
    ("Ready", "Unknown", UNREACHABLE),
    ("MemoryPressure", "True", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "True", "node.kubernetes.io/disk-pressure"),
    ("NetworkUnavailable", "True", "node.kubernetes.io/network-unavailable"),
    ("PIDPressure", "True", "node.kubernetes.io/pid-pressure"),
];
/// The key of the taint of a node that was cordoned.
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";
/// Labels, and the older ones that say the same.
const LABELS: [(&str, &str); 2] =
    [("kubernetes.io/os", "beta.kubernetes.io/os"), ("kubernetes.io/arch", "beta.kubernetes.io/arch")];

/// What a node last let know, by its own clock: to notice that it is another, never to compare it with our time. Clocks of
/// machines differ.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Sign {
    uid: Option<String>,
    renewed: Option<Timestamp>,
    posted: Option<Timestamp>,
    has_status: bool,
}

impl Sign {
    /// What can be read now.
    pub(super) fn of(node: &Node, lease: Option<&Lease>) -> Self {
        let ready = condition(node, "Ready");
        Self {
            uid: node.metadata.uid.clone(),
            renewed: lease.and_then(|lease| Some(lease.spec.as_ref()?.renew_time.as_ref()?.0)),
            posted: ready.and_then(|ready| Some(ready.last_heartbeat_time.as_ref()?.0)),
            has_status: ready.is_some(),
        }
    }

    /// Whether it is news of a node that is known.
    fn is_newer(&self, known: &Self) -> bool {
        self.renewed > known.renewed || self.posted != known.posted || self.has_status != known.has_status
    }
}

/// A node's last sign of life, and when it counts as dead without another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Health {
    sign: Sign,
    /// Not later than this.
    pub(super) due: Moment,
}

impl Health {
    /// Takes in what can be read now; says whether the node is a new one.
    pub(super) fn observe(
        known: Option<&Self>,
        sign: Sign,
        created: Option<Timestamp>,
        (now, wall): (Moment, Timestamp),
        config: &NodesConfig,
    ) -> (Self, bool) {
        let grace = if sign.has_status { config.monitor_grace_period } else { config.startup_grace_period };
        match known.filter(|known| known.sign.uid == sign.uid) {
            Some(known) if !sign.is_newer(&known.sign) => (known.clone(), false),
            Some(_) => (Self { sign, due: now + grace }, false),
            None => {
                let is_silent = !sign.has_status && sign.renewed.is_none();
                let age = created.filter(|_| is_silent).map_or(SignedDuration::ZERO, |born| wall.duration_since(born));
                let age = Duration::try_from(age).unwrap_or_default();
                (Self { sign, due: now + grace.saturating_sub(age) }, true)
            }
        }
    }
}

/// The conditions of a node of which nothing was heard for long. `None` when they say so already.
pub(super) fn outdated(node: &Node, now: Timestamp) -> Option<Vec<NodeCondition>> {
    let known = node.status.as_ref().and_then(|status| status.conditions.clone()).unwrap_or_default();
    let mut conditions = known.clone();
    for kind in REPORTED {
        match conditions.iter_mut().find(|condition| condition.type_ == kind) {
            None => conditions.push(NodeCondition {
                type_: kind.to_owned(),
                status: "Unknown".to_owned(),
                reason: Some("NodeStatusNeverUpdated".to_owned()),
                message: Some("Kubelet never posted node status.".to_owned()),
                last_heartbeat_time: node.metadata.creation_timestamp.clone(),
                last_transition_time: Some(seconds(now)),
            }),
            Some(condition) if condition.status != "Unknown" => {
                condition.status = "Unknown".to_owned();
                condition.reason = Some("NodeStatusUnknown".to_owned());
                condition.message = Some("Kubelet stopped posting node status.".to_owned());
                condition.last_transition_time = Some(seconds(now));
            }
            Some(_) => {}
        }
    }
    (conditions != known).then_some(conditions)
}

/// What of taints and labels has to be another. Taints by which pods are evicted aren't added here: they come at a rate.
pub(super) fn change(node: &Node, now: Timestamp) -> Change {
    Change { taints: changed_taints(node, now), labels: missing_labels(node), provider_id: None }
}

fn changed_taints(node: &Node, now: Timestamp) -> Option<Vec<Taint>> {
    let is_so = |kind: &str, status: &str| condition(node, kind).is_some_and(|condition| condition.status == status);
    let of_conditions = OF_CONDITIONS.iter().filter(|(kind, status, _)| is_so(kind, status)).map(|(.., key)| *key);
    let is_cordoned = node.spec.as_ref().and_then(|spec| spec.unschedulable) == Some(true);
    let wanted: Vec<&str> = of_conditions.chain(is_cordoned.then_some(UNSCHEDULABLE)).collect();
    let is_ours = |key: &str| key == UNSCHEDULABLE || OF_CONDITIONS.iter().any(|(.., ours)| *ours == key);
    let mut all: Vec<Taint> = taints(node).to_vec();
    all.retain(|taint| taint.effect != NO_SCHEDULE || !is_ours(&taint.key) || wanted.contains(&&*taint.key));
    let missing = wanted.into_iter().filter(|key| !has_taint(node, key, NO_SCHEDULE));
    all.extend(missing.map(|key| taint(key, NO_SCHEDULE, now)));
    let is_evicting = |key| has_taint(node, key, NO_EXECUTE);
    match ready(node) {
        Some("True") => drop_evicting(&mut all),
        Some("False") if is_evicting(UNREACHABLE) => {
            drop_evicting(&mut all);
            all.push(taint(NOT_READY, NO_EXECUTE, now));
        }
        Some("Unknown") if is_evicting(NOT_READY) => {
            drop_evicting(&mut all);
            all.push(taint(UNREACHABLE, NO_EXECUTE, now));
        }
        _ => {}
    }
    (all != taints(node)).then_some(all)
}

fn drop_evicting(taints: &mut Vec<Taint>) {
    taints.retain(|taint| taint.effect != NO_EXECUTE || (taint.key != NOT_READY && taint.key != UNREACHABLE));
}

/// The taints with the one by which pods are evicted, or without any of that kind.
pub(super) fn evicting(node: &Node, evicts: bool, now: Timestamp) -> Option<Vec<Taint>> {
    let mut all = taints(node).to_vec();
    drop_evicting(&mut all);
    if evicts {
        let key = if ready(node) == Some("Unknown") { UNREACHABLE } else { NOT_READY };
        all.push(taint(key, NO_EXECUTE, now));
    }
    (all != taints(node)).then_some(all)
}

fn missing_labels(node: &Node) -> BTreeMap<String, String> {
    let wanted = LABELS.iter().map(|(from, to)| (*to, label(node, from)));
    let missing = wanted.filter(|(to, value)| !value.is_empty() && label(node, to) != *value);
    missing.map(|(to, value)| (to.to_owned(), value.to_owned())).collect()
}
