//! Carries a controller out.
//!
//! Owns:    the queue of keys; what it is told of stays in the informers.
//! Needs:   the informers and the API; it waits until there is a first list of each, and until this process leads.
//! Restart: permanent. It looks at every key again.
//! Fails:   when it can't subscribe, because an informer is away for long. What fails with a key concerns that key alone.

use std::collections::{BTreeMap, HashMap};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::{BoxStream, FuturesUnordered, SelectAll};
use futures_util::{FutureExt as _, StreamExt as _};
use k3sd_runtime::queues::QueueNumbers;
use k3sd_runtime::workqueue::WorkQueue;
use k3sd_runtime::{ActorError, ChildSpec, Clock, Moment, TaskHandle, panic_text, task};
use k8s_openapi::api::core::v1::ObjectReference;

use super::source::{Mapped, Source, Stream};
use super::turn::Seen;
use super::{Controller, Failure, QUARANTINE_FAILURES, Turn};
use crate::election::Leading;
use crate::events::Recorder;
use crate::informer::{Informer, Kind};

/// Keys that are looked at side by side, unless a loop says otherwise; as upstream's.
const WORKERS: usize = 5;
/// How soon a key that waits for the copies is asked about again, should no change have named it by then.
const REST: Duration = Duration::from_secs(1);
/// Longest wait for the copies. Something else is wrong then, and a look does less harm than none.
const REST_MAX: Duration = Duration::from_secs(30);
/// Keys at rest from which on those that nobody asks about any more are looked for.
const RESTING_MANY: usize = 1024;
/// Lines of notes, and characters of each, that the inspector is shown.
const NOTES_MAX: usize = 20;
const NOTE_CHARS: usize = 200;
/// The reason of the Event about an object in quarantine.
const QUARANTINED: &str = "Quarantined";

type Waits = Arc<dyn Fn() -> BoxFuture<'static, ()> + Send + Sync>;
type Keys<Key> = Arc<dyn Fn() -> Vec<Key> + Send + Sync>;
type Describe<Key> = Arc<dyn Fn(&Key) -> Option<ObjectReference> + Send + Sync>;

/// A controller with all that it is told by; becomes an actor with [`Loop::child`].
pub struct Loop<C: Controller> {
    controller: Arc<C>,
    sources: Vec<Arc<dyn Source<C::Key>>>,
    needed: Vec<Waits>,
    every: Option<(Duration, Keys<C::Key>)>,
    workers: usize,
    leading: Leading,
    quarantine: Option<(Recorder, Describe<C::Key>)>,
}

impl<C: Controller> std::fmt::Debug for Loop<C> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Loop").field("sources", &self.sources.len()).finish_non_exhaustive()
    }
}

impl<C: Controller> Clone for Loop<C> {
    fn clone(&self) -> Self {
        Self {
            controller: self.controller.clone(),
            sources: self.sources.clone(),
            needed: self.needed.clone(),
            every: self.every.clone(),
            workers: self.workers,
            leading: self.leading.clone(),
            quarantine: self.quarantine.clone(),
        }
    }
}

impl<C: Controller> Loop<C> {
    /// A controller that acts while this process leads, and is told of nothing yet.
    pub fn new(controller: C, leading: Leading) -> Self {
        let (sources, needed) = (Vec::new(), Vec::new());
        let controller = Arc::new(controller);
        Self { controller, sources, needed, every: None, workers: WORKERS, leading, quarantine: None }
    }

    /// Looks at the keys that a change of an object concerns. `map` gets what the object was and what it is (one of them
    /// is missing for new and deleted ones, the former also when changes were missed) and adds keys.
    ///
    /// The first source is the one whose objects are the keys: all of them are looked at when changes were missed.
    #[must_use]
    pub fn watch<K: Kind>(
        mut self,
        informer: &Informer<K>,
        map: impl Fn(Option<&K>, Option<&K>, &mut Vec<C::Key>) + Send + Sync + 'static,
    ) -> Self {
        self.sources.push(Arc::new(Mapped { informer: informer.clone(), map: Arc::new(map) }));
        self
    }

    /// Looks at the keys that a stream names. It is opened anew with each incarnation, and isn't the first source.
    #[must_use]
    pub fn told(mut self, open: impl Fn() -> BoxStream<'static, Vec<C::Key>> + Send + Sync + 'static) -> Self {
        self.sources.push(Arc::new(Stream(open)));
        self
    }

    /// Begins only when this informer has a first list too; its changes concern no key.
    #[must_use]
    pub fn needs<K: Kind>(mut self, informer: &Informer<K>) -> Self {
        let informer = informer.clone();
        self.needed.push(Arc::new(move || {
            let mut informer = informer.clone();
            Box::pin(async move { _ = informer.synced().await })
        }));
        self
    }

