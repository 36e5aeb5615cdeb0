//! The writer: the one thread that changes the file. It takes all writes that wait, puts them into one transaction,
//! waits for the disk once, tells the watchers, and answers. What else there is to do, it does between commits.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use rusqlite::{Connection, Statement};
use tokio::sync::{mpsc, oneshot};

use super::compact::{
    Compaction, Compactor, STEP_REVISIONS_LEAST, STEP_REVISIONS_MOST, STEP_REVISIONS_PER_WRITE, Waiter, abandon,
};
use super::fault::{commit_error, store_error};
use super::index::{Pruning, Version};
use super::insert::{Inserter, Row};
use super::log::LogKeeper;
use super::query::{Guide, Queries};
use super::row::Held;
use super::rows::follow;
use crate::error::{Conflict, Op, StoreError, check_compactable};
use crate::request::{Change, WriteRequest, WriteResponse};
use crate::types::{Event, EventKind, Key, KeyRange, KeyValue, Revision};
use crate::watch::{Hub, Joined};

/// How many writes one commit takes. More save no fsync worth mentioning, and the first would wait for the last.
const BATCH_WRITES_MAX: usize = 512;
/// How many bytes of values one commit takes, to keep the log from jumping over its bound.
const BATCH_BYTES_MAX: usize = 4 << 20;

/// The counter behind `AUTOINCREMENT`, which remembers rows that are gone.
const SEQUENCE: &str = "SELECT seq FROM sqlite_sequence WHERE name = 'kine'";

type WriteReply = oneshot::Sender<Result<WriteResponse, StoreError>>;

/// What the writer is asked for.
pub(super) enum Command {
    Write {
        request: WriteRequest,
        reply: WriteReply,
    },
    Join {
        range: KeyRange,
        waiting_max: usize,
        reply: oneshot::Sender<Joined>,
    },
    Progress {
        reply: oneshot::Sender<Revision>,
    },
    Compact {
        target: Revision,
        reply: Waiter,
    },
    /// Finish what waits, and end.
    Stop,
}

pub(super) struct Writer<'c> {
    connection: &'c Connection,
    guide: Guide,
    begin: Statement<'c>,
    end: Statement<'c>,
    inserter: Inserter<'c>,
    sequence: Statement<'c>,
    queries: Queries<'c>,
    compactor: Compactor<'c>,
    compaction: Option<Compaction>,
    pruning: Option<Pruning>,
    retained_revisions_min: i64,
    giving_back: bool,
    log: LogKeeper,
    hub: Hub,
    revision: Revision,
    /// The same, for those who only want to know it.
    latest: Arc<AtomicI64>,
    compacted: Revision,
}

/// What a transaction will do.
#[derive(Default)]
struct Batch {
    /// What the store's revision will be.
    revision: Revision,
    outcomes: Vec<Result<WriteResponse, StoreError>>,
    /// What happened since the last commit, in order.
    events: Vec<Arc<Event>>,
    /// How many of the events are other people's. Ours come behind them.
    foreign: usize,
    /// For each event of ours the row that its row replaces; zero if there is none.
    replaced: Vec<i64>,
}

impl Batch {
    fn ours(&self) -> &[Arc<Event>] {
        &self.events[self.foreign..]
    }
}

/// Fails when a writer could not prepare its statements.
pub(super) fn try_statements(connection: &Connection, guide: &Guide) -> rusqlite::Result<()> {
    connection.prepare(SEQUENCE)?;
    Inserter::prepare(connection)?;
    Compactor::prepare(connection, guide.marker).map(drop)
}

impl<'c> Writer<'c> {
    pub(super) fn prepare(
        connection: &'c Connection,
        guide: &Guide,
        log: LogKeeper,
        retained_revisions_min: i64,
        latest: Arc<AtomicI64>,
    ) -> rusqlite::Result<Self> {
        let mut queries = Queries::prepare(connection, guide)?;
        let (revision, compacted) = queries.bounds()?;
        latest.store(revision.get(), Ordering::Release);
        Ok(Self {
            connection,
            guide: guide.clone(),
            begin: connection.prepare("BEGIN IMMEDIATE")?,
            end: connection.prepare("COMMIT")?,
            inserter: Inserter::prepare(connection)?,
            sequence: connection.prepare(SEQUENCE)?,
            queries,
            compactor: Compactor::prepare(connection, guide.marker)?,
            compaction: None,
            pruning: None,
            retained_revisions_min,
            // A file that was left with free space, by kine or by a crash.
            giving_back: true,
            log,
            hub: Hub::default(),
            revision,
            latest,
            compacted,
        })
    }

