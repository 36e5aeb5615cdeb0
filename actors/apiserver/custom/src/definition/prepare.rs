//! What the server fills into definitions before they are checked.

use serde_json::{Map, Value, json};

/// Holds a deleted definition until its instances are gone.
pub const CLEANUP_FINALIZER: &str = "customresourcecleanup.apiextensions.k8s.io";

/// Where the webhooks of conversion listen, unless they say otherwise.
const WEBHOOK_PORT: u16 = 443;

/// A new definition: defaults of names, a fresh status that names the storage version. The generation is the caller's.
pub fn prepare_create(definition: &mut Value) {
    default_spec(definition);
    let stored: Vec<Value> = storage_version(definition).into_iter().collect();
    if let Some(map) = definition.as_object_mut() {
        map.insert("status".to_owned(), empty_status());
        map["status"]["storedVersions"] = Value::Array(stored);
    }
}

/// A changed definition: its status stays, and a new storage version joins the stored ones.
pub fn prepare_update(definition: &mut Value, old: &Value) {
    default_spec(definition);
    let storage = storage_version(definition);
    let Some(map) = definition.as_object_mut() else { return };
    map.insert("status".to_owned(), old.get("status").cloned().unwrap_or_else(empty_status));
    let stored = &mut map["status"]["storedVersions"];
    if stored.is_null() {
        *stored = Value::Array(Vec::new());
    }
    if let (Some(stored), Some(storage)) = (stored.as_array_mut(), storage)
        && !stored.contains(&storage)
    {
        stored.push(storage);
    }
}

/// A write to the status subresource: `spec` stays as it was. Metadata may change, which is how the finalizer goes.
pub fn update_status(definition: &mut Value, old: &Value) {
    if let (Some(map), Some(spec)) = (definition.as_object_mut(), old.get("spec")) {
        map.insert("spec".to_owned(), spec.clone());
    }
}

/// A definition that is asked to go for the first time: marked, held by [`CLEANUP_FINALIZER`], and saying so. `now` is
/// in RFC 3339 to the second. A definition that is going already stays as it is.
pub fn prepare_delete(definition: &mut Value, now: &str) {
    let Some(metadata) = definition.get_mut("metadata").and_then(Value::as_object_mut) else { return };
    if metadata.contains_key("deletionTimestamp") {
        return;
    }
    metadata.insert("deletionTimestamp".to_owned(), Value::from(now));
    metadata.insert("deletionGracePeriodSeconds".to_owned(), Value::from(0));
    let finalizers = metadata.entry("finalizers").or_insert_with(|| json!([]));
    if let Some(finalizers) = finalizers.as_array_mut()
        && !finalizers.iter().any(|finalizer| finalizer == CLEANUP_FINALIZER)
    {
        finalizers.push(Value::from(CLEANUP_FINALIZER));
    }
    let message = "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon";
    set_condition(definition, "Terminating", "True", "InstanceDeletionPending", message, now);
}

/// Sets a condition. Its time is that of its last change between true and false; `now` is in RFC 3339.
pub(crate) fn set_condition(definition: &mut Value, of: &str, status: &str, reason: &str, message: &str, now: &str) {
    let Some(map) = definition.as_object_mut() else { return };
    let all = map.entry("status").or_insert_with(empty_status);
    if all["conditions"].is_null() {
        all["conditions"] = json!([]);
    }
    let Some(conditions) = all["conditions"].as_array_mut() else { return };
    let mut condition = json!({ "type": of, "status": status, "reason": reason, "message": message });
    match conditions.iter_mut().find(|condition| condition["type"] == of) {
        Some(known) => {
            let since = if known["status"] == status { known["lastTransitionTime"].take() } else { Value::from(now) };
            condition["lastTransitionTime"] = if since.is_null() { Value::from(now) } else { since };
            *known = condition;
        }
        None => {
            condition["lastTransitionTime"] = Value::from(now);
            conditions.push(condition);
        }
    }
}

fn empty_status() -> Value {
    json!({ "acceptedNames": { "kind": "", "plural": "" }, "conditions": [], "storedVersions": [] })
}

/// The name of the version in which instances are stored.
fn storage_version(definition: &Value) -> Option<Value> {
    let versions = definition["spec"]["versions"].as_array()?;
    versions.iter().find(|version| version["storage"] == true).map(|version| version["name"].clone())
}

/// Names that follow from others, and the defaults of conversion.
fn default_spec(definition: &mut Value) {
    let Some(spec) = definition.get_mut("spec").and_then(Value::as_object_mut) else { return };
    if let Some(names) = spec.get_mut("names").and_then(Value::as_object_mut) {
        let kind = names.get("kind").and_then(Value::as_str).unwrap_or_default().to_owned();
        if !kind.is_empty() {
            fill(names, "singular", kind.to_lowercase());
            fill(names, "listKind", format!("{kind}List"));
        }
    }
    let conversion = spec.entry("conversion").or_insert_with(|| json!({ "strategy": "None" }));
    if let Some(service) = conversion.pointer_mut("/webhook/clientConfig/service").and_then(Value::as_object_mut) {
        service.entry("port").or_insert_with(|| Value::from(WEBHOOK_PORT));
    }
}

fn fill(map: &mut Map<String, Value>, name: &str, value: String) {
    if map.get(name).and_then(Value::as_str).is_none_or(str::is_empty) {
        map.insert(name.to_owned(), Value::from(value));
    }
}
