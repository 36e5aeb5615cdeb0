//! The node on which making room does the least harm.

use std::cmp::Reverse;

use super::Candidate;
use super::victims::started;

/// The best candidate: fewest budgets violated, then the least important among the most important victims, the least
/// importance in sum, the fewest victims, those that started last, and at last the first found.
pub(super) fn choose(candidates: Vec<Candidate>) -> Option<Candidate> {
    candidates.into_iter().min_by_key(|candidate| {
        let highest = candidate.victims.first().map_or(i32::MIN, |pod| pod.priority);
        // Shifted, so that one more victim never lowers the sum.
        let shifted = |priority: i32| i64::from(priority) + i64::from(i32::MAX) + 1;
        let sum: i64 = candidate.victims.iter().map(|pod| shifted(pod.priority)).sum();
        let highest_pods = candidate.victims.iter().filter(|pod| pod.priority == highest);
        let earliest = highest_pods.map(|pod| started(pod)).min().unwrap_or(i64::MAX);
        (candidate.violations, highest, sum, candidate.victims.len(), Reverse(earliest))
    })
}
