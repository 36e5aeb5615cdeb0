//! Jobs and DaemonSets.

use k3sd_objects::apply::equal;
use serde_json::{Map, Value, json};

use super::Context;
use crate::meta;

/// Labels of a job's pods that hold its name: of today, and of old.
const NAME_LABELS: &[&str] = &["batch.kubernetes.io/job-name", "job-name"];

/// The same for its uid. The first one selects the pods.
const UID_LABELS: &[&str] = &["batch.kubernetes.io/controller-uid", "controller-uid"];

/// Where the generation of a DaemonSet's template is kept since it lost its field.
const TEMPLATE_GENERATION: &str = "deprecated.daemonset.template.generation";

pub(super) fn create_job(job: &mut Value, _: &Context<'_>) {
    let is_manual = meta::at(job, &["spec", "manualSelector"]).and_then(Value::as_bool).unwrap_or_default();
    if is_manual {
        return;
    }
    let (name, uid) = (meta::text(job, "name").to_owned(), meta::text(job, "uid").to_owned());
    let Some(spec) = meta::part(job, "spec") else { return };
    let labels = object(spec, "template")
        .and_then(|template| object(template, "metadata"))
        .and_then(|metadata| object(metadata, "labels"));
    if let Some(labels) = labels {
        // What a user says here is kept, and refused by validation if it is wrong.
        for (keys, value) in [(NAME_LABELS, &name), (UID_LABELS, &uid)] {
            for key in keys {
                labels.entry(*key).or_insert_with(|| json!(value));
            }
        }
    }
    let selector = object(spec, "selector").and_then(|selector| object(selector, "matchLabels"));
    if let Some(labels) = selector {
        labels.entry(UID_LABELS[0]).or_insert_with(|| json!(uid));
    }
}

/// The object under a field, made if there is none.
fn object<'a>(fields: &'a mut Map<String, Value>, name: &str) -> Option<&'a mut Map<String, Value>> {
    let value = fields.entry(name).or_insert_with(|| json!({}));
    if value.is_null() {
        *value = json!({});
    }
    value.as_object_mut()
}

pub(super) fn create_daemon_set(set: &mut Value, _: &Context<'_>) {
    // A client that brings an old object over keeps its count.
    if template_generation(set) < 1 {
        set_template_generation(set, 1);
    }
}

pub(super) fn update_daemon_set(new: &mut Value, old: &Value, _: &Context<'_>) {
    let template = |set: &Value| meta::at(set, &["spec", "template"]).cloned().unwrap_or_default();
    let changed = !equal(&template(new), &template(old));
    set_template_generation(new, template_generation(old).saturating_add(i64::from(changed)));
}

fn template_generation(set: &Value) -> i64 {
    let text = meta::at(set, &["metadata", "annotations"]).and_then(|all| all.get(TEMPLATE_GENERATION));
    text.and_then(Value::as_str).and_then(|text| text.parse().ok()).unwrap_or_default()
}

fn set_template_generation(set: &mut Value, generation: i64) {
    if let Some(annotations) = meta::of(set).and_then(|metadata| object(metadata, "annotations")) {
        annotations.insert(TEMPLATE_GENERATION.to_owned(), json!(generation.to_string()));
    }
}
