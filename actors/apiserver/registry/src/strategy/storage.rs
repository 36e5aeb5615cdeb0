//! Volumes and claims to them.

use serde_json::{Value, json};

use super::Context;
use crate::meta;

pub(super) fn create_volume(volume: &mut Value, context: &Context<'_>) {
    if let Some(fields) = volume.as_object_mut() {
        let status = json!({ "phase": "Pending", "lastPhaseTransitionTime": context.now });
        fields.insert("status".to_owned(), status);
    }
}

/// Notes when the phase changed, unless the writer says so.
pub(super) fn update_volume_status(new: &mut Value, old: &Value, context: &Context<'_>) {
    let status = |volume: &Value, name| meta::at(volume, &["status", name]).cloned();
    if status(new, "phase") == status(old, "phase") {
        return;
    }
    let said = status(new, "lastPhaseTransitionTime");
    if (said.is_none() || said == status(old, "lastPhaseTransitionTime"))
        && let Some(fields) = meta::part(new, "status")
    {
        fields.insert("lastPhaseTransitionTime".to_owned(), json!(context.now));
    }
}

pub(super) fn create_claim(claim: &mut Value, _: &Context<'_>) {
    if let Some(fields) = claim.as_object_mut() {
        fields.insert("status".to_owned(), json!({ "phase": "Pending" }));
    }
    normalize_sources(claim);
}

pub(super) fn update_claim(claim: &mut Value, _: &Value, _: &Context<'_>) {
    normalize_sources(claim);
}

/// A claim says where its contents come from in two fields, of which the older one can't name every kind.
fn normalize_sources(claim: &mut Value) {
    let Some(spec) = claim.get_mut("spec").and_then(Value::as_object_mut) else { return };
    let get = |name: &str| spec.get(name).filter(|value| !value.is_null()).cloned();
    match (get("dataSource"), get("dataSourceRef")) {
        (Some(source), None) => {
            spec.insert("dataSourceRef".to_owned(), source);
        }
        (None, Some(reference)) if is_old_kind(&reference) => {
            spec.insert("dataSource".to_owned(), reference);
        }
        _ => {}
    }
}

fn is_old_kind(reference: &Value) -> bool {
    let text = |name| reference.get(name).and_then(Value::as_str).unwrap_or_default();
    let known = [("", "PersistentVolumeClaim"), ("snapshot.storage.k8s.io", "VolumeSnapshot")];
    text("namespace").is_empty() && known.contains(&(text("apiGroup"), text("kind")))
}
