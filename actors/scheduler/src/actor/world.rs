//! Where each kind of object goes.

use std::collections::BTreeMap;
use std::sync::Arc;

use k3sd_client::informer::Kind;
use k3sd_runtime::{ActorError, Context, Moment};

use super::Decider;
use super::core::Core;
use super::feed::{Batch, Fed, Seen, go_on, key, take};
use super::msg::SchedulerMsg;
use crate::pod::Key;
use crate::preemption::Budget;
use crate::queue::ClusterEvent;
use crate::snapshot::{Owner, OwnerKind};

type Known = Vec<(Key, Option<String>)>;

impl Decider {
    /// Takes over what informers told, and listens on.
    pub(super) fn take(
        &mut self,
        ctx: &mut Context<SchedulerMsg>,
        batch: Batch,
        now: Moment,
    ) -> Result<(), ActorError> {
        let core = &mut self.core;
        let kind = std::mem::discriminant(&batch);
        let is_about_volumes = matches!(batch, Batch::Claims(_) | Batch::Volumes(_));
        let was_all = match batch {
            Batch::Pods(fed) => {
                go_on(ctx, fed.from, Batch::Pods)?;
                take(core, fed.changes, Core::known_pods, |core, seen| core.see_pod(seen, now))
            }
            Batch::Nodes(fed) => {
                go_on(ctx, fed.from, Batch::Nodes)?;
                let known = |core: &Core| core.snapshot.node_names().map(|name| (Key::new("", name), None)).collect();
                take(core, fed.changes, known, |core, seen| core.see_node(seen, now))
            }
            Batch::Namespaces(fed) => {
                go_on(ctx, fed.from, Batch::Namespaces)?;
                let known =
                    |core: &Core| core.snapshot.namespaces().map(|(name, _)| (Key::new("", name), None)).collect();
                take(core, fed.changes, known, |core, seen| see_namespace(core, seen, now))
            }
            Batch::Services(fed) => {
                go_on(ctx, fed.from, Batch::Services)?;
                let known = |core: &Core| keys(core.snapshot.owners.service_keys());
                take(core, fed.changes, known, |core, seen| match seen {
                    Seen::Applied(service) => core.snapshot.owners.apply_service(&service),
                    Seen::Gone(key, _) => core.snapshot.owners.delete_service(&key),
                })
            }
            Batch::ReplicationControllers(fed) => take_owner(ctx, core, fed, Batch::ReplicationControllers)?,
            Batch::ReplicaSets(fed) => take_owner(ctx, core, fed, Batch::ReplicaSets)?,
            Batch::StatefulSets(fed) => take_owner(ctx, core, fed, Batch::StatefulSets)?,
            Batch::Budgets(fed) => {
                go_on(ctx, fed.from, Batch::Budgets)?;
                take(
                    core,
                    fed.changes,
                    |core| keys(core.snapshot.budgets.keys().cloned()),
                    |core, seen| match seen {
                        Seen::Applied(budget) => {
                            core.snapshot.budgets.insert(key(&*budget), Budget::new(&budget));
                        }
                        Seen::Gone(key, _) => {
                            core.snapshot.budgets.remove(&key);
                        }
                    },
                )
            }
            storage => self.take_storage(ctx, storage, now)?,
        };
        if was_all {
            self.known.insert(kind);
        }
        if is_about_volumes {
            self.check_volumes(ctx, now);
        }
        Ok(())
    }

