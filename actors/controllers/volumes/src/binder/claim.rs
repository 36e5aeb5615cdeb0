//! What is to be done about a claim: pure.

use std::sync::Arc;

use k3sd_client::informer::Snapshot;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;

use super::matching::{best, class_of_claim, leaves_class, mismatch, refers_to};
use super::{BIND_COMPLETED, BOUND_BY_CONTROLLER, SELECTED_NODE};
use crate::support::annotation;

/// The mark of a class that claims get which leave theirs to the cluster.
const DEFAULT_CLASS: &str = "storageclass.kubernetes.io/is-default-class";
const LATE: &str = "WaitForFirstConsumer";

/// What happened, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Said {
    pub(super) is_warning: bool,
    pub(super) reason: &'static str,
    pub(super) message: String,
}

fn normal(reason: &'static str, message: impl Into<String>) -> Said {
    Said { is_warning: false, reason, message: message.into() }
}

fn warning(reason: &'static str, message: impl Into<String>) -> Said {
    Said { is_warning: true, reason, message: message.into() }
}

/// See the module's page.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Step {
    /// It is as it should be, but for what binding repairs.
    Bind(Arc<PersistentVolume>),
    /// Nothing can be done until something changes.
    Wait(Option<Said>),
    /// Somebody outside makes a volume, who is told by annotations; the name of the provisioner.
    Provision(String),
    /// The cluster has a class by now for those who leave it to that.
    Assign(String),
    /// What it was bound to is gone.
    Lose(Said),
}

/// What a decision reads.
pub(super) struct World<'a> {
    pub(super) volumes: &'a Snapshot<PersistentVolume>,
    pub(super) classes: &'a Snapshot<StorageClass>,
    /// A pod that uses the claim and has no node yet, if there is one.
    pub(super) waiting_pod: Option<String>,
}

pub(super) fn decide(claim: &PersistentVolumeClaim, world: &World<'_>) -> Step {
    let named = claim.spec.as_ref().and_then(|spec| spec.volume_name.as_deref()).filter(|name| !name.is_empty());
    let is_complete = annotation(&claim.metadata, BIND_COMPLETED).is_some();
    match (is_complete, named) {
        (true, name) => bound(claim, name, world),
        (false, Some(name)) => of_name(claim, name, world),
        (false, None) => of_any(claim, world),
    }
}

/// It was bound once.
fn bound(claim: &PersistentVolumeClaim, name: Option<&str>, world: &World<'_>) -> Step {
    let Some(name) = name else {
        let message = "Bound claim has lost reference to PersistentVolume. Data on the volume is lost!";
        return Step::Lose(warning("ClaimLost", message));
    };
    let Some(volume) = world.volumes.get("", name) else {
        let message = "Bound claim has lost its PersistentVolume. Data on the volume is lost!";
        return Step::Lose(warning("ClaimLost", message));
    };
    let owner = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref());
    match owner {
        None => Step::Bind(volume.clone()),
        Some(owner) if owner.uid == claim.metadata.uid => Step::Bind(volume.clone()),
        Some(_) => Step::Lose(warning(
            "ClaimMisbound",
            "Two claims are bound to the same volume, this one is bound incorrectly",
        )),
    }
}

/// It names the volume that it wants.
fn of_name(claim: &PersistentVolumeClaim, name: &str, world: &World<'_>) -> Step {
    let Some(volume) = world.volumes.get("", name) else { return Step::Wait(None) };
    if volume.spec.as_ref().is_none_or(|spec| spec.claim_ref.is_none()) {
        return match mismatch(claim, volume) {
            None => Step::Bind(volume.clone()),
            Some(why) => {
                let message = format!("Cannot bind to requested volume \"{name}\": {why}");
                Step::Wait(Some(warning("VolumeMismatch", message)))
            }
        };
    }
    if refers_to(volume, claim) {
        return Step::Bind(volume.clone());
    }
    let message = format!("volume \"{name}\" already bound to a different claim.");
    Step::Wait(Some(warning("FailedBinding", message)))
}

