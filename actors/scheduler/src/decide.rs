//! One decision: a pod, a snapshot, a node. Pure.

use k3sd_runtime::Rng;

use crate::config::Profile;
use crate::diagnosis::Diagnosis;
use crate::filter::{self, Filters, Nodes};
use crate::plugin::Plugin;
use crate::pod::PodInfo;
use crate::score;
use crate::snapshot::{Slot, Snapshot};
use crate::volumes::VolumePlan;

/// With fewer nodes all of them are looked at.
const NODES_ALL: usize = 100;
/// The least percentage of nodes that is looked at by default.
const PERCENTAGE_MIN: usize = 5;
/// The percentage by default of a small cluster; it falls by one with each so many nodes.
const PERCENTAGE_MAX: usize = 50;
const NODES_PER_PERCENT: usize = 125;

/// What decisions have in common beside the snapshot.
#[derive(Debug)]
pub struct Turn {
    /// Breaks ties.
    pub rng: Rng,
    /// Where the next decision begins to look, so that each node gets its turn.
    pub next_node: usize,
}

impl Turn {
    /// Begins with the first node.
    pub fn new(rng: Rng) -> Self {
        Self { rng, next_node: 0 }
    }
}

/// What was decided.
#[derive(Clone, Debug, PartialEq)]
pub enum Decision {
    /// The pod goes there.
    Node {
        /// Where.
        slot: Slot,
        /// What becomes of its volumes.
        volumes: VolumePlan,
        /// On how many of those that were looked at it could have been.
        feasible: usize,
    },
    /// It goes nowhere for now.
    Nowhere(Box<Diagnosis>),
}

/// Makes the snapshot keep counted what a decision about this pod asks for, and brings it up to date. Decisions come out
/// the same without the first, only slower.
pub fn prepare(snapshot: &mut Snapshot, pod: &PodInfo, profile: &Profile) {
    snapshot.settle();
    let (keys, matches) = filter::asks(snapshot, pod, profile);
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    snapshot.keep(&keys, &matches);
}

/// Finds a node for a pod.
pub fn decide(snapshot: &Snapshot, pod: &PodInfo, profile: &Profile, turn: &mut Turn) -> Decision {
    let nowhere = |diagnosis| Decision::Nowhere(Box::new(diagnosis));
    if snapshot.is_empty() {
        return nowhere(Diagnosis::default());
    }
    let (filters, nodes) = match Filters::new(snapshot, pod, profile) {
        Ok(found) => found,
        Err(refusal) => return nowhere(Diagnosis::nowhere(snapshot.len(), refusal)),
    };
    if let Some(slot) = cleared_for(snapshot, pod, &nodes)
        && filters.check_beside_nominated(snapshot.node(slot)).is_ok()
    {
        return place(snapshot, &filters, slot, 1);
    }
    let mut diagnosis = Diagnosis { nodes: snapshot.len(), ..Diagnosis::default() };
    let feasible = feasible(snapshot, &filters, &nodes, profile, turn, &mut diagnosis);
    match feasible.as_slice() {
        [] => nowhere(diagnosis),
        [slot] => place(snapshot, &filters, *slot, 1),
        several => {
            let scores = score::total(snapshot, pod, profile, several);
            place(snapshot, &filters, best(several, &scores, &mut turn.rng), several.len())
        }
    }
}

/// The node that is being cleared for the pod, if it is one of those to look at.
fn cleared_for(snapshot: &Snapshot, pod: &PodInfo, nodes: &Nodes) -> Option<Slot> {
    let name = snapshot.nomination(&pod.uid).or_else(|| pod.nominated_node())?;
    let slot = snapshot.slot(name)?;
    match nodes {
        Nodes::Only(slots) if !slots.contains(&slot) => None,
        _ => Some(slot),
    }
}

fn place(snapshot: &Snapshot, filters: &Filters<'_>, slot: Slot, feasible: usize) -> Decision {
    // A node that passed has them; the plan is made again because keeping one for each node would cost more.
    let volumes = filters.volumes(snapshot.node(slot)).unwrap_or_default();
    Decision::Node { slot, volumes, feasible }
}

/// The nodes on which the pod can be, as many as are worth comparing.
fn feasible(
    snapshot: &Snapshot,
    filters: &Filters<'_>,
    nodes: &Nodes,
    profile: &Profile,
    turn: &mut Turn,
    diagnosis: &mut Diagnosis,
) -> Vec<Slot> {
    let listed = match nodes {
        Nodes::All => snapshot.order(),
        Nodes::Only(slots) => {
            let reason = format!("node(s) didn't satisfy plugin(s) [{}]", Plugin::NodeAffinity);
            diagnosis.others.push(reason.into());
            slots
        }
    };
    let wanted = nodes_wanted(listed.len(), profile.percentage_of_nodes_to_score);
    let mut found = Vec::with_capacity(wanted);
    if listed.is_empty() {
        diagnosis.plugins.insert(Plugin::NodeAffinity);
        return found;
    }
    let start = turn.next_node % listed.len();
    let mut looked_at = 0;
    for slot in listed[start..].iter().chain(&listed[..start]) {
        looked_at += 1;
        match filters.check_beside_nominated(snapshot.node(*slot)) {
            Ok(()) => found.push(*slot),
            Err(refusal) => diagnosis.refused(*slot, refusal),
        }
        if found.len() >= wanted {
            break;
        }
    }
    if matches!(nodes, Nodes::Only(_)) {
        diagnosis.plugins.insert(Plugin::NodeAffinity);
    }
    turn.next_node = (start + looked_at) % listed.len();
    found
}

/// How many nodes are worth comparing, of so many.
pub fn nodes_wanted(nodes: usize, percentage: Option<u8>) -> usize {
    if nodes < NODES_ALL {
        return nodes;
    }
    let percentage = match percentage.unwrap_or(0) {
        0 => PERCENTAGE_MAX.saturating_sub(nodes / NODES_PER_PERCENT).max(PERCENTAGE_MIN),
        set => usize::from(set),
    };
    (nodes * percentage / 100).clamp(NODES_ALL, nodes)
}

/// One of those with the highest score, each as likely as the others.
fn best(slots: &[Slot], scores: &[i64], rng: &mut Rng) -> Slot {
    let highest = scores.iter().copied().max().unwrap_or(0);
    let ties = || slots.iter().zip(scores).filter(|(_, score)| **score == highest).map(|(slot, _)| *slot);
    let count = ties().count();
    let pick = usize::try_from(rng.below(count as u64)).unwrap_or(0);
    ties().nth(pick).unwrap_or(slots[0])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_nodes_are_compared_as_upstream_says() {
        let rows = [
            (10, None, 10),
            (99, Some(10), 99),
            (100, None, 100),
            (1000, None, 420),
            (5000, None, 500),
            (6000, None, 300),
            (5000, Some(40), 2000),
            (5000, Some(100), 5000),
            (1000, Some(5), 100),
            (20_000, None, 1000),
        ];
        for (nodes, percentage, expected) in rows {
            assert_eq!(nodes_wanted(nodes, percentage), expected, "{nodes} {percentage:?}");
        }
    }
}
