//! Which objects a pod or a persistent volume names, of those that a kubelet reads.

use serde_json::Value;

use super::graph::{Kind, Vertex};

/// Sources of volumes with a `secretRef`.
const SECRET_SOURCES: &[&str] = &["cephfs", "cinder", "flexVolume", "iscsi", "rbd", "scaleIO", "storageos"];
/// Secrets of a CSI volume that kubelets read; the rest is for its controller.
const CSI_SECRETS: &[&str] = &["nodePublishSecretRef", "nodeStageSecretRef", "nodeExpandSecretRef"];
/// Marks the image of a pod from a file of the node, which must not open anything to the node.
const MIRROR: &str = "kubernetes.io/config.mirror";

fn items(list: &Value) -> &[Value] {
    list.as_array().map(Vec::as_slice).unwrap_or_default()
}

/// What a pod names, all in its namespace.
pub(super) fn pod_references(pod: &Value) -> Vec<Vertex> {
    let mut found: Vec<(Kind, &Value)> = Vec::new();
    if !pod["metadata"]["annotations"][MIRROR].is_null() {
        return Vec::new();
    }
    let spec = &pod["spec"];
    found.push((Kind::ServiceAccount, &spec["serviceAccountName"]));
    found.extend(items(&spec["imagePullSecrets"]).iter().map(|secret| (Kind::Secret, &secret["name"])));
    for container in ["initContainers", "containers", "ephemeralContainers"].iter().flat_map(|list| items(&spec[*list]))
    {
        for source in items(&container["envFrom"]) {
            found.push((Kind::Secret, &source["secretRef"]["name"]));
            found.push((Kind::ConfigMap, &source["configMapRef"]["name"]));
        }
        for source in items(&container["env"]).iter().map(|variable| &variable["valueFrom"]) {
            found.push((Kind::Secret, &source["secretKeyRef"]["name"]));
            found.push((Kind::ConfigMap, &source["configMapKeyRef"]["name"]));
        }
    }
    let volumes = items(&spec["volumes"]);
    volumes.iter().for_each(|volume| add_volume(volume, &mut found));
    for claim in items(&spec["resourceClaims"]) {
        found.push((Kind::ResourceClaim, &claim["resourceClaimName"]));
    }
    for claim in items(&pod["status"]["resourceClaimStatuses"]) {
        found.push((Kind::ResourceClaim, &claim["resourceClaimName"]));
    }
    found.push((Kind::ResourceClaim, &pod["status"]["extendedResourceClaimStatus"]["resourceClaimName"]));

    let metadata = &pod["metadata"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let namespace = text(&metadata["namespace"]);
    let named = found.into_iter().filter_map(|(kind, name)| Some((kind, name.as_str()?.to_owned())));
    // Claims that live with the pod are called after both.
    let own = volumes.iter().filter(|volume| volume["ephemeral"].is_object());
    let own = own.map(|volume| (Kind::Claim, format!("{}-{}", text(&metadata["name"]), text(&volume["name"]))));
    let all = named.chain(own).filter(|(_, name)| !name.is_empty());
    all.map(|(kind, name)| Vertex::new(kind, &namespace, &name)).collect()
}

fn add_volume<'a>(volume: &'a Value, found: &mut Vec<(Kind, &'a Value)>) {
    found.push((Kind::Claim, &volume["persistentVolumeClaim"]["claimName"]));
    found.push((Kind::ConfigMap, &volume["configMap"]["name"]));
    found.push((Kind::Secret, &volume["secret"]["secretName"]));
    found.push((Kind::Secret, &volume["azureFile"]["secretName"]));
    found.push((Kind::Secret, &volume["csi"]["nodePublishSecretRef"]["name"]));
    found.extend(SECRET_SOURCES.iter().map(|source| (Kind::Secret, &volume[*source]["secretRef"]["name"])));
    for source in items(&volume["projected"]["sources"]) {
        found.push((Kind::Secret, &source["secret"]["name"]));
        found.push((Kind::ConfigMap, &source["configMap"]["name"]));
    }
}

/// The Secrets that a persistent volume names; where it says no namespace, that of the claim is meant.
pub(super) fn volume_references(volume: &Value) -> Vec<Vertex> {
    let spec = &volume["spec"];
    let mut found = vec![(&spec["azureFile"]["secretNamespace"], &spec["azureFile"]["secretName"])];
    let sources = SECRET_SOURCES.iter().map(|source| &spec[*source]["secretRef"]);
    let references = sources.chain(CSI_SECRETS.iter().map(|secret| &spec["csi"][*secret]));
    found.extend(references.map(|reference| (&reference["namespace"], &reference["name"])));
    let own = spec["claimRef"]["namespace"].as_str().unwrap_or_default();
    let vertex = |(namespace, name): (&Value, &Value)| {
        let name = name.as_str().filter(|name| !name.is_empty())?;
        let namespace = namespace.as_str().filter(|namespace| !namespace.is_empty()).unwrap_or(own);
        Some(Vertex::new(Kind::Secret, namespace, name))
    };
    found.into_iter().filter_map(vertex).collect()
}
