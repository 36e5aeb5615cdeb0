//! Whether somebody holds the rights that he is about to hand out.
//!
//! Rules are broken down to one verb on one resource each, and every piece must lie within a single rule of the owner.
//! That is stricter than it needs to be for rules which only together would allow something, and never too lax.

use std::collections::{BTreeMap, BTreeSet};

use k3sd_objects::status::go::quote;

use super::rbac::{Rbac, RoleRef};
use super::rule::{PolicyRule, quoted, url_matches};
use super::{Attributes, RequestInfo, User, is_privileged};

/// The group of roles and bindings.
const RBAC_GROUP: &str = "rbac.authorization.k8s.io";

/// The pieces of `wanted` that no rule of `owned` takes in; empty if all of them are held.
#[must_use]
pub fn missing<'o>(owned: impl IntoIterator<Item = &'o PolicyRule>, wanted: &[PolicyRule]) -> Vec<PolicyRule> {
    let owned: Vec<&PolicyRule> = owned.into_iter().collect();
    let pieces = wanted.iter().flat_map(break_down);
    pieces.filter(|piece| !owned.iter().any(|rule| covers(rule, piece))).collect()
}

/// One verb on one resource (of one name) or on one path each.
fn break_down(rule: &PolicyRule) -> Vec<PolicyRule> {
    let one = |text: &String| vec![text.clone()];
    let mut pieces = Vec::new();
    for group in &rule.groups {
        for resource in &rule.resources {
            for verb in &rule.verbs {
                let piece = PolicyRule {
                    groups: one(group),
                    resources: one(resource),
                    verbs: one(verb),
                    ..PolicyRule::default()
                };
                if rule.names.is_empty() {
                    pieces.push(piece);
                    continue;
                }
                pieces.extend(rule.names.iter().map(|name| PolicyRule { names: one(name), ..piece.clone() }));
            }
        }
    }
    for url in &rule.urls {
        let piece = |verb| PolicyRule { urls: one(url), verbs: one(verb), ..PolicyRule::default() };
        pieces.extend(rule.verbs.iter().map(piece));
    }
    pieces
}

/// Whether `owned` allows all that `piece` does.
fn covers(owned: &PolicyRule, piece: &PolicyRule) -> bool {
    let has = |list: &[String], wanted: &str| list.iter().any(|item| item == wanted);
    let wild = |list: &[String], wanted: &[String]| has(list, "*") || wanted.iter().all(|item| has(list, item));
    let resource = |wanted: &String| match wanted.split_once('/') {
        _ if has(&owned.resources, wanted) => true,
        Some((_, subresource)) => has(&owned.resources, &format!("*/{subresource}")),
        None => false,
    };
    let names = match (owned.names.is_empty(), piece.names.is_empty()) {
        (true, _) => true,
        (false, true) => false,
        (false, false) => piece.names.iter().all(|name| has(&owned.names, name)),
    };
    wild(&owned.verbs, &piece.verbs)
        && wild(&owned.groups, &piece.groups)
        && (has(&owned.resources, "*") || piece.resources.iter().all(resource))
        && piece.urls.iter().all(|path| owned.urls.iter().any(|url| url_matches(url, path)))
        && names
}

/// Puts pieces of the same resource (and name) back together, verbs in the order they came in.
fn compact(pieces: Vec<PolicyRule>) -> Vec<PolicyRule> {
    let mut compacted = Vec::new();
    let mut simple: BTreeMap<PolicyRule, PolicyRule> = BTreeMap::new();
    for piece in pieces {
        if !piece.urls.is_empty() || piece.groups.len() != 1 || piece.resources.len() != 1 || piece.names.len() > 1 {
            compacted.push(piece);
            continue;
        }
        let key = PolicyRule { verbs: Vec::new(), ..piece.clone() };
        match simple.get_mut(&key) {
            Some(rule) => {
                let fresh = piece.verbs.into_iter().filter(|verb| !rule.verbs.contains(verb)).collect::<Vec<_>>();
                rule.verbs.extend(fresh);
            }
            None => {
                simple.insert(key, piece);
            }
        }
    }
    compacted.extend(simple.into_values());
    compacted
}

