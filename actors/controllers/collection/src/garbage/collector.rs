//! Keeps the graph, and looks at what it asks to look at.
//!
//! Owns:    the graph and the queue of what is to be looked at.
//! Needs:   the API; monitors tell it what there is, and start after it.
//! Restart: permanent, and the monitors with it: they tell everything again.
//! Fails:   when nobody says any more which resources there are.

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt as _, StreamExt as _};
use k3sd_client::api::Connect;
use k3sd_client::controller::{Failure, QUARANTINE_FAILURES};
use k3sd_client::election::Leading;
use k3sd_client::events::Recorder;
use k3sd_runtime::workqueue::WorkQueue;
use k3sd_runtime::{ActorError, Backoff, Clock, Moment, TaskHandle, panic_text};
use k8s_openapi::api::core::v1::ObjectReference;
use tokio::sync::{broadcast, mpsc, watch};

use super::graph::{Found, Graph, Owner, Place, Uid, Work};
use super::monitor::Told;
use super::work::{Learnt, Tools};
use super::{COLLECTED, is_collected};
use crate::resources::{Resource, Resources};

/// Objects that are looked at side by side; upstream's number.
const WORKERS: usize = 20;
/// Owners that aren't there, and are remembered as that; upstream's number.
const ABSENT_MAX: usize = 500;
/// Batches that may wait to be told.
const WAITING_MAX: usize = 64;
/// Longest wait for the first list of a resource. A server that never answers must not keep all garbage alive.
const FIRST_LIST_MAX: Duration = Duration::from_secs(30);
/// Lines of notes, and characters of each, that the inspector is shown.
const NOTES_MAX: usize = 20;
const NOTE_CHARS: usize = 200;

/// What a collector is started with.
#[derive(Clone)]
pub(super) struct Args {
    pub(super) connect: Connect,
    pub(super) leading: Leading,
    pub(super) recorder: Recorder,
    pub(super) resources: watch::Receiver<Option<Arc<Resources>>>,
    pub(super) mouth: Arc<watch::Sender<Option<mpsc::Sender<Told>>>>,
    pub(super) gone: broadcast::Sender<Arc<str>>,
}

struct Done {
    work: Work,
    learnt: Learnt,
    /// What went wrong, and whether that happens every day.
    outcome: Result<(), (String, bool)>,
}

struct Collector {
    tools: Tools,
    clock: Clock,
    handle: TaskHandle,
    recorder: Recorder,
    graph: Graph,
    queue: WorkQueue<Work>,
    working: FuturesUnordered<BoxFuture<'static, Done>>,
    absent: Absent,
    gone: broadcast::Sender<Arc<str>>,
    /// Resources whose first list isn't there yet, and how long it is waited for.
    awaited: BTreeMap<String, Moment>,
    listed: BTreeSet<String>,
    quarantined: BTreeMap<Work, String>,
}

/// Owners that aren't there, the oldest forgotten first.
#[derive(Default)]
struct Absent {
    known: HashSet<(Uid, Place)>,
    order: VecDeque<(Uid, Place)>,
}

impl Absent {
    fn note(&mut self, owner: (Uid, Place)) {
        if self.known.insert(owner.clone()) {
            self.order.push_back(owner);
        }
        if self.order.len() > ABSENT_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
    }
}

