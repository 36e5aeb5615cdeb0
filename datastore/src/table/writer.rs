//! The writer: the one future that changes the table and feeds the watchers. It takes all writes that wait, puts them
//! into one transaction, tells the watchers, and answers.
//!
//! Servers take turns, so revisions of ours become visible in order. A revision that is missing is either of a
//! transaction that failed, or of a kine that is not done yet; see [`Session::begin`] for how a database tells which.
//! Then the missing one is filled, as kine does.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::time::Instant;

use super::compact::{self, Compaction, Waiter};
use super::database::{Bounds, Database, ErrorOf, Fault, Session};
use super::transact::{CATCH_UP_REVISIONS, Failure, Outcome, Turn, in_order, missing, transact};
use crate::error::{Op, StoreError, check_compactable, is_reserved};
use crate::request::{Change, WriteRequest, WriteResponse};
use crate::types::{Event, KeyRange, Revision};
use crate::watch::{Hub, Joined};

/// How many writes, and how many bytes of values, one commit takes.
const BATCH_WRITES_MAX: usize = 512;
const BATCH_BYTES_MAX: usize = 4 << 20;
/// How often a batch is tried again after losing against somebody else.
const RACES_MAX: u32 = 20;
/// How long to wait before events that could not be read are tried again.
const FOLLOW_AGAIN: Duration = Duration::from_secs(1);

type WriteReply = oneshot::Sender<Result<WriteResponse, StoreError>>;

/// What the writer is asked for.
pub(super) enum Command {
    Write { request: WriteRequest, reply: WriteReply },
    Join { range: KeyRange, waiting_max: usize, reply: oneshot::Sender<Joined> },
    Progress { reply: oneshot::Sender<Revision> },
    Compact { target: Revision, reply: Waiter },
}

/// What readers notice before the writer does.
#[derive(Default)]
pub(super) struct News {
    /// The greatest revision that a read has shown.
    seen: AtomicI64,
    /// There may be something to read that watchers were not told of.
    changed: Notify,
}

impl News {
    /// Notes that a read has shown this revision.
    pub(super) fn saw(&self, revision: Revision) {
        if self.seen.fetch_max(revision.get(), Ordering::Relaxed) < revision.get() {
            self.changed.notify_one();
        }
    }
}

/// How the writer is reached.
pub(super) struct Ports {
    pub inbox: mpsc::Receiver<Command>,
    pub closing: watch::Receiver<()>,
    pub news: Arc<News>,
}

pub(super) struct Writer<D: Database> {
    database: D,
    session: D::Session,
    wake: Arc<Notify>,
    ports: Ports,
    retained_revisions_min: i64,
    compaction: Compaction,
    hub: Hub,
    /// Watchers have been told of everything up to here.
    revision: Revision,
    /// When the table was last looked at for what others have written.
    looked: Instant,
}

impl<D: Database> Writer<D> {
    pub(super) async fn start(
        database: D,
        (session, wake): (D::Session, Arc<Notify>),
        retained_revisions_min: i64,
        ports: Ports,
    ) -> Result<Self, ErrorOf<D>> {
        let Bounds { revision, .. } = session.bounds().await?;
        let (compaction, hub, looked) = (Compaction::default(), Hub::default(), Instant::now());
        Ok(Self { database, session, wake, ports, retained_revisions_min, compaction, hub, revision, looked })
    }

