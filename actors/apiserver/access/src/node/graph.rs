//! Which objects the nodes need, kept up to date as pods, volumes, attachments and slices come and go.
//!
//! ```text
//! node ◀─ pod ◀─ Secret, ConfigMap, ServiceAccount, ResourceClaim, PersistentVolumeClaim ◀─ PersistentVolume ◀─ Secret
//! node ◀─ VolumeAttachment, ResourceSlice
//! ```
//!
//! What a pod needs is noted at once with its node, and counted: a ConfigMap that a thousand pods read is found as fast as
//! one that a single pod reads. Only the two steps beyond a claim are walked.
//!
//! The maps share structure with their copies: handing out a snapshot of a graph of 100,000 pods costs nothing, and a
//! change after that costs what it costs in a graph that nobody else holds.

use std::hash::Hash;
use std::sync::Arc;

use rpds::HashTrieMapSync;
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
    pub(super) namespace: Arc<str>,
    pub(super) name: Arc<str>,
}

impl Vertex {
    pub(super) fn new(kind: Kind, namespace: &str, name: &str) -> Self {
        Self { kind, namespace: namespace.into(), name: name.into() }
    }
}

/// What one object adds: who needs what because of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Edges {
    /// The node that needs the object itself; empty for a volume, which is needed through its claim.
    node: Arc<str>,
    /// What else this node needs.
    needed: Box<[Vertex]>,
    /// Objects that whoever needs the second one needs too.
    steps: Box<[(Vertex, Vertex)]>,
}

/// How many objects are the reason for each key.
type Counts<K> = HashTrieMapSync<K, usize>;

/// Which objects the nodes need.
#[derive(Clone, Debug, Default)]
pub struct NodeGraph {
    nodes: HashTrieMapSync<Vertex, Counts<Arc<str>>>,
    steps: HashTrieMapSync<Vertex, Counts<Vertex>>,
    sources: HashTrieMapSync<Vertex, Arc<Edges>>,
}

impl NodeGraph {
    /// Takes notice of a pod, persistent volume, volume attachment or resource slice as it is now; other kinds add nothing.
    pub fn put(&mut self, kind: Kind, object: &Value) {
        let text = |value: &Value| Arc::<str>::from(value.as_str().unwrap_or_default());
        let metadata = &object["metadata"];
        let mut this = Vertex { kind, namespace: text(&metadata["namespace"]), name: text(&metadata["name"]) };
        let mut edges = Edges::default();
        match kind {
            Kind::Pod | Kind::VolumeAttachment | Kind::ResourceSlice => {
                edges.node = text(&object["spec"]["nodeName"]);
                if kind == Kind::Pod && !edges.node.is_empty() {
                    edges.needed = pod_references(object).into_iter().map(|vertex| self.shared(vertex)).collect();
                    // All of it lies in the pod's namespace, and most of it some pod of the node needs already.
                    if let Some(first) = edges.needed.first() {
                        this.namespace = first.namespace.clone();
                        let nodes = self.nodes.get(first);
                        if let Some((known, _)) = nodes.and_then(|nodes| nodes.get_key_value(&edges.node)) {
                            edges.node = known.clone();
                        }
                    }
                }
            }
            Kind::Volume => {
                let claim = &object["spec"]["claimRef"];
                if claim.is_object() {
                    let claim =
                        Vertex { kind: Kind::Claim, namespace: text(&claim["namespace"]), name: text(&claim["name"]) };
                    let secrets = volume_references(object).into_iter().map(|secret| (secret, this.clone()));
                    edges.steps = secrets.chain([(this.clone(), claim)]).collect();
                }
            }
            _ => return,
        }
        let known = self.sources.get(&this);
        if known.is_some_and(|known| **known == edges) {
            return;
        }
        self.forget(&this);
        for vertex in &edges.needed {
            add(&mut self.nodes, vertex, &edges.node);
        }
        for (vertex, by) in &edges.steps {
            add(&mut self.steps, vertex, by);
        }
        if !edges.node.is_empty() || !edges.steps.is_empty() {
            self.sources.insert_mut(this, Arc::new(edges));
        }
    }

    /// Takes notice that such an object is gone. The namespace is empty for what is in none.
    pub fn remove(&mut self, kind: Kind, namespace: &str, name: &str) {
        self.forget(&Vertex::new(kind, namespace, name));
    }

    /// Whether the node needs the object.
    #[must_use]
    pub fn needs(&self, node: &str, kind: Kind, namespace: &str, name: &str) -> bool {
        let vertex = Vertex::new(kind, namespace, name);
        let own = self.sources.get(&vertex).is_some_and(|edges| &*edges.node == node && !node.is_empty());
        own || self.reaches(&vertex, node)
    }

    /// How many entries are kept, as a measure of memory.
    #[must_use]
    pub fn len(&self) -> usize {
        self.nodes.size() + self.steps.size() + self.sources.size()
    }

    /// Whether no node needs anything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The same vertex in the memory of the one that is known already, if it is: the pods of a namespace name few
    /// objects, and those again and again.
    fn shared(&self, vertex: Vertex) -> Vertex {
        self.nodes.get_key_value(&vertex).map_or(vertex, |(known, _)| known.clone())
    }

    /// Ends, for steps lead from Secrets to volumes and from there to claims, which have none.
    fn reaches(&self, vertex: &Vertex, node: &str) -> bool {
        self.nodes.get(vertex).is_some_and(|nodes| nodes.contains_key(node))
            || self.steps.get(vertex).is_some_and(|steps| steps.keys().any(|next| self.reaches(next, node)))
    }

    fn forget(&mut self, source: &Vertex) {
        let Some(edges) = self.sources.get(source).cloned() else { return };
        self.sources.remove_mut(source);
        for vertex in &edges.needed {
            take(&mut self.nodes, vertex, &edges.node);
        }
        for (vertex, by) in &edges.steps {
            take(&mut self.steps, vertex, by);
        }
    }
}

/// Counts one more.
fn add<K: Eq + Hash + Clone>(counts: &mut HashTrieMapSync<Vertex, Counts<K>>, vertex: &Vertex, key: &K) {
    let mut inner = counts.get(vertex).cloned().unwrap_or_default();
    let count = inner.get(key).copied().unwrap_or_default();
    inner.insert_mut(key.clone(), count + 1);
    counts.insert_mut(vertex.clone(), inner);
}

/// Counts one less, and keeps nothing that counts none.
fn take<K: Eq + Hash + Clone>(counts: &mut HashTrieMapSync<Vertex, Counts<K>>, vertex: &Vertex, key: &K) {
    let Some(mut inner) = counts.get(vertex).cloned() else { return };
    match inner.get(key).copied() {
        Some(count) if count > 1 => inner.insert_mut(key.clone(), count - 1),
        _ => drop(inner.remove_mut(key)),
    }
    if inner.is_empty() {
        counts.remove_mut(vertex);
    } else {
        counts.insert_mut(vertex.clone(), inner);
    }
}
