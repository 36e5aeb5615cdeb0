//! A store on a PostgreSQL server, in kine's table, which several servers may share, kine's own among them.
//!
//! ```text
//!   writes, compaction, joining ──queue──▶ writer ──its connection──▶ table ──trigger, NOTIFY──▶ every writer
//!   reads, pages of the past ──▶ a few connections                                        events ──▶ watchers
//! ```
//!
//! Nothing polls: the table has a trigger that notifies, so that the writers of all servers learn of each commit, even
//! of kine's. A connection that breaks is made anew, with growing pauses; reads and writes wait for that, and only a
//! write whose commit was under way then is [`StoreError::Unknown`].
//!
//! Names are PostgreSQL's text: a key that isn't UTF-8, or holds a zero byte, is refused. While an older kine writes to
//! the same table, a read may see its revisions a moment before those below them; watchers get all of them in order.

mod compact;
mod connect;
mod fault;
mod query;
mod settings;
mod text;
mod tls;
mod writer;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{Mutex, mpsc, oneshot, watch};
use tokio::time::Instant;
use tokio_postgres::Error;

use self::connect::{BACKOFF_MAX, BACKOFF_MIN, Connector, Session};
use self::fault::{is_disconnect, store_error};
use self::query::Answer;
pub use self::settings::PostgresTls;
use self::text::writable_name;
use self::writer::{Command, Writer};
use crate::backend::{Backend, BoxFuture};
use crate::background::Background;
use crate::dsn::PostgresDsn;
use crate::error::{Op, StoreError, check_writable};
use crate::request::{
    CompactResponse, CountRequest, CountResponse, GetRequest, GetResponse, ListRequest, ListResponse, Status,
    WatchRequest, WriteRequest, WriteResponse,
};
use crate::types::{KeyRange, Revision};
use crate::watch::{Joined, Page, Pager, Watcher};

/// How many commands may wait for the writer: two commits of the greatest size.
const COMMANDS_WAITING_MAX: usize = 1024;
/// How many connections reads share. One that is busy with a long list holds up those behind it.
const READERS_DEFAULT: usize = 4;
/// How many revisions a compaction leaves in any case; kine's number.
const RETAINED_REVISIONS_DEFAULT: i64 = 1000;
/// How long to try to reach a server that is away: longer than a restart or a failover takes.
const PATIENCE_DEFAULT: Duration = Duration::from_secs(30);

/// How to open a store on a PostgreSQL server.
#[derive(Clone, Debug)]
pub struct PostgresOptions {
    /// Where it is.
    pub dsn: PostgresDsn,
    /// Certificates that were given beside it.
    pub tls: PostgresTls,
    /// How many connections are for reading, at least one.
    pub readers: usize,
    /// How many of the newest revisions a compaction leaves whatever it is asked for.
    pub retained_revisions_min: i64,
    /// How long an operation waits for a server that can't be reached, before it fails.
    pub patience: Duration,
}

impl PostgresOptions {
    /// With the defaults.
    pub fn new(dsn: PostgresDsn) -> Self {
        let (readers, patience) = (READERS_DEFAULT, PATIENCE_DEFAULT);
        Self { dsn, tls: PostgresTls::default(), readers, retained_revisions_min: RETAINED_REVISIONS_DEFAULT, patience }
    }
}

/// A store on a PostgreSQL server. Cloning it shares the store; with its last clone it is closed, after what was asked
/// of it is finished.
#[derive(Clone)]
pub struct Postgres {
    shared: Arc<Shared>,
}

impl fmt::Debug for Postgres {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Postgres")
    }
}

struct Shared {
    link: Arc<Link>,
    /// The writer sees when it is dropped.
    _open: watch::Sender<()>,
}

/// The way to the server. Watchers have it too, and keep no store open with it.
struct Link {
    commands: mpsc::Sender<Command>,
    connector: Connector,
    readers: Vec<Mutex<Option<Arc<Session>>>>,
    turn: AtomicUsize,
}

