//! One pod: an actor that makes what runs into what is wanted, until nothing of the pod is left.
//!
//! ```text
//! wanted, nudge, results ─▶ look at the runtime ─▶ status ─▶ plan ─▶ carry out ─▶ look again ...
//! ```
//!
//! Owns:    what the runtime, the cgroup tree and the volumes have of one pod, and the pod's status in the API.
//! Needs:   the runtime. The API may be away.
//! Restart: transient. It looks, and goes on where things are: what isn't found in the runtime (waits after failures,
//!          what probes said) is kept in its [`Entry`], which outlives it.
//! Fails:   never on the world; everything is tried again.

mod files;
mod pull;
pub(crate) mod record;
mod resize;
mod start;
mod stop;
mod sync;
mod write;

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use k3sd_kubelet_base::PodsPublisher;
use k3sd_runtime::{ActorError, Clock, TaskHandle};
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use tokio::sync::{Semaphore, watch};

use crate::config::{PodsConfig, PodsDeps};
use crate::numbers::{Numbers, Step};
use crate::oom::Killed;
use crate::plan::backoff::Backoffs;
use crate::probes::Results;
use crate::resize::Pending;
use crate::runtime::Runtime;
use crate::status::{Ending, Hindrance};
use crate::users::Users;

use self::record::Record;

/// Where a pod comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// The API.
    Api,
    /// A file.
    File,
    /// Nowhere any more: what is left of it has to go.
    Gone,
}

/// What is wanted of a pod.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    /// The pod, with the resources that the node has granted it.
    pub(crate) pod: Arc<Pod>,
    /// The pod as its source has it.
    pub(crate) asked: Arc<Pod>,
    /// Why it hasn't been granted what it asks for.
    pub(crate) pending: Option<Pending>,
    pub(crate) source: Source,
    /// Why the node doesn't take it.
    pub(crate) rejected: Option<(String, String)>,
    /// Why the node ends it, and within how many seconds.
    pub(crate) kill: Option<(Ending, Option<i64>)>,
    /// A static pod's image in the API.
    pub(crate) mirror: Option<Arc<Pod>>,
}

impl Wanted {
    /// What comes of a pod that nothing is known of yet.
    pub(crate) fn new(pod: Arc<Pod>, source: Source) -> Self {
        Self { asked: pod.clone(), pod, pending: None, source, rejected: None, kill: None, mirror: None }
    }
}

/// What is known of a pod, besides what can be looked up.
#[derive(Clone, Debug, Default)]
pub(crate) struct Memory {
    pub(crate) backoffs: Backoffs,
    pub(crate) pull_backoffs: Backoffs,
    pub(crate) hindrances: BTreeMap<String, Hindrance>,
    pub(crate) ending: Option<Ending>,
    /// What its containers were granted and have.
    pub(crate) record: Arc<Record>,
    /// Containers are being given something else than they had.
    pub(crate) is_resizing: bool,
    /// Why that failed when it was last tried, and when to try again.
    pub(crate) resize_failed: Option<(String, Timestamp)>,
    /// Its volumes were set up in this life of the process, so whoever keeps their files up to date knows of them.
    pub(crate) has_volumes: bool,
    /// Nothing of it will be started any more.
    pub(crate) terminating: bool,
    /// Nothing of it runs, and its resources are given back.
    pub(crate) stopped: bool,
    pub(crate) status: Option<PodStatus>,
}

/// What the API should be told of a pod.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Report {
    pub(crate) status: Option<PodStatus>,
    /// The object may go now.
    pub(crate) delete: bool,
}

/// What probes are run for.
#[derive(Clone, Debug, Default)]
pub(crate) struct View {
    pub(crate) pod: Option<Arc<Pod>>,
    pub(crate) runtime: Arc<Runtime>,
    pub(crate) terminating: bool,
}

/// What a pod's actor is told, and keeps. Outlives the actor.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) uid: String,
    pub(crate) wanted: watch::Sender<Wanted>,
    pub(crate) nudge: watch::Sender<u64>,
    pub(crate) memory: watch::Sender<Memory>,
    pub(crate) results: watch::Sender<Results>,
    pub(crate) report: watch::Sender<Report>,
    pub(crate) view: watch::Sender<View>,
    /// Nothing is left of it; the entry may go.
    pub(crate) finished: watch::Sender<bool>,
}

impl Entry {
    pub(crate) fn new(uid: &str, wanted: Wanted, record: Record) -> Self {
        let memory = Memory { record: Arc::new(record), ..Memory::default() };
        Self {
            uid: uid.to_owned(),
            wanted: watch::channel(wanted).0,
            nudge: watch::channel(0).0,
            memory: watch::channel(memory).0,
            results: watch::channel(Results::default()).0,
            report: watch::channel(Report::default()).0,
            view: watch::channel(View::default()).0,
            finished: watch::channel(false).0,
        }
    }
}

/// What all pods of the node share.
pub(crate) struct Shared {
    pub(crate) config: PodsConfig,
    pub(crate) deps: PodsDeps,
    pub(crate) publisher: PodsPublisher,
    /// Ids of the host that are pods' users.
    pub(crate) users: Users,
    /// Permits to pull an image.
    pub(crate) pulls: Semaphore,
    /// Tells the manager that a pod has gone on.
    pub(crate) progress: watch::Sender<u64>,
    /// What is counted.
    pub(crate) numbers: Arc<Numbers>,
    /// Containers that the kernel killed for want of memory.
    pub(crate) killed: watch::Sender<Killed>,
}

