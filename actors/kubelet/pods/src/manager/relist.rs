//! Noticing what happens in the runtime: one list for all pods, and a nudge for those that changed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k3sd_cri::{Cri, CriError, v1};
use k3sd_runtime::{ActorError, TaskHandle};
use k8s_openapi::api::core::v1::Pod;
use tokio::sync::watch;

use super::Table;
use crate::pod::Shared;
use crate::translate::labels;

/// Between two looks while there are pods, as the kubelet has it.
const PERIOD: Duration = Duration::from_secs(1);
/// After it was told of a change the runtime is given so long: more may come, and its lists lag behind its events.
const SETTLE: Duration = Duration::from_millis(100);
/// Where the runtime tells of changes, it is still asked this often.
const PERIOD_TOLD: Duration = Duration::from_secs(30);

/// What the watcher of the runtime is started with.
#[derive(Clone)]
pub(crate) struct RelistArgs {
    pub(crate) shared: Arc<Shared>,
    pub(crate) table: Arc<Table>,
    pub(crate) orphans: Arc<watch::Sender<Arc<BTreeMap<String, Pod>>>>,
}

/// State by id, of one pod.
type Seen = BTreeMap<String, i32>;

/// Looks, and looks again. Without pods that run it waits until there are some.
pub(crate) async fn run(handle: TaskHandle, args: RelistArgs) -> Result<(), ActorError> {
    let clock = handle.system().clock().clone();
    let mut nudge = args.shared.deps.nudge.clone();
    let mut tables = args.table.subscribe();
    let mut before: BTreeMap<String, Seen> = BTreeMap::new();
    let (mut first, mut is_calm) = (true, false);
    let mut last = None;
    loop {
        if let Some(nudge) = &mut nudge {
            nudge.mark_unchanged();
        }
        tables.mark_unchanged();
        let began = clock.now();
        let outcome = relist(&args.shared.deps.cri).await;
        args.shared.numbers.looked(clock.now().since(began), last.map(|last| began.since(last)));
        last = Some(began);
        match outcome {
            Ok((now, pods)) => {
                tell(&args.table, &before, &now);
                before = now;
                orphans(&args, pods, first).await;
                first = false;
            }
            Err(error) => tracing::info!(%error, "the runtime can't be asked for its pods"),
        }
        let busy = first || args.table.borrow().values().any(|entry| !entry.memory.borrow().stopped);
        let told = async {
            let told = match &mut nudge {
                Some(nudge) => nudge.changed().await.is_ok(),
                None => false,
            };
            if !told {
                std::future::pending::<()>().await;
            }
        };
        let period = if is_calm && !first { PERIOD_TOLD } else { PERIOD };
        let alarm = async {
            match busy {
                true => clock.sleep_until(clock.now() + period).await,
                false => std::future::pending().await,
            }
        };
        tokio::select! {
            () = told => {
                // What the next look is too early for, the one after it sees.
                is_calm = false;
                clock.sleep_until(clock.now() + SETTLE).await;
            }
            () = alarm => is_calm = args.shared.deps.nudge.is_some(),
            changed = tables.changed() => {
                changed?;
                // A new pod looks for itself; there is nothing to see of it yet.
                is_calm = false;
                clock.sleep_until(clock.now() + PERIOD).await;
            }
        }
    }
}

/// What the runtime has, by the pod's uid; and whose it is.
async fn relist(cri: &Cri) -> Result<(BTreeMap<String, Seen>, BTreeMap<String, Pod>), CriError> {
    let (sandboxes, containers) = tokio::try_join!(
        cri.list_pod_sandbox(v1::ListPodSandboxRequest::default()),
        cri.list_containers(v1::ListContainersRequest::default()),
    )?;
    let (mut seen, mut pods): (BTreeMap<String, Seen>, BTreeMap<String, Pod>) = Default::default();
    let mut add = |uid: Option<&String>, name: Option<&String>, namespace: Option<&String>, id: String, state: i32| {
        let Some(uid) = uid.filter(|uid| !uid.is_empty()) else { return };
        seen.entry(uid.clone()).or_default().insert(id, state);
        let pod = pods.entry(uid.clone()).or_default();
        pod.metadata.uid = Some(uid.clone());
        pod.metadata.name = name.cloned();
        pod.metadata.namespace = namespace.cloned();
    };
    for one in sandboxes.items {
        let label = |key: &str| one.labels.get(key);
        add(label(labels::POD_UID), label(labels::POD_NAME), label(labels::POD_NAMESPACE), one.id.clone(), one.state);
    }
    for one in containers.containers {
        let label = |key: &str| one.labels.get(key);
        add(label(labels::POD_UID), label(labels::POD_NAME), label(labels::POD_NAMESPACE), one.id.clone(), one.state);
    }
    Ok((seen, pods))
}

/// Nudges the pods of which something has changed.
fn tell(table: &Table, before: &BTreeMap<String, Seen>, now: &BTreeMap<String, Seen>) {
    for (uid, entry) in table.borrow().iter() {
        if before.get(uid) != now.get(uid) {
            entry.nudge.send_modify(|count| *count += 1);
        }
    }
}

/// Publishes the pods that only the runtime knows; and at first, those that have left volumes or cgroups.
async fn orphans(args: &RelistArgs, mut pods: BTreeMap<String, Pod>, first: bool) {
    if first {
        let of_volumes = args.shared.deps.volumes.leftovers().await;
        let cgroups = args.shared.deps.cgroups.as_ref().and_then(|cgroups| cgroups.list_pods().ok());
        for uid in of_volumes.into_iter().chain(cgroups.into_iter().flatten().map(|(uid, _)| uid)) {
            pods.entry(uid.clone()).or_insert_with(|| {
                let mut pod = Pod::default();
                pod.metadata.uid = Some(uid);
                pod
            });
        }
    }
    pods.retain(|uid, _| !args.table.borrow().contains_key(uid));
    args.orphans.send_if_modified(|orphans| {
        let changed = **orphans != pods;
        *orphans = Arc::new(pods);
        changed
    });
}