impl Postgres {
    /// Connects, creates the database and the table if they are missing, and starts the writer, in a task of the event
    /// loop that this is called in, which has to outlive the store. Tries again within the patience.
    ///
    /// # Errors
    /// As [`Postgres::assemble`].
    pub async fn open(options: PostgresOptions) -> Result<Self, StoreError> {
        let deadline = Instant::now() + options.patience;
        let mut pause = BACKOFF_MIN;
        loop {
            match Self::assemble(options.clone()).await {
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

    /// The same without a task, and without patience for a server that is away. The store works while somebody polls
    /// [`Background::run`].
    ///
    /// # Errors
    /// [`StoreError::Unreachable`] when there is nobody to talk to, [`StoreError::Database`] when the server refuses. A
    /// database or a table may have been created.
    pub async fn assemble(options: PostgresOptions) -> Result<(Self, Background), StoreError> {
        let (spawner, mut background) = Background::new();
        let connector = Connector::new(&options, spawner.clone())?;
        let (commands, inbox) = mpsc::channel(COMMANDS_WAITING_MAX);
        let (open, closing) = watch::channel(());
        let retained = options.retained_revisions_min.max(0);
        let starting = async {
            let at_once = connector.with_patience(Duration::ZERO);
            at_once.lay_out().await?;
            let listening = at_once.listen().await?;
            let writer = Writer::start(connector.clone(), listening, retained, inbox, closing).await?;
            spawner.spawn(writer.run()).await.map_err(|_| StoreError::Closed)
        };
        background.until(starting).await?;
        let readers = (0..options.readers.max(1)).map(|_| Mutex::default()).collect();
        let link = Arc::new(Link { commands, connector, readers, turn: AtomicUsize::new(0) });
        Ok((Self { shared: Arc::new(Shared { link, _open: open }) }, background))
    }
}

impl Link {
    /// A connection for reading: the next one in turn.
    async fn reader(&self) -> Result<Arc<Session>, Error> {
        let number = self.turn.fetch_add(1, Ordering::Relaxed) % self.readers.len();
        let mut place = self.readers[number].lock().await;
        if let Some(session) = place.as_ref().filter(|session| !session.is_closed()) {
            return Ok(session.clone());
        }
        let session = Arc::new(self.connector.connect(None).await?);
        *place = Some(session.clone());
        Ok(session)
    }

    /// Asks, and asks again on another connection if the first one breaks: a read may be repeated.
    async fn read<T, F>(&self, op: Op, ask: impl Fn(Arc<Session>) -> F + Send) -> Result<T, StoreError>
    where
        F: Future<Output = Answer<T>> + Send,
    {
        let deadline = Instant::now() + self.connector.patience();
        loop {
            if self.commands.is_closed() {
                return Err(StoreError::Closed);
            }
            let session = self.reader().await.map_err(|error| store_error(op, error))?;
            match ask(session).await {
                Ok(answer) => return answer,
                Err(error) if is_disconnect(&error) && Instant::now() < deadline => {
                    // The connection's task has yet to see what we have seen.
                    tokio::task::yield_now().await;
                }
                Err(error) => return Err(store_error(op, error)),
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

/// For a command that was taken and never answered.
fn unanswered(op: Op) -> StoreError {
    StoreError::Unknown { op, reason: "the writer ended".to_owned() }
}

impl Backend for Postgres {
    async fn write(&self, request: WriteRequest) -> Result<WriteResponse, StoreError> {
        check_writable(&request.key)?;
        writable_name(&request.key)?;
        let answer = self.shared.link.command(|reply| Command::Write { request, reply }).await?;
        answer.unwrap_or_else(|| Err(unanswered(Op::Write)))
    }

    async fn get(&self, request: GetRequest) -> Result<GetResponse, StoreError> {
        let request = &request;
        self.shared.link.read(Op::Get, |session| async move { session.get(request).await }).await
    }

    async fn list(&self, request: ListRequest) -> Result<ListResponse, StoreError> {
        let request = &request;
        self.shared.link.read(Op::List, |session| async move { session.list(request).await }).await
    }

    async fn count(&self, request: CountRequest) -> Result<CountResponse, StoreError> {
        let request = &request;
        self.shared.link.read(Op::Count, |session| async move { session.count(request).await }).await
    }

    async fn watch(&self, request: WatchRequest) -> Result<Watcher, StoreError> {
        let WatchRequest { range, from, events_waiting_max } = request;
        let pager = TablePager { link: self.shared.link.clone(), range: range.clone(), events_waiting_max };
        Watcher::start(range, from, Box::new(pager)).await
    }

    async fn progress(&self) -> Result<Revision, StoreError> {
        let answer = self.shared.link.command(|reply| Command::Progress { reply }).await?;
        answer.ok_or(StoreError::Closed)
    }

    async fn compact(&self, target: Revision) -> Result<CompactResponse, StoreError> {
        let answer = self.shared.link.command(|reply| Command::Compact { target, reply }).await?;
        answer.unwrap_or_else(|| Err(unanswered(Op::Compact)))
    }

    async fn status(&self) -> Result<Status, StoreError> {
        self.shared.link.read(Op::Status, |session| async move { session.status().await }).await
    }
}

struct TablePager {
    link: Arc<Link>,
    range: KeyRange,
    events_waiting_max: usize,
}

impl Pager for TablePager {
    fn page(&self, from: Revision, to: Option<Revision>) -> BoxFuture<'_, Result<Page, StoreError>> {
        let range = &self.range;
        Box::pin(self.link.read(Op::Watch, move |session| async move { session.page(range, from, to).await }))
    }

    fn join(&self) -> BoxFuture<'_, Result<Joined, StoreError>> {
        let (range, waiting_max) = (self.range.clone(), self.events_waiting_max);
        Box::pin(async move {
            let joined = self.link.command(|reply| Command::Join { range, waiting_max, reply }).await?;
            joined.ok_or(StoreError::Closed)
        })
    }
}
