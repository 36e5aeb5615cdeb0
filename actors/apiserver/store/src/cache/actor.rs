//! Fills a cache, keeps it up to date, and begins watches.
//!
//! Owns:    the cache's [`State`], which is lent to it: objects, window, watchers and its queue of events.
//! Needs:   the log, which fills its queue, and the store for lists.
//! Restart: permanent. After a kill the successor goes on where this one stopped; watchers notice nothing. After a panic
//!          within a change it begins anew with a list, and watchers are told to list too.
//! Fails:   never; a store that does not answer is asked again.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use k3sd_client::storage::{KeyValue, List, Revision, StorageError};
use k3sd_runtime::lend::Lend;
use k3sd_runtime::{ActorError, Moment, Rng, TaskHandle};

use super::core::report;
use super::{Board, Command, State};
use crate::catalog::Stored;
use crate::codec::decode;
use crate::log::{Batch, RETRY};
use crate::map::Map;

/// Objects that are read at once when a cache is filled.
const PAGE_OBJECTS: usize = 500;

/// Batches that are applied before the result is published.
const BATCHES_AT_ONCE: usize = 64;

/// What the actor does.
pub(crate) async fn run(task: TaskHandle, board: Arc<Board>, state: Lend<State>) -> Result<(), ActorError> {
    let mut state = state.borrow()?;
    let State { cache, batches, commands } = &mut *state;
    let (clock, mut rng) = (task.system().clock().clone(), task.rng());
    if cache.is_filled() {
        // It may have ended between a change and its publication.
        publish(&board, cache);
    }
    let mut taken: Vec<Batch> = Vec::new();
    loop {
        if !cache.is_filled() || board.route.is_lost() {
            cache.empty();
            // What was kept for pages may belong to another history of the store.
            board.kept.send_replace(Vec::new());
            let (objects, revision) = fill(&mut rng, &board).await;
            cache.fill(objects, revision);
            board.counts.fills.fetch_add(1, Ordering::Relaxed);
            publish(&board, cache);
        }
        board.watchers_of_all.store(cache.watchers_of_all(), Ordering::Relaxed);
        // Nothing to forget, no alarm: an idle cache never wakes.
        let forget = cache.next_shrink().into_iter().chain(board.next_forget()).min();
        tokio::select! {
            count = batches.recv_many(&mut taken, BATCHES_AT_ONCE) => {
                if count == 0 {
                    return Ok(()); // Nobody deals to it any more.
                }
                let events = take(&board, &mut taken);
                board.counts.received.fetch_add(events.len() as u64, Ordering::Relaxed);
                if !board.route.is_lost() {
                    let changes = cache.apply(&board.stored, events, clock.now());
                    publish_snapshot(&board, cache);
                    let cut_off = cache.deliver(&board.stored, &changes);
                    board.counts.dispatched.fetch_add(changes.len() as u64, Ordering::Relaxed);
                    board.counts.cut_off.fetch_add(cut_off as u64, Ordering::Relaxed);
                    board.set_delivered(cache.revision());
                }
            }
            Some(command) = commands.recv() => match command {
                Command::Watch { selection, after, reply } => {
                    let published = board.snapshot();
                    // The client may have left meanwhile; then its queue is closed already.
                    drop(reply.send(cache.watch(&published, selection, after)));
                }
                Command::Look => {}
            },
            () = clock.sleep_until(forget.unwrap_or(Moment::START)), if forget.is_some() => {
                cache.shrink(clock.now());
                board.forget(clock.now());
            }
        }
    }
}

fn take(board: &Board, taken: &mut Vec<Batch>) -> Batch {
    for batch in &*taken {
        board.route.taken(batch);
    }
    if taken.len() == 1 { taken.pop().unwrap_or_default() } else { taken.drain(..).flatten().collect() }
}

fn publish_snapshot(board: &Board, cache: &super::Cache) {
    board.published.send_replace(cache.snapshot());
}

fn publish(board: &Board, cache: &super::Cache) {
    publish_snapshot(board, cache);
    board.set_delivered(cache.revision());
}

/// Lists until it works.
async fn fill(rng: &mut Rng, board: &Board) -> (Map, Revision) {
    let mut attempt = 0;
    loop {
        board.log.opened().await;
        // What is lost from here on may miss in the list.
        board.route.find();
        match list(board).await {
            Ok(filled) => return filled,
            Err(error) => tracing::debug!(prefix = %board.stored.prefix, %error, "the store does not list"),
        }
        attempt += 1;
        board.clock.sleep_until(board.clock.now() + RETRY.delay(attempt, rng)).await;
    }
}

/// All objects as they are at one revision. A page is read while the one before it is decoded.
async fn list(board: &Board) -> Result<(Map, Revision), StorageError> {
    let prefix = Bytes::copy_from_slice(board.stored.prefix.as_bytes());
    let mut page = List { prefix, limit: Some(PAGE_OBJECTS), ..List::default() };
    let mut objects = Map::default();
    let mut listed = board.storage.list(page.clone()).await?;
    let revision = listed.revision;
    loop {
        page.at = Some(revision);
        page.after = listed.found.last().map(|last| last.key.clone());
        let next = async { if listed.more { board.storage.list(page.clone()).await.map(Some) } else { Ok(None) } };
        let decoded = async { decode_all(&board.stored, &listed.found, &mut objects) };
        let (next, ()) = tokio::join!(biased; next, decoded);
        match next? {
            Some(next) => listed = next,
            None => return Ok((objects, revision)),
        }
    }
}

fn decode_all(stored: &Stored, found: &[KeyValue], objects: &mut Map) {
    for found in found {
        match decode(stored, &found.key, &found.value, found.modified) {
            Ok(object) => drop(objects.insert(object)),
            Err(error) => report(&found.key, &error),
        }
    }
}
