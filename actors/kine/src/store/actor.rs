//! Opens the database, gives its threads a life, and publishes it.
//!
//! Owns:    the database file, through the threads of the store.
//! Needs:   nothing.
//! Restart: permanent. A successor starts when the threads are gone, and those go when the requests in hand are
//!          answered; what was acknowledged is on the disk, and everything else was answered as unknown.
//! Fails:   when the file can't be opened, or one of the threads panics.

use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;

use k3sd_datastore::{AnyBackend, Sqlite, SqliteOptions};
use k3sd_runtime::blocking::Blocking;
use k3sd_runtime::{Actor, ActorError, Context};
use tokio::sync::watch;

use super::msg::StoreMsg;

/// What the owner is started, and restarted, with.
#[derive(Clone)]
pub(crate) struct StoreArgs {
    /// The database.
    pub sqlite: SqliteOptions,
    /// Where it is published.
    pub place: Arc<watch::Sender<Option<AnyBackend>>>,
}

impl fmt::Debug for StoreArgs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreArgs").field("sqlite", &self.sqlite).finish_non_exhaustive()
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
        let options = args.sqlite.clone();
        let opener = Blocking::start(ctx, 1, move || Sqlite::assemble(options).map(Some)).await?;
        let Some((store, bodies)) = opener.run(Option::take).await? else {
            unreachable!("it was put there a line above");
        };
        for body in bodies {
            let name = body.name.clone();
            let thread = Blocking::start(ctx, 1, || Ok::<_, Infallible>(())).await?;
            ctx.pipe(async move {
                let outcome = thread.run(move |()| body.run()).await;
                let why = outcome.err().map_or_else(|| "the store was closed".to_owned(), |error| error.to_string());
                StoreMsg::ThreadEnded { what: format!("{name}: {why}") }
            });
        }
        let published = Published(args.place);
        published.0.send_replace(Some(AnyBackend::new(store)));
        Ok(Self { _published: published })
    }

    async fn handle(&mut self, _: &mut Context<StoreMsg>, message: StoreMsg) -> Result<(), ActorError> {
        let StoreMsg::ThreadEnded { what } = message;
        Err(ActorError::new(format!("a thread of the store ended: {what}")))
    }
}
