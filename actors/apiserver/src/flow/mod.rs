//! Priority and fairness: no kind of client can use the whole server.
//!
//! ```text
//! request ─▶ flow schema (who, what) ─▶ priority level ─▶ a seat, a place in a queue, or 429
//! ```
//!
//! [`schema`], [`width`] and [`levels`] decide; this page looks up what is configured and what there is to do, and wakes
//! who waited.

mod levels;
mod schema;
mod width;
mod write;

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use http::HeaderValue;
use k3sd_apiserver_access::{Query, RequestInfo, SYSTEM_MASTERS, User};
use k3sd_apiserver_store::{ObjectStore, Stores};
use k3sd_client::storage::Revision;
use k3sd_runtime::Clock;
use k3sd_runtime::exposition::{Histogram, Sizes};
use serde_json::Value;
use tokio::sync::{oneshot, watch};

use self::levels::{Arrival, LevelSpec, Levels, Refusal, divided};
use self::schema::FlowSchema;
use self::width::{Listing, Width};

const GROUP: &str = "flowcontrol.apiserver.k8s.io";
/// The mandatory ones; they hold also while nothing is stored yet.
const EXEMPT: &str = "exempt";
const CATCH_ALL: &str = "catch-all";
const CATCH_ALL_SHARES: u64 = 5;
const EVERYBODY: &[&str] = &["system:authenticated", "system:unauthenticated"];
/// Upper bounds in milliseconds of the buckets for the time that requests waited.
const WAIT_BUCKETS_MS: [u64; 11] = [0, 5, 20, 50, 100, 200, 500, 1000, 2000, 5000, 15_000];

/// The same for how many seats they took.
const WIDTH_BUCKETS: [u64; 4] = [1, 2, 4, 10];
/// Objects whose lengths stand for those of all.
const SAMPLE_OBJECTS: usize = 16;

/// What is counted of the requests of one schema at one level.
#[derive(Debug)]
struct Counts {
    working: AtomicI64,
    waiting: AtomicI64,
    dispatched: AtomicU64,
    rejected: [AtomicU64; Refusal::ALL.len()],
    /// Of those that got their seat.
    waits: Histogram<{ WAIT_BUCKETS_MS.len() }>,
    widths: Sizes<{ WIDTH_BUCKETS.len() }>,
}

impl Default for Counts {
    fn default() -> Self {
        let (working, waiting) = (AtomicI64::new(0), AtomicI64::new(0));
        let (dispatched, rejected) = (AtomicU64::new(0), Default::default());
        let (waits, widths) = (Histogram::new(&WAIT_BUCKETS_MS), Sizes::new(&WIDTH_BUCKETS));
        Self { working, waiting, dispatched, rejected, waits, widths }
    }
}

/// A schema that is in force.
#[derive(Debug)]
struct InForce {
    schema: FlowSchema,
    exempt: bool,
    level_uid: Option<HeaderValue>,
    /// How many seats its level gives to one request, if it says so.
    width_max: Option<usize>,
    counts: Arc<Counts>,
}

/// As of which changes of schemas and levels something was read; `None` for what isn't served.
type Seen = [Option<(Revision, bool)>; 2];

/// What is configured.
#[derive(Debug, Default)]
struct Config {
    /// By precedence.
    schemas: Vec<Arc<InForce>>,
    seen: Seen,
}

/// To what a request belongs.
#[derive(Clone, Debug)]
pub(crate) struct Class(Arc<InForce>);

impl Class {
    /// The identifiers of schema and level, for the headers of the answer; none of what isn't stored.
    pub(crate) fn identifiers(&self) -> [Option<&HeaderValue>; 2] {
        [self.0.schema.uid.as_ref(), self.0.level_uid.as_ref()]
    }
}

/// Somebody waited in vain, or didn't get to wait. Served as 429.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooMany;

type Waiter = oneshot::Sender<()>;

