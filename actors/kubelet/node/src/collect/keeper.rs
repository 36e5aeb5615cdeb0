//! Removes containers and sandboxes that are over, and moves logs away that have grown.
//!
//! Owns:    nothing; the runtime's containers and the files below the directory of logs are looked at each time.
//! Needs:   the container runtime, and the snapshot of pods.
//! Restart: permanent. It looks at everything once.
//! Fails:   never; what can't be removed is tried again with the next change.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k3sd_cri::{Cri, CriError, v1};
use k3sd_kubelet_base::{ContainerState, Pods, PodsSnapshot};
use k3sd_runtime::blocking::Blocking;
use k3sd_runtime::{Actor, ActorError, Address, Context, ReplyPort, message_kinds};
use tokio::sync::watch;

use super::containers::{Dead, Known, Leftovers, Sandbox, leftover_logs, leftovers};
use super::has_ended;
use super::logs::{LogPolicy, Rotated, needs_rotation, remove_older, rotate};

/// How long after a change it looks for what is over; upstream looks as often.
const LOOK_AFTER: Duration = Duration::from_secs(60);
/// What is younger than this may belong to a pod that isn't known yet.
const YOUNG: Duration = Duration::from_secs(60);
/// Dead containers that are kept of each container, for their logs; upstream's.
const KEPT_OF_EACH: usize = 1;
/// Jobs that may wait for the thread with the files.
const JOBS_MAX: usize = 8;
/// Links to logs, named for people; upstream's place.
const LINKS: &str = "/var/log/containers";

/// What the actor is started with.
#[derive(Clone)]
pub(crate) struct KeeperArgs {
    pub(crate) cri: Cri,
    pub(crate) pods: Pods,
    /// Whether all pods that should be known are.
    pub(crate) is_complete: watch::Receiver<bool>,
    /// Where the logs of pods are.
    pub(crate) logs_dir: PathBuf,
    pub(crate) log_policy: LogPolicy,
    pub(crate) log_interval: Duration,
    pub(crate) place: Arc<watch::Sender<Option<Address<KeeperMsg>>>>,
}

/// See the variants.
pub(crate) enum KeeperMsg {
    /// Pods, or what is known of them, are others than before.
    Changed,
    /// Remove what is over.
    LookTick,
    /// Move logs away that have grown.
    LogTick,
    /// Remove all that has ended, because the disk is nearly full.
    Free {
        /// Nothing to say.
        reply: ReplyPort<()>,
    },
}

message_kinds!(KeeperMsg { Changed, LookTick, LogTick, Free });

/// The actor itself.
pub(crate) struct ContainerKeeper {
    args: KeeperArgs,
    files: Blocking<()>,
    looks: bool,
    logs: bool,
}

impl Actor for ContainerKeeper {
    type Args = KeeperArgs;
    type Msg = KeeperMsg;

    const STOPS_AT_AWAIT: bool = true;

    async fn init(ctx: &mut Context<KeeperMsg>, args: KeeperArgs) -> Result<Self, ActorError> {
        let files = Blocking::start(ctx, JOBS_MAX, || Ok::<(), std::convert::Infallible>(())).await;
        let files = files.map_err(|error| ActorError::new(error.to_string()))?;
        args.place.send_replace(Some(ctx.address()));
        let mut keeper = Self { args, files, looks: false, logs: false };
        keeper.listen(ctx);
        keeper.schedule(ctx);
        Ok(keeper)
    }

    async fn handle(&mut self, ctx: &mut Context<KeeperMsg>, message: KeeperMsg) -> Result<(), ActorError> {
        match message {
            KeeperMsg::Changed => {
                self.listen(ctx);
                self.schedule(ctx);
            }
            KeeperMsg::LookTick => {
                self.looks = false;
                if let Err(error) = self.look(ctx, false).await {
                    tracing::debug!(%error, "containers that are over can't be removed");
                    self.schedule(ctx);
                }
            }
            KeeperMsg::LogTick => {
                self.logs = false;
                self.rotate(ctx).await?;
                self.schedule_logs(ctx);
            }
            KeeperMsg::Free { reply } => {
                if let Err(error) = self.look(ctx, true).await {
                    tracing::warn!(%error, "containers that are over can't be removed");
                }
                reply.send(());
            }
        }
        Ok(())
    }
}

