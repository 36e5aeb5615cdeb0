//! Which objects a pod names. Pure.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{EnvFromSource, EnvVar, Pod, Volume};

use super::{ObjectRef, Sort};

/// Everything that a node may read for a pod: what its volumes and its environment are made of, and how its images are
/// pulled.
pub(crate) fn references(pod: &Pod) -> BTreeSet<ObjectRef> {
    let mut names = BTreeSet::new();
    let Some(spec) = &pod.spec else { return BTreeSet::new() };
    for container in spec.containers.iter().chain(spec.init_containers.iter().flatten()) {
        environment(container.env.as_deref(), container.env_from.as_deref(), &mut names);
    }
    for container in spec.ephemeral_containers.iter().flatten() {
        environment(container.env.as_deref(), container.env_from.as_deref(), &mut names);
    }
    names.extend(spec.image_pull_secrets.iter().flatten().map(|secret| (Sort::Secret, secret.name.clone())));
    for of_volume in spec.volumes.iter().flatten() {
        volume(of_volume, &mut names);
    }
    let namespace = pod.metadata.namespace.clone().unwrap_or_default();
    let named = names.into_iter().filter(|(_, name)| !name.is_empty());
    named.map(|(sort, name)| ObjectRef { sort, namespace: namespace.clone(), name }).collect()
}

type Names = BTreeSet<(Sort, String)>;

fn environment(variables: Option<&[EnvVar]>, from: Option<&[EnvFromSource]>, names: &mut Names) {
    for source in variables.into_iter().flatten().filter_map(|variable| variable.value_from.as_ref()) {
        names.extend(source.config_map_key_ref.iter().map(|map| (Sort::ConfigMap, map.name.clone())));
        names.extend(source.secret_key_ref.iter().map(|secret| (Sort::Secret, secret.name.clone())));
    }
    for source in from.into_iter().flatten() {
        names.extend(source.config_map_ref.iter().map(|map| (Sort::ConfigMap, map.name.clone())));
        names.extend(source.secret_ref.iter().map(|secret| (Sort::Secret, secret.name.clone())));
    }
}

fn volume(volume: &Volume, names: &mut Names) {
    names.extend(volume.config_map.iter().map(|map| (Sort::ConfigMap, map.name.clone())));
    names.extend(volume.secret.iter().filter_map(|secret| Some((Sort::Secret, secret.secret_name.clone()?))));
    let secret = volume.csi.as_ref().and_then(|csi| csi.node_publish_secret_ref.as_ref());
    names.extend(secret.map(|secret| (Sort::Secret, secret.name.clone())));
    let projected = volume.projected.as_ref().and_then(|projected| projected.sources.as_ref());
    for source in projected.into_iter().flatten() {
        names.extend(source.config_map.iter().map(|map| (Sort::ConfigMap, map.name.clone())));
        names.extend(source.secret.iter().map(|secret| (Sort::Secret, secret.name.clone())));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn everything_that_a_pod_names_is_found_once() {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"namespace": "ns"},
            "spec": {
                "imagePullSecrets": [{"name": "pull"}, {}],
                "containers": [{"name": "c", "env": [
                    {"name": "a", "valueFrom": {"configMapKeyRef": {"name": "m1", "key": "k"}}},
                    {"name": "b", "valueFrom": {"secretKeyRef": {"name": "s1", "key": "k"}}},
                    {"name": "c", "value": "plain"},
                ], "envFrom": [{"configMapRef": {"name": "m1"}}, {"secretRef": {"name": "s2"}}]}],
                "initContainers": [{"name": "i", "envFrom": [{"configMapRef": {"name": "m2"}}]}],
                "ephemeralContainers": [{"name": "e", "envFrom": [{"secretRef": {"name": "s3"}}]}],
                "volumes": [
                    {"name": "1", "configMap": {"name": "m3"}},
                    {"name": "2", "secret": {"secretName": "s4"}},
                    {"name": "3", "projected": {"sources": [{"configMap": {"name": "m4"}}, {"secret": {"name": "s5"}}]}},
                    {"name": "4", "csi": {"driver": "d", "nodePublishSecretRef": {"name": "s6"}}},
                    {"name": "5", "emptyDir": {}},
                ],
            },
        }))
        .unwrap();
        let found = references(&pod);
        assert!(found.iter().all(|object| object.namespace == "ns"));
        let of = |sort: Sort| -> Vec<_> {
            found.iter().filter(|object| object.sort == sort).map(|object| object.name.as_str()).collect()
        };
        assert_eq!(of(Sort::ConfigMap), ["m1", "m2", "m3", "m4"]);
        assert_eq!(of(Sort::Secret), ["pull", "s1", "s2", "s3", "s4", "s5", "s6"]);
    }
}