pub(super) async fn run(mut args: Args, handle: TaskHandle) -> Result<(), ActorError> {
    args.leading.lead().await;
    let resources = args.resources.wait_for(Option::is_some).await?.clone().unwrap_or_default();
    let clock = handle.system().clock().clone();
    let queue = WorkQueue::new(Backoff::REQUEUE, handle.rng());
    let mut collector = Collector {
        tools: Tools { client: args.connect.client(), resources: resources.clone() },
        clock: clock.clone(),
        handle,
        recorder: args.recorder.component("garbage-collector-controller"),
        graph: Graph::default(),
        queue,
        working: FuturesUnordered::new(),
        absent: Absent::default(),
        gone: args.gone.clone(),
        awaited: BTreeMap::new(),
        listed: BTreeSet::new(),
        quarantined: BTreeMap::new(),
    };
    collector.expect(&resources);
    let (sender, mut told) = mpsc::channel(WAITING_MAX);
    args.mouth.send_replace(Some(sender));
    loop {
        let due = collector.begin();
        let wait = async {
            match due {
                Some(due) => clock.sleep_until(due).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            Some(first) = told.recv() => {
                collector.told(first);
                // Some more that is there, so that a burst about one object is one look; not all, so that work goes on.
                for _ in 0..WAITING_MAX {
                    let Ok(next) = told.try_recv() else { break };
                    collector.told(next);
                }
            }
            Some(done) = collector.working.next() => collector.done(done),
            () = wait => {}
            changed = args.resources.changed() => {
                changed?;
                let resources = args.resources.borrow_and_update().clone().unwrap_or_default();
                collector.expect(&resources);
                collector.tools.resources = resources;
            }
        }
    }
}

impl Collector {
    /// Waits for the first lists of resources that are new: an owner whose dependents aren't known has none.
    fn expect(&mut self, resources: &Resources) {
        let until = self.clock.now() + FIRST_LIST_MAX;
        let names: BTreeSet<String> =
            resources.all.iter().filter(|resource| is_collected(resource)).map(|resource| key(resource)).collect();
        self.listed.retain(|name| names.contains(name));
        self.awaited.retain(|name, _| names.contains(name));
        for name in names.into_iter().filter(|name| !self.listed.contains(name)) {
            self.awaited.entry(name).or_insert(until);
        }
    }

    fn told(&mut self, told: Told) {
        let mut found = Found::default();
        match told {
            Told::Seen(seen) => seen.into_iter().for_each(|seen| self.graph.apply(seen, &mut found)),
            Told::Gone(gone) => {
                let namespace = |uid| Some(self.graph.look(uid)?.place.namespace);
                let namespaces: BTreeSet<Arc<str>> = gone.iter().filter_map(namespace).collect();
                for namespace in namespaces.into_iter().filter(|namespace| !namespace.is_empty()) {
                    // Nobody may listen.
                    _ = self.gone.send(namespace);
                }
                gone.iter().for_each(|uid| self.gone(uid, &mut found));
            }
            Told::Listed(resource, all) => {
                self.graph.listed(&resource.api.api_version, &resource.api.kind, &all, &mut found);
                self.awaited.remove(&key(&resource));
                self.listed.insert(key(&resource));
            }
            Told::Dropped(resource) => {
                self.graph.listed(&resource.api.api_version, &resource.api.kind, &HashSet::new(), &mut found);
                self.listed.remove(&key(&resource));
                self.awaited.remove(&key(&resource));
            }
        }
        self.found(found);
    }

    fn gone(&mut self, uid: &Uid, found: &mut Found) {
        if let Some(place) = self.graph.gone(uid, found) {
            self.absent.note((uid.clone(), place));
        }
    }

    fn found(&mut self, found: Found) {
        found.work.into_iter().for_each(|work| self.queue.add(work));
        for (uid, place, owner) in found.misplaced {
            self.misplaced(&uid, &place, &owner);
        }
    }

    fn misplaced(&self, uid: &Uid, place: &Place, owner: &Owner) {
        let about = ObjectReference {
            api_version: Some(place.api_version.to_string()),
            kind: Some(place.kind.to_string()),
            namespace: Some(place.namespace.to_string()).filter(|namespace| !namespace.is_empty()),
            name: Some(place.name.to_string()),
            uid: Some(uid.to_string()),
            ..ObjectReference::default()
        };
        let Owner { uid, api_version, kind, name, .. } = owner;
        let namespace = &place.namespace;
        let named = format!("[{api_version}/{kind}, namespace: {namespace}, name: {name}, uid: {uid}]");
        let message = format!("ownerRef {named} does not exist in namespace {namespace:?}");
        self.recorder.about(about, "Warning", "OwnerRefInvalidNamespace", message);
    }

    /// Takes as much in hand as may be, and says when to come again without being told.
    fn begin(&mut self) -> Option<Moment> {
        let now = self.clock.now();
        self.awaited.retain(|name, until| {
            let waits = now < *until;
            if !waits {
                tracing::warn!(resource = name, "can't be listed; collecting garbage without it");
            }
            waits
        });
        if let Some(until) = self.awaited.values().min() {
            return Some(*until);
        }
        while self.working.len() < WORKERS {
            let Some(work) = self.queue.take(now) else { break };
            self.look(work);
        }
        if self.working.len() < WORKERS { self.queue.next_due() } else { None }
    }

    fn look(&mut self, work: Work) {
        let Some(look) = self.graph.look(work.uid()) else {
            self.queue.done(&work);
            self.queue.forget(&work);
            if self.quarantined.remove(&work).is_some() {
                self.note();
            }
            return;
        };
        let tools = self.tools.clone();
        let action: BoxFuture<'static, (Learnt, Result<(), Failure>)> = match &work {
            Work::Object(uid) => {
                let absent = self.absent_owners(uid, &look.place);
                Box::pin(async move {
                    let mut learnt = Learnt::default();
                    let outcome = tools.object(look, absent, &mut learnt).await;
                    (learnt, outcome)
                })
            }
            Work::Orphan(uid) => {
                let dependents = self.graph.dependents(uid);
                Box::pin(async move { (Learnt::default(), tools.orphan(look, dependents).await) })
            }
        };
        self.working.push(Box::pin(async move {
            let (learnt, outcome) = match AssertUnwindSafe(action).catch_unwind().await {
                Ok((learnt, outcome)) => (learnt, outcome.map_err(|failure| (failure.chain(), failure.is_stale()))),
                Err(panic) => (Learnt::default(), Err((format!("panicked: {}", panic_text(&*panic)), false))),
            };
            Done { work, learnt, outcome }
        }));
    }

    /// The owners of an object of which it is known that they aren't there.
    fn absent_owners(&self, uid: &Uid, place: &Place) -> HashSet<(Uid, Place)> {
        let of_cluster: Arc<str> = "".into();
        let named = self.graph.owners(uid).iter().flat_map(|owner| {
            [&place.namespace, &of_cluster].map(|namespace| (owner.uid.clone(), owner.place(namespace)))
        });
        named.filter(|owner| self.absent.known.contains(owner)).collect()
    }

    fn done(&mut self, done: Done) {
        let Done { work, learnt, outcome } = done;
        let now = self.clock.now();
        self.queue.done(&work);
        let mut found = Found::default();
        for (uid, place) in learnt.absent {
            self.graph.absent(&uid, &place, &mut found);
            self.absent.note((uid, place));
        }
        self.found(found);
        match outcome {
            Ok(()) => {
                self.queue.forget(&work);
                if self.quarantined.remove(&work).is_some() {
                    self.note();
                }
            }
            Err((why, is_stale)) => {
                self.queue.add_failed(work.clone(), now);
                if !is_stale && self.queue.failures(&work) >= QUARANTINE_FAILURES {
                    self.quarantined.insert(work, why);
                    self.note();
                } else {
                    tracing::debug!(uid = &**work.uid(), why, "trying again");
                }
            }
        }
    }

    /// Shows the inspector what can't be looked at.
    fn note(&self) {
        let line = |(work, why): (&Work, &String)| -> String {
            format!("quarantined {}: {why}", work.uid()).chars().take(NOTE_CHARS).collect()
        };
        self.handle.note(self.quarantined.iter().take(NOTES_MAX).map(line).collect());
    }
}

fn key(resource: &Resource) -> String {
    format!("{COLLECTED}{}.{}", resource.name(), resource.api.version)
}
