//! Serves what definitions declare.
//!
//! Owns:    what the catalog has beside built-in resources, and the names and conditions of definitions.
//! Needs:   the stores of the API server.
//! Restart: permanent. It reads all definitions again; what is served stays so until it has.
//! Fails:   never; a status that can't be written is tried again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k3sd_apiserver_store::{ObjectStore, Stores, Watch, WatchItem, WatchKind, WatchQuery, WriteError};
use k3sd_objects::object::Object;
use k3sd_runtime::{ActorError, Clock, TaskHandle};

use super::known::{Known, Update};
use super::{definitions_of, now, pause};

/// What the task does.
pub(crate) async fn run(task: TaskHandle, stores: Stores) -> Result<(), ActorError> {
    let clock = task.system().clock().clone();
    // The handle itself can't be kept across a wait.
    drop(task);
    let mut known = Known::default();
    loop {
        if let Some(store) = definitions_of(&stores) {
            let query = WatchQuery { initial_events: Some(true), ..WatchQuery::default() };
            match store.watch(&query).await {
                Ok(watch) => follow(&clock, &stores, &store, watch, &mut known).await,
                Err(error) => tracing::debug!(error = error.message, "definitions can't be watched yet"),
            }
        }
        pause(&clock).await;
    }
}

/// Follows one watch to its end.
async fn follow(clock: &Clock, stores: &Stores, store: &Arc<ObjectStore>, mut watch: Watch, known: &mut Known) {
    let mut initial = Some(BTreeSet::new());
    // Statuses that could not be written; their definitions are looked at again.
    let mut failed: BTreeMap<String, Object> = BTreeMap::new();
    loop {
        let item = tokio::select! {
            item = watch.next() => item,
            () = pause(clock), if !failed.is_empty() => {
                for (_, object) in std::mem::take(&mut failed) {
                    let updates = known.put(object, &now(clock));
                    write(store, updates, &mut failed).await;
                }
                continue;
            }
        };
        let Some(WatchItem { kind, object, .. }) = item else { return };
        let updates = match kind {
            WatchKind::Added | WatchKind::Modified => {
                failed.remove(object.name());
                if let Some(names) = &mut initial {
                    names.insert(object.name().to_owned());
                }
                known.put(object, &now(clock))
            }
            WatchKind::Deleted => known.remove(object.name(), &now(clock)),
            WatchKind::Bookmark { .. } => {
                let Some(names) = initial.take() else { continue };
                // Those that went while nobody watched.
                let gone: Vec<String> =
                    known.names().filter(|name| !names.contains(*name)).map(str::to_owned).collect();
                gone.iter().flat_map(|name| known.remove(name, &now(clock))).collect()
            }
            WatchKind::Error(_) => return,
        };
        // Published before a client can read that it is served, so that nobody finds nothing there. Not before all of
        // them are known: after a restart what was served goes on.
        if initial.is_none() {
            publish(stores, known);
        }
        write(store, updates, &mut failed).await;
    }
}

fn publish(stores: &Stores, known: &Known) {
    let resources = known.resources();
    let catalog = stores.catalog().current();
    // What is compiled in can't be replaced.
    let builtin = |group: &str, version: &str, plural: &str| {
        catalog.resource(group, version, plural).is_some_and(|resource| resource.custom.is_none())
    };
    let wanted: Vec<_> = resources
        .into_iter()
        .filter(|resource| !builtin(&resource.group, &resource.version, &resource.plural))
        .collect();
    let served: Vec<_> = catalog.resources().filter(|resource| resource.custom.is_some()).collect();
    let same = served.len() == wanted.len()
        && wanted.iter().all(|wanted| {
            let found = catalog.resource(&wanted.group, &wanted.version, &wanted.plural);
            found.is_some_and(|found| Arc::ptr_eq(found, wanted))
        });
    if !same {
        stores.catalog().set_custom(wanted);
    }
}

async fn write(store: &Arc<ObjectStore>, updates: Vec<Update>, failed: &mut BTreeMap<String, Object>) {
    for Update { old, new } in updates {
        match store.update(&old, new, None).await {
            // Whoever was faster is told of in the watch.
            Ok(_) | Err(WriteError::Conflict { .. } | WriteError::Exists) => {}
            Err(error) => {
                tracing::warn!(definition = old.name(), %error, "a definition's status can't be written yet");
                failed.insert(old.name().to_owned(), old);
            }
        }
    }
}
