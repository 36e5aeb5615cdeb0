//! The writer: the one task that changes the table and feeds the watchers. It takes all writes that wait, puts them
//! into one transaction, tells the watchers, and answers.
//!
//! Servers take turns with an advisory lock, so revisions become visible in order. A revision that is missing is either
//! of a transaction that failed, or of a kine that is not done yet; a lock on the table tells which, because whoever
//! draws a number holds a lock on it. Then the missing one is filled, as kine does.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::time::Instant;
use tokio_postgres::Error;

use super::compact::{Compaction, Waiter};
use super::connect::{Connector, Session};
use super::fault::{is_disconnect, is_lost_race, store_error};
use super::query::{Bounds, key_value};
use super::text::name;
use crate::error::{Conflict, GAP_PREFIX, Op, StoreError, check_compactable, is_reserved};
use crate::request::{Change, WriteRequest, WriteResponse};
use crate::types::{Event, EventKind, Key, KeyRange, KeyValue, Revision};
use crate::watch::{Hub, Joined};

/// How many writes, and how many bytes of values, one commit takes.
const BATCH_WRITES_MAX: usize = 512;
const BATCH_BYTES_MAX: usize = 4 << 20;
/// How many foreign revisions are read at once.
const CATCH_UP_REVISIONS: i64 = 500;
/// How often a batch is tried again after losing against somebody else.
const RACES_MAX: u32 = 20;

/// One server after the other; the number stands for "kine" and for nothing else.
pub(super) const LOCK: &str = "SELECT pg_advisory_xact_lock(1802071653)";
/// Waits for every insert under way, and lets none begin.
const LOCK_TABLE: &str = "LOCK TABLE kine IN SHARE ROW EXCLUSIVE MODE";
const NEWEST: &str = "SELECT DISTINCT ON (name) id, name, created, create_revision, lease, value, deleted
    FROM kine WHERE name = ANY($1::text[]) ORDER BY name, id DESC";
const DRAW: &str = "SELECT nextval(pg_get_serial_sequence('kine', 'id')) FROM generate_series(1, $1::bigint)";
/// Where the numbers go on when nobody else can draw one.
const JUMP: &str = "SELECT setval(pg_get_serial_sequence('kine', 'id'), $1::bigint)";
const INSERT: &str = "INSERT INTO kine
    (id, name, created, deleted, create_revision, prev_revision, lease, value, old_value)
    SELECT * FROM unnest($1::bigint[], $2::text[], $3::int[], $4::int[], $5::bigint[], $6::bigint[], $7::int[],
        $8::bytea[], $9::bytea[])";

type WriteReply = oneshot::Sender<Result<WriteResponse, StoreError>>;

/// What the writer is asked for.
pub(super) enum Command {
    Write { request: WriteRequest, reply: WriteReply },
    Join { range: KeyRange, waiting_max: usize, reply: oneshot::Sender<Joined> },
    Progress { reply: oneshot::Sender<Revision> },
    Compact { target: Revision, reply: Waiter },
}

pub(super) struct Writer {
    connector: Connector,
    session: Session,
    wake: Arc<Notify>,
    inbox: mpsc::Receiver<Command>,
    closing: watch::Receiver<()>,
    retained_revisions_min: i64,
    compaction: Compaction,
    hub: Hub,
    /// Watchers have been told of everything up to here.
    revision: Revision,
}

/// Why a transaction did not answer.
enum Failure {
    /// Nothing has changed.
    Clean(Error),
    /// The connection broke during the commit.
    Open(Error),
}

/// What a transaction came to.
#[derive(Default)]
struct Outcome {
    answers: Vec<Result<WriteResponse, StoreError>>,
    /// What others have written, and then what was asked for, with the numbers of the rows that were replaced.
    events: Vec<Arc<Event>>,
    prev_ids: Vec<i64>,
}

impl Writer {
    pub(super) async fn start(
        connector: Connector,
        (session, wake): (Session, Arc<Notify>),
        retained_revisions_min: i64,
        inbox: mpsc::Receiver<Command>,
        closing: watch::Receiver<()>,
    ) -> Result<Self, StoreError> {
        let Bounds { revision, .. } = session.bounds().await.map_err(|error| store_error(Op::Open, error))?;
        let (compaction, hub) = (Compaction::default(), Hub::default());
        Ok(Self { connector, session, wake, inbox, closing, retained_revisions_min, compaction, hub, revision })
    }

