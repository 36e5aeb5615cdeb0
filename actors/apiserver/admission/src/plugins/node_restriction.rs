//! `NodeRestriction`: kubelets write about their own node and its pods, and nothing that would draw work to it.

use std::fmt::Display;

use k3sd_apiserver_access::node::node_of;
use k3sd_apiserver_access::{Attributes as Asked, RequestInfo};
use k3sd_objects::object::Object;
use k3sd_objects::status::go::quote;
use k3sd_objects::status::{Qualified, Status};
use serde::Deserialize;
use serde_json::Value;

use crate::Rights;
use crate::attributes::{Attributes, Operation};
use crate::lookup::{CLAIMS, CSI_DRIVERS, Lookup, NODES, PODS, VOLUMES, find};
use crate::plugins::certificates::subject;
use crate::plugins::references::{Of, names};
use crate::plugins::{MIRROR, is_mirror};
use crate::read::{at, entries, field, has, is_empty, items, parsed, same, text, texts};

const LEASES: &str = "kube-node-lease";

/// What begins the name in a kubelet's certificate.
const USER_PREFIX: &str = "system:node:";

/// Signers of the certificates that kubelets have.
const SIGNERS: &[&str] = &["kubernetes.io/kubelet-serving", "kubernetes.io/kube-apiserver-client-kubelet"];

/// Labels of Kubernetes that kubelets set.
const LABELS: &[&str] = &[
    "beta.kubernetes.io/arch",
    "beta.kubernetes.io/instance-type",
    "beta.kubernetes.io/os",
    "failure-domain.beta.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "kubernetes.io/arch",
    "kubernetes.io/hostname",
    "kubernetes.io/os",
    "node.kubernetes.io/instance-type",
    "topology.kubernetes.io/region",
    "topology.kubernetes.io/zone",
];

/// Domains of Kubernetes that kubelets set any label of.
const LABEL_DOMAINS: &[&str] = &["kubelet.kubernetes.io", "node.kubernetes.io"];

/// Labels that pods are kept to nodes by, which nodes therefore can't give themselves.
const RESTRICTED_DOMAIN: &str = "node-restriction.kubernetes.io";

/// Who asks for what.
struct Kubelet<'a> {
    node: &'a str,
    a: &'a Attributes<'a>,
    object: &'a Value,
    lookup: &'a dyn Lookup,
}

/// Checks a write. `object` is null for a delete.
pub(crate) async fn check(
    a: &Attributes<'_>,
    object: &Value,
    lookup: &dyn Lookup,
    rights: &Rights,
) -> Result<(), Status> {
    let Some(node) = node_of(a.user) else { return Ok(()) };
    let kubelet = Kubelet { node, a, object, lookup };
    if node.is_empty() {
        return kubelet.refuse(format!("could not determine node from user {}", quote(&a.user.name)));
    }
    match (&*a.resource.group, &*a.resource.plural, a.subresource) {
        ("", "pods", "") => kubelet.pod().await,
        ("", "pods", "status") => kubelet.pod_status(),
        ("", "pods", "eviction") => kubelet.eviction().await,
        ("", "pods", other) => kubelet
            .refuse(format!("unexpected pod subresource {}, only 'status' and 'eviction' are allowed", quote(other))),
        ("", "nodes", _) => kubelet.node(),
        ("", "persistentvolumeclaims", "status") => kubelet.claim_status(),
        ("", "persistentvolumeclaims", _) => kubelet.refuse("may only update PVC status"),
        ("", "serviceaccounts", "token") if a.operation == Operation::Create => kubelet.token(rights).await,
        ("coordination.k8s.io", "leases", _) => kubelet.lease(),
        ("storage.k8s.io", "csinodes", _) => {
            kubelet.own_name("can only access CSINode with the same name as the requesting node")
        }
        ("resource.k8s.io", "resourceslices", _) => kubelet.slice(),
        ("certificates.k8s.io", "certificatesigningrequests", "") => kubelet.certificate(),
        _ => Ok(()),
    }
}

