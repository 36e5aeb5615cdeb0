//! Starts a cache's actor for each resource that is served, and stops those of the others.
//!
//! Owns:    nothing; what has to run is in the stores, what runs is known to the supervisor of the caches.
//! Needs:   that supervisor, started before it.
//! Restart: permanent. It compares again.
//! Fails:   when that supervisor does not answer.

use std::collections::BTreeSet;
use std::time::Duration;

use k3sd_runtime::{ActorError, SupervisorRef, TaskHandle, TreeError, task};

use crate::cache;
use crate::stores::Stores;
use crate::tree::CACHES;

/// How long the supervisor may take for one child. Starting and stopping one is the work of a moment.
const LIMIT: Duration = Duration::from_secs(10);

/// What the actor does.
pub(crate) async fn run(handle: TaskHandle, stores: Stores) -> Result<(), ActorError> {
    let parent = handle.path().rsplit_once('/').map_or("", |(parent, _)| parent);
    let caches = if parent.is_empty() { CACHES.to_owned() } else { format!("{parent}/{CACHES}") };
    let caches = handle.system().supervisor(&caches)?;
    let mut catalog = stores.catalog().subscribe();
    loop {
        catalog.mark_unchanged();
        stores.follow_catalog();
        compare(&caches, &stores).await?;
        if catalog.changed().await.is_err() {
            return Ok(());
        }
    }
}

async fn compare(caches: &SupervisorRef, stores: &Stores) -> Result<(), TreeError> {
    let wanted = stores.wanted();
    let running: BTreeSet<String> = caches.list(LIMIT).await?.into_iter().map(|child| child.name).collect();
    for name in running.iter().filter(|name| !wanted.contains_key(name.as_str())) {
        caches.remove(LIMIT, name).await?;
    }
    stores.bury();
    for (name, store) in wanted.iter().filter(|(name, _)| !running.contains(&***name)) {
        let (board, state) = (store.board.clone(), store.state.clone());
        let body = move |handle| cache::run(handle, board.clone(), state.clone());
        caches.add(LIMIT, task(name, body)).await?;
    }
    Ok(())
}
