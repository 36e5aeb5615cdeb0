//! Stores in kine's table on a database server, which several servers may share, kine's own among them. What differs
//! between databases is in [`database`]; everything else is here.
//!
//! ```text
//!   writes, compaction, joining ──queue──▶ writer ──its connection──▶ table
//!                                            └──events──▶ watchers      ▲
//!   reads, pages of the past ──▶ a few connections ─────────────────────┘
//! ```

mod compact;
mod database;
mod row;
mod transact;
mod writer;

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{Mutex, Notify, mpsc, oneshot, watch};
use tokio::time::Instant;

pub(crate) use self::database::{
    BACKOFF_MAX, BACKOFF_MIN, Bounds, Database, ErrorOf, Fault, NewRow, Scan, Session, Size,
};
pub(crate) use self::row::{EventRow, StoredRow};
use self::transact::in_order;
use self::writer::{Command, News, Ports, Writer};
use crate::backend::BoxFuture;
use crate::background::{Background, Spawner};
use crate::error::{Op, StoreError, check_readable, check_watchable, check_writable, is_reserved};
use crate::request::{
    Change, CompactResponse, Connections, CountRequest, CountResponse, GetRequest, GetResponse, ListRequest,
    ListResponse, Status, WatchRequest, WriteRequest, WriteResponse,
};
use crate::types::{KeyRange, KeyValue, Revision};
use crate::watch::{Joined, Page, Pager, Watcher};

/// How many connections reads share. One that is busy with a long list holds up those behind it.
pub(crate) const READERS_DEFAULT: usize = 4;
/// How many revisions a compaction leaves in any case; kine's number.
pub(crate) const RETAINED_REVISIONS_DEFAULT: i64 = 1000;
/// How long to try to reach a server that is away: longer than a restart or a failover takes.
pub(crate) const PATIENCE_DEFAULT: Duration = Duration::from_secs(30);

/// How many commands may wait for the writer: two commits of the greatest size.
const COMMANDS_WAITING_MAX: usize = 1024;
/// How many revisions a page looks at.
const PAGE_REVISIONS: i64 = 500;

/// A store. Cloning it shares the store; with its last clone it is closed, after what was asked of it is finished.
pub(crate) struct Table<D: Database> {
    link: Arc<Link<D>>,
    /// The writer sees when all of it is dropped.
    open: Arc<watch::Sender<()>>,
}

impl<D: Database> Clone for Table<D> {
    fn clone(&self) -> Self {
        Self { link: self.link.clone(), open: self.open.clone() }
    }
}

/// The way to the server. Watchers have it too, and keep no store open with it.
struct Link<D: Database> {
    commands: mpsc::Sender<Command>,
    database: D,
    readers: Vec<Mutex<Option<Arc<D::Session>>>>,
    turn: AtomicUsize,
    news: Arc<News>,
}

