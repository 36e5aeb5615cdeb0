//! Dropping history, in transactions of a bounded size between the writer's commits.

use tokio::sync::oneshot;
use tokio_postgres::Error;

use super::connect::Session;
use super::writer::LOCK;
use crate::error::StoreError;
use crate::request::CompactResponse;
use crate::types::Revision;

/// How many revisions a step looks at; kine's batch.
const STEP_REVISIONS: i64 = 1000;

/// Rows that were replaced by a row of the step. The marker's `prev_revision` is no row.
const DELETE_REPLACED: &str = "DELETE FROM kine AS old USING kine AS new WHERE old.id = new.prev_revision
    AND new.id > $1 AND new.id <= $2 AND new.prev_revision <> 0 AND new.name <> 'compact_rev_key'";
/// Deletes of the step, and fillers of gaps. The newest row stays in any case: it is the revision of the store.
const DELETE_DELETED: &str = "DELETE FROM kine WHERE id > $1 AND id <= $2 AND deleted <> 0
    AND id < (SELECT max(id) FROM kine)";
const MOVE_MARKER: &str = "UPDATE kine SET prev_revision = $1 WHERE name = 'compact_rev_key'";

pub(super) type Waiter = oneshot::Sender<Result<CompactResponse, StoreError>>;

/// A compaction under way.
#[derive(Default)]
pub(super) struct Compaction {
    waiters: Vec<(Revision, Waiter)>,
}

impl Compaction {
    /// Goes at least so far, and tells the waiter when it is there.
    pub(super) fn extend(&mut self, target: Revision, waiter: Waiter) {
        self.waiters.push((target, waiter));
    }

    /// Tells those who asked for no more than `compacted`.
    pub(super) fn advanced(&mut self, revision: Revision, compacted: Revision) {
        for (target, waiter) in std::mem::take(&mut self.waiters) {
            if target <= compacted {
                // Nobody may be waiting any more.
                waiter.send(Ok(CompactResponse { revision, compacted })).unwrap_or_default();
            } else {
                self.waiters.push((target, waiter));
            }
        }
    }

    /// How far it has to go; none when everybody was told.
    pub(super) fn target(&self) -> Option<Revision> {
        self.waiters.iter().map(|(target, _)| *target).max()
    }

    /// Tells everybody that it went wrong.
    pub(super) fn failed(&mut self, error: &StoreError) {
        for (_, waiter) in self.waiters.drain(..) {
            waiter.send(Err(error.clone())).unwrap_or_default();
        }
    }
}

impl Session {
    /// Does the next step, from wherever this or another server has left off. Answers with the compacted revision.
    pub(super) async fn compact_step(&self, target: Revision) -> Result<Revision, Error> {
        self.batch("BEGIN").await?;
        self.batch(LOCK).await?;
        let compacted = self.bounds().await?.compacted;
        let to = target.get().min(compacted.get().saturating_add(STEP_REVISIONS));
        if to > compacted.get() {
            // The row at the compacted revision is looked at again: if it was the newest one then, it was kept.
            let from = compacted.get() - 1;
            self.query(DELETE_REPLACED, &[&from, &to]).await?;
            self.query(DELETE_DELETED, &[&from, &to]).await?;
            self.query(MOVE_MARKER, &[&to]).await?;
        }
        self.batch("COMMIT").await?;
        Ok(compacted.max(Revision::new(to)))
    }
}
