//! Environment variables, and the references that their values come from.

use k3sd_objects::names;
use k3sd_objects::status::field::Error;

use super::super::read::{At, Errors};

/// Fields of the pod that a variable can show.
const ENVIRONMENT_FIELDS: &[&str] = &[
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];

/// Fields of the pod that a file can show.
pub(super) const FILE_FIELDS: &[&str] =
    &["metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid"];

/// Fields of pods that there are, though not all can be shown.
const KNOWN_FIELDS: &[&str] =
    &["metadata.annotations", "metadata.labels", "spec.restartPolicy", "spec.schedulerName", "status.phase"];

/// Resources of a container that can be shown.
const RESOURCES: &[&str] = &[
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
];

/// Units of bytes that an amount can be shown in.
const BYTE_DIVISORS: &[&str] = &["1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei"];

/// `env` and `envFrom` of a container.
pub(super) fn check(container: &At<'_>, out: &mut Errors) {
    for variable in container.items("env") {
        variable.name("name", names::environment_variable, out);
        if let Some(source) = variable.set("valueFrom") {
            check_source(&source, !variable.text("value").is_empty(), out);
        }
    }
    for source in container.items("envFrom") {
        check_bulk_source(&source, out);
    }
}

fn check_bulk_source(source: &At<'_>, out: &mut Errors) {
    source.optional("prefix", names::environment_variable, out);
    let mut count = 0;
    for reference in ["configMapRef", "secretRef"] {
        let Some(reference) = source.set(reference) else { continue };
        count += 1;
        if reference.text("name").is_empty() {
            out.push(reference.required("name", ""));
        }
    }
    let detail = match count {
        0 => "must specify one of: `configMapRef` or `secretRef`",
        1 => return,
        _ => "may not have more than one field specified at a time",
    };
    out.push(Error::invalid(&source.path, "", detail));
}

fn check_source(source: &At<'_>, has_value: bool, out: &mut Errors) {
    let mut count = 0;
    if let Some(reference) = source.set("fieldRef") {
        count += 1;
        check_field_reference(&reference, ENVIRONMENT_FIELDS, out);
    }
    if let Some(reference) = source.set("resourceFieldRef") {
        count += 1;
        check_resource_reference(&reference, false, out);
    }
    for reference in ["configMapKeyRef", "secretKeyRef"] {
        let Some(reference) = source.set(reference) else { continue };
        count += 1;
        check_key_reference(&reference, out);
    }
    let detail = match (count, has_value) {
        (0, _) => "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef` or `secretKeyRef`",
        (_, true) => "may not be specified when `value` is not empty",
        (1, false) => return,
        (_, false) => "may not have more than one field specified at a time",
    };
    out.push(Error::invalid(&source.path, "", detail));
}

fn check_key_reference(reference: &At<'_>, out: &mut Errors) {
    if reference.text("name").is_empty() {
        out.push(reference.required("name", ""));
    }
    reference.name("key", names::config_key, out);
}

/// A field of the pod itself, one of `shown`, or an entry of its labels or annotations.
pub(super) fn check_field_reference(reference: &At<'_>, shown: &[&str], out: &mut Errors) {
    if reference.text("apiVersion").is_empty() {
        out.push(reference.required("apiVersion", ""));
        return;
    }
    let field = reference.text("fieldPath");
    if field.is_empty() {
        out.push(reference.required("fieldPath", ""));
        return;
    }
    if reference.text("apiVersion") != "v1" {
        let detail = format!("error converting fieldPath: unsupported pod version: {}", reference.text("apiVersion"));
        out.push(reference.invalid("fieldPath", detail));
        return;
    }
    if let Some((map, key)) = subscript(field) {
        check_subscript(reference, map, key, out);
    } else if shown.contains(&field) {
    } else if ENVIRONMENT_FIELDS.contains(&field) || KNOWN_FIELDS.contains(&field) {
        out.push(reference.unsupported("fieldPath", shown));
    } else {
        out.push(
            reference.invalid("fieldPath", format!("error converting fieldPath: field label not supported: {field}")),
        );
    }
}

/// `map['key']`, in parts.
fn subscript(field: &str) -> Option<(&str, &str)> {
    let (map, rest) = field.split_once("['")?;
    Some((map, rest.strip_suffix("']")?)).filter(|(map, _)| !map.is_empty())
}

fn check_subscript(reference: &At<'_>, map: &str, key: &str, out: &mut Errors) {
    let key = match map {
        "metadata.annotations" => key.to_lowercase(),
        "metadata.labels" => key.to_owned(),
        _ => {
            let detail = format!("error converting fieldPath: field label does not support subscript: {map}['{key}']");
            out.push(reference.invalid("fieldPath", detail));
            return;
        }
    };
    out.extend(names::check_label_key(&key, &reference.path));
}

/// A request or limit of a container; from a file, it has to be said of which one.
pub(super) fn check_resource_reference(reference: &At<'_>, container_named: bool, out: &mut Errors) {
    if container_named && reference.text("containerName").is_empty() {
        out.push(reference.required("containerName", ""));
        return;
    }
    let name = reference.text("resource");
    let huge_pages = ["requests.hugepages-", "limits.hugepages-"].iter().any(|prefix| name.starts_with(prefix));
    if name.is_empty() {
        out.push(reference.required("resource", ""));
    } else if huge_pages || RESOURCES.contains(&name) {
        check_divisor(reference, name, out);
    } else {
        out.push(reference.unsupported("resource", RESOURCES));
    }
}

fn check_divisor(reference: &At<'_>, name: &str, out: &mut Errors) {
    let Some(divisor) = reference.quantity("divisor").filter(|divisor| !divisor.is_zero()) else { return };
    let divisor = divisor.to_string();
    let kind = name.rsplit_once('.').map_or(name, |(_, kind)| kind);
    let (allowed, words): (&[&str], &str) = match kind {
        "cpu" => (&["1m", "1"], "cpu"),
        "memory" => (BYTE_DIVISORS, "memory"),
        "ephemeral-storage" => (BYTE_DIVISORS, "local ephemeral storage"),
        _ => (BYTE_DIVISORS, "hugepages"),
    };
    if allowed.contains(&divisor.as_str()) {
        return;
    }
    let list = if words == "cpu" { "1m and 1".to_owned() } else { BYTE_DIVISORS.join(", ") };
    let detail = format!("only divisor's values {list} are supported with the {words} resource");
    out.push(Error::invalid(&reference.place("divisor"), name, detail));
}
