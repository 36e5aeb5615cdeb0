//! Policies of admission that are written in CEL, and where they hold.
//!
//! Whether their expressions compile is the business of those who run them.

use std::collections::BTreeSet;

use k3sd_objects::names;
use k3sd_objects::status::field::Error;
use serde_json::Value;

use super::Context;
use super::hooks::{FAILURE_POLICIES, MATCH_POLICIES, check_conditions, check_rule};
use super::pod::check_selector;
use super::read::{At, Errors, same};
use super::statuses::check_conditions as check_status_conditions;

/// Annotations that a policy may leave in the audit log.
const ANNOTATIONS_MAX: usize = 20;

/// Longest expression of such an annotation, in bytes: shorter than what it may give.
const ANNOTATION_BYTES_MAX: usize = 5 * 1024;

/// A ValidatingAdmissionPolicy.
pub(super) fn check(object: &At<'_>, _: &Context, out: &mut Errors) {
    check_spec(object, false, out);
}

/// One that takes the place of another: conditions that were stored were checked then.
pub(super) fn update(new: &At<'_>, old: &At<'_>, _: &Context, out: &mut Errors) {
    let (spec, before) = (new.field("spec"), old.field("spec"));
    let kept = ["paramKind", "matchConditions"].iter().all(|name| same(spec.get(name), before.get(name)));
    check_spec(new, kept, out);
}

fn check_spec(object: &At<'_>, conditions_kept: bool, out: &mut Errors) {
    let spec = object.field("spec");
    check_choice(&spec, "failurePolicy", FAILURE_POLICIES, out);
    if let Some(kind) = spec.set("paramKind") {
        check_param_kind(&kind, out);
    }
    match spec.set("matchConstraints") {
        None => out.push(spec.required("matchConstraints", "")),
        Some(constraints) => {
            check_match(&constraints, out);
            // Without one, nobody knows of what type the objects are.
            if constraints.count("resourceRules") == 0 {
                out.push(constraints.required("resourceRules", ""));
            }
        }
    }
    if !conditions_kept {
        check_conditions(&spec, out);
    }
    for variable in spec.items("variables") {
        check_variable(&variable, out);
    }
    if spec.count("validations") + spec.count("auditAnnotations") == 0 {
        let detail = "validations or auditAnnotations must contain at least one item";
        out.push(spec.required("validations", detail));
        out.push(spec.required("auditAnnotations", detail));
        return;
    }
    for validation in spec.items("validations") {
        check_validation(&validation, out);
    }
    check_annotations(&spec, object.field("metadata").text("name"), out);
}

/// A field that is one of several, without which nothing is known.
fn check_choice(at: &At<'_>, name: &str, supported: &[&str], out: &mut Errors) {
    if at.has(name) {
        at.one_of(name, supported, out);
    } else {
        out.push(at.required(name, ""));
    }
}

/// The kind that configures a policy.
fn check_param_kind(at: &At<'_>, out: &mut Errors) {
    let version = at.text("apiVersion");
    match version.split_once('/') {
        _ if version.is_empty() => out.push(at.required("apiVersion", "")),
        Some((_, rest)) if rest.contains('/') => {
            out.push(at.invalid("apiVersion", format!("unexpected GroupVersion string: {version}")));
        }
        parts => {
            let (group, own) = parts.unwrap_or(("", version));
            check_joined(at, "apiVersion", group, names::dns_subdomain, out);
            if own.is_empty() {
                out.push(at.invalid("apiVersion", "version must be specified"));
            } else {
                check_joined(at, "apiVersion", own, names::dns_1035_label, out);
            }
        }
    }
    let kind = at.text("kind");
    if kind.is_empty() {
        out.push(at.required("kind", ""));
        return;
    }
    let faults = names::dns_1035_label(&kind.to_lowercase());
    if !faults.is_empty() {
        let detail = format!("may have mixed case, but should otherwise match: {}", faults.join(","));
        out.push(at.invalid("kind", detail));
    }
}

/// A part of a field that meets a rule if there is any; all that is wrong is one error.
fn check_joined(at: &At<'_>, name: &str, part: &str, rule: fn(&str) -> names::Faults, out: &mut Errors) {
    let faults = if part.is_empty() { Vec::new() } else { rule(part) };
    if !faults.is_empty() {
        out.push(Error::invalid(&at.place(name), part, faults.join(",")));
    }
}

/// Which requests are meant.
fn check_match(at: &At<'_>, out: &mut Errors) {
    check_choice(at, "matchPolicy", MATCH_POLICIES, out);
    for name in ["namespaceSelector", "objectSelector"] {
        if at.has(name) {
            check_selector(at, name, out);
        } else {
            out.push(at.required(name, ""));
        }
    }
    for rule in at.items("resourceRules").chain(at.items("excludeResourceRules")) {
        let mut seen = BTreeSet::new();
        for name in rule.items("resourceNames") {
            name.syntax("", names::path_segment, out);
            if !seen.insert(name.text("")) {
                out.push(name.duplicate(""));
            }
        }
        check_rule(&rule, out);
    }
}