    /// Works until the store is closed; what was asked before that is finished.
    pub(super) async fn run(mut self) {
        loop {
            let busy = self.compaction.target().is_some();
            let command = tokio::select! {
                biased;
                command = self.inbox.recv() => match command {
                    Some(command) => Some(command),
                    None => return,
                },
                Err(_) = self.closing.changed(), if !self.inbox.is_closed() => {
                    self.inbox.close();
                    continue;
                }
                () = self.wake.notified() => None,
                () = std::future::ready(()), if busy => None,
            };
            match command {
                Some(command) => self.turn(command).await,
                None if busy => self.compact().await,
                None => self.follow().await,
            }
        }
    }

    /// One command, and the writes that wait behind it.
    async fn turn(&mut self, first: Command) {
        let (mut writes, mut others, mut bytes) = (Vec::new(), Vec::new(), 0);
        let mut next = Some(first);
        while let Some(command) = next {
            match command {
                Command::Write { request, reply } => {
                    if let Change::Put { value, .. } = &request.change {
                        bytes += value.len();
                    }
                    writes.push((request, reply));
                }
                other => others.push(other),
            }
            let full = writes.len() >= BATCH_WRITES_MAX || bytes >= BATCH_BYTES_MAX;
            next = if full { None } else { self.inbox.try_recv().ok() };
        }
        if !writes.is_empty() {
            self.commit(writes).await;
        }
        for command in others {
            match command {
                Command::Join { range, waiting_max, reply } => {
                    let live = self.hub.join(range, waiting_max);
                    drop(reply.send(Joined { live, at: self.revision }));
                }
                Command::Progress { reply } => {
                    self.follow().await;
                    self.hub.progress(self.revision);
                    reply.send(self.revision).unwrap_or_default();
                }
                Command::Compact { target, reply } => self.begin_compaction(target, reply).await,
                Command::Write { .. } => {}
            }
        }
    }

    /// Another connection. Watchers learn afterwards what they have missed.
    async fn reconnect(&mut self) -> Result<(), Error> {
        if self.session.is_closed() {
            self.session = self.connector.connect(Some(self.wake.clone())).await?;
            let Bounds { revision, compacted } = self.session.bounds().await?;
            if compacted > self.revision || revision < self.revision {
                self.forget(revision);
            }
            // What happened meanwhile was told to nobody.
            self.wake.notify_one();
        }
        Ok(())
    }

    /// Events are gone that were told to nobody, or the database is an older one: the watchers have to watch again.
    fn forget(&mut self, revision: Revision) {
        self.hub = Hub::default();
        self.revision = revision;
    }

