//! What somebody may do, as a list: the answer to a `SelfSubjectRulesReview`.

use serde_json::{Value, json};

use super::User;
use super::rbac::{Rbac, aggregate};

/// The `status` of a `SelfSubjectRulesReview`. A role that a binding names and that is missing is reported as an error
/// of the evaluation; the list is whole but for that. Members of `system:masters` see what `cluster-admin` gives them, not
/// that they need no rule at all.
#[must_use]
pub fn rules_review_status(rbac: &Rbac, user: &User, namespace: &str) -> Value {
    let (mut resources, mut paths) = (Vec::new(), Vec::new());
    let (rules, unknown) = rbac.rules_for(user, namespace);
    for rule in rules {
        if !rule.resources.is_empty() {
            let mut only = rule.clone();
            only.urls.clear();
            resources.push(only.to_value());
        }
        if !rule.urls.is_empty() {
            paths.push(json!({"verbs": rule.verbs, "nonResourceURLs": rule.urls}));
        }
    }
    let mut status = json!({"resourceRules": resources, "nonResourceRules": paths, "incomplete": false});
    if !unknown.is_empty() {
        status["evaluationError"] = Value::String(aggregate(&unknown));
    }
    status
}