    fn take_storage(&mut self, ctx: &mut Context<SchedulerMsg>, batch: Batch, now: Moment) -> Result<bool, ActorError> {
        let core = &mut self.core;
        let was_all = match batch {
            Batch::Claims(fed) => {
                go_on(ctx, fed.from, Batch::Claims)?;
                let known = |core: &Core| keys(core.snapshot.volumes.claims.keys().cloned());
                return Ok(take(core, fed.changes, known, |core, seen| {
                    let claim = match seen {
                        Seen::Applied(claim) => {
                            let key = key(&*claim);
                            core.snapshot.volumes.claims.insert(key.clone(), claim);
                            key
                        }
                        Seen::Gone(key, _) => {
                            core.snapshot.volumes.claims.remove(&key);
                            key
                        }
                    };
                    core.happened(ClusterEvent::ClaimChanged(claim), now);
                }));
            }
            Batch::Volumes(fed) => take_named(ctx, &mut core.snapshot.volumes.volumes, fed, Batch::Volumes)?,
            Batch::Classes(fed) => take_named(ctx, &mut core.snapshot.volumes.classes, fed, Batch::Classes)?,
            Batch::CsiNodes(fed) => take_named(ctx, &mut core.snapshot.volumes.csi_nodes, fed, Batch::CsiNodes)?,
            Batch::Drivers(fed) => take_named(ctx, &mut core.snapshot.volumes.drivers, fed, Batch::Drivers)?,
            Batch::Capacities(fed) => {
                go_on(ctx, fed.from, Batch::Capacities)?;
                let known = |core: &Core| keys(core.snapshot.volumes.capacities.keys().cloned());
                take(core, fed.changes, known, |core, seen| match seen {
                    Seen::Applied(capacity) => {
                        core.snapshot.volumes.capacities.insert(key(&*capacity), capacity);
                    }
                    Seen::Gone(key, _) => {
                        core.snapshot.volumes.capacities.remove(&key);
                    }
                })
            }
            _ => return Err(ActorError::new("a batch of no kind that is known")),
        };
        core.happened(ClusterEvent::StorageChanged, now);
        Ok(was_all)
    }
}

fn keys(keys: impl Iterator<Item = Key>) -> Known {
    keys.map(|key| (key, None)).collect()
}

/// Objects of the cluster, of which nothing but the newest state matters.
fn take_named<K: Kind>(
    ctx: &mut Context<SchedulerMsg>,
    named: &mut BTreeMap<String, Arc<K>>,
    fed: Fed<K>,
    wrap: fn(Fed<K>) -> Batch,
) -> Result<bool, ActorError> {
    go_on(ctx, fed.from, wrap)?;
    let known = |named: &BTreeMap<String, Arc<K>>| named.keys().map(|name| (Key::new("", name), None)).collect();
    Ok(take(named, fed.changes, known, |named, seen| match seen {
        Seen::Applied(object) => {
            named.insert(key(&*object).name, object);
        }
        Seen::Gone(key, _) => {
            named.remove(&key.name);
        }
    }))
}

fn see_namespace(core: &mut Core, seen: Seen<k8s_openapi::api::core::v1::Namespace>, now: Moment) {
    match seen {
        Seen::Applied(namespace) => {
            let name = namespace.metadata.name.clone().unwrap_or_default();
            let labels = namespace.metadata.labels.clone().unwrap_or_default();
            let is_same = core.snapshot.namespace_labels(&name) == Some(&labels);
            core.snapshot.apply_namespace(&name, labels);
            if !is_same {
                core.happened(ClusterEvent::NamespaceChanged, now);
            }
        }
        Seen::Gone(key, _) => core.snapshot.delete_namespace(&key.name),
    }
}

fn take_owner<K: Kind + Owner>(
    ctx: &mut Context<SchedulerMsg>,
    core: &mut Core,
    fed: Fed<K>,
    wrap: fn(Fed<K>) -> Batch,
) -> Result<bool, ActorError> {
    go_on(ctx, fed.from, wrap)?;
    let kind: OwnerKind = K::KIND;
    let known = |core: &Core| keys(core.snapshot.owners.controller_keys(kind));
    Ok(take(core, fed.changes, known, |core, seen| match seen {
        Seen::Applied(owner) => core.snapshot.owners.apply_controller(kind, key(&*owner), owner.selector()),
        Seen::Gone(key, _) => core.snapshot.owners.delete_controller(kind, key),
    }))
}
