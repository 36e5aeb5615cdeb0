//! Opens the database, gives its threads and tasks a life, and publishes it.
//!
//! Owns:    the database: the file through the threads of the store, or the connections to a server.
//! Needs:   nothing; a server that is away is waited for.
//! Restart: permanent. With a file, a successor starts when the threads are gone, and those go when the requests in hand
//!          are answered. With a server, what was asked of it ends at once, as unknown. What was acknowledged is durable.
//!          A store in memory is kept by the tree and outlives its owner.
//! Fails:   when the database can't be opened or refuses us, or one of its threads or tasks panics.

use std::fmt;
use std::sync::Arc;

use k3sd_datastore::{AnyBackend, Memory};
use k3sd_runtime::{Actor, ActorError, Context};
use tokio::sync::watch;

use super::config::StoreConfig;
use super::msg::StoreMsg;
use super::open::open;
use crate::config::SlowConfig;
use crate::metrics::Numbers;

/// What the owner is started, and restarted, with.
#[derive(Clone)]
pub(crate) struct StoreArgs {
    /// The database.
    pub config: StoreConfig,
    /// What a store in memory is: empty at first, and kept from one life of the owner to the next.
    pub memory: Memory,
    /// What is counted.
    pub numbers: Arc<Numbers>,
    /// What is told about slow operations.
    pub slow: SlowConfig,
    /// Where it is published.
    pub place: Arc<watch::Sender<Option<AnyBackend>>>,
}

impl fmt::Debug for StoreArgs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreArgs").field("config", &self.config).finish_non_exhaustive()
    }
}

/// Takes the store back when the owner goes, however that happens.
struct Published(Arc<watch::Sender<Option<AnyBackend>>>);

impl Drop for Published {
    fn drop(&mut self) {
        self.0.send_replace(None);
    }
}

/// The owner.
pub(crate) struct Store {
    _published: Published,
}

impl Actor for Store {
    type Args = StoreArgs;
    type Msg = StoreMsg;

    async fn init(ctx: &mut Context<StoreMsg>, args: StoreArgs) -> Result<Self, ActorError> {
        let backend = open(ctx, &args).await?;
        let published = Published(args.place);
        published.0.send_replace(Some(backend));
        Ok(Self { _published: published })
    }

    async fn handle(&mut self, _: &mut Context<StoreMsg>, message: StoreMsg) -> Result<(), ActorError> {
        let StoreMsg::PartEnded { what } = message;
        Err(ActorError::new(format!("a part of the store ended: {what}")))
    }
}
