//! Which pods have to go so that a more important one finds a place: pure.

mod choice;
#[cfg(test)]
mod tests;
mod victims;

use std::collections::BTreeSet;
use std::sync::Arc;

use k3sd_objects::selector::LabelSelector;
use k3sd_runtime::Rng;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;

use self::choice::choose;
use self::victims::{Try, select};
use crate::config::Profile;
use crate::diagnosis::Diagnosis;
use crate::filter::Filters;
use crate::labels::selector;
use crate::pod::PodInfo;
use crate::snapshot::{NodeInfo, Slot, Snapshot};

/// Why a pod that is being deleted is.
pub const PREEMPTED_REASON: &str = "PreemptionByScheduler";

/// How many pods of a group may go at once.
#[derive(Clone, Debug)]
pub struct Budget {
    selector: LabelSelector,
    allowed: i32,
    /// Pods that go already and are counted.
    going: BTreeSet<String>,
}

impl Budget {
    /// Reads a budget.
    pub fn new(budget: &PodDisruptionBudget) -> Self {
        let status = budget.status.as_ref();
        let going = status.and_then(|status| status.disrupted_pods.as_ref());
        Self {
            selector: selector(budget.spec.as_ref().and_then(|spec| spec.selector.as_ref())),
            allowed: status.map_or(0, |status| status.disruptions_allowed),
            going: going.into_iter().flat_map(|pods| pods.keys().cloned()).collect(),
        }
    }
}

/// What making room would take on a node.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// The node.
    pub slot: Slot,
    /// The pods that have to go, the most important first.
    pub victims: Vec<Arc<PodInfo>>,
    /// How many of them their budgets don't allow to go.
    pub violations: usize,
}

/// What comes of trying.
#[derive(Clone, Debug)]
pub enum Preemption {
    /// These go, and the pod waits for their node.
    Room(Candidate),
    /// Nothing, because of this; `keeps_nomination` if the pod still waits for a node that is being cleared for it.
    Nothing {
        /// What is added to the message about the pod.
        message: String,
        /// Whether what was done for it before stays.
        keeps_nomination: bool,
    },
}

/// Looks for a node on which a pod could be if less important ones went. `diagnosis` is why it is on none now.
pub fn preempt(
    snapshot: &Snapshot,
    pod: &PodInfo,
    profile: &Profile,
    diagnosis: &Diagnosis,
    rng: &mut Rng,
) -> Preemption {
    let nothing =
        |why: &str, keeps_nomination| Preemption::Nothing { message: format!("preemption: {why}"), keeps_nomination };
    if !pod.may_preempt() {
        return nothing("not eligible due to preemptionPolicy=Never.", true);
    }
    if waits(snapshot, pod, diagnosis) {
        return nothing("not eligible due to a terminating pod on the nominated node.", true);
    }
    let mut failed = Diagnosis { nodes: diagnosis.nodes, ..Diagnosis::default() };
    failed.others.push("Preemption is not helpful for scheduling".into());
    let hopeful: Vec<Slot> =
        diagnosis.refusals.iter().filter(|(_, refusal)| refusal.is_resolvable).map(|(slot, _)| *slot).collect();
    if let Ok((filters, _)) = Filters::new(snapshot, pod, profile)
        && !hopeful.is_empty()
        && let Some(candidate) = choose(candidates(snapshot, &filters, pod, profile, &hopeful, rng, &mut failed))
    {
        return Preemption::Room(candidate);
    }
    nothing(&failed.message(), false)
}

/// Whether a node is being cleared for the pod right now.
fn waits(snapshot: &Snapshot, pod: &PodInfo, diagnosis: &Diagnosis) -> bool {
    let Some(name) = snapshot.nomination(&pod.uid).or_else(|| pod.nominated_node()) else { return false };
    let Some(slot) = snapshot.slot(name) else { return false };
    let refusal = diagnosis.refusals.iter().find(|(refused, _)| *refused == slot);
    if refusal.is_some_and(|(_, refusal)| !refusal.is_resolvable) {
        return false; // It would wait in vain.
    }
    snapshot.node(slot).pods.iter().any(|other| other.priority < pod.priority && is_preempted(other))
}

/// Whether a pod goes because a scheduler wants it to.
fn is_preempted(pod: &PodInfo) -> bool {
    let conditions = pod.pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    pod.is_terminating()
        && conditions.into_iter().flatten().any(|condition| {
            condition.type_ == "DisruptionTarget"
                && condition.status == "True"
                && condition.reason.as_deref() == Some(PREEMPTED_REASON)
        })
}

/// As many candidates as are worth comparing, beginning with any node.
fn candidates(
    snapshot: &Snapshot,
    filters: &Filters<'_>,
    pod: &PodInfo,
    profile: &Profile,
    hopeful: &[Slot],
    rng: &mut Rng,
    failed: &mut Diagnosis,
) -> Vec<Candidate> {
    let wanted = profile.preemption.candidates(hopeful.len());
    let start = usize::try_from(rng.below(hopeful.len() as u64)).unwrap_or(0);
    let (mut found, mut harmless) = (Vec::new(), 0);
    for slot in hopeful[start..].iter().chain(&hopeful[..start]) {
        let node: &NodeInfo = snapshot.node(*slot);
        match select(snapshot, filters, pod, node) {
            Try::Fits(candidate) => {
                harmless += usize::from(candidate.violations == 0);
                found.push(candidate);
            }
            Try::Fails(refusal) => failed.refused(*slot, refusal),
        }
        if harmless > 0 && found.len() >= wanted {
            break;
        }
    }
    found
}
