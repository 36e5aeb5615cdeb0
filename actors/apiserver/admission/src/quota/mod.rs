//! `ResourceQuota`: what a namespace takes, charged before it is taken.
//!
//! ```text
//! request ─▶ Meter: what is taken ─▶ measure: what quotas ask for ─▶ Lane: is there room? ─▶ write status.used
//!                                                                       ▲                         │ somebody was faster
//!                                                                       └─────────────────────────┘
//! ```
//!
//! Usage is charged by compare-and-swap on the quota itself, so that of two writers who both see room for one, one sees
//! the other's charge before it passes, on whatever server they are. Writers of one server wait for their turn, and
//! whoever has it writes once for all who wait. A charge whose object is not written after all is given back as long as
//! nobody else counted in between; otherwise whoever counted saw that the object isn't there.

mod check;
mod lane;

use std::fmt;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;

use k3sd_objects::quota::Meter;
use k3sd_objects::status::Status;
use serde_json::Value;

use self::check::{counted, measure, used_after};
use self::lane::{Lane, Refusal, Taken};
use crate::attributes::{Attributes, Operation};
use crate::lookup::{Lookup, QUOTAS};
use crate::plugins::not_ready;

/// Turns that are taken at the same time; namespaces are dealt out among them.
const LANES: u64 = 64;

/// Charges quotas.
#[derive(Clone)]
pub(crate) struct Quotas(Arc<Inner>);

struct Inner {
    lookup: Arc<dyn Lookup>,
    lanes: Vec<Arc<Lane>>,
}

/// What was charged for a request. Stays charged unless it is given back.
#[derive(Default)]
#[must_use = "give it back if the object is not written"]
pub struct Charge(Option<Charged>);

struct Charged {
    lookup: Arc<dyn Lookup>,
    lane: Arc<Lane>,
    namespace: String,
    taken: Vec<Taken>,
}

impl fmt::Debug for Charge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Charge").field(&self.0.as_ref().map(|charged| &charged.taken)).finish()
    }
}

impl Charge {
    /// Gives back what was charged, as far as nobody else has counted since. Call it if the object was not written for
    /// sure. What it can't give back, whoever keeps quotas up to date counts off.
    pub async fn refund(self) {
        if let Some(Charged { lookup, lane, namespace, taken }) = self.0 {
            lane.refund(&*lookup, &namespace, &taken).await;
        }
    }

    /// Whether nothing was charged.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }
}

impl Quotas {
    pub(crate) fn new(lookup: Arc<dyn Lookup>) -> Self {
        let lanes = (0..LANES).map(|_| Arc::new(Lane::new())).collect();
        Self(Arc::new(Inner { lookup, lanes }))
    }

    fn lane(&self, namespace: &str) -> Arc<Lane> {
        let mut hasher = DefaultHasher::new();
        namespace.hash(&mut hasher);
        let index = usize::try_from(hasher.finish() % LANES).expect("the remainder is below 64");
        self.0.lanes[index].clone()
    }

    /// Charges what a request takes to all quotas that it counts against, or to none.
    pub(crate) async fn charge(&self, a: &Attributes<'_>, object: &Value) -> Result<Charge, Status> {
        let Some(meter) = meter(a) else { return Ok(Charge::default()) };
        let lookup = &self.0.lookup;
        let cached = lookup.cached_all(QUOTAS, a.namespace).ok_or_else(|| not_ready(a, object))?;
        if cached.is_empty() {
            return Ok(Charge::default());
        }
        let lane = self.lane(a.namespace);
        let newest = cached.into_iter().map(|quota| lane.newest(a.namespace, quota));
        let all: Vec<(String, Value)> = newest.map(|quota| (quota.name().to_owned(), quota.value())).collect();
        let quotas: Vec<&(String, Value)> = all.iter().filter(|(_, quota)| meter.matches(quota, object)).collect();
        let values: Vec<&Value> = quotas.iter().map(|(_, quota)| quota).collect();
        let refused = |why: String| a.forbidden(object, why);
        let demand = measure(a, &meter, object, &values).map_err(refused)?;
        let Some(amounts) = demand.filter(|_| !quotas.is_empty()) else { return Ok(Charge::default()) };
        if a.dry_run {
            for quota in &values {
                used_after(quota, &counted(quota, &amounts)).map_err(refused)?;
            }
            return Ok(Charge::default());
        }
        let names: Vec<String> = quotas.iter().map(|(name, _)| name.clone()).collect();
        match lane.charge(&**lookup, a.namespace, &names, &amounts).await {
            Ok(taken) if taken.is_empty() => Ok(Charge::default()),
            Ok(taken) => {
                let namespace = a.namespace.to_owned();
                Ok(Charge(Some(Charged { lookup: lookup.clone(), lane, namespace, taken })))
            }
            Err(Refusal::NoRoom(why)) => Err(refused(why)),
            Err(Refusal::Failed(status)) => Err(status),
        }
    }
}

/// The meter for a request; `None` if it can't take anything.
fn meter(a: &Attributes<'_>) -> Option<Meter> {
    if a.namespace.is_empty() || a.resource.stored.is_none() || a.is("", "namespaces") {
        return None;
    }
    let meter = Meter::of(&a.resource.group, &a.resource.plural)?;
    let concerned = match (a.operation, a.subresource) {
        (Operation::Create, "") => true,
        (Operation::Update, "") => meter.reads_objects() && !meter.is_of_pods(),
        (Operation::Update, "resize") => meter.is_of_pods(),
        _ => false,
    };
    concerned.then_some(meter)
}
