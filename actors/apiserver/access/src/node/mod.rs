//! What kubelets may do: read what their own pods need, and write about themselves.

mod graph;
mod references;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use k3sd_objects::selector::FieldSelector;

pub use graph::{Kind, NodeGraph};

use super::bootstrap::cluster_roles;
use super::{Attributes, Decision, PolicyRule, RequestInfo, User};

const GROUP: &str = "system:nodes";
const PREFIX: &str = "system:node:";
const LEASES: &str = "kube-node-lease";

/// The node that a user is the kubelet of; empty for a kubelet of no node, `None` for everybody else.
#[must_use]
pub fn node_of(user: &User) -> Option<&str> {
    let name = user.name.strip_prefix(PREFIX)?;
    user.groups.iter().any(|group| group == GROUP).then_some(name)
}

/// Decides about the requests of kubelets. Copies share what they know.
#[derive(Clone, Debug)]
pub struct NodeAuthorizer {
    /// Which objects the nodes need.
    pub graph: NodeGraph,
    rules: Arc<[PolicyRule]>,
}

impl Default for NodeAuthorizer {
    /// With the rules of the role `system:node` for all that isn't about single objects, and no objects yet.
    fn default() -> Self {
        let roles = cluster_roles();
        let role = roles.iter().find(|role| role["metadata"]["name"] == "system:node");
        Self { graph: NodeGraph::default(), rules: role.map(PolicyRule::list_of).unwrap_or_default().into() }
    }
}

/// A no, in the words that the client reads.
type Refusal = String;

impl NodeAuthorizer {
    /// Decides. It never denies: another authorizer may know the kubelet by other rights.
    #[must_use]
    pub fn authorize(&self, attributes: &Attributes<'_>) -> Decision {
        let Some(node) = node_of(attributes.user) else { return Decision::NoOpinion { reason: String::new() } };
        if node.is_empty() {
            let user = k3sd_objects::status::go::quote(&attributes.user.name);
            return Decision::NoOpinion { reason: format!("unknown node for user {user}") };
        }
        match self.check(node, attributes.request) {
            Ok(()) => Decision::Allow { reason: String::new() },
            Err(reason) => Decision::NoOpinion { reason },
        }
    }

    fn check(&self, node: &str, request: &RequestInfo) -> Result<(), Refusal> {
        if !request.is_resource {
            return self.by_rules(request);
        }
        match (request.group.as_str(), request.resource.as_str()) {
            ("", "secrets") => self.read(node, request, Kind::Secret),
            ("", "configmaps") => self.read(node, request, Kind::ConfigMap),
            ("", "persistentvolumeclaims") if request.subresource == "status" => {
                allow_verbs(request, "update patch", "can only get/update/patch this type")?;
                self.needed(node, request, Kind::Claim)
            }
            ("", "persistentvolumeclaims") => self.get(node, request, Kind::Claim),
            ("", "persistentvolumes") => self.get(node, request, Kind::Volume),
            ("resource.k8s.io", "resourceclaims") => self.get(node, request, Kind::ResourceClaim),
            ("storage.k8s.io", "volumeattachments") => self.get(node, request, Kind::VolumeAttachment),
            ("", "serviceaccounts") if request.subresource == "token" => {
                allow_verbs(request, "create", "can only create tokens for individual service accounts")?;
                self.needed(node, request, Kind::ServiceAccount)
            }
            ("", "serviceaccounts") => self.get(node, request, Kind::ServiceAccount),
            ("coordination.k8s.io", "leases") => lease(node, request),
            ("storage.k8s.io", "csinodes") => csi_node(node, request),
            ("resource.k8s.io", "resourceslices") => self.slice(node, request),
            ("", "nodes")
                if request.subresource.is_empty() && matches!(request.verb.as_str(), "get" | "list" | "watch") =>
            {
                if request.name == node {
                    return Ok(());
                }
                let what = if request.name.is_empty() { "all nodes".to_owned() } else { format!("'{}'", request.name) };
                Err(format!("node '{node}' cannot read {what}, only its own Node object"))
            }
            ("", "pods") if request.subresource.is_empty() => self.pod(node, request),
            _ => self.by_rules(request),
        }
    }

