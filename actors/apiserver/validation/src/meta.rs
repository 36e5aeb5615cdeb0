//! `metadata`, which all kinds have in common.

use std::collections::BTreeSet;

use k3sd_objects::names::{self, Faults};
use k3sd_objects::status::field::Error;
use serde_json::Value;

use super::read::{At, Errors, same};

/// How the name of an object is checked; of `generateName`, whatever random letters can't repair.
pub(super) type NameRule = fn(&str) -> Faults;

/// Finalizers that need no prefix.
const STANDARD_FINALIZERS: &[&str] = &["kubernetes", "orphan", "foregroundDeletion"];

/// Longest name of a subresource in `managedFields`.
const SUBRESOURCE_BYTES_MAX: usize = 256;

/// What is said of times and periods of deletion that a client changes.
const BY_DELETION_ONLY: &str = "field is immutable; may only be changed via deletion";

/// The `metadata` of an object that is about to be created, or of one within another object.
pub(super) fn check(meta: &At<'_>, namespaced: bool, rule: NameRule, out: &mut Errors) {
    check_names(meta, namespaced, rule, out);
    meta.not_negative("generation", out);
    check_common(meta, out);
    check_finalizers(meta, out);
    check_managed_fields(meta, out);
    for finalizer in meta.items("finalizers") {
        let text = finalizer.text("");
        if !is_finalizer(text) {
            out.push(finalizer.invalid("", NO_FINALIZER));
        }
    }
}

/// What is said of a finalizer that nobody can tell the owner of.
pub(super) const NO_FINALIZER: &str = "name is neither a standard finalizer name nor is it fully qualified";

/// Whether a finalizer has a prefix, or needs none.
pub(super) fn is_finalizer(text: &str) -> bool {
    text.contains('/') || STANDARD_FINALIZERS.contains(&text)
}

fn check_names(meta: &At<'_>, namespaced: bool, rule: NameRule, out: &mut Errors) {
    if !meta.text("generateName").is_empty() {
        meta.syntax("generateName", |prefix| rule(&names::as_prefix(prefix)), out);
    }
    if meta.text("name").is_empty() {
        out.push(meta.required("name", "name or generateName is required"));
    } else {
        meta.syntax("name", rule, out);
    }
    match (namespaced, meta.text("namespace").is_empty()) {
        (true, true) => out.push(meta.required("namespace", "")),
        (true, false) => meta.syntax("namespace", names::dns_label, out),
        (false, false) => out.push(meta.forbidden("namespace", "not allowed on this type")),
        (false, true) => {}
    }
}

/// What is checked alike on creation and on updates.
fn check_common(meta: &At<'_>, out: &mut Errors) {
    check_labels(meta, "labels", out);
    if let Some(annotations) = meta.get("annotations").as_object() {
        out.extend(names::check_annotations(annotations, &meta.place("annotations")));
    }
    check_owners(meta, out);
}

/// A map of labels.
pub(super) fn check_labels(at: &At<'_>, name: &str, out: &mut Errors) {
    if let Some(labels) = at.get(name).as_object() {
        out.extend(names::check_labels(labels, &at.place(name)));
    }
}

fn check_owners(meta: &At<'_>, out: &mut Errors) {
    let path = meta.place("ownerReferences");
    let mut controller: Option<&str> = None;
    for owner in meta.items("ownerReferences") {
        // Upstream doesn't say which one of the list it is.
        let owner = At { value: owner.value, path: path.clone() };
        check_owner(&owner, out);
        if !owner.flag("controller") {
            continue;
        }
        if let Some(first) = controller {
            let detail = format!(
                "Only one reference can have Controller set to true. Found \"true\" in references for {first} and {}",
                owner.text("name")
            );
            out.push(meta.invalid("ownerReferences", detail));
        } else {
            controller = Some(owner.text("name"));
        }
    }
}

fn check_owner(owner: &At<'_>, out: &mut Errors) {
    let version = owner.text("apiVersion");
    if version.is_empty() || version.ends_with('/') || version.matches('/').count() > 1 {
        out.push(owner.invalid("apiVersion", "version must not be empty"));
    }
    for name in ["kind", "name", "uid"] {
        if owner.text(name).is_empty() {
            out.push(owner.invalid(name, "must not be empty"));
        }
    }
    if (version, owner.text("kind")) == ("v1", "Event") {
        out.push(owner.invalid("", "/v1, Kind=Event is disallowed from being an owner"));
    }
}

fn check_finalizers(meta: &At<'_>, out: &mut Errors) {
    let path = meta.place("finalizers");
    for finalizer in meta.texts("finalizers") {
        out.extend(names::check_label_key(finalizer, &path));
    }
    if ["orphan", "foregroundDeletion"].iter().all(|name| meta.texts("finalizers").any(|text| text == *name)) {
        out.push(meta.invalid("finalizers", "finalizers foregroundDeletion and orphan cannot be both set"));
    }
}

fn check_managed_fields(meta: &At<'_>, out: &mut Errors) {
    for entry in meta.items("managedFields") {
        if !["Apply", "Update"].contains(&entry.text("operation")) {
            out.push(entry.invalid("operation", "must be `Apply` or `Update`"));
        }
        if !["", "FieldsV1"].contains(&entry.text("fieldsType")) {
            out.push(entry.invalid("fieldsType", "must be `FieldsV1`"));
        }
        out.extend(names::check_field_manager(entry.text("manager"), &entry.place("manager")));
        if entry.text("subresource").len() > SUBRESOURCE_BYTES_MAX {
            out.push(Error::too_long(&entry.place("subresource"), SUBRESOURCE_BYTES_MAX));
        }
    }
}

/// The `metadata` of an object that takes the place of another. What a client left out of uid and creation time counts
/// as unchanged.
pub(super) fn check_update(meta: &At<'_>, old: &At<'_>, out: &mut Errors) {
    check_deletion(meta, old, out);
    let generation = |at: &At<'_>| at.number("generation").unwrap_or_default();
    if generation(meta) < generation(old) {
        out.push(meta.invalid_number("generation", "must not be decremented"));
    }
    meta.immutable(old, "name", out);
    meta.immutable(old, "namespace", out);
    for name in ["uid", "creationTimestamp"] {
        if !meta.text(name).is_empty() {
            meta.immutable(old, name, out);
        }
    }
    check_common(meta, out);
    check_managed_fields(meta, out);
}

fn check_deletion(meta: &At<'_>, old: &At<'_>, out: &mut Errors) {
    for name in ["deletionGracePeriodSeconds", "deletionTimestamp"] {
        let changed = meta.has(name) && !same(meta.get(name), old.get(name));
        if changed && (name == "deletionGracePeriodSeconds" || !old.has(name)) {
            out.push(meta.invalid(name, BY_DELETION_ONLY));
        }
    }
    if !old.has("deletionTimestamp") {
        return;
    }
    let before: BTreeSet<&str> = old.texts("finalizers").collect();
    let added: BTreeSet<&str> = meta.texts("finalizers").filter(|text| !before.contains(text)).collect();
    if !added.is_empty() {
        let added: Vec<String> = added.into_iter().map(|text| Value::from(text).to_string()).collect();
        let detail = format!(
            "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
            added.join(", ")
        );
        out.push(meta.forbidden("finalizers", detail));
    }
}
