//! Removes directories of this host that stood for volumes. That works on a cluster of one node, where people try things
//! out, and is upstream's behaviour.
//!
//! Owns:    nothing; while it removes something, a thread.
//! Needs:   nothing.
//! Restart: permanent. Whoever asked asks again.
//! Fails:   when there is no thread to be had.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
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

/// Below this, where anybody may write, is all that is removed.
const TEMPORARY: &str = "/tmp";

/// Removes what is there. Whoever may write to a directory on the way there could have put a link in its place, so links
/// are not followed.
fn remove(path: &str) -> Result<(), io::Error> {
    match find(Path::new(path)).and_then(|path| remove_found(&path)) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

fn find(path: &Path) -> Result<PathBuf, io::Error> {
    let below = path.strip_prefix(TEMPORARY).map_err(io::Error::other)?;
    let path = Path::new(TEMPORARY).canonicalize()?.join(below);
    let parent = path.parent().unwrap_or(&path);
    if parent.canonicalize()? != parent {
        return Err(io::Error::other(format!("a link leads to {}", parent.display())));
    }
    Ok(path)
}

fn remove_found(path: &Path) -> Result<(), io::Error> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() == ErrorKind::NotADirectory => std::fs::remove_file(path),
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

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn directories_and_files_go_and_links_are_not_followed() {
        let place = Path::new(TEMPORARY).join(format!("k3sd-directories-{}", std::process::id()));
        let (kept, volume, link) = (place.join("kept"), place.join("volume"), place.join("link"));
        for directory in [kept.join("inner"), volume.join("inner")] {
            fs::create_dir_all(directory).expect("a directory");
        }
        fs::write(place.join("file"), "").expect("a file");
        std::os::unix::fs::symlink(&kept, &link).expect("a link");
        let remove = |path: &Path| remove(&path.display().to_string());
        assert!(remove(&link.join("inner")).is_err() && remove(Path::new("/etc/x")).is_err());
        assert!(kept.join("inner").exists());
        for path in [&volume, &place.join("file"), &link, &place.join("missing"), &place.join("missing/inner")] {
            remove(path).expect("it is removed");
            assert!(!path.exists());
        }
        assert!(kept.join("inner").exists(), "the link went, not what it led to");
        remove(&place).expect("it is removed");
    }
}