    /// What the role says; admission looks closer at what is written.
    fn by_rules(&self, request: &RequestInfo) -> Result<(), Refusal> {
        if self.rules.iter().any(|rule| rule.allows(request)) { Ok(()) } else { Err(String::new()) }
    }

    fn read(&self, node: &str, request: &RequestInfo, kind: Kind) -> Result<(), Refusal> {
        allow_verbs(request, "get list watch", "can only read resources of this type")?;
        whole(request, "cannot read subresource")?;
        ensure(!request.namespace.is_empty(), "can only read namespaced object of this type")?;
        self.needed(node, request, kind)
    }

    fn get(&self, node: &str, request: &RequestInfo, kind: Kind) -> Result<(), Refusal> {
        allow_verbs(request, "get", "can only get individual resources of this type")?;
        whole(request, "cannot get subresource")?;
        self.needed(node, request, kind)
    }

    fn needed(&self, node: &str, request: &RequestInfo, kind: Kind) -> Result<(), Refusal> {
        ensure(!request.name.is_empty(), "No Object name found")?;
        let needed = self.graph.needs(node, kind, &request.namespace, &request.name);
        ensure(needed, &format!("no relationship found between node '{node}' and this object"))
    }

    fn slice(&self, node: &str, request: &RequestInfo) -> Result<(), Refusal> {
        const VERBS: &str = "get watch list create update patch delete deletecollection";
        whole(request, "cannot authorize ResourceSlice subresources")?;
        let verbs = VERBS.replace(' ', ", ");
        allow_verbs(request, VERBS, &format!("only the following verbs are allowed for a ResourceSlice: {verbs}"))?;
        match request.verb.as_str() {
            "create" => Ok(()),
            "list" | "watch" | "deletecollection" => {
                let why = "can only list/watch/deletecollection resourceslices with nodeName field selector";
                ensure(selects(request, node), why)
            }
            _ => self.needed(node, request, Kind::ResourceSlice),
        }
    }

    fn pod(&self, node: &str, request: &RequestInfo) -> Result<(), Refusal> {
        match request.verb.as_str() {
            "get" => self.needed(node, request, Kind::Pod),
            "list" | "watch" if selects(request, node) => Ok(()),
            // One pod by its name, which is as good as a get.
            "list" | "watch" if !request.name.is_empty() => self.needed(node, request, Kind::Pod),
            "list" | "watch" => Err("can only list/watch pods with spec.nodeName field selector".to_owned()),
            _ => self.by_rules(request),
        }
    }
}

fn ensure(fine: bool, why: &str) -> Result<(), Refusal> {
    if fine { Ok(()) } else { Err(why.to_owned()) }
}

fn allow_verbs(request: &RequestInfo, verbs: &str, why: &str) -> Result<(), Refusal> {
    ensure(verbs.split(' ').any(|verb| verb == request.verb), why)
}

fn whole(request: &RequestInfo, why: &str) -> Result<(), Refusal> {
    ensure(request.subresource.is_empty(), why)
}

/// Whether a list is only about what is on this node.
fn selects(request: &RequestInfo, node: &str) -> bool {
    let fields = request.field_selector.parse::<FieldSelector>();
    fields.is_ok_and(|fields| fields.exact("spec.nodeName") == Some(node))
}

fn lease(node: &str, request: &RequestInfo) -> Result<(), Refusal> {
    let verbs = "get create update patch delete";
    allow_verbs(request, verbs, "can only get, create, update, patch, or delete a node lease")?;
    let why = format!("can only access leases in the {LEASES:?} system namespace");
    ensure(request.namespace == LEASES, &why)?;
    // The name of a new object is in its body, which admission sees.
    let own = request.verb == "create" || request.name == node;
    ensure(own, "can only access node lease with the same name as the requesting node")
}

fn csi_node(node: &str, request: &RequestInfo) -> Result<(), Refusal> {
    let verbs = "get create update patch delete";
    allow_verbs(request, verbs, "can only get, create, update, patch, or delete a CSINode")?;
    whole(request, "cannot authorize CSINode subresources")?;
    let own = request.verb == "create" || request.name == node;
    ensure(own, "can only access CSINode with the same name as the requesting node")
}
