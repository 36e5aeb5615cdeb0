//! `ResourceQuota`: what a namespace takes, charged before it is taken.
//!
//! ```text
//! request ─▶ Meter: what is taken ─▶ measure: what quotas ask for ─▶ used_after: is there room? ─▶ write status.used
//!                                                                          ▲                          │ somebody was faster
//!                                                                          └──────────────────────────┘
//! ```
//!
//! Usage is charged by compare-and-swap on the quota itself, so that of two writers who both see room for one, one sees
//! the other's charge before it passes, on whatever server they are. Writers of one server take turns, which spares
//! them to run into each other. A charge whose object is not written after all is given back as long as nobody else
//! counted in between; otherwise whoever counted saw that the object isn't there.

mod check;
mod usage;

use std::collections::HashMap;
use std::fmt;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;

use k3sd_apiserver_store::WriteError;
use k3sd_objects::object::Object;
use k3sd_objects::status::{Qualified, Status};
use serde_json::{Map, Value};
use tokio::sync::{Semaphore, SemaphorePermit, watch};

use self::check::{counted, measure, used_after, used_before};
use self::usage::Meter;
use crate::attributes::Attributes;
use crate::lookup::{Lookup, QUOTAS};
use crate::plugins::not_ready;
use crate::read::{Amounts, map_mut};

/// Turns that are taken at the same time; namespaces are dealt out among them.
const LANES: usize = 64;

/// Quotas whose last write a lane remembers; beyond that it forgets all, and runs into itself once for each.
const KNOWN_MAX: usize = 256;

/// How often a write is tried again because somebody was faster. Within a server nobody is.
const ATTEMPTS: u32 = 10;

/// A quota as this server wrote it last.
#[derive(Clone, Debug)]
struct Known {
    object: Object,
    /// The revision at which the unbroken row of our own writes began.
    row: u64,
}

/// The writers of some namespaces.
struct Lane {
    turn: Semaphore,
    /// By namespace and name. Only written by whoever has the turn.
    known: watch::Sender<HashMap<(String, String), Known>>,
}

/// Charges quotas.
#[derive(Clone)]
pub(crate) struct Quotas(Arc<Inner>);

struct Inner {
    lookup: Arc<dyn Lookup>,
    lanes: Vec<Lane>,
}

impl fmt::Debug for Quotas {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Quotas")
    }
}

/// What was charged to one quota.
#[derive(Clone, Debug)]
struct Taken {
    name: String,
    row: u64,
    amounts: Amounts,
}

/// What was charged for a request. Stays charged unless it is given back.
#[derive(Debug, Default)]
#[must_use = "give it back if the object is not written"]
pub struct Charge {
    quotas: Option<Quotas>,
    namespace: String,
    taken: Vec<Taken>,
}

impl Charge {
    /// Gives back what was charged, as far as nobody else has counted since. Call it if the object was not written for
    /// sure. What it can't give back, whoever keeps quotas up to date counts off.
    pub async fn refund(self) {
        let Some(Quotas(inner)) = self.quotas else { return };
        let Some(lane) = inner.lane(&self.namespace) else { return };
        let Some(_turn) = lane.turn().await else { return };
        inner.give_back(lane, &self.namespace, &self.taken).await;
    }

    /// Whether anything was charged.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.taken.is_empty()
    }
}

impl Lane {
    /// `None` never happens: nobody closes the turns.
    async fn turn(&self) -> Option<SemaphorePermit<'_>> {
        self.turn.acquire().await.ok()
    }

    fn known(&self, namespace: &str, name: &str) -> Option<Known> {
        self.known.borrow().get(&(namespace.to_owned(), name.to_owned())).cloned()
    }

    /// Remembers a write of ours on top of `old`, and answers the row that it belongs to.
    fn wrote(&self, namespace: &str, old: &Object, new: Object) -> u64 {
        let before = self.known(namespace, new.name());
        let row = before.filter(|known| known.object.resource_version() == old.resource_version());
        let row = row.map_or(old.resource_version(), |known| known.row);
        self.known.send_modify(|known| {
            if known.len() >= KNOWN_MAX {
                known.clear();
            }
            known.insert((namespace.to_owned(), new.name().to_owned()), Known { object: new, row });
        });
        row
    }
}

impl Quotas {
    pub(crate) fn new(lookup: Arc<dyn Lookup>) -> Self {
        let lane = || Lane { turn: Semaphore::new(1), known: watch::Sender::default() };
        Self(Arc::new(Inner { lookup, lanes: std::iter::repeat_with(lane).take(LANES).collect() }))
    }

