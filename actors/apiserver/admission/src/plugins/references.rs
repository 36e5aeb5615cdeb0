//! What a pod names, of what lies beside it in its namespace.

use serde_json::Value;

use crate::read::{at, field, items, text};

/// What kind of thing is named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Of {
    /// Secrets.
    Secrets,
    /// ConfigMaps.
    ConfigMaps,
}

/// Sources of volumes with a `secretRef`.
const SECRET_SOURCES: &[&str] = &["cephfs", "cinder", "flexVolume", "iscsi", "rbd", "scaleIO", "storageos"];

/// The names in the spec of a pod; empty ones are none.
pub(crate) fn names(spec: &Value, of: Of) -> impl Iterator<Item = &str> {
    let mut found = Vec::new();
    if of == Of::Secrets {
        found.extend(items(spec, "imagePullSecrets").iter().map(|secret| text(secret, "name")));
    }
    let (from, key) = match of {
        Of::Secrets => ("secretRef", "secretKeyRef"),
        Of::ConfigMaps => ("configMapRef", "configMapKeyRef"),
    };
    let lists = ["initContainers", "containers", "ephemeralContainers"];
    for container in lists.iter().flat_map(|list| items(spec, list)) {
        found.extend(items(container, "envFrom").iter().map(|source| text(field(source, from), "name")));
        found.extend(items(container, "env").iter().map(|variable| text(at(variable, &["valueFrom", key]), "name")));
    }
    for volume in items(spec, "volumes") {
        let projected = items(field(volume, "projected"), "sources").iter();
        match of {
            Of::Secrets => {
                found.push(text(field(volume, "secret"), "secretName"));
                found.push(text(field(volume, "azureFile"), "secretName"));
                found.push(text(at(volume, &["csi", "nodePublishSecretRef"]), "name"));
                found.extend(SECRET_SOURCES.iter().map(|source| text(at(volume, &[source, "secretRef"]), "name")));
                found.extend(projected.map(|source| text(field(source, "secret"), "name")));
            }
            Of::ConfigMaps => {
                found.push(text(field(volume, "configMap"), "name"));
                found.extend(projected.map(|source| text(field(source, "configMap"), "name")));
            }
        }
    }
    found.into_iter().filter(|name| !name.is_empty())
}
