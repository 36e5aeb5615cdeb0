//! The subtree, as data.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k3sd_client::informer::{InformerArgs, informer};
use k3sd_kubelet_base::{Pods, PodsSnapshot};
use k3sd_runtime::{Spec, Strategy, subtree, task};
use k8s_openapi::api::core::v1::Pod;
use tokio::sync::{Semaphore, watch};

use crate::config::{PodsConfig, PodsDeps};
use crate::manager::relist::{self, RelistArgs};
use crate::manager::{self, ManagerArgs, Table};
use crate::numbers::Numbers;
use crate::oom::{self, Killed, OomArgs};
use crate::pod::Shared;
use crate::source::files::{self, FilesArgs, Statics};
use crate::status::Ending;
use crate::users::Users;

/// The subtree, and the ways to it.
#[derive(Debug)]
pub struct PodsTree {
    /// What to start.
    pub spec: Spec,
    /// The node's pods, as they are.
    pub pods: Pods,
    /// To end pods by.
    pub handle: PodsHandle,
}

/// The way to the node's pods. Cheap to clone.
#[derive(Clone, Debug)]
pub struct PodsHandle {
    table: Arc<Table>,
    synced: watch::Receiver<bool>,
    numbers: Arc<Numbers>,
}

impl PodsHandle {
    /// Ends a pod for good: it fails with this reason and message, within so many seconds or, if none are named, within
    /// the pod's own grace. Harmless to repeat. Says whether there is such a pod.
    #[must_use]
    pub fn evict(&self, uid: &str, reason: &str, message: &str, grace_seconds: Option<i64>) -> bool {
        let Some(entry) = self.table.borrow().get(uid).cloned() else { return false };
        let ending = Ending { reason: reason.to_owned(), message: message.to_owned(), disruption: true };
        entry.wanted.send_if_modified(|wanted| match &wanted.kill {
            Some((_, before)) if grace_seconds.is_none() || *before <= grace_seconds => false,
            _ => {
                wanted.kill = Some((ending, grace_seconds));
                true
            }
        });
        true
    }

    /// Waits until nothing of a pod runs; at once if there is no such pod.
    pub async fn stopped(&self, uid: &str) {
        let Some(entry) = self.table.borrow().get(uid).cloned() else { return };
        // The entry is held here, so that its channel stays open.
        entry.memory.subscribe().wait_for(|memory| memory.stopped).await.ok();
    }

    /// Writes what is counted about pods, in Prometheus' text format.
    pub fn write_metrics(&self, text: &mut String) {
        self.numbers.write(text);
    }

    /// What probes came to, in the same format.
    #[must_use]
    pub fn probe_metrics(&self) -> String {
        self.numbers.probes()
    }

    /// Whether all sources have been read: from then on what isn't in the snapshot isn't there.
    #[must_use]
    pub fn is_synced(&self) -> bool {
        *self.synced.borrow()
    }

    /// The same, to wait for.
    #[must_use]
    pub fn synced(&self) -> watch::Receiver<bool> {
        self.synced.clone()
    }
}

/// Deaths of pods' actors that are borne: each is one pod's own trouble, and there may be hundreds.
const WORKER_DEATHS: u32 = 1000;

/// What comes later tells what comes earlier, so that a restart of the pods' supervisor restarts who fills it.
#[must_use]
pub fn tree(config: PodsConfig, deps: PodsDeps) -> PodsTree {
    let (publisher, pods) = watch::channel(Arc::new(PodsSnapshot::default()));
    let table: Arc<Table> = Arc::new(watch::channel(BTreeMap::new()).0);
    let (synced, is_synced) = watch::channel(false);
    let fields = format!("spec.nodeName={}", config.node);
    let (informer_child, informer) =
        informer("informer", InformerArgs::<Pod>::all(deps.connect.clone()).fields(&fields));
    let (statics_place, statics) = watch::channel(config.static_pods.is_none().then(Arc::<Statics>::default));
    let files = config.static_pods.clone().map(|directory| FilesArgs {
        directory,
        node: config.node.clone(),
        place: Arc::new(statics_place),
    });
    let (orphans_place, orphans) = watch::channel(Arc::new(BTreeMap::new()));
    let pulls = Semaphore::new(config.pulls_max.unwrap_or(Semaphore::MAX_PERMITS).clamp(1, Semaphore::MAX_PERMITS));
    let users = Users::new(&config.root, config.pods_max);
    let (progress, numbers) = (watch::channel(0).0, Arc::new(Numbers::new()));
    let killed = watch::channel(Killed::default()).0;
    let shared = Arc::new(Shared { config, deps, publisher, users, pulls, progress, numbers: numbers.clone(), killed });
    let oom_args = OomArgs { shared: shared.clone(), table: table.clone() };
    let relist_args = RelistArgs { shared: shared.clone(), table: table.clone(), orphans: Arc::new(orphans_place) };
    let manager_args =
        ManagerArgs { shared, table: table.clone(), pods: informer, statics, orphans, synced: Arc::new(synced) };
    let mut spec = Spec::new(Strategy::RestForOne)
        .child(subtree("workers", Spec::new(Strategy::Dynamic).budget(WORKER_DEATHS, Duration::from_secs(60))))
        .child(informer_child);
    if let Some(args) = files {
        spec = spec.child(task("files", move |handle| files::run(handle, args.clone())));
    }
    let spec = spec
        .child(task("relist", move |handle| relist::run(handle, relist_args.clone())))
        .child(task("manager", move |handle| manager::run(handle, manager_args.clone())))
        .child(task("oom", move |handle| oom::run(handle, oom_args.clone())));
    PodsTree { spec, pods, handle: PodsHandle { table, synced: is_synced, numbers } }
}
