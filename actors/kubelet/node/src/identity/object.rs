//! The Node as it is made, and what a Node that is there already gets.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Node, NodeSpec, Taint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::{Value, json};

/// Keeps pods away until a cloud has said what the node is.
const UNINITIALIZED: &str = "node.cloudprovider.kubernetes.io/uninitialized";
/// A controller attaches volumes.
const CONTROLLER_ATTACHES: &str = "volumes.kubernetes.io/controller-managed-attach-detach";
/// What `--node-ip` says, for a cloud.
const PROVIDED_IP: &str = "alpha.kubernetes.io/provided-node-ip";
/// Labels that each start sets again, as upstream does.
const DEFAULT_LABELS: [&str; 11] = [
    "kubernetes.io/hostname",
    "topology.kubernetes.io/zone",
    "topology.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region",
    "node.kubernetes.io/instance-type",
    "beta.kubernetes.io/instance-type",
    "kubernetes.io/os",
    "kubernetes.io/arch",
    "beta.kubernetes.io/os",
    "beta.kubernetes.io/arch",
];

/// What the cloud controller of K3s reads; each a list between commas.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CloudAnnotations {
    /// `--node-ip`, or what was found.
    pub internal_ip: String,
    /// `--node-external-ip`.
    pub external_ip: String,
    /// `--node-internal-dns`.
    pub internal_dns: String,
    /// `--node-external-dns`.
    pub external_dns: String,
    /// The name in the address list.
    pub hostname: String,
}

impl CloudAnnotations {
    fn rows(&self) -> [(&'static str, &str); 5] {
        [
            ("k3s.io/internal-ip", &self.internal_ip),
            ("k3s.io/external-ip", &self.external_ip),
            ("k3s.io/internal-dns", &self.internal_dns),
            ("k3s.io/external-dns", &self.external_dns),
            ("k3s.io/hostname", &self.hostname),
        ]
    }
}

/// Who the node is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Identity {
    /// The name of the Node.
    pub name: String,
    /// The name of the host, in label and address list.
    pub hostname: String,
    /// As Go calls it, `amd64`.
    pub architecture: String,
    /// Labels of `--node-label` and of K3s; set again at each start.
    pub labels: BTreeMap<String, String>,
    /// Labels that are taken away at each start.
    pub labels_removed: Vec<String>,
    /// Annotations, set again at each start.
    pub annotations: BTreeMap<String, String>,
    /// Taints of a new Node.
    pub taints: Vec<Taint>,
    /// `Some` while a cloud controller says what the node's addresses are.
    pub cloud: Option<CloudAnnotations>,
    /// The value of the annotation with the given addresses, if any were given.
    pub provided_ips: Option<String>,
    /// Whether a controller attaches volumes.
    pub controller_attaches: bool,
    /// `spec.providerID`, empty to let the cloud say.
    pub provider_id: String,
}

impl Identity {
    /// What the Node should have of labels; `None` takes one away.
    fn labels(&self) -> BTreeMap<String, Option<String>> {
        let own = [
            ("kubernetes.io/hostname", &self.hostname),
            ("kubernetes.io/arch", &self.architecture),
            ("beta.kubernetes.io/arch", &self.architecture),
        ];
        let mut all: BTreeMap<String, Option<String>> =
            self.labels_removed.iter().map(|name| (name.clone(), None)).collect();
        all.extend(own.map(|(name, value)| (name.to_owned(), Some(value.clone()))));
        for name in ["kubernetes.io/os", "beta.kubernetes.io/os"] {
            all.insert(name.to_owned(), Some("linux".to_owned()));
        }
        all.extend(self.labels.iter().map(|(name, value)| (name.clone(), Some(value.clone()))));
        all
    }

    /// What it should have of annotations; `None` takes one away.
    fn annotations(&self) -> BTreeMap<String, Option<String>> {
        let mut all: BTreeMap<String, Option<String>> =
            self.annotations.iter().map(|(name, value)| (name.clone(), Some(value.clone()))).collect();
        all.insert(CONTROLLER_ATTACHES.to_owned(), self.controller_attaches.then(|| "true".to_owned()));
        let provided = self.provided_ips.clone().filter(|_| self.cloud.is_some());
        all.insert(PROVIDED_IP.to_owned(), provided);
        let cloud = self.cloud.clone().unwrap_or_default();
        for (name, value) in cloud.rows() {
            all.insert(name.to_owned(), Some(value.to_owned()).filter(|value| !value.is_empty()));
        }
        all
    }
}

/// The Node that is made when there is none. That it isn't ready yet the API server adds as a taint.
#[must_use]
pub fn initial(identity: &Identity) -> Node {
    let set = |wanted: BTreeMap<String, Option<String>>| -> BTreeMap<String, String> {
        wanted.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
    };
    let mut taints = identity.taints.clone();
    if identity.cloud.is_some() && !taints.iter().any(|taint| taint.key == UNINITIALIZED) {
        let value = Some("true".to_owned());
        taints.push(Taint { key: UNINITIALIZED.to_owned(), value, effect: "NoSchedule".to_owned(), time_added: None });
    }
    Node {
        metadata: ObjectMeta {
            name: Some(identity.name.clone()),
            labels: Some(set(identity.labels())),
            annotations: Some(set(identity.annotations())),
            ..ObjectMeta::default()
        },
        spec: Some(NodeSpec {
            taints: Some(taints).filter(|taints| !taints.is_empty()),
            provider_id: Some(identity.provider_id.clone()).filter(|id| !id.is_empty()),
            ..NodeSpec::default()
        }),
        status: None,
    }
}

/// The merge patch that gives a Node that is there what it should have; `None` if it has all. Taints stay as they are:
/// somebody may have taken them away. So does a provider's id.
#[must_use]
pub fn reconcile(existing: &Node, identity: &Identity) -> Option<Value> {
    let mut labels = differences(existing.metadata.labels.as_ref(), identity.labels());
    // A default label that nobody can have wanted empty.
    for name in DEFAULT_LABELS {
        if existing.metadata.labels.as_ref().and_then(|labels| labels.get(name)).is_some_and(String::is_empty) {
            labels.entry(name.to_owned()).or_insert(Value::Null);
        }
    }
    let annotations = differences(existing.metadata.annotations.as_ref(), identity.annotations());
    if labels.is_empty() && annotations.is_empty() {
        return None;
    }
    let mut metadata = serde_json::Map::new();
    for (name, map) in [("labels", labels), ("annotations", annotations)] {
        if !map.is_empty() {
            metadata.insert(name.to_owned(), Value::Object(map));
        }
    }
    Some(json!({ "metadata": metadata }))
}

fn differences(
    existing: Option<&BTreeMap<String, String>>,
    wanted: BTreeMap<String, Option<String>>,
) -> serde_json::Map<String, Value> {
    let found = |name: &str| existing.and_then(|existing| existing.get(name));
    let other = wanted.into_iter().filter(|(name, value)| found(name) != value.as_ref());
    other.map(|(name, value)| (name, json!(value))).collect()
}
