//! The writer: the one thread that changes the file. It takes all writes that wait, puts them into one transaction,
//! waits for the disk once, tells the watchers, and answers. What else there is to do, it does between commits.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension, Statement};
use tokio::sync::{mpsc, oneshot};

use super::compact::{
    Compaction, Compactor, STEP_REVISIONS_LEAST, STEP_REVISIONS_MOST, STEP_REVISIONS_PER_WRITE, Waiter, abandon,
};
use super::count::Counts;
use super::fault::{commit_error, store_error};
use super::log::LogKeeper;
use super::query::Queries;
use super::row::{Name, key_value};
use crate::error::{Conflict, Op, StoreError, check_compactable};
use crate::request::{Change, WriteRequest, WriteResponse};
use crate::types::{Event, EventKind, KeyRange, KeyValue, Revision};
use crate::watch::{Hub, Joined};

/// How many writes one commit takes. More save no fsync worth mentioning, and the first would wait for the last.
const BATCH_WRITES_MAX: usize = 512;
/// How many bytes of values one commit takes, to keep the log from jumping over its bound.
const BATCH_BYTES_MAX: usize = 4 << 20;

const NEWEST: &str = "SELECT id, name, created, create_revision, lease, value, deleted FROM kine WHERE name = ?1
    ORDER BY id DESC LIMIT 1";
const INSERT: &str = "INSERT INTO kine
    (id, name, created, deleted, create_revision, prev_revision, lease, value, old_value)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)";
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
    path: &'c Path,
    newest: Statement<'c>,
    insert: Statement<'c>,
    sequence: Statement<'c>,
    queries: Queries<'c>,
    compactor: Compactor<'c>,
    compaction: Option<Compaction>,
    retained_revisions_min: i64,
    giving_back: bool,
    log: LogKeeper,
    hub: Hub,
    revision: Revision,
    /// The same, for those who only want to know it.
    latest: Arc<AtomicI64>,
    compacted: Revision,
}

/// A request that is in the transaction.
struct Applied {
    response: WriteResponse,
    /// None when there was nothing to change.
    event: Option<Arc<Event>>,
}

/// What is kept of the newest row of a name.
struct Newest {
    /// The row's number, for the one that replaces it.
    id: i64,
    /// What it says, unless it says that the key is gone.
    live: Option<KeyValue>,
}

/// Fails when a writer could not prepare its statements.
pub(super) fn try_statements(connection: &Connection) -> rusqlite::Result<()> {
    [NEWEST, INSERT, SEQUENCE].into_iter().try_for_each(|statement| connection.prepare(statement).map(drop))?;
    Compactor::prepare(connection).map(drop)
}

