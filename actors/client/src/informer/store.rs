//! The local copy of a kind's objects: pure.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use rpds::RedBlackTreeMapSync;

use super::Kind;

/// Namespace (empty for objects of the cluster) and name.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey {
    /// Empty for objects of the cluster.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl ObjectKey {
    /// The key of an object.
    pub fn of<K: Kind>(object: &K) -> Self {
        let meta = object.meta();
        let text = |part: &Option<String>| part.clone().unwrap_or_default();
        Self { namespace: text(&meta.namespace), name: text(&meta.name) }
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() { f.write_str(&self.name) } else { write!(f, "{}/{}", self.namespace, self.name) }
    }
}

/// Another way to find objects: by the texts that a function gives for each.
#[derive(Clone)]
pub struct Index<K> {
    /// What it is asked by.
    pub name: &'static str,
    /// The texts under which an object is found.
    pub texts: fn(&K) -> Vec<String>,
}

impl<K> fmt::Debug for Index<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Index").field("name", &self.name).finish_non_exhaustive()
    }
}

type Entries = RedBlackTreeMapSync<(&'static str, String, ObjectKey), ()>;

/// All objects at one moment. Never changes; copies share what they have in common.
#[derive(Clone, Debug)]
pub struct Snapshot<K> {
    objects: RedBlackTreeMapSync<ObjectKey, Arc<K>>,
    entries: Entries,
    indexes: Arc<[Index<K>]>,
    version: String,
}

impl<K: Kind> Snapshot<K> {
    pub(super) fn new(indexes: Arc<[Index<K>]>) -> Self {
        let (objects, entries) = (RedBlackTreeMapSync::new_sync(), RedBlackTreeMapSync::new_sync());
        Self { objects, entries, indexes, version: String::new() }
    }

    /// An object.
    pub fn get(&self, namespace: &str, name: &str) -> Option<&Arc<K>> {
        self.objects.get(&ObjectKey { namespace: namespace.to_owned(), name: name.to_owned() })
    }

    /// All objects, in the order of namespaces and names.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<K>> {
        self.objects.values()
    }

    /// The objects of a namespace, in the order of names.
    pub fn of_namespace<'a>(&'a self, namespace: &'a str) -> impl Iterator<Item = &'a Arc<K>> {
        let from = ObjectKey { namespace: namespace.to_owned(), name: String::new() };
        let found = self.objects.range(from..).take_while(move |(key, _)| key.namespace == namespace);
        found.map(|(_, object)| object)
    }

    /// The keys of all objects, in order.
    pub fn keys(&self) -> impl Iterator<Item = &ObjectKey> {
        self.objects.keys()
    }

    /// The objects that an index has under a text, in the order of namespaces and names. An index that there isn't finds
    /// nothing.
    pub fn by<'a>(&'a self, index: &str, text: &'a str) -> impl Iterator<Item = &'a Arc<K>> {
        let name = self.indexes.iter().find(|known| known.name == index).map_or("", |known| known.name);
        let from = (name, text.to_owned(), ObjectKey::default());
        let found = self.entries.range(from..).map(|(entry, ())| entry);
        let found = found.take_while(move |(index, entry, _)| *index == name && entry == text);
        found.filter_map(|(.., key)| self.objects.get(key))
    }

    /// How many objects there are.
    pub fn len(&self) -> usize {
        self.objects.size()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The version of the store that it shows, opaque.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The same at a later version of the store.
    pub(super) fn set_version(&mut self, version: String) {
        self.version = version;
    }

    /// Takes an object in: what it was until now, and what it is. `None` if it is there already, in this very version.
    pub(super) fn apply(&mut self, mut object: K) -> Option<(Option<Arc<K>>, Arc<K>)> {
        // Who wrote which field takes more room than the fields, and nobody who reads copies asks.
        object.meta_mut().managed_fields = None;
        let key = ObjectKey::of(&object);
        let old = self.objects.get(&key).cloned();
        if let Some(old) = &old {
            let version = &object.meta().resource_version;
            if version.is_some() && *version == old.meta().resource_version && object.meta().uid == old.meta().uid {
                return None;
            }
            self.unindex(&key, old);
        }
        for (index, text) in texts(&self.indexes, &object) {
            self.entries.insert_mut((index, text, key.clone()), ());
        }
        let object = Arc::new(object);
        self.objects.insert_mut(key, object.clone());
        Some((old, object))
    }

    /// Forgets an object; `None` if it wasn't there.
    pub(super) fn delete(&mut self, key: &ObjectKey) -> Option<Arc<K>> {
        let old = self.objects.get(key).cloned()?;
        self.unindex(key, &old);
        self.objects.remove_mut(key);
        Some(old)
    }

    fn unindex(&mut self, key: &ObjectKey, object: &K) {
        for (index, text) in texts(&self.indexes, object) {
            self.entries.remove_mut(&(index, text, key.clone()));
        }
    }
}

/// Index and text of each entry of an object, each once.
fn texts<K>(indexes: &[Index<K>], object: &K) -> BTreeSet<(&'static str, String)> {
    let of = |index: &Index<K>| {
        let name = index.name;
        (index.texts)(object).into_iter().map(move |text| (name, text))
    };
    indexes.iter().flat_map(of).collect()
}