impl ContainerKeeper {
    fn listen(&self, ctx: &mut Context<KeeperMsg>) {
        let (mut pods, mut is_complete) = (self.args.pods.clone(), self.args.is_complete.clone());
        pods.mark_unchanged();
        is_complete.mark_unchanged();
        ctx.pipe(async move {
            // What nobody can change any more is not waited for.
            tokio::select! {
                Ok(()) = pods.changed() => {}
                Ok(()) = is_complete.changed() => {}
                else => std::future::pending().await,
            }
            KeeperMsg::Changed
        });
    }

    /// One look for all the changes of a minute; logs only while something writes to them.
    fn schedule(&mut self, ctx: &mut Context<KeeperMsg>) {
        if !std::mem::replace(&mut self.looks, true) {
            ctx.send_after(LOOK_AFTER, KeeperMsg::LookTick);
        }
        self.schedule_logs(ctx);
    }

    fn schedule_logs(&mut self, ctx: &mut Context<KeeperMsg>) {
        if !self.logs && !self.running().is_empty() {
            self.logs = true;
            ctx.send_after(self.args.log_interval, KeeperMsg::LogTick);
        }
    }

    fn snapshot(&self) -> Arc<PodsSnapshot> {
        self.args.pods.borrow().clone()
    }

    /// Containers that run, and their logs.
    fn running(&self) -> Vec<(String, PathBuf)> {
        let snapshot = self.snapshot();
        let containers = snapshot.pods.values().flat_map(|pod| &pod.containers);
        let running = containers.filter(|container| container.state == ContainerState::Running);
        running.map(|container| (container.id.clone(), container.log.clone())).collect()
    }

    /// Removes what is over; if the disk is nearly full, what pods have left that have ended, too.
    async fn look(&self, ctx: &mut Context<KeeperMsg>, is_urgent: bool) -> Result<(), CriError> {
        let before = self.snapshot();
        let is_complete = *self.args.is_complete.borrow();
        let containers = self.args.cri.list_containers(v1::ListContainersRequest::default()).await?.containers;
        let sandboxes = self.args.cri.list_pod_sandbox(v1::ListPodSandboxRequest::default()).await?.items;
        let after = self.snapshot();
        let since = ctx.clock().wall().saturating_sub(YOUNG).as_nanos();
        let known = Known {
            pods: before.pods.keys().chain(after.pods.keys()).cloned().collect(),
            is_complete,
            since: i64::try_from(since).unwrap_or(0),
        };
        let (dead, living) = sorted(&containers);
        let sandboxes: Vec<Sandbox> = sandboxes.iter().filter_map(sandbox).collect();
        let mut needed = known.clone();
        if is_urgent {
            needed.pods.retain(|uid| !after.pods.get(uid).is_some_and(|view| has_ended(&view.pod)));
        }
        let found = leftovers(&dead, &sandboxes, &living, &needed, KEPT_OF_EACH);
        self.remove(found, &containers).await;
        let with: BTreeSet<String> =
            containers.iter().filter_map(|container| label(&container.labels, POD_UID)).collect();
        let directory = self.args.logs_dir.clone();
        let removed = self.files.run(move |()| remove_logs(&directory, &known, &with)).await;
        if let Err(error) = removed {
            tracing::warn!(%error, "logs of pods that are gone can't be removed");
        }
        Ok(())
    }

    async fn remove(&self, found: Leftovers, containers: &[v1::Container]) {
        for id in found.containers {
            if let Err(error) =
                self.args.cri.remove_container(v1::RemoveContainerRequest { container_id: id.clone() }).await
            {
                tracing::debug!(container = id, %error, "a container that is over can't be removed");
                continue;
            }
            let Some(container) = containers.iter().find(|container| container.id == id) else { continue };
            if let Some(log) = log_of(&self.args.logs_dir, container) {
                let link = link_of(container);
                let removed = self.files.run(move |()| remove_log(&log, link.as_deref())).await;
                if let Err(error) = removed {
                    tracing::debug!(container = id, %error, "the log of a container can't be removed");
                }
            }
        }
        for id in found.sandboxes {
            let request = v1::RemovePodSandboxRequest { pod_sandbox_id: id.clone() };
            if let Err(error) = self.args.cri.remove_pod_sandbox(request).await {
                tracing::debug!(sandbox = id, %error, "a sandbox that is over can't be removed");
            }
        }
    }