/// Opens a store, trying again within the patience, and runs its work in a task of the event loop.
pub(crate) async fn open<T, F>(patience: Duration, assemble: impl Fn() -> F) -> Result<T, StoreError>
where
    F: Future<Output = Result<(T, Background), StoreError>>,
{
    let (deadline, mut pause) = (Instant::now() + patience, BACKOFF_MIN);
    loop {
        match assemble().await {
            Ok((store, background)) => {
                tokio::spawn(background.run());
                return Ok(store);
            }
            Err(StoreError::Unreachable { .. }) if Instant::now() + pause < deadline => {}
            Err(error) => return Err(error),
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(BACKOFF_MAX);
    }
}

impl<D: Database> Table<D> {
    /// Connects once, creates what is missing, and answers with the store and the work that it needs.
    pub(crate) async fn assemble(
        make: impl FnOnce(Spawner) -> Result<D, StoreError>,
        readers: usize,
        retained_revisions_min: i64,
    ) -> Result<(Self, Background), StoreError> {
        let (spawner, mut background) = Background::new();
        let database = make(spawner.clone())?;
        let (commands, inbox) = mpsc::channel(COMMANDS_WAITING_MAX);
        let (open, closing) = watch::channel(());
        let news = Arc::new(News::default());
        let ports = Ports { inbox, closing, news: news.clone() };
        let starting = async {
            let at_once = database.with_patience(Duration::ZERO);
            at_once.lay_out().await?;
            let fault = |error: ErrorOf<D>| error.into_store_error(Op::Open);
            let wake = Arc::new(Notify::new());
            let session = at_once.listen(wake.clone()).await.map_err(fault)?;
            let retained = retained_revisions_min.max(0);
            let writer = Writer::start(database.clone(), (session, wake), retained, ports).await.map_err(fault)?;
            spawner.spawn(writer.run()).await.map_err(|_| StoreError::Closed)
        };
        background.until(starting).await?;
        let readers = (0..readers.max(1)).map(|_| Mutex::default()).collect();
        let link = Link { commands, database, readers, turn: AtomicUsize::new(0), news };
        Ok((Self { link: Arc::new(link), open: Arc::new(open) }, background))
    }

    pub(crate) async fn write(&self, request: WriteRequest) -> Result<WriteResponse, StoreError> {
        check_writable(&request.key)?;
        let value = match &request.change {
            Change::Put { value, .. } => Some(value),
            Change::Delete => None,
        };
        self.link.database.check_storable(&request.key, value)?;
        let answer = self.link.command(|reply| Command::Write { request, reply }).await?;
        answer.unwrap_or_else(|| Err(unanswered(Op::Write)))
    }

    pub(crate) async fn get(&self, request: &GetRequest) -> Result<GetResponse, StoreError> {
        let ask = |session: Arc<D::Session>| async move { session.get(&request.key, request.at).await };
        let (Bounds { revision, compacted }, row) = self.link.read(Op::Get, ask).await?;
        check_readable(request.at, compacted, revision)?;
        let kv = row.and_then(StoredRow::into_live).filter(|kv| !is_reserved(kv.key.as_bytes()));
        Ok(GetResponse { revision, kv })
    }

    pub(crate) async fn list(&self, request: &ListRequest) -> Result<ListResponse, StoreError> {
        let range = request.after.as_ref().map_or_else(|| request.range.clone(), |after| request.range.after(after));
        // One more than asked for tells whether there are more.
        let limit = request.limit.and_then(|limit| i64::try_from(limit).ok()?.checked_add(1));
        let ListRequest { at, keys_only, expiring_only, .. } = *request;
        let scan = &Scan { range, at, limit, keys_only, expiring_only };
        let ask = |session: Arc<D::Session>| async move { session.list(scan).await };
        let (Bounds { revision, compacted }, rows) = self.link.read(Op::List, ask).await?;
        check_readable(request.at, compacted, revision)?;
        let mut kvs: Vec<KeyValue> = rows.into_iter().map(StoredRow::into_key_value).collect();
        kvs.sort_by(|one, other| one.key.cmp(&other.key));
        let more = request.limit.is_some_and(|limit| kvs.len() > limit);
        kvs.truncate(request.limit.unwrap_or(usize::MAX));
        Ok(ListResponse { revision, kvs, more })
    }

    pub(crate) async fn count(&self, request: &CountRequest) -> Result<CountResponse, StoreError> {
        let ask = |session: Arc<D::Session>| async move { session.count(&request.range, request.at).await };
        let (Bounds { revision, compacted }, count) = self.link.read(Op::Count, ask).await?;
        check_readable(request.at, compacted, revision)?;
        Ok(CountResponse { revision, count })
    }

    pub(crate) async fn watch(&self, request: WatchRequest) -> Result<Watcher, StoreError> {
        let WatchRequest { range, from, events_waiting_max } = request;
        let pager = TablePager { link: self.link.clone(), range: range.clone(), events_waiting_max };
        Watcher::start(range, from, Box::new(pager)).await
    }

    pub(crate) async fn progress(&self) -> Result<Revision, StoreError> {
        let answer = self.link.command(|reply| Command::Progress { reply }).await?;
        answer.ok_or(StoreError::Closed)
    }

    pub(crate) async fn compact(&self, target: Revision) -> Result<CompactResponse, StoreError> {
        let answer = self.link.command(|reply| Command::Compact { target, reply }).await?;
        answer.unwrap_or_else(|| Err(unanswered(Op::Compact)))
    }

    pub(crate) async fn status(&self) -> Result<Status, StoreError> {
        let ask = |session: Arc<D::Session>| async move { session.size().await };
        let (Bounds { revision, compacted }, size) = self.link.read(Op::Status, ask).await?;
        Ok(Status { revision, compacted, size_bytes: size.total, free_bytes: size.free, log_bytes: 0 })
    }

    /// The writer's, and those of the readers that were needed so far.
    pub(crate) fn connections(&self) -> Connections {
        // One that is being made is not there yet.
        let is_there = |place: &&Mutex<Option<Arc<D::Session>>>| {
            place.try_lock().is_ok_and(|place| place.as_ref().is_some_and(|session| !session.is_closed()))
        };
        let readers = &self.link.readers;
        Connections { open: readers.iter().filter(is_there).count() as u64 + 1, max: readers.len() as u64 + 1 }
    }
}

/// For a command that was taken and never answered.
fn unanswered(op: Op) -> StoreError {
    StoreError::Unknown { op, reason: "the writer ended".to_owned() }
}

impl<D: Database> Link<D> {
    /// A connection for reading: an idle one, one that is made, or the next one in turn.
    async fn reader(&self) -> Result<Arc<D::Session>, ErrorOf<D>> {
        let mut unused = None;
        for (number, place) in self.readers.iter().enumerate() {
            let Ok(place) = place.try_lock() else { continue };
            match &*place {
                Some(session) if session.is_closed() => unused = Some(number),
                // Whoever asks holds a clone.
                Some(session) if Arc::strong_count(session) == 1 => return Ok(session.clone()),
                Some(_) => {}
                None => unused = unused.or(Some(number)),
            }
        }
        let number = unused.unwrap_or_else(|| self.turn.fetch_add(1, Ordering::Relaxed) % self.readers.len());
        let mut place = self.readers[number].lock().await;
        if let Some(session) = place.as_ref().filter(|session| !session.is_closed()) {
            return Ok(session.clone());
        }
        let session = Arc::new(self.database.connect().await?);
        *place = Some(session.clone());
        Ok(session)
    }

    /// Asks, and asks again on another connection if the first one breaks: a read may be repeated.
    async fn read<T, F>(&self, op: Op, ask: impl Fn(Arc<D::Session>) -> F + Send) -> Result<(Bounds, T), StoreError>
    where
        F: Future<Output = Result<(Bounds, T), ErrorOf<D>>> + Send,
    {
        let deadline = Instant::now() + self.database.patience();
        loop {
            if self.commands.is_closed() {
                return Err(StoreError::Closed);
            }
            let session = self.reader().await.map_err(|error| error.into_store_error(op))?;
            match ask(session).await {
                Ok((bounds, answer)) => {
                    self.news.saw(bounds.revision);
                    return Ok((bounds, answer));
                }
                Err(error) if error.is_disconnect() && Instant::now() < deadline => {
                    // Whoever runs the connection has yet to see what we have seen.
                    tokio::task::yield_now().await;
                }
                Err(error) => return Err(error.into_store_error(op)),
            }
        }
    }

    /// Asks the writer; `None` when it ended after it took the command.
    async fn command<T>(&self, make: impl FnOnce(oneshot::Sender<T>) -> Command) -> Result<Option<T>, StoreError> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(make(reply)).await.map_err(|_| StoreError::Closed)?;
        Ok(answer.await.ok())
    }
}

