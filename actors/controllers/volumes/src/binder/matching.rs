//! Which volume a claim gets: pure.

use std::collections::BTreeSet;
use std::sync::Arc;

use k3sd_objects::selector::LabelSelector;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};

use crate::sizes::{capacity, wanted};

/// Where the class of objects stood before there was a field for it.
const OLD_CLASS: &str = "volume.beta.kubernetes.io/storage-class";
const FILESYSTEM: &str = "Filesystem";

/// The class of a claim; empty when it wants none or says nothing.
pub(super) fn class_of_claim(claim: &PersistentVolumeClaim) -> &str {
    let old = claim.metadata.annotations.as_ref().and_then(|all| all.get(OLD_CLASS));
    let new = claim.spec.as_ref().and_then(|spec| spec.storage_class_name.as_ref());
    old.or(new).map_or("", String::as_str)
}

/// Whether a claim leaves its class to the cluster.
pub(super) fn leaves_class(claim: &PersistentVolumeClaim) -> bool {
    let old = claim.metadata.annotations.as_ref().is_some_and(|all| all.contains_key(OLD_CLASS));
    !old && claim.spec.as_ref().is_none_or(|spec| spec.storage_class_name.is_none())
}

fn class_of_volume(volume: &PersistentVolume) -> &str {
    let old = volume.metadata.annotations.as_ref().and_then(|all| all.get(OLD_CLASS));
    let new = volume.spec.as_ref().and_then(|spec| spec.storage_class_name.as_ref());
    old.or(new).map_or("", String::as_str)
}

fn modes(modes: Option<&Vec<String>>) -> BTreeSet<&str> {
    modes.into_iter().flatten().map(String::as_str).collect()
}

fn modes_of_claim(claim: &PersistentVolumeClaim) -> BTreeSet<&str> {
    modes(claim.spec.as_ref().and_then(|spec| spec.access_modes.as_ref()))
}

fn modes_of_volume(volume: &PersistentVolume) -> BTreeSet<&str> {
    modes(volume.spec.as_ref().and_then(|spec| spec.access_modes.as_ref()))
}

fn has_same_mode(claim: &PersistentVolumeClaim, volume: &PersistentVolume) -> bool {
    let claim = claim.spec.as_ref().and_then(|spec| spec.volume_mode.as_deref()).unwrap_or(FILESYSTEM);
    claim == volume.spec.as_ref().and_then(|spec| spec.volume_mode.as_deref()).unwrap_or(FILESYSTEM)
}

fn has_same_attributes(claim: &PersistentVolumeClaim, volume: &PersistentVolume) -> bool {
    let claim = claim.spec.as_ref().and_then(|spec| spec.volume_attributes_class_name.as_deref());
    let volume = volume.spec.as_ref().and_then(|spec| spec.volume_attributes_class_name.as_deref());
    claim.unwrap_or_default() == volume.unwrap_or_default()
}

/// Whether the volume is reserved for the claim, or bound to it: its reference names it, and no other life of it.
pub(super) fn refers_to(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    let Some(reference) = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref()) else { return false };
    reference.name == claim.metadata.name
        && reference.namespace == claim.metadata.namespace
        && reference.uid.as_ref().is_none_or(|uid| uid.is_empty() || claim.metadata.uid.as_ref() == Some(uid))
}

/// Why a volume that the claim names doesn't do; nothing if it does.
pub(super) fn mismatch(claim: &PersistentVolumeClaim, volume: &PersistentVolume) -> Option<&'static str> {
    if wanted(claim) > capacity(volume) {
        return Some("requested PV is too small");
    }
    if class_of_claim(claim) != class_of_volume(volume) {
        return Some("storageClassName does not match");
    }
    if !has_same_attributes(claim, volume) {
        return Some("volumeAttributesClassName does not match");
    }
    if !has_same_mode(claim, volume) {
        return Some("incompatible volumeMode");
    }
    (!modes_of_claim(claim).is_subset(&modes_of_volume(volume))).then_some("incompatible accessMode")
}

