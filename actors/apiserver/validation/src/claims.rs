//! PersistentVolumeClaims: what is asked of a volume, and how far that may change.

use k3sd_objects::names;
use k3sd_objects::quantity::Quantity;
use k3sd_objects::status::field::{Error, Path};
use serde_json::Value;

use super::Context;
use super::pod::check_selector;
use super::read::{At, Errors, IMMUTABLE, same};
use super::resources;
use super::volumes::{VOLUME_MODES, check_basic, check_known_access_modes, check_positive, keep};

/// The annotation that named a class before there was a field for it.
const CLASS_ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";

/// What is said of any change that isn't one of the few that are free.
const FROZEN: &str =
    "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims";

/// How far a claim has grown, sorted as messages list it.
const GROWTH: &[&str] = &[
    "ControllerResizeInProgress",
    "ControllerResizeInfeasible",
    "NodeResizeInProgress",
    "NodeResizeInfeasible",
    "NodeResizePending",
];

/// A PersistentVolumeClaim.
pub(super) fn check(object: &At<'_>, _: &Context, out: &mut Errors) {
    let spec = object.field("spec");
    if spec.count("accessModes") == 0 {
        out.push(spec.required("accessModes", "at least 1 access mode is required"));
    }
    check_selector(&spec, "selector", out);
    check_known_access_modes(&spec, out);
    check_storage(&spec, out);
    spec.optional("storageClassName", names::dns_subdomain, out);
    spec.optional_of("volumeMode", VOLUME_MODES, out);
    check_data(&spec, out);
    spec.optional("volumeAttributesClassName", names::dns_subdomain, out);
}

/// How much is asked for. Upstream leaves `requests` out of the path.
fn check_storage(spec: &At<'_>, out: &mut Errors) {
    let requests = spec.field("resources").field("requests");
    let storage = At { value: requests.get("storage"), path: spec.place("resources").key("storage") };
    if storage.value.is_null() {
        out.push(storage.required("", ""));
    } else if check_positive(&storage, out) {
        resources::check_amount("storage", &storage, out);
    }
}

/// What the volume is filled from.
fn check_data(spec: &At<'_>, out: &mut Errors) {
    for name in ["dataSource", "dataSourceRef"] {
        let Some(source) = spec.set(name) else { continue };
        for part in ["name", "kind"].into_iter().filter(|part| source.text(part).is_empty()) {
            out.push(source.required(part, ""));
        }
        if source.text("apiGroup").is_empty() && source.text("kind") != "PersistentVolumeClaim" {
            let detail = "must be 'PersistentVolumeClaim' when referencing the default apiGroup";
            out.push(Error::invalid(&source.path, source.text("kind"), detail));
        }
        source.optional("apiGroup", names::dns_subdomain, out);
        if name == "dataSourceRef" {
            source.optional("namespace", names::dns_label, out);
        }
    }
    let (Some(source), Some(reference)) = (spec.set("dataSource"), spec.set("dataSourceRef")) else { return };
    let detail = if !reference.text("namespace").is_empty() {
        "may not be specified when dataSourceRef.namespace is specified"
    } else if ["apiGroup", "kind", "name"].iter().any(|part| !same(source.get(part), reference.get(part))) {
        "must match dataSourceRef"
    } else {
        return;
    };
    out.push(Error::invalid(&spec.path, spec.place("dataSource").to_string(), detail));
}

/// A PersistentVolumeClaim that takes the place of another.
pub(super) fn update(new: &At<'_>, old: &At<'_>, context: &Context, out: &mut Errors) {
    check(new, context, out);
    let (spec, before) = (new.field("spec"), old.field("spec"));
    let class = |claim: &At<'_>| claim.field("metadata").field("annotations").get(CLASS_ANNOTATION).clone();
    let (annotated, annotated_before) = (class(new), class(old));
    if !moves_class(&spec, &before, &annotated, &annotated_before) && !same(&annotated, &annotated_before) {
        let path = Path::new("metadata").child("annotations").child(CLASS_ANNOTATION);
        out.push(Error::invalid(&path, annotated.as_str().unwrap_or_default(), IMMUTABLE));
    }
    let (kept, expected) = comparable(new, old, &annotated_before);
    if !same(&kept, &expected) {
        out.push(spec.forbidden("", FROZEN));
    }
    check_size(new, old, out);
    keep(&spec, &before, "volumeMode", out);
    let class = "volumeAttributesClassName";
    if before.has(class) && !spec.has(class) {
        out.push(spec.forbidden(class, "update from non-nil value to nil is forbidden"));
    } else if before.has(class) && spec.text(class).is_empty() && !before.text(class).is_empty() {
        out.push(spec.forbidden(class, "update from non-nil value to an empty string is forbidden"));
    }
}

