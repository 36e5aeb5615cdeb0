//! The default store: one file in kine's layout.
//!
//! ```text
//!   writes, joins, compaction ──▶ writer ──commit──▶ file + log ◀──snapshots── readers ◀── reads, old events
//!                                  ││  └─new events─▶ watchers                   ││
//!                                  │├─wakes─▶ copier (log into file)             ││
//!                                  │└──────── gate (empty the log) ──────────────┘│
//!                                  └────────▶ index (names to rows) ◀─────────────┘
//! ```
//!
//! The file has the rows, in the order in which they were written. Which of them are a key's is known in memory; that is
//! read from the file when it is opened. Rows that were written or read lately are in memory, too.
//!
//! The threads are `1 + 1 + readers`. They block on their queues and nothing polls. [`Sqlite::open`] starts and joins
//! them; [`Sqlite::assemble`] hands their bodies to somebody who has threads of his own.

mod cache;
mod compact;
mod fault;
mod gate;
mod index;
mod insert;
mod log;
mod open;
mod options;
mod query;
mod row;
mod rows;
mod share;
mod wal;
mod writer;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use rusqlite::wal::CheckpointMode;
use tokio::sync::{mpsc, oneshot};

use self::cache::RowCache;
use self::gate::Gate;
use self::log::{LogKeeper, copy_log};
pub use self::options::SqliteOptions;
use self::query::{Guide, Queries};
use self::writer::{Command, Writer};
use crate::backend::{Backend, BoxFuture};
use crate::error::{Op, StoreError, check_writable};
use crate::request::{
    CompactResponse, Connections, CountRequest, CountResponse, GetRequest, GetResponse, ListRequest, ListResponse,
    Status, WatchRequest, WriteRequest, WriteResponse,
};
use crate::types::{KeyRange, Revision};
use crate::watch::{Joined, Page, Pager, Watcher};

/// How many commands may wait for the writer: two commits of the greatest size. Whoever comes then waits.
const COMMANDS_WAITING_MAX: usize = 1024;
/// How many reads may wait. A read is a few microseconds up to a long list.
const READS_WAITING_MAX: usize = 256;

type Read = Box<dyn for<'c> FnOnce(&mut Queries<'c>) + Send>;

/// What a thread of the store does until the store is closed. It blocks, so it is not for a thread of the event loop.
pub struct Body {
    /// What to call the thread; at most 15 bytes, which is what Linux keeps.
    pub name: String,
    run: Box<dyn FnOnce() + Send>,
}

impl Body {
    /// Works until the store is closed.
    pub fn run(self) {
        (self.run)();
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Body").field("name", &self.name).finish_non_exhaustive()
    }
}

/// A store in a file. Cloning it shares the store. With its last clone the store is closed: what was asked of it is
/// finished, and the threads that [`Sqlite::open`] started are joined, for which the dropping thread waits.
#[derive(Clone)]
pub struct Sqlite {
    shared: Arc<Shared>,
}

impl fmt::Debug for Sqlite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sqlite").field("path", &self.shared.link.path).finish_non_exhaustive()
    }
}

/// The way to the threads. Watchers have it too, and keep no store open with it.
struct Link {
    commands: mpsc::Sender<Command>,
    reads: mpsc::Sender<Read>,
    path: PathBuf,
    /// The newest revision, as the writer keeps it; below zero until it has looked.
    latest: Arc<AtomicI64>,
}