/// Any volume that fits will do, or one that is made for it.
fn of_any(claim: &PersistentVolumeClaim, world: &World<'_>) -> Step {
    let name = class_of_claim(claim);
    let class = world.classes.get("", name).filter(|_| !name.is_empty());
    let is_late = class.is_some_and(|class| class.volume_binding_mode.as_deref() == Some(LATE));
    let is_chosen = annotation(&claim.metadata, SELECTED_NODE).is_some();
    if let Some(volume) = best(claim, world.volumes.iter(), is_late) {
        return Step::Bind(volume.clone());
    }
    if leaves_class(claim)
        && let Some(class) = default_class(world.classes)
    {
        return Step::Assign(class);
    }
    if is_late && !is_chosen {
        return Step::Wait(Some(match &world.waiting_pod {
            Some(pod) => normal("WaitForPodScheduled", format!("waiting for pod {pod} to be scheduled")),
            None => normal(LATE, "waiting for first consumer to be created before binding"),
        }));
    }
    match class {
        Some(class) if class.provisioner.starts_with("kubernetes.io/") => {
            let message = format!("no volume plugin matched name: {}", class.provisioner);
            Step::Wait(Some(warning("ProvisioningFailed", message)))
        }
        Some(class) => Step::Provision(class.provisioner.clone()),
        None if !name.is_empty() => {
            let message = format!("storageclass.storage.k8s.io \"{name}\" not found");
            Step::Wait(Some(warning("ProvisioningFailed", message)))
        }
        None => {
            let message = "no persistent volumes available for this claim and no storage class is set";
            Step::Wait(Some(normal("FailedBinding", message)))
        }
    }
}

/// The newest of the classes that are marked; of several of one age the first by name, as the API server's admission.
fn default_class(classes: &Snapshot<StorageClass>) -> Option<String> {
    let marked = classes.iter().filter(|class| annotation(&class.metadata, DEFAULT_CLASS) == Some("true"));
    let made = |class: &StorageClass| class.metadata.creation_timestamp.as_ref().map(|time| time.0);
    let newest = marked.min_by_key(|class| (std::cmp::Reverse(made(class)), class.metadata.name.clone()));
    newest.and_then(|class| class.metadata.name.clone())
}

/// What the claim is to say once its volume is bound to it; `None` if it says so.
pub(super) fn with_volume(claim: &PersistentVolumeClaim, volume: &PersistentVolume) -> Option<PersistentVolumeClaim> {
    let name = volume.metadata.name.clone().unwrap_or_default();
    let mut wanted = claim.clone();
    let annotations = wanted.metadata.annotations.get_or_insert_default();
    let spec = wanted.spec.get_or_insert_default();
    if spec.volume_name.as_deref() != Some(&name) {
        spec.volume_name = Some(name);
        annotations.insert(BOUND_BY_CONTROLLER.to_owned(), "yes".to_owned());
    }
    annotations.entry(BIND_COMPLETED.to_owned()).or_insert_with(|| "yes".to_owned());
    let is_same = wanted.spec == claim.spec && Some(&*annotations) == claim.metadata.annotations.as_ref();
    (!is_same).then_some(wanted)
}

/// The claim with the status of one that is bound; `None` if it has that.
pub(super) fn as_bound(claim: &PersistentVolumeClaim, volume: &PersistentVolume) -> Option<PersistentVolumeClaim> {
    let mut wanted = claim.clone();
    let status = wanted.status.get_or_insert_default();
    let spec = volume.spec.as_ref();
    status.access_modes = spec.and_then(|spec| spec.access_modes.clone());
    // A volume that grew says so by way of whoever resizes the file system; the first capacity is the volume's own.
    if status.phase.as_deref() != Some("Bound") {
        status.capacity = spec.and_then(|spec| spec.capacity.clone());
        status.current_volume_attributes_class_name =
            spec.and_then(|spec| spec.volume_attributes_class_name.clone()).filter(|name| !name.is_empty());
    }
    status.phase = Some("Bound".to_owned());
    (claim.status.as_ref() != wanted.status.as_ref()).then_some(wanted)
}
