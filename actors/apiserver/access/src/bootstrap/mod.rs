//! The roles and bindings that every cluster starts with, as of Kubernetes 1.34 with its default feature gates.
//!
//! They are written at each start: what is missing is added, and what somebody added stays. Whoever wants to change one
//! for good annotates it with `rbac.authorization.kubernetes.io/autoupdate: "false"`.

mod aggregate;
mod controllers;
mod namespaced;
mod reconcile;
mod roles;
mod table;
#[cfg(test)]
mod tests;

use serde_json::{Map, Value, json};

pub use aggregate::aggregated_rules;
pub use reconcile::{Action, reconcile_binding, reconcile_role};
use table::{BindingRow, RoleRow};

/// Says that an object belongs to the starting set.
const LABEL: &str = "kubernetes.io/bootstrapping";

/// Says that an object may be mended at the next start; set to `false` by hand to keep changes.
pub const AUTOUPDATE: &str = "rbac.authorization.kubernetes.io/autoupdate";

/// The group and version of all objects here.
const API_VERSION: &str = "rbac.authorization.k8s.io/v1";

/// The cluster roles, as objects to be stored. The rules of aggregated roles are for [`aggregated_rules`] to fill in.
#[must_use]
pub fn cluster_roles() -> Vec<Value> {
    let rows = roles::ROLES.iter().map(|row| role("", row));
    let controllers = controllers::ROLES.iter().map(|(name, rules)| {
        let row = RoleRow { name: &controller(name), rules, ..RoleRow::EMPTY };
        role("", &row)
    });
    rows.chain(controllers).collect()
}

/// The bindings of the cluster.
#[must_use]
pub fn cluster_role_bindings() -> Vec<Value> {
    let rows = roles::BINDINGS.iter().map(|row| binding("", row));
    let controllers = controllers::ROLES.iter().map(|(name, _)| {
        let (role, account) = (controller(name), format!("kube-system/{name}"));
        binding("", &BindingRow { name: &role, role: &role, accounts: &account, ..BindingRow::EMPTY })
    });
    rows.chain(controllers).collect()
}

/// The roles of namespaces. Their namespaces (`kube-system`, `kube-public`) must be there first.
#[must_use]
pub fn namespaced_roles() -> Vec<Value> {
    namespaced::ROLES.iter().map(|(namespace, row)| role(namespace, row)).collect()
}

/// The bindings of namespaces, all to roles of the same namespace.
#[must_use]
pub fn namespaced_role_bindings() -> Vec<Value> {
    namespaced::BINDINGS.iter().map(|(namespace, row)| binding(namespace, row)).collect()
}

fn controller(name: &str) -> String {
    format!("system:controller:{name}")
}

fn words(text: &str) -> Vec<&str> {
    let mut words: Vec<&str> = text.split_whitespace().collect();
    words.sort_unstable();
    words
}

fn metadata(name: &str, namespace: &str) -> Map<String, Value> {
    let mut metadata = Map::new();
    metadata.insert("name".to_owned(), json!(name));
    if !namespace.is_empty() {
        metadata.insert("namespace".to_owned(), json!(namespace));
    }
    metadata.insert("labels".to_owned(), json!({LABEL: "rbac-defaults"}));
    metadata.insert("annotations".to_owned(), json!({AUTOUPDATE: "true"}));
    metadata
}

fn aggregation_label(target: &str) -> String {
    format!("rbac.authorization.k8s.io/aggregate-to-{target}")
}

fn role(namespace: &str, row: &RoleRow<'_>) -> Value {
    let mut metadata = metadata(row.name, namespace);
    if !row.aggregate_to.is_empty() {
        metadata["labels"][aggregation_label(row.aggregate_to)] = json!("true");
    }
    let kind = if namespace.is_empty() { "ClusterRole" } else { "Role" };
    let mut role = json!({"apiVersion": API_VERSION, "kind": kind, "metadata": metadata});
    if row.aggregates {
        let label = aggregation_label(row.name);
        role["aggregationRule"] = json!({"clusterRoleSelectors": [{"matchLabels": {label: "true"}}]});
        role["rules"] = Value::Null;
    } else {
        role["rules"] = row.rules.iter().map(|rule| rule.policy().to_value()).collect();
    }
    role
}

fn binding(namespace: &str, row: &BindingRow<'_>) -> Value {
    let group = "rbac.authorization.k8s.io";
    let named = |kind: &'static str| move |name| json!({"kind": kind, "apiGroup": group, "name": name});
    let account = |account: &str| {
        let (namespace, name) = account.split_once('/').expect("the tables write namespace and name of an account");
        json!({"kind": "ServiceAccount", "name": name, "namespace": namespace})
    };
    let users = row.users.split_whitespace().map(named("User"));
    let groups = row.groups.split_whitespace().map(named("Group"));
    let subjects: Vec<Value> = users.chain(groups).chain(row.accounts.split_whitespace().map(account)).collect();
    let (kind, role_kind) = match namespace {
        "" => ("ClusterRoleBinding", "ClusterRole"),
        _ => ("RoleBinding", "Role"),
    };
    let mut binding = json!({
        "apiVersion": API_VERSION,
        "kind": kind,
        "metadata": metadata(row.name, namespace),
        "roleRef": {"apiGroup": group, "kind": role_kind, "name": row.role},
    });
    if !subjects.is_empty() {
        binding["subjects"] = Value::Array(subjects);
    }
    binding
}
