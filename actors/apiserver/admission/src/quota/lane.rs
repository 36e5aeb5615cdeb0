//! Writers of the same namespaces, who take turns; whoever has the turn writes for all who wait.

use std::collections::{BTreeMap, HashMap};

use k3sd_apiserver_store::WriteError;
use k3sd_objects::object::Object;
use k3sd_objects::status::{Qualified, Status};
use serde_json::{Map, Value};
use tokio::sync::{Semaphore, oneshot, watch};

use super::check::{counted, used_after, used_before};
use crate::lookup::{Lookup, QUOTAS};
use crate::read::{Amounts, map_mut};

/// Quotas whose last write a lane remembers; beyond that it forgets all, and runs into itself once for each.
const KNOWN_MAX: usize = 256;

/// How often a write is tried again because somebody was faster. Within a server nobody is.
const ATTEMPTS: u32 = 10;

/// What was charged to one quota.
#[derive(Clone, Debug)]
pub(super) struct Taken {
    name: String,
    /// The row of our writes that the charge is in.
    row: u64,
    amounts: Amounts,
}

/// Why a quota couldn't be charged.
#[derive(Debug)]
pub(super) enum Refusal {
    /// It has no room, in the words for a 403.
    NoRoom(String),
    /// It couldn't be written.
    Failed(Status),
}

/// Somebody who waits to be charged for.
#[derive(Debug)]
struct Job {
    namespace: String,
    /// The quotas that count it.
    quotas: Vec<String>,
    demand: Amounts,
    reply: oneshot::Sender<Result<Vec<Taken>, Refusal>>,
}

/// A quota as this server wrote it last.
#[derive(Clone, Debug)]
struct Known {
    object: Object,
    /// The revision at which the unbroken row of our own writes began.
    row: u64,
}

/// The writers of some namespaces.
#[derive(Debug)]
pub(super) struct Lane {
    turn: Semaphore,
    waiting: watch::Sender<Vec<Job>>,
    /// By namespace and name. Only written by whoever has the turn.
    known: watch::Sender<HashMap<(String, String), Known>>,
}

/// A quota while it is charged for several.
struct Account {
    object: Object,
    value: Value,
    changed: bool,
}

/// What became of the write of an account.
enum Outcome {
    /// Written, in this row.
    Row(u64),
    /// Somebody was faster, and this is what is there now.
    Lost(Object),
    /// There is no such quota any more.
    Gone,
    Failed(Status),
}

impl Lane {
    pub(super) fn new() -> Self {
        Self { turn: Semaphore::new(1), waiting: watch::Sender::default(), known: watch::Sender::default() }
    }

    /// The newer one of what the cache has and what we wrote.
    pub(super) fn newest(&self, namespace: &str, cached: Object) -> Object {
        match self.known(namespace, cached.name()) {
            Some(known) if known.object.resource_version() > cached.resource_version() => known.object,
            _ => cached,
        }
    }

    /// Charges a demand to all of these quotas or to none, together with whoever else waits.
    pub(super) async fn charge(
        &self,
        lookup: &dyn Lookup,
        namespace: &str,
        quotas: &[String],
        demand: &Amounts,
    ) -> Result<Vec<Taken>, Refusal> {
        loop {
            let (reply, mut answer) = oneshot::channel();
            let (quotas, demand) = (quotas.to_vec(), demand.clone());
            let job = Job { namespace: namespace.to_owned(), quotas, demand, reply };
            self.waiting.send_modify(|waiting| waiting.push(job));
            let outcome = tokio::select! {
                biased;
                outcome = &mut answer => outcome.ok(),
                turn = self.turn.acquire() => {
                    self.serve(lookup).await;
                    drop(turn);
                    // Ours was among those, or had been answered before.
                    answer.await.ok()
                }
            };
            // Whoever wrote for us was dropped in between: once more.
            if let Some(outcome) = outcome {
                return outcome;
            }
        }
    }

    /// Gives back what nobody else has counted.
    pub(super) async fn refund(&self, lookup: &dyn Lookup, namespace: &str, taken: &[Taken]) {
        if let Ok(_turn) = self.turn.acquire().await {
            self.give_back(lookup, namespace, taken).await;
        }
    }

    async fn serve(&self, lookup: &dyn Lookup) {
        let mut jobs = Vec::new();
        self.waiting.send_modify(|waiting| jobs = std::mem::take(waiting));
        jobs.retain(|job| !job.reply.is_closed());
        while let Some(first) = jobs.first() {
            let namespace = first.namespace.clone();
            let (own, others): (Vec<_>, Vec<_>) = jobs.into_iter().partition(|job| job.namespace == namespace);
            jobs = others;
            self.serve_namespace(lookup, &namespace, own).await;
        }
    }

