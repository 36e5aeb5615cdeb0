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

use crate::admit::{Refusal, Room, Verdict, decide, preempt};
use crate::pod::record::{self, Record};
use crate::pod::{self, Entry, Shared, Source, Wanted};
use crate::resize::{self, asked, granted};
use crate::source::files::Statics;
use crate::source::is_mirror;
use crate::spec::{self, is_final};
use crate::status::Ending;

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
    let mut allocatable = args.shared.deps.allocatable.clone();
    loop {
        progress.mark_unchanged();
        allocatable.mark_unchanged();
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
            // Without a directory of files nobody ever tells of static pods.
            Ok(()) = args.statics.changed() => {}
            changed = args.orphans.changed() => changed?,
            changed = progress.changed() => changed?,
            // Who offers it may be gone before the pods are.
            Ok(()) = allocatable.changed() => {}
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
        let record = known_before(pod).then(|| record::load(&args.shared.config.root, uid)).flatten();
        let record = record.unwrap_or_default();
        let has = granted(pod, &record.granted);
        let rejected = match verdict(args, &has) {
            Verdict::Admit => None,
            Verdict::Refuse(refusal) => Some(refuse(args, pod, refusal)),
            Verdict::Preempt(uids) => {
                // It comes when they have gone: that is progress, after which all is looked at again.
                make_room(args, &uids);
                continue;
            }
        };
        let mirror = if source == Source::File { mirror(pod) } else { None };
        let entry = Wanted { pod: has, rejected, mirror, ..Wanted::new((*pod).clone(), source) };
        add(args, workers, uid, entry, record).await?;
    }
    resize_pods(args);
    if statics.is_some() {
        args.synced.send_if_modified(|synced| !std::mem::replace(synced, true));
        let orphans = args.orphans.borrow().clone();
        for (uid, pod) in orphans.iter().filter(|(uid, _)| !args.table.borrow().contains_key(*uid)) {
            if wanted.contains_key(uid.as_str()) {
                continue;
            }
            let entry = Wanted::new(Arc::new(pod.clone()), Source::Gone);
            add(args, workers, uid, entry, Record::default()).await?;
        }
    }
    Ok(statics.is_some() && delete_mirrors(args, api).await)
}