    /// Works until it is told to stop, or nobody can ask any more.
    pub(super) fn run(&mut self, inbox: &mut mpsc::Receiver<Command>) {
        loop {
            let first = if self.has_background_work() {
                match inbox.try_recv() {
                    Ok(command) => Some(command),
                    Err(mpsc::error::TryRecvError::Empty) => None,
                    Err(mpsc::error::TryRecvError::Disconnected) => return,
                }
            } else {
                match inbox.blocking_recv() {
                    Some(command) => Some(command),
                    None => return,
                }
            };
            let writes = first.map_or(0, |first| self.turn(first, inbox));
            self.background(writes);
        }
    }

    /// One command, and those that wait behind it. How many of them were writes.
    fn turn(&mut self, first: Command, inbox: &mut mpsc::Receiver<Command>) -> usize {
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
                Command::Stop => inbox.close(),
                other => others.push(other),
            }
            let full = writes.len() >= BATCH_WRITES_MAX || bytes >= BATCH_BYTES_MAX;
            next = if full { None } else { inbox.try_recv().ok() };
        }
        let count = writes.len();
        if count > 0 {
            self.commit(writes);
        }
        for command in others {
            self.serve(command);
        }
        count
    }

    /// Everything but writes. Nobody may be waiting for the answer any more, which is no concern of ours.
    fn serve(&mut self, command: Command) {
        match command {
            Command::Join { range, waiting_max, reply } => {
                let live = self.hub.join(range, waiting_max);
                drop(reply.send(Joined { live, at: self.revision }));
            }
            Command::Progress { reply } => {
                self.hub.progress(self.revision);
                reply.send(self.revision).unwrap_or_default();
            }
            Command::Compact { target, reply } => self.begin_compaction(target, reply),
            Command::Write { .. } | Command::Stop => {}
        }
    }

    fn commit(&mut self, writes: Vec<(WriteRequest, WriteReply)>) {
        let (requests, replies): (Vec<_>, Vec<_>) = writes.into_iter().unzip();
        let mut batch = Batch::default();
        match self.transact(requests, &mut batch) {
            Ok(()) => {
                self.revision = batch.revision;
                // Before anybody is answered, so that it is never behind what was acknowledged.
                self.latest.store(self.revision.get(), Ordering::Release);
                self.hub.publish(&batch.events);
                for (reply, outcome) in replies.into_iter().zip(std::mem::take(&mut batch.outcomes)) {
                    drop(reply.send(outcome));
                }
                self.keep(&batch);
                self.log.tend(self.connection, false);
            }
            Err(error) => {
                abandon(self.connection);
                self.take_back(&batch);
                if !matches!(error, StoreError::Full { .. } | StoreError::Locked { .. }) {
                    let error = &error as &dyn std::error::Error;
                    tracing::error!(error, writes = replies.len(), "a commit failed");
                }
                for reply in replies {
                    drop(reply.send(Err(error.clone())));
                }
            }
        }
    }

    /// All of the requests in one transaction. On an error nothing has changed in the file, unless the error says so;
    /// the index may have the events of the batch, which are to be taken back.
    fn transact(&mut self, requests: Vec<WriteRequest>, batch: &mut Batch) -> Result<(), StoreError> {
        let path = self.guide.path.clone();
        let fault = |error| store_error(Op::Write, &path, error);
        self.begin.execute([]).map_err(fault)?;
        self.catch_up(batch).map_err(fault)?;
        for request in requests {
            let outcome = self.apply(request, batch).map_err(fault)?;
            batch.outcomes.push(outcome);
        }
        let rows = batch.ours().iter().zip(&batch.replaced).map(|(event, replaced)| Row { event, replaced: *replaced });
        self.inserter.insert(rows).map_err(fault)?;
        self.end.execute([]).map(drop).map_err(|error| commit_error(Op::Write, &path, error))
    }

    /// Finds what another process has written since our last commit: nobody should, but if somebody does, watchers
    /// must not miss it and its revisions must not be used again.
    fn catch_up(&mut self, batch: &mut Batch) -> rusqlite::Result<()> {
        let last: i64 = self.sequence.query_row([], |row| row.get(0))?;
        let last = Revision::new(last).max(self.revision);
        if last > self.revision {
            batch.events = self.queries.events(&KeyRange::all(), self.revision.next(), last)?;
            batch.foreign = batch.events.len();
            follow(self.connection, &self.guide.index)?;
            self.guide.index.skip(last);
        }
        batch.revision = last;
        Ok(())
    }

    /// Decides one request at the end of the log. The outer error ends the transaction.
    fn apply(
        &mut self,
        request: WriteRequest,
        batch: &mut Batch,
    ) -> rusqlite::Result<Result<WriteResponse, StoreError>> {
        let WriteRequest { key, change, precondition } = request;
        let revision = batch.revision;
        let (newest, place) = self.guide.index.latest(&key).unzip();
        let current = match newest.filter(|newest| !newest.deleted) {
            Some(newest) => self.value(&key, newest.revision, batch)?,
            None => None,
        };
        if !precondition.holds(current.as_ref()) {
            let conflict = Conflict { key, expected: precondition, current, revision };
            return Ok(Err(StoreError::Conflict(Box::new(conflict))));
        }
        let next = revision.next();
        let event = match change {
            Change::Delete if current.is_none() => return Ok(Ok(WriteResponse { revision, prev: None })),
            Change::Delete => Event::delete(key, next, current),
            Change::Put { value, ttl } => Event::put(key, value, ttl, next, current),
        };
        let version = Version { revision: next, deleted: event.kind == EventKind::Delete };
        self.guide.index.push(event.kv.key.as_bytes(), place, version);
        let response = WriteResponse { revision: next, prev: event.prev.clone() };
        batch.revision = next;
        batch.events.push(Arc::new(event));
        batch.replaced.push(newest.map_or(0, |newest| newest.revision.get()));
        Ok(Ok(response))
    }

    /// What a key held from a revision on, which may be one of the batch that has no row yet.
    fn value(&mut self, key: &Key, revision: Revision, batch: &Batch) -> rusqlite::Result<Option<KeyValue>> {
        let ours = batch.ours();
        match ours.binary_search_by_key(&revision, |event| event.revision()) {
            Ok(place) => Ok(Some(ours[place].kv.clone())),
            Err(_) => {
                let held = match self.guide.cache.get(revision) {
                    Some(held) => Some(held),
                    // Not to be kept: nearly always it is about to be replaced.
                    None => self.queries.rows.get(revision)?,
                };
                Ok(held.map(|held| held.of(key.clone(), revision)))
            }
        }
    }

    /// Has what was committed kept, and what it replaces let go.
    fn keep(&self, batch: &Batch) {
        let puts = batch.ours().iter().filter(|event| event.kind != EventKind::Delete);
        let rows = puts.map(|event| (event.revision(), Held::from(&event.kv)));
        let replaced = batch.replaced.iter().map(|replaced| Revision::new(*replaced));
        self.guide.cache.replace(rows, replaced);
    }

    /// Takes what came to nothing out of the index.
    fn take_back(&self, batch: &Batch) {
        let Some(first) = batch.ours().first() else { return };
        let rows = batch.ours().iter().map(|event| (&event.kv.key, event.revision()));
        self.guide.index.take_back(rows, first.revision().previous());
    }

    fn begin_compaction(&mut self, target: Revision, reply: Waiter) {
        if let Err(error) = check_compactable(target, self.compacted, self.revision) {
            drop(reply.send(Err(error)));
            return;
        }
        let retained_from = Revision::new(self.revision.get().saturating_sub(self.retained_revisions_min));
        let compaction = self.compaction.get_or_insert_with(Compaction::new);
        compaction.extend(target.min(retained_from), reply);
        if !compaction.advanced(self.revision, self.compacted) {
            self.compaction = None;
        }
    }

    fn has_background_work(&self) -> bool {
        self.compaction.is_some() || self.pruning.is_some() || self.giving_back || self.log.is_waiting()
    }

    /// One step of what there is to do between commits, after one of so many writes.
    fn background(&mut self, writes: usize) {
        if let Some(pruning) = &mut self.pruning
            && !self.guide.index.prune(pruning)
        {
            self.pruning = None;
        }
        if let Some(mut compaction) = self.compaction.take() {
            let most = match i64::try_from(writes) {
                Ok(0) | Err(_) => STEP_REVISIONS_MOST,
                Ok(writes) => (writes * STEP_REVISIONS_PER_WRITE).max(STEP_REVISIONS_LEAST),
            };
            match self.compactor.step(&mut compaction, self.compacted, most) {
                Ok(compacted) => {
                    self.compacted = compacted;
                    if compaction.advanced(self.revision, compacted) {
                        self.compaction = Some(compaction);
                    } else {
                        self.giving_back = true;
                        // One that is under way is not begun anew, or it might never come to its end.
                        self.pruning.get_or_insert_with(|| self.guide.index.begin_pruning(compacted));
                    }
                }
                Err(error) => {
                    self.compactor.abandon();
                    compaction.failed(&store_error(Op::Compact, &self.guide.path, error));
                }
            }
            self.log.tend(self.connection, false);
        } else if self.giving_back {
            self.giving_back = self.compactor.give_back().unwrap_or_else(|error| {
                tracing::warn!(%error, "free space could not be given back");
                self.compactor.abandon();
                false
            });
            if !self.giving_back {
                // The file is cut only when what the log says of it is copied.
                self.log.copy();
            }
            self.log.tend(self.connection, false);
        } else if self.log.is_waiting() {
            self.log.tend(self.connection, true);
        }
    }
}
