//! Which pods there are: sees to it that each has an actor, and tells it what is wanted of it.
//!
//! Owns:    the table of entries, which outlives it.
//! Needs:   the sources, and the supervisor of pods.
//! Restart: permanent. It compares the table with the supervisor's children and goes on.
//! Fails:   when the supervisor of pods doesn't answer.

pub(crate) mod relist;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use k3sd_client::informer::{Informer, Snapshot};
use k3sd_runtime::{ActorError, AskError, Restart, Shutdown, SupervisorRef, TaskHandle, TreeError, task};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{DeleteParams, Preconditions};
use tokio::sync::watch;

use crate::admit::{Room, admit};
use crate::pod::{self, Entry, Shared, Source, Wanted};
use crate::source::files::Statics;
use crate::source::is_mirror;
use crate::spec::{self, is_final};

/// How long the supervisor may take to add or remove a child; removing waits for the child's end.
const SUPERVISOR_LIMIT: Duration = Duration::from_secs(30);
/// Changes of the API that may wait.
const CHANGES_MAX: usize = 1024;
/// A pod's actor that is stopped drops what it does at the next await.
const STOP_LIMIT: Duration = Duration::from_secs(5);
/// After a mirror couldn't be deleted.
const MIRROR_RETRY: Duration = Duration::from_secs(5);

/// All pods that have an actor, by uid.
pub(crate) type Table = watch::Sender<BTreeMap<String, Arc<Entry>>>;

/// What the manager is started with.
#[derive(Clone)]
pub(crate) struct ManagerArgs {
    pub(crate) shared: Arc<Shared>,
    pub(crate) table: Arc<Table>,
    pub(crate) pods: Informer<Pod>,
    /// Nothing before the files were read; without files, none from the start.
    pub(crate) statics: watch::Receiver<Option<Arc<Statics>>>,
    /// Pods that the runtime has something of, and nobody else knows.
    pub(crate) orphans: watch::Receiver<Arc<BTreeMap<String, Pod>>>,
    /// The API has been listed and the files read.
    pub(crate) synced: Arc<watch::Sender<bool>>,
}

/// The loop.
pub(crate) async fn run(handle: TaskHandle, mut args: ManagerArgs) -> Result<(), ActorError> {
    let clock = handle.system().clock().clone();
    let path = handle.path().to_string();
    let parent = path.rsplit_once('/').map_or("", |(parent, _)| parent).to_owned();
    let workers = handle.system().supervisor(&format!("{parent}/workers"))?;
    adopt(&args, &workers).await?;
    let mut changes = args.pods.subscribe(CHANGES_MAX).await?;
    let mut progress = args.shared.progress.subscribe();
    loop {
        progress.mark_unchanged();
        args.orphans.mark_unchanged();
        args.statics.mark_unchanged();
        let mirrors_left = match args.pods.snapshot() {
            Some(snapshot) => reconcile(&args, &workers, &snapshot).await?,
            None => false,
        };
        let again = async {
            match mirrors_left {
                true => clock.sleep_until(clock.now() + MIRROR_RETRY).await,
                false => std::future::pending().await,
            }
        };
        tokio::select! {
            change = changes.next() => { change.ok_or(AskError::Gone)?; }
            changed = args.statics.changed() => changed?,
            changed = args.orphans.changed() => changed?,
            changed = progress.changed() => changed?,
            () = again => {}
        }
    }
}

/// Gives an actor to each entry that has none: the supervisor of pods has started anew.
async fn adopt(args: &ManagerArgs, workers: &SupervisorRef) -> Result<(), TreeError> {
    let there: BTreeSet<String> = workers.list(SUPERVISOR_LIMIT).await?.into_iter().map(|child| child.name).collect();
    let entries: Vec<_> = args.table.borrow().values().cloned().collect();
    for entry in entries {
        if !there.contains(&entry.uid) {
            start(args, workers, entry).await?;
        }
    }
    Ok(())
}

