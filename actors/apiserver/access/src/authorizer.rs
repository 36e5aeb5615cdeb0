//! All authorizers in a row, over what they have been told of the cluster's objects.
//!
//! ```text
//! system:masters ─▶ yes          roles, bindings ─▶ put, remove ─▶ Rbac ──────────┐
//! Node ───────────▶ yes, or      pods, volumes, attachments, slices ─▶ NodeGraph ─┤
//! RBAC ───────────▶ yes, or no                                  Authorizer: clone, publish, read
//! ```
//!
//! Whoever watches those objects owns one, tells it of each change and publishes copies, which share all that they
//! have in common. Readers decide on their copy without waiting for anybody.

use serde_json::Value;

use super::node::{Kind, NodeAuthorizer};
use super::rbac::{Binding, Rbac, Role};
use super::{Attributes, Decision, is_privileged};

/// Group of roles and bindings.
const RBAC_GROUP: &str = "rbac.authorization.k8s.io";

/// Says who may do what.
#[derive(Clone, Debug, Default)]
pub struct Authorizer {
    rbac: Rbac,
    node: NodeAuthorizer,
}

impl Authorizer {
    /// Group and plural of what has to be watched for the authorizer; those of RBAC come first. The first four decide
    /// about everybody, the rest about kubelets only.
    pub const WATCHED: &'static [(&'static str, &'static str)] = &[
        (RBAC_GROUP, "clusterroles"),
        (RBAC_GROUP, "clusterrolebindings"),
        (RBAC_GROUP, "roles"),
        (RBAC_GROUP, "rolebindings"),
        ("", "pods"),
        ("", "persistentvolumes"),
        ("storage.k8s.io", "volumeattachments"),
        ("resource.k8s.io", "resourceslices"),
    ];

    /// Takes notice of an object as it is now. Objects of other resources change nothing.
    pub fn put(&mut self, group: &str, plural: &str, object: &Value) {
        match (group, plural) {
            (RBAC_GROUP, "clusterroles" | "roles") => self.rbac.put_role(Role::from_value(object)),
            (RBAC_GROUP, "clusterrolebindings" | "rolebindings") => {
                self.rbac.put_binding(Binding::from_value(object));
            }
            _ => {
                if let Some(kind) = node_kind(group, plural) {
                    self.node.graph.put(kind, object);
                }
            }
        }
    }

    /// Takes notice that an object is gone. The namespace is empty for what is in none.
    pub fn remove(&mut self, group: &str, plural: &str, namespace: &str, name: &str) {
        match (group, plural) {
            (RBAC_GROUP, "clusterroles" | "roles") => self.rbac.remove_role(namespace, name),
            (RBAC_GROUP, "clusterrolebindings" | "rolebindings") => self.rbac.remove_binding(namespace, name),
            _ => {
                if let Some(kind) = node_kind(group, plural) {
                    self.node.graph.remove(kind, namespace, name);
                }
            }
        }
    }

    /// Roles and bindings, for the checks of [`cover`](super::cover) and for reviews.
    #[must_use]
    pub fn rbac(&self) -> &Rbac {
        &self.rbac
    }

    /// Decides, with the reason: what reviews show and audit records.
    #[must_use]
    pub fn authorize(&self, attributes: Attributes<'_>) -> Decision {
        if is_privileged(attributes.user) {
            return Decision::Allow { reason: String::new() };
        }
        let mut reasons = Vec::new();
        for decision in [|it: &Self, of| it.node.authorize(&of), |it: &Self, of| it.rbac.authorize(of)] {
            match decision(self, attributes) {
                Decision::NoOpinion { reason } if reason.is_empty() => {}
                Decision::NoOpinion { reason } => reasons.push(reason),
                decided => return decided,
            }
        }
        Decision::NoOpinion { reason: reasons.join("\n") }
    }

    /// Whether the request is allowed. The way for each request: a yes costs no text.
    ///
    /// # Errors
    ///
    /// Fails with what the authorizers have to say about a no, often nothing. It belongs into
    /// [`Attributes::forbidden`].
    pub fn check(&self, attributes: Attributes<'_>) -> Result<(), String> {
        if self.allows(attributes) {
            return Ok(());
        }
        match self.authorize(attributes) {
            Decision::Allow { .. } => Ok(()),
            Decision::Deny { reason } | Decision::NoOpinion { reason } => Err(reason),
        }
    }

    /// Whether the request is allowed, without a word why.
    #[must_use]
    pub fn allows(&self, attributes: Attributes<'_>) -> bool {
        is_privileged(attributes.user)
            || matches!(self.node.authorize(&attributes), Decision::Allow { .. })
            || self.rbac.allows(attributes)
    }
}