    async fn commit(&mut self, writes: Vec<(WriteRequest, WriteReply)>) {
        let (requests, replies): (Vec<_>, Vec<_>) = writes.into_iter().unzip();
        let answers = match self.persist(&requests).await {
            Ok(answers) => answers,
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, writes = requests.len(), "a commit failed");
                vec![Err(error); requests.len()]
            }
        };
        for (reply, answer) in replies.into_iter().zip(answers) {
            drop(reply.send(answer));
        }
    }

    /// Carries the requests out. Tries again for as long as nothing has happened and it may help.
    async fn persist(
        &mut self,
        requests: &[WriteRequest],
    ) -> Result<Vec<Result<WriteResponse, StoreError>>, StoreError> {
        let (deadline, mut races, mut exclusive) = (Instant::now() + self.connector.patience(), 0, false);
        loop {
            self.reconnect().await.map_err(|error| store_error(Op::Write, error))?;
            match self.transact(requests, exclusive).await {
                Ok(Some(outcome)) => {
                    self.publish(&outcome.events);
                    return Ok(outcome.answers);
                }
                // Numbers are missing: once more, alone with the table.
                Ok(None) => exclusive = true,
                Err(Failure::Open(error)) => {
                    return Err(StoreError::Unknown { op: Op::Write, reason: error.to_string() });
                }
                Err(Failure::Clean(error)) => {
                    races += u32::from(is_lost_race(&error));
                    let again = is_disconnect(&error) && Instant::now() < deadline
                        || is_lost_race(&error) && races <= RACES_MAX;
                    if !self.session.is_closed() {
                        // Ends what is left of the transaction; a connection that is gone has ended it by itself.
                        drop(self.session.batch("ROLLBACK").await);
                    }
                    if !again {
                        return Err(store_error(Op::Write, error));
                    }
                }
            }
        }
    }

    /// All of the requests in one transaction. `None` when revisions are missing, for which it has to be `exclusive`.
    async fn transact(&self, requests: &[WriteRequest], exclusive: bool) -> Result<Option<Outcome>, Failure> {
        let session = &self.session;
        let clean = Failure::Clean;
        session.batch("BEGIN").await.map_err(clean)?;
        session.batch(LOCK).await.map_err(clean)?;
        if exclusive {
            session.batch(LOCK_TABLE).await.map_err(clean)?;
        }
        let names: Vec<&str> = requests.iter().filter_map(|request| name(&request.key)).collect();
        let values: [&(dyn tokio_postgres::types::ToSql + Sync); 1] = [&names];
        let (bounds, rows) = tokio::try_join!(session.bounds(), session.query(NEWEST, &values)).map_err(clean)?;
        let mut outcome = Outcome::default();
        if bounds.revision > self.revision {
            let (_, foreign) = session.events(self.revision.next(), bounds.revision).await.map_err(clean)?;
            outcome.events = foreign;
        }
        let foreign = outcome.events.len();
        let missing = missing(self.revision, bounds.revision, &outcome.events);
        if !exclusive && !missing.is_empty() {
            session.batch("ROLLBACK").await.map_err(clean)?;
            return Ok(None);
        }
        let mut state = HashMap::new();
        for row in &rows {
            let deleted = row.try_get::<_, Option<i32>>(6).map_err(clean)?.unwrap_or_default() != 0;
            if let Some(kv) = key_value(row, 0).map_err(clean)? {
                state.insert(kv.key.clone(), (kv.mod_revision.get(), (!deleted).then_some(kv)));
            }
        }
        // Alone with the table, the sequence is behind or at what may still be drawn, so its next number is ours.
        let mut base = bounds.revision;
        let mut fillers = missing;
        if exclusive {
            let drawn = self.draw(1).await.map_err(clean)?[0] - 1;
            fillers.extend(base.get() + 1..=drawn);
            base = base.max(Revision::new(drawn));
        }
        for request in requests {
            plan(request, &mut state, base, foreign, &mut outcome);
        }
        let own = &outcome.events[foreign..];
        let count = i64::try_from(own.len()).unwrap_or_default();
        if exclusive {
            session.query(JUMP, &[&(base.get() + count).max(1)]).await.map_err(clean)?;
        } else if count > 0
            && self.draw(count).await.map_err(clean)? != (base.get() + 1..=base.get() + count).collect::<Vec<_>>()
        {
            session.batch("ROLLBACK").await.map_err(clean)?;
            return Ok(None);
        }
        if own.is_empty() && fillers.is_empty() {
            session.batch("COMMIT").await.map_err(clean)?;
            return Ok(Some(outcome));
        }
        self.insert(own, &outcome.prev_ids, &fillers).await.map_err(clean)?;
        // From here on nobody knows what became of it if the connection breaks.
        session
            .batch("COMMIT")
            .await
            .map_err(|error| if is_disconnect(&error) { Failure::Open(error) } else { Failure::Clean(error) })?;
        Ok(Some(outcome))
    }

    async fn draw(&self, count: i64) -> Result<Vec<i64>, Error> {
        self.session.query(DRAW, &[&count]).await?.iter().map(|row| row.try_get(0)).collect()
    }

    /// Adds rows for events, and for revisions that nobody has.
    async fn insert(&self, events: &[Arc<Event>], prev_ids: &[i64], fillers: &[i64]) -> Result<(), Error> {
        let gap_names: Vec<String> = fillers.iter().map(|id| format!("{GAP_PREFIX}{id}")).collect();
        let (mut ids, mut names, mut created, mut deleted) = (fillers.to_vec(), Vec::new(), Vec::new(), Vec::new());
        names.extend(gap_names.iter().map(String::as_str));
        created.resize(fillers.len(), 0_i32);
        deleted.resize(fillers.len(), 1_i32);
        let (mut creations, mut prevs) = (vec![0_i64; fillers.len()], vec![0_i64; fillers.len()]);
        let mut leases = vec![0_i32; fillers.len()];
        let mut values: Vec<Option<&[u8]>> = vec![None; fillers.len()];
        let mut old_values = values.clone();
        for (event, prev_id) in events.iter().zip(prev_ids) {
            let Event { kind, kv, prev } = &**event;
            let is_delete = *kind == EventKind::Delete;
            ids.push(kv.mod_revision.get());
            names.push(name(&kv.key).unwrap_or_default());
            created.push(i32::from(*kind == EventKind::Create));
            deleted.push(i32::from(is_delete));
            // kine leaves the creation of a row that creates or deletes at 0.
            creations.push(if *kind == EventKind::Update { kv.create_revision.get() } else { 0 });
            prevs.push(*prev_id);
            leases.push(i32::try_from(kv.ttl.as_seconds()).unwrap_or(i32::MAX));
            values.push((!is_delete).then_some(&kv.value[..]));
            old_values.push(prev.as_ref().map(|prev| &prev.value[..]));
        }
        self.session
            .query(INSERT, &[&ids, &names, &created, &deleted, &creations, &prevs, &leases, &values, &old_values])
            .await?;
        Ok(())
    }

    /// Hands out what is new, in order.
    fn publish(&mut self, events: &[Arc<Event>]) {
        let Some(last) = events.last() else { return };
        self.revision = self.revision.max(last.revision());
        let real: Vec<_> = events.iter().filter(|event| !is_reserved(&event.kv.key)).cloned().collect();
        self.hub.publish(&real);
    }

    /// Finds what others have written, and hands it out.
    async fn follow(&mut self) {
        if let Err(error) = self.try_follow().await {
            tracing::warn!(%error, "the events of other servers could not be read");
            // Whoever wrote before the connection broke will not tell again. A pause, and another attempt.
            let wake = self.wake.clone();
            let pause = async move {
                tokio::time::sleep(std::time::Duration::from_secs(1)).await;
                wake.notify_one();
            };
            self.connector.spawner().spawn(pause).await.ok();
        }
    }

    async fn try_follow(&mut self) -> Result<(), StoreError> {
        let fault = |error| store_error(Op::Watch, error);
        self.reconnect().await.map_err(fault)?;
        loop {
            let to = Revision::new(self.revision.get().saturating_add(CATCH_UP_REVISIONS));
            let (Bounds { revision, compacted }, events) =
                self.session.events(self.revision.next(), to).await.map_err(fault)?;
            if compacted > self.revision || revision < self.revision {
                self.forget(revision);
                return Ok(());
            }
            if revision == self.revision {
                return Ok(());
            }
            if missing(self.revision, revision.min(to), &events).is_empty() {
                self.publish(&events);
            } else {
                self.persist(&[]).await?;
            }
        }
    }

    async fn begin_compaction(&mut self, target: Revision, reply: Waiter) {
        let checked = match self.reconnect().await {
            Ok(()) => self.session.bounds().await,
            Err(error) => Err(error),
        };
        let checked = checked.map_err(|error| store_error(Op::Compact, error)).and_then(|bounds| {
            check_compactable(target, bounds.compacted, bounds.revision)?;
            Ok(bounds)
        });
        match checked {
            Ok(Bounds { revision, compacted }) => {
                let retained_from = revision.get().saturating_sub(self.retained_revisions_min);
                self.compaction.extend(target.min(Revision::new(retained_from)), reply);
                self.compaction.advanced(revision, compacted);
            }
            Err(error) => drop(reply.send(Err(error))),
        }
    }

    /// One step between commits.
    async fn compact(&mut self) {
        let Some(target) = self.compaction.target() else { return };
        let step = match self.reconnect().await {
            Ok(()) => self.session.compact_step(target).await,
            Err(error) => Err(error),
        };
        match step {
            Ok(compacted) => self.compaction.advanced(self.revision, compacted),
            Err(error) => {
                if !self.session.is_closed() {
                    drop(self.session.batch("ROLLBACK").await);
                }
                if !is_lost_race(&error) {
                    self.compaction.failed(&store_error(Op::Compact, error));
                }
            }
        }
    }
}