    /// Looks at these keys at the start, and again after each such while. Only for what no informer tells of: an idle
    /// process should be idle.
    #[must_use]
    pub fn every(mut self, period: Duration, keys: impl Fn() -> Vec<C::Key> + Send + Sync + 'static) -> Self {
        self.every = Some((period, Arc::new(keys)));
        self
    }

    /// So many keys are looked at side by side.
    #[must_use]
    pub fn workers(self, workers: usize) -> Self {
        Self { workers: workers.max(1), ..self }
    }

    /// Writes an Event about the object of a key that is in quarantine.
    #[must_use]
    pub fn quarantine(
        self,
        recorder: Recorder,
        object: impl Fn(&C::Key) -> Option<ObjectReference> + Send + Sync + 'static,
    ) -> Self {
        Self { quarantine: Some((recorder, Arc::new(object))), ..self }
    }

    /// The actor.
    pub fn child(self, name: &str) -> ChildSpec {
        task(name, move |handle| self.clone().run(handle))
    }

    async fn run(mut self, handle: TaskHandle) -> Result<(), ActorError> {
        self.leading.lead().await;
        let mut told = SelectAll::new();
        for source in &self.sources {
            source.synced().await;
            told.push(source.open().await?);
        }
        for needed in &self.needed {
            needed().await;
        }
        let clock = handle.system().clock().clone();
        let mut desk = Desk::new(self, clock.clone(), handle);
        desk.begin_period();
        loop {
            let due = desk.begin();
            let wait = async {
                match due {
                    Some(due) => clock.sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                Some(first) = told.next() => {
                    let mut next = Some(first);
                    // All that is there by now, so that a burst about one key is one look.
                    while let Some(told_now) = next {
                        desk.told(told_now.keys, told_now.is_all);
                        next = told.next().now_or_never().flatten();
                    }
                }
                Some(done) = desk.working.next() => desk.done(done),
                () = wait => desk.begin_period(),
                else => return Err(Failure::other("every informer is gone").into()),
            }
        }
    }
}

/// What came of one look.
struct Done<Key> {
    key: Key,
    began: Moment,
    turn: Turn,
    outcome: Outcome,
}

enum Outcome {
    Fine,
    Failed(Failure),
    Panicked(String),
}

/// What a key waits for.
struct Resting {
    awaited: Vec<Seen>,
    until: Moment,
}

/// The keys, and those in hand.
struct Desk<C: Controller> {
    plan: Loop<C>,
    clock: Clock,
    handle: TaskHandle,
    queue: WorkQueue<C::Key>,
    numbers: Arc<QueueNumbers>,
    /// Since when keys wait that were added for now.
    waiting: HashMap<C::Key, Moment>,
    working: FuturesUnordered<BoxFuture<'static, Done<C::Key>>>,
    resting: HashMap<C::Key, Resting>,
    quarantined: BTreeMap<C::Key, String>,
    next_period: Option<Moment>,
}

impl<C: Controller> Desk<C> {
    fn new(plan: Loop<C>, clock: Clock, handle: TaskHandle) -> Self {
        let queue = WorkQueue::new(C::BACKOFF, handle.rng());
        let numbers = handle.system().queues().queue(last_part(handle.path()));
        let next_period = plan.every.is_some().then_some(Moment::START);
        let (waiting, resting, quarantined) = (HashMap::new(), HashMap::new(), BTreeMap::new());
        let working = FuturesUnordered::new();
        Self { plan, clock, handle, queue, numbers, waiting, working, resting, quarantined, next_period }
    }

    fn add(&mut self, keys: Vec<C::Key>) {
        let now = self.clock.now();
        for key in keys {
            self.numbers.added();
            self.waiting.entry(key.clone()).or_insert(now);
            self.queue.add(key);
        }
    }

    fn told(&mut self, keys: Vec<C::Key>, is_all: bool) {
        self.add(keys);
        if is_all && let Some(first) = self.plan.sources.first().cloned() {
            self.add(first.all());
        }
    }

    /// Adds the keys of the period, if it is over.
    fn begin_period(&mut self) {
        let now = self.clock.now();
        if let Some((period, keys)) = self.plan.every.clone()
            && self.next_period.is_some_and(|due| due <= now)
        {
            self.add(keys());
            self.next_period = Some(now + period);
        }
    }

