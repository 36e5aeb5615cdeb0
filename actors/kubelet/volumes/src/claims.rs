//! From a pod's claim to what is behind it. Pure.

use std::path::PathBuf;

use k8s_openapi::api::core::v1::{
    CSIPersistentVolumeSource, HostPathVolumeSource, NFSVolumeSource, PersistentVolume, PersistentVolumeClaim, Pod,
    Volume,
};

use crate::error::VolumeError;

/// What a persistent volume is.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Backing {
    Local(PathBuf),
    HostPath(HostPathVolumeSource),
    Nfs(NFSVolumeSource),
    Csi(Box<CSIPersistentVolumeSource>),
}

/// The name of the claim that a pod's volume is there for: one that it names, or the one that was made for it.
pub(crate) fn claim_of(pod: &Pod, volume: &Volume) -> Option<String> {
    if let Some(claim) = &volume.persistent_volume_claim {
        return Some(claim.claim_name.clone());
    }
    let made = || format!("{}-{}", pod.metadata.name.as_deref().unwrap_or_default(), volume.name);
    volume.ephemeral.is_some().then(made)
}

/// Whether some container of the pod has been made, so that the pod has its volumes.
fn has_begun(pod: &Pod) -> bool {
    let Some(status) = &pod.status else { return false };
    let all = status.init_container_statuses.iter().chain(&status.container_statuses).flatten();
    all.filter_map(|container| container.container_id.as_deref()).any(|id| !id.is_empty())
}

/// The volume that a claim is bound to, once the claim may be used by the pod. `is_owned`: the claim was made for this pod.
pub(crate) fn bound_volume<'a>(
    claim: &'a PersistentVolumeClaim,
    pod: &Pod,
    is_owned: bool,
) -> Result<&'a str, VolumeError> {
    let (metadata, text) = (&claim.metadata, |text: &Option<String>| text.clone().unwrap_or_default());
    let (namespace, name) = (text(&metadata.namespace), text(&metadata.name));
    let refuse = |why: String| Err(VolumeError::Refused(format!("error processing PVC {namespace}/{name}: {why}")));
    if is_owned {
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        let owners = metadata.owner_references.iter().flatten();
        if !owners.into_iter().any(|owner| owner.controller == Some(true) && owner.uid == uid) {
            let of = format!("{}/{}", text(&pod.metadata.namespace), text(&pod.metadata.name));
            return refuse(format!("PVC {namespace}/{name} was not created for pod {of} (pod is not owner)"));
        }
    }
    // A pod that has begun keeps its claim until it ends, and a container of it that died has to come back.
    if metadata.deletion_timestamp.is_some() && !has_begun(pod) {
        return refuse(format!("can't start pod because PVC {namespace}/{name} is being deleted"));
    }
    let phase = claim.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default();
    let volume = claim.spec.as_ref().and_then(|spec| spec.volume_name.as_deref()).unwrap_or_default();
    if phase != "Bound" || volume.is_empty() {
        return refuse(format!(
            "PVC {namespace}/{name} has non-bound phase ({phase:?}) or empty pvc.Spec.VolumeName ({volume:?})"
        ));
    }
    Ok(volume)
}

