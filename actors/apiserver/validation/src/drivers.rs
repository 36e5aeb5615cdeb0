//! Drivers of volumes (CSI): what they can, where they run, what room they have, what they attached; and the classes of
//! attributes that they know.

use std::collections::BTreeSet;

use k3sd_objects::names;
use k3sd_objects::status::field::Error;

use super::Context;
use super::pod::check_selector;
use super::read::{At, Errors, IMMUTABLE, NOT_NEGATIVE, same};
use super::storage::check_parameters;
use super::volumes::{check_driver, check_inline};

/// Longest name that a driver has for a node, in bytes.
const NODE_ID_BYTES_MAX: usize = 192;

/// What a driver may tell of an attached volume, keys and values, in bytes; upstream names this for errors, too.
const ATTACHED_BYTES_MAX: usize = 256 << 10;

/// Longest message of an error, in bytes.
const MESSAGE_BYTES_MAX: usize = 1024;

/// Seconds that a token of a driver is good for, at least.
const TOKEN_SECONDS_MIN: i64 = 600;

/// Seconds that a token of a driver is good for, at most.
const TOKEN_SECONDS_MAX: i64 = 1 << 32;

/// Seconds between two looks at the room that a node has, at least.
const UPDATE_SECONDS_MIN: i64 = 10;

/// A CSIDriver. Upstream misspells the first field in its errors.
pub(super) fn check_csi_driver(object: &At<'_>, _: &Context, out: &mut Errors) {
    let spec = object.field("spec");
    if !spec.has("attachRequired") {
        out.push(spec.required("attachedRequired", ""));
    }
    for name in ["podInfoOnMount", "storageCapacity"].into_iter().filter(|name| !spec.has(name)) {
        out.push(spec.required(name, ""));
    }
    spec.optional_of("fsGroupPolicy", &["File", "None", "ReadWriteOnceWithFSType"], out);
    check_tokens(&spec, out);
    for mode in spec.texts("volumeLifecycleModes") {
        if !["Persistent", "Ephemeral"].contains(&mode) {
            let path = spec.place("volumeLifecycleModes");
            out.push(Error::not_supported(&path, mode, &["Persistent", "Ephemeral"]));
        }
    }
    if !spec.has("seLinuxMount") {
        out.push(spec.required("seLinuxMount", ""));
    }
    if spec.number("nodeAllocatableUpdatePeriodSeconds").is_some_and(|seconds| seconds < UPDATE_SECONDS_MIN) {
        let detail = "must be greater than or equal to 10 seconds";
        out.push(spec.invalid("nodeAllocatableUpdatePeriodSeconds", detail));
    }
}

fn check_tokens(spec: &At<'_>, out: &mut Errors) {
    let mut seen = BTreeSet::new();
    for token in spec.items("tokenRequests") {
        if !seen.insert(token.text("audience")) {
            out.push(token.duplicate("audience"));
            continue;
        }
        let Some(seconds) = token.number("expirationSeconds") else { continue };
        if seconds < TOKEN_SECONDS_MIN {
            out.push(token.invalid("expirationSeconds", "may not specify a duration less than 10 minutes"));
        }
        if seconds > TOKEN_SECONDS_MAX {
            out.push(token.invalid("expirationSeconds", "may not specify a duration larger than 2^32 seconds"));
        }
    }
}

/// A CSIDriver that takes the place of another: how its volumes live stays.
pub(super) fn update_csi_driver(new: &At<'_>, old: &At<'_>, context: &Context, out: &mut Errors) {
    check_csi_driver(new, context, out);
    let (spec, before) = (new.field("spec"), old.field("spec"));
    if !same(spec.get("attachRequired"), before.get("attachRequired")) {
        let shown = spec.get("attachRequired").clone();
        out.push(Error::invalid(&spec.place("attachedRequired"), shown, IMMUTABLE));
    }
    spec.immutable(&before, "volumeLifecycleModes", out);
}

/// A CSINode.
pub(super) fn check_csi_node(object: &At<'_>, _: &Context, out: &mut Errors) {
    let mut seen = BTreeSet::new();
    for driver in object.field("spec").items("drivers") {
        check_driver(&driver, "name", out);
        let id = driver.text("nodeID");
        if id.is_empty() {
            out.push(driver.required("nodeID", ""));
        }
        if id.len() > NODE_ID_BYTES_MAX {
            out.push(driver.invalid("nodeID", format!("must be {NODE_ID_BYTES_MAX} characters or less")));
        }
        driver.field("allocatable").not_negative("count", out);
        if !seen.insert(driver.text("name")) {
            out.push(driver.duplicate("name"));
        }
        check_topology_keys(&driver, out);
    }
}

/// Labels that say where a node is. Upstream doesn't say which one of the list is wrong.
fn check_topology_keys(driver: &At<'_>, out: &mut Errors) {
    let mut seen = BTreeSet::new();
    for key in driver.texts("topologyKeys") {
        if key.is_empty() {
            out.push(driver.required("", ""));
        }
        if !seen.insert(key) {
            out.push(Error::duplicate(&driver.path, key));
        }
        out.extend(names::check_label_key(key, &driver.path));
    }
}

