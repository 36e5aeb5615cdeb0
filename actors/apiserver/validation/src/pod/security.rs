//! Who a pod and its containers run as, and what they may do.

use k3sd_objects::names;

use super::super::Context;
use super::super::read::{At, Errors};
use super::Pod;
use super::mounts::descending;

/// Largest id of a user or group.
const ID_MAX: i64 = i32::MAX as i64;

/// Longest `localhostProfile` of AppArmor.
const APP_ARMOR_BYTES_MAX: usize = 4095;

/// The `securityContext` of a container.
pub(super) fn check_container(context_at: &At<'_>, pod: &Pod<'_>, context: &Context, out: &mut Errors) {
    let privileged = context_at.flag("privileged");
    if privileged && !context.allow_privileged {
        out.push(context_at.forbidden("privileged", "disallowed by cluster policy"));
    }
    check_ids(context_at, &["runAsUser", "runAsGroup"], out);
    context_at.optional_of("procMount", &["Default", "Unmasked"], out);
    if context_at.text("procMount") == "Unmasked" && pod.host_users() {
        out.push(context_at.invalid("procMount", "`hostUsers` must be false to use `Unmasked`"));
    }
    check_seccomp(context_at, out);
    if context_at.has("allowPrivilegeEscalation") && !context_at.flag("allowPrivilegeEscalation") {
        if privileged {
            let detail = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true";
            out.push(context_at.invalid("", detail));
        }
        if context_at.field("capabilities").texts("add").any(|name| name == "CAP_SYS_ADMIN") {
            let detail = "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN";
            out.push(context_at.invalid("", detail));
        }
    }
    check_app_armor(context_at, out);
}

/// The `securityContext` of a pod, and the namespaces that it shares with its host.
pub(super) fn check_pod(pod: &Pod<'_>, out: &mut Errors) {
    if pod.spec.flag("shareProcessNamespace") && pod.spec.flag("hostPID") {
        let detail = "ShareProcessNamespace and HostPID cannot both be enabled";
        out.push(pod.spec.invalid("shareProcessNamespace", detail));
    }
    let Some(security) = pod.spec.set("securityContext") else { return };
    check_ids(&security, &["fsGroup", "runAsUser", "runAsGroup"], out);
    for group in security.items("supplementalGroups") {
        group.in_range("", 0, ID_MAX, out);
    }
    security.optional_of("supplementalGroupsPolicy", &["Merge", "Strict"], out);
    check_sysctls(pod, &security, out);
    security.optional_of("fsGroupChangePolicy", &["Always", "OnRootMismatch"], out);
    check_seccomp(&security, out);
    check_app_armor(&security, out);
    security.optional_of("seLinuxChangePolicy", &["MountOption", "Recursive"], out);
}

fn check_ids(at: &At<'_>, names: &[&str], out: &mut Errors) {
    for name in names.iter().filter(|name| at.has(name)) {
        at.in_range(name, 0, ID_MAX, out);
    }
}

fn check_sysctls(pod: &Pod<'_>, security: &At<'_>, out: &mut Errors) {
    let mut seen = Vec::new();
    for sysctl in security.items("sysctls") {
        let name = sysctl.text("name");
        if name.is_empty() {
            out.push(sysctl.required("name", ""));
        } else if !is_sysctl(name) {
            let detail = "must have at most 253 characters and match regex \
                          ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$";
            out.push(sysctl.invalid("name", detail));
        } else if seen.contains(&name) {
            out.push(sysctl.duplicate("name"));
        }
        let dotted = name.replace('/', ".");
        if pod.spec.flag("hostNetwork") && dotted.starts_with("net.") {
            out.push(sysctl.invalid("name", "may not be specified when 'hostNetwork' is true"));
        }
        let shared_memory = ["kernel.shm", "kernel.msg", "kernel.sem", "fs.mqueue."];
        if pod.spec.flag("hostIPC") && shared_memory.iter().any(|prefix| dotted.starts_with(prefix)) {
            out.push(sysctl.invalid("name", "may not be specified when 'hostIPC' is true"));
        }
        seen.push(name);
    }
}

/// Segments of lower-case letters, digits, dashes and underscores, with dots or slashes between.
fn is_sysctl(name: &str) -> bool {
    let edge = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let fits = |part: &str| {
        let bytes = part.as_bytes();
        let inner = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_');
        edge(bytes.first()) && edge(bytes.last()) && bytes.iter().all(inner)
    };
    name.len() <= names::SUBDOMAIN_BYTES_MAX && name.split(['.', '/']).all(fits)
}

fn check_seccomp(at: &At<'_>, out: &mut Errors) {
    let Some(profile) = at.set("seccompProfile") else { return };
    let (kind, local) = (profile.text("type"), "localhostProfile");
    if kind.is_empty() {
        out.push(profile.required("type", "type is required when seccompProfile is set"));
    } else {
        profile.one_of("type", &["Localhost", "RuntimeDefault", "Unconfined"], out);
    }
    if kind == "Localhost" {
        if profile.text(local).is_empty() {
            out.push(profile.required(local, "must be set when seccomp type is Localhost"));
        } else {
            profile.syntax(local, descending, out);
        }
    } else if profile.has(local) {
        out.push(profile.invalid(local, "can only be set when seccomp type is Localhost"));
    }
}

fn check_app_armor(at: &At<'_>, out: &mut Errors) {
    let Some(profile) = at.set("appArmorProfile") else { return };
    let (kind, local) = (profile.text("type"), "localhostProfile");
    match kind {
        "Localhost" if !profile.has(local) => {
            out.push(profile.required(local, "must be set when AppArmor type is Localhost"));
        }
        "Localhost" => {
            let name = profile.text(local);
            if name.trim().is_empty() {
                out.push(profile.required(local, "must be set when AppArmor type is Localhost"));
            } else if name.trim() != name {
                out.push(profile.invalid(local, "must not be padded with whitespace"));
            }
            if name.len() > APP_ARMOR_BYTES_MAX {
                out.push(k3sd_objects::status::field::Error::too_long(&profile.place(local), APP_ARMOR_BYTES_MAX));
            }
        }
        "RuntimeDefault" | "Unconfined" => {
            if profile.has(local) {
                out.push(profile.invalid(local, "can only be set when AppArmor type is Localhost"));
            }
        }
        "" => out.push(profile.required("type", "type is required when appArmorProfile is set")),
        _ => out.push(profile.unsupported("type", &["Localhost", "RuntimeDefault", "Unconfined"])),
    }
}
