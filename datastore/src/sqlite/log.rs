//! Keeps the write-ahead log short.
//!
//! ```text
//!   after each commit:   short ──▶ nothing
//!                        4 MiB more than last time ──▶ a thread copies it into the file, beside readers and writers
//!                        a quarter of what is allowed ──▶ gate closed; emptied as soon as no reader is inside
//!                        half of it ──▶ the writer waits for that
//! ```

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use rusqlite::{Connection, MAIN_DB, wal::CheckpointMode};

use super::gate::Gate;
use super::options::SqliteOptions;

/// How much log is copied into the file at a time; SQLite's own choice, too.
const COPY_BYTES: u64 = 4 << 20;
/// The least that the log may be bounded to: room for a few copies and the greatest commits.
const LOG_BYTES_LEAST: u64 = 8 << 20;
/// What a page in the log has in front of it.
const FRAME_HEADER_BYTES: u64 = 24;
/// How long the writer looks for the readers to leave, before it sees to the next write.
const GATE_LOOK: Duration = Duration::from_millis(1);
/// How long it does when the log is nearly full. Reads are finite; the limit is there to notice a bug, not to hide one.
const GATE_WAIT: Duration = Duration::from_secs(30);

/// The writer's side.
pub(super) struct LogKeeper {
    gate: Arc<Gate>,
    copier: SyncSender<()>,
    frame_bytes: u64,
    log_bytes_max: u64,
    /// The length at which the copier was last woken.
    copied_at: u64,
    closed: bool,
    /// The log belongs to another program.
    left_alone: bool,
}

impl LogKeeper {
    /// With the inbox of the thread that copies.
    pub(super) fn new(
        connection: &Connection,
        gate: Arc<Gate>,
        options: &SqliteOptions,
    ) -> rusqlite::Result<(Self, Receiver<()>)> {
        // One wake-up at a time is enough: a copy takes all there is.
        let (copier, inbox) = sync_channel(1);
        let page_bytes = connection.query_row("PRAGMA page_size", [], |row| row.get::<_, i64>(0))?;
        let frame_bytes = page_bytes.unsigned_abs() + FRAME_HEADER_BYTES;
        let log_bytes_max = options.log_bytes_max.max(LOG_BYTES_LEAST);
        let left_alone = options.keep_log;
        Ok((Self { gate, copier, frame_bytes, log_bytes_max, copied_at: 0, closed: false, left_alone }, inbox))
    }

    /// Whether the gate is closed, and the writer has to come back.
    pub(super) fn is_waiting(&self) -> bool {
        self.closed
    }

    /// To be called after every commit, and again while [`Self::is_waiting`].
    pub(super) fn tend(&mut self, connection: &Connection) {
        if self.left_alone {
            return;
        }
        let Ok((frames, _)) = connection.wal_checkpoint_v2(Some(MAIN_DB), CheckpointMode::NOOP) else { return };
        let log_bytes = u64::try_from(frames).unwrap_or(0) * self.frame_bytes;
        if log_bytes < self.log_bytes_max / 4 && !self.closed {
            // The log was started over.
            if log_bytes < self.copied_at {
                self.copied_at = 0;
            }
            if log_bytes >= self.copied_at + COPY_BYTES {
                self.copied_at = log_bytes;
                // Full means that it is awake; gone means that the store is being closed.
                self.copier.try_send(()).unwrap_or_default();
            }
            return;
        }
        if !self.closed {
            self.gate.close();
            self.closed = true;
        }
        // The greatest commit takes some 20 MiB of log: 512 rows, a handful of index pages each, and 8 MiB of values.
        let nearly_full = log_bytes >= self.log_bytes_max / 2;
        if self.gate.wait_empty(if nearly_full { GATE_WAIT } else { GATE_LOOK }) {
            self.empty(connection);
        } else if nearly_full {
            tracing::warn!(log_bytes, "a read of {GATE_WAIT:?} keeps the write-ahead log from being emptied");
        }
    }

    fn empty(&mut self, connection: &Connection) {
        // The next commit starts at the front. The file keeps its length, so that commits need not grow it again. With
        // nobody inside this fails only for want of space or a failing disk, and the next commit tries again.
        if let Err(error) = connection.wal_checkpoint_v2(Some(MAIN_DB), CheckpointMode::RESTART) {
            tracing::warn!(%error, "the write-ahead log could not be emptied");
        }
        self.copied_at = 0;
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

/// The body of the thread that copies the log into the file. Ends with the writer.
pub(super) fn copy_log(connection: &Connection, inbox: &Receiver<()>) {
    while inbox.recv().is_ok() {
        match connection.wal_checkpoint_v2(Some(MAIN_DB), CheckpointMode::PASSIVE) {
            Ok(_) => {}
            // The writer is emptying the log this moment.
            Err(error) if error.sqlite_error_code() == Some(rusqlite::ErrorCode::DatabaseBusy) => {}
            Err(error) => tracing::warn!(%error, "the write-ahead log could not be copied into the database"),
        }
    }
}
