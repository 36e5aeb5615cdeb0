//! Dropping history, in transactions of a bounded size between the writer's commits.

use tokio::sync::oneshot;

use super::database::Session;
use crate::error::StoreError;
use crate::request::CompactResponse;
use crate::types::Revision;

/// How many revisions a step looks at; kine's batch.
const STEP_REVISIONS: i64 = 1000;

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

/// Does the next step, from wherever this or another server has left off. Answers with the compacted revision.
pub(super) async fn step<S: Session>(session: &S, target: Revision) -> Result<Revision, S::Error> {
    session.begin(false).await?;
    let bounds = session.bounds().await?;
    let compacted = bounds.compacted;
    let to = target.min(Revision::new(compacted.get().saturating_add(STEP_REVISIONS)));
    if to > compacted {
        // The row at the compacted revision is looked at again: if it was the newest one then, it was kept.
        session.drop_history(compacted.previous(), to, bounds.revision).await?;
    }
    session.commit().await?;
    Ok(compacted.max(to))
}
