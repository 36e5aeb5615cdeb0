//! A small cluster that is looked things up in, and each plugin's table of cases.

mod classes;
mod nodes;
mod pods;
mod quotas;
mod robust;

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use k3sd_apiserver_access::{Authorizer, User};
use k3sd_apiserver_store::{Catalog, Resource, WriteError};
use k3sd_objects::object::{Object, stored_bytes};
use k3sd_objects::status::Status;
use k3sd_runtime::Clock;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::lookup::{Lookup, Pending, Place};
use crate::{Admission, AdmissionConfig, Admitted, Attributes, Operation};

static CATALOG: LazyLock<Catalog> = LazyLock::new(|| Catalog::builtin(|resource| resource.served));

type Objects = BTreeMap<(Place, String, String), Object>;

/// What is stored, and what a cache knows of it.
#[derive(Debug, Default)]
struct State {
    revision: u64,
    stored: Objects,
    cached: Objects,
    lags: bool,
}

/// A store with compare-and-swap and a cache that may lag behind.
#[derive(Debug, Default)]
pub(crate) struct Cluster(watch::Sender<State>);

fn resource(place: Place) -> &'static Resource {
    CATALOG.preferred(place.0, place.1).expect("served")
}

fn stored(place: Place, value: Value, revision: u64) -> Object {
    let selectable = &resource(place).stored.as_ref().expect("stored").selectable;
    Object::from_stored(&stored_bytes(value), revision, selectable).expect("an object")
}

impl State {
    fn put(&mut self, place: Place, value: Value) -> Object {
        self.revision += 1;
        let object = stored(place, value, self.revision);
        let key = (place, object.namespace().to_owned(), object.name().to_owned());
        self.stored.insert(key, object.clone());
        if !self.lags {
            self.cached.clone_from(&self.stored);
        }
        object
    }
}

impl Cluster {
    pub(crate) fn put(&self, group: &'static str, plural: &'static str, value: Value) {
        self.0.send_modify(|state| drop(state.put((group, plural), value)));
    }

    /// From now on the cache sees nothing new.
    fn lag(&self) {
        self.0.send_modify(|state| state.lags = true);
    }

    fn revision(&self) -> u64 {
        self.0.borrow().revision
    }

    fn read(&self, place: Place, namespace: &str, name: &str) -> Value {
        let key = (place, namespace.to_owned(), name.to_owned());
        self.0.borrow().stored.get(&key).expect("there").value()
    }
}

impl Lookup for Cluster {
    fn cached(&self, place: Place, namespace: &str, name: &str) -> Option<Object> {
        self.0.borrow().cached.get(&(place, namespace.to_owned(), name.to_owned())).cloned()
    }

    fn cached_all(&self, place: Place, namespace: &str) -> Option<Vec<Object>> {
        let state = self.0.borrow();
        let fits = |key: &&(Place, String, String)| key.0 == place && (namespace.is_empty() || key.1 == namespace);
        let keys = state.cached.keys().filter(fits);
        Some(keys.filter_map(|key| state.cached.get(key)).cloned().collect())
    }

    fn fresh<'a>(
        &'a self,
        place: Place,
        namespace: &'a str,
        name: &'a str,
    ) -> Pending<'a, Result<Option<Object>, Status>> {
        Box::pin(async move {
            tokio::task::yield_now().await;
            Ok(self.0.borrow().stored.get(&(place, namespace.to_owned(), name.to_owned())).cloned())
        })
    }

    fn update<'a>(&'a self, place: Place, old: &'a Object, value: Value) -> Pending<'a, Result<Object, WriteError>> {
        Box::pin(async move {
            tokio::task::yield_now().await;
            let mut outcome = Err(WriteError::Conflict { current: None });
            self.0.send_modify(|state| {
                let key = (place, old.namespace().to_owned(), old.name().to_owned());
                match state.stored.get(&key).cloned() {
                    Some(now) if now.resource_version() == old.resource_version() => {
                        outcome = Ok(state.put(place, value));
                    }
                    current => outcome = Err(WriteError::Conflict { current }),
                }
            });
            outcome
        })
    }

    fn selects(&self, place: Place, label: &str, value: &str, object: &Object) -> bool {
        let selectable = &resource(place).stored.as_ref().expect("stored").selectable;
        object.selected(label, selectable) == Some(value)
    }
}

/// A cluster with two namespaces, `a` and the one that is `going`, and admission over it.
pub(crate) struct World {
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) admission: Admission,
}

impl World {
    pub(crate) fn new() -> Self {
        Self::with(AdmissionConfig::default(), Authorizer::default())
    }

    pub(crate) fn with(config: AdmissionConfig, authorizer: Authorizer) -> Self {
        let cluster = Arc::new(Cluster::default());
        for (name, phase) in [("a", "Active"), ("going", "Terminating"), ("kube-node-lease", "Active")] {
            cluster.put("", "namespaces", json!({"metadata": {"name": name}, "status": {"phase": phase}}));
        }
        cluster.put("", "serviceaccounts", json!({"metadata": {"namespace": "a", "name": "default", "uid": "u"}}));
        let rights = Arc::new(move |asked: k3sd_apiserver_access::Attributes<'_>| authorizer.allows(asked));
        let admission = Admission::with(cluster.clone(), rights, config, Clock::simulated(1));
        Self { cluster, admission }
    }

    /// Both phases, as a write goes through them.
    pub(crate) async fn admit(&self, a: &Attributes<'_>, object: &mut Value) -> Result<Admitted, Status> {
        self.admission.mutate(a, object).await?;
        let object = (a.operation != Operation::Delete).then_some(&*object);
        self.admission.validate(a, object).await
    }

    /// The message of a refusal.
    pub(crate) async fn refusal(&self, a: &Attributes<'_>, mut object: Value) -> Option<String> {
        self.admit(a, &mut object).await.err().map(|status| status.message)
    }

    /// The object as admission leaves it.
    pub(crate) async fn admitted(&self, a: &Attributes<'_>, mut object: Value) -> Value {
        let admitted = self.admit(a, &mut object).await.unwrap_or_else(|status| panic!("{}", status.message));
        assert!(admitted.charge.is_empty(), "no quota is there");
        object
    }
}

static NOBODY: LazyLock<User> = LazyLock::new(|| User::new("ann", &[]));

/// A create in namespace `a`, of what lies there or of what is named so.
pub(crate) fn create(group: &'static str, plural: &'static str) -> Attributes<'static> {
    let resource = resource((group, plural));
    Attributes {
        user: &NOBODY,
        operation: Operation::Create,
        resource,
        subresource: "",
        namespace: if resource.namespaced { "a" } else { "" },
        name: "",
        old: None,
        options: &Value::Null,
        dry_run: false,
    }
}

/// An update of `x`.
pub(crate) fn update<'a>(group: &'static str, plural: &'static str, old: &'a Value) -> Attributes<'a> {
    Attributes { operation: Operation::Update, name: "x", old: Some(old), ..create(group, plural) }
}