/// The best volume for a claim: one that is reserved for it, else the one with the fewest access modes and then the
/// smallest that is free and fits. With `delayed` only a reserved one: the scheduler chooses among the others, since it
/// knows where the pod will be.
pub(super) fn best<'a>(
    claim: &PersistentVolumeClaim,
    volumes: impl Iterator<Item = &'a Arc<PersistentVolume>>,
    delayed: bool,
) -> Option<&'a Arc<PersistentVolume>> {
    let selector = claim.spec.as_ref().and_then(|spec| spec.selector.as_ref());
    let selector = selector.map(|selector| serde_json::to_value(selector).unwrap_or_default());
    // A selector without sense is refused when the claim is made; if one is there all the same, nothing fits it.
    let selector = match &selector {
        None => LabelSelector::everything(),
        Some(selector) => LabelSelector::from_object(Some(selector)).unwrap_or_else(|_| LabelSelector::nothing()),
    };
    let (wanted, modes) = (wanted(claim), modes_of_claim(claim));
    let fits = |volume: &&'a Arc<PersistentVolume>| {
        volume.metadata.deletion_timestamp.is_none()
            && has_same_mode(claim, volume)
            && modes.is_subset(&modes_of_volume(volume))
            && capacity(volume) >= wanted
    };
    let is_free = |volume: &&'a Arc<PersistentVolume>| {
        let phase = volume.status.as_ref().and_then(|status| status.phase.as_deref());
        let labels = volume.metadata.labels.as_ref();
        !delayed
            && volume.spec.as_ref().is_none_or(|spec| spec.claim_ref.is_none())
            && phase == Some("Available")
            && class_of_volume(volume) == class_of_claim(claim)
            && has_same_attributes(claim, volume)
            && selector.matches(|name| labels.and_then(|labels| labels.get(name)).map(String::as_str))
    };
    let all: Vec<&'a Arc<PersistentVolume>> = volumes.filter(fits).collect();
    let reserved = all.iter().find(|volume| refers_to(volume, claim)).copied();
    reserved.or_else(|| {
        let free = all.into_iter().filter(is_free);
        free.min_by_key(|volume| (modes_of_volume(volume).len(), capacity(volume)))
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn claim(spec: Value) -> PersistentVolumeClaim {
        let mut whole = json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "5Gi"}}});
        for (key, value) in spec.as_object().expect("an object") {
            whole[key] = value.clone();
        }
        let metadata = json!({"name": "c", "namespace": "a", "uid": "1"});
        serde_json::from_value(json!({"metadata": metadata, "spec": whole})).expect("a claim")
    }

    fn volume(name: &str, storage: &str, spec: Value) -> Arc<PersistentVolume> {
        let mut whole = json!({"accessModes": ["ReadWriteOnce"], "capacity": {"storage": storage}});
        for (key, value) in spec.as_object().expect("an object") {
            whole[key] = value.clone();
        }
        let metadata = json!({"name": name, "labels": {"tier": name}});
        let whole = json!({"metadata": metadata, "spec": whole, "status": {"phase": "Available"}});
        Arc::new(serde_json::from_value(whole).expect("a volume"))
    }

    #[test]
    fn the_smallest_volume_that_fits_is_taken_and_a_reserved_one_first() {
        let reserved = |uid: &str| json!({"claimRef": {"namespace": "a", "name": "c", "uid": uid}});
        let taken = json!({"claimRef": {"namespace": "a", "name": "other"}});
        for (what, wants, volumes, delayed, wanted) in [
            ("nothing is large enough", json!({}), vec![volume("s", "4Gi", json!({}))], false, None),
            (
                "the smallest",
                json!({}),
                vec![volume("l", "9Gi", json!({})), volume("m", "5Gi", json!({})), volume("s", "1Gi", json!({}))],
                false,
                Some("m"),
            ),
            (
                "fewer access modes come before a smaller size",
                json!({}),
                vec![
                    volume("both", "5Gi", json!({"accessModes": ["ReadWriteOnce", "ReadWriteMany"]})),
                    volume("one", "8Gi", json!({})),
                ],
                false,
                Some("one"),
            ),
            (
                "another access mode",
                json!({"accessModes": ["ReadWriteMany"]}),
                vec![volume("m", "5Gi", json!({}))],
                false,
                None,
            ),
            ("another class", json!({"storageClassName": "fast"}), vec![volume("m", "5Gi", json!({}))], false, None),
            (
                "the class",
                json!({"storageClassName": "fast"}),
                vec![volume("m", "5Gi", json!({})), volume("f", "9Gi", json!({"storageClassName": "fast"}))],
                false,
                Some("f"),
            ),
            (
                "the selector",
                json!({"selector": {"matchLabels": {"tier": "l"}}}),
                vec![volume("m", "5Gi", json!({})), volume("l", "9Gi", json!({}))],
                false,
                Some("l"),
            ),
            ("another volume mode", json!({}), vec![volume("b", "5Gi", json!({"volumeMode": "Block"}))], false, None),
            ("taken", json!({}), vec![volume("t", "5Gi", taken)], false, None),
            (
                "reserved, though larger",
                json!({}),
                vec![volume("m", "5Gi", json!({})), volume("r", "9Gi", reserved(""))],
                true,
                Some("r"),
            ),
            ("reserved for another life", json!({}), vec![volume("r", "9Gi", reserved("2"))], false, None),
            ("the scheduler chooses", json!({}), vec![volume("m", "5Gi", json!({}))], true, None),
        ] {
            let found = best(&claim(wants), volumes.iter(), delayed);
            assert_eq!(found.and_then(|found| found.metadata.name.as_deref()), wanted, "{what}");
        }
    }

    #[test]
    fn a_volume_that_is_named_has_to_do() {
        for (wants, holds, wanted) in [
            (json!({}), volume("v", "5Gi", json!({})), None),
            (json!({}), volume("v", "1Gi", json!({})), Some("requested PV is too small")),
            (json!({"storageClassName": "x"}), volume("v", "5Gi", json!({})), Some("storageClassName does not match")),
            (json!({"volumeMode": "Block"}), volume("v", "5Gi", json!({})), Some("incompatible volumeMode")),
            (json!({"accessModes": ["ReadOnlyMany"]}), volume("v", "5Gi", json!({})), Some("incompatible accessMode")),
        ] {
            assert_eq!(mismatch(&claim(wants.clone()), &holds), wanted, "{wants}");
        }
    }
}
