//! Roles and their bindings.

use k3sd_objects::names;

use super::Context;
use super::pod::check_selector;
use super::read::{At, Errors, same};

/// The group of roles, users and groups.
const GROUP: &str = "rbac.authorization.k8s.io";

/// A Role, all of whose rules are about resources.
pub(super) fn check_role(object: &At<'_>, _: &Context, out: &mut Errors) {
    check_rules(object, true, out);
}

/// A ClusterRole, which may be made of others and speak of paths.
pub(super) fn check_cluster_role(object: &At<'_>, _: &Context, out: &mut Errors) {
    check_rules(object, false, out);
    let Some(aggregation) = object.set("aggregationRule") else { return };
    if aggregation.count("clusterRoleSelectors") == 0 {
        let detail = "at least one clusterRoleSelector required if aggregationRule is non-nil";
        out.push(aggregation.required("clusterRoleSelectors", detail));
    }
    for selector in aggregation.items("clusterRoleSelectors") {
        check_selector(&selector, "", out);
    }
}

fn check_rules(object: &At<'_>, namespaced: bool, out: &mut Errors) {
    for rule in object.items("rules") {
        if rule.count("verbs") == 0 {
            out.push(rule.required("verbs", "verbs must contain at least one value"));
        }
        let resources = rule.count("apiGroups") + rule.count("resources") + rule.count("resourceNames");
        if rule.count("nonResourceURLs") > 0 {
            if namespaced {
                out.push(rule.invalid("nonResourceURLs", "namespaced rules cannot apply to non-resource URLs"));
            }
            if resources > 0 {
                out.push(
                    rule.invalid(
                        "nonResourceURLs",
                        "rules cannot apply to both regular resources and non-resource URLs",
                    ),
                );
            }
            continue;
        }
        if rule.count("apiGroups") == 0 {
            out.push(rule.required("apiGroups", "resource rules must supply at least one api group"));
        }
        if rule.count("resources") == 0 {
            out.push(rule.required("resources", "resource rules must supply at least one resource"));
        }
    }
}

/// A RoleBinding.
pub(super) fn check_role_binding(object: &At<'_>, _: &Context, out: &mut Errors) {
    check_binding(object, &["Role", "ClusterRole"], true, out);
}

/// A ClusterRoleBinding.
pub(super) fn check_cluster_role_binding(object: &At<'_>, _: &Context, out: &mut Errors) {
    check_binding(object, &["ClusterRole"], false, out);
}

fn check_binding(object: &At<'_>, kinds: &[&str], namespaced: bool, out: &mut Errors) {
    let role = object.field("roleRef");
    if role.text("apiGroup") != GROUP {
        out.push(role.unsupported("apiGroup", &[GROUP]));
    }
    role.one_of("kind", kinds, out);
    role.name("name", names::path_segment, out);
    for subject in object.items("subjects") {
        check_subject(&subject, namespaced, out);
    }
}

fn check_subject(subject: &At<'_>, namespaced: bool, out: &mut Errors) {
    if subject.text("name").is_empty() {
        out.push(subject.required("name", ""));
    }
    match subject.text("kind") {
        "ServiceAccount" => {
            subject.optional("name", names::dns_subdomain, out);
            if !subject.text("apiGroup").is_empty() {
                out.push(subject.unsupported("apiGroup", &[""]));
            }
            if !namespaced && subject.text("namespace").is_empty() {
                out.push(subject.required("namespace", ""));
            }
        }
        "User" | "Group" => {
            if subject.text("apiGroup") != GROUP {
                out.push(subject.unsupported("apiGroup", &[GROUP]));
            }
        }
        _ => out.push(subject.unsupported("kind", &["ServiceAccount", "User", "Group"])),
    }
}

/// A binding that takes the place of another: it stays with its role.
fn check_fixed_role(new: &At<'_>, old: &At<'_>, out: &mut Errors) {
    if !same(new.get("roleRef"), old.get("roleRef")) {
        out.push(new.invalid("roleRef", "cannot change roleRef"));
    }
}

/// A RoleBinding that takes the place of another.
pub(super) fn update_role_binding(new: &At<'_>, old: &At<'_>, context: &Context, out: &mut Errors) {
    check_role_binding(new, context, out);
    check_fixed_role(new, old, out);
}

/// A ClusterRoleBinding that takes the place of another.
pub(super) fn update_cluster_role_binding(new: &At<'_>, old: &At<'_>, context: &Context, out: &mut Errors) {
    check_cluster_role_binding(new, context, out);
    check_fixed_role(new, old, out);
}
