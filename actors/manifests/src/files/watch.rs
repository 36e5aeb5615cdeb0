//! Notices that something in the directory changed.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use tokio::io::unix::AsyncFd;

/// Room for the names of a hundred changes or so; what they say doesn't matter.
const BUFFER_BYTES: usize = 4096;

/// An inotify instance. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Watch(Arc<AsyncFd<OwnedFd>>);

impl Watch {
    /// Watches nothing yet. Needs a tokio runtime around it.
    ///
    /// # Errors
    /// The system gives no more of them.
    pub(crate) fn new() -> io::Result<Self> {
        let watch = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
        #[expect(
            deprecated,
            reason = "what replaces it is unsafe; an owned descriptor stays open as long as it is registered"
        )]
        Ok(Self(Arc::new(AsyncFd::new(watch)?)))
    }

    /// Watches a directory, or the file behind a link; once more changes nothing.
    pub(super) fn add(&self, path: &Path, is_directory: bool) -> io::Result<()> {
        let file = WatchFlags::CLOSE_WRITE | WatchFlags::ATTRIB | WatchFlags::DELETE_SELF | WatchFlags::MOVE_SELF;
        let entries = WatchFlags::CREATE
            | WatchFlags::MOVED_TO
            | WatchFlags::MOVED_FROM
            | WatchFlags::DELETE
            | WatchFlags::ONLYDIR;
        inotify::add_watch(self.0.get_ref(), path, if is_directory { file | entries } else { file })?;
        Ok(())
    }

    /// Waits for a change, and takes all that there are by then.
    pub(crate) async fn changed(&self) {
        loop {
            let Ok(mut ready) = self.0.readable().await else { return std::future::pending().await };
            // It may have been taken already; only the kernel knows.
            if let Ok(Ok(true)) = ready.try_io(|watch| drain(watch.get_ref())) {
                return;
            }
        }
    }
}

/// Takes all changes; fails with `WouldBlock` if there was none, so that the next is waited for.
fn drain(watch: &OwnedFd) -> io::Result<bool> {
    let mut buffer = [MaybeUninit::uninit(); BUFFER_BYTES];
    let mut reader = inotify::Reader::new(watch, &mut buffer);
    let mut found = false;
    loop {
        match reader.next() {
            // A watch that is gone with its directory is told last, and by that alone nothing changed.
            Ok(_) => found = true,
            Err(rustix::io::Errno::AGAIN) if found => return Ok(true),
            Err(errno) => return Err(errno.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::Duration;

    use super::*;

    const SOON: Duration = Duration::from_secs(5);

    #[tokio::test]
    async fn changes_are_noticed_once_each() {
        let place = tempfile::tempdir().unwrap();
        let watch = Watch::new().unwrap();
        for _ in 0..2 {
            watch.add(place.path(), true).unwrap();
        }
        let path = place.path().join("a.yaml");
        let changes: [&dyn Fn(); 3] =
            [&|| fs::write(&path, "1").unwrap(), &|| fs::rename(&path, place.path().join("b.yaml")).unwrap(), &|| {
                fs::remove_file(place.path().join("b.yaml")).unwrap()
            }];
        for change in changes {
            change();
            tokio::time::timeout(SOON, watch.changed()).await.expect("it is noticed");
            let quiet = tokio::time::timeout(Duration::from_millis(20), watch.changed()).await;
            assert!(quiet.is_err(), "nothing happened since");
        }
        assert!(watch.add(Path::new("/nowhere"), true).is_err());
    }
}
