//! PersistentVolumes: what they are made of, and what of it stays.

use k3sd_objects::names::{self, Faults};
use k3sd_objects::status::field::{Error, Path};
use serde_json::Value;

use super::Context;
use super::pod::{check_descending, check_node_selector, check_volume_source};
use super::read::{At, Errors, IMMUTABLE, same};

/// The ways to mount a volume, sorted as messages list them.
const ACCESS_MODES: &[&str] = &["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];

/// What a volume is to its pods.
pub(super) const VOLUME_MODES: &[&str] = &["Block", "Filesystem"];

/// Longest name of a driver, in bytes.
const DRIVER_BYTES_MAX: usize = 63;

/// What a PersistentVolume can be, in the order in which a second one is found to be too many.
const SOURCES: &[&str] = &[
    "hostPath",
    "gcePersistentDisk",
    "awsElasticBlockStore",
    "glusterfs",
    "flocker",
    "nfs",
    "rbd",
    "quobyte",
    "cephfs",
    "iscsi",
    "cinder",
    "fc",
    "flexVolume",
    "azureFile",
    "vsphereVolume",
    "photonPersistentDisk",
    "portworxVolume",
    "azureDisk",
    "scaleIO",
    "local",
    "storageos",
    "csi",
];

/// What is said of things that a volume within an attachment has no use for.
const NOT_INLINE: &str = "may not be specified in the context of inline volumes";

/// A PersistentVolume.
pub(super) fn check(object: &At<'_>, _: &Context, out: &mut Errors) {
    let spec = object.field("spec");
    check_access_modes(&spec, "", out);
    check_capacity(&spec, out);
    if !spec.text("persistentVolumeReclaimPolicy").is_empty() {
        spec.one_of("persistentVolumeReclaimPolicy", &["Delete", "Recycle", "Retain"], out);
    }
    let bound_to_nodes = check_nodes(&spec, out);
    check_sources(&spec, bound_to_nodes, out);
    spec.optional("storageClassName", names::dns_subdomain, out);
    spec.optional_of("volumeMode", VOLUME_MODES, out);
    check_attributes_class(&spec, out);
}

/// The spec of a volume that stands in an attachment, without an object of its own.
pub(super) fn check_inline(spec: &At<'_>, out: &mut Errors) {
    if spec.has("claimRef") {
        out.push(spec.forbidden("claimRef", NOT_INLINE));
    }
    if spec.count("capacity") > 0 {
        out.push(spec.forbidden("capacity", NOT_INLINE));
    }
    if !spec.has("csi") {
        out.push(spec.required("csi", "has to be specified in the context of inline volumes"));
    }
    check_access_modes(spec, "", out);
    if !["", "Retain"].contains(&spec.text("persistentVolumeReclaimPolicy")) {
        let detail = "may only be Retain in the context of inline volumes";
        out.push(spec.forbidden("persistentVolumeReclaimPolicy", detail));
    }
    if spec.has("nodeAffinity") {
        out.push(spec.forbidden("nodeAffinity", NOT_INLINE));
    }
    check_sources(spec, false, out);
    if !spec.text("storageClassName").is_empty() {
        out.push(spec.forbidden("storageClassName", NOT_INLINE));
    }
    if spec.has("volumeMode") && spec.text("volumeMode") != "Filesystem" {
        let detail = "may not specify volumeMode other than Filesystem in the context of inline volumes";
        out.push(spec.forbidden("volumeMode", detail));
    }
    check_attributes_class(spec, out);
}

/// `accessModes` of a volume or claim, with what is said where there are none.
pub(super) fn check_access_modes(spec: &At<'_>, absent: &str, out: &mut Errors) {
    if spec.count("accessModes") == 0 {
        out.push(spec.required("accessModes", absent));
    }
    check_known_access_modes(spec, out);
}

/// Those of the modes that are there. Upstream doesn't say which one of the list is wrong.
pub(super) fn check_known_access_modes(spec: &At<'_>, out: &mut Errors) {
    let (mut alone, mut shared) = (false, false);
    for mode in spec.texts("accessModes") {
        if !ACCESS_MODES.contains(&mode) {
            out.push(Error::not_supported(&spec.place("accessModes"), mode, ACCESS_MODES));
        } else if mode == "ReadWriteOncePod" {
            alone = true;
        } else {
            shared = true;
        }
    }
    if alone && shared {
        out.push(spec.forbidden("accessModes", "may not use ReadWriteOncePod with other access modes"));
    }
}

fn check_capacity(spec: &At<'_>, out: &mut Errors) {
    if spec.count("capacity") == 0 {
        out.push(spec.required("capacity", ""));
    }
    if !spec.field("capacity").has("storage") || spec.count("capacity") > 1 {
        let shown = if spec.has("capacity") { spec.get("capacity").clone() } else { Value::Null };
        out.push(Error::not_supported(&spec.place("capacity"), shown, &["storage"]));
    }
    for (_, amount) in spec.entries("capacity") {
        check_basic(&amount, out);
        check_positive(&amount, out);
    }
}

/// An amount that isn't negative, in the words for volumes.
pub(super) fn check_basic(amount: &At<'_>, out: &mut Errors) {
    if let Some(value) = amount.quantity("").map(|amount| amount.value()).filter(|value| *value < 0) {
        out.push(Error::invalid(&amount.path, value, "must be a valid resource quantity"));
    }
}

/// An amount above nothing. Whether that was so.
pub(super) fn check_positive(amount: &At<'_>, out: &mut Errors) -> bool {
    let positive = amount.quantity("").is_none_or(|amount| amount.signum() > 0);
    if !positive {
        out.push(amount.invalid("", "must be greater than zero"));
    }
    positive
}

/// The nodes that a volume can be used on, and whether it says so.
fn check_nodes(spec: &At<'_>, out: &mut Errors) -> bool {
    let Some(affinity) = spec.set("nodeAffinity") else { return false };
    match affinity.set("required") {
        Some(selector) => check_node_selector(&selector, out),
        None => out.push(affinity.required("required", "must specify required node constraints")),
    }
    true
}

fn check_sources(spec: &At<'_>, bound_to_nodes: bool, out: &mut Errors) {
    let mut found = false;
    for name in SOURCES {
        let Some(source) = spec.set(name) else { continue };
        if found && *name != "flexVolume" {
            let shown = if *name == "cephfs" { "cephFS" } else { name };
            out.push(spec.forbidden(shown, "may not specify more than 1 volume type"));
            continue;
        }
        found = true;
        check_source(name, &source, out);
        if *name == "local" && !bound_to_nodes {
            out.push(spec.required("nodeAffinity", "Local volume requires node affinity"));
        }
    }
    if !found {
        out.push(spec.required("", "must specify a volume type"));
    }
    let root = spec.field("hostPath").text("path");
    if root.starts_with('/') && is_root(root) && spec.text("persistentVolumeReclaimPolicy") == "Recycle" {
        let detail = "may not be 'recycle' for a hostPath mount of '/'";
        out.push(spec.forbidden("persistentVolumeReclaimPolicy", detail));
    }
}

/// Whether an absolute path leads nowhere but to the root.
fn is_root(path: &str) -> bool {
    let mut depth = 0_usize;
    for step in path.split('/').filter(|step| !step.is_empty() && *step != ".") {
        depth = if step == ".." { depth.saturating_sub(1) } else { depth + 1 };
    }
    depth == 0
}

fn check_source(name: &str, source: &At<'_>, out: &mut Errors) {
    match name {
        "local" => {
            if source.text("path").is_empty() {
                out.push(source.required("path", ""));
            } else {
                check_descending(source, "path", out);
            }
        }
        "csi" => check_csi(source, out),
        "azureFile" => {
            check_volume_source(name, source, out);
            if source.has("secretNamespace") && source.text("secretNamespace").is_empty() {
                out.push(source.required("secretNamespace", ""));
            }
        }
        _ => check_volume_source(name, source, out),
    }
}

/// The name of a driver.
pub(super) fn check_driver(at: &At<'_>, name: &str, out: &mut Errors) {
    let text = at.text(name);
    if text.is_empty() {
        out.push(at.required(name, ""));
    }
    if text.len() > DRIVER_BYTES_MAX {
        out.push(Error::too_long(&at.place(name), DRIVER_BYTES_MAX));
    }
    let rule = |text: &str| -> Faults { names::dns_subdomain(&text.to_lowercase()) };
    at.syntax(name, rule, out);
}

fn check_csi(source: &At<'_>, out: &mut Errors) {
    check_driver(source, "driver", out);
    if source.text("volumeHandle").is_empty() {
        out.push(source.required("volumeHandle", ""));
    }
    for name in
        ["controllerPublishSecretRef", "controllerExpandSecretRef", "nodePublishSecretRef", "nodeExpandSecretRef"]
    {
        let Some(secret) = source.set(name) else { continue };
        for part in ["name", "namespace"].into_iter().filter(|part| secret.text(part).is_empty()) {
            out.push(secret.required(part, ""));
        }
    }
}

fn check_attributes_class(spec: &At<'_>, out: &mut Errors) {
    if !spec.has("volumeAttributesClassName") {
        return;
    }
    if spec.text("volumeAttributesClassName").is_empty() {
        out.push(spec.required("volumeAttributesClassName", "an empty string is disallowed"));
    } else {
        spec.syntax("volumeAttributesClassName", names::dns_subdomain, out);
    }
    if !spec.has("csi") {
        out.push(spec.required("csi", "has to be specified when using volumeAttributesClassName"));
    }
}

/// A PersistentVolume that takes the place of another. Upstream leaves `spec` out of some of the paths.
pub(super) fn update(new: &At<'_>, old: &At<'_>, context: &Context, out: &mut Errors) {
    check(new, context, out);
    let (spec, before) = (new.field("spec"), old.field("spec"));
    if SOURCES.iter().any(|name| !same(&source_of(&spec, &before, name), before.get(name))) {
        let detail = "spec.persistentvolumesource is immutable after creation";
        out.push(spec.forbidden("persistentvolumesource", detail));
    }
    keep(&spec, &before, "volumeMode", out);
    if before.has("nodeAffinity") {
        keep(&spec, &before, "nodeAffinity", out);
    }
    if before.has("volumeAttributesClassName") && !spec.has("volumeAttributesClassName") {
        out.push(spec.forbidden("volumeAttributesClassName", "update from non-nil value to nil is forbidden"));
    }
}

/// A source, without the secret for growing if the old one had none: that may be added.
fn source_of(spec: &At<'_>, before: &At<'_>, name: &str) -> Value {
    let mut source = spec.get(name).clone();
    let grows = before.field("csi").has("controllerExpandSecretRef");
    if let Some(fields) = source.as_object_mut().filter(|_| name == "csi" && !grows) {
        fields.remove("controllerExpandSecretRef");
    }
    source
}

/// A field that stays, in an error without `spec` in its path.
pub(super) fn keep(spec: &At<'_>, before: &At<'_>, name: &str, out: &mut Errors) {
    if !same(spec.get(name), before.get(name)) {
        out.push(Error::invalid(&Path::new(name), spec.get(name).clone(), IMMUTABLE));
    }
}
