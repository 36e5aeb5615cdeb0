//! What a cache holds at one moment.

use k3sd_client::storage::Revision;
use k3sd_objects::object::Object;

use crate::map::{Map, relative_key};

/// All objects of a resource as they were at one revision. Never changes; every reader may keep one.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    pub(crate) objects: Map,
    pub(crate) revision: Revision,
    pub(crate) filled: bool,
}

impl Snapshot {
    /// One object; the namespace of objects of the cluster is empty.
    pub fn get(&self, namespace: &str, name: &str) -> Option<&Object> {
        self.objects.get(&relative_key(namespace, name))
    }

    /// All objects, in the order of their keys.
    pub fn iter(&self) -> impl Iterator<Item = &Object> {
        self.objects.range(b"")
    }

    /// The objects of a namespace, in the order of their names.
    pub fn in_namespace<'a>(&'a self, namespace: &'a str) -> impl Iterator<Item = &'a Object> {
        let from = relative_key(namespace, "");
        self.objects.range(&from).take_while(move |object| object.namespace() == namespace)
    }

    /// How many objects there are.
    pub fn len(&self) -> usize {
        self.objects.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The last change that is in here; zero before the cache is filled. The store may be at a later one, by changes of
    /// other resources.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// Whether the cache was filled yet.
    pub fn is_filled(&self) -> bool {
        self.filled
    }
}
