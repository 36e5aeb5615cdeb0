//! Role-based access control: whether some binding gives some rule to somebody.
//!
//! Bindings are kept by subject, so that a decision costs what the user's own bindings cost, however many there are for
//! others. Objects come and go one at a time; a snapshot for readers is a clone behind an `Arc`.

use std::collections::{BTreeMap, BTreeSet};

use k3sd_objects::status::go::quote;
use serde_json::Value;

use super::rule::PolicyRule;
use super::{Attributes, Decision, User, service_account_name};

/// A namespace (empty for the cluster's own) and a name.
type Key = (String, String);

/// A role of a namespace or of the cluster, as far as decisions go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Role {
    /// Empty for a `ClusterRole`.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// What it grants.
    pub rules: Vec<PolicyRule>,
}

/// Whom a binding is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    /// `User`, `Group` or `ServiceAccount`.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// Of a service account; if empty, that of the binding.
    pub namespace: String,
}

/// Which role a binding hands out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoleRef {
    /// `Role` or `ClusterRole`.
    pub kind: String,
    /// Its name.
    pub name: String,
}

/// A binding in a namespace or for the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binding {
    /// Empty for a `ClusterRoleBinding`.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The role.
    pub role: RoleRef,
    /// Who gets it.
    pub subjects: Vec<Subject>,
}

fn text(value: &Value, pointer: &str) -> String {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
}

impl Role {
    /// Reads a stored `Role` or `ClusterRole`.
    #[must_use]
    pub fn from_value(role: &Value) -> Self {
        let (namespace, name) = (text(role, "/metadata/namespace"), text(role, "/metadata/name"));
        Self { namespace, name, rules: PolicyRule::list_of(role) }
    }
}

impl Binding {
    /// Reads a stored `RoleBinding` or `ClusterRoleBinding`.
    #[must_use]
    pub fn from_value(binding: &Value) -> Self {
        let subject = |value: &Value| Subject {
            kind: text(value, "/kind"),
            name: text(value, "/name"),
            namespace: text(value, "/namespace"),
        };
        let subjects = binding.get("subjects").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        Self {
            namespace: text(binding, "/metadata/namespace"),
            name: text(binding, "/metadata/name"),
            role: RoleRef { kind: text(binding, "/roleRef/kind"), name: text(binding, "/roleRef/name") },
            subjects: subjects.iter().map(subject).collect(),
        }
    }

    /// Why a subject of this binding got something, for the audit log.
    fn describe(&self, subject: &Subject) -> String {
        let (kind, name) = match self.namespace.as_str() {
            "" => ("ClusterRoleBinding", self.name.clone()),
            namespace => ("RoleBinding", format!("{}/{namespace}", self.name)),
        };
        let who = if subject.kind == "ServiceAccount" {
            let own = subject.namespace.as_str();
            format!("{}/{}", subject.name, if own.is_empty() { &self.namespace } else { own })
        } else {
            subject.name.clone()
        };
        format!(
            "{kind} {} of {} {} to {} {}",
            quote(&name),
            self.role.kind,
            quote(&self.role.name),
            subject.kind,
            quote(&who)
        )
    }
}

/// Whom a subject stands for: a user (a service account is one) or a group.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Principal {
    User(String),
    Group(String),
}

impl Principal {
    /// `None` for a subject that nobody is.
    fn of(subject: &Subject, binding_namespace: &str) -> Option<Self> {
        match subject.kind.as_str() {
            "User" => Some(Self::User(subject.name.clone())),
            "Group" => Some(Self::Group(subject.name.clone())),
            "ServiceAccount" => {
                let own = subject.namespace.as_str();
                let namespace = if own.is_empty() { binding_namespace } else { own };
                (!namespace.is_empty()).then(|| Self::User(service_account_name(namespace, &subject.name)))
            }
            _ => None,
        }
    }
}

/// Roles and bindings before anything is indexed: what a naive reader of the store has.
#[derive(Clone, Debug, Default)]
pub struct RbacObjects {
    /// Roles and cluster roles.
    pub roles: Vec<Role>,
    /// Role bindings and cluster role bindings.
    pub bindings: Vec<Binding>,
}

/// All roles and bindings, in an order that makes decisions quick.
#[derive(Clone, Debug, Default)]
pub struct Rbac {
    roles: BTreeMap<Key, Role>,
    bindings: BTreeMap<Key, Binding>,
    /// By namespace of the binding and by subject: the names of bindings.
    by_subject: BTreeMap<String, BTreeMap<Principal, BTreeSet<String>>>,
}

impl Rbac {
    /// Indexes everything at once.
    #[must_use]
    pub fn new(objects: RbacObjects) -> Self {
        let mut rbac = Self::default();
        objects.roles.into_iter().for_each(|role| rbac.put_role(role));
        objects.bindings.into_iter().for_each(|binding| rbac.put_binding(binding));
        rbac
    }

    /// Adds a role, or replaces the one of this name.
    pub fn put_role(&mut self, role: Role) {
        self.roles.insert((role.namespace.clone(), role.name.clone()), role);
    }

    /// Forgets a role. `namespace` is empty for a cluster role.
    pub fn remove_role(&mut self, namespace: &str, name: &str) {
        self.roles.remove(&(namespace.to_owned(), name.to_owned()));
    }