/// Now, for people.
pub(crate) fn now(clock: &Clock) -> Timestamp {
    let since_1970 = jiff::SignedDuration::try_from(clock.wall()).unwrap_or_default();
    Timestamp::from_duration(since_1970).unwrap_or_default()
}

/// What comes after a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    /// The next one, at once.
    Again,
    /// Nothing, until something changes or this moment comes.
    Wait(Option<Timestamp>),
    /// Nothing is left.
    Finished,
}

/// What was counted of a pod's probes goes with its actor.
struct Counted<'a>(&'a Numbers, &'a str);

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.forget(self.1);
    }
}

/// The actor's body.
pub(crate) async fn run(handle: TaskHandle, shared: Arc<Shared>, entry: Arc<Entry>) -> Result<(), ActorError> {
    let clock = handle.system().clock().clone();
    let mut wanted = entry.wanted.subscribe();
    let (mut nudge, mut results) = (entry.nudge.subscribe(), entry.results.subscribe());
    let (probes_rng, write_rng) = (handle.rng(), handle.rng());
    drop(handle);
    let beside = async {
        tokio::join!(
            crate::probes::run::run(&shared, &entry, &clock, probes_rng),
            write::run(&shared, &entry, &clock, write_rng),
        )
    };
    let mut beside = std::pin::pin!(beside);
    let mut worker = sync::Worker::new(&shared, &entry, &clock);
    let _counted = Counted(&shared.numbers, &entry.uid);
    let mut step = Step::Create;
    loop {
        let began = clock.now();
        nudge.mark_unchanged();
        results.mark_unchanged();
        let now_wanted = wanted.borrow_and_update().clone();
        let next = tokio::select! {
            biased;
            _ = &mut beside => unreachable!("they go on for ever"),
            () = overtaken(wanted.clone(), &now_wanted) => Next::Again,
            // A step is large. A pod that has none to make holds no place for it.
            next = Box::pin(worker.step(&now_wanted)) => next,
        };
        shared.numbers.stepped(step, clock.now().since(began));
        step = if entry.memory.borrow().terminating { Step::Kill } else { Step::Sync };
        let until = match next {
            Next::Again => continue,
            Next::Finished => break,
            Next::Wait(until) => until,
        };
        let alarm = async {
            match until {
                Some(until) => {
                    let left = until.duration_since(now(&clock)).max(jiff::SignedDuration::ZERO).unsigned_abs();
                    clock.sleep_until(clock.now() + left).await;
                }
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = &mut beside => unreachable!("they go on for ever"),
            changed = wanted.changed() => changed?,
            changed = nudge.changed() => changed?,
            changed = results.changed() => changed?,
            () = alarm => {}
        }
    }
    entry.finished.send_replace(true);
    shared.progress.send_modify(|count| *count += 1);
    // The manager takes this actor away; until then there is nothing to do.
    std::future::pending().await
}

/// Waits until something more urgent is wanted than what is being done: an end, or an earlier one. It looks with eyes of
/// its own: what is less urgent has to be seen after the step.
async fn overtaken(mut wanted: watch::Receiver<Wanted>, doing: &Wanted) {
    let urgency = stop::urgency(doing);
    if wanted.wait_for(|other| stop::urgency(other) < urgency).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Writes an event about a pod, or one of its containers. Of a static pod the mirror is what events are about, which has
/// the same name.
pub(crate) fn event(shared: &Shared, pod: &Pod, container: Option<&str>, kind: &'static str, reason: &str, text: &str) {
    let mut about = k3sd_client::events::reference(pod);
    if let Some(name) = container {
        let list = match crate::spec::find(pod, name) {
            Some((crate::spec::Role::Init, _)) => "initContainers",
            Some((crate::spec::Role::Ephemeral, _)) => "ephemeralContainers",
            _ => "containers",
        };
        about.field_path = Some(format!("spec.{list}{{{name}}}"));
    }
    shared.deps.recorder.about(about, kind, reason, text);
}

/// The address at which a pod's probes find it.
pub(crate) fn address(view: &View, shared: &Shared) -> String {
    let of_pod = view.runtime.sandboxes.first().and_then(|sandbox| sandbox.addresses.first().cloned());
    let host = || shared.deps.addresses.borrow().first().cloned();
    let on_host = view.pod.as_ref().is_some_and(|pod| crate::spec::is_host_network(pod));
    if on_host { host() } else { of_pod }.unwrap_or_else(|| "127.0.0.1".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::pod;

    #[tokio::test]
    async fn what_changes_during_a_step_is_seen_after_it() {
        let of = |meta: &str| {
            let pod = pod(&format!("{{metadata: {{{meta}}}, spec: {{containers: []}}}}"));
            Wanted::new(Arc::new(pod), Source::Api)
        };
        let deleted = "deletionTimestamp: '2026-01-01T00:00:00Z', deletionGracePeriodSeconds: 1";
        for (change, is_urgent) in [("generation: 2", false), (deleted, true)] {
            let (sender, mut receiver) = watch::channel(of("generation: 1"));
            let doing = receiver.borrow_and_update().clone();
            let step = async {
                sender.send_replace(of(change));
                for _ in 0..10 {
                    tokio::task::yield_now().await;
                }
            };
            let overtook = tokio::select! {
                () = overtaken(receiver.clone(), &doing) => true,
                () = step => false,
            };
            assert_eq!(overtook, is_urgent, "{change}");
            assert!(receiver.has_changed().unwrap(), "{change}");
        }
    }
}
