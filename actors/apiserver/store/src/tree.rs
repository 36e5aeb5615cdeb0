//! The subtree, as data.

use k3sd_runtime::{Spec, Strategy, subtree, task};

use crate::stores::Stores;
use crate::{keeper, log};

/// The name of the supervisor of the caches.
pub(crate) const CACHES: &str = "resources";

/// The caches die and come back one by one; each finds what it had, and its queue. Their supervisor forgets them when it
/// dies itself, so the keeper, which starts them, dies with it. The log stands last, because its death need take nobody
/// along: what it shares with the caches outlives them all.
pub fn tree(stores: &Stores) -> Spec {
    let (log, storage, keeper) = (stores.log().clone(), stores.storage().clone(), stores.clone());
    Spec::new(Strategy::RestForOne)
        .child(subtree(CACHES, Spec::new(Strategy::Dynamic)))
        .child(task("keeper", move |task| keeper::run(task, keeper.clone())))
        .child(task("log", move |task| log::run(task, log.clone(), storage.clone())))
}
