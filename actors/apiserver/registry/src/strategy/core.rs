//! Namespaces, and the services of the API itself.

use serde_json::{Value, json};

use super::Context;
use crate::meta;

/// The label by which selectors find a namespace under its name.
const NAME_LABEL: &str = "kubernetes.io/metadata.name";

/// The finalizer of whoever empties namespaces.
const NAMESPACE_FINALIZER: &str = "kubernetes";

pub(super) fn create_namespace(namespace: &mut Value, _: &Context<'_>) {
    name_label(namespace);
    if let Some(fields) = namespace.as_object_mut() {
        fields.insert("status".to_owned(), json!({ "phase": "Active" }));
    }
    let Some(spec) = meta::part(namespace, "spec") else { return };
    let finalizers = spec.entry("finalizers").or_insert_with(|| json!([]));
    if !finalizers.is_array() {
        *finalizers = json!([]);
    }
    if let Some(list) = finalizers.as_array_mut()
        && !list.iter().any(|finalizer| finalizer == NAMESPACE_FINALIZER)
    {
        list.push(json!(NAMESPACE_FINALIZER));
    }
}

pub(super) fn update_namespace(new: &mut Value, old: &Value, _: &Context<'_>) {
    meta::copy_field(new, old, "spec");
    name_label(new);
}

fn name_label(namespace: &mut Value) {
    let name = meta::text(namespace, "name").to_owned();
    let Some(metadata) = meta::of(namespace) else { return };
    let labels = metadata.entry("labels").or_insert_with(|| json!({}));
    if labels.is_null() {
        *labels = json!({});
    }
    if let Some(labels) = labels.as_object_mut()
        && !name.is_empty()
    {
        labels.insert(NAME_LABEL.to_owned(), json!(name));
    }
}

pub(super) fn update_namespace_finalizers(new: &mut Value, old: &Value) {
    meta::copy_field(new, old, "status");
}

/// A service of the API that is served in this process is there at once.
pub(super) fn create_api_service(service: &mut Value, context: &Context<'_>) {
    if meta::at(service, &["spec", "service"]).is_some() {
        return;
    }
    let condition = json!({
        "type": "Available",
        "status": "True",
        "lastTransitionTime": context.now,
        "reason": "Local",
        "message": "Local APIServices are always available",
    });
    if let Some(fields) = service.as_object_mut() {
        fields.insert("status".to_owned(), json!({ "conditions": [condition] }));
    }
}
