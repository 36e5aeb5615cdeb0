//! What is to be done about a volume: pure.

use k8s_openapi::api::core::v1::{ObjectReference, PersistentVolume, PersistentVolumeClaim};

use super::{BOUND_BY_CONTROLLER, PROVISIONED_BY};
use crate::support::annotation;

/// See the module's page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// It is in this phase, with this message.
    Phase(&'static str, Option<String>),
    /// The claim has to be looked at: it may be this volume's.
    LookAtClaim(&'static str),
    /// Its claim has gone to another volume: it is free again, or reserved as a person had it.
    Unbind,
    /// Its claim is gone: it is let go of, and then what its policy says happens.
    Release,
}

/// How a volume is given back whose claim is gone.
fn policy(volume: &PersistentVolume) -> &str {
    let policy = volume.spec.as_ref().and_then(|spec| spec.persistent_volume_reclaim_policy.as_deref());
    policy.unwrap_or("Retain")
}

fn phase(volume: &PersistentVolume) -> &str {
    volume.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default()
}

/// The claim that the volume refers to, or would: the one of that name in its present life, unless that is another.
pub(super) fn decide(volume: &PersistentVolume, claim: Option<&PersistentVolumeClaim>) -> Step {
    let Some(reference) = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref()) else {
        return Step::Phase("Available", None);
    };
    let Some(uid) = reference.uid.as_ref().filter(|uid| !uid.is_empty()) else {
        // Reserved by a person. Its claim looks for it.
        return Step::LookAtClaim("Available");
    };
    let Some(claim) = claim.filter(|claim| claim.metadata.uid.as_ref() == Some(uid)) else { return Step::Release };
    let bound_to = claim.spec.as_ref().and_then(|spec| spec.volume_name.as_deref()).unwrap_or_default();
    if bound_to.is_empty() {
        // Half bound: whoever was about to bind the claim was interrupted.
        return Step::LookAtClaim("");
    }
    if Some(bound_to) == volume.metadata.name.as_deref() {
        return Step::Phase("Bound", None);
    }
    let is_made = annotation(&volume.metadata, PROVISIONED_BY).is_some() && policy(volume) == "Delete";
    if is_made { Step::Release } else { Step::Unbind }
}

/// What happens with a volume that was released, by its policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reclaim {
    /// A person, or whoever made it, sees to it.
    Leave,
    /// Nobody here can do that.
    Fail { reason: &'static str, message: String },
}

pub(super) fn reclaim(volume: &PersistentVolume) -> Reclaim {
    let name = volume.metadata.name.as_deref().unwrap_or_default();
    let is_outside = annotation(&volume.metadata, PROVISIONED_BY).is_some_and(|by| !by.starts_with("kubernetes.io/"))
        || volume.spec.as_ref().is_some_and(|spec| spec.csi.is_some());
    match policy(volume) {
        "Delete" if is_outside => Reclaim::Leave,
        "Delete" => Reclaim::Fail {
            reason: "VolumeFailedDelete",
            message: format!(
                "error getting deleter volume plugin for volume \"{name}\": no deletable volume plugin matched"
            ),
        },
        "Recycle" => Reclaim::Fail {
            reason: "VolumeFailedRecycle",
            message: "No recycler plugin found for the volume!".to_owned(),
        },
        _ => Reclaim::Leave,
    }
}

/// The volume, bound to the claim; `None` if it is.
pub(super) fn with_claim(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> Option<PersistentVolume> {
    let mut wanted = volume.clone();
    let spec = wanted.spec.get_or_insert_default();
    let is_reserved = spec.claim_ref.is_some();
    let reference = ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("PersistentVolumeClaim".to_owned()),
        namespace: claim.metadata.namespace.clone(),
        name: claim.metadata.name.clone(),
        uid: claim.metadata.uid.clone(),
        resource_version: claim.metadata.resource_version.clone(),
        ..ObjectReference::default()
    };
    if spec.claim_ref.as_ref().is_some_and(|old| old.uid == reference.uid && old.name == reference.name) {
        return None;
    }
    spec.claim_ref = Some(reference);
    if !is_reserved {
        let annotations = wanted.metadata.annotations.get_or_insert_default();
        annotations.insert(BOUND_BY_CONTROLLER.to_owned(), "yes".to_owned());
    }
    Some(wanted)
}

/// The volume without its claim; what a person reserved stays reserved.
pub(super) fn without_claim(volume: &PersistentVolume) -> PersistentVolume {
    let mut wanted = volume.clone();
    let is_ours = annotation(&volume.metadata, BOUND_BY_CONTROLLER).is_some();
    if let Some(spec) = &mut wanted.spec {
        if is_ours {
            spec.claim_ref = None;
        } else if let Some(reference) = &mut spec.claim_ref {
            reference.uid = None;
        }
    }
    if let Some(annotations) = &mut wanted.metadata.annotations {
        annotations.remove(BOUND_BY_CONTROLLER);
    }
    wanted
}

/// The volume in a phase; `None` if it is in that.
pub(super) fn in_phase(volume: &PersistentVolume, wanted: &str, message: Option<&str>) -> Option<PersistentVolume> {
    let has = volume.status.as_ref().and_then(|status| status.message.as_deref());
    if phase(volume) == wanted && has.unwrap_or_default() == message.unwrap_or_default() {
        return None;
    }
    let mut changed = volume.clone();
    let status = changed.status.get_or_insert_default();
    status.phase = Some(wanted.to_owned());
    status.message = message.map(str::to_owned);
    Some(changed)
}

/// Whether the volume was let go of already.
pub(super) fn is_let_go(volume: &PersistentVolume) -> bool {
    matches!(phase(volume), "Released" | "Failed")
}