fn node_kind(group: &str, plural: &str) -> Option<Kind> {
    match (group, plural) {
        ("", "pods") => Some(Kind::Pod),
        ("", "persistentvolumes") => Some(Kind::Volume),
        ("storage.k8s.io", "volumeattachments") => Some(Kind::VolumeAttachment),
        ("resource.k8s.io", "resourceslices") => Some(Kind::ResourceSlice),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::{RequestInfo, User};
    use super::*;

    fn ask(authorizer: &Authorizer, user: &User, line: &str) -> Result<(), String> {
        let (method, path) = line.split_once(' ').unwrap();
        let request = RequestInfo::parse(method, path, "").unwrap();
        let attributes = Attributes { user, request: &request };
        let found = authorizer.check(attributes);
        assert_eq!(found.is_ok(), matches!(authorizer.authorize(attributes), Decision::Allow { .. }), "{line}");
        found
    }

    #[test]
    fn objects_come_and_go_and_copies_keep_what_they_knew() {
        let mut authorizer = Authorizer::default();
        let (ann, node) = (User::new("ann", &["dev"]), User::new("system:node:n", &["system:nodes"]));
        let read = "GET /api/v1/namespaces/a/secrets/s";
        assert_eq!(ask(&authorizer, &User::new("root", &["system:masters"]), read), Ok(()));
        assert_eq!(ask(&authorizer, &ann, read), Err(String::new()));

        let binding = json!({
            "metadata": {"namespace": "a", "name": "b"},
            "roleRef": {"kind": "Role", "name": "r"},
            "subjects": [{"kind": "Group", "name": "dev"}],
        });
        authorizer.put(RBAC_GROUP, "rolebindings", &binding);
        let missing = r#"RBAC: role.rbac.authorization.k8s.io "r" not found"#;
        assert_eq!(ask(&authorizer, &ann, read), Err(missing.to_owned()));
        let role = json!({
            "metadata": {"namespace": "a", "name": "r"},
            "rules": [{"verbs": ["get"], "apiGroups": [""], "resources": ["secrets"]}],
        });
        authorizer.put(RBAC_GROUP, "roles", &role);
        let copy = authorizer.clone();
        assert_eq!(ask(&authorizer, &ann, read), Ok(()));
        authorizer.remove(RBAC_GROUP, "rolebindings", "a", "b");
        assert_eq!(ask(&authorizer, &ann, read), Err(String::new()));
        assert_eq!(ask(&copy, &ann, read), Ok(()));

        let pod = json!({
            "metadata": {"namespace": "a", "name": "p"},
            "spec": {"nodeName": "n", "volumes": [{"secret": {"secretName": "s"}}]},
        });
        assert!(ask(&authorizer, &node, read).unwrap_err().starts_with("no relationship found"));
        authorizer.put("", "pods", &pod);
        assert_eq!(ask(&authorizer, &node, read), Ok(()));
        authorizer.remove("", "pods", "a", "p");
        assert!(ask(&authorizer, &node, read).is_err() && ask(&copy, &node, read).is_err());
    }
}