    /// Adds a binding, or replaces the one of this name.
    pub fn put_binding(&mut self, binding: Binding) {
        self.remove_binding(&binding.namespace, &binding.name);
        let index = self.by_subject.entry(binding.namespace.clone()).or_default();
        for subject in &binding.subjects {
            if let Some(principal) = Principal::of(subject, &binding.namespace) {
                index.entry(principal).or_default().insert(binding.name.clone());
            }
        }
        self.bindings.insert((binding.namespace.clone(), binding.name.clone()), binding);
    }

    /// Forgets a binding. `namespace` is empty for a cluster role binding.
    pub fn remove_binding(&mut self, namespace: &str, name: &str) {
        let Some(binding) = self.bindings.remove(&(namespace.to_owned(), name.to_owned())) else { return };
        let Some(index) = self.by_subject.get_mut(namespace) else { return };
        for principal in binding.subjects.iter().filter_map(|subject| Principal::of(subject, namespace)) {
            if let Some(names) = index.get_mut(&principal) {
                names.remove(name);
                if names.is_empty() {
                    index.remove(&principal);
                }
            }
        }
        if index.is_empty() {
            self.by_subject.remove(namespace);
        }
    }

    /// Whether some rule allows the request. Never denies: another authorizer may know more.
    #[must_use]
    pub fn authorize(&self, attributes: Attributes<'_>) -> Decision {
        let mut unknown = Vec::new();
        for binding in self.bindings_of(attributes.user, &attributes.request.namespace) {
            match self.rules_of(&binding.role, &binding.namespace) {
                Ok(rules) if rules.iter().any(|rule| rule.allows(attributes.request)) => {
                    let subject = first_subject(binding, attributes.user).expect("the index led here by a subject");
                    return Decision::Allow { reason: format!("RBAC: allowed by {}", binding.describe(subject)) };
                }
                Ok(_) => {}
                Err(error) => unknown.push(error),
            }
        }
        let reason = if unknown.is_empty() { String::new() } else { format!("RBAC: {}", aggregate(&unknown)) };
        Decision::NoOpinion { reason }
    }

    /// All rules that the user has in a namespace (empty: in the cluster as a whole), and the roles that bindings name
    /// and nobody has written, as upstream words it.
    #[must_use]
    pub fn rules_for(&self, user: &User, namespace: &str) -> (Vec<&PolicyRule>, Vec<String>) {
        let (mut rules, mut unknown) = (Vec::new(), Vec::new());
        for binding in self.bindings_of(user, namespace) {
            match self.rules_of(&binding.role, &binding.namespace) {
                Ok(found) => rules.extend(found),
                Err(error) => unknown.push(error),
            }
        }
        (rules, unknown)
    }

    /// The rules of a role that a binding in `namespace` (empty for a cluster role binding) may name.
    ///
    /// # Errors
    ///
    /// Fails with upstream's words when there is no such role.
    pub fn rules_of(&self, role: &RoleRef, namespace: &str) -> Result<&[PolicyRule], String> {
        let (place, kind) = match role.kind.as_str() {
            "ClusterRole" => ("", "clusterrole"),
            "Role" => (namespace, "role"),
            other => return Err(format!("unsupported role reference kind: {}", quote(other))),
        };
        let found = self.roles.get(&(place.to_owned(), role.name.clone()));
        // A binding of the cluster can't name the role of a namespace, though both keys are empty there.
        let found = found.filter(|_| kind == "clusterrole" || !place.is_empty());
        match found {
            Some(role) => Ok(&role.rules),
            None => Err(format!("{kind}.rbac.authorization.k8s.io {} not found", quote(&role.name))),
        }
    }

    /// The bindings for a user: first those of the cluster, then those of the namespace, each in the order of names.
    fn bindings_of(&self, user: &User, namespace: &str) -> impl Iterator<Item = &Binding> {
        let mut principals: BTreeSet<Principal> = user.groups.iter().cloned().map(Principal::Group).collect();
        principals.insert(Principal::User(user.name.clone()));
        let places = std::iter::once("").chain((!namespace.is_empty()).then_some(namespace));
        let mut keys: Vec<Key> = Vec::new();
        for place in places {
            let Some(index) = self.by_subject.get(place) else { continue };
            let names: BTreeSet<&String> = principals.iter().filter_map(|who| index.get(who)).flatten().collect();
            keys.extend(names.into_iter().map(|name| (place.to_owned(), name.clone())));
        }
        keys.into_iter().filter_map(|key| self.bindings.get(&key))
    }
}

/// The first subject of a binding that the user is.
fn first_subject<'b>(binding: &'b Binding, user: &User) -> Option<&'b Subject> {
    let is_user = |subject: &&Subject| match Principal::of(subject, &binding.namespace) {
        Some(Principal::User(name)) => name == user.name,
        Some(Principal::Group(name)) => user.groups.contains(&name),
        None => false,
    };
    binding.subjects.iter().find(is_user)
}

/// Several errors as upstream shows them: one as it is, more in brackets, none twice.
pub(super) fn aggregate(errors: &[String]) -> String {
    let mut seen = BTreeSet::new();
    let distinct: Vec<&str> = errors.iter().filter(|error| seen.insert(*error)).map(String::as_str).collect();
    match distinct.as_slice() {
        [one] => (*one).to_owned(),
        more => format!("[{}]", more.join(", ")),
    }
}
