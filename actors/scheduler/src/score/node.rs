//! What a node's taints, labels and images are worth.

use k8s_openapi::api::core::v1::Toleration;

use super::{SCORE_MAX, Subject, normalise};
use crate::labels::tolerates;

/// Bytes of an image below which having it is worth nothing, and above which more is worth no more; for each container.
const IMAGE_BYTES_MIN: i64 = 23 * 1024 * 1024;
const IMAGE_BYTES_MAX: i64 = 1000 * 1024 * 1024;

/// `TaintToleration`: the fewer taints that the pod would rather avoid, the better.
pub(super) fn taints(subject: Subject<'_>) -> Vec<i64> {
    let is_soft = |toleration: &&Toleration| {
        toleration.effect.as_deref().is_none_or(|effect| effect.is_empty() || effect == "PreferNoSchedule")
    };
    let tolerations: Vec<&Toleration> = subject.pod.tolerations().iter().filter(is_soft).collect();
    let disliked = |slot: &u32| {
        let taints = subject.snapshot.node(*slot).soft_taints.iter();
        let disliked = taints.filter(|taint| !tolerations.iter().any(|toleration| tolerates(toleration, taint)));
        i64::try_from(disliked.count()).unwrap_or(i64::MAX)
    };
    let mut scores: Vec<i64> = subject.feasible.iter().map(disliked).collect();
    normalise(&mut scores, true);
    scores
}

/// `NodeAffinity`: the weights of the terms that a node meets.
pub(super) fn affinity(subject: Subject<'_>) -> Option<Vec<i64>> {
    let added = subject.profile.added_affinity.iter().flat_map(|added| &added.preferred);
    let terms: Vec<_> = subject.pod.node.preferred.iter().chain(added).collect();
    if terms.is_empty() {
        return None;
    }
    let liked = |slot: &u32| {
        let node = subject.snapshot.node(*slot);
        let met = terms.iter().filter(|(_, term)| term.matches(&node.name, node.labels()));
        met.map(|(weight, _)| i64::from(*weight)).sum()
    };
    let mut scores: Vec<i64> = subject.feasible.iter().map(liked).collect();
    normalise(&mut scores, false);
    Some(scores)
}

/// `ImageLocality`: the bytes that needn't be fetched, for images that many nodes have anyway.
pub(super) fn images(subject: Subject<'_>) -> Vec<i64> {
    let nodes = subject.snapshot.len().max(1);
    let images: Vec<(&String, f64)> = subject
        .pod
        .images
        .iter()
        .map(|image| (image, f64::from(subject.snapshot.nodes_with_image(image)) / nodes as f64))
        .filter(|(_, spread)| *spread > 0.0)
        .collect();
    if images.is_empty() {
        return vec![0; subject.feasible.len()];
    }
    let containers = i64::try_from(subject.pod.images.len()).unwrap_or(1);
    let most = IMAGE_BYTES_MAX * containers;
    let score = |slot: &u32| {
        let there = &subject.snapshot.node(*slot).images;
        let bytes: i64 = images
            .iter()
            .filter_map(|(image, spread)| there.get(*image).map(|bytes| (*bytes as f64 * spread) as i64))
            .sum();
        SCORE_MAX * (bytes.clamp(IMAGE_BYTES_MIN, most) - IMAGE_BYTES_MIN) / (most - IMAGE_BYTES_MIN)
    };
    subject.feasible.iter().map(score).collect()
}