struct Inner {
    all: Stores,
    /// Of schemas and of levels.
    stores: [Option<Arc<ObjectStore>>; 2],
    seats: usize,
    clock: Clock,
    config: watch::Sender<Arc<Config>>,
    levels: watch::Sender<Levels<Waiter>>,
    /// How long somebody waits at most.
    wait_max: Duration,
}

/// Shared by all requests.
#[derive(Clone)]
pub(crate) struct FlowControl(Arc<Inner>);

impl FlowControl {
    /// Divides so many seats. Who finds none waits for so long at most.
    pub(crate) fn new(stores: &Stores, clock: Clock, seats: usize, wait_max: Duration) -> Self {
        let all = stores.clone();
        let stores = ["flowschemas", "prioritylevelconfigurations"].map(|plural| stores.get(GROUP, plural));
        let (config, levels) = (watch::Sender::default(), watch::Sender::new(Levels::new(seats)));
        let control = Self(Arc::new(Inner { all, stores, seats, clock, config, levels, wait_max }));
        control.configure();
        control
    }

    /// The class of a request: the first schema that it matches.
    pub(crate) fn class(&self, user: &User, info: &RequestInfo) -> Class {
        if self.0.config.borrow().seen != self.0.seen() {
            self.configure();
        }
        let config = self.0.config.borrow().clone();
        let found = config.schemas.iter().find(|found| found.schema.matches(user, info));
        // The last one is for whoever is in none, such as somebody without any group.
        Class(found.or(config.schemas.last()).expect("the mandatory ones are always there").clone())
    }

    /// Reads what is stored. What is counted of a schema goes on, and so does who works and who waits.
    fn configure(&self) {
        let seen = self.0.seen();
        let objects = |at: usize| -> Vec<Value> {
            let snapshot = self.0.stores[at].as_ref().map(|store| store.snapshot());
            snapshot.iter().flat_map(|snapshot| snapshot.iter()).map(|object| object.value()).collect()
        };
        let schemas: Vec<FlowSchema> = objects(0).iter().map(FlowSchema::read).collect();
        let levels: Vec<LevelSpec> = objects(1).iter().map(LevelSpec::read).collect();
        let levels = with_mandatory(levels);
        self.0.config.send_modify(|config| {
            *config = Arc::new(Config { schemas: in_force(schemas, &levels, self.0.seats, &config.schemas), seen });
        });
        self.0.change(|all| all.configure(levels));
    }

    /// How much work a request is.
    fn width(&self, in_force: &InForce, info: &RequestInfo, query: &Query) -> Width {
        let writes = matches!(info.verb.as_str(), "create" | "update" | "patch" | "delete");
        let lists = info.verb == "list" || (info.verb == "watch" && query.is_on("sendInitialEvents"));
        if !info.is_resource || !(writes || lists) {
            return Width::ONE;
        }
        let Some(store) = self.0.all.get(&info.group, &info.resource) else { return Width::ONE };
        if writes {
            return Width::write(store.watchers_of_all(), in_force.width_max);
        }
        let text = |name| query.first(name).unwrap_or_default();
        let limit = match text("limit") {
            "" => 0,
            limit => match limit.parse::<i64>() {
                Ok(limit) => u64::try_from(limit).unwrap_or(0),
                Err(_) => return Width::widest_list(in_force.width_max),
            },
        };
        // What was at some moment may have to be asked of the datastore.
        let past = text("resourceVersionMatch") == "Exact" || !text("continue").is_empty();
        let snapshot = store.snapshot();
        let (count, bytes) = snapshot
            .iter()
            .take(SAMPLE_OBJECTS)
            .fold((0, 0), |(count, bytes), object| (count + 1, bytes + object.bytes().len() as u64));
        let listing = Listing {
            objects: snapshot.len() as u64,
            object_bytes: bytes / count.max(1),
            limit,
            selects: !text("labelSelector").is_empty() || !text("fieldSelector").is_empty(),
            single: !info.name.is_empty(),
            cached: info.verb == "watch" || !past,
        };
        Width::list(&listing, in_force.width_max)
    }

