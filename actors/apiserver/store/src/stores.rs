//! The stores of all resources that are served.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;

use k3sd_client::storage::Storage;
use k3sd_runtime::Clock;
use k3sd_runtime::lend::Loan;
use tokio::sync::watch;

use crate::catalog::{Catalog, CatalogHandle, Stored};
use crate::log::Log;
use crate::objects::ObjectStore;

/// Longest part of a resource's name that goes into the name of its cache's actor.
const ACTOR_NAME_BYTES: usize = 220;

/// One resource's store, under the name of its actor.
#[derive(Clone)]
pub(crate) struct Entry {
    pub(crate) actor: Arc<str>,
    pub(crate) store: Arc<ObjectStore>,
}

/// Stores by group and plural.
#[derive(Default)]
struct Table {
    entries: HashMap<Arc<str>, HashMap<Arc<str>, Entry>>,
    /// Stores of resources that are not served any more, until their actors are gone.
    retired: Vec<Arc<ObjectStore>>,
    /// What it was made from.
    catalog: Arc<Catalog>,
}

impl Table {
    fn get(&self, group: &str, plural: &str) -> Option<&Entry> {
        self.entries.get(group)?.get(plural)
    }

    fn all(&self) -> impl Iterator<Item = &Entry> {
        self.entries.values().flat_map(HashMap::values)
    }
}

struct Inner {
    catalog: CatalogHandle,
    storage: Arc<dyn Storage>,
    clock: Clock,
    log: Arc<Log>,
    table: watch::Sender<Table>,
    /// Stores there ever were, so that each actor has a name of its own.
    made: watch::Sender<u64>,
}

/// Stores by group and plural, as the catalog has them. Cheap to clone.
#[derive(Clone)]
pub struct Stores(Arc<Inner>);

impl fmt::Debug for Stores {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stores").field("resources", &self.0.table.borrow().all().count()).finish()
    }
}

impl Stores {
    /// Stores for what is served now and later. They are filled once [`tree`](crate::tree) runs.
    pub fn new(catalog: CatalogHandle, storage: Arc<dyn Storage>, clock: Clock) -> Self {
        let table = watch::Sender::default();
        let stores =
            Self(Arc::new(Inner { catalog, storage, clock, log: Log::new(), table, made: watch::Sender::new(0) }));
        stores.follow_catalog();
        stores
    }

    /// The store of what lies there.
    pub fn of(&self, stored: &Stored) -> Option<Arc<ObjectStore>> {
        self.get(&stored.group, &stored.plural)
    }

    /// The store of a resource, whatever its version; `None` if it is not served, or nothing of it is stored.
    pub fn get(&self, group: &str, plural: &str) -> Option<Arc<ObjectStore>> {
        // A resource that was published a moment ago is served, and one that was withdrawn is not.
        let catalog = self.0.catalog.current();
        let find = |table: &Table| table.get(group, plural).map(|entry| entry.store.clone());
        {
            let table = self.0.table.borrow();
            if Arc::ptr_eq(&table.catalog, &catalog) {
                return find(&table);
            }
        }
        self.follow_catalog();
        find(&self.0.table.borrow())
    }

    /// What is served.
    pub fn catalog(&self) -> &CatalogHandle {
        &self.0.catalog
    }

    /// Below the caches.
    pub fn storage(&self) -> &Arc<dyn Storage> {
        &self.0.storage
    }

    /// Waits until every cache is filled.
    pub async fn ready(&self) {
        for store in self.all() {
            store.board.filled().await;
        }
    }

    /// The resources whose caches are not filled yet, as `plural.group`.
    pub fn unfilled(&self) -> Vec<String> {
        let stores = self.all().into_iter().filter(|store| !store.snapshot().is_filled());
        stores.map(|store| name(store.stored())).collect()
    }

    /// The store of each resource, in no order.
    pub fn all(&self) -> Vec<Arc<ObjectStore>> {
        self.0.table.borrow().all().map(|entry| entry.store.clone()).collect()
    }

    pub(crate) fn log(&self) -> &Arc<Log> {
        &self.0.log
    }

    /// The caches that have to run, by the names of their actors.
    pub(crate) fn wanted(&self) -> BTreeMap<Arc<str>, Arc<ObjectStore>> {
        self.0.table.borrow().all().map(|entry| (entry.actor.clone(), entry.store.clone())).collect()
    }

    /// Makes stores for what is new in the catalog, and lets go of those that are not in it any more.
    pub(crate) fn follow_catalog(&self) {
        let Inner { catalog, storage, clock, log, table, made } = &*self.0;
        table.send_modify(|table| {
            // Read in here: whoever comes second sees the newer catalog.
            table.catalog = catalog.current();
            let mut former = std::mem::take(&mut table.entries);
            for stored in table.catalog.resources().filter_map(|resource| resource.stored.as_ref()) {
                let group = table.entries.entry(stored.group.clone()).or_default();
                if group.contains_key(&stored.plural) {
                    continue; // Another version of it.
                }
                let known = former.get_mut(&stored.group).and_then(|group| group.remove(&stored.plural));
                let (same, other) = match known {
                    Some(known) if is_same(stored, known.store.stored()) => (Some(known), None),
                    other => (None, other),
                };
                table.retired.extend(other.map(|other| other.store));
                let entry = same.unwrap_or_else(|| {
                    made.send_modify(|made| *made += 1);
                    let actor = actor_name(stored, *made.borrow());
                    let store = ObjectStore::new(stored.clone(), storage.clone(), clock.clone(), log.clone());
                    Entry { actor, store: Arc::new(store) }
                });
                group.insert(stored.plural.clone(), entry);
            }
            let left = former.into_values().flat_map(HashMap::into_values);
            table.retired.extend(left.map(|entry| entry.store));
        });
    }

    /// Ends the watches of resources that are not served any more. Their actors have been stopped.
    pub(crate) fn bury(&self) {
        self.0.table.send_if_modified(|table| {
            // One that somebody still has belongs to an actor of the next comparison.
            table.retired.retain(|store| store.state.borrow().map(Loan::keep).is_err());
            false // Nobody waits for less.
        });
    }
}

/// Whether what a cache holds is right for a new description of the resource too.
fn is_same(new: &Arc<Stored>, old: &Arc<Stored>) -> bool {
    Arc::ptr_eq(new, old)
        || (new.prefix == old.prefix
            && new.api_version == old.api_version
            && new.kind == old.kind
            && new.namespaced == old.namespaced
            && new.definition_uid == old.definition_uid
            && new.selectable.labels().eq(old.selectable.labels()))
}

fn name(stored: &Stored) -> String {
    if stored.group.is_empty() { stored.plural.to_string() } else { format!("{}.{}", stored.plural, stored.group) }
}

/// A definition that is deleted and created again has another cache, so its actor has another name.
fn actor_name(stored: &Stored, number: u64) -> Arc<str> {
    let mut name = name(stored);
    if stored.definition_uid.is_none() && name.len() <= ACTOR_NAME_BYTES {
        return name.into();
    }
    name.truncate(name.floor_char_boundary(ACTOR_NAME_BYTES));
    format!("{name}~{number}").into()
}