struct Shared {
    link: Arc<Link>,
    closing: Arc<AtomicBool>,
    readers: usize,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Sqlite {
    /// Opens or creates the file and starts the threads. Blocks while it looks through the file.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] when the file isn't whole or holds something else, [`StoreError::Locked`] when another
    /// process has it, [`StoreError::Full`], [`StoreError::Database`]. The file is left as it was, except that a
    /// missing one may have been created.
    pub fn open(options: SqliteOptions) -> Result<Self, StoreError> {
        let (store, bodies) = Self::assemble(options)?;
        for body in bodies {
            let spawned = std::thread::Builder::new().name(body.name.clone()).spawn(move || body.run());
            let spawned = spawned.map_err(|error| StoreError::Database { op: Op::Open, source: Arc::new(error) })?;
            store.shared.threads().push(spawned);
        }
        Ok(store)
    }

    /// The same, but the caller gives each of the bodies a thread, and sees to the threads' end after closing the
    /// store. Until then nothing is answered. When a body panics, the others go on and [`StoreError::Unknown`] or
    /// [`StoreError::Closed`] tells who needs it.
    ///
    /// # Errors
    /// As [`Sqlite::open`].
    pub fn assemble(options: SqliteOptions) -> Result<(Self, Vec<Body>), StoreError> {
        let open::Opened { connection, index, marker } = open::open_for_writing(&options)?;
        let cache = Arc::new(RowCache::new(options.cache_bytes_max));
        let guide = Guide { path: options.path.as_path().into(), index: Arc::new(index), cache, marker };
        try_questions(&connection, &guide)?;
        let fault = |error| fault::store_error(Op::Open, &options.path, error);
        let (gate, closing) = (Arc::new(Gate::default()), Arc::new(AtomicBool::new(false)));
        let (commands, command_inbox) = mpsc::channel(COMMANDS_WAITING_MAX);
        let (reads, read_inbox) = mpsc::channel(READS_WAITING_MAX);
        let (log, copy_inbox) = LogKeeper::new(&connection, gate.clone(), &options).map_err(fault)?;
        let mut bodies = Vec::new();
        let mut body = |name: String, run: Box<dyn FnOnce() + Send>| bodies.push(Body { name, run });

        let copier = open::open_beside(&options, false)?;
        body("store-copier".to_owned(), Box::new(move || copy_log(&copier, &copy_inbox)));
        let read_inbox = Arc::new(Mutex::new(read_inbox));
        let readers = options.readers.max(1);
        for number in 0..readers {
            let connection = open::open_beside(&options, true)?;
            let (guide, inbox) = (guide.clone(), read_inbox.clone());
            let (helpers, gate, closing) = (reads.downgrade(), gate.clone(), closing.clone());
            let run = move || answer_reads(&connection, &guide, helpers, &inbox, &gate, &closing);
            body(format!("store-reader-{number}"), Box::new(run));
        }
        let (retained, keep_log) = (options.retained_revisions_min.max(0), options.keep_log);
        let latest = Arc::new(AtomicI64::new(-1));
        let published = latest.clone();
        let run = move || {
            write(&connection, &guide, log, retained, published, command_inbox);
            if !keep_log {
                empty_log(&connection, &guide.path);
            }
        };
        body("store-writer".to_owned(), Box::new(run));

        let link = Arc::new(Link { commands, reads, path: options.path, latest });
        let shared = Shared { link, closing, readers, threads: Mutex::default() };
        Ok((Self { shared: Arc::new(shared) }, bodies))
    }

    /// Closes the store for all clones and watchers, and waits for its threads if it started them. What was asked
    /// before is finished; what is asked after fails with [`StoreError::Closed`]. Blocks for a commit or a long read.
    pub fn close(&self) {
        self.shared.close();
    }
}

/// Refuses a file on which the threads could not prepare their questions: the schema is text in it, and as easily damaged
/// as the rest.
fn try_questions(connection: &rusqlite::Connection, guide: &Guide) -> Result<(), StoreError> {
    let path = &*guide.path;
    let prepare = || {
        Queries::prepare(connection, guide)?.bounds()?;
        writer::try_statements(connection, guide)
    };
    prepare().map_err(|error| {
        let detail = error.to_string();
        match fault::store_error(Op::Open, path, error) {
            StoreError::Database { .. } => StoreError::Damaged { path: path.to_owned(), detail },
            other => other,
        }
    })
}

/// The body of the writer's thread.
fn write(
    connection: &rusqlite::Connection,
    guide: &Guide,
    log: LogKeeper,
    retained_revisions_min: i64,
    latest: Arc<AtomicI64>,
    mut inbox: mpsc::Receiver<Command>,
) {
    match Writer::prepare(connection, guide, log, retained_revisions_min, latest) {
        Ok(mut writer) => {
            writer.run(&mut inbox);
        }
        // Opening has made sure of every table and index that the statements name.
        Err(error) => {
            tracing::error!(%error, path = %guide.path.display(), "the writer could not prepare its statements");
        }
    }
}

/// The last thing the writer does. SQLite does this with the last connection, but not when two of them end at once.
fn empty_log(connection: &rusqlite::Connection, path: &Path) {
    if let Err(error) = connection.wal_checkpoint_v2(Some(rusqlite::MAIN_DB), CheckpointMode::TRUNCATE) {
        tracing::warn!(%error, path = %path.display(), "the write-ahead log stays until the next start");
    }
}

/// The body of a reader's thread.
fn answer_reads(
    connection: &rusqlite::Connection,
    guide: &Guide,
    helpers: mpsc::WeakSender<Read>,
    inbox: &Mutex<mpsc::Receiver<Read>>,
    gate: &Gate,
    closing: &AtomicBool,
) {
    let mut queries = match Queries::prepare(connection, guide) {
        Ok(queries) => queries.helped(helpers),
        Err(error) => {
            tracing::error!(%error, path = %guide.path.display(), "a reader could not prepare its statements");
            return;
        }
    };
    while !closing.load(Ordering::Acquire) {
        // Whoever has the lock waits for the next read, the others wait for the lock.
        let read = inbox.lock().unwrap_or_else(PoisonError::into_inner).blocking_recv();
        let Some(read) = read else { return };
        let inside = gate.enter();
        read(&mut queries);
        drop(inside);
    }
}

impl Shared {
    fn threads(&self) -> std::sync::MutexGuard<'_, Vec<JoinHandle<()>>> {
        self.threads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn close(&self) {
        let first = !self.closing.swap(true, Ordering::AcqRel);
        if first {
            // A full queue wakes its thread without our doing, which then sees the flag.
            for _ in 0..self.readers {
                drop(self.link.reads.try_send(Box::new(|_| ())));
            }
            let commands = self.link.commands.clone();
            // Full here means a thousand writes: the writer frees a place within a commit.
            while let Err(mpsc::error::TrySendError::Full(_)) = commands.try_send(Command::Stop) {
                std::thread::yield_now();
            }
        }
        for thread in std::mem::take(&mut *self.threads()) {
            if thread.join().is_err() {
                tracing::error!(path = %self.link.path.display(), "a thread of the store had panicked");
            }
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.close();
    }
}

impl Link {
    /// Has a reader's thread answer a question.
    async fn read<T: Send + 'static>(
        &self,
        ask: impl FnOnce(&mut Queries<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (reply, answer) = oneshot::channel();
        let read: Read = Box::new(move |queries| {
            // Nobody waits for what was given up while it stood in the queue.
            if !reply.is_closed() {
                drop(reply.send(ask(queries)));
            }
        });
        self.reads.send(read).await.map_err(|_| StoreError::Closed)?;
        answer.await.map_err(|_| StoreError::Closed)?
    }

