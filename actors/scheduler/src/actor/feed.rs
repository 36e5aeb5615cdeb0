//! What informers tell, and how it comes into the snapshot and the queue.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures_util::FutureExt as _;
use k3sd_client::informer::{Change, Informer, Kind, Shared, Subscription};
use k3sd_runtime::{ActorError, Context};
use k8s_openapi::api::apps::v1::{ReplicaSet, StatefulSet};
use k8s_openapi::api::core::v1::{
    Namespace, Node, PersistentVolume, PersistentVolumeClaim, Pod, ReplicationController, Service,
};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::storage::v1::{CSIDriver, CSINode, CSIStorageCapacity, StorageClass};

use super::msg::SchedulerMsg;
use crate::pod::Key;

/// Changes that may wait for this actor; beyond them it is told everything at once.
const WAITING_MAX: usize = 4096;
/// Changes that are taken over before decisions get their turn again.
const BATCH: usize = 256;

/// The informers of all kinds that decisions look at, named after them.
#[derive(Clone, Debug)]
pub(crate) struct Feeds {
    pub(crate) pods: Informer<Pod>,
    pub(crate) nodes: Informer<Node>,
    pub(crate) namespaces: Informer<Namespace>,
    pub(crate) services: Informer<Service>,
    pub(crate) replication_controllers: Informer<ReplicationController>,
    pub(crate) replica_sets: Informer<ReplicaSet>,
    pub(crate) stateful_sets: Informer<StatefulSet>,
    pub(crate) budgets: Informer<PodDisruptionBudget>,
    pub(crate) claims: Informer<PersistentVolumeClaim>,
    pub(crate) volumes: Informer<PersistentVolume>,
    pub(crate) classes: Informer<StorageClass>,
    pub(crate) csi_nodes: Informer<CSINode>,
    pub(crate) drivers: Informer<CSIDriver>,
    pub(crate) capacities: Informer<CSIStorageCapacity>,
}

/// How many kinds there are: all of them have to be known before anything is decided.
pub(crate) const KINDS: usize = 14;

impl Feeds {
    pub(crate) fn new(shared: &mut Shared) -> Self {
        Self {
            pods: shared.informer(),
            nodes: shared.informer(),
            namespaces: shared.informer(),
            services: shared.informer(),
            replication_controllers: shared.informer(),
            replica_sets: shared.informer(),
            stateful_sets: shared.informer(),
            budgets: shared.informer(),
            claims: shared.informer(),
            volumes: shared.informer(),
            classes: shared.informer(),
            csi_nodes: shared.informer(),
            drivers: shared.informer(),
            capacities: shared.informer(),
        }
    }

    /// Begins to listen to all of them.
    pub(crate) fn follow(&self, ctx: &mut Context<SchedulerMsg>) {
        let feeds = self.clone();
        begin(ctx, feeds.pods, Batch::Pods);
        begin(ctx, feeds.nodes, Batch::Nodes);
        begin(ctx, feeds.namespaces, Batch::Namespaces);
        begin(ctx, feeds.services, Batch::Services);
        begin(ctx, feeds.replication_controllers, Batch::ReplicationControllers);
        begin(ctx, feeds.replica_sets, Batch::ReplicaSets);
        begin(ctx, feeds.stateful_sets, Batch::StatefulSets);
        begin(ctx, feeds.budgets, Batch::Budgets);
        begin(ctx, feeds.claims, Batch::Claims);
        begin(ctx, feeds.volumes, Batch::Volumes);
        begin(ctx, feeds.classes, Batch::Classes);
        begin(ctx, feeds.csi_nodes, Batch::CsiNodes);
        begin(ctx, feeds.drivers, Batch::Drivers);
        begin(ctx, feeds.capacities, Batch::Capacities);
    }
}

/// Changes of one kind, and where the next come from; `None` when nobody will ever tell more.
pub(crate) struct Fed<K: Kind> {
    pub(crate) changes: Vec<Change<K>>,
    pub(crate) from: Option<Subscription<K>>,
}

