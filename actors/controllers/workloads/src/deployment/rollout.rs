//! How large each ReplicaSet of a Deployment should be: pure.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::sets::{DESIRED_REPLICAS, MAX_REPLICAS, number};
use crate::support::{name, scaled};

/// A ReplicaSet, shared with the copies that it comes from.
pub(super) type Set = Arc<ReplicaSet>;

/// A ReplicaSet's name and the size that it should have.
pub(super) type Size = (String, i32);

/// How many pods the Deployment wants.
pub(super) fn replicas(deployment: &Deployment) -> i32 {
    deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1).max(0)
}

/// How many pods a ReplicaSet should have.
pub(super) fn size(set: &ReplicaSet) -> i32 {
    set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1).max(0)
}

/// How many pods a ReplicaSet says it has, has ready, and has available.
pub(super) fn counts(set: &ReplicaSet) -> (i32, i32, i32) {
    let Some(status) = &set.status else { return (0, 0, 0) };
    (status.replicas, status.ready_replicas.unwrap_or(0), status.available_replicas.unwrap_or(0))
}

pub(super) fn created(set: &ReplicaSet) -> (Option<Timestamp>, &str) {
    (set.metadata.creation_timestamp.as_ref().map(|time| time.0), name(set))
}

/// Whether pods are replaced little by little, not all at once.
pub(super) fn is_rolling(deployment: &Deployment) -> bool {
    let strategy = deployment.spec.as_ref().and_then(|spec| spec.strategy.as_ref());
    strategy.and_then(|strategy| strategy.type_.as_deref()) != Some("Recreate")
}

/// How many pods there may be beyond those wanted, and how many of those wanted may be missing.
fn fenceposts(deployment: &Deployment) -> (i32, i32) {
    let strategy = deployment.spec.as_ref().and_then(|spec| spec.strategy.as_ref());
    let rolling = strategy.and_then(|strategy| strategy.rolling_update.as_ref());
    let part = |value: Option<&IntOrString>, round_up| {
        let quarter = IntOrString::String("25%".to_owned());
        scaled(value.unwrap_or(&quarter), replicas(deployment), round_up).unwrap_or(0).max(0)
    };
    let surge = part(rolling.and_then(|rolling| rolling.max_surge.as_ref()), true);
    let unavailable = part(rolling.and_then(|rolling| rolling.max_unavailable.as_ref()), false);
    // Nothing could ever be replaced. It isn't allowed to ask for that, but percentages may come to it.
    if surge == 0 && unavailable == 0 { (0, 1) } else { (surge, unavailable) }
}

/// How many pods there may be beyond those wanted.
pub(super) fn max_surge(deployment: &Deployment) -> i32 {
    if is_rolling(deployment) { fenceposts(deployment).0 } else { 0 }
}

/// How many of those wanted may be missing.
pub(super) fn max_unavailable(deployment: &Deployment) -> i32 {
    if !is_rolling(deployment) || replicas(deployment) == 0 {
        return 0;
    }
    fenceposts(deployment).1.min(replicas(deployment))
}

/// The sum of something over sets.
pub(super) fn sum<'a>(sets: impl IntoIterator<Item = &'a Set>, of: impl Fn(&ReplicaSet) -> i32) -> i32 {
    sets.into_iter().fold(0, |sum, set| sum.saturating_add(of(set)))
}

/// Those that should have pods.
pub(super) fn active<'a>(sets: impl IntoIterator<Item = &'a Set>) -> Vec<&'a Set> {
    sets.into_iter().filter(|set| size(set) > 0).collect()
}

/// The size of the new set, which is `new_size` now; `total` is that of all sets.
pub(super) fn new_size(deployment: &Deployment, total: i32, new_size: i32) -> i32 {
    let wanted = replicas(deployment);
    if !is_rolling(deployment) || new_size > wanted {
        return wanted;
    }
    let room = wanted.saturating_add(max_surge(deployment)) - total;
    if room <= 0 { new_size } else { new_size + room.min(wanted - new_size) }
}