fn check_variable(at: &At<'_>, out: &mut Errors) {
    let name = at.text("name");
    let legal = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        && !name.starts_with(|c: char| c.is_ascii_digit());
    if name.trim().is_empty() {
        out.push(at.required("name", "name is not specified"));
    } else if !legal || names::is_cel_word(name) {
        out.push(at.invalid("name", "name is not a valid CEL identifier"));
    }
    if at.text("expression").trim().is_empty() {
        out.push(at.required("expression", "expression is not specified"));
    }
}

fn check_validation(at: &At<'_>, out: &mut Errors) {
    if at.text("expression").trim().is_empty() {
        out.push(at.required("expression", "expression is not specified"));
    }
    let blank = |name: &str| !at.text(name).is_empty() && at.text(name).trim().is_empty();
    if blank("messageExpression") {
        out.push(at.invalid("messageExpression", "must be non-empty if specified"));
    }
    if blank("message") {
        out.push(at.invalid("message", "message must be non-empty if specified"));
    } else if at.text("message").trim().contains(['\n', '\r']) {
        out.push(at.invalid("message", "message must not contain line breaks"));
    }
    at.optional_of("reason", &["Forbidden", "Invalid", "RequestEntityTooLarge"], out);
}

fn check_annotations(spec: &At<'_>, policy: &str, out: &mut Errors) {
    const FIELD: &str = "auditAnnotations";
    if spec.count(FIELD) > ANNOTATIONS_MAX {
        out.push(spec.invalid(FIELD, format!("must not have more than {ANNOTATIONS_MAX} auditAnnotations")));
    }
    let mut seen = BTreeSet::new();
    for annotation in spec.items(FIELD) {
        let key = annotation.text("key");
        if policy.is_empty() {
            out.push(annotation.invalid("key", "requires metadata.name be non-empty"));
        } else {
            let full = format!("{policy}/{key}");
            let path = annotation.place("key");
            out.extend(names::qualified_name(&full).into_iter().map(|fault| Error::invalid(&path, &*full, fault)));
        }
        let expression = annotation.text("valueExpression").trim();
        if expression.is_empty() {
            out.push(annotation.required("valueExpression", "valueExpression is not specified"));
        } else if expression.len() > ANNOTATION_BYTES_MAX {
            let detail = format!("must not exceed {ANNOTATION_BYTES_MAX} bytes in length");
            out.push(annotation.required("valueExpression", &detail));
        }
        if !seen.insert(key) {
            out.push(annotation.duplicate("key"));
        }
    }
}

/// The status of a ValidatingAdmissionPolicy: what its expressions were found to do.
pub(super) fn update_status(new: &At<'_>, _: &At<'_>, _: &Context, out: &mut Errors) {
    for warning in new.field("status").field("typeChecking").items("expressionWarnings") {
        if warning.text("warning").is_empty() {
            out.push(warning.required("warning", ""));
        }
        if warning.text("fieldRef").trim().is_empty() {
            out.push(warning.required("fieldRef", ""));
        }
    }
    check_status_conditions(&new.field("status"), out);
}

/// A ValidatingAdmissionPolicyBinding. Upstream misspells one of the fields in its errors.
pub(super) fn check_binding(object: &At<'_>, _: &Context, out: &mut Errors) {
    let spec = object.field("spec");
    spec.name("policyName", names::dns_subdomain, out);
    if let Some(param) = spec.set("paramRef") {
        check_param(&param, out);
    }
    if let Some(resources) = spec.set("matchResources") {
        check_match(&At { value: resources.value, path: spec.place("matchResouces") }, out);
    }
    check_actions(&spec, out);
}

/// One that takes the place of another.
pub(super) fn update_binding(new: &At<'_>, _: &At<'_>, context: &Context, out: &mut Errors) {
    check_binding(new, context, out);
}

/// What configures a policy here.
fn check_param(at: &At<'_>, out: &mut Errors) {
    const EXCLUSIVE: &str = "name and selector are mutually exclusive";
    let (name, selector) = (at.text("name"), at.has("selector"));
    at.optional("name", names::path_segment, out);
    if !name.is_empty() && selector {
        out.push(at.forbidden("name", EXCLUSIVE));
    }
    check_selector(at, "selector", out);
    if !name.is_empty() && selector {
        out.push(at.forbidden("selector", EXCLUSIVE));
    }
    if name.is_empty() && !selector {
        out.push(at.required("", "one of name or selector must be specified"));
    }
    at.required_of("parameterNotFoundAction", &["Deny", "Allow"], out);
}

/// What happens to a request that a policy is against.
fn check_actions(spec: &At<'_>, out: &mut Errors) {
    const FIELD: &str = "validationActions";
    let mut seen = BTreeSet::new();
    for action in spec.items(FIELD) {
        action.one_of("", &["Audit", "Deny", "Warn"], out);
        if !seen.insert(action.text("")) {
            out.push(action.duplicate(""));
        }
    }
    if seen.contains("Deny") && seen.contains("Warn") {
        let detail = "must not contain both Deny and Warn (repeating the same validation failure information in the \
                      API response and headers serves no purpose)";
        out.push(spec.invalid(FIELD, detail));
    }
    if spec.get(FIELD).as_array().is_none_or(Vec::<Value>::is_empty) {
        out.push(spec.required(FIELD, "at least one validation action is required"));
    }
}