async fn start(args: &ManagerArgs, workers: &SupervisorRef, entry: Arc<Entry>) -> Result<(), TreeError> {
    let (shared, uid) = (args.shared.clone(), entry.uid.clone());
    let body = move |handle| pod::run(handle, shared.clone(), entry.clone());
    let child = task(&uid, body).restart(Restart::Transient).shutdown(Shutdown::Within(STOP_LIMIT));
    match workers.add(SUPERVISOR_LIMIT, child).await {
        Err(TreeError::AlreadyPresent { .. }) => Ok(()),
        other => other,
    }
}

/// Makes the table what the sources say. Says whether a mirror is left that has to go.
async fn reconcile(args: &ManagerArgs, workers: &SupervisorRef, api: &Snapshot<Pod>) -> Result<bool, TreeError> {
    let statics = args.statics.borrow().clone();
    clear_finished(args, workers).await?;
    let mut wanted: BTreeMap<&str, (&Arc<Pod>, Source)> = BTreeMap::new();
    for pod in api.iter().filter(|pod| !is_mirror(pod)) {
        wanted.insert(spec::uid(pod), (pod, Source::Api));
    }
    for (uid, pod) in statics.iter().flat_map(|all| all.iter()) {
        wanted.insert(uid, (pod, Source::File));
    }
    let mirror = |pod: &Pod| api.get(spec::namespace(pod), spec::name(pod)).filter(|found| is_mirror(found)).cloned();
    let known: BTreeMap<String, Arc<Entry>> = args.table.borrow().clone();
    for (uid, entry) in &known {
        let now = wanted.get(uid.as_str()).copied();
        // Before the files were read nobody knows which static pods there are.
        if now.is_none() && entry.wanted.borrow().source == Source::File && statics.is_none() {
            continue;
        }
        update(entry, now, |pod| mirror(pod));
    }
    let mut fresh: Vec<_> = wanted.iter().filter(|(uid, _)| !known.contains_key(**uid)).collect();
    // Who was there first has the first claim.
    fresh.sort_by_key(|(_, (pod, _))| pod.metadata.creation_timestamp.clone());
    for (uid, (pod, source)) in fresh {
        let source = *source;
        if source == Source::File && same_name_runs(args, pod, uid) {
            continue;
        }
        let rejected = refusal(args, pod);
        let mirror = if source == Source::File { mirror(pod) } else { None };
        let entry = Wanted { pod: (*pod).clone(), source, rejected, kill: None, mirror };
        add(args, workers, uid, entry).await?;
    }
    if statics.is_some() {
        args.synced.send_if_modified(|synced| !std::mem::replace(synced, true));
        let orphans = args.orphans.borrow().clone();
        for (uid, pod) in orphans.iter().filter(|(uid, _)| !args.table.borrow().contains_key(*uid)) {
            if wanted.contains_key(uid.as_str()) {
                continue;
            }
            let entry =
                Wanted { pod: Arc::new(pod.clone()), source: Source::Gone, rejected: None, kill: None, mirror: None };
            add(args, workers, uid, entry).await?;
        }
    }
    Ok(statics.is_some() && delete_mirrors(args, api).await)
}

async fn add(args: &ManagerArgs, workers: &SupervisorRef, uid: &str, wanted: Wanted) -> Result<(), TreeError> {
    let entry = Arc::new(Entry::new(uid, wanted));
    args.table.send_modify(|table| {
        table.insert(uid.to_owned(), entry.clone());
    });
    start(args, workers, entry).await
}

async fn clear_finished(args: &ManagerArgs, workers: &SupervisorRef) -> Result<(), TreeError> {
    let finished: Vec<String> = {
        let table = args.table.borrow();
        table.values().filter(|entry| *entry.finished.borrow()).map(|entry| entry.uid.clone()).collect()
    };
    for uid in finished {
        match workers.remove(SUPERVISOR_LIMIT, &uid).await {
            Ok(()) | Err(TreeError::NoSuchChild) => {}
            Err(error) => return Err(error),
        }
        args.table.send_modify(|table| {
            table.remove(&uid);
        });
    }
    Ok(())
}