    async fn rotate(&self, ctx: &mut Context<KeeperMsg>) -> Result<(), ActorError> {
        let policy = self.args.log_policy;
        let seconds = i64::try_from(ctx.clock().wall().as_secs()).unwrap_or(0);
        let now = Timestamp::from_second(seconds).unwrap_or(Timestamp::UNIX_EPOCH);
        let mut logs = self.running();
        // All of them are looked at in one go, as nearly always none has grown enough.
        let grown = self.files.run(move |()| {
            logs.retain(|(_, log)| needs_rotation(log, policy));
            logs
        });
        for (id, log) in grown.await? {
            let path = log.clone();
            match self.files.run(move |()| rotate(&path, policy, now)).await? {
                Ok(None) => {}
                Ok(Some(rotated)) => self.reopen(id, rotated).await?,
                Err(error) => tracing::warn!(log = %log.display(), %error, "a log can't be moved away"),
            }
        }
        Ok(())
    }

    /// Has the runtime write to a new file. If it doesn't, the old one is put back, so that nothing is lost.
    async fn reopen(&self, id: String, rotated: Rotated) -> Result<(), ActorError> {
        let request = v1::ReopenContainerLogRequest { container_id: id.clone() };
        if let Err(error) = self.args.cri.reopen_container_log(request).await {
            tracing::warn!(container = id, %error, "a log that was moved away isn't opened anew");
            if let Err(error) = self.files.run(move |()| rotated.undo()).await? {
                tracing::warn!(container = id, %error, "a log can't be put back");
            }
        }
        Ok(())
    }
}

/// Names of labels that say what something of the runtime is.
const POD_UID: &str = "io.kubernetes.pod.uid";
const POD_NAME: &str = "io.kubernetes.pod.name";
const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
const CONTAINER_NAME: &str = "io.kubernetes.container.name";

fn label(labels: &std::collections::HashMap<String, String>, name: &str) -> Option<String> {
    labels.get(name).filter(|value| !value.is_empty()).cloned()
}

/// Containers of pods that don't run, and the sandboxes of those that do. What isn't ours has no labels, and stays.
fn sorted(containers: &[v1::Container]) -> (Vec<Dead>, BTreeSet<String>) {
    let (mut dead, mut living) = (Vec::new(), BTreeSet::new());
    for container in containers {
        let identity = (label(&container.labels, POD_UID), label(&container.labels, CONTAINER_NAME));
        let has_ended = container.state == v1::ContainerState::ContainerExited as i32;
        let was_made = container.state == v1::ContainerState::ContainerCreated as i32;
        match identity {
            (Some(pod), Some(name)) if has_ended || was_made => dead.push(Dead {
                id: container.id.clone(),
                sandbox: container.pod_sandbox_id.clone(),
                pod,
                name,
                created: container.created_at,
                has_ended,
            }),
            _ => _ = living.insert(container.pod_sandbox_id.clone()),
        }
    }
    (dead, living)
}

fn sandbox(found: &v1::PodSandbox) -> Option<Sandbox> {
    Some(Sandbox {
        id: found.id.clone(),
        pod: label(&found.labels, POD_UID)?,
        created: found.created_at,
        is_ready: found.state == v1::PodSandboxState::SandboxReady as i32,
    })
}

/// A name as a part of a path; none if it could lead elsewhere.
fn part(text: String) -> Option<String> {
    let is_name = !text.is_empty() && !text.contains('/') && text != "." && text != "..";
    is_name.then_some(text)
}

fn log_of(directory: &Path, container: &v1::Container) -> Option<PathBuf> {
    let of = |name: &str| label(&container.labels, name).and_then(part);
    let pod = format!("{}_{}_{}", of(POD_NAMESPACE)?, of(POD_NAME)?, of(POD_UID)?);
    let attempt = container.metadata.as_ref()?.attempt;
    Some(directory.join(pod).join(of(CONTAINER_NAME)?).join(format!("{attempt}.log")))
}

