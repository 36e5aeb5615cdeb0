//! Role-based access control: whether some binding gives some rule to somebody.
//!
//! Bindings are kept by subject, so that a decision costs what the user's own bindings cost, however many there are for
//! others. Objects come and go one at a time; a snapshot for readers is a clone behind an `Arc`.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use k3sd_objects::status::go::quote;
use rpds::HashTrieMapSync;
use serde_json::Value;

use super::rule::PolicyRule;
use super::{Attributes, Decision, User, service_account_name};

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

/// The user that a service account of a binding is; `None` for one of no namespace, which nobody is.
fn account(subject: &Subject, binding_namespace: &str) -> Option<String> {
    let own = subject.namespace.as_str();
    let namespace = if own.is_empty() { binding_namespace } else { own };
    (!namespace.is_empty()).then(|| service_account_name(namespace, &subject.name))
}

/// Roles and bindings before anything is indexed: what a naive reader of the store has.
#[derive(Clone, Debug, Default)]
pub struct RbacObjects {
    /// Roles and cluster roles.
    pub roles: Vec<Role>,
    /// Role bindings and cluster role bindings.
    pub bindings: Vec<Binding>,
}

/// The bindings of a namespace, or of the cluster.
#[derive(Clone, Debug, Default)]
struct Bindings {
    by_name: BTreeMap<String, Arc<Binding>>,
    users: HashMap<String, Vec<Arc<Binding>>>,
    groups: HashMap<String, Vec<Arc<Binding>>>,
}

impl Bindings {
    fn put(&mut self, binding: Binding) {
        self.remove(&binding.name);
        let binding = Arc::new(binding);
        for subject in &binding.subjects {
            let (index, who) = match subject.kind.as_str() {
                "User" => (&mut self.users, Some(subject.name.clone())),
                "Group" => (&mut self.groups, Some(subject.name.clone())),
                "ServiceAccount" => (&mut self.users, account(subject, &binding.namespace)),
                _ => continue,
            };
            let Some(who) = who else { continue };
            let list = index.entry(who).or_default();
            if !list.iter().any(|known| known.name == binding.name) {
                list.push(binding.clone());
            }
        }
        self.by_name.insert(binding.name.clone(), binding);
    }

    fn remove(&mut self, name: &str) {
        if self.by_name.remove(name).is_none() {
            return;
        }
        for index in [&mut self.users, &mut self.groups] {
            index.retain(|_, list| {
                list.retain(|binding| binding.name != name);
                !list.is_empty()
            });
        }
    }

    /// Those for a user, in the order of their names.
    fn of(&self, user: &User) -> Vec<&Arc<Binding>> {
        let groups = user.groups.iter().filter_map(|group| self.groups.get(group));
        let mut found: Vec<_> = self.users.get(&user.name).into_iter().chain(groups).flatten().collect();
        found.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        found.dedup_by(|a, b| Arc::ptr_eq(a, b));
        found
    }
}

/// All roles and bindings, in an order that makes decisions quick. Copies share what they know: a snapshot for readers
/// costs nothing, and a change after that copies the index of one namespace.
#[derive(Clone, Debug, Default)]
pub struct Rbac {
    roles: HashTrieMapSync<String, Arc<BTreeMap<String, Arc<Role>>>>,
    bindings: HashTrieMapSync<String, Arc<Bindings>>,
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
        change(&mut self.roles, &role.namespace.clone(), |roles| {
            roles.insert(role.name.clone(), Arc::new(role));
        });
    }

    /// Forgets a role. `namespace` is empty for a cluster role.
    pub fn remove_role(&mut self, namespace: &str, name: &str) {
        change(&mut self.roles, namespace, |roles| drop(roles.remove(name)));
        if self.roles.get(namespace).is_some_and(|roles| roles.is_empty()) {
            self.roles.remove_mut(namespace);
        }
    }

    /// Adds a binding, or replaces the one of this name.
    pub fn put_binding(&mut self, binding: Binding) {
        change(&mut self.bindings, &binding.namespace.clone(), |bindings| bindings.put(binding));
    }

    /// Forgets a binding. `namespace` is empty for a cluster role binding.
    pub fn remove_binding(&mut self, namespace: &str, name: &str) {
        change(&mut self.bindings, namespace, |bindings| bindings.remove(name));
        if self.bindings.get(namespace).is_some_and(|bindings| bindings.by_name.is_empty()) {
            self.bindings.remove_mut(namespace);
        }
    }

    /// Whether some rule allows the request, without a word why.
    #[must_use]
    pub fn allows(&self, attributes: Attributes<'_>) -> bool {
        self.bindings_of(attributes.user, &attributes.request.namespace).any(|binding| {
            let rules = self.rules_of(&binding.role, &binding.namespace);
            rules.is_ok_and(|rules| rules.iter().any(|rule| rule.allows(attributes.request)))
        })
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
        let found = self.roles.get(place).and_then(|roles| roles.get(&role.name));
        // A binding of the cluster can't name the role of a namespace, though both keys are empty there.
        let found = found.filter(|_| kind == "clusterrole" || !place.is_empty());
        match found {
            Some(role) => Ok(&role.rules),
            None => Err(format!("{kind}.rbac.authorization.k8s.io {} not found", quote(&role.name))),
        }
    }

    /// The bindings for a user: first those of the cluster, then those of the namespace, each in the order of names.
    fn bindings_of<'r>(&'r self, user: &User, namespace: &'r str) -> impl Iterator<Item = &'r Binding> {
        let own = Some(namespace).filter(|namespace| !namespace.is_empty());
        let places = std::iter::once("").chain(own).filter_map(|place| self.bindings.get(place));
        places.flat_map(|bindings| bindings.of(user)).map(|binding| &**binding)
    }
}

/// Changes what is kept of a namespace, apart from the copies that readers hold.
fn change<T: Clone + Default>(all: &mut HashTrieMapSync<String, Arc<T>>, namespace: &str, with: impl FnOnce(&mut T)) {
    match all.get_mut(namespace) {
        Some(one) => with(Arc::make_mut(one)),
        None => {
            let mut one = T::default();
            with(&mut one);
            all.insert_mut(namespace.to_owned(), Arc::new(one));
        }
    }
}

/// The first subject of a binding that the user is.
fn first_subject<'b>(binding: &'b Binding, user: &User) -> Option<&'b Subject> {
    let is_user = |subject: &&Subject| match subject.kind.as_str() {
        "User" => subject.name == user.name,
        "Group" => user.groups.contains(&subject.name),
        "ServiceAccount" => account(subject, &binding.namespace).is_some_and(|name| name == user.name),
        _ => false,
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