/// What is behind a volume that says that it is this claim's.
pub(crate) fn backing(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> Result<Backing, VolumeError> {
    let name = volume.metadata.name.as_deref().unwrap_or_default();
    let refuse = |why: String| VolumeError::Refused(format!("failed to process PV {name:?}: {why}"));
    let spec = volume.spec.as_ref().ok_or_else(|| refuse("it has no spec".to_owned()))?;
    let found = spec.claim_ref.as_ref().and_then(|claim| claim.uid.as_deref()).unwrap_or_default();
    let wanted = claim.metadata.uid.as_deref().unwrap_or_default();
    if found != wanted {
        return Err(refuse(format!("found object with incorrect UID, expected {wanted:?}, got {found:?}")));
    }
    if let Some(local) = &spec.local {
        return Ok(Backing::Local(PathBuf::from(&local.path)));
    }
    if let Some(host_path) = &spec.host_path {
        return Ok(Backing::HostPath(host_path.clone()));
    }
    if let Some(nfs) = &spec.nfs {
        return Ok(Backing::Nfs(nfs.clone()));
    }
    if let Some(csi) = &spec.csi {
        return Ok(Backing::Csi(Box::new(csi.clone())));
    }
    Err(refuse("no volume plugin of this node matches".to_owned()))
}

/// Whether it is a device, and whether the pod's containers take it as what it is.
pub(crate) fn is_block(
    volume: &PersistentVolume,
    name: &str,
    is_mounted: bool,
    is_device: bool,
) -> Result<bool, VolumeError> {
    let is_block = volume.spec.as_ref().and_then(|spec| spec.volume_mode.as_deref()) == Some("Block");
    let refuse = |mode: &str, list: &str| {
        Err(VolumeError::Refused(format!("volume {name} has volumeMode {mode}, but is specified in {list}")))
    };
    match is_block {
        true if is_mounted => refuse("Block", "volumeMounts"),
        false if is_device => refuse("Filesystem", "volumeDevices"),
        _ => Ok(is_block),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn claim(changed: &Value) -> PersistentVolumeClaim {
        let mut value = json!({
            "metadata": {"name": "c", "namespace": "n", "uid": "cu"},
            "spec": {"volumeName": "v"}, "status": {"phase": "Bound"},
        });
        for (key, part) in changed.as_object().unwrap() {
            value[key].as_object_mut().unwrap().extend(part.as_object().unwrap().clone());
        }
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn only_a_bound_claim_that_stays_is_used() {
        let pod: Pod =
            serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "n", "uid": "pu"}})).unwrap();
        let owner = |uid: &str| {
            json!({"metadata": {"ownerReferences": [
            {"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": uid, "controller": true}]}})
        };
        for (changed, is_owned, complaint) in [
            (json!({}), false, None),
            (json!({"status": {"phase": "Pending"}}), false, Some("has non-bound phase (\"Pending\")")),
            (json!({"spec": {"volumeName": ""}}), false, Some("empty pvc.Spec.VolumeName (\"\")")),
            (json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}), false, Some("n/c is being deleted")),
            (json!({}), true, Some("was not created for pod n/p (pod is not owner)")),
            (owner("other"), true, Some("was not created for pod n/p")),
            (owner("pu"), true, None),
        ] {
            let claim = claim(&changed);
            match (bound_volume(&claim, &pod, is_owned), complaint) {
                (Ok(volume), None) => assert_eq!(volume, "v"),
                (Err(error), Some(complaint)) => assert!(error.to_string().contains(complaint), "{error}"),
                (outcome, _) => panic!("{changed}: {outcome:?}"),
            }
        }
    }

    #[test]
    fn a_pod_that_has_begun_keeps_a_claim_that_is_to_go() {
        let claim = claim(&json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}));
        let pod = |status: Value| -> Pod {
            let metadata = json!({"name": "p", "namespace": "n", "uid": "pu"});
            serde_json::from_value(json!({"metadata": metadata, "status": status})).unwrap()
        };
        let container = |id: Value| {
            let mut one = json!({"name": "c", "image": "i", "imageID": "", "ready": false, "restartCount": 0});
            one["containerID"] = id;
            json!([one])
        };
        let begun = container(json!("containerd://1"));
        for (status, may) in [
            (json!({"containerStatuses": begun}), true),
            (json!({"initContainerStatuses": begun, "containerStatuses": container(Value::Null)}), true),
            (json!({"containerStatuses": container(Value::Null)}), false),
            (json!({"containerStatuses": container(json!(""))}), false),
            (json!({}), false),
        ] {
            assert_eq!(bound_volume(&claim, &pod(status.clone()), false).is_ok(), may, "{status}");
        }
    }

    #[test]
    fn a_volume_of_another_claim_and_kinds_that_nobody_has_are_refused() {
        let claim = claim(&json!({}));
        let volume = |spec: Value| -> PersistentVolume {
            serde_json::from_value(json!({"metadata": {"name": "v"}, "spec": spec})).unwrap()
        };
        let mine = json!({"uid": "cu"});
        let local = volume(json!({"claimRef": mine, "local": {"path": "/d"}, "volumeMode": "Block"}));
        assert_eq!(backing(&local, &claim).unwrap(), Backing::Local(PathBuf::from("/d")));
        assert!(is_block(&local, "x", false, true).unwrap());
        let text = is_block(&local, "x", true, false).unwrap_err().to_string();
        assert_eq!(text, "volume x has volumeMode Block, but is specified in volumeMounts");
        assert!(backing(&volume(json!({"claimRef": {"uid": "z"}, "local": {"path": "/d"}})), &claim).is_err());
        assert!(
            backing(&volume(json!({"claimRef": mine, "iscsi": {"iqn": "i", "lun": 0, "targetPortal": "t"}})), &claim)
                .is_err()
        );
    }
}
