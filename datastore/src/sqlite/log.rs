//! Keeps the write-ahead log short.
//!
//! ```text
//!   after each commit:   short ──▶ nothing
//!                        some more than last time ──▶ a thread copies it into the file, beside readers and writers
//!                        three eighths of what is allowed ──▶ the thread goes on until little is left; then the gate is
//!                                closed, and with no reader inside the writer copies the rest and starts the log over
//!                        half of it ──▶ the writer waits for all of that
//! ```
//!
//! Only one of the two copies at a time; SQLite would refuse the second.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rusqlite::{Connection, MAIN_DB, wal::CheckpointMode};

use super::gate::Gate;
use super::options::SqliteOptions;

/// How much log is copied into the file at a time. Rows are only appended, so that less at a time is hardly more
/// altogether; and each copy ends with a wait for the disk, in which commits wait, too.
const COPY_BYTES: u64 = 2 << 20;
/// How much log the writer may copy by itself while it starts the log over: about a millisecond.
const REST_BYTES: u64 = 1 << 20;
/// The least that the log may be bounded to: room for a few copies and the greatest commits.
const LOG_BYTES_LEAST: u64 = 8 << 20;
/// What a page in the log has in front of it.
const FRAME_HEADER_BYTES: u64 = 24;
/// How long a writer that has nothing else to do looks for the readers to leave, before it sees to the next write.
const GATE_LOOK: Duration = Duration::from_millis(1);
/// How long it does when the log is nearly full. Reads are finite; the limit is there to notice a bug, not to hide one.
const GATE_WAIT: Duration = Duration::from_secs(30);

/// Who is copying: shared by the writer and the copier.
#[derive(Default)]
struct Copying {
    /// The copier was woken and is not done.
    busy: Mutex<bool>,
    done: Condvar,
}

impl Copying {
    fn lock(&self) -> MutexGuard<'_, bool> {
        // A flag is whole whatever happened to who held it.
        self.busy.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_busy(&self) -> bool {
        *self.lock()
    }

    /// Waits for the copier, at most so long. Whether it is done.
    fn wait(&self, limit: Duration) -> bool {
        let waited = self.done.wait_timeout_while(self.lock(), limit, |busy| *busy);
        !*waited.unwrap_or_else(PoisonError::into_inner).0
    }

    fn set(&self, busy: bool) {
        *self.lock() = busy;
        self.done.notify_all();
    }
}

/// How the log is.
struct Length {
    bytes: u64,
    /// What of it is not in the file yet.
    rest_bytes: u64,
}

/// The writer's side.
pub(super) struct LogKeeper {
    gate: Arc<Gate>,
    copying: Arc<Copying>,
    copier: SyncSender<()>,
    frame_bytes: u64,
    log_bytes_max: u64,
    closed: bool,
    /// The log belongs to another program.
    left_alone: bool,
}

/// The copier's side.
pub(super) struct CopyInbox {
    wakes: Receiver<()>,
    copying: Arc<Copying>,
}

impl LogKeeper {
    /// With the inbox of the thread that copies.
    pub(super) fn new(
        connection: &Connection,
        gate: Arc<Gate>,
        options: &SqliteOptions,
    ) -> rusqlite::Result<(Self, CopyInbox)> {
        // One wake-up at a time is enough: a copy takes all there is.
        let (copier, wakes) = sync_channel(1);
        let page_bytes = connection.query_row("PRAGMA page_size", [], |row| row.get::<_, i64>(0))?;
        let frame_bytes = page_bytes.unsigned_abs() + FRAME_HEADER_BYTES;
        let log_bytes_max = options.log_bytes_max.max(LOG_BYTES_LEAST);
        let copying = Arc::new(Copying::default());
        let inbox = CopyInbox { wakes, copying: copying.clone() };
        let left_alone = options.keep_log;
        Ok((Self { gate, copying, copier, frame_bytes, log_bytes_max, closed: false, left_alone }, inbox))
    }