struct TablePager<D: Database> {
    link: Arc<Link<D>>,
    range: KeyRange,
    events_waiting_max: usize,
}

impl<D: Database> TablePager<D> {
    async fn read(&self, from: Revision, to: Option<Revision>) -> Result<Page, StoreError> {
        let last = from.get().saturating_add(PAGE_REVISIONS - 1);
        let last = Revision::new(to.map_or(last, |to| last.min(to.get())));
        let ask = |session: Arc<D::Session>| async move { session.events(from, last).await };
        let (Bounds { revision, compacted }, rows) = self.link.read(Op::Watch, ask).await?;
        check_watchable(from, compacted)?;
        let mut events = in_order(rows);
        events.retain(|event| !is_reserved(event.kv.key.as_bytes()) && self.range.contains(&event.kv.key));
        Ok(Page { events, scanned: revision.min(last), current: revision })
    }
}

impl<D: Database> Pager for TablePager<D> {
    fn page(&self, from: Revision, to: Option<Revision>) -> BoxFuture<'_, Result<Page, StoreError>> {
        Box::pin(self.read(from, to))
    }

    fn join(&self) -> BoxFuture<'_, Result<Joined, StoreError>> {
        let (range, waiting_max) = (self.range.clone(), self.events_waiting_max);
        Box::pin(async move {
            let joined = self.link.command(|reply| Command::Join { range, waiting_max, reply }).await?;
            joined.ok_or(StoreError::Closed)
        })
    }
}

/// The contract, kept by the field `table` of a type.
macro_rules! keep_contract {
    ($store:ty) => {
        impl $crate::backend::Backend for $store {
            async fn write(
                &self,
                request: $crate::request::WriteRequest,
            ) -> Result<$crate::request::WriteResponse, $crate::error::StoreError> {
                self.table.write(request).await
            }

            async fn get(
                &self,
                request: $crate::request::GetRequest,
            ) -> Result<$crate::request::GetResponse, $crate::error::StoreError> {
                self.table.get(&request).await
            }

            async fn list(
                &self,
                request: $crate::request::ListRequest,
            ) -> Result<$crate::request::ListResponse, $crate::error::StoreError> {
                self.table.list(&request).await
            }

            async fn count(
                &self,
                request: $crate::request::CountRequest,
            ) -> Result<$crate::request::CountResponse, $crate::error::StoreError> {
                self.table.count(&request).await
            }

            async fn watch(
                &self,
                request: $crate::request::WatchRequest,
            ) -> Result<$crate::watch::Watcher, $crate::error::StoreError> {
                self.table.watch(request).await
            }

            async fn progress(&self) -> Result<$crate::types::Revision, $crate::error::StoreError> {
                self.table.progress().await
            }

            async fn compact(
                &self,
                target: $crate::types::Revision,
            ) -> Result<$crate::request::CompactResponse, $crate::error::StoreError> {
                self.table.compact(target).await
            }

            async fn status(&self) -> Result<$crate::request::Status, $crate::error::StoreError> {
                self.table.status().await
            }

            fn connections(&self) -> $crate::request::Connections {
                self.table.connections()
            }
        }
    };
}
pub(crate) use keep_contract;