/// What of a stored pod matters here.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Placed {
    spec: PlacedSpec,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct PlacedSpec {
    node_name: String,
}

impl Kubelet<'_> {
    fn refuse(&self, why: impl Display) -> Result<(), Status> {
        Err(self.a.forbidden(self.object, why))
    }

    fn ensure(&self, fine: bool, why: impl Display) -> Result<(), Status> {
        if fine { Ok(()) } else { self.refuse(why) }
    }

    async fn stored_pod(&self, name: &str) -> Result<Object, Status> {
        let found = find(self.lookup, PODS, self.a.namespace, name).await?;
        found.ok_or_else(|| Status::not_found(Qualified::new("", "pods"), name))
    }

    fn is_here(&self, pod: &Object) -> bool {
        parsed::<Placed>(pod).spec.node_name == self.node
    }

    async fn pod(&self) -> Result<(), Status> {
        let node = quote(self.node);
        match self.a.operation {
            Operation::Create => self.mirror().await,
            Operation::Delete => {
                let pod = self.stored_pod(self.a.name).await?;
                let why = format!("node {node} can only delete pods with spec.nodeName set to itself");
                self.ensure(self.is_here(&pod), why)
            }
            other => {
                let other = quote(&other.to_string());
                self.refuse(format!("unexpected operation {other}, node {node} can only create and delete mirror pods"))
            }
        }
    }

    /// The image of a pod from a file of the node: it belongs to the node, and opens nothing to it.
    async fn mirror(&self) -> Result<(), Status> {
        let (pod, node) = (self.object, quote(self.node));
        let spec = field(pod, "spec");
        let why = format!("pod does not have {} annotation, node {node} can only create mirror pods", quote(MIRROR));
        self.ensure(is_mirror(pod), why)?;
        let why = format!("node {node} can only create pods with spec.nodeName set to itself");
        self.ensure(text(spec, "nodeName") == self.node, why)?;
        let itself = format!("node {node} can only create pods with an owner reference set to itself");
        let owner = match items(field(pod, "metadata"), "ownerReferences") {
            [owner] => owner,
            [] => return self.refuse(itself),
            _ => {
                let why = format!("node {node} can only create pods with a single owner reference set to itself");
                return self.refuse(why);
            }
        };
        let is_node = text(owner, "apiVersion") == "v1" && text(owner, "kind") == "Node";
        self.ensure(is_node && text(owner, "name") == self.node, itself)?;
        let flag = |name: &str| field(owner, name).as_bool() == Some(true);
        let why = format!("node {node} can only create pods with a controller owner reference set to itself");
        self.ensure(flag("controller"), why)?;
        let why = format!("node {node} must not set blockOwnerDeletion on an owner reference");
        self.ensure(!flag("blockOwnerDeletion"), why)?;
        let stored = find(self.lookup, NODES, "", self.node).await?;
        let stored = stored.ok_or_else(|| Status::not_found(Qualified::new("", "nodes"), self.node))?;
        let (uid, found) = (text(owner, "uid"), stored.uid());
        self.ensure(uid == found, format!("node {} UID mismatch: expected {uid} got {found}", self.node))?;

        let refers = |what: &str| self.refuse(format!("node {node} can not create pods that reference {what}"));
        let volumes = items(spec, "volumes");
        let trusts = |volume: &Value| {
            items(field(volume, "projected"), "sources").iter().any(|source| has(source, "clusterTrustBundle"))
        };
        if !text(spec, "serviceAccountName").is_empty() {
            refers("a service account")
        } else if names(spec, Of::Secrets).next().is_some() {
            refers("secrets")
        } else if names(spec, Of::ConfigMaps).next().is_some() {
            refers("configmaps")
        } else if volumes.iter().any(trusts) {
            refers("clustertrustbundles")
        } else if volumes.iter().any(|volume| has(volume, "persistentVolumeClaim")) {
            refers("persistentvolumeclaims")
        } else if !items(spec, "resourceClaims").is_empty() {
            refers("resourceclaims")
        } else {
            Ok(())
        }
    }

    fn pod_status(&self) -> Result<(), Status> {
        let node = quote(self.node);
        let (old, new) = (self.a.before(), self.object);
        if self.a.operation != Operation::Update {
            return self.refuse(format!("unexpected operation {}", quote(&self.a.operation.to_string())));
        }
        let why = format!("node {node} can only update pod status for pods with spec.nodeName set to itself");
        self.ensure(text(field(old, "spec"), "nodeName") == self.node, why)?;
        let unchanged = |path: &[&str]| same(at(old, path), at(new, path));
        let why = format!("node {node} cannot update labels through pod status");
        self.ensure(unchanged(&["metadata", "labels"]), why)?;
        let claims = |pod: &Value| -> Vec<(String, Value)> {
            let statuses = items(field(pod, "status"), "resourceClaimStatuses").iter();
            statuses.map(|claim| (text(claim, "name").to_owned(), field(claim, "resourceClaimName").clone())).collect()
        };
        // Upstream's spelling.
        let why = format!("node {node} cannot update resource claim statues");
        self.ensure(claims(old) == claims(new), why)?;
        let why = format!("node {node} cannot update extended resource claim status");
        self.ensure(unchanged(&["status", "extendedResourceClaimStatus"]), why)
    }

    async fn eviction(&self) -> Result<(), Status> {
        if self.a.operation != Operation::Create {
            return self.refuse(format!("unexpected operation {}", self.a.operation));
        }
        let sent = text(field(self.object, "metadata"), "name");
        let name = if self.a.name.is_empty() { sent } else { self.a.name };
        self.ensure(!name.is_empty(), "could not determine pod from request data")?;
        let pod = self.stored_pod(name).await?;
        let why = format!("node {} can only evict pods with spec.nodeName set to itself", self.node);
        self.ensure(self.is_here(&pod), why)
    }

    fn node(&self) -> Result<(), Status> {
        let (node, new, old) = (quote(self.node), self.object, self.a.before());
        let (spec, before) = (field(new, "spec"), field(old, "spec"));
        let sent = text(field(new, "metadata"), "name");
        let name = if self.a.name.is_empty() { sent } else { self.a.name };
        let why = format!("node {node} is not allowed to modify node {}", quote(name));
        self.ensure(name == self.node, why)?;
        if self.a.operation == Operation::Create {
            let why = format!("node {node} is not allowed to create pods with a non-nil configSource");
            self.ensure(!has(spec, "configSource"), why)?;
            let labels = forbidden_labels(new, &Value::Null);
            let why = format!("node {node} is not allowed to set the following labels: {}", labels.join(", "));
            self.ensure(labels.is_empty(), why)?;
        }
        if self.a.operation != Operation::Update {
            return Ok(());
        }
        let source = field(spec, "configSource");
        let why = format!("node {node} is not allowed to update configSource to a new non-nil configSource");
        self.ensure(source.is_null() || source == field(before, "configSource"), why)?;
        let why = format!("node {node} is not allowed to modify taints");
        self.ensure(same(field(spec, "taints"), field(before, "taints")), why)?;
        let labels = forbidden_labels(new, old);
        let why = format!("is not allowed to modify labels: {}", labels.join(", "));
        self.ensure(labels.is_empty(), why)?;
        let owners = |node: &Value| field(field(node, "metadata"), "ownerReferences").clone();
        let why = format!("node {node} is not allowed to modify ownerReferences");
        self.ensure(same(&owners(new), &owners(old)), why)
    }

    fn claim_status(&self) -> Result<(), Status> {
        if self.a.operation != Operation::Update {
            return self.refuse(format!("unexpected operation {}", quote(&self.a.operation.to_string())));
        }
        const OWN: &[&str] = &[
            "capacity",
            "conditions",
            "allocatedResources",
            "allocatedResourceStatuses",
            "currentVolumeAttributesClassName",
            "modifyVolumeStatus",
        ];
        let rest = |claim: &Value| {
            let mut claim = claim.clone();
            if let Some(status) = claim.get_mut("status").and_then(Value::as_object_mut) {
                status.retain(|name, _| !OWN.contains(&name.as_str()));
            }
            if let Some(metadata) = claim.get_mut("metadata").and_then(Value::as_object_mut) {
                metadata.retain(|name, _| !["resourceVersion", "managedFields"].contains(&name.as_str()));
            }
            if let Some(fields) = claim.as_object_mut() {
                fields.retain(|_, value| !is_empty(value));
            }
            claim
        };
        let node = quote(self.node);
        let why =
            format!("node {node} is not allowed to update fields other than status.quantity and status.conditions");
        self.ensure(rest(self.object) == rest(self.a.before()), why)
    }

    /// A token of an account is for a pod of the node, and for somebody whom the pod talks to.
    async fn token(&self, rights: &Rights) -> Result<(), Status> {
        let spec = field(self.object, "spec");
        let bound = field(spec, "boundObjectRef");
        let (name, uid) = (text(bound, "name"), text(bound, "uid"));
        let is_pod = text(bound, "apiVersion") == "v1" && text(bound, "kind") == "Pod" && !name.is_empty();
        self.ensure(is_pod, "node requested token not bound to a pod")?;
        self.ensure(!uid.is_empty(), "node requested token with a pod binding without a uid")?;
        let stored = self.stored_pod(name).await?;
        let why = format!(
            "the UID in the bound object reference ({uid}) does not match the UID in record. The object might have been \
             deleted and then recreated"
        );
        self.ensure(uid == stored.uid(), why)?;
        self.ensure(self.is_here(&stored), "node requested token bound to a pod scheduled on a different node")?;
        let audiences: Vec<&str> = texts(spec, "audiences").collect();
        let audience = match audiences.as_slice() {
            [] => "",
            [one] => one,
            _ => return self.refuse("node may only request 0 or 1 audiences"),
        };
        if self.names_audience(&stored.value(), audience).await? || self.may_ask_for(audience, rights) {
            return Ok(());
        }
        let user = &self.a.user.name;
        self.refuse(format!(
            "audience {} not found in pod spec volume, {user} is not authorized to request tokens for this audience",
            quote(audience)
        ))
    }

    /// Whether a volume of the pod holds tokens for this audience, or its driver wants such.
    async fn names_audience(&self, pod: &Value, audience: &str) -> Result<bool, Status> {
        for volume in items(field(pod, "spec"), "volumes") {
            let sources = items(field(volume, "projected"), "sources").iter();
            let mut tokens =
                sources.map(|source| field(source, "serviceAccountToken")).filter(|token| !token.is_null());
            if tokens.any(|token| text(token, "audience") == audience) {
                return Ok(true);
            }
            let driver = match text(field(volume, "csi"), "driver") {
                "" => self.driver_of_claim(pod, volume).await?,
                driver => driver.to_owned(),
            };
            if driver.is_empty() {
                continue;
            }
            let Some(driver) = find(self.lookup, CSI_DRIVERS, "", &driver).await? else { continue };
            let driver = driver.value();
            let mut requests = items(field(&driver, "spec"), "tokenRequests").iter();
            if requests.any(|request| text(request, "audience") == audience) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The driver of the volume that a claim of the pod is bound to; empty if there is none.
    async fn driver_of_claim(&self, pod: &Value, volume: &Value) -> Result<String, Status> {
        let claim = match text(field(volume, "persistentVolumeClaim"), "claimName") {
            "" if has(volume, "ephemeral") => {
                format!("{}-{}", text(field(pod, "metadata"), "name"), text(volume, "name"))
            }
            claim => claim.to_owned(),
        };
        if claim.is_empty() {
            return Ok(String::new());
        }
        let Some(claim) = find(self.lookup, CLAIMS, self.a.namespace, &claim).await? else { return Ok(String::new()) };
        let claim = claim.value();
        let bound = text(field(&claim, "spec"), "volumeName");
        if bound.is_empty() {
            return Ok(String::new());
        }
        let Some(volume) = find(self.lookup, VOLUMES, "", bound).await? else { return Ok(String::new()) };
        Ok(text(at(&volume.value(), &["spec", "csi"]), "driver").to_owned())
    }

    fn may_ask_for(&self, audience: &str, rights: &Rights) -> bool {
        let request = RequestInfo {
            is_resource: true,
            verb: "request-serviceaccounts-token-audience".to_owned(),
            version: "v1".to_owned(),
            namespace: self.a.namespace.to_owned(),
            resource: audience.to_owned(),
            name: self.a.name.to_owned(),
            ..RequestInfo::default()
        };
        !audience.is_empty() && rights(Asked { user: self.a.user, request: &request })
    }

    fn lease(&self) -> Result<(), Status> {
        let why = format!("can only access leases in the \"{LEASES}\" system namespace");
        self.ensure(self.a.namespace == LEASES, why)?;
        self.own_name("can only access node lease with the same name as the requesting node")
    }

    /// A new object has its name in the body.
    fn own_name(&self, why: &str) -> Result<(), Status> {
        let name = match self.a.operation {
            Operation::Create => text(field(self.object, "metadata"), "name"),
            _ => self.a.name,
        };
        self.ensure(name == self.node, why)
    }

    fn slice(&self) -> Result<(), Status> {
        let (slice, verb) = match self.a.operation {
            Operation::Create => (self.object, "create"),
            Operation::Delete => (self.a.before(), "delete"),
            Operation::Update | Operation::Connect => return Ok(()),
        };
        let own = text(field(slice, "spec"), "nodeName") == self.node;
        self.ensure(own, format!("can only {verb} ResourceSlice with the same NodeName as the requesting node"))
    }

    fn certificate(&self) -> Result<(), Status> {
        let spec = field(self.object, "spec");
        if self.a.operation != Operation::Create || !SIGNERS.contains(&text(spec, "signerName")) {
            return Ok(());
        }
        let subject = match subject(text(spec, "request")) {
            Ok(subject) => subject,
            Err(why) => return self.refuse(format!("unable to parse csr: {why}")),
        };
        let own = format!("{USER_PREFIX}{}", self.node);
        self.ensure(subject.common_name == own, format!("can only create a node CSR with CN={own}"))
    }
}

/// The labels that are set, changed or taken away, and that a kubelet has no business with, sorted.
fn forbidden_labels(new: &Value, old: &Value) -> Vec<String> {
    let (new, old) = (field(new, "metadata"), field(old, "metadata"));
    let changed = |from: &Value, to: &Value| -> Vec<String> {
        let differs = |(key, value): &(&str, &Value)| field(field(to, "labels"), key) != *value;
        entries(from, "labels").filter(differs).map(|(key, _)| key.to_owned()).collect()
    };
    let mut found = [changed(new, old), changed(old, new)].concat();
    found.retain(|label| is_forbidden(label));
    found.sort_unstable();
    found.dedup();
    found
}

fn is_forbidden(label: &str) -> bool {
    let domain = label.split_once('/').map_or("", |(domain, _)| domain);
    let within = |outer: &str| domain == outer || domain.strip_suffix(outer).is_some_and(|rest| rest.ends_with('.'));
    let is_allowed = || LABELS.contains(&label) || LABEL_DOMAINS.iter().any(|domain| within(domain));
    within(RESTRICTED_DOMAIN) || ((within("kubernetes.io") || within("k8s.io")) && !is_allowed())
}
