//! Claims and volumes: `StorageObjectInUseProtection`, `PersistentVolumeClaimResize`.

use k3sd_objects::quota::class_of;
use k3sd_objects::status::Status;
use serde::Deserialize;
use serde_json::Value;

use crate::attributes::{Attributes, Operation};
use crate::lookup::{Lookup, STORAGE_CLASSES, find};
use crate::read::{amount, field, list_mut, map_mut, parsed, text};

/// Group, plural, and who holds up the deletion while the object is in use.
const PROTECTED: &[(&str, &str, &str)] = &[
    ("", "persistentvolumeclaims", "kubernetes.io/pvc-protection"),
    ("", "persistentvolumes", "kubernetes.io/pv-protection"),
    ("storage.k8s.io", "volumeattributesclasses", "kubernetes.io/vac-protection"),
];

/// Keeps a new object from being deleted while it is in use.
pub(crate) fn protect(a: &Attributes<'_>, object: &mut Value) {
    if a.operation != Operation::Create || !a.subresource.is_empty() {
        return;
    }
    let Some((.., finalizer)) = PROTECTED.iter().find(|(group, plural, _)| a.is(group, plural)) else { return };
    if map_mut(object, "metadata").is_none() {
        return;
    }
    let finalizers = object.get_mut("metadata").and_then(|metadata| list_mut(metadata, "finalizers"));
    if let Some(finalizers) = finalizers.filter(|list| !list.iter().any(|known| known == finalizer)) {
        finalizers.push((*finalizer).into());
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Class {
    allow_volume_expansion: Option<bool>,
}

/// Lets claims grow where their class allows it.
pub(crate) async fn check_resize(a: &Attributes<'_>, claim: &Value, lookup: &dyn Lookup) -> Result<(), Status> {
    let concerns = a.operation == Operation::Update && a.subresource.is_empty() && a.is("", "persistentvolumeclaims");
    if !concerns {
        return Ok(());
    }
    let old = a.before();
    let size =
        |claim: &Value| amount(field(field(claim, "spec"), "resources"), "requests", "storage").unwrap_or_default();
    if size(claim) <= size(old) {
        return Ok(());
    }
    if text(field(old, "status"), "phase") != "Bound" {
        return Err(a.forbidden(claim, "Only bound persistent volume claims can be expanded"));
    }
    let (class, before) = (class_of(claim), class_of(old));
    let allowed = !class.is_empty() && class == before && {
        let found = find(lookup, STORAGE_CLASSES, "", class).await?;
        found.is_some_and(|class| parsed::<Class>(&class).allow_volume_expansion == Some(true))
    };
    if allowed {
        return Ok(());
    }
    let why = "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support \
               resize";
    Err(a.forbidden(claim, why))
}