/// The smaller sizes of old sets whose pods may go, because enough others are available: unhealthy pods first, then those
/// of the oldest sets.
pub(super) fn old_sizes(deployment: &Deployment, new: &ReplicaSet, old: &[Set]) -> Vec<Size> {
    let wanted = replicas(deployment);
    let min_available = wanted - max_unavailable(deployment);
    let mut old = active(old);
    old.sort_by_key(|set| created(set));
    let total = old.iter().fold(size(new), |total, set| total.saturating_add(size(set)));
    let new_unavailable = size(new) - counts(new).2;
    let may_go = total - min_available - new_unavailable;
    if old.is_empty() || may_go <= 0 {
        return Vec::new();
    }
    let mut sizes: Vec<i32> = old.iter().map(|set| size(set)).collect();
    let mut cleaned = 0;
    for (set, size) in old.iter().zip(&mut sizes) {
        let unhealthy = (*size - counts(set).2).max(0).min(may_go - cleaned);
        cleaned += unhealthy;
        *size -= unhealthy;
    }
    let available = old.iter().fold(counts(new).2, |sum, set| sum + counts(set).2);
    let mut surplus = (available - min_available).max(0);
    for size in &mut sizes {
        let going = surplus.min(*size);
        surplus -= going;
        *size -= going;
    }
    let changed = old.iter().zip(sizes).filter(|(set, wanted)| size(set) != *wanted);
    changed.map(|(set, wanted)| (name(&***set).to_owned(), wanted)).collect()
}

/// The one set that has pods, or else the newest there is.
pub(super) fn active_or_latest<'a>(new: Option<&'a Set>, old: &'a [Set]) -> Option<&'a Set> {
    let having = active(old.iter().chain(new));
    match having[..] {
        [] => new.or_else(|| old.iter().max_by_key(|set| created(set))),
        [only] => Some(only),
        _ => None,
    }
}

/// Whether the new set has all the pods that are wanted, and they are available.
pub(super) fn is_saturated(deployment: &Deployment, new: Option<&Set>) -> bool {
    let wanted = replicas(deployment);
    new.is_some_and(|new| {
        size(new) == wanted && number(new, DESIRED_REPLICAS) == Some(wanted) && counts(new).2 == wanted
    })
}

/// The sizes that all sets with pods should have, so that a change of the wanted number in the middle of a rollout hits
/// each by its share; what is left over from rounding goes to the largest.
pub(super) fn proportional(deployment: &Deployment, new: Option<&Set>, old: &[Set]) -> Vec<Size> {
    let mut sets = active(old.iter().chain(new));
    let total = sets.iter().fold(0_i32, |sum, set| sum.saturating_add(size(set)));
    let wanted = replicas(deployment);
    let allowed = if wanted > 0 { wanted.saturating_add(max_surge(deployment)) } else { 0 };
    let missing = allowed - total;
    sets.sort_by(|left, right| {
        let by_age = created(left).cmp(&created(right));
        let by_age = if missing > 0 { by_age.reverse() } else { by_age };
        size(right).cmp(&size(left)).then(by_age)
    });
    let mut added = 0;
    let mut sizes = Vec::with_capacity(sets.len());
    for set in &sets {
        let share = if missing == 0 { 0 } else { share(deployment, set, missing, added) };
        added += share;
        sizes.push(size(set) + share);
    }
    if let Some(largest) = sizes.first_mut() {
        *largest = (*largest + missing - added).max(0);
    }
    sets.iter().map(|set| name(&***set).to_owned()).zip(sizes).collect()
}

/// What a set gets of the pods that are missing, or gives of those that are too many.
fn share(deployment: &Deployment, set: &ReplicaSet, missing: i32, added: i32) -> i32 {
    let left = missing - added;
    if left == 0 {
        return 0;
    }
    let share = fraction(deployment, set);
    if missing > 0 { share.min(left) } else { share.max(left) }
}

/// By how much a set grows, if it keeps its part of the whole.
fn fraction(deployment: &Deployment, set: &ReplicaSet) -> i32 {
    let wanted = replicas(deployment);
    if wanted == 0 {
        return -size(set);
    }
    let max = wanted.saturating_add(max_surge(deployment));
    let shown = || deployment.status.as_ref().and_then(|status| status.replicas);
    let before = number(set, MAX_REPLICAS).filter(|max| *max != 0).or_else(shown).unwrap_or(0);
    if before == 0 {
        return 0;
    }
    let size = size(set);
    let exact = f64::from(size) * f64::from(max) / f64::from(before);
    #[expect(clippy::cast_possible_truncation, reason = "a float is cut off at the bounds of the integer")]
    let rounded = exact.round() as i32;
    rounded - size
}
