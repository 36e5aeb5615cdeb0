//! Which volumes a pod's containers use. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Pod, Volume};

/// How a volume is used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Use {
    pub(crate) is_mounted: bool,
    pub(crate) is_device: bool,
}

/// The volumes that some container uses, in the pod's order. Others aren't made.
pub(crate) fn used(pod: &Pod) -> Vec<(&Volume, Use)> {
    let Some(spec) = &pod.spec else { return Vec::new() };
    let mut uses: BTreeMap<&str, Use> = BTreeMap::new();
    let plain = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    let plain = plain.map(|container| (container.volume_mounts.as_deref(), container.volume_devices.as_deref()));
    let ephemeral = spec.ephemeral_containers.iter().flatten();
    let ephemeral =
        ephemeral.map(|container| (container.volume_mounts.as_deref(), container.volume_devices.as_deref()));
    for (mounts, devices) in plain.chain(ephemeral) {
        for mount in mounts.into_iter().flatten() {
            uses.entry(&mount.name).or_default().is_mounted = true;
        }
        for device in devices.into_iter().flatten() {
            uses.entry(&device.name).or_default().is_device = true;
        }
    }
    let volumes = spec.volumes.iter().flatten();
    volumes.filter_map(|volume| Some((volume, *uses.get(volume.name.as_str())?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_what_some_container_uses() {
        let pod: Pod = serde_json::from_value(json!({"spec": {
            "volumes": [{"name": "a"}, {"name": "b"}, {"name": "c"}, {"name": "d"}],
            "containers": [{"name": "x", "volumeMounts": [{"name": "b", "mountPath": "/b"}, {"name": "?", "mountPath": "/"}]}],
            "initContainers": [{"name": "y", "volumeDevices": [{"name": "a", "devicePath": "/dev/a"}]}],
            "ephemeralContainers": [{"name": "z", "volumeMounts": [{"name": "d", "mountPath": "/d"}]}],
        }}))
        .unwrap();
        let found: Vec<_> = used(&pod).into_iter().map(|(volume, how)| (volume.name.as_str(), how.is_device)).collect();
        assert_eq!(found, [("a", true), ("b", false), ("d", false)]);
    }
}