    /// Works until the store is closed; what was asked before that is finished.
    pub(super) async fn run(mut self) {
        loop {
            let busy = self.compaction.target().is_some();
            let look_at = D::LOOKS_EVERY.filter(|_| self.hub.is_watched()).map(|pause| self.looked + pause);
            let command = tokio::select! {
                biased;
                command = self.ports.inbox.recv() => match command {
                    Some(command) => Some(command),
                    None => return,
                },
                Err(_) = self.ports.closing.changed(), if !self.ports.inbox.is_closed() => {
                    self.ports.inbox.close();
                    continue;
                }
                () = self.wake.notified() => None,
                // Our own commits are seen by readers before they are told to watchers; then there is nothing to do.
                () = self.ports.news.changed.notified() => {
                    let seen = self.ports.news.seen.load(Ordering::Relaxed);
                    if seen <= self.revision.get() || !self.hub.is_watched() {
                        continue;
                    }
                    None
                }
                () = until(look_at) => None,
                () = std::future::ready(()), if busy => {
                    self.compact().await;
                    continue;
                }
            };
            match command {
                Some(command) => self.turn(command).await,
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
            next = if full { None } else { self.ports.inbox.try_recv().ok() };
        }
        if !writes.is_empty() {
            self.commit(writes).await;
        }
        for command in others {
            match command {
                Command::Join { range, waiting_max, reply } => {
                    if D::LOOKS_EVERY.is_some() {
                        // Nobody has told of what happened just before, and it is not for this watcher.
                        self.follow().await;
                    }
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
    async fn reconnect(&mut self) -> Result<(), ErrorOf<D>> {
        if self.session.is_closed() {
            self.session = self.database.listen(self.wake.clone()).await?;
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
        let (deadline, mut races, mut alone) = (Instant::now() + self.database.patience(), 0, false);
        loop {
            self.reconnect().await.map_err(|error| error.into_store_error(Op::Write))?;
            match transact(&self.session, requests, self.revision, alone).await {
                Ok(Turn::Done(outcome)) => return Ok(self.publish(outcome)),
                Ok(Turn::Missing) => {
                    // Once more, and this time they are filled, if nobody else does it first.
                    alone = true;
                    if !D::GAP_PATIENCE.is_zero() {
                        tokio::time::sleep(D::GAP_PATIENCE).await;
                    }
                }
                Ok(Turn::Behind) => match Box::pin(self.try_follow()).await {
                    // A connection that broke meanwhile is made anew above.
                    Err(StoreError::Unreachable { .. }) if Instant::now() < deadline => {}
                    other => other?,
                },
                Err(Failure::Open(error)) => {
                    return Err(StoreError::Unknown { op: Op::Write, reason: error.to_string() });
                }
                Err(Failure::Clean(error)) => {
                    races += u32::from(error.is_lost_race());
                    let again = error.is_disconnect() && Instant::now() < deadline
                        || error.is_lost_race() && races <= RACES_MAX;
                    if !self.session.is_closed() {
                        // Ends what is left of the transaction; a connection that is gone has ended it by itself.
                        drop(self.session.rollback().await);
                    }
                    if !again {
                        return Err(error.into_store_error(Op::Write));
                    }
                }
            }
        }
    }

    /// Hands out what is new, in order.
    fn publish(&mut self, outcome: Outcome) -> Vec<Result<WriteResponse, StoreError>> {
        if let Some(revision) = outcome.forgotten {
            self.forget(revision);
        }
        self.tell(&outcome.events);
        self.looked = Instant::now();
        outcome.answers
    }

    fn tell(&mut self, events: &[Arc<Event>]) {
        let Some(last) = events.last() else { return };
        self.revision = self.revision.max(last.revision());
        let real: Vec<_> = events.iter().filter(|event| !is_reserved(event.kv.key.as_bytes())).cloned().collect();
        self.hub.publish(&real);
    }

    /// Finds what others have written, and hands it out.
    async fn follow(&mut self) {
        if let Err(error) = self.try_follow().await {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "the events of other servers could not be read; trying again"
            );
            // Whoever wrote before the connection broke will not tell again. A pause, and another attempt.
            let wake = self.wake.clone();
            let pause = async move {
                tokio::time::sleep(FOLLOW_AGAIN).await;
                wake.notify_one();
            };
            self.database.spawner().spawn(pause).await.ok();
        }
        self.looked = Instant::now();
    }

    async fn try_follow(&mut self) -> Result<(), StoreError> {
        let fault = |error: ErrorOf<D>| error.into_store_error(Op::Watch);
        self.reconnect().await.map_err(fault)?;
        if D::LOOKS_EVERY.is_some() && !self.has_news().await.map_err(fault)? {
            return Ok(());
        }
        loop {
            let to = Revision::new(self.revision.get().saturating_add(CATCH_UP_REVISIONS));
            let (Bounds { revision, compacted }, rows) =
                self.session.events(self.revision.next(), to).await.map_err(fault)?;
            if compacted > self.revision || revision < self.revision {
                self.forget(revision);
                return Ok(());
            }
            if revision == self.revision {
                return Ok(());
            }
            let events = in_order(rows);
            if missing(self.revision, revision.min(to), &events).is_empty() {
                self.tell(&events);
            } else {
                self.persist(&[]).await?;
            }
        }
    }

    /// Whether there is something to read at all, which is the cheapest question.
    async fn has_news(&mut self) -> Result<bool, ErrorOf<D>> {
        let Bounds { revision, .. } = self.session.bounds().await?;
        let far = revision.get().saturating_sub(CATCH_UP_REVISIONS);
        if far > self.revision.get() && !self.hub.is_watched() {
            // Nobody is waiting for the rest of the past; what is under way may be among the newest only.
            self.revision = Revision::new(far);
        }
        Ok(revision != self.revision)
    }

    async fn begin_compaction(&mut self, target: Revision, reply: Waiter) {
        let checked = match self.reconnect().await {
            Ok(()) => self.session.bounds().await,
            Err(error) => Err(error),
        };
        let checked = checked.map_err(|error| error.into_store_error(Op::Compact)).and_then(|bounds| {
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
            Ok(()) => compact::step(&self.session, target).await,
            Err(error) => Err(error),
        };
        match step {
            Ok(compacted) => self.compaction.advanced(self.revision, compacted),
            Err(error) => {
                if !self.session.is_closed() {
                    drop(self.session.rollback().await);
                }
                if !error.is_lost_race() {
                    self.compaction.failed(&error.into_store_error(Op::Compact));
                }
            }
        }
    }
}

/// Until then; for ever, if there is nothing to wait for.
async fn until(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}