/// A CSINode that takes the place of another: drivers come and go, and are otherwise what they were.
pub(super) fn update_csi_node(new: &At<'_>, old: &At<'_>, context: &Context, out: &mut Errors) {
    check_csi_node(new, context, out);
    let (spec, before) = (new.field("spec"), old.field("spec"));
    for old in before.items("drivers") {
        for new in spec.items("drivers").filter(|new| new.text("name") == old.text("name")) {
            if !same(new.value, old.value) {
                out.push(Error::invalid(&spec.place("drivers"), new.value.clone(), IMMUTABLE));
            }
        }
    }
}

/// A CSIStorageCapacity.
pub(super) fn check_capacity(object: &At<'_>, _: &Context, out: &mut Errors) {
    check_selector(object, "nodeTopology", out);
    object.syntax("storageClassName", names::dns_subdomain, out);
    if object.quantity("capacity").is_some_and(|capacity| capacity.signum() < 0) {
        out.push(object.invalid("capacity", NOT_NEGATIVE));
    }
}

/// A CSIStorageCapacity that takes the place of another: what the driver was asked stays.
pub(super) fn update_capacity(new: &At<'_>, old: &At<'_>, _: &Context, out: &mut Errors) {
    if !same(new.get("nodeTopology"), old.get("nodeTopology")) {
        out.push(Error::invalid(&new.place("nodeTopology"), new.get("nodeTopology").clone(), IMMUTABLE));
    }
    new.immutable(old, "storageClassName", out);
}

/// A VolumeAttachment.
pub(super) fn check_attachment(object: &At<'_>, _: &Context, out: &mut Errors) {
    check_attachment_again(object, out);
    let spec = object.field("spec");
    check_driver(&spec, "attacher", out);
    if spec.field("source").has("persistentVolumeName") {
        spec.field("source").syntax("persistentVolumeName", names::dns_subdomain, out);
    }
}

/// What is asked of an attachment at any time.
fn check_attachment_again(object: &At<'_>, out: &mut Errors) {
    let spec = object.field("spec");
    if spec.text("attacher").is_empty() {
        out.push(spec.required("attacher", ""));
    }
    check_attached(&spec.field("source"), out);
    spec.syntax("nodeName", names::dns_subdomain, out);
    let status = object.field("status");
    check_attached_metadata(&status, out);
    for name in ["attachError", "detachError"] {
        let error = status.field(name);
        if error.text("message").len() > MESSAGE_BYTES_MAX {
            out.push(Error::too_long(&error.place("message"), ATTACHED_BYTES_MAX));
        }
        if error.number("errorCode").is_some_and(|code| code < 0) {
            error.in_range("errorCode", 0, i64::from(i32::MAX), out);
        }
    }
}

fn check_attached(source: &At<'_>, out: &mut Errors) {
    let detail = "must specify exactly one of inlineVolumeSpec and persistentVolumeName";
    match (source.set("inlineVolumeSpec"), source.has("persistentVolumeName")) {
        (None, false) => out.push(source.required("", detail)),
        (Some(_), true) => out.push(source.forbidden("", detail)),
        (Some(spec), false) => check_inline(&spec, out),
        (None, true) => {
            if source.text("persistentVolumeName").is_empty() {
                out.push(source.required("persistentVolumeName", "must specify non empty persistentVolumeName"));
            }
        }
    }
}

fn check_attached_metadata(status: &At<'_>, out: &mut Errors) {
    let bytes: usize = status.entries("attachmentMetadata").map(|(key, value)| key.len() + value.text("").len()).sum();
    if bytes > ATTACHED_BYTES_MAX {
        out.push(Error::too_long(&status.place("attachmentMetadata"), ATTACHED_BYTES_MAX));
    }
}

/// A VolumeAttachment that takes the place of another, as a whole or by its status.
pub(super) fn update_attachment(new: &At<'_>, old: &At<'_>, _: &Context, out: &mut Errors) {
    check_attachment_again(new, out);
    new.immutable(old, "spec", out);
}

/// A VolumeAttributesClass.
pub(super) fn check_attributes(object: &At<'_>, _: &Context, out: &mut Errors) {
    object.name("driverName", |name| names::qualified_name(&name.to_lowercase()), out);
    if object.count("parameters") == 0 {
        out.push(object.required("parameters", "must contain at least one key/value pair"));
    }
    check_parameters(object, out);
}

/// A VolumeAttributesClass that takes the place of another: volumes were made by its terms.
pub(super) fn update_attributes(new: &At<'_>, old: &At<'_>, context: &Context, out: &mut Errors) {
    for name in ["driverName", "parameters"] {
        if !same(new.get(name), old.get(name)) {
            out.push(new.forbidden(name, format!("updates to {name} are forbidden.")));
        }
    }
    check_attributes(new, context, out);
}
