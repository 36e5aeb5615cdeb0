//! What there is of the sets that are applied, asked for once per kind.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use k3sd_objects::read::{field, text};
use serde_json::Value;
use tokio::sync::watch;

use super::owner::HASH;
use crate::api::{Cluster, Gvk, Key, Select, Served};

/// Objects by their key.
pub(super) type Objects = BTreeMap<Key, Value>;
/// The objects of a kind, by the label of their set.
type Sets = HashMap<String, Arc<Objects>>;

/// Objects of one kind that have the label, at one moment; good for one pass.
#[derive(Debug)]
pub(crate) struct Existing {
    /// Whether many sets will be asked for, so that all of them are fetched at once.
    many: bool,
    known: watch::Sender<HashMap<Gvk, Sets>>,
}

impl Existing {
    /// For a pass over so many sets.
    pub(crate) fn new(sets: usize) -> Self {
        Self { many: sets > 1, known: watch::Sender::default() }
    }

    /// The objects of a set that are of this kind.
    pub(super) async fn of(&self, cluster: &Cluster, kind: &Served, hash: &str) -> kube::Result<Arc<Objects>> {
        if !self.many {
            let selector = format!("{HASH}={hash}");
            return Ok(Arc::new(by_key(cluster.list(kind, select(&selector)).await?)));
        }
        let is_known = self.known.borrow().contains_key(&kind.gvk);
        if !is_known {
            let mut sets: HashMap<String, Vec<Value>> = HashMap::new();
            for object in cluster.list(kind, select(HASH)).await? {
                let label = text(field(field(&object, "metadata"), "labels"), HASH).to_owned();
                sets.entry(label).or_default().push(object);
            }
            let sets = sets.into_iter().map(|(hash, objects)| (hash, Arc::new(by_key(objects)))).collect();
            self.known.send_modify(|known| _ = known.insert(kind.gvk.clone(), sets));
        }
        Ok(self.known.borrow().get(&kind.gvk).and_then(|sets| sets.get(hash)).cloned().unwrap_or_default())
    }

    /// Forgets a kind: its objects were changed.
    pub(crate) fn forget(&self, gvk: &Gvk) {
        self.known.send_modify(|known| _ = known.remove(gvk));
    }
}

fn select(labels: &str) -> Select<'_> {
    Select { labels, ..Select::default() }
}

fn by_key(objects: Vec<Value>) -> Objects {
    let keyed = objects.into_iter().map(|object| {
        let metadata = field(&object, "metadata");
        (Key::new(text(metadata, "namespace"), text(metadata, "name")), object)
    });
    keyed.collect()
}