impl<'c> Writer<'c> {
    pub(super) fn prepare(
        connection: &'c Connection,
        path: &'c Path,
        log: LogKeeper,
        retained_revisions_min: i64,
        latest: Arc<AtomicI64>,
    ) -> rusqlite::Result<Self> {
        let mut queries = Queries::prepare(connection, path, Counts::default())?;
        let (revision, compacted) = queries.bounds()?;
        latest.store(revision.get(), Ordering::Release);
        Ok(Self {
            connection,
            path,
            newest: connection.prepare(NEWEST)?,
            insert: connection.prepare(INSERT)?,
            sequence: connection.prepare(SEQUENCE)?,
            queries,
            compactor: Compactor::prepare(connection)?,
            compaction: None,
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
        let mut events = Vec::with_capacity(requests.len());
        match self.transact(&requests, &mut events) {
            Ok((outcomes, revision)) => {
                self.revision = revision;
                // Before anybody is answered, so that it is never behind what was acknowledged.
                self.latest.store(revision.get(), Ordering::Release);
                self.hub.publish(&events);
                for (reply, outcome) in replies.into_iter().zip(outcomes) {
                    drop(reply.send(outcome));
                }
                self.log.tend(self.connection, false);
            }
            Err(error) => {
                abandon(self.connection);
                if !matches!(error, StoreError::Full { .. } | StoreError::Locked { .. }) {
                    tracing::error!(
                        error = &error as &dyn std::error::Error,
                        writes = requests.len(),
                        "a commit failed"
                    );
                }
                for reply in replies {
                    drop(reply.send(Err(error.clone())));
                }
            }
        }
    }

    /// All of the requests in one transaction. On an error nothing has changed, unless the error says so.
    fn transact(
        &mut self,
        requests: &[WriteRequest],
        events: &mut Vec<Arc<Event>>,
    ) -> Result<(Vec<Result<WriteResponse, StoreError>>, Revision), StoreError> {
        let path = self.path;
        let fault = |error| store_error(Op::Write, path, error);
        self.connection.execute_batch("BEGIN IMMEDIATE").map_err(fault)?;
        let mut revision = self.catch_up(events).map_err(fault)?;
        let mut outcomes = Vec::with_capacity(requests.len());
        for request in requests {
            let outcome = self.apply(request, revision).map_err(fault)?;
            outcomes.push(outcome.map(|Applied { response, event }| {
                revision = response.revision;
                events.extend(event);
                response
            }));
        }
        self.connection.execute_batch("COMMIT").map_err(|error| commit_error(Op::Write, path, error))?;
        Ok((outcomes, revision))
    }

    /// Finds what another process has written since our last commit: nobody should, but if somebody does, watchers
    /// must not miss it and its revisions must not be used again.
    fn catch_up(&mut self, events: &mut Vec<Arc<Event>>) -> rusqlite::Result<Revision> {
        let last: i64 = self.sequence.query_row([], |row| row.get(0))?;
        let last = Revision::new(last).max(self.revision);
        if last > self.revision {
            events.extend(self.queries.events(&KeyRange::all(), self.revision.next(), last)?);
        }
        Ok(last)
    }

    /// One request at the end of the log. The outer error ends the transaction.
    fn apply(&mut self, request: &WriteRequest, revision: Revision) -> rusqlite::Result<Result<Applied, StoreError>> {
        let WriteRequest { key, change, precondition } = request;
        let newest = self.newest.query_row([Name(key)], |row| {
            let deleted = row.get::<_, Option<i64>>(6)?.unwrap_or_default() != 0;
            Ok(Newest {
                id: row.get(0)?,
                live: if deleted { None } else { Some(key_value(row, Bytes::copy_from_slice)?) },
            })
        });
        let (prev_id, current) = newest.optional()?.map_or((0, None), |newest| (newest.id, newest.live));
        if !precondition.holds(current.as_ref()) {
            let conflict = Conflict { key: key.clone(), expected: *precondition, current, revision };
            return Ok(Err(StoreError::Conflict(Box::new(conflict))));
        }
        let event = match change {
            Change::Delete if current.is_none() => {
                return Ok(Ok(Applied { response: WriteResponse { revision, prev: None }, event: None }));
            }
            Change::Delete => Event::delete(key.clone(), revision.next(), current),
            Change::Put { value, ttl } => Event::put(key.clone(), value.clone(), *ttl, revision.next(), current),
        };
        self.insert_event(&event, prev_id)?;
        let response = WriteResponse { revision: event.revision(), prev: event.prev.clone() };
        Ok(Ok(Applied { response, event: Some(Arc::new(event)) }))
    }

    fn insert_event(&mut self, event: &Event, prev_id: i64) -> rusqlite::Result<()> {
        let Event { kind, kv, prev } = event;
        // Not for an update: that would write every value twice, and the row before has it for as long as it is needed.
        let old_value = prev.as_ref().filter(|_| *kind == EventKind::Delete).map(|prev| &prev.value[..]);
        let deleted = *kind == EventKind::Delete;
        // kine leaves the creation of a row that creates or deletes at 0.
        let create_revision = if *kind == EventKind::Update { kv.create_revision.get() } else { 0 };
        self.insert.execute((
            kv.mod_revision.get(),
            Name(&kv.key),
            *kind == EventKind::Create,
            deleted,
            create_revision,
            prev_id,
            kv.ttl.as_seconds(),
            (!deleted).then_some(&kv.value[..]),
            old_value,
        ))?;
        Ok(())
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
        self.compaction.is_some() || self.giving_back || self.log.is_waiting()
    }

    /// One step of what there is to do between commits, after one of so many writes.
    fn background(&mut self, writes: usize) {
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
                    }
                }
                Err(error) => {
                    self.compactor.abandon();
                    compaction.failed(&store_error(Op::Compact, self.path, error));
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
