//! The containers of a pod: regular, init and ephemeral ones.

use std::collections::BTreeSet;

use k3sd_objects::names;
use k3sd_objects::status::field::Error;

use super::super::Context;
use super::super::read::{At, Errors};
use super::super::resources;
use super::{Pod, environment, mounts, probes, security};

/// Fields that an ephemeral container may have.
const EPHEMERAL_FIELDS: &[&str] = &[
    "name",
    "image",
    "command",
    "args",
    "workingDir",
    "envFrom",
    "env",
    "volumeMounts",
    "volumeDevices",
    "terminationMessagePath",
    "terminationMessagePolicy",
    "imagePullPolicy",
    "securityContext",
    "stdin",
    "stdinOnce",
    "tty",
    "targetContainerName",
];

/// All containers of a pod or of a template.
pub(super) fn check(pod: &Pod<'_>, context: &Context, out: &mut Errors) {
    check_regular(pod, context, out);
    check_init(pod, context, out);
    check_ephemeral(pod, context, out);
}

fn check_regular(pod: &Pod<'_>, context: &Context, out: &mut Errors) {
    if pod.spec.count("containers") == 0 {
        out.push(pod.spec.required("containers", ""));
        return;
    }
    let mut seen = BTreeSet::new();
    for container in pod.spec.items("containers") {
        check_common(&container, pod, context, out);
        if !seen.insert(container.text("name")) {
            out.push(container.duplicate("name"));
        }
        probes::check(&container, pod.grace, out);
        if container.has("restartPolicy") {
            out.push(container.forbidden("restartPolicy", "may not be set for non-init containers"));
        }
    }
    let mut ports = BTreeSet::new();
    for container in pod.spec.items("containers") {
        check_host_ports(&container, &mut ports, out);
    }
}

fn check_init(pod: &Pod<'_>, context: &Context, out: &mut Errors) {
    let mut seen: BTreeSet<&str> = pod.names(&["containers"]);
    for container in pod.spec.items("initContainers") {
        check_common(&container, pod, context, out);
        container.optional_of("restartPolicy", &["Always"], out);
        let name = container.text("name");
        if !name.is_empty() && !seen.insert(name) {
            out.push(container.duplicate("name"));
        }
        check_host_ports(&container, &mut BTreeSet::new(), out);
        if container.text("restartPolicy") == "Always" {
            probes::check(&container, pod.grace, out);
            continue;
        }
        for name in ["lifecycle", "livenessProbe", "readinessProbe", "startupProbe"] {
            if container.has(name) {
                let detail = "may not be set for init containers without restartPolicy=Always";
                out.push(container.forbidden(name, detail));
            }
        }
        if container.count("resizePolicy") > 0 {
            out.push(container.invalid("resizePolicy", "must not be set for init containers"));
        }
    }
}

fn check_ephemeral(pod: &Pod<'_>, context: &Context, out: &mut Errors) {
    let others = pod.names(&["containers", "initContainers"]);
    let mut seen = others.clone();
    for container in pod.spec.items("ephemeralContainers") {
        check_common(&container, pod, context, out);
        check_image_edges(&container, out);
        if !seen.insert(container.text("name")) {
            out.push(container.duplicate("name"));
        }
        let target = container.text("targetContainerName");
        if !target.is_empty() && !others.contains(target) {
            out.push(Error::not_found(&container.place("targetContainerName"), target));
        }
        for (name, field) in container.value.as_object().into_iter().flatten() {
            let empty = field.is_null() || field.as_array().is_some_and(Vec::is_empty);
            if !EPHEMERAL_FIELDS.contains(&name.as_str()) && !empty && *field != serde_json::json!({}) {
                out.push(container.forbidden(name, "cannot be set for an Ephemeral Container"));
            }
        }
        for mount in container.items("volumeMounts") {
            for name in ["subPath", "subPathExpr"] {
                if !mount.text(name).is_empty() {
                    out.push(mount.forbidden(name, "cannot be set for an Ephemeral Container"));
                }
            }
        }
    }
}

/// What holds for containers of all sorts.
fn check_common(container: &At<'_>, pod: &Pod<'_>, context: &Context, out: &mut Errors) {
    container.name("name", names::dns_label, out);
    if container.text("image").is_empty() {
        out.push(container.required("image", ""));
    }
    container.required_of("terminationMessagePolicy", &["FallbackToLogsOnError", "File"], out);
    check_ports(container, out);
    environment::check(container, out);
    mounts::check(container, pod, out);
    container.required_of("imagePullPolicy", &["Always", "IfNotPresent", "Never"], out);
    resources::check_requirements(&container.field("resources"), &pod.claims, out);
    check_resize_policy(container, pod, out);
    if let Some(security) = container.set("securityContext") {
        security::check_container(&security, pod, context, out);
    }
}

/// Spaces around the name of an image, which templates are allowed to have for the sake of old ones.
pub(super) fn check_image_edges(container: &At<'_>, out: &mut Errors) {
    if container.text("image").trim() != container.text("image") {
        out.push(container.invalid("image", "must not have leading or trailing whitespace"));
    }
}

fn check_ports(container: &At<'_>, out: &mut Errors) {
    let mut seen = BTreeSet::new();
    for port in container.items("ports") {
        let name = port.text("name");
        if !name.is_empty() {
            let before = out.len();
            port.syntax("name", names::port_name, out);
            if out.len() == before && !seen.insert(name) {
                out.push(port.duplicate("name"));
            }
        }
        if port.number("containerPort").unwrap_or_default() == 0 {
            out.push(port.required("containerPort", ""));
        } else {
            port.in_range("containerPort", 1, 65_535, out);
        }
        if port.number("hostPort").unwrap_or_default() != 0 {
            port.in_range("hostPort", 1, 65_535, out);
        }
        port.required_of("protocol", &["SCTP", "TCP", "UDP"], out);
    }
}

fn check_host_ports(container: &At<'_>, seen: &mut BTreeSet<String>, out: &mut Errors) {
    for port in container.items("ports") {
        let number = port.number("hostPort").unwrap_or_default();
        if number == 0 {
            continue;
        }
        let key = format!("{}/{}/{number}", port.text("protocol"), port.text("hostIP"));
        if seen.contains(&key) {
            out.push(Error::duplicate(&port.place("hostPort"), key));
        } else {
            seen.insert(key);
        }
    }
}

fn check_resize_policy(container: &At<'_>, pod: &Pod<'_>, out: &mut Errors) {
    let mut seen = BTreeSet::new();
    for policy in container.items("resizePolicy") {
        let name = policy.text("resourceName");
        if !seen.insert(name) {
            out.push(Error::duplicate(&policy.path, name));
        }
        policy.required_of("resourceName", &["cpu", "memory"], out);
        policy.required_of("restartPolicy", &["NotRequired", "RestartContainer"], out);
        let never = pod.spec.text("restartPolicy") == "Never";
        if never && container.text("restartPolicy") != "Always" && policy.text("restartPolicy") != "NotRequired" {
            let detail = "must be 'NotRequired' when `restartPolicy` is 'Never'";
            out.push(policy.invalid("restartPolicy", detail));
        }
    }
}
