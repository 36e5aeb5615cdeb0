//! What becomes of an object: pure, from what the API says about it and about its owners.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::api::PropagationPolicy;

/// Keeps an object until its dependents are gone.
pub const FOREGROUND: &str = "foregroundDeletion";
/// Keeps an object until its dependents are let go.
pub const ORPHAN: &str = "orphan";

/// What an owner is to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tie {
    /// It is there: the object stays.
    Solid,
    /// It isn't there.
    Dangling,
    /// It waits for the object to be gone.
    Waiting,
}

/// What is to be done to an object.
#[derive(Clone, Debug, PartialEq)]
pub enum Act {
    /// Nothing.
    Keep,
    /// It loses these owners.
    Cut(Vec<OwnerReference>),
    /// It goes.
    Delete {
        /// What becomes of its dependents.
        policy: PropagationPolicy,
        /// Its owners don't wait for it any longer; so a circle comes to an end.
        unblock: bool,
    },
}

/// Whether a finalizer is set.
pub fn has_finalizer(meta: &ObjectMeta, finalizer: &str) -> bool {
    meta.finalizers.iter().flatten().any(|set| set == finalizer)
}

/// What to do with an object that isn't being deleted. `ties` are those of its owner references, in order.
pub fn judge(live: &ObjectMeta, ties: &[Tie], has_dependents: bool, is_in_circle: bool) -> Act {
    let references = live.owner_references.as_deref().unwrap_or_default();
    if references.is_empty() {
        return Act::Keep;
    }
    if ties.contains(&Tie::Solid) {
        let kept = references.iter().zip(ties).filter(|(_, tie)| **tie == Tie::Solid);
        let kept: Vec<OwnerReference> = kept.map(|(reference, _)| reference.clone()).collect();
        return if kept.len() == references.len() { Act::Keep } else { Act::Cut(kept) };
    }
    if ties.contains(&Tie::Waiting) && has_dependents {
        return Act::Delete { policy: PropagationPolicy::Foreground, unblock: is_in_circle };
    }
    // What somebody asked for when the object was deleted before, its finalizers tell.
    let policy = if has_finalizer(live, ORPHAN) {
        PropagationPolicy::Orphan
    } else if has_finalizer(live, FOREGROUND) {
        PropagationPolicy::Foreground
    } else {
        PropagationPolicy::Background
    };
    Act::Delete { policy, unblock: false }
}

/// What an owner is that the API says this about.
pub fn tie(owner: Option<&ObjectMeta>, uid: &str) -> Tie {
    match owner.filter(|owner| owner.uid.as_deref() == Some(uid)) {
        None => Tie::Dangling,
        Some(owner) if owner.deletion_timestamp.is_some() && has_finalizer(owner, FOREGROUND) => Tie::Waiting,
        Some(_) => Tie::Solid,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn live(owners: usize, finalizers: &[&str]) -> ObjectMeta {
        let reference = |number: usize| OwnerReference { uid: number.to_string(), ..OwnerReference::default() };
        ObjectMeta {
            owner_references: Some((0..owners).map(reference).collect()),
            finalizers: Some(finalizers.iter().map(|finalizer| (*finalizer).to_owned()).collect()),
            ..ObjectMeta::default()
        }
    }

    #[test]
    fn one_owner_is_enough_to_stay() {
        use Tie::{Dangling, Solid, Waiting};
        assert_eq!(judge(&live(0, &[]), &[], true, false), Act::Keep);
        assert_eq!(judge(&live(2, &[]), &[Solid, Solid], true, false), Act::Keep);
        let Act::Cut(kept) = judge(&live(3, &[]), &[Dangling, Solid, Waiting], true, true) else { panic!("cut") };
        assert_eq!(kept.iter().map(|kept| kept.uid.as_str()).collect::<Vec<_>>(), ["1"]);
    }

    #[test]
    fn without_an_owner_it_goes_as_its_owner_or_its_finalizers_say() {
        use PropagationPolicy::{Background, Foreground, Orphan};
        use Tie::{Dangling, Waiting};
        for (ties, finalizers, has_dependents, circle, policy, unblock) in [
            (&[Dangling][..], &[][..], true, false, Background, false),
            (&[Dangling], &[ORPHAN], true, false, Orphan, false),
            (&[Dangling], &[FOREGROUND], true, false, Foreground, false),
            (&[Waiting], &[], false, false, Background, false),
            (&[Waiting, Dangling], &[ORPHAN], true, false, Foreground, false),
            (&[Waiting], &[], true, true, Foreground, true),
        ] {
            let found = judge(&live(ties.len(), finalizers), ties, has_dependents, circle);
            assert_eq!(found, Act::Delete { policy, unblock }, "{ties:?} {finalizers:?}");
        }
    }

    #[test]
    fn another_object_of_the_name_is_no_owner() {
        let mut owner = ObjectMeta { uid: Some("a".to_owned()), ..ObjectMeta::default() };
        assert_eq!(
            (tie(None, "a"), tie(Some(&owner), "b"), tie(Some(&owner), "a")),
            (Tie::Dangling, Tie::Dangling, Tie::Solid)
        );
        owner.finalizers = Some(vec![FOREGROUND.to_owned()]);
        assert_eq!(tie(Some(&owner), "a"), Tie::Solid, "nobody asked for its deletion");
        owner.deletion_timestamp =
            Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(k8s_openapi::jiff::Timestamp::UNIX_EPOCH));
        assert_eq!(tie(Some(&owner), "a"), Tie::Waiting);
    }
}
