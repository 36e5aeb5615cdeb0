//! Groups that belong to Kubernetes: who uses them says who approved it.

use k3sd_objects::status::field::{Error, Path};
use k3sd_objects::status::go;
use serde_json::Value;

/// Names the approval.
pub(crate) const ANNOTATION: &str = "api-approved.kubernetes.io";

/// What the annotation says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Approval {
    /// Nothing.
    Missing,
    /// Neither a URL nor that there is no approval.
    Invalid,
    /// That there is no approval.
    Bypassed,
    /// Where it was approved.
    Approved,
}

/// Whether a group needs the annotation.
pub(crate) fn is_protected(group: &str) -> bool {
    ["k8s.io", "kubernetes.io"]
        .iter()
        .any(|domain| group.strip_suffix(domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.')))
}

/// What an annotation says, and the same for people.
pub(crate) fn of(annotation: &str) -> (Approval, String) {
    const SEE: &str = "see https://github.com/kubernetes/enhancements/pull/1111";
    if annotation.is_empty() {
        return (Approval::Missing, format!("protected groups must have approval annotation \"{ANNOTATION}\", {SEE}"));
    }
    if annotation.starts_with("unapproved") {
        return (Approval::Bypassed, format!("not approved: {}", go::quote(annotation)));
    }
    let host = annotation.split_once("://").filter(|(scheme, rest)| {
        let letters = scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
        let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
        scheme.starts_with(|c: char| c.is_ascii_alphabetic()) && letters && !host.is_empty() && !host.contains(' ')
    });
    if host.is_some() {
        return (Approval::Approved, format!("approved in {annotation}"));
    }
    let message = format!(
        "protected groups must have approval annotation \"{ANNOTATION}\" with either a URL or a reason starting with \
         \"unapproved\", {SEE}"
    );
    (Approval::Invalid, message)
}

/// What is wrong with the annotation. What it was before may stay.
pub(super) fn validate(definition: &Value, old: Option<&Value>) -> Option<Error> {
    let read = |definition: &Value| {
        let annotation = definition["metadata"]["annotations"][ANNOTATION].as_str().unwrap_or_default().to_owned();
        (of(&annotation), annotation)
    };
    let group = definition["spec"]["group"].as_str().unwrap_or_default();
    if !is_protected(group) {
        return None;
    }
    let ((state, message), annotation) = read(definition);
    if old.is_some_and(|old| read(old).0.0 == state) {
        return None;
    }
    let path = Path::new("metadata").child("annotations").key(ANNOTATION);
    match state {
        Approval::Missing => Some(Error::required(&path, message)),
        Approval::Invalid => Some(Error::invalid(&path, annotation, message)),
        Approval::Bypassed | Approval::Approved => None,
    }
}
