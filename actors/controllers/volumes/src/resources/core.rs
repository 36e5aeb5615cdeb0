//! What is to be done about claims for devices: pure.

use k3sd_client::controller::owners::{controller_ref, is_controlled_by};
use k8s_openapi::api::core::v1::{Pod, PodResourceClaim, PodResourceClaimStatus};
use k8s_openapi::api::resource::v1::{ResourceClaim, ResourceClaimConsumerReference, ResourceClaimTemplate};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::support::{annotation, text, uid};

/// Generated claims say for which entry of the pod they were made.
pub(super) const FOR_ENTRY: &str = "resource.kubernetes.io/pod-claim-name";
/// Holds a claim as long as devices are allocated to it.
const FINALIZER: &str = "resource.kubernetes.io/delete-protection";
/// The longest beginning of a generated name: five letters are drawn, and a label has 63.
const BASE_MAX: usize = 57;

/// The entries of a pod that ask for devices.
pub(super) fn entries(pod: &Pod) -> &[PodResourceClaim] {
    pod.spec.as_ref().and_then(|spec| spec.resource_claims.as_deref()).unwrap_or_default()
}

/// Whether none of a pod's containers runs, nor ever will.
pub(super) fn is_done(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    let is_bound = pod.spec.as_ref().is_some_and(|spec| !text(spec.node_name.as_ref()).is_empty());
    matches!(phase, Some("Succeeded" | "Failed")) || pod.metadata.deletion_timestamp.is_some() && !is_bound
}

/// Which claim an entry of a pod stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Named<'a> {
    /// One that a person made.
    Given(&'a str),
    /// One that was made for the pod.
    Made(&'a str),
    /// None is needed; somebody said so.
    Needless,
    /// None was made yet.
    Missing,
}

pub(super) fn named<'a>(pod: &'a Pod, entry: &'a PodResourceClaim) -> Named<'a> {
    if let Some(name) = &entry.resource_claim_name {
        return Named::Given(name);
    }
    let statuses = pod.status.as_ref().and_then(|status| status.resource_claim_statuses.as_deref());
    let found = statuses.unwrap_or_default().iter().find(|status| status.name == entry.name);
    found.map_or(Named::Missing, |status| status.resource_claim_name.as_deref().map_or(Named::Needless, Named::Made))
}

/// The names of the claims that a pod refers to.
pub(super) fn claim_names(pod: &Pod) -> impl Iterator<Item = &str> {
    entries(pod).iter().filter_map(|entry| match named(pod, entry) {
        Named::Given(name) | Named::Made(name) => Some(name),
        Named::Needless | Named::Missing => None,
    })
}

/// Whether a claim was made for the pod, in the pod's present life.
///
/// # Errors
/// It wasn't; the words are upstream's.
pub(super) fn check_owner(pod: &Pod, claim: &ResourceClaim) -> Result<(), String> {
    let (pod, claim) = (&pod.metadata, &claim.metadata);
    if pod.namespace == claim.namespace && is_controlled_by(claim, uid(pod)) {
        return Ok(());
    }
    let (namespace, name) = (text(claim.namespace.as_ref()), text(claim.name.as_ref()));
    let owner = format!("{}/{}", text(pod.namespace.as_ref()), text(pod.name.as_ref()));
    Err(format!("ResourceClaim {namespace}/{name} was not created for pod {owner} (pod is not owner)"))
}

/// What an entry of a pod needs.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Need<'a> {
    /// It has its claim, or a person has to make it.
    Nothing,
    /// This claim was made, but the pod doesn't say so yet.
    Note(&'a str),
    /// One has to be made of this template.
    Make(&'a str),
}

/// `known` finds a claim of the pod's namespace; `made` are those that the pod controls.
pub(super) fn need<'a>(
    pod: &'a Pod,
    entry: &'a PodResourceClaim,
    known: impl Fn(&str) -> Option<&'a ResourceClaim>,
    mut made: impl Iterator<Item = &'a ResourceClaim>,
) -> Need<'a> {
    let Some(template) = &entry.resource_claim_template_name else { return Need::Nothing };
    match named(pod, entry) {
        Named::Given(_) | Named::Needless => return Need::Nothing,
        Named::Made(name) if known(name).is_some_and(|claim| check_owner(pod, claim).is_ok()) => return Need::Nothing,
        Named::Made(_) | Named::Missing => {}
    }
    // Whoever made it was interrupted before the pod said so.
    let found = made.find(|claim| {
        claim.metadata.deletion_timestamp.is_none()
            && annotation(&claim.metadata, FOR_ENTRY) == Some(&entry.name)
            && check_owner(pod, claim).is_ok()
    });
    found.map_or(Need::Make(template), |claim| Need::Note(text(claim.metadata.name.as_ref())))
}

