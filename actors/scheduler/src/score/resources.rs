//! What the room on a node is worth.

use super::{SCORE_MAX, Subject};
use crate::config::{FitStrategy, ShapePoint};
use crate::pod::PodInfo;
use crate::snapshot::NodeInfo;

/// What a node has of a resource, and what is asked of it with the pod. CPU and memory count with defaults for those who
/// ask for none, if `nonzero`. `None` if the resource says nothing about the pod.
fn use_of(node: &NodeInfo, pod: &PodInfo, name: &str, nonzero: bool) -> Option<(i64, i64)> {
    let has = node.allocatable.get(name);
    let asked = match name {
        "cpu" if nonzero => node.cpu_nonzero + pod.cpu_nonzero,
        "memory" if nonzero => node.memory_nonzero + pod.memory_nonzero,
        "cpu" | "memory" | "ephemeral-storage" => node.requested.get(name) + pod.requests.get(name),
        // Whoever doesn't ask for such a thing isn't kept away from it, nor drawn to it.
        _ if pod.requests.get(name) == 0 => return None,
        _ => node.requested.get(name) + pod.requests.get(name),
    };
    (has > 0).then_some((asked, has))
}

/// `NodeResourcesFit`: by how full the node would be.
pub(super) fn fit(subject: Subject<'_>) -> Vec<i64> {
    let strategy = &subject.profile.fit;
    let score = |slot: &u32| {
        let node = subject.snapshot.node(*slot);
        let (mut sum, mut weights) = (0, 0);
        for (name, weight) in strategy.resources() {
            let nonzero = !matches!(strategy, FitStrategy::RequestedToCapacityRatio { .. });
            let Some((asked, has)) = use_of(node, subject.pod, name, nonzero) else { continue };
            let score = match strategy {
                FitStrategy::LeastAllocated { .. } if asked > has => 0,
                FitStrategy::LeastAllocated { .. } => (has - asked) * SCORE_MAX / has,
                FitStrategy::MostAllocated { .. } => asked.min(has) * SCORE_MAX / has,
                FitStrategy::RequestedToCapacityRatio { shape, .. } => {
                    let score = by_shape(shape, if asked > has { SCORE_MAX } else { asked * SCORE_MAX / has });
                    if score == 0 {
                        continue;
                    }
                    score
                }
            };
            sum += score * weight;
            weights += weight;
        }
        match strategy {
            _ if weights == 0 => 0,
            FitStrategy::RequestedToCapacityRatio { .. } => (sum as f64 / weights as f64).round() as i64,
            _ => sum / weights,
        }
    };
    subject.feasible.iter().map(score).collect()
}

/// The value at `utilization` of a line through points.
fn by_shape(shape: &[ShapePoint], utilization: i64) -> i64 {
    let Some(place) = shape.iter().position(|point| utilization <= point.utilization) else {
        return shape.last().map_or(0, |point| point.score);
    };
    let right = shape[place];
    let Some(left) = place.checked_sub(1).map(|left| shape[left]) else { return right.score };
    left.score + (right.score - left.score) * (utilization - left.utilization) / (right.utilization - left.utilization)
}

/// `NodeResourcesBalancedAllocation`: the more evenly the resources would be used, the better. It says nothing about pods
/// that ask for none of them.
pub(super) fn balanced(subject: Subject<'_>) -> Option<Vec<i64>> {
    let names = &subject.profile.balanced;
    if names.iter().all(|name| subject.pod.requests.get(name) == 0) {
        return None;
    }
    let score = |slot: &u32| {
        let node = subject.snapshot.node(*slot);
        let uses = names.iter().filter_map(|name| use_of(node, subject.pod, name, false));
        let fractions = uses.map(|(asked, has)| (asked as f64 / has as f64).min(1.0));
        ((1.0 - deviation(fractions)) * SCORE_MAX as f64) as i64
    };
    Some(subject.feasible.iter().map(score).collect())
}

/// The standard deviation.
fn deviation(values: impl Iterator<Item = f64> + Clone) -> f64 {
    let count = values.clone().count() as f64;
    if count < 2.0 {
        return 0.0;
    }
    let mean = values.clone().sum::<f64>() / count;
    (values.map(|value| (value - mean) * (value - mean)).sum::<f64>() / count).sqrt()
}
