//! The subtree, as data.

use std::time::Duration;

use k3sd_runtime::{Spec, Strategy, subtree, task};

use crate::stores::Stores;
use crate::{keeper, log};

/// The name of the supervisor of the caches.
pub(crate) const CACHES: &str = "resources";

/// Restarts of caches that are borne within [`PERIOD`]. There are many of them, and one that keeps dying waits ever longer
/// between its lives: it alone never uses this up, and so takes none of the others along.
const CACHE_RESTARTS: u32 = 40;

/// Restarts of the log, the keeper and the supervisor of the caches that are borne within [`PERIOD`]. None loses anything.
const RESTARTS: u32 = 20;

const PERIOD: Duration = Duration::from_secs(60);

/// The caches die and come back one by one; each finds what it had, and its queue. Their supervisor forgets them when it
/// dies itself, so the keeper, which starts them, dies with it. The log stands last, because its death need take nobody
/// along: what it shares with the caches outlives them all.
pub fn tree(stores: &Stores) -> Spec {
    let (log, storage, keeper) = (stores.log().clone(), stores.storage().clone(), stores.clone());
    Spec::new(Strategy::RestForOne)
        .budget(RESTARTS, PERIOD)
        .child(subtree(CACHES, Spec::new(Strategy::Dynamic).budget(CACHE_RESTARTS, PERIOD)))
        .child(task("keeper", move |task| keeper::run(task, keeper.clone())))
        .child(task("log", move |task| log::run(task, log.clone(), storage.clone())))
}