/// The beginning of the name of a claim that is made for an entry; both parts are shortened when they are long.
fn base(pod: &str, entry: &str) -> String {
    let whole = format!("{pod}-{entry}-");
    if whole.len() <= BASE_MAX {
        return whole;
    }
    let pod = &pod[..pod.floor_char_boundary(pod.len() * BASE_MAX / whole.len())];
    let entry_bytes = entry.len() * BASE_MAX / whole.len();
    format!("{pod}-{}", &entry[..entry.floor_char_boundary(entry_bytes)])
}

/// The claim that is made for an entry of a pod.
pub(super) fn claim(pod: &Pod, entry: &str, template: &ResourceClaimTemplate) -> ResourceClaim {
    let meta = template.spec.metadata.clone().unwrap_or_default();
    let mut annotations = meta.annotations.unwrap_or_default();
    annotations.insert(FOR_ENTRY.to_owned(), entry.to_owned());
    ResourceClaim {
        metadata: ObjectMeta {
            generate_name: Some(base(text(pod.metadata.name.as_ref()), entry)),
            labels: meta.labels,
            annotations: Some(annotations),
            owner_references: Some(vec![controller_ref(pod)]),
            ..ObjectMeta::default()
        },
        spec: template.spec.spec.clone(),
        status: None,
    }
}

/// What the pod's status is to say of generated claims: what it says, with these.
pub(super) fn statuses(pod: &Pod, new: &[(String, String)]) -> Vec<PodResourceClaimStatus> {
    let old = pod.status.as_ref().and_then(|status| status.resource_claim_statuses.clone()).unwrap_or_default();
    let mut all: Vec<_> = old.into_iter().filter(|old| new.iter().all(|(entry, _)| *entry != old.name)).collect();
    all.extend(new.iter().map(|(entry, claim)| PodResourceClaimStatus {
        name: entry.clone(),
        resource_claim_name: Some(claim.clone()),
    }));
    all
}

/// Whether devices are allocated to a claim.
fn is_allocated(claim: &ResourceClaim) -> bool {
    claim.status.as_ref().is_some_and(|status| status.allocation.is_some())
}

/// The claim, reserved for a pod that runs already; `None` if it is, or has no devices.
pub(super) fn reserved(pod: &Pod, claim: &ResourceClaim) -> Option<ResourceClaim> {
    let own = uid(&pod.metadata);
    if !is_allocated(claim) || consumers(claim).iter().any(|consumer| consumer.uid == own) {
        return None;
    }
    let mut wanted = claim.clone();
    let consumer = ResourceClaimConsumerReference {
        api_group: None,
        resource: "pods".to_owned(),
        name: text(pod.metadata.name.as_ref()).to_owned(),
        uid: own.to_owned(),
    };
    wanted.status.get_or_insert_default().reserved_for.get_or_insert_default().push(consumer);
    Some(wanted)
}

/// For whom a claim is reserved.
pub(super) fn consumers(claim: &ResourceClaim) -> &[ResourceClaimConsumerReference] {
    claim.status.as_ref().and_then(|status| status.reserved_for.as_deref()).unwrap_or_default()
}

/// Whether a consumer is a pod; nobody else can be looked at here.
pub(super) fn is_pod(consumer: &ResourceClaimConsumerReference) -> bool {
    text(consumer.api_group.as_ref()).is_empty() && consumer.resource == "pods"
}

/// How a claim that some of its consumers have left is to be written.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Release {
    /// First its status.
    pub(super) status: Option<ResourceClaim>,
    /// Then, without devices, its finalizers.
    pub(super) lets_go: bool,
}

/// `stay` are the consumers that may still run.
pub(super) fn release(claim: &ResourceClaim, stay: &[ResourceClaimConsumerReference]) -> Release {
    let is_protected = claim.metadata.finalizers.iter().flatten().any(|found| found == FINALIZER);
    let has_left = stay.len() < consumers(claim).len();
    let is_free = stay.is_empty();
    // One that was never reserved keeps its devices until it is deleted: its driver may have allocated them in advance.
    let frees = is_free && is_protected && (has_left || claim.metadata.deletion_timestamp.is_some());
    let mut wanted = claim.clone();
    if has_left || frees && is_allocated(claim) {
        let status = wanted.status.get_or_insert_default();
        status.reserved_for = Some(stay.to_vec()).filter(|stay| !stay.is_empty());
        if frees {
            status.allocation = None;
        }
        return Release { lets_go: is_protected && !is_allocated(&wanted), status: Some(wanted) };
    }
    Release { status: None, lets_go: frees }
}

/// The claim without what held it.
pub(super) fn unprotected(claim: &ResourceClaim) -> ResourceClaim {
    let mut wanted = claim.clone();
    wanted.metadata.finalizers.get_or_insert_default().retain(|found| found != FINALIZER);
    wanted
}

/// The pod that a claim was made for: its name and identifier.
pub(super) fn owner(claim: &ResourceClaim) -> Option<(&str, &str)> {
    let mut owners = claim.metadata.owner_references.iter().flatten();
    let owner =
        owners.find(|owner| owner.controller == Some(true) && owner.api_version == "v1" && owner.kind == "Pod")?;
    Some((&owner.name, &owner.uid))
}