/// Whether the name of a class moves from the annotation to the field.
fn moves_class(spec: &At<'_>, before: &At<'_>, annotated: &Value, annotated_before: &Value) -> bool {
    let named = spec.get("storageClassName");
    !annotated_before.is_null()
        && !before.has("storageClassName")
        && named == annotated_before
        && (annotated.is_null() || annotated == annotated_before)
}

/// Both specs, made equal where changes are free: a volume and a class are named once, and what is bound may grow.
fn comparable(new: &At<'_>, old: &At<'_>, annotated: &Value) -> (Value, Value) {
    let (spec, before) = (new.field("spec"), old.field("spec"));
    let (mut kept, mut expected) = (spec.value.clone(), before.value.clone());
    if before.text("volumeName").is_empty() {
        put(&mut expected, "volumeName", spec.get("volumeName"));
    }
    let class = spec.get("storageClassName");
    if !before.has("storageClassName") && (annotated.is_null() || annotated == class) {
        put(&mut kept, "storageClassName", &Value::Null);
    }
    if new.field("status").text("phase") == "Bound" {
        let size = before.field("resources").field("requests").get("storage");
        if let Some(requests) = kept.pointer_mut("/resources/requests") {
            put(requests, "storage", size);
        }
        if spec.has("volumeAttributesClassName") {
            put(&mut kept, "volumeAttributesClassName", before.get("volumeAttributesClassName"));
        }
    }
    (kept, expected)
}

/// Sets a field of an object, or takes it away if the value is null.
fn put(object: &mut Value, name: &str, value: &Value) {
    let Some(fields) = object.as_object_mut() else { return };
    if value.is_null() {
        fields.remove(name);
    } else {
        fields.insert(name.to_owned(), value.clone());
    }
}

/// A claim may shrink only while growing it has not come to anything, and not to what it has already.
fn check_size(new: &At<'_>, old: &At<'_>, out: &mut Errors) {
    let amount = |at: At<'_>| at.quantity("storage").unwrap_or(Quantity::ZERO);
    let asked = |claim: &At<'_>| amount(claim.field("spec").field("resources").field("requests"));
    let has = amount(old.field("status").field("capacity"));
    if asked(new) < asked(old) && asked(new) <= has {
        let requests = new.field("spec").field("resources").field("requests");
        out.push(requests.forbidden("storage", "field can not be less than status.capacity"));
    }
}

/// The status of a PersistentVolumeClaim.
pub(super) fn check_status(new: &At<'_>, _: &At<'_>, _: &Context, out: &mut Errors) {
    if new.field("spec").count("accessModes") == 0 {
        out.push(Error::required(&Path::new("Spec").child("accessModes"), ""));
    }
    let status = new.field("status");
    for (_, amount) in status.entries("capacity") {
        check_basic(&amount, out);
    }
    // Upstream names this field in the singular.
    let path = status.place("allocatedResourceStatus");
    for (name, growth) in status.entries("allocatedResourceStatuses") {
        check_resource(name, &path, out);
        if !GROWTH.contains(&growth.text("")) {
            out.push(Error::not_supported(&path, name, GROWTH));
        }
    }
    for (name, amount) in status.entries("allocatedResources") {
        if !check_resource(name, &status.place("allocatedResources"), out) {
            continue;
        }
        let before = out.len();
        check_basic(&amount, out);
        if out.len() == before {
            resources::check_amount("storage", &amount, out);
        }
    }
}

/// The name of something that claims have: storage, or what a driver calls its own. Whether it was one.
fn check_resource(name: &str, path: &Path, out: &mut Errors) -> bool {
    let faults = names::qualified_name(name);
    let fine = faults.is_empty();
    out.extend(faults.into_iter().map(|fault| Error::invalid(path, name, fault)));
    let native = !name.contains('/') || name.contains("kubernetes.io/");
    if fine && native && name != "storage" {
        out.push(Error::not_supported(path, name, &["storage"]));
        return false;
    }
    fine
}