    /// Asks the writer; `None` when it is gone, before or after it took the command.
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

impl Backend for Sqlite {
    async fn write(&self, request: WriteRequest) -> Result<WriteResponse, StoreError> {
        check_writable(&request.key)?;
        let answer = self.shared.link.command(|reply| Command::Write { request, reply }).await?;
        answer.unwrap_or_else(|| Err(unanswered(Op::Write)))
    }

    async fn get(&self, request: GetRequest) -> Result<GetResponse, StoreError> {
        self.shared.link.read(move |queries| queries.get(&request)).await
    }

    async fn list(&self, request: ListRequest) -> Result<ListResponse, StoreError> {
        self.shared.link.read(move |queries| queries.list(&request)).await
    }

    async fn count(&self, request: CountRequest) -> Result<CountResponse, StoreError> {
        self.shared.link.read(move |queries| queries.count(&request)).await
    }

    async fn watch(&self, request: WatchRequest) -> Result<Watcher, StoreError> {
        let WatchRequest { range, from, events_waiting_max } = request;
        let pager = LogPager { link: self.shared.link.clone(), range: range.clone(), events_waiting_max };
        Watcher::start(range, from, Box::new(pager)).await
    }

    fn latest(&self) -> Option<Revision> {
        let latest = self.shared.link.latest.load(Ordering::Acquire);
        (latest >= 0).then(|| Revision::new(latest))
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
        let log = open::beside(&self.shared.link.path, "-wal");
        self.shared.link.read(move |queries| queries.status(&log)).await
    }

    /// One for each thread: the readers', the writer's, and that of the one who copies the log.
    fn connections(&self) -> Connections {
        let threads = self.shared.readers as u64 + 2;
        Connections { open: threads, max: threads }
    }
}

struct LogPager {
    link: Arc<Link>,
    range: KeyRange,
    events_waiting_max: usize,
}

impl Pager for LogPager {
    fn page(&self, from: Revision, to: Option<Revision>) -> BoxFuture<'_, Result<Page, StoreError>> {
        let range = self.range.clone();
        Box::pin(self.link.read(move |queries| queries.page(&range, from, to)))
    }

    fn join(&self) -> BoxFuture<'_, Result<Joined, StoreError>> {
        let (range, waiting_max) = (self.range.clone(), self.events_waiting_max);
        Box::pin(async move {
            let joined = self.link.command(|reply| Command::Join { range, waiting_max, reply }).await?;
            joined.ok_or(StoreError::Closed)
        })
    }
}
