//! Which claims pods mount.

use k3sd_client::informer::{Index, ObjectKey};
use k8s_openapi::api::core::v1::{PersistentVolume, Pod};

/// Finds by `NAMESPACE/CLAIM`: pods that mount a claim, volumes that refer to one.
pub(crate) const BY_CLAIM: &str = "claim";

/// The claims that a pod mounts, those made for it included.
pub(crate) fn claim_keys(pod: &Pod) -> impl Iterator<Item = ObjectKey> {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let namespace = pod.metadata.namespace.clone().unwrap_or_default();
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    let claims = volumes.filter_map(move |volume| {
        let claim = volume.persistent_volume_claim.as_ref().map(|claim| claim.claim_name.clone());
        claim.or_else(|| volume.ephemeral.as_ref().map(|_| format!("{name}-{}", volume.name)))
    });
    claims.map(move |name| ObjectKey { namespace: namespace.clone(), name })
}

/// See [`BY_CLAIM`].
pub(crate) fn by_claim() -> Index<Pod> {
    Index { name: BY_CLAIM, texts: |pod| claim_keys(pod).map(|key| key.to_string()).collect() }
}

/// The claim that a volume refers to.
pub(crate) fn claim_of(volume: &PersistentVolume) -> Option<ObjectKey> {
    let reference = volume.spec.as_ref()?.claim_ref.as_ref()?;
    Some(ObjectKey { namespace: reference.namespace.clone()?, name: reference.name.clone()? })
}

/// See [`BY_CLAIM`].
pub(crate) fn volumes_by_claim() -> Index<PersistentVolume> {
    Index { name: BY_CLAIM, texts: |volume| claim_of(volume).iter().map(ToString::to_string).collect() }
}

/// Whether a pod is done with its volumes: it has ended, or it is to end and none of its containers runs.
pub(crate) fn is_done(pod: &Pod) -> bool {
    let status = pod.status.as_ref();
    let runs = || {
        let statuses = status.and_then(|status| status.container_statuses.as_deref()).unwrap_or_default();
        statuses.iter().any(|status| {
            let state = status.state.as_ref();
            state.is_none_or(|state| state.terminated.is_none() && state.waiting.is_none())
        })
    };
    matches!(status.and_then(|status| status.phase.as_deref()), Some("Succeeded" | "Failed"))
        || pod.metadata.deletion_timestamp.is_some() && !runs()
}
