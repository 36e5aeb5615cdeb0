//! Reads the feed.
//!
//! Owns:    the feed. What it publishes lies outside of it.
//! Needs:   the store; one that does not answer is asked again.
//! Restart: permanent. It goes on behind the last revision that it dispatched; caches know what they have seen.
//! Fails:   never.

use std::sync::Arc;
use std::time::Duration;

use k3sd_client::storage::{Feed, FeedEnd, FeedMessage, Revision, Storage, StorageError};
use k3sd_runtime::{ActorError, Backoff, TaskHandle};

use super::Log;

/// The pauses between attempts to reach a store that does not answer.
pub(crate) const RETRY: Backoff = Backoff {
    free_attempts: 1,
    delay_min: Duration::from_millis(10),
    delay_max: Duration::from_secs(1),
    factor: 2.0,
    jitter: 0.2,
    reset_after: Duration::from_secs(60),
};

/// What the actor does.
pub(crate) async fn run(task: TaskHandle, log: Arc<Log>, storage: Arc<dyn Storage>) -> Result<(), ActorError> {
    let (clock, mut rng) = (task.system().clock().clone(), task.rng());
    let mut attempt = 0;
    loop {
        match open(&log, &*storage).await {
            Ok(feed) => {
                let before = log.dispatched();
                let end = follow(&log, feed).await;
                if let FeedEnd::Compacted(_) = end {
                    tracing::warn!("history is gone that the caches did not see; they list again");
                    log.forget(&*storage).await.unwrap_or_else(|error| {
                        tracing::debug!(%error, "the store does not say where it is");
                    });
                }
                attempt = if log.dispatched() > before { 0 } else { attempt + 1 };
            }
            Err(error) => {
                tracing::debug!(%error, "the store has no feed now");
                attempt += 1;
            }
        }
        clock.sleep_until(clock.now() + RETRY.delay(attempt, &mut rng)).await;
    }
}

/// Opens the feed behind what was dispatched.
async fn open(log: &Log, storage: &dyn Storage) -> Result<Box<dyn Feed>, StorageError> {
    if log.dispatched.borrow().is_none() {
        log.dispatched.send_replace(Some(storage.progress().await?));
    }
    match storage.watch(bytes::Bytes::new(), Some(log.dispatched().next())).await {
        // Another history than the one that was followed: an older copy of the database was put in place.
        Err(StorageError::Compacted { .. } | StorageError::Future { .. }) => {
            log.forget(storage).await?;
            storage.watch(bytes::Bytes::new(), Some(log.dispatched().next())).await
        }
        other => other,
    }
}

/// Deals what comes, until the feed ends.
async fn follow(log: &Log, mut feed: Box<dyn Feed>) -> FeedEnd {
    loop {
        match feed.next().await {
            FeedMessage::Events(events) => {
                let Some(last) = events.last().map(|event| event.revision) else { continue };
                let routes = log.routes.borrow().clone();
                routes.deal(events);
                log.advance(last);
            }
            FeedMessage::Progress(revision) => log.advance(revision),
            FeedMessage::Ended(end) => return end,
        }
    }
}

impl Log {
    fn advance(&self, revision: Revision) {
        self.dispatched.send_if_modified(|dispatched| {
            let newer = Some(revision) > *dispatched;
            if newer {
                *dispatched = Some(revision);
            }
            newer
        });
    }

    /// Begins anew at the store's revision: every cache has to list.
    async fn forget(&self, storage: &dyn Storage) -> Result<(), StorageError> {
        let revision = storage.progress().await?;
        let routes = self.routes.borrow().clone();
        for route in routes.all() {
            route.lose(revision);
        }
        self.dispatched.send_replace(Some(revision));
        Ok(())
    }
}
