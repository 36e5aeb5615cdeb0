//! Removes directories of this host that stood for volumes. That works on a cluster of one node, where people try things
//! out, and is upstream's behaviour.
//!
//! Owns:    nothing; while it removes something, a thread.
//! Needs:   nothing.
//! Restart: permanent. Whoever asked asks again.
//! Fails:   when there is no thread to be had.

use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::time::Duration;

use k3sd_client::controller::Failure;
use k3sd_runtime::blocking::Blocking;
use k3sd_runtime::{Actor, ActorError, Address, ChildSpec, Context, ReplyPort, message_kinds, worker};
use tokio::sync::watch;

/// How long a removal may take before whoever asked gives up, and asks again later.
const REMOVAL_MAX: Duration = Duration::from_secs(60);

/// What the actor understands.
pub(crate) enum DirectoriesMsg {
    /// Remove this one with all that is in it; one that isn't there is removed. Repeating it does no harm.
    Remove { path: String, reply: ReplyPort<Result<(), io::Error>> },
}

message_kinds!(DirectoriesMsg { Remove });

type Place = Arc<watch::Sender<Option<Address<DirectoriesMsg>>>>;

/// The actor.
pub(crate) struct Directories;

impl Actor for Directories {
    type Args = Place;
    type Msg = DirectoriesMsg;

    async fn init(ctx: &mut Context<DirectoriesMsg>, place: Place) -> Result<Self, ActorError> {
        place.send_replace(Some(ctx.address()));
        Ok(Self)
    }

    async fn handle(&mut self, ctx: &mut Context<DirectoriesMsg>, message: DirectoriesMsg) -> Result<(), ActorError> {
        let DirectoriesMsg::Remove { path, reply } = message;
        // The thread ends with the job: hardly anybody ever asks.
        let thread = Blocking::start(ctx, 1, || Ok::<_, std::convert::Infallible>(())).await?;
        reply.send(thread.run(move |()| remove(&path)).await?);
        Ok(())
    }
}

fn remove(path: &str) -> Result<(), io::Error> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() == ErrorKind::NotADirectory => std::fs::remove_file(path),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

/// The way to the actor.
#[derive(Clone, Debug)]
pub(super) struct Remover(watch::Receiver<Option<Address<DirectoriesMsg>>>);

impl Remover {
    /// Removes a directory: what was in the way, if it is there still.
    pub(super) async fn remove(&self, path: &str) -> Result<Result<(), io::Error>, Failure> {
        let address = self.0.borrow().clone().ok_or_else(|| Failure::other("nobody removes directories yet"))?;
        let path = path.to_owned();
        address.call(REMOVAL_MAX, |reply| DirectoriesMsg::Remove { path, reply }).await.map_err(Failure::other)
    }
}

/// The actor, and the way to it.
pub(super) fn directories() -> (ChildSpec, Remover) {
    let (place, address) = watch::channel(None);
    (worker::<Directories>("persistentvolume-directories", Arc::new(place)), Remover(address))
}
