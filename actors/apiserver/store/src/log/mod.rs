//! One feed over all keys, dealt out to the caches; and how far it is.
//!
//! ```text
//! storage ─ feed ─▶ log ─┬─ queue ─▶ cache of pods          each event goes to one queue, found by its key
//!                        └─ queue ─▶ cache of nodes
//! ```
//!
//! How a reader knows that a cache is fresh, without asking it: the log publishes the revision that it has *dispatched*,
//! after it noted for each queue the last revision that was *assigned* to it. A cache that has applied what was assigned to
//! it shows the resource as it is at the dispatched revision, however long ago its own last change was.

mod actor;
mod routes;

use std::sync::Arc;

use k3sd_client::storage::Revision;
use tokio::sync::watch;

pub(crate) use self::actor::{RETRY, run};
use self::routes::Routes;
pub(crate) use self::routes::{Batch, Route};

/// What the log publishes, and where it deals to. Outlives the actor.
#[derive(Debug)]
pub(crate) struct Log {
    /// Every event up to this one is in the queues. `None` before the store was reached.
    dispatched: watch::Sender<Option<Revision>>,
    routes: watch::Sender<Arc<Routes>>,
}

impl Log {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { dispatched: watch::Sender::new(None), routes: watch::Sender::default() })
    }

    /// How far it is; zero before the store was reached.
    pub(crate) fn dispatched(&self) -> Revision {
        self.dispatched.borrow().unwrap_or_default()
    }

    /// Waits until the store was reached. A list that is begun afterwards misses nothing.
    pub(crate) async fn opened(&self) {
        // The sender lives as long as we do.
        drop(self.dispatched.subscribe().wait_for(Option::is_some).await);
    }

    /// Waits until it is at least there, and says where it is.
    pub(crate) async fn reach(&self, revision: Revision) -> Revision {
        let now = self.dispatched();
        if now >= revision {
            return now;
        }
        let mut dispatched = self.dispatched.subscribe();
        let reached = dispatched.wait_for(|dispatched| dispatched.is_some_and(|at| at >= revision)).await;
        reached.ok().and_then(|reached| *reached).unwrap_or(now)
    }

    /// Deals events of keys with this prefix to this queue from now on. A list that is begun afterwards has every event
    /// that was dealt before.
    pub(crate) fn attach(&self, prefix: &str, route: Arc<Route>) {
        self.routes.send_modify(|routes| *routes = Arc::new(routes.with(prefix, route)));
    }

    /// Stops dealing to this queue; another one of the same prefix stays.
    pub(crate) fn detach(&self, prefix: &str, route: &Arc<Route>) {
        self.routes.send_modify(|routes| *routes = Arc::new(routes.without(prefix, route)));
    }
}