/// Changes of some kind, named after it.
pub(crate) enum Batch {
    Pods(Fed<Pod>),
    Nodes(Fed<Node>),
    Namespaces(Fed<Namespace>),
    Services(Fed<Service>),
    ReplicationControllers(Fed<ReplicationController>),
    ReplicaSets(Fed<ReplicaSet>),
    StatefulSets(Fed<StatefulSet>),
    Budgets(Fed<PodDisruptionBudget>),
    Claims(Fed<PersistentVolumeClaim>),
    Volumes(Fed<PersistentVolume>),
    Classes(Fed<StorageClass>),
    CsiNodes(Fed<CSINode>),
    Drivers(Fed<CSIDriver>),
    Capacities(Fed<CSIStorageCapacity>),
}

type Wrap<K> = fn(Fed<K>) -> Batch;

fn begin<K: Kind>(ctx: &mut Context<SchedulerMsg>, mut informer: Informer<K>, wrap: Wrap<K>) {
    ctx.pipe(async move {
        let fed = match informer.subscribe(WAITING_MAX).await {
            Ok(subscription) => next(subscription).await,
            Err(_) => Fed { changes: Vec::new(), from: None },
        };
        SchedulerMsg::Fed { batch: wrap(fed) }
    });
}

/// Waits for a change, and takes what else is there by then.
async fn next<K: Kind>(mut from: Subscription<K>) -> Fed<K> {
    let mut changes = Vec::new();
    let Some(first) = from.next().await else { return Fed { changes, from: None } };
    changes.push(first);
    while changes.len() < BATCH {
        match from.next().now_or_never() {
            Some(Some(change)) => changes.push(change),
            Some(None) => return Fed { changes, from: None },
            None => break,
        }
    }
    Fed { changes, from: Some(from) }
}

/// One object that is there, or isn't any more.
pub(crate) enum Seen<K> {
    /// It is there.
    Applied(Arc<K>),
    /// It is gone; this is its key, and its uid if that is known.
    Gone(Key, Option<String>),
}

/// The key of an object.
pub(crate) fn key<K: Kind>(object: &K) -> Key {
    let meta = object.meta();
    Key::new(meta.namespace.as_deref().unwrap_or_default(), meta.name.as_deref().unwrap_or_default())
}

/// Takes changes over: `known` names those objects that are known, so that those are found which are gone when all that
/// there is is told at once. Says whether that was so.
pub(crate) fn take<K: Kind, W>(
    world: &mut W,
    changes: Vec<Change<K>>,
    known: impl Fn(&W) -> Vec<(Key, Option<String>)>,
    mut see: impl FnMut(&mut W, Seen<K>),
) -> bool {
    let mut was_all = false;
    for change in changes {
        match change {
            Change::Replaced(snapshot) => {
                was_all = true;
                let there: BTreeSet<(Key, Option<String>)> =
                    snapshot.iter().map(|object| (key(&**object), object.meta().uid.clone())).collect();
                for (key, uid) in known(world) {
                    let is_there = match &uid {
                        Some(_) => there.contains(&(key.clone(), uid.clone())),
                        None => snapshot.get(&key.namespace, &key.name).is_some(),
                    };
                    if !is_there {
                        see(world, Seen::Gone(key, uid));
                    }
                }
                for object in snapshot.iter() {
                    see(world, Seen::Applied(object.clone()));
                }
            }
            Change::Applied { new, .. } => see(world, Seen::Applied(new)),
            Change::Deleted(object) => see(world, Seen::Gone(key(&*object), object.meta().uid.clone())),
        }
    }
    was_all
}

/// Goes on listening.
///
/// # Errors
/// Nobody will ever tell more: the next life of the actor begins anew.
pub(crate) fn go_on<K: Kind>(
    ctx: &mut Context<SchedulerMsg>,
    from: Option<Subscription<K>>,
    wrap: Wrap<K>,
) -> Result<(), ActorError> {
    let Some(from) = from else {
        return Err(ActorError::new(format!("the informer of {} is gone", K::kind(&()))));
    };
    ctx.pipe(async move { SchedulerMsg::Fed { batch: wrap(next(from).await) } });
    Ok(())
}