    async fn serve_namespace(&self, lookup: &dyn Lookup, namespace: &str, jobs: Vec<Job>) {
        let Some(cached) = lookup.cached_all(QUOTAS, namespace) else {
            let away = || Refusal::Failed(Status::service_unavailable("quotas can't be read yet"));
            jobs.into_iter().for_each(|job| drop(job.reply.send(Err(away()))));
            return;
        };
        let account = |cached: Object| {
            let object = self.newest(namespace, cached);
            (object.name().to_owned(), Account { value: object.value(), object, changed: false })
        };
        let mut accounts: BTreeMap<String, Account> = cached.into_iter().map(account).collect();
        let mut passed = Vec::new();
        for job in jobs {
            match enter(&mut accounts, &job) {
                Ok(entries) => passed.push((job, entries)),
                // Nobody there to hear it is as good.
                Err(why) => drop(job.reply.send(Err(Refusal::NoRoom(why)))),
            }
        }
        let mut outcomes = HashMap::new();
        for (name, account) in accounts.into_iter().filter(|(_, account)| account.changed) {
            outcomes.insert(name, self.write(lookup, namespace, account).await);
        }
        for (job, entries) in passed {
            let charged = self.settle(lookup, namespace, &job.demand, entries, &outcomes).await;
            if let Err(Ok(unheard)) = job.reply.send(charged) {
                self.give_back(lookup, namespace, &unheard).await;
            }
        }
    }

    async fn write(&self, lookup: &dyn Lookup, namespace: &str, account: Account) -> Outcome {
        match lookup.update(QUOTAS, &account.object, account.value).await {
            Ok(new) => Outcome::Row(self.wrote(namespace, &account.object, new)),
            Err(WriteError::Conflict { current: Some(current) }) => Outcome::Lost(current),
            Err(WriteError::Conflict { current: None } | WriteError::Exists) => Outcome::Gone,
            Err(WriteError::Failed(status)) => Outcome::Failed(status),
        }
    }

    /// What a job was charged in the end. Where somebody was faster it is charged by itself.
    async fn settle(
        &self,
        lookup: &dyn Lookup,
        namespace: &str,
        demand: &Amounts,
        entries: Vec<(String, Amounts)>,
        outcomes: &HashMap<String, Outcome>,
    ) -> Result<Vec<Taken>, Refusal> {
        let mut taken = Vec::new();
        for (name, amounts) in entries {
            let refusal = match outcomes.get(&name) {
                Some(Outcome::Row(row)) => {
                    taken.push(Taken { name, row: *row, amounts });
                    continue;
                }
                Some(Outcome::Lost(current)) => {
                    let quota = self.newest(namespace, current.clone());
                    match self.take(lookup, namespace, quota, demand).await {
                        Ok(more) => {
                            taken.extend(more);
                            continue;
                        }
                        Err(refusal) => refusal,
                    }
                }
                Some(Outcome::Failed(status)) => Refusal::Failed(status.clone()),
                Some(Outcome::Gone) | None => continue,
            };
            self.give_back(lookup, namespace, &taken).await;
            return Err(refusal);
        }
        Ok(taken)
    }

    /// Charges one quota, whatever it has become meanwhile; nothing if it is gone or doesn't count any of it.
    async fn take(
        &self,
        lookup: &dyn Lookup,
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
            let name = quota.name().to_owned();
            match self.write(lookup, namespace, Account { object: quota, value, changed: true }).await {
                Outcome::Row(row) => return Ok(Some(Taken { name, row, amounts })),
                Outcome::Lost(current) => quota = current,
                Outcome::Gone => return Ok(None),
                Outcome::Failed(status) => return Err(Refusal::Failed(status)),
            }
        }
        Err(Refusal::Failed(Status::stale(Qualified::new("", "resourcequotas"), quota.name())))
    }

    async fn give_back(&self, lookup: &dyn Lookup, namespace: &str, taken: &[Taken]) {
        for Taken { name, row, amounts } in taken {
            let Some(known) = self.known(namespace, name).filter(|known| known.row == *row) else { continue };
            let mut value = known.object.value();
            let used = used_before(&value, amounts);
            set_used(&mut value, &used);
            // Whatever else comes of the write: what is charged too much, whoever counts next counts off.
            self.write(lookup, namespace, Account { object: known.object, value, changed: true }).await;
        }
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

/// Enters a job into all of its accounts or into none, and answers what was entered into which.
///
/// # Errors
///
/// Fails with the words for a 403 if one of them has no room.
fn enter(accounts: &mut BTreeMap<String, Account>, job: &Job) -> Result<Vec<(String, Amounts)>, String> {
    let mut entries = Vec::new();
    for name in &job.quotas {
        let Some(account) = accounts.get(name) else { continue };
        let amounts = counted(&account.value, &job.demand);
        if amounts.is_empty() {
            continue;
        }
        let used = used_after(&account.value, &amounts)?;
        entries.push((name.clone(), amounts, used));
    }
    for (name, _, used) in &entries {
        if let Some(account) = accounts.get_mut(name) {
            set_used(&mut account.value, used);
            account.changed = true;
        }
    }
    Ok(entries.into_iter().map(|(name, amounts, _)| (name, amounts)).collect())
}

fn set_used(quota: &mut Value, used: &Amounts) {
    let used: Map<String, Value> =
        used.iter().map(|(name, amount)| (name.clone(), amount.to_string().into())).collect();
    if let Some(status) = map_mut(quota, "status") {
        status.insert("used".to_owned(), Value::Object(used));
    }
}