/// Tells a pod's actor what is new.
fn update(entry: &Entry, now: Option<(&Arc<Pod>, Source)>, mirror: impl Fn(&Pod) -> Option<Arc<Pod>>) {
    entry.wanted.send_if_modified(|wanted| match now {
        None => std::mem::replace(&mut wanted.source, Source::Gone) != Source::Gone,
        Some((pod, source)) => {
            let mirror = if source == Source::File { mirror(pod) } else { None };
            let version =
                |of: Option<&Arc<Pod>>| of.map(|pod| (pod.metadata.uid.clone(), pod.metadata.resource_version.clone()));
            let same = version(Some(&wanted.pod)) == version(Some(pod))
                && version(wanted.mirror.as_ref()) == version(mirror.as_ref())
                && wanted.source == source;
            (wanted.pod, wanted.mirror, wanted.source) = (pod.clone(), mirror, source);
            !same
        }
    });
}

/// Whether an older pod of that name still runs: a changed file waits for what it was before.
fn same_name_runs(args: &ManagerArgs, pod: &Pod, uid: &str) -> bool {
    args.table.borrow().values().any(|entry| {
        let wanted = entry.wanted.borrow();
        entry.uid != uid
            && spec::name(&wanted.pod) == spec::name(pod)
            && spec::namespace(&wanted.pod) == spec::namespace(pod)
    })
}

/// Why the node doesn't take a pod. One that it took before is not asked again: it may be running.
fn refusal(args: &ManagerArgs, pod: &Pod) -> Option<(String, String)> {
    let status = spec::status(pod);
    if status.start_time.is_some() || is_final(status.phase.as_deref()) || spec::is_being_deleted(pod) {
        return None;
    }
    let entries: Vec<Arc<Entry>> = args.table.borrow().values().cloned().collect();
    let others: Vec<Arc<Pod>> = entries
        .iter()
        .filter(|entry| !entry.memory.borrow().stopped)
        .map(|entry| entry.wanted.borrow().clone())
        .filter(|wanted| wanted.rejected.is_none() && wanted.source != Source::Gone)
        .filter(|wanted| !is_final(spec::status(&wanted.pod).phase.as_deref()))
        .map(|wanted| wanted.pod)
        .collect();
    let others: Vec<&Pod> = others.iter().map(AsRef::as_ref).collect();
    let deps = &args.shared.deps;
    let nodes = deps.own_node.as_ref().and_then(Informer::snapshot);
    let node = nodes.as_ref().and_then(|all| all.get("", &args.shared.config.node)).map(AsRef::as_ref);
    let allocatable = deps.allocatable.borrow().clone();
    let room = Room { others: &others, node, allocatable: &allocatable, pods_max: args.shared.config.pods_max };
    let refused = admit(pod, room).err();
    if let Some((reason, message)) = &refused {
        pod::event(&args.shared, pod, None, "Warning", reason, message);
    }
    refused
}

/// Deletes mirrors of static pods that aren't there any more. Says whether one is left.
async fn delete_mirrors(args: &ManagerArgs, api: &Snapshot<Pod>) -> bool {
    let mut left = false;
    for found in api.iter().filter(|pod| is_mirror(pod)) {
        let mirrored = args.table.borrow().values().any(|entry| {
            let wanted = entry.wanted.borrow();
            spec::name(&wanted.pod) == spec::name(found) && spec::namespace(&wanted.pod) == spec::namespace(found)
        });
        if mirrored {
            continue;
        }
        let client: Api<Pod> = Api::namespaced(args.shared.deps.connect.client(), spec::namespace(found));
        let preconditions = Preconditions { uid: found.metadata.uid.clone(), resource_version: None };
        let how = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default().grace_period(0) };
        if let Err(error) = client.delete(spec::name(found), &how).await
            && !matches!(&error, kube::Error::Api(status) if matches!(status.code, 404 | 409))
        {
            tracing::info!(pod = spec::shown(found), %error, "a mirror can't be deleted");
            left = true;
        }
    }
    left
}