fn link_of(container: &v1::Container) -> Option<PathBuf> {
    let of = |name: &str| label(&container.labels, name).and_then(part);
    let (name, id) = (of(CONTAINER_NAME)?, part(container.id.clone())?);
    Some(Path::new(LINKS).join(format!("{}_{}_{name}-{id}.log", of(POD_NAME)?, of(POD_NAMESPACE)?)))
}

/// Removes the log of a container, what was moved away of it, and the link to it. What isn't there needs no removal.
fn remove_log(log: &Path, link: Option<&Path>) {
    // The errors don't matter: whatever stays goes with its pod.
    remove_older(log).ok();
    std::fs::remove_file(log).ok();
    link.map(std::fs::remove_file).map(Result::ok);
}

/// Removes the logs of pods that are gone, and links that lead nowhere.
fn remove_logs(directory: &Path, known: &Known, with_containers: &BTreeSet<String>) {
    let entries = std::fs::read_dir(directory).into_iter().flatten().filter_map(Result::ok);
    let directories = entries.filter(|entry| entry.file_type().is_ok_and(|type_| type_.is_dir()));
    let names: Vec<String> = directories.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    let over = leftover_logs(names.iter().map(String::as_str), known, with_containers);
    for name in &over {
        if let Err(error) = std::fs::remove_dir_all(directory.join(name)) {
            tracing::warn!(directory = name, %error, "logs of a pod that is gone can't be removed");
        }
    }
    if over.is_empty() {
        return;
    }
    for entry in std::fs::read_dir(LINKS).into_iter().flatten().filter_map(Result::ok) {
        let path = entry.path();
        let leads_here = std::fs::read_link(&path).is_ok_and(|target| target.starts_with(directory));
        if leads_here && !path.exists() {
            std::fs::remove_file(&path).ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(state: v1::ContainerState, labels: &[(&str, &str)]) -> v1::Container {
        v1::Container {
            id: "id".to_owned(),
            pod_sandbox_id: "sandbox".to_owned(),
            state: state as i32,
            metadata: Some(v1::ContainerMetadata { name: "c".to_owned(), attempt: 3 }),
            labels: labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
            ..v1::Container::default()
        }
    }

    const LABELS: [(&str, &str); 4] = [(POD_UID, "u"), (POD_NAME, "p"), (POD_NAMESPACE, "n"), (CONTAINER_NAME, "c")];

    #[test]
    fn what_is_not_ours_stays() {
        let ours = container(v1::ContainerState::ContainerExited, &LABELS);
        let foreign = container(v1::ContainerState::ContainerExited, &[]);
        let running = container(v1::ContainerState::ContainerRunning, &LABELS);
        let (dead, living) = sorted(std::slice::from_ref(&ours));
        assert_eq!((dead.len(), living.len()), (1, 0));
        let (dead, living) = sorted(&[foreign, running]);
        assert_eq!((dead.len(), living.len()), (0, 1));
        let log = log_of(Path::new("/logs"), &ours).unwrap();
        assert_eq!(log, Path::new("/logs/n_p_u/c/3.log"));
        assert_eq!(link_of(&ours).unwrap(), Path::new("/var/log/containers/p_n_c-id.log"));
    }

    #[test]
    fn no_label_leads_elsewhere() {
        let mut labels = LABELS;
        labels[3].1 = "../../etc";
        assert_eq!(log_of(Path::new("/logs"), &container(v1::ContainerState::ContainerExited, &labels)), None);
    }

    #[test]
    fn logs_of_pods_that_are_gone_are_removed() {
        let directory = tempfile::tempdir().unwrap();
        for name in ["n_a_gone", "n_b_here", "other"] {
            std::fs::create_dir_all(directory.path().join(name).join("c")).unwrap();
        }
        let known = Known { pods: BTreeSet::from(["here".to_owned()]), is_complete: true, since: 0 };
        remove_logs(directory.path(), &known, &BTreeSet::new());
        let left = |name: &str| directory.path().join(name).exists();
        assert_eq!([left("n_a_gone"), left("n_b_here"), left("other")], [false, true, true]);
    }
}