    /// Takes the seats that a request needs, once there are as many. They are free again when what is returned is dropped,
    /// or a moment later.
    ///
    /// # Errors
    /// [`TooMany`] wait already, or it took too long.
    pub(crate) async fn seat(
        &self,
        class: &Class,
        user: &User,
        info: &RequestInfo,
        query: &Query,
    ) -> Result<Seat, TooMany> {
        let in_force = &class.0;
        if in_force.exempt {
            return Ok(self.taken(in_force, Width::ONE, Duration::ZERO));
        }
        let flow = hash(&in_force.schema.name, in_force.schema.flow(user, info));
        let width = self.width(in_force, info, query);
        in_force.counts.widths.observe(width.seats as u64);
        let (mut arrival, mut place, mut called) = (Arrival::Works, None, Vec::new());
        self.0.levels.send_if_modified(|levels| {
            if levels.next_pass().is_some() {
                called = levels.pass(self.0.clock.now());
            }
            arrival = levels.arrive(&in_force.schema.level, flow, width.seats, || {
                let (waiter, called) = oneshot::channel();
                place = Some(called);
                waiter
            });
            false
        });
        self.0.call(called);
        match (arrival, place) {
            (Arrival::Waits(queue), Some(called)) => self.wait(in_force, width, queue, called).await,
            (Arrival::Refused(reason), _) => Err(in_force.counts.reject(reason)),
            _ => Ok(self.taken(in_force, width, Duration::ZERO)),
        }
    }

    async fn wait(
        &self,
        in_force: &Arc<InForce>,
        width: Width,
        queue: usize,
        called: oneshot::Receiver<()>,
    ) -> Result<Seat, TooMany> {
        let clock = &self.0.clock;
        let (came, counts) = (clock.now(), &in_force.counts);
        let due = came + self.0.wait_max;
        counts.waiting.fetch_add(1, Relaxed);
        let reason = Some(Refusal::Cancelled);
        let mut waiting = Waiting { control: self, in_force, width, queue, called, reason };
        let mut kept = self.0.levels.subscribe();
        let is_called = loop {
            // Seats that are kept for a while are given back by those who wait for them.
            let next_pass = kept.borrow_and_update().next_pass();
            let until = next_pass.map_or(due, |next| next.min(due));
            tokio::select! {
                biased;
                called = &mut waiting.called => break called.is_ok(),
                _ = kept.changed() => {}
                () = clock.sleep_until(until) => {
                    let now = clock.now();
                    if now >= due {
                        break false;
                    }
                    self.0.change(|levels| levels.pass(now));
                }
            }
        };
        if is_called {
            waiting.reason = None;
            return Ok(self.taken(in_force, width, clock.now().since(came)));
        }
        waiting.reason = Some(Refusal::TimeOut);
        Err(TooMany)
    }

    fn taken(&self, in_force: &Arc<InForce>, width: Width, waited: Duration) -> Seat {
        let counts = &in_force.counts;
        counts.working.fetch_add(1, Relaxed);
        counts.dispatched.fetch_add(1, Relaxed);
        counts.waits.observe(waited);
        Seat { control: self.clone(), in_force: in_force.clone(), width }
    }

    /// Everything, in Prometheus' text format.
    pub(crate) fn write(&self, text: &mut String) {
        let now = self.0.clock.now();
        self.0.change(|levels| levels.pass(now));
        write::write(text, &self.0.config.borrow().schemas, &self.0.levels.borrow());
    }
}

impl Inner {
    fn seen(&self) -> Seen {
        self.stores.each_ref().map(|store| {
            let snapshot = store.as_ref()?.snapshot();
            Some((snapshot.revision(), snapshot.is_filled()))
        })
    }

    /// Tells those who waited that they have a seat. Who has gone meanwhile gives it to the next.
    fn call(&self, mut called: Vec<Waiter>) {
        while let Some(waiter) = called.pop() {
            // He notices himself when nobody hears him.
            waiter.send(()).ok();
        }
    }

