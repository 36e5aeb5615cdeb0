//! Where pods come from: the API, and files of static pods with their mirrors.

pub mod files;

use k3sd_kubelet_base::PodsSnapshot;
use k8s_openapi::api::core::v1::{Node, Pod, Toleration};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;

use crate::spec::annotation;

/// Annotation: the hash of a static pod's file.
pub const HASH: &str = "kubernetes.io/config.hash";
/// Annotation: that a pod mirrors a static one, of this hash.
pub const MIRROR: &str = "kubernetes.io/config.mirror";
/// Annotation: where a pod comes from.
pub const SOURCE: &str = "kubernetes.io/config.source";
/// Annotation: when it was first seen.
pub const SEEN: &str = "kubernetes.io/config.seen";

/// Whether a pod of the API is only the mirror of a static one.
#[must_use]
pub fn is_mirror(pod: &Pod) -> bool {
    annotation(pod, MIRROR).is_some()
}

/// Whether it is the mirror of this one, as it is now.
#[must_use]
pub fn is_mirror_of(mirror: &Pod, pod: &Pod) -> bool {
    annotation(mirror, MIRROR).is_some() && annotation(mirror, MIRROR) == annotation(pod, HASH)
}

/// The mirror of a static pod, owned by the node.
#[must_use]
pub fn mirror(pod: &Pod, node: Option<&Node>) -> Pod {
    let mut made = pod.clone();
    made.metadata.uid = None;
    made.status = None;
    let annotations = made.metadata.annotations.get_or_insert_default();
    let hash = annotations.get(HASH).cloned().unwrap_or_default();
    annotations.insert(MIRROR.to_owned(), hash);
    made.metadata.owner_references = node.and_then(|node| {
        Some(vec![OwnerReference {
            api_version: "v1".to_owned(),
            kind: "Node".to_owned(),
            name: node.metadata.name.clone()?,
            uid: node.metadata.uid.clone()?,
            controller: Some(true),
            block_owner_deletion: None,
        }])
    });
    made
}

/// A static pod from what its file says: named after the node, bound to it, and known by its content.
///
/// # Errors
/// What a static pod may not have.
pub fn adopt(mut pod: Pod, hash: &str, node: &str, seen: &str) -> Result<Pod, String> {
    let spec = pod.spec.as_mut().ok_or("the pod has no spec")?;
    if spec.containers.is_empty() {
        return Err("the pod has no containers".to_owned());
    }
    if spec.service_account_name.as_deref().is_some_and(|name| !name.is_empty()) {
        return Err("a static pod may not use a service account".to_owned());
    }
    let refers = |volume: &k8s_openapi::api::core::v1::Volume| {
        volume.secret.is_some() || volume.config_map.is_some() || volume.persistent_volume_claim.is_some()
    };
    if let Some(volume) = spec.volumes.iter().flatten().find(|volume| refers(volume)) {
        return Err(format!("a static pod may not refer to other API objects, as volume {:?} does", volume.name));
    }
    spec.node_name = Some(node.to_owned());
    // Nothing makes it leave its node.
    let stays = Toleration {
        operator: Some("Exists".to_owned()),
        effect: Some("NoExecute".to_owned()),
        ..Toleration::default()
    };
    let tolerations = spec.tolerations.get_or_insert_default();
    if !tolerations.contains(&stays) {
        tolerations.push(stays);
    }
    let meta = &mut pod.metadata;
    let name = meta.name.clone().filter(|name| !name.is_empty()).ok_or("the pod has no name")?;
    meta.name = Some(format!("{name}-{}", node.to_lowercase()));
    meta.namespace.get_or_insert_with(|| "default".to_owned());
    meta.uid = Some(hash.to_owned());
    let annotations = meta.annotations.get_or_insert_default();
    for (key, value) in [(HASH, hash), (SOURCE, "file"), (SEEN, seen)] {
        annotations.insert(key.to_owned(), value.to_owned());
    }
    pod.status = None;
    Ok(pod)
}

/// How many pods of the node count against how many it takes.
#[must_use]
pub fn active(snapshot: &PodsSnapshot) -> usize {
    snapshot.pods.values().filter(|view| !k3sd_client::controller::pods::is_finished(&view.pod)).count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::pod;

    #[test]
    fn a_static_pod_is_the_nodes() {
        let made =
            adopt(pod("{metadata: {name: web}, spec: {containers: [{name: c}]}}"), "h1", "Node-A", "now").unwrap();
        assert_eq!(made.metadata.name.as_deref(), Some("web-node-a"));
        assert_eq!(made.metadata.namespace.as_deref(), Some("default"));
        assert_eq!(made.metadata.uid.as_deref(), Some("h1"));
        assert_eq!(made.spec.as_ref().unwrap().node_name.as_deref(), Some("Node-A"));
        let node = serde_json::from_value(serde_json::json!({"metadata": {"name": "Node-A", "uid": "nu"}})).unwrap();
        let shown = mirror(&made, Some(&node));
        assert!(is_mirror(&shown) && is_mirror_of(&shown, &made) && shown.metadata.uid.is_none());
        assert_eq!(shown.metadata.owner_references.as_ref().unwrap()[0].uid, "nu");
        let other =
            adopt(pod("{metadata: {name: web}, spec: {containers: [{name: c}]}}"), "h2", "Node-A", "now").unwrap();
        assert!(!is_mirror_of(&shown, &other));
    }

    #[test]
    fn what_static_pods_may_not_have_is_refused() {
        for yaml in [
            "{metadata: {name: a}}",
            "{metadata: {name: a}, spec: {containers: []}}",
            "{metadata: {}, spec: {containers: [{name: c}]}}",
            "{metadata: {name: a}, spec: {serviceAccountName: s, containers: [{name: c}]}}",
            "{metadata: {name: a}, spec: {volumes: [{name: v, secret: {secretName: s}}], containers: [{name: c}]}}",
        ] {
            assert!(adopt(pod(yaml), "h", "n", "now").is_err(), "{yaml}");
        }
    }
}
