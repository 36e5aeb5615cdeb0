//! Which Secrets a pod uses: pure.

use k8s_openapi::api::core::v1::{EnvFromSource, EnvVar, Pod, PodSpec, Volume};

/// Whether a pod refers to a Secret of its namespace by name.
pub(super) fn uses(pod: &Pod, secret: &str) -> bool {
    let Some(spec) = &pod.spec else { return false };
    let is_it = |name: Option<&str>| name == Some(secret);
    spec.image_pull_secrets.iter().flatten().any(|reference| is_it(Some(&reference.name)))
        || in_containers(spec, secret)
        || spec.volumes.iter().flatten().any(|volume| in_volume(volume).into_iter().any(is_it))
}

fn in_containers(spec: &PodSpec, secret: &str) -> bool {
    let plain = spec.init_containers.iter().flatten().chain(&spec.containers);
    let ephemeral = spec.ephemeral_containers.iter().flatten();
    plain.map(|container| (&container.env, &container.env_from)).any(|parts| in_environment(parts, secret))
        || ephemeral.map(|container| (&container.env, &container.env_from)).any(|parts| in_environment(parts, secret))
}

fn in_environment((env, from): (&Option<Vec<EnvVar>>, &Option<Vec<EnvFromSource>>), secret: &str) -> bool {
    let variables = env.iter().flatten().filter_map(|variable| variable.value_from.as_ref());
    let mut keys = variables.filter_map(|source| source.secret_key_ref.as_ref());
    let mut whole = from.iter().flatten().filter_map(|source| source.secret_ref.as_ref());
    keys.any(|key| key.name == secret) || whole.any(|source| source.name == secret)
}

/// All Secrets that a volume names, whatever kind it is of.
fn in_volume(volume: &Volume) -> Vec<Option<&str>> {
    let projected = volume.projected.iter().flat_map(|projected| projected.sources.iter().flatten());
    let mut names: Vec<Option<&str>> =
        projected.map(|source| source.secret.as_ref().map(|secret| secret.name.as_str())).collect();
    let plain = volume.secret.as_ref().and_then(|secret| secret.secret_name.as_deref());
    names.extend([plain, volume.azure_file.as_ref().map(|azure| azure.secret_name.as_str())]);
    let references = [
        volume.cephfs.as_ref().and_then(|source| source.secret_ref.as_ref()),
        volume.cinder.as_ref().and_then(|source| source.secret_ref.as_ref()),
        volume.flex_volume.as_ref().and_then(|source| source.secret_ref.as_ref()),
        volume.rbd.as_ref().and_then(|source| source.secret_ref.as_ref()),
        volume.scale_io.as_ref().map(|source| &source.secret_ref),
        volume.iscsi.as_ref().and_then(|source| source.secret_ref.as_ref()),
        volume.storageos.as_ref().and_then(|source| source.secret_ref.as_ref()),
        volume.csi.as_ref().and_then(|source| source.node_publish_secret_ref.as_ref()),
    ];
    names.extend(references.into_iter().map(|reference| reference.map(|reference| reference.name.as_str())));
    names
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn each_way_to_use_a_secret_is_known() {
        let container = |part: Value| {
            let mut container = json!({"name": "c"});
            container.as_object_mut().expect("an object").extend(part.as_object().expect("an object").clone());
            json!([container])
        };
        let env = json!({"env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]});
        let env_from = json!({"envFrom": [{"secretRef": {"name": "s"}}]});
        let volume = |kind: &str, source: Value| json!({"volumes": [{"name": "v", kind: source}]});
        let by_reference = json!({"secretRef": {"name": "s"}});
        for part in [
            json!({"imagePullSecrets": [{"name": "s"}]}),
            json!({"initContainers": container(env.clone())}),
            json!({"ephemeralContainers": container(env_from.clone())}),
            json!({"containers": container(env)}),
            json!({"containers": container(env_from)}),
            volume("secret", json!({"secretName": "s"})),
            volume("projected", json!({"sources": [{"configMap": {"name": "x"}}, {"secret": {"name": "s"}}]})),
            volume("azureFile", json!({"secretName": "s", "shareName": "x"})),
            volume("cephfs", json!({"monitors": [], "secretRef": {"name": "s"}})),
            volume("cinder", json!({"volumeID": "x", "secretRef": {"name": "s"}})),
            volume("flexVolume", json!({"driver": "x", "secretRef": {"name": "s"}})),
            volume("rbd", json!({"image": "x", "monitors": [], "secretRef": {"name": "s"}})),
            volume("scaleIO", json!({"gateway": "x", "system": "x", "secretRef": {"name": "s"}})),
            volume("iscsi", json!({"iqn": "x", "lun": 0, "targetPortal": "x", "secretRef": {"name": "s"}})),
            volume("storageos", by_reference.clone()),
            volume("csi", json!({"driver": "x", "nodePublishSecretRef": {"name": "s"}})),
        ] {
            let mut spec = json!({"containers": []});
            spec.as_object_mut().expect("an object").extend(part.as_object().expect("an object").clone());
            let pod: Pod = serde_json::from_value(json!({"metadata": {}, "spec": spec})).expect("a pod");
            assert!(uses(&pod, "s"), "{part}");
            assert!(!uses(&pod, "x") && !uses(&pod, ""), "{part}");
        }
    }
}
