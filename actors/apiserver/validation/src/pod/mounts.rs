//! Where a container has the volumes of its pod.

use k3sd_objects::names::Faults;
use k3sd_objects::status::field::Error;

use super::super::read::{At, Errors};
use super::Pod;

/// `volumeMounts` and `volumeDevices` of a container.
pub(super) fn check(container: &At<'_>, pod: &Pod<'_>, out: &mut Errors) {
    let mut paths: Vec<&str> = Vec::new();
    for mount in container.items("volumeMounts") {
        check_mount(container, &mount, pod, &mut paths, out);
    }
    check_devices(container, pod, out);
}

fn check_mount<'a>(container: &At<'a>, mount: &At<'a>, pod: &Pod<'_>, paths: &mut Vec<&'a str>, out: &mut Errors) {
    let (name, path) = (mount.text("name"), mount.text("mountPath"));
    if name.is_empty() {
        out.push(mount.required("name", ""));
    }
    if pod.volume(name).is_none() {
        out.push(Error::not_found(&mount.place("name"), name));
    }
    if path.is_empty() {
        out.push(mount.required("mountPath", ""));
    }
    if paths.contains(&path) {
        out.push(mount.invalid("mountPath", "must be unique"));
    }
    paths.push(path);
    if container.items("volumeDevices").any(|device| device.text("name") == name) {
        out.push(mount.invalid("name", "must not already exist in volumeDevices"));
    }
    if container.items("volumeDevices").any(|device| device.text("devicePath") == path) {
        out.push(mount.invalid("mountPath", "must not already exist as a path in volumeDevices"));
    }
    mount.optional("subPath", descending, out);
    if !mount.text("subPathExpr").is_empty() {
        if !mount.text("subPath").is_empty() {
            out.push(mount.invalid("subPathExpr", "subPathExpr and subPath are mutually exclusive"));
        }
        mount.syntax("subPathExpr", descending, out);
    }
    check_propagation(container, mount, out);
    check_recursive(mount, out);
}

fn check_propagation(container: &At<'_>, mount: &At<'_>, out: &mut Errors) {
    mount.optional_of("mountPropagation", &["Bidirectional", "HostToContainer", "None"], out);
    let privileged = container.field("securityContext").flag("privileged");
    if mount.text("mountPropagation") == "Bidirectional" && !privileged {
        let detail = "Bidirectional mount propagation is available only to privileged containers";
        out.push(mount.forbidden("mountPropagation", detail));
    }
}

fn check_recursive(mount: &At<'_>, out: &mut Errors) {
    let name = "recursiveReadOnly";
    mount.optional_of(name, &["Disabled", "Enabled", "IfPossible"], out);
    if !["Enabled", "IfPossible"].contains(&mount.text(name)) {
        return;
    }
    if !mount.flag("readOnly") {
        out.push(mount.forbidden(name, "may only be specified when readOnly is true"));
    }
    if !["", "None"].contains(&mount.text("mountPropagation")) {
        let detail = "may only be specified when mountPropagation is None or not specified";
        out.push(mount.forbidden(name, detail));
    }
}

fn check_devices(container: &At<'_>, pod: &Pod<'_>, out: &mut Errors) {
    let mut seen: Vec<(&str, &str)> = Vec::new();
    for device in container.items("volumeDevices") {
        let (name, path) = (device.text("name"), device.text("devicePath"));
        if name.is_empty() {
            out.push(device.required("name", ""));
        }
        if seen.iter().any(|(other, _)| *other == name) {
            out.push(device.invalid("name", "must be unique"));
        }
        match pod.volume(name) {
            None => out.push(Error::not_found(&device.place("name"), name)),
            Some(volume) if !volume.has("persistentVolumeClaim") && !volume.has("ephemeral") => {
                let detail = "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode";
                out.push(device.invalid("name", detail));
            }
            Some(_) => {}
        }
        if path.is_empty() {
            out.push(device.required("devicePath", ""));
        }
        if seen.iter().any(|(_, other)| *other == path) {
            out.push(device.invalid("devicePath", "must be unique"));
        }
        if steps_back(path) {
            out.push(device.invalid("devicePath", "can not contain backsteps ('..')"));
        }
        if container.items("volumeMounts").any(|mount| mount.text("name") == name) {
            out.push(device.invalid("name", "must not already exist in volumeMounts"));
        }
        if container.items("volumeMounts").any(|mount| mount.text("mountPath") == path) {
            out.push(device.invalid("devicePath", "must not already exist as a path in volumeMounts"));
        }
        seen.push((name, path));
    }
}

/// Whether a path leaves its directory on the way.
pub(super) fn steps_back(path: &str) -> bool {
    path.split('/').any(|part| part == "..")
}

/// A path below where it begins.
pub(super) fn descending(path: &str) -> Faults {
    let mut faults = Faults::new();
    if path.starts_with('/') {
        faults.push("must be a relative path".to_owned());
    }
    if steps_back(path) {
        faults.push("must not contain '..'".to_owned());
    }
    faults
}

/// A path below where it begins that isn't a hidden one of the volume's machinery.
pub(super) fn file_name(path: &str) -> Faults {
    let mut faults = descending(path);
    if path.starts_with("..") && !path.starts_with("../") {
        faults.push("must not start with '..'".to_owned());
    }
    faults
}