    /// Whether the gate is closed, and the writer has to come back.
    pub(super) fn is_waiting(&self) -> bool {
        self.closed
    }

    /// Has the log copied into the file, unless that is happening already.
    pub(super) fn copy(&self) {
        if !self.left_alone && !self.copying.is_busy() {
            self.copying.set(true);
            if self.copier.try_send(()).is_err() {
                // Gone: the store is being closed.
                self.copying.set(false);
            }
        }
    }

    /// To be called after every commit, and again while [`Self::is_waiting`]. Whoever has time waits a moment for
    /// readers to leave.
    pub(super) fn tend(&mut self, connection: &Connection, has_time: bool) {
        if self.left_alone {
            return;
        }
        let Some(length) = self.length(connection) else { return };
        // The greatest commit takes some 10 MiB of log: 8 MiB of values, and the rest of their pages.
        if length.bytes >= self.log_bytes_max / 2 {
            self.insist(connection, &length);
        } else if self.closed || length.bytes >= self.log_bytes_max / 8 * 3 {
            self.approach(connection, &length, has_time);
        } else if length.rest_bytes >= COPY_BYTES {
            self.copy();
        }
    }

    fn length(&self, connection: &Connection) -> Option<Length> {
        let (frames, copied) = connection.wal_checkpoint_v2(Some(MAIN_DB), CheckpointMode::NOOP).ok()?;
        let (frames, copied) = (u64::try_from(frames).unwrap_or(0), u64::try_from(copied).unwrap_or(0));
        let rest_bytes = frames.saturating_sub(copied) * self.frame_bytes;
        Some(Length { bytes: frames * self.frame_bytes, rest_bytes })
    }

    /// Towards starting the log over without holding up the writer.
    fn approach(&mut self, connection: &Connection, length: &Length, has_time: bool) {
        if self.copying.is_busy() {
            if has_time {
                self.copying.wait(GATE_LOOK);
            }
            return;
        }
        if length.rest_bytes > REST_BYTES {
            return self.copy();
        }
        self.close();
        if self.gate.wait_empty(if has_time { GATE_LOOK } else { Duration::ZERO }) {
            self.start_over(connection);
        }
    }

    /// The log must not get longer.
    fn insist(&mut self, connection: &Connection, length: &Length) {
        self.close();
        if self.copying.wait(GATE_WAIT) && self.gate.wait_empty(GATE_WAIT) {
            self.start_over(connection);
        } else {
            let log_bytes = length.bytes;
            tracing::warn!(log_bytes, "a read of {GATE_WAIT:?} keeps the write-ahead log from being emptied");
        }
    }

    fn close(&mut self) {
        if !self.closed {
            self.gate.close();
            self.closed = true;
        }
    }

    fn start_over(&mut self, connection: &Connection) {
        // The next commit starts at the front. The file keeps its length, so that commits need not grow it again. With
        // nobody inside this fails only for want of space or a failing disk, and the next commit tries again.
        if let Err(error) = connection.wal_checkpoint_v2(Some(MAIN_DB), CheckpointMode::RESTART) {
            tracing::warn!(%error, "the write-ahead log could not be emptied");
        }
        self.closed = false;
        self.gate.open();
    }
}

/// Readers must not wait for a writer that is gone.
impl Drop for LogKeeper {
    fn drop(&mut self) {
        self.gate.open();
    }
}

/// The writer must not wait for a copier that is gone.
struct Done<'c>(&'c Copying);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.set(false);
    }
}

/// The body of the thread that copies the log into the file. Ends with the writer.
pub(super) fn copy_log(connection: &Connection, inbox: &CopyInbox) {
    while inbox.wakes.recv().is_ok() {
        let done = Done(&inbox.copying);
        if let Err(error) = connection.wal_checkpoint_v2(Some(MAIN_DB), CheckpointMode::PASSIVE) {
            tracing::warn!(%error, "the write-ahead log could not be copied into the database");
        }
        drop(done);
    }
}