/// Revisions after `from` up to `to` that no row has.
fn missing(from: Revision, to: Revision, rows: &[Arc<Event>]) -> Vec<i64> {
    let mut missing = Vec::new();
    let mut next = from.get() + 1;
    for row in rows {
        missing.extend(next..row.revision().get());
        next = row.revision().get() + 1;
    }
    missing.extend(next..=to.get());
    missing
}

/// Decides one request behind those that were decided before. `foreign` events are not ours to count.
fn plan(
    request: &WriteRequest,
    state: &mut HashMap<Key, (i64, Option<KeyValue>)>,
    base: Revision,
    foreign: usize,
    outcome: &mut Outcome,
) {
    let WriteRequest { key, change, precondition } = request;
    let own = i64::try_from(outcome.events.len() - foreign).unwrap_or_default();
    let revision = Revision::new(base.get() + own);
    let (prev_id, current) = state.get(key).cloned().unwrap_or((0, None));
    if !precondition.holds(current.as_ref()) {
        let conflict = Conflict { key: key.clone(), expected: *precondition, current, revision };
        outcome.answers.push(Err(StoreError::Conflict(Box::new(conflict))));
        return;
    }
    let event = match change {
        Change::Delete if current.is_none() => {
            outcome.answers.push(Ok(WriteResponse { revision, prev: None }));
            return;
        }
        Change::Delete => Event::delete(key.clone(), revision.next(), current),
        Change::Put { value, ttl } => Event::put(key.clone(), value.clone(), *ttl, revision.next(), current),
    };
    outcome.answers.push(Ok(WriteResponse { revision: event.revision(), prev: event.prev.clone() }));
    let live = (event.kind != EventKind::Delete).then(|| event.kv.clone());
    state.insert(key.clone(), (event.revision().get(), live));
    outcome.prev_ids.push(prev_id);
    outcome.events.push(Arc::new(event));
}
