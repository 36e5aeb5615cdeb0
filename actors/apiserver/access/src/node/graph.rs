//! Which objects the nodes need, kept up to date as pods, volumes, attachments and slices come and go.
//!
//! ```text
//! node ◀─ pod ◀─ Secret, ConfigMap, ServiceAccount, ResourceClaim, PersistentVolumeClaim ◀─ PersistentVolume ◀─ Secret
//! node ◀─ VolumeAttachment, ResourceSlice
//! ```
//!
//! What a pod needs is noted at once with its node, and counted: a ConfigMap that a thousand pods read is found as fast as
//! one that a single pod reads. Only the two steps beyond a claim are walked.

use std::collections::HashMap;
use std::hash::Hash;

use serde_json::Value;

use super::references::{pod_references, volume_references};

/// The kinds that nodes need something of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// `configmaps`.
    ConfigMap,
    /// `persistentvolumeclaims`.
    Claim,
    /// `persistentvolumes`.
    Volume,
    /// `pods`.
    Pod,
    /// `resourceclaims`.
    ResourceClaim,
    /// `resourceslices`.
    ResourceSlice,
    /// `secrets`.
    Secret,
    /// `serviceaccounts`.
    ServiceAccount,
    /// `volumeattachments`.
    VolumeAttachment,
}

/// One object.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Vertex {
    pub(super) kind: Kind,
    pub(super) namespace: String,
    pub(super) name: String,
}

impl Vertex {
    pub(super) fn new(kind: Kind, namespace: &str, name: &str) -> Self {
        Self { kind, namespace: namespace.to_owned(), name: name.to_owned() }
    }
}

/// What one object adds: who needs what because of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Edges {
    /// Objects that this node needs.
    node: String,
    needed: Vec<Vertex>,
    /// Objects that whoever needs the second one needs too.
    steps: Vec<(Vertex, Vertex)>,
}

/// Which objects the nodes need.
#[derive(Clone, Debug, Default)]
pub struct NodeGraph {
    nodes: HashMap<Vertex, HashMap<String, usize>>,
    steps: HashMap<Vertex, HashMap<Vertex, usize>>,
    sources: HashMap<Vertex, Edges>,
}

impl NodeGraph {
    /// Takes notice of a pod, persistent volume, volume attachment or resource slice as it is now; other kinds add nothing.
    pub fn put(&mut self, kind: Kind, object: &Value) {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let (namespace, name) = (text(&object["metadata"]["namespace"]), text(&object["metadata"]["name"]));
        let this = Vertex::new(kind, &namespace, &name);
        let mut edges = Edges { node: text(&object["spec"]["nodeName"]), ..Edges::default() };
        match kind {
            Kind::Pod => edges.needed = pod_references(object),
            Kind::VolumeAttachment | Kind::ResourceSlice => {}
            Kind::Volume => {
                edges.node.clear();
                let claim = &object["spec"]["claimRef"];
                if claim.is_object() {
                    let claim = Vertex::new(Kind::Claim, &text(&claim["namespace"]), &text(&claim["name"]));
                    let secrets = volume_references(object).into_iter().map(|secret| (secret, this.clone()));
                    edges.steps = secrets.chain([(this.clone(), claim)]).collect();
                }
            }
            _ => return,
        }
        if !edges.node.is_empty() {
            edges.needed.push(this.clone());
        } else {
            edges.needed.clear();
        }
        if self.sources.get(&this) == Some(&edges) {
            return;
        }
        self.forget(&this);
        for vertex in &edges.needed {
            *self.nodes.entry(vertex.clone()).or_default().entry(edges.node.clone()).or_default() += 1;
        }
        for (vertex, by) in &edges.steps {
            *self.steps.entry(vertex.clone()).or_default().entry(by.clone()).or_default() += 1;
        }
        if !edges.needed.is_empty() || !edges.steps.is_empty() {
            self.sources.insert(this, edges);
        }
    }

    /// Takes notice that such an object is gone. The namespace is empty for what is in none.
    pub fn remove(&mut self, kind: Kind, namespace: &str, name: &str) {
        self.forget(&Vertex::new(kind, namespace, name));
    }

    /// Whether the node needs the object.
    #[must_use]
    pub fn needs(&self, node: &str, kind: Kind, namespace: &str, name: &str) -> bool {
        self.reaches(&Vertex::new(kind, namespace, name), node)
    }

    /// How many entries are kept, as a measure of memory.
    #[must_use]
    pub fn len(&self) -> usize {
        self.nodes.len() + self.steps.len() + self.sources.len()
    }

    /// Whether no node needs anything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Ends, for steps lead from Secrets to volumes and from there to claims, which have none.
    fn reaches(&self, vertex: &Vertex, node: &str) -> bool {
        self.nodes.get(vertex).is_some_and(|nodes| nodes.contains_key(node))
            || self.steps.get(vertex).is_some_and(|steps| steps.keys().any(|next| self.reaches(next, node)))
    }

    fn forget(&mut self, source: &Vertex) {
        let Some(edges) = self.sources.remove(source) else { return };
        for vertex in &edges.needed {
            take(&mut self.nodes, vertex, &edges.node);
        }
        for (vertex, by) in &edges.steps {
            take(&mut self.steps, vertex, by);
        }
    }
}

/// Counts one less, and keeps nothing that counts none.
fn take<K: Eq + Hash>(counts: &mut HashMap<Vertex, HashMap<K, usize>>, vertex: &Vertex, key: &K) {
    let Some(inner) = counts.get_mut(vertex) else { return };
    if let Some(count) = inner.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            inner.remove(key);
        }
    }
    if inner.is_empty() {
        counts.remove(vertex);
    }
}