    /// Changes the levels, and calls those who work now.
    fn change(&self, change: impl FnOnce(&mut Levels<Waiter>) -> Vec<Waiter>) {
        let mut called = Vec::new();
        self.levels.send_if_modified(|levels| {
            called = change(levels);
            false
        });
        self.call(called);
    }

    fn leave(&self, level: &str, width: Width) {
        let mut called = Vec::new();
        self.levels.send_if_modified(|levels| {
            called = levels.leave(level, width, || self.clock.now());
            // Who waits learns how long.
            !width.lingers.is_zero()
        });
        self.call(called);
    }
}

/// Seats of one request, taken for as long as this lives.
pub(crate) struct Seat {
    control: FlowControl,
    in_force: Arc<InForce>,
    width: Width,
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.in_force.counts.working.fetch_sub(1, Relaxed);
        if !self.in_force.exempt {
            self.control.0.leave(&self.in_force.schema.level, self.width);
        }
    }
}

/// Somebody in a queue. Whatever ends that, nothing of him is left there, and no seat is lost.
struct Waiting<'a> {
    control: &'a FlowControl,
    in_force: &'a Arc<InForce>,
    width: Width,
    queue: usize,
    called: oneshot::Receiver<()>,
    /// Why he goes, unless he has his seat.
    reason: Option<Refusal>,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let (counts, level) = (&self.in_force.counts, &self.in_force.schema.level);
        counts.waiting.fetch_sub(1, Relaxed);
        let Some(reason) = self.reason else { return };
        counts.reject(reason);
        // From here on nobody calls him; if somebody did before, he has a seat that he doesn't use.
        self.called.close();
        if self.called.try_recv().is_ok() {
            return self.control.0.leave(level, Width { lingers: Duration::ZERO, ..self.width });
        }
        self.control.0.change(|levels| levels.give_up(level, self.queue, Waiter::is_closed));
    }
}

impl Counts {
    fn reject(&self, reason: Refusal) -> TooMany {
        self.rejected[reason as usize].fetch_add(1, Relaxed);
        TooMany
    }
}

/// Adds the levels that are always there.
fn with_mandatory(mut levels: Vec<LevelSpec>) -> Vec<LevelSpec> {
    for (name, exempt, shares) in [(EXEMPT, true, 0), (CATCH_ALL, false, CATCH_ALL_SHARES)] {
        if !levels.iter().any(|level| &*level.name == name) {
            levels.push(LevelSpec::mandatory(name, exempt, shares));
        }
    }
    levels
}

/// The schemas that count, in their order: those whose level there is, and the mandatory ones. Counts go on.
fn in_force(
    mut schemas: Vec<FlowSchema>,
    levels: &[LevelSpec],
    seats: usize,
    former: &[Arc<InForce>],
) -> Vec<Arc<InForce>> {
    let limits = divided(seats, levels);
    for (name, precedence, groups) in [(EXEMPT, 1, &[SYSTEM_MASTERS] as &[&str]), (CATCH_ALL, 10_000, EVERYBODY)] {
        if !schemas.iter().any(|schema| &*schema.name == name) {
            schemas.push(FlowSchema::mandatory(name, precedence, groups));
        }
    }
    schemas.sort_by(|left, right| (left.precedence, &left.name).cmp(&(right.precedence, &right.name)));
    let made = schemas.into_iter().filter_map(|schema| {
        let (level, limits) = levels.iter().zip(&limits).find(|(level, _)| level.name == schema.level)?;
        let known = former.iter().find(|known| known.schema.name == schema.name && known.schema.level == schema.level);
        let level_uid = HeaderValue::from_str(&level.uid).ok().filter(|uid| !uid.is_empty());
        let counts = known.map(|known| known.counts.clone()).unwrap_or_default();
        let width_max = level.width_max(*limits);
        Some(Arc::new(InForce { schema, exempt: level.exempt, level_uid, width_max, counts }))
    });
    made.collect()
}

/// A number that tells flows apart.
fn hash(schema: &str, flow: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    (schema, flow).hash(&mut hasher);
    hasher.finish()
}