    /// Charges what a request takes to all quotas that it counts against, or to none.
    pub(crate) async fn charge(&self, a: &Attributes<'_>, object: &Value) -> Result<Charge, Status> {
        let Some(meter) = Meter::of(a) else { return Ok(Charge::default()) };
        let cached = self.0.lookup.cached_all(QUOTAS, a.namespace).ok_or_else(|| not_ready(a, object))?;
        if cached.is_empty() {
            return Ok(Charge::default());
        }
        let Some(lane) = self.0.lane(a.namespace) else { return Ok(Charge::default()) };
        let Some(_turn) = lane.turn().await else { return Ok(Charge::default()) };
        // Read again: the cache went on while others had their turn, and where it didn't, we know what they wrote.
        let cached = self.0.lookup.cached_all(QUOTAS, a.namespace).ok_or_else(|| not_ready(a, object))?;
        let newest = cached.into_iter().map(|quota| match lane.known(a.namespace, quota.name()) {
            Some(known) if known.object.resource_version() > quota.resource_version() => known.object,
            _ => quota,
        });
        let quotas: Vec<(Object, Value)> = newest.map(|quota| (quota.clone(), quota.value())).collect();
        let quotas: Vec<(Object, Value)> =
            quotas.into_iter().filter(|(_, value)| meter.matches(value, object)).collect();
        let values: Vec<&Value> = quotas.iter().map(|(_, value)| value).collect();
        let refused = |why: String| a.forbidden(object, why);
        let Some(demand) = measure(a, meter, object, &values).map_err(refused)? else { return Ok(Charge::default()) };
        for value in &values {
            used_after(value, &counted(value, &demand.amounts)).map_err(refused)?;
        }
        if a.dry_run {
            return Ok(Charge::default());
        }
        let mut charge = Charge { quotas: Some(self.clone()), namespace: a.namespace.to_owned(), taken: Vec::new() };
        for (quota, _) in quotas {
            match self.0.take(lane, a.namespace, quota, &demand.amounts).await {
                Ok(taken) => charge.taken.extend(taken),
                Err(failure) => {
                    self.0.give_back(lane, a.namespace, &charge.taken).await;
                    return Err(match failure {
                        Refusal::NoRoom(why) => refused(why),
                        Refusal::Failed(status) => status,
                    });
                }
            }
        }
        Ok(charge)
    }
}

/// Why a quota couldn't be charged.
enum Refusal {
    NoRoom(String),
    Failed(Status),
}

impl Inner {
    fn lane(&self, namespace: &str) -> Option<&Lane> {
        let mut hasher = DefaultHasher::new();
        namespace.hash(&mut hasher);
        let index = usize::try_from(hasher.finish() % LANES as u64).ok()?;
        self.lanes.get(index)
    }

    /// Charges one quota, whatever it has become meanwhile; nothing if it is gone or doesn't count any of it.
    async fn take(
        &self,
        lane: &Lane,
        namespace: &str,
        mut quota: Object,
        demand: &Amounts,
    ) -> Result<Option<Taken>, Refusal> {
        for _ in 0..ATTEMPTS {
            let mut value = quota.value();
            let amounts = counted(&value, demand);
            if amounts.is_empty() {
                return Ok(None);
            }
            let used = used_after(&value, &amounts).map_err(Refusal::NoRoom)?;
            set_used(&mut value, &used);
            match self.lookup.update(QUOTAS, &quota, value).await {
                Ok(new) => {
                    let name = new.name().to_owned();
                    let row = lane.wrote(namespace, &quota, new);
                    return Ok(Some(Taken { name, row, amounts }));
                }
                Err(WriteError::Conflict { current: Some(current) }) => quota = current,
                Err(WriteError::Conflict { current: None } | WriteError::Exists) => return Ok(None),
                Err(WriteError::Failed(status)) => return Err(Refusal::Failed(status)),
            }
        }
        Err(Refusal::Failed(Status::stale(Qualified::new("", "resourcequotas"), quota.name())))
    }

    /// Gives back what nobody else has counted.
    async fn give_back(&self, lane: &Lane, namespace: &str, taken: &[Taken]) {
        for Taken { name, row, amounts } in taken {
            let Some(known) = lane.known(namespace, name).filter(|known| known.row == *row) else { continue };
            let mut value = known.object.value();
            let used = used_before(&value, amounts);
            set_used(&mut value, &used);
            if let Ok(new) = self.lookup.update(QUOTAS, &known.object, value).await {
                lane.wrote(namespace, &known.object, new);
            }
        }
    }
}

fn set_used(quota: &mut Value, used: &Amounts) {
    let used: Map<String, Value> =
        used.iter().map(|(name, amount)| (name.clone(), amount.to_string().into())).collect();
    if let Some(status) = map_mut(quota, "status") {
        status.insert("used".to_owned(), Value::Object(used));
    }
}