/// Checks that a user holds all of `wanted` in `namespace` (empty: in the cluster).
///
/// # Errors
///
/// Fails with upstream's message, which lists what is lacking.
pub fn confirm_no_escalation(rbac: &Rbac, user: &User, namespace: &str, wanted: &[PolicyRule]) -> Result<(), String> {
    let (owned, unknown) = rbac.rules_for(user, namespace);
    let lacking = missing(owned, wanted);
    if lacking.is_empty() {
        return Ok(());
    }
    let lines: BTreeSet<String> = compact(lacking).iter().map(ToString::to_string).collect();
    let lines: Vec<String> = lines.into_iter().collect();
    let mut message = format!(
        "user {} (groups={}) is attempting to grant RBAC permissions not currently held:\n{}",
        quote(&user.name),
        quoted(&user.groups),
        lines.join("\n")
    );
    if !unknown.is_empty() {
        message.push_str(&format!("; resolution errors: [{}]", unknown.join(" ")));
    }
    Err(message)
}

/// A role or a binding that is about to be written.
#[derive(Clone, Copy)]
pub struct Grant<'a> {
    /// Who writes it.
    pub user: &'a User,
    /// Namespace of the role or binding, empty for the cluster's.
    pub namespace: &'a str,
    /// Whether a right is held, by the whole chain of authorizers: this asks for `escalate` and `bind`.
    pub may: &'a dyn Fn(Attributes<'_>) -> bool,
}

impl Grant<'_> {
    /// Checks a role with these rules. `aggregates` says that the rules of other roles will flow into it, which could be
    /// any, so that its author must hold everything.
    ///
    /// # Errors
    ///
    /// Fails with what the author lacks; served as 403 about the role.
    pub fn check_role(&self, rbac: &Rbac, name: &str, rules: &[PolicyRule], aggregates: bool) -> Result<(), String> {
        let resource = if self.namespace.is_empty() { "clusterroles" } else { "roles" };
        if is_privileged(self.user) || self.holds(resource, name, "escalate") {
            return Ok(());
        }
        confirm_no_escalation(rbac, self.user, self.namespace, rules)?;
        if aggregates {
            let everything = || vec!["*".to_owned()];
            let full = [
                PolicyRule {
                    verbs: everything(),
                    groups: everything(),
                    resources: everything(),
                    ..PolicyRule::default()
                },
                PolicyRule { verbs: everything(), urls: everything(), ..PolicyRule::default() },
            ];
            confirm_no_escalation(rbac, self.user, self.namespace, &full).map_err(|lacking| {
                format!("must have cluster-admin privileges to use the aggregationRule: {lacking}")
            })?;
        }
        Ok(())
    }

    /// Checks a binding to this role.
    ///
    /// # Errors
    ///
    /// Fails with what the author lacks, or with the role that isn't there.
    pub fn check_binding(&self, rbac: &Rbac, role: &RoleRef) -> Result<(), String> {
        let resource = if role.kind == "ClusterRole" { "clusterroles" } else { "roles" };
        if is_privileged(self.user) || self.holds(resource, &role.name, "bind") {
            return Ok(());
        }
        confirm_no_escalation(rbac, self.user, self.namespace, rbac.rules_of(role, self.namespace)?)
    }

    fn holds(&self, resource: &str, name: &str, verb: &str) -> bool {
        let request = RequestInfo {
            is_resource: true,
            verb: verb.to_owned(),
            group: RBAC_GROUP.to_owned(),
            version: "*".to_owned(),
            namespace: self.namespace.to_owned(),
            resource: resource.to_owned(),
            name: name.to_owned(),
            ..RequestInfo::default()
        };
        (self.may)(Attributes { user: self.user, request: &request })
    }
}