async fn add(
    args: &ManagerArgs,
    workers: &SupervisorRef,
    uid: &str,
    wanted: Wanted,
    record: Record,
) -> Result<(), TreeError> {
    let entry = Arc::new(Entry::new(uid, wanted, record));
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
            let same = version(Some(&wanted.asked)) == version(Some(pod))
                && version(wanted.mirror.as_ref()) == version(mirror.as_ref())
                && wanted.source == source;
            if !same || !Arc::ptr_eq(&wanted.asked, pod) {
                // What it has been granted stays until the node grants it something else.
                wanted.pod = granted(pod, &asked(&wanted.pod));
            }
            (wanted.asked, wanted.mirror, wanted.source) = (pod.clone(), mirror, source);
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

/// Whether this node has had to do with the pod before.
fn known_before(pod: &Pod) -> bool {
    let status = spec::status(pod);
    status.start_time.is_some() || is_final(status.phase.as_deref())
}

/// The pods that have resources of the node: taken, and not at their end.
fn holders(args: &ManagerArgs) -> Vec<Arc<Entry>> {
    let entries: Vec<Arc<Entry>> = args.table.borrow().values().cloned().collect();
    let holds = |entry: &Arc<Entry>| {
        let wanted = entry.wanted.borrow();
        wanted.rejected.is_none()
            && wanted.source != Source::Gone
            && !is_final(spec::status(&wanted.pod).phase.as_deref())
            && !entry.memory.borrow().stopped
    };
    entries.into_iter().filter(holds).collect()
}

/// Asks something about the node's room, as it is with these of its pods.
fn with_room<T>(args: &ManagerArgs, keep: impl Fn(&Entry) -> bool, ask: impl FnOnce(Room<'_>) -> T) -> T {
    let others = holders(args).into_iter().filter(|entry| keep(entry));
    let others: Vec<Arc<Pod>> = others.map(|entry| entry.wanted.borrow().pod.clone()).collect();
    let others: Vec<&Pod> = others.iter().map(AsRef::as_ref).collect();
    let (deps, config) = (&args.shared.deps, &args.shared.config);
    let nodes = deps.own_node.as_ref().and_then(Informer::snapshot);
    let node = nodes.as_ref().and_then(|all| all.get("", &config.node)).map(AsRef::as_ref);
    let allocatable = deps.allocatable.borrow().clone();
    ask(Room {
        others: &others,
        node,
        allocatable: &allocatable,
        pods_max: config.pods_max,
        unsafe_sysctls: &config.allowed_unsafe_sysctls,
        has_apparmor: config.has_apparmor,
        is_ending: *deps.is_ending.borrow(),
    })
}

/// Whether the node takes a pod. One that it took before is not asked again: it may be running.
fn verdict(args: &ManagerArgs, pod: &Pod) -> Verdict {
    if known_before(pod) || spec::is_being_deleted(pod) {
        return Verdict::Admit;
    }
    match with_room(args, |_| true, |room| decide(pod, room)) {
        // Those who are on their way already may be enough.
        Verdict::Preempt(_) => match with_room(args, |other| !is_leaving(other), |room| decide(pod, room)) {
            Verdict::Admit => Verdict::Preempt(Vec::new()),
            other => other,
        },
        other => other,
    }
}

fn is_leaving(entry: &Entry) -> bool {
    let wanted = entry.wanted.borrow();
    wanted.kill.is_some() || spec::is_being_deleted(&wanted.pod)
}

fn refuse(args: &ManagerArgs, pod: &Pod, refusal: Refusal) -> Refusal {
    pod::event(&args.shared, pod, None, "Warning", &refusal.0, &refusal.1);
    refusal
}

/// Has pods end so that a critical one can come. Harmless to repeat.
fn make_room(args: &ManagerArgs, uids: &[String]) {
    for entry in uids.iter().filter_map(|uid| args.table.borrow().get(uid).cloned()) {
        let ending =
            Ending { reason: preempt::REASON.to_owned(), message: preempt::MESSAGE.to_owned(), disruption: true };
        let told = entry.wanted.send_if_modified(|wanted| {
            let fresh = wanted.kill.is_none();
            if fresh {
                wanted.kill = Some((ending, None));
            }
            fresh
        });
        if told {
            let pod = entry.wanted.borrow().pod.clone();
            pod::event(&args.shared, &pod, None, "Warning", preempt::REASON, preempt::MESSAGE);
        }
    }
}

/// Grants pods what they ask for by now, as far as there is room; those who have to wait are told why.
fn resize_pods(args: &ManagerArgs) {
    let of_api = holders(args).into_iter().filter(|entry| {
        let wanted = entry.wanted.borrow();
        wanted.source == Source::Api && !spec::is_being_deleted(&wanted.pod) && wanted.kill.is_none()
    });
    let (mut waiting, mut settled) = (Vec::new(), Vec::new());
    for entry in of_api {
        let wanted = entry.wanted.borrow().clone();
        // One that was never resized is the same object twice, which is cheap to see.
        let differs =
            !Arc::ptr_eq(&wanted.asked, &wanted.pod) && resize::differ(&asked(&wanted.asked), &asked(&wanted.pod));
        match differs {
            true => waiting.push((resize::order(&wanted.asked, &wanted.pod), entry, wanted.asked)),
            false if wanted.pending.is_some() => settled.push(entry),
            false => {}
        }
    }
    let tell = |entry: &Entry, grant: Option<Arc<Pod>>, pending: Option<resize::Pending>| {
        entry.wanted.send_if_modified(|wanted| {
            let changed = grant.is_some() || wanted.pending != pending;
            if let Some(pod) = grant {
                wanted.pod = pod;
            }
            wanted.pending = pending;
            changed
        });
    };
    // What they ask for they have, maybe because they ask for less than before.
    settled.iter().for_each(|entry| tell(entry, None, None));
    waiting.sort_by(|(one, ..), (other, ..)| one.cmp(other));
    for (_, entry, pod) in waiting {
        match with_room(args, |other| other.uid != entry.uid, |room| resize::decide(&pod, room)) {
            Ok(()) => tell(&entry, Some(pod), None),
            Err(pending) => tell(&entry, None, Some(pending)),
        }
    }
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
