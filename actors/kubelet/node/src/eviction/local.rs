//! Pods that use more local storage than they said they would: they go, whatever the node has left. Pure.

use k8s_openapi::api::core::v1::{Container, Pod};

use super::rank::{amount, is_sidecar};
use super::text::{containers, shown};

/// What a pod uses of the node's disks, in bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LocalUse {
    /// Layer and log of each container, by name.
    pub containers: Vec<(String, u64)>,
    /// Volumes that count for the pod (emptyDir on disk, configMaps and the like), by name.
    pub volumes: Vec<(String, u64)>,
}

fn limit(container: &Container) -> Option<u64> {
    amount(container.resources.as_ref()?.limits.as_ref(), "ephemeral-storage")
}

/// Whether a pod has a limit that [`over_limit`] looks at.
pub(super) fn has_limit(pod: &Pod) -> bool {
    let Some(spec) = &pod.spec else { return false };
    let whole = spec.resources.as_ref().and_then(|resources| amount(resources.limits.as_ref(), "ephemeral-storage"));
    let volumes = || spec.volumes.iter().flatten().filter_map(|volume| volume.empty_dir.as_ref());
    whole.is_some() || containers(pod).any(|one| limit(one).is_some()) || volumes().any(|one| one.size_limit.is_some())
}

/// Which limit a pod is over, as metrics name it, and why it has to go, in upstream's words; `None` if it is within its
/// limits.
#[must_use]
pub fn over_limit(pod: &Pod, used: &LocalUse) -> Option<(&'static str, String)> {
    let of = |signal| move |message| (signal, message);
    let volume = empty_dir(pod, used).map(of("emptydirfs.limit"));
    let whole = || whole(pod, used).map(of("ephemeralpodfs.limit"));
    volume.or_else(whole).or_else(|| container(pod, used).map(of("ephemeralcontainerfs.limit")))
}

fn empty_dir(pod: &Pod, used: &LocalUse) -> Option<String> {
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    for volume in volumes {
        let Some(text) = volume.empty_dir.as_ref().and_then(|empty_dir| empty_dir.size_limit.as_ref()) else {
            continue;
        };
        let Ok(limit) = text.0.parse::<k3sd_objects::quantity::Quantity>() else { continue };
        let Some((_, bytes)) = used.volumes.iter().find(|(name, _)| *name == volume.name) else { continue };
        // A limit of nothing is none.
        if limit.signum() > 0 && *bytes > u64::try_from(limit.value()).unwrap_or(u64::MAX) {
            return Some(format!("Usage of EmptyDir volume {:?} exceeds the limit \"{limit}\". ", volume.name));
        }
    }
    None
}

/// The sum of the containers' limits, if each container has one.
fn whole(pod: &Pod, used: &LocalUse) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    let running: Vec<&Container> =
        spec.containers.iter().chain(spec.init_containers.iter().flatten().filter(|one| is_sidecar(one))).collect();
    let limits: Vec<u64> = running.iter().filter_map(|one| limit(one)).collect();
    let own = spec.resources.as_ref().and_then(|resources| amount(resources.limits.as_ref(), "ephemeral-storage"));
    let limit = own.or_else(|| (!limits.is_empty() && limits.len() == running.len()).then(|| limits.iter().sum()))?;
    let total: u64 = used.containers.iter().chain(&used.volumes).map(|(_, bytes)| bytes).sum();
    (total > limit).then(|| {
        let limit = shown(limit, "ephemeral-storage");
        format!("Pod ephemeral local storage usage exceeds the total limit of containers {limit}. ")
    })
}

fn container(pod: &Pod, used: &LocalUse) -> Option<String> {
    let over = |container: &Container| {
        let limit = limit(container)?;
        let (name, bytes) = used.containers.iter().find(|(name, _)| *name == container.name)?;
        let shown = shown(limit, "ephemeral-storage");
        (*bytes > limit).then(|| format!("Container {name} exceeded its local ephemeral storage limit \"{shown}\". "))
    };
    containers(pod).find_map(over)
}
