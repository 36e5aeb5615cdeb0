//! Groups of the API that other servers answer for.

use k3sd_objects::names;
use k3sd_objects::status::field::Error;
use k3sd_objects::status::go;

use super::Context;
use super::data::decoded_bytes;
use super::read::{At, Errors};

const GROUP_PRIORITY_MAX: i64 = 20_000;
const VERSION_PRIORITY_MAX: i64 = 1_000;

/// An APIService.
pub(super) fn check(object: &At<'_>, _: &Context, out: &mut Errors) {
    let (metadata, spec) = (object.field("metadata"), object.field("spec"));
    let (group, version) = (spec.text("group"), spec.text("version"));
    let name = format!("{version}.{group}");
    if !metadata.text("name").is_empty() && metadata.text("name") != name {
        out.push(metadata.invalid("name", format!("must be `spec.version+\".\"+spec.group`: {}", go::quote(&name))));
    }
    if group.is_empty() && version != "v1" {
        out.push(spec.required("group", "only v1 may have an empty group and it better be legacy kube"));
    }
    spec.optional("group", names::dns_subdomain, out);
    spec.syntax("version", names::dns_1035_label, out);
    for (field, most) in [("groupPriorityMinimum", GROUP_PRIORITY_MAX), ("versionPriority", VERSION_PRIORITY_MAX)] {
        if !(1..=most).contains(&spec.number(field).unwrap_or_default()) {
            out.push(spec.invalid_number(field, format!("must be positive and less than {most}")));
        }
    }
    let insecure = spec.flag("insecureSkipTLSVerify");
    let Some(service) = spec.set("service") else {
        let bytes = decoded_bytes(spec.text("caBundle"));
        if bytes > 0 {
            let detail = "local APIServices may not have a caBundle";
            out.push(Error::invalid(&spec.place("caBundle"), format!("{bytes} bytes"), detail));
        }
        if insecure {
            let detail = "local APIServices may not have insecureSkipTLSVerify";
            out.push(spec.invalid("insecureSkipTLSVerify", detail));
        }
        return;
    };
    for field in ["namespace", "name"] {
        if service.text(field).is_empty() {
            out.push(service.required(field, ""));
        }
    }
    if insecure && !spec.text("caBundle").is_empty() {
        out.push(spec.invalid("insecureSkipTLSVerify", "may not be true if caBundle is present"));
    }
}

/// An APIService that takes the place of another.
pub(super) fn update(new: &At<'_>, _: &At<'_>, context: &Context, out: &mut Errors) {
    check(new, context, out);
}

/// The status of an APIService.
pub(super) fn update_status(new: &At<'_>, _: &At<'_>, _: &Context, out: &mut Errors) {
    for condition in new.field("status").items("conditions") {
        condition.one_of("status", &["True", "False", "Unknown"], out);
    }
}
