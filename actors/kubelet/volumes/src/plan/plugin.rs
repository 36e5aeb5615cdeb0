//! What serves a volume, under the names that metrics have for it. Pure.

use k8s_openapi::api::core::v1::{PersistentVolume, Volume};

/// What serves a volume that stands in the pod itself; nothing for one that a claim stands for.
pub(crate) fn of_volume(volume: &Volume) -> Option<String> {
    if let Some(csi) = &volume.csi {
        return Some(format!("kubernetes.io/csi:{}", csi.driver));
    }
    let known = [
        (volume.config_map.is_some(), "configmap"),
        (volume.secret.is_some(), "secret"),
        (volume.projected.is_some(), "projected"),
        (volume.downward_api.is_some(), "downward-api"),
        (volume.empty_dir.is_some(), "empty-dir"),
        (volume.host_path.is_some(), "host-path"),
        (volume.nfs.is_some(), "nfs"),
    ];
    known.into_iter().find(|(is_it, _)| *is_it).map(|(_, name)| format!("kubernetes.io/{name}"))
}

/// What serves a persistent volume; empty for one that nobody serves here.
pub(crate) fn of_persistent(volume: &PersistentVolume) -> String {
    let Some(spec) = &volume.spec else { return String::new() };
    if let Some(csi) = &spec.csi {
        return format!("kubernetes.io/csi:{}", csi.driver);
    }
    let known =
        [(spec.local.is_some(), "local-volume"), (spec.host_path.is_some(), "host-path"), (spec.nfs.is_some(), "nfs")];
    let found = known.into_iter().find(|(is_it, _)| *is_it);
    found.map(|(_, name)| format!("kubernetes.io/{name}")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_kind_has_a_name() {
        for (source, expected) in [
            (json!({"configMap": {"name": "m"}}), Some("kubernetes.io/configmap")),
            (json!({"emptyDir": {}}), Some("kubernetes.io/empty-dir")),
            (json!({"csi": {"driver": "d.example.com"}}), Some("kubernetes.io/csi:d.example.com")),
            (json!({"persistentVolumeClaim": {"claimName": "c"}}), None),
        ] {
            let mut volume = source.clone();
            volume["name"] = json!("v");
            assert_eq!(of_volume(&serde_json::from_value(volume).unwrap()).as_deref(), expected, "{source}");
        }
        for (source, expected) in [
            (json!({"local": {"path": "/d"}}), "kubernetes.io/local-volume"),
            (json!({"csi": {"driver": "d.example.com", "volumeHandle": "h"}}), "kubernetes.io/csi:d.example.com"),
            (json!({"rbd": {"image": "i", "monitors": []}}), ""),
        ] {
            let volume = serde_json::from_value(json!({"metadata": {}, "spec": source})).unwrap();
            assert_eq!(of_persistent(&volume), expected, "{source}");
        }
    }
}
