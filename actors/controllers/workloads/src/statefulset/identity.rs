//! Who a pod of a StatefulSet is, and which claims are its own: pure.

use k3sd_client::controller::owners::controller_ref;
use k3sd_client::controller::pods;
use k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetSpec};
use k8s_openapi::api::core::v1::{
    PersistentVolumeClaim, PersistentVolumeClaimVolumeSource, Pod, PodTemplateSpec, Volume,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;

use super::core::Wanted;
use crate::support::{label, name, namespace, uid};

/// The revision of the set that a pod is of.
pub(super) const REVISION: &str = "controller-revision-hash";
const POD_NAME: &str = "statefulset.kubernetes.io/pod-name";
const POD_INDEX: &str = "apps.kubernetes.io/pod-index";

/// Name of the set and ordinal, if the pod's name says both.
fn parts(pod: &Pod) -> Option<(&str, i32)> {
    let (set, ordinal) = name(pod).rsplit_once('-')?;
    let is_number = !ordinal.is_empty() && ordinal.bytes().all(|digit| digit.is_ascii_digit());
    Some((set, is_number.then(|| ordinal.parse().ok())??))
}

/// The ordinal of a pod.
pub(super) fn ordinal(pod: &Pod) -> Option<i32> {
    Some(parts(pod)?.1)
}

/// Whether the name is one that this set gives.
pub(super) fn is_member(set: &StatefulSet, pod: &Pod) -> bool {
    parts(pod).is_some_and(|(of, _)| of == name(set))
}

/// Whether the labels say who it is.
pub(super) fn is_identical(pod: &Pod) -> bool {
    let index = ordinal(pod).map(|ordinal| ordinal.to_string());
    label(pod, POD_NAME) == Some(name(pod)) && label(pod, POD_INDEX) == index.as_deref()
}

/// Says in its labels who it is.
pub(super) fn identify(pod: &mut Pod) {
    let (name, index) = (name(pod).to_owned(), ordinal(pod).unwrap_or(0).to_string());
    let labels = pod.metadata.labels.get_or_insert_default();
    labels.insert(POD_NAME.to_owned(), name);
    labels.insert(POD_INDEX.to_owned(), index);
}

/// The pod of an ordinal, of a revision's template.
pub(super) fn new_pod(set: &StatefulSet, template: &PodTemplateSpec, revision: &str, ordinal: i32) -> Pod {
    let mut pod = pods::from_template(template, namespace(set), controller_ref(set));
    let pod_name = format!("{}-{ordinal}", name(set));
    pod.metadata.generate_name = Some(format!("{}-", name(set)));
    pod.metadata.name = Some(pod_name.clone());
    identify(&mut pod);
    pod.metadata.labels.get_or_insert_default().insert(REVISION.to_owned(), revision.to_owned());
    let service = set.spec.as_ref().and_then(|spec| spec.service_name.clone());
    let spec = pod.spec.get_or_insert_default();
    spec.hostname = Some(pod_name.clone());
    spec.subdomain = service.filter(|service| !service.is_empty());
    let mut volumes: Vec<Volume> = Vec::new();
    for claim in templates(set) {
        volumes.push(Volume {
            name: name(claim).to_owned(),
            persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
                claim_name: claim_name(claim, &pod_name),
                read_only: None,
            }),
            ..Volume::default()
        });
    }
    let own = spec.volumes.take().unwrap_or_default();
    let kept = own.into_iter().filter(|volume| templates(set).all(|claim| name(claim) != volume.name));
    volumes.extend(kept.collect::<Vec<_>>());
    spec.volumes = (!volumes.is_empty()).then_some(volumes);
    pod
}

fn templates(set: &StatefulSet) -> impl Iterator<Item = &PersistentVolumeClaim> {
    set.spec.iter().flat_map(|spec| spec.volume_claim_templates.iter().flatten())
}

/// Whether pods of the set have a claim of this template.
pub(super) fn has_template(set: &StatefulSet, template: &str) -> bool {
    templates(set).any(|claim| name(claim) == template)
}

/// Whose claim this may be by its name: how it can be read as that of a template and that of a set, and an ordinal.
pub(super) fn claimants(claim: &str) -> impl Iterator<Item = (&str, &str)> {
    let (rest, ordinal) = claim.rsplit_once('-').unwrap_or_default();
    let is_number = !ordinal.is_empty() && ordinal.bytes().all(|digit| digit.is_ascii_digit());
    let rest = if is_number { rest } else { "" };
    rest.match_indices('-').map(|(at, _)| (&rest[..at], &rest[at + 1..]))
}

fn claim_name(template: &PersistentVolumeClaim, pod_name: &str) -> String {
    format!("{}-{pod_name}", name(template))
}

/// The claims of a pod, as they are made.
pub(super) fn claims(set: &StatefulSet, pod: &Pod) -> Vec<PersistentVolumeClaim> {
    let selector = set.spec.as_ref().and_then(|spec| spec.selector.match_labels.clone()).unwrap_or_default();
    let claim = |template: &PersistentVolumeClaim| {
        let mut claim = template.clone();
        claim.metadata.name = Some(claim_name(template, name(pod)));
        claim.metadata.namespace = Some(namespace(set).to_owned());
        claim.metadata.labels.get_or_insert_default().extend(selector.clone());
        claim.status = None;
        // The pod isn't there yet: what refers to it comes later.
        claim.metadata.owner_references =
            owners(set, pod, template).filter(|_| !uid(pod).is_empty() || !is_surplus(set, pod));
        claim
    };
    templates(set).map(claim).collect()
}

fn is_surplus(set: &StatefulSet, pod: &Pod) -> bool {
    ordinal(pod).is_none_or(|ordinal| !Wanted::of(set).ordinals().contains(&ordinal))
}

/// Who is to own a claim of a pod, so that it goes when the retention policy says so; what others noted stays.
pub(super) fn owners(set: &StatefulSet, pod: &Pod, claim: &PersistentVolumeClaim) -> Option<Vec<OwnerReference>> {
    let none = StatefulSetSpec::default();
    let policy =
        set.spec.as_ref().unwrap_or(&none).persistent_volume_claim_retention_policy.clone().unwrap_or_default();
    let is_ours = |owner: &OwnerReference| {
        let is_set = owner.kind == "StatefulSet" && owner.api_version.starts_with("apps/") && owner.name == name(set);
        let is_pod = owner.kind == "Pod" && owner.api_version == "v1" && owner.name == name(pod);
        is_set || is_pod
    };
    let mut owners: Vec<_> =
        claim.metadata.owner_references.iter().flatten().filter(|it| !is_ours(it)).cloned().collect();
    if owners.iter().all(|owner| owner.controller != Some(true)) {
        let with_set = policy.when_deleted.as_deref() == Some("Delete");
        let with_pod = policy.when_scaled.as_deref() == Some("Delete") && is_surplus(set, pod);
        if with_pod {
            owners.push(controller_ref(pod));
        } else if with_set {
            owners.push(controller_ref(set));
        }
    }
    (!owners.is_empty()).then_some(owners)
}

/// Whether a claim waits for its deletion together with an earlier pod of this name.
pub(super) fn is_stale(pod_name: &str, pod_uid: &str, claim: &PersistentVolumeClaim) -> bool {
    let mut owners = claim.metadata.owner_references.iter().flatten();
    owners.any(|owner| owner.kind == "Pod" && owner.name == pod_name && owner.uid != pod_uid)
}
