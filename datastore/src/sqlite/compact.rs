//! Work between commits, in steps that a writer hardly notices: dropping history, and giving back the space.
//!
//! Each step is a transaction of its own that also moves the compacted revision, so a crash leaves a store compacted up
//! to a step. Steps do not wait for the disk: losing the last ones in a crash means only that they are done again.

use std::time::{Duration, Instant};

use rusqlite::{Connection, Statement};
use tokio::sync::oneshot;

use crate::error::StoreError;
use crate::request::CompactResponse;
use crate::types::Revision;

/// How long a step is meant to take; a fifth of the longest that a writer may be held up.
const STEP_TARGET: Duration = Duration::from_millis(2);
/// How many revisions the first step looks at.
const STEP_REVISIONS_FIRST: i64 = 32;
/// The least and the most a step looks at, however long it takes.
pub(super) const STEP_REVISIONS_LEAST: i64 = 4;
pub(super) const STEP_REVISIONS_MOST: i64 = 1024;
/// How many revisions a step looks at for each write of the commit before it. A step writes pages of the log without
/// waiting for them, and the next commit waits in its stead; yet dropping has to be quicker than writing.
pub(super) const STEP_REVISIONS_PER_WRITE: i64 = 2;
/// How many free pages a step gives back: a quarter of a MiB.
const STEP_PAGES: i64 = 64;
/// Free pages that are not worth the work: the next writes take them.
const FREE_PAGES_KEPT: i64 = 256;

/// Rows that were replaced by a row of the step. The marker's `prev_revision` is no row.
const DELETE_REPLACED: &str = "DELETE FROM kine WHERE id IN (SELECT prev_revision FROM kine
    WHERE id > ?1 AND id <= ?2 AND prev_revision != 0 AND name != 'compact_rev_key')";
/// Deletes of the step, and fillers of gaps. The newest row stays in any case: it is the revision of the store.
const DELETE_DELETED: &str =
    "DELETE FROM kine WHERE id > ?1 AND id <= ?2 AND deleted != 0 AND id < (SELECT max(id) FROM kine)";
const MOVE_MARKER: &str = "UPDATE kine SET prev_revision = ?1 WHERE id = ?2";

/// Who waits for a compaction.
pub(super) type Waiter = oneshot::Sender<Result<CompactResponse, StoreError>>;

/// A compaction under way.
pub(super) struct Compaction {
    target: Revision,
    step_revisions: i64,
    waiters: Vec<(Revision, Waiter)>,
}

impl Compaction {
    pub(super) fn new() -> Self {
        Self { target: Revision::ZERO, step_revisions: STEP_REVISIONS_FIRST, waiters: Vec::new() }
    }

    /// Goes at least so far, and tells the waiter when it is there.
    pub(super) fn extend(&mut self, target: Revision, waiter: Waiter) {
        self.target = self.target.max(target);
        self.waiters.push((target, waiter));
    }

    /// Tells those who asked for no more than `compacted`. Whether anything is left to do.
    pub(super) fn advanced(&mut self, revision: Revision, compacted: Revision) -> bool {
        for (target, waiter) in std::mem::take(&mut self.waiters) {
            if target <= compacted {
                // Nobody may be waiting any more.
                waiter.send(Ok(CompactResponse { revision, compacted })).unwrap_or_default();
            } else {
                self.waiters.push((target, waiter));
            }
        }
        compacted < self.target
    }

    /// Tells everybody that it went wrong.
    pub(super) fn failed(self, error: &StoreError) {
        for (_, waiter) in self.waiters {
            waiter.send(Err(error.clone())).unwrap_or_default();
        }
    }
}

/// The statements of a step.
pub(super) struct Compactor<'c> {
    connection: &'c Connection,
    /// The number of the row that says how far history is dropped.
    marker: i64,
    delete_replaced: Statement<'c>,
    delete_deleted: Statement<'c>,
    move_marker: Statement<'c>,
}

impl<'c> Compactor<'c> {
    pub(super) fn prepare(connection: &'c Connection, marker: i64) -> rusqlite::Result<Self> {
        Ok(Self {
            connection,
            marker,
            delete_replaced: connection.prepare(DELETE_REPLACED)?,
            delete_deleted: connection.prepare(DELETE_DELETED)?,
            move_marker: connection.prepare(MOVE_MARKER)?,
        })
    }

    /// Does the next step after `compacted`, over so many revisions at most, and answers with the new compacted
    /// revision.
    pub(super) fn step(
        &mut self,
        compaction: &mut Compaction,
        compacted: Revision,
        revisions_max: i64,
    ) -> rusqlite::Result<Revision> {
        let started = Instant::now();
        let revisions = compaction.step_revisions.min(revisions_max);
        let to = compaction.target.get().min(compacted.get().saturating_add(revisions));
        // The row at the compacted revision is looked at again: if it was the newest one then, its delete was kept.
        let from = compacted.get() - 1;
        self.connection.execute_batch("PRAGMA synchronous = NORMAL; BEGIN IMMEDIATE")?;
        self.delete_replaced.execute((from, to))?;
        self.delete_deleted.execute((from, to))?;
        self.move_marker.execute([to, self.marker])?;
        self.connection.execute_batch("COMMIT; PRAGMA synchronous = FULL")?;
        let taken = started.elapsed();
        compaction.step_revisions = if taken > STEP_TARGET {
            (compaction.step_revisions / 2).max(STEP_REVISIONS_LEAST)
        } else if taken < STEP_TARGET / 4 {
            (compaction.step_revisions * 2).min(STEP_REVISIONS_MOST)
        } else {
            compaction.step_revisions
        };
        Ok(Revision::new(to))
    }

    /// Gives some free pages back to the file system, if more than a quarter of the file is free. Whether more are to
    /// be given back; a quarter stays, because a store in use fills it again.
    pub(super) fn give_back(&self) -> rusqlite::Result<bool> {
        let number = |pragma| self.connection.query_row(pragma, [], |row| row.get::<_, i64>(0));
        let excess = || -> rusqlite::Result<i64> {
            let (free, pages) = (number("PRAGMA freelist_count")?, number("PRAGMA page_count")?);
            Ok(free - FREE_PAGES_KEPT.max(pages / 4))
        };
        if excess()? <= 0 {
            return Ok(false);
        }
        self.connection.execute_batch("PRAGMA synchronous = NORMAL")?;
        // It gives back a page per row.
        let mut vacuum = self.connection.prepare(&format!("PRAGMA incremental_vacuum({STEP_PAGES})"))?;
        let mut rows = vacuum.query([])?;
        while rows.next()?.is_some() {}
        drop(rows);
        self.connection.execute_batch("PRAGMA synchronous = FULL")?;
        Ok(excess()? > 0)
    }

    /// Leaves the connection as it was before a step that failed.
    pub(super) fn abandon(&self) {
        abandon(self.connection);
    }
}

/// Ends a transaction that failed, and demands durability again.
pub(super) fn abandon(connection: &Connection) {
    // SQLite may have rolled back by itself, and a rollback that fails has no better way out than the next BEGIN.
    if !connection.is_autocommit()
        && let Err(error) = connection.execute_batch("ROLLBACK")
    {
        tracing::warn!(%error, "a failed transaction could not be rolled back");
    }
    if let Err(error) = connection.execute_batch("PRAGMA synchronous = FULL") {
        tracing::warn!(%error, "the connection could not be set back to durable commits");
    }
}