    /// Takes as many keys in hand as may be, and says when to come again without being told.
    fn begin(&mut self) -> Option<Moment> {
        let now = self.clock.now();
        while self.working.len() < self.plan.workers {
            let Some(key) = self.queue.take(now) else { break };
            if self.rests(&key, now) {
                self.queue.done(&key);
                self.queue.add_at(key, now + REST, now);
                continue;
            }
            let waited = self.waiting.remove(&key).map_or(Duration::ZERO, |since| now.since(since));
            self.numbers.began(now, waited);
            self.look(key, now);
        }
        self.numbers.set_depth(self.queue.len());
        let due = if self.working.len() < self.plan.workers { self.queue.next_due() } else { None };
        due.into_iter().chain(self.next_period).min()
    }

    /// Whether the copies don't show yet what was written for the key.
    fn rests(&mut self, key: &C::Key, now: Moment) -> bool {
        let Some(resting) = self.resting.get_mut(key) else { return false };
        resting.awaited.retain(|seen| !seen());
        let rests = !resting.awaited.is_empty() && now < resting.until;
        if !rests {
            if !resting.awaited.is_empty() {
                tracing::warn!(%key, "the informers don't show what was written; looking all the same");
            }
            self.resting.remove(key);
        }
        rests
    }

    fn look(&mut self, key: C::Key, began: Moment) {
        let controller = self.plan.controller.clone();
        let mut turn = Turn::new(self.clock.clone(), self.handle.rng());
        self.working.push(Box::pin(async move {
            let looked = AssertUnwindSafe(controller.reconcile(&key, &mut turn)).catch_unwind().await;
            let outcome = match looked {
                Ok(Ok(())) => Outcome::Fine,
                Ok(Err(failure)) => Outcome::Failed(failure),
                Err(panic) => Outcome::Panicked(panic_text(&*panic)),
            };
            Done { key, began, turn, outcome }
        }));
    }

    fn done(&mut self, done: Done<C::Key>) {
        let Done { key, began, turn, outcome } = done;
        let now = self.clock.now();
        self.numbers.ended(began, now);
        self.queue.done(&key);
        if !turn.awaited.is_empty() {
            if self.resting.len() >= RESTING_MANY {
                self.resting.retain(|_, resting| now < resting.until);
            }
            // The change that it waits for names the key again.
            self.resting.insert(key.clone(), Resting { awaited: turn.awaited, until: now + REST_MAX });
        }
        match outcome {
            Outcome::Fine => {
                self.queue.forget(&key);
                if self.quarantined.remove(&key).is_some() {
                    tracing::info!(%key, "out of quarantine");
                    self.note();
                }
                if let Some(after) = turn.again {
                    self.queue.add_at(key, now + after, now);
                }
            }
            Outcome::Failed(failure) => self.failed(key, &failure, now),
            Outcome::Panicked(text) => {
                self.add_failed(key.clone(), now);
                self.isolate(key, format!("panicked: {text}"));
            }
        }
    }

    fn add_failed(&mut self, key: C::Key, now: Moment) {
        self.numbers.retried();
        self.queue.add_failed(key, now);
    }

    fn failed(&mut self, key: C::Key, failure: &Failure, now: Moment) {
        self.add_failed(key.clone(), now);
        if failure.is_stale() {
            tracing::debug!(%key, failure = failure.chain(), "somebody was faster; looking again");
            return;
        }
        // What the API refuses, such as for a quota, is the matter of whoever sees to that, and no poison.
        if failure.code().is_none() && self.queue.failures(&key) >= QUARANTINE_FAILURES {
            self.isolate(key, failure.chain());
        } else {
            tracing::info!(%key, failure = failure.chain(), "trying again");
        }
    }

    /// Notes why a key is in quarantine, and says so once.
    fn isolate(&mut self, key: C::Key, why: String) {
        if self.quarantined.get(&key).is_some_and(|known| *known == why) {
            return;
        }
        tracing::warn!(%key, why, "in quarantine: its look fails; the others go on");
        if let Some((recorder, object)) = &self.plan.quarantine
            && let Some(object) = object(&key)
        {
            recorder.about(object, "Warning", QUARANTINED, format!("{} can't handle this object: {why}", self.name()));
        }
        self.quarantined.insert(key, why);
        self.note();
    }

    fn name(&self) -> &str {
        last_part(self.handle.path())
    }

    /// Shows the inspector who is in quarantine.
    fn note(&self) {
        let line = |(key, why): (&C::Key, &String)| -> String {
            format!("quarantined {key}: {why}").chars().take(NOTE_CHARS).collect()
        };
        let mut notes: Vec<String> = self.quarantined.iter().take(NOTES_MAX).map(line).collect();
        if self.quarantined.len() > NOTES_MAX {
            notes.push(format!("and {} more in quarantine", self.quarantined.len() - NOTES_MAX));
        }
        self.handle.note(notes);
    }
}

/// The name of an actor, by its path.
fn last_part(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or_default()
}
