//! What admission looks up of the cluster.

use std::future::Future;
use std::pin::Pin;

use k3sd_apiserver_store::{ReadAt, Stores, WriteError};
use k3sd_objects::object::Object;
use k3sd_objects::status::Status;
use serde_json::Value;

/// An answer that may have to wait for the store.
pub(crate) type Pending<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Group and plural of something that is looked up.
pub(crate) type Place = (&'static str, &'static str);

pub(crate) const NAMESPACES: Place = ("", "namespaces");
pub(crate) const NODES: Place = ("", "nodes");
pub(crate) const PODS: Place = ("", "pods");
pub(crate) const CLAIMS: Place = ("", "persistentvolumeclaims");
pub(crate) const VOLUMES: Place = ("", "persistentvolumes");
pub(crate) const SERVICE_ACCOUNTS: Place = ("", "serviceaccounts");
pub(crate) const LIMIT_RANGES: Place = ("", "limitranges");
pub(crate) const QUOTAS: Place = ("", "resourcequotas");
pub(crate) const PRIORITY_CLASSES: Place = ("scheduling.k8s.io", "priorityclasses");
pub(crate) const STORAGE_CLASSES: Place = ("storage.k8s.io", "storageclasses");
pub(crate) const CSI_DRIVERS: Place = ("storage.k8s.io", "csidrivers");
pub(crate) const INGRESS_CLASSES: Place = ("networking.k8s.io", "ingressclasses");
pub(crate) const RUNTIME_CLASSES: Place = ("node.k8s.io", "runtimeclasses");

/// Reads objects, and writes the one kind that admission writes. Objects are in the version they are stored in.
pub(crate) trait Lookup: Send + Sync + 'static {
    /// An object as the cache has it, without waiting.
    fn cached(&self, place: Place, namespace: &str, name: &str) -> Option<Object>;

    /// The objects of a namespace (all of them if it is empty) as the cache has them, in the order of their names.
    /// `None` while the cache is being filled.
    fn cached_all(&self, place: Place, namespace: &str) -> Option<Vec<Object>>;

    /// An object with every write in it that was acknowledged before the question.
    fn fresh<'a>(
        &'a self,
        place: Place,
        namespace: &'a str,
        name: &'a str,
    ) -> Pending<'a, Result<Option<Object>, Status>>;

    /// Writes an object if nobody has since `old` was read.
    fn update<'a>(&'a self, place: Place, old: &'a Object, value: Value) -> Pending<'a, Result<Object, WriteError>>;

    /// Whether a field selector sees this value in an object. Parses nothing.
    fn selects(&self, place: Place, label: &str, value: &str, object: &Object) -> bool;
}

impl Lookup for Stores {
    fn cached(&self, (group, plural): Place, namespace: &str, name: &str) -> Option<Object> {
        self.get(group, plural)?.snapshot().get(namespace, name).cloned()
    }

    fn cached_all(&self, (group, plural): Place, namespace: &str) -> Option<Vec<Object>> {
        let snapshot = self.get(group, plural)?.snapshot();
        if !snapshot.is_filled() {
            return None;
        }
        Some(match namespace {
            "" => snapshot.iter().cloned().collect(),
            namespace => snapshot.in_namespace(namespace).cloned().collect(),
        })
    }

    fn fresh<'a>(
        &'a self,
        (group, plural): Place,
        namespace: &'a str,
        name: &'a str,
    ) -> Pending<'a, Result<Option<Object>, Status>> {
        Box::pin(async move {
            match self.get(group, plural) {
                Some(store) => store.get(namespace, name, ReadAt::Latest).await,
                None => Ok(None),
            }
        })
    }

    fn update<'a>(
        &'a self,
        (group, plural): Place,
        old: &'a Object,
        value: Value,
    ) -> Pending<'a, Result<Object, WriteError>> {
        Box::pin(async move {
            match self.get(group, plural) {
                Some(store) => store.update(old, value, None).await,
                None => Err(WriteError::Conflict { current: None }),
            }
        })
    }

    fn selects(&self, (group, plural): Place, label: &str, value: &str, object: &Object) -> bool {
        let store = self.get(group, plural);
        store.is_some_and(|store| object.selected(label, &store.stored().selectable) == Some(value))
    }
}

/// An object from the cache, or, if it isn't there, from the store: it may be so new that the cache doesn't know.
pub(crate) async fn find(
    lookup: &dyn Lookup,
    place: Place,
    namespace: &str,
    name: &str,
) -> Result<Option<Object>, Status> {
    match lookup.cached(place, namespace, name) {
        Some(object) => Ok(Some(object)),
        None => lookup.fresh(place, namespace, name).await,
    }
}
