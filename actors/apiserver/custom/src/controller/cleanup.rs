//! Deletes the instances of definitions that go, and then lets these go.
//!
//! Owns:    the finalizer of definitions, and the condition that says how far it is.
//! Needs:   the stores of the API server.
//! Restart: permanent. Everything that it knows is in the definitions.
//! Fails:   never; what can't be deleted yet is tried again.

use std::collections::BTreeMap;
use std::sync::Arc;

use k3sd_apiserver_store::{ObjectStore, Stores, Watch, WatchItem, WatchKind, WatchQuery, WriteError};
use k3sd_objects::object::Object;
use k3sd_runtime::{ActorError, Clock, TaskHandle};
use serde_json::Value;

use super::{definitions_of, has_condition, now, pause};
use crate::definition::{CLEANUP_FINALIZER, set_condition};

/// What the task does.
pub(crate) async fn run(task: TaskHandle, stores: Stores) -> Result<(), ActorError> {
    let clock = task.system().clock().clone();
    // The handle itself can't be kept across a wait.
    drop(task);
    loop {
        if let Some(store) = definitions_of(&stores)
            && let Ok(watch) = store.watch(&WatchQuery::default()).await
        {
            follow(&clock, &stores, &store, watch).await;
        }
        pause(&clock).await;
    }
}

async fn follow(clock: &Clock, stores: &Stores, store: &Arc<ObjectStore>, mut watch: Watch) {
    let mut going: BTreeMap<String, Object> = BTreeMap::new();
    loop {
        let item = tokio::select! {
            item = watch.next() => item,
            // Instances with finalizers go when others let them, so they are looked at until they have.
            () = pause(clock), if !going.is_empty() => {
                for object in going.values() {
                    step(stores, store, object, &now(clock)).await;
                }
                continue;
            }
        };
        let Some(WatchItem { kind, object, .. }) = item else { return };
        match kind {
            WatchKind::Added | WatchKind::Modified if is_going(&object) => {
                step(stores, store, &object, &now(clock)).await;
                going.insert(object.name().to_owned(), object);
            }
            WatchKind::Added | WatchKind::Modified | WatchKind::Deleted => drop(going.remove(object.name())),
            WatchKind::Bookmark { .. } => {}
            WatchKind::Error(_) => return,
        }
    }
}

fn is_going(definition: &Object) -> bool {
    definition.deletion_timestamp().is_some() && definition.finalizers().any(|name| name == CLEANUP_FINALIZER)
}

/// Goes on with one definition: says that instances are being deleted, deletes them, or lets it go.
async fn step(stores: &Stores, store: &Arc<ObjectStore>, object: &Object, now: &str) {
    let mut definition = object.value();
    if !has_condition(&definition, "Established", "True") {
        set_condition(
            &mut definition,
            "Terminating",
            "False",
            "NeverEstablished",
            "resource was never established",
            now,
        );
        return let_go(store, object, definition).await;
    }
    let message = "CustomResource deletion is in progress";
    let before = definition.clone();
    set_condition(&mut definition, "Terminating", "True", "InstanceDeletionInProgress", message, now);
    if definition != before {
        // The write comes back as a change, and the work begins with that.
        return report(store.update(object, definition, None).await);
    }
    let names = &definition["status"]["acceptedNames"];
    let (group, plural) = (text(&definition["spec"]["group"]), text(&names["plural"]));
    let Some(instances) = stores.get(group, plural) else { return };
    if instances.stored().definition_uid.as_deref() != Some(object.uid()) {
        return;
    }
    if delete_all(&instances, now).await {
        let message = "removed all instances";
        set_condition(&mut definition, "Terminating", "False", "InstanceDeletionCompleted", message, now);
        let_go(store, object, definition).await;
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// Takes the finalizer away; without another one the definition goes at once.
async fn let_go(store: &Arc<ObjectStore>, object: &Object, mut definition: Value) {
    if let Some(finalizers) = definition.pointer_mut("/metadata/finalizers").and_then(Value::as_array_mut) {
        finalizers.retain(|finalizer| finalizer != CLEANUP_FINALIZER);
        if finalizers.is_empty() {
            return report(store.delete(object).await);
        }
    }
    report(store.update(object, definition, None).await);
}

fn report(written: Result<Object, WriteError>) {
    match written {
        Ok(_) | Err(WriteError::Conflict { .. } | WriteError::Exists) => {}
        Err(error) => tracing::warn!(%error, "a definition that goes can't be changed yet"),
    }
}

/// Deletes each instance, or marks it if others hold it. Whether none is left.
async fn delete_all(instances: &Arc<ObjectStore>, now: &str) -> bool {
    let query = k3sd_apiserver_store::ListQuery::default();
    let Ok(page) = instances.list(&query).await else { return false };
    let mut left = false;
    for instance in &page.objects {
        let held = instance.finalizers().next().is_some();
        let written = match (held, instance.deletion_timestamp()) {
            (false, _) => instances.delete(instance).await,
            (true, Some(_)) => {
                left = true;
                continue;
            }
            (true, None) => {
                left = true;
                let mut value = instance.value();
                value["apiVersion"] = Value::from(&*instances.stored().api_version);
                value["metadata"]["deletionTimestamp"] = Value::from(now);
                value["metadata"]["deletionGracePeriodSeconds"] = Value::from(0);
                instances.update(instance, value, None).await
            }
        };
        left |= written.is_err();
        report(written);
    }
    !left
}
