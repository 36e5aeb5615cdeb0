//! How good each of the nodes is on which a pod can be: 0 to 100 from each part, weighed and added up.

mod affinity;
mod node;
mod resources;
mod spread;
#[cfg(test)]
mod tests;

use crate::config::Profile;
use crate::plugin::Plugin;
use crate::pod::PodInfo;
use crate::snapshot::{Slot, Snapshot};

/// The best that one part gives.
pub const SCORE_MAX: i64 = 100;

/// What the parts look at.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Subject<'a> {
    pub(crate) snapshot: &'a Snapshot,
    pub(crate) pod: &'a PodInfo,
    pub(crate) profile: &'a Profile,
    /// The nodes on which the pod can be.
    pub(crate) feasible: &'a [Slot],
}

/// The sum for each node, in the order of `feasible`.
pub fn total(snapshot: &Snapshot, pod: &PodInfo, profile: &Profile, feasible: &[Slot]) -> Vec<i64> {
    let subject = Subject { snapshot, pod, profile, feasible };
    let mut totals = vec![0; feasible.len()];
    for (plugin, weight) in &profile.scores {
        let Some(scores) = one(*plugin, subject) else { continue };
        for (total, score) in totals.iter_mut().zip(scores) {
            *total += weight * score;
        }
    }
    totals
}

/// What one part gives each node; `None` if it has nothing to say about the pod.
pub(crate) fn one(plugin: Plugin, subject: Subject<'_>) -> Option<Vec<i64>> {
    match plugin {
        Plugin::TaintToleration => Some(node::taints(subject)),
        Plugin::NodeAffinity => node::affinity(subject),
        Plugin::NodeResourcesFit => Some(resources::fit(subject)),
        Plugin::NodeResourcesBalancedAllocation => resources::balanced(subject),
        Plugin::PodTopologySpread => spread::spread(subject),
        Plugin::InterPodAffinity => affinity::affinity(subject),
        Plugin::ImageLocality => Some(node::images(subject)),
        _ => None,
    }
}

/// Stretches scores so that the highest is [`SCORE_MAX`]; `reversed`, the highest becomes 0 and 0 the best.
fn normalise(scores: &mut [i64], reversed: bool) {
    let highest = scores.iter().copied().max().unwrap_or(0);
    for score in scores {
        let part = if highest == 0 { 0 } else { *score * SCORE_MAX / highest };
        *score = if reversed { SCORE_MAX - part } else { part };
    }
}
