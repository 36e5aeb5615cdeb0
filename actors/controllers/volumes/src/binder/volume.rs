//! What is to be done about a volume: pure.

use k8s_openapi::api::core::v1::{ObjectReference, PersistentVolume, PersistentVolumeClaim};

use super::recycle::is_recyclable;
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
    /// A directory of this very host is removed, and the volume.
    Remove { path: String },
    /// A pod empties it.
    Scrub,
}

impl Reclaim {
    /// Whether there is more to be done than to say so, which may have been interrupted.
    pub(super) fn is_work(&self) -> bool {
        matches!(self, Self::Remove { .. } | Self::Scrub)
    }
}

/// Whether a directory is one that is removed with its volume: somewhere below the one for what nobody keeps. Upstream
/// lets more pass, such as `/srv/tmp/x`; what lies there may be dear to somebody.
fn is_temporary(path: &str) -> bool {
    let mut parts = path.split('/').filter(|part| !part.is_empty());
    path.starts_with('/')
        && parts.next() == Some("tmp")
        && parts.clone().next().is_some()
        && parts.all(|part| part != "..")
}

pub(super) fn reclaim(volume: &PersistentVolume) -> Reclaim {
    let name = volume.metadata.name.as_deref().unwrap_or_default();
    let is_outside = annotation(&volume.metadata, PROVISIONED_BY).is_some_and(|by| !by.starts_with("kubernetes.io/"))
        || volume.spec.as_ref().is_some_and(|spec| spec.csi.is_some());
    let path = volume.spec.as_ref().and_then(|spec| spec.host_path.as_ref()).map(|host| host.path.as_str());
    match policy(volume) {
        "Delete" if is_outside => Reclaim::Leave,
        "Delete" if path.is_some_and(is_temporary) => Reclaim::Remove { path: path.unwrap_or_default().to_owned() },
        "Delete" if path.is_some() => Reclaim::Fail {
            reason: "VolumeFailedDelete",
            message: format!(
                "host_path deleter only supports /tmp/.+ but received provided {}",
                path.unwrap_or_default()
            ),
        },
        "Delete" => Reclaim::Fail {
            reason: "VolumeFailedDelete",
            message: format!(
                "error getting deleter volume plugin for volume \"{name}\": no deletable volume plugin matched"
            ),
        },
        "Recycle" if is_recyclable(volume) => Reclaim::Scrub,
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

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn policies_and_kinds_say_what_becomes_of_a_volume() {
        let path = |path: &str| json!({"hostPath": {"path": path}});
        let refused = |path: &str| Reclaim::Fail {
            reason: "VolumeFailedDelete",
            message: format!("host_path deleter only supports /tmp/.+ but received provided {path}"),
        };
        let removed = |path: &str| Reclaim::Remove { path: path.to_owned() };
        let nobody = |reason, message: &str| Reclaim::Fail { reason, message: message.to_owned() };
        let local = || json!({"local": {"path": "/tmp/x"}});
        let no_deleter = "error getting deleter volume plugin for volume \"v\": no deletable volume plugin matched";
        let volume = |policy: &str, source: Value| -> PersistentVolume {
            let mut spec = source;
            spec["persistentVolumeReclaimPolicy"] = policy.into();
            serde_json::from_value(json!({"metadata": {"name": "v"}, "spec": spec})).expect("a volume")
        };
        for (policy, source, wanted) in [
            ("Retain", path("/tmp/x"), Reclaim::Leave),
            ("Delete", json!({"csi": {"driver": "d", "volumeHandle": "h"}}), Reclaim::Leave),
            ("Delete", path("/tmp/x"), removed("/tmp/x")),
            ("Delete", path("//tmp/x/y/"), removed("//tmp/x/y/")),
            ("Delete", path("/tmp"), refused("/tmp")),
            ("Delete", path("/tmp/"), refused("/tmp/")),
            ("Delete", path("/tmp/../etc"), refused("/tmp/../etc")),
            ("Delete", path("tmp/x"), refused("tmp/x")),
            ("Delete", path("/srv/tmp/x"), refused("/srv/tmp/x")),
            ("Delete", path("/srv/x"), refused("/srv/x")),
            ("Delete", local(), nobody("VolumeFailedDelete", no_deleter)),
            ("Recycle", path("/srv/x"), Reclaim::Scrub),
            ("Recycle", json!({"nfs": {"server": "s", "path": "/x"}}), Reclaim::Scrub),
            ("Recycle", local(), nobody("VolumeFailedRecycle", "No recycler plugin found for the volume!")),
        ] {
            assert_eq!(reclaim(&volume(policy, source.clone())), wanted, "{policy} {source}");
        }
    }
}
