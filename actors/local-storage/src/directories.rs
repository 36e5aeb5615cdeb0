//! Makes and removes the directories of volumes. What is in a volume belongs to strangers: no link is followed below a
//! root, and no depth of directories is too great.
//!
//! Owns:    while it works, a thread.
//! Needs:   nothing.
//! Restart: permanent. Whoever asked asks again.
//! Fails:   when there is no thread to be had.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use k3sd_client::controller::Failure;
use k3sd_runtime::blocking::Blocking;
use k3sd_runtime::{Actor, ActorError, Address, Context, ReplyPort, message_kinds};
use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, fchmod, mkdirat, openat, renameat, statat, unlinkat};
use rustix::io::Errno;
use tokio::sync::watch;

/// How long a job may take before whoever asked gives up, and asks again later: large volumes take their time.
const JOB_MAX: Duration = Duration::from_secs(120);
/// Directories that are open at once while a tree is removed; what is deeper is moved up first.
const DEPTH_MAX: usize = 64;

/// A directory below a root. The names are plain: no `..`, no slash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) root: PathBuf,
    pub(crate) below: Vec<String>,
}

impl Place {
    /// Reads a path below a root, if it is one.
    pub(crate) fn new(root: &Path, below: &Path) -> Option<Self> {
        let names = below.components().map(|part| match part {
            std::path::Component::Normal(name) => name.to_str().map(str::to_owned),
            _ => None,
        });
        let below: Vec<String> = names.collect::<Option<_>>()?;
        (!below.is_empty()).then(|| Self { root: root.to_owned(), below })
    }

    /// The whole path.
    pub(crate) fn path(&self) -> PathBuf {
        self.below.iter().fold(self.root.clone(), |path, name| path.join(name))
    }
}

/// What the actor understands.
pub(crate) enum KeeperMsg {
    /// Have this directory there, for everybody to write. One that is there stays as it is.
    Make { place: Place, reply: ReplyPort<io::Result<()>> },
    /// Remove this directory with all that is in it; one that isn't there is removed.
    Remove { place: Place, reply: ReplyPort<io::Result<()>> },
}
message_kinds!(KeeperMsg { Make, Remove });

/// The actor.
pub(crate) struct Keeper;

impl Actor for Keeper {
    type Args = Arc<watch::Sender<Option<Address<KeeperMsg>>>>;
    type Msg = KeeperMsg;

    async fn init(ctx: &mut Context<KeeperMsg>, place: Self::Args) -> Result<Self, ActorError> {
        place.send_replace(Some(ctx.address()));
        Ok(Self)
    }

    async fn handle(&mut self, ctx: &mut Context<KeeperMsg>, message: KeeperMsg) -> Result<(), ActorError> {
        // The thread ends with the job: volumes come and go rarely.
        let thread = Blocking::start(ctx, 1, || Ok::<_, std::convert::Infallible>(())).await?;
        match message {
            KeeperMsg::Make { place, reply } => reply.send(thread.run(move |()| make(&place)).await?),
            KeeperMsg::Remove { place, reply } => reply.send(thread.run(move |()| remove(&place)).await?),
        }
        Ok(())
    }
}

/// The way to the actor.
#[derive(Clone, Debug)]
pub(crate) struct Directories(watch::Receiver<Option<Address<KeeperMsg>>>);

impl Directories {
    pub(crate) fn new(address: watch::Receiver<Option<Address<KeeperMsg>>>) -> Self {
        Self(address)
    }

    /// Makes a directory: what was in the way, if it can't be there.
    pub(crate) async fn make(&self, place: Place) -> Result<io::Result<()>, Failure> {
        self.address()?.call(JOB_MAX, |reply| KeeperMsg::Make { place, reply }).await.map_err(Failure::other)
    }

    /// Removes a directory: what was in the way, if it is there still.
    pub(crate) async fn remove(&self, place: Place) -> Result<io::Result<()>, Failure> {
        self.address()?.call(JOB_MAX, |reply| KeeperMsg::Remove { place, reply }).await.map_err(Failure::other)
    }

    fn address(&self) -> Result<Address<KeeperMsg>, Failure> {
        self.0.borrow().clone().ok_or_else(|| Failure::other("nobody makes directories yet"))
    }
}

fn flags() -> OFlags {
    OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC
}

/// A directory in a directory, which no link leads to.
fn step(directory: BorrowedFd<'_>, name: &std::ffi::CStr) -> rustix::io::Result<OwnedFd> {
    openat(directory, name, flags() | OFlags::NOFOLLOW, Mode::empty())
}

fn c_name(name: &str) -> io::Result<std::ffi::CString> {
    std::ffi::CString::new(name).map_err(io::Error::other)
}

/// Makes a directory with those before it.
fn make(place: &Place) -> io::Result<()> {
    std::fs::create_dir_all(&place.root)?;
    let mut directory = openat(CWD, &place.root, flags(), Mode::empty())?;
    for (depth, name) in place.below.iter().enumerate() {
        let is_last = depth + 1 == place.below.len();
        let name = c_name(name)?;
        let is_new = match mkdirat(&directory, &*name, Mode::from_raw_mode(if is_last { 0o777 } else { 0o755 })) {
            Ok(()) => true,
            Err(Errno::EXIST) => false,
            Err(error) => return Err(error.into()),
        };
        let next = step(directory.as_fd(), &name)?;
        if is_last {
            if is_new {
                // The mask of this process took something away.
                fchmod(&next, Mode::from_raw_mode(0o777))?;
            }
            // Only whoever has a volume gets into it, not every user of the machine.
            fchmod(&directory, Mode::from_raw_mode(0o700))?;
        }
        directory = next;
    }
    Ok(())
}

/// Removes a directory with all that is in it.
fn remove(place: &Place) -> io::Result<()> {
    match find_and_remove(place) {
        Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
        Ok(()) => Ok(()),
    }
}

fn find_and_remove(place: &Place) -> rustix::io::Result<()> {
    let Some((last, before)) = place.below.split_last() else { return Err(Errno::INVAL) };
    let mut directory = openat(CWD, &place.root, flags(), Mode::empty())?;
    for name in before {
        directory = step(directory.as_fd(), &c_name(name).map_err(|_| Errno::INVAL)?)?;
    }
    let last = c_name(last).map_err(|_| Errno::INVAL)?;
    let top = match step(directory.as_fd(), &last) {
        Ok(top) => top,
        // A file, or a link, which goes and not what it leads to.
        Err(Errno::NOTDIR | Errno::LOOP) => return unlinkat(&directory, &*last, AtFlags::empty()),
        Err(error) => return Err(error),
    };
    let mut moved = 0;
    loop {
        let before = moved;
        empty(top.as_fd(), top.as_fd(), 0, &mut moved)?;
        if moved == before {
            break;
        }
    }
    drop(top);
    unlinkat(&directory, &*last, AtFlags::REMOVEDIR)
}

/// Removes what is in a directory. What is too deep is moved to `top`, under a new name, for another round.
fn empty(top: BorrowedFd<'_>, directory: BorrowedFd<'_>, depth: usize, moved: &mut u64) -> rustix::io::Result<()> {
    // Entries that are added while one reads may be missed; the removal of the directory says so then.
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let kind = match entry.file_type() {
            FileType::Unknown => FileType::from_raw_mode(statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)?.st_mode),
            kind => kind,
        };
        if kind != FileType::Directory {
            gone(unlinkat(directory, name, AtFlags::empty()))?;
            continue;
        }
        if depth >= DEPTH_MAX {
            *moved += 1;
            let other = format!(".k3sd-removed-{}-{moved}", std::process::id());
            renameat(directory, name, top, other)?;
            continue;
        }
        match step(directory, name) {
            Ok(inner) => {
                empty(top, inner.as_fd(), depth + 1, moved)?;
                drop(inner);
                gone(unlinkat(directory, name, AtFlags::REMOVEDIR))?;
            }
            // Somebody put something else there.
            Err(Errno::NOTDIR | Errno::LOOP) => gone(unlinkat(directory, name, AtFlags::empty()))?,
            Err(Errno::NOENT) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// What somebody else removed is removed.
fn gone(removed: rustix::io::Result<()>) -> rustix::io::Result<()> {
    match removed {
        Err(Errno::NOENT) => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    fn place(root: &Path, below: &str) -> Place {
        Place::new(root, Path::new(below)).expect("a place")
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).expect("it is there").permissions().mode() & 0o7777
    }

    #[test]
    fn only_plain_names_are_places() {
        let root = Path::new("/r");
        for below in ["", "..", "a/../b", "/a", "../a"] {
            assert_eq!(Place::new(root, Path::new(below)), None, "{below}");
        }
        assert_eq!(place(root, "a/./b/").path(), Path::new("/r/a/b"));
    }

    #[test]
    fn a_volume_is_for_everybody_who_has_it() {
        let temp = tempfile::tempdir().expect("a directory");
        let root = temp.path().join("storage");
        let volume = place(&root, "pvc-1_n_c");
        make(&volume).expect("it is made");
        assert_eq!((mode(&volume.path()), mode(&root)), (0o777, 0o700));
        fs::set_permissions(volume.path(), fs::Permissions::from_mode(0o750)).expect("a mode");
        fs::write(volume.path().join("file"), "x").expect("a file");
        make(&volume).expect("it is there");
        assert_eq!(mode(&volume.path()), 0o750, "what is there stays as it is");
        remove(&volume).expect("it is removed");
        assert!(!volume.path().exists() && root.exists());
        remove(&volume).expect("it is removed");
        remove(&place(&temp.path().join("none"), "a")).expect("nothing was there");
        let deep = place(&root, "n/c/d");
        make(&deep).expect("it is made");
        assert_eq!((mode(&deep.path()), mode(&root.join("n/c")), mode(&root.join("n"))), (0o777, 0o700, 0o755));
    }

    #[test]
    fn no_link_is_followed() {
        let temp = tempfile::tempdir().expect("a directory");
        let (root, kept) = (temp.path().join("storage"), temp.path().join("kept"));
        fs::create_dir_all(kept.join("inner")).expect("a directory");
        fs::create_dir_all(&root).expect("a directory");
        symlink(&kept, root.join("link")).expect("a link");
        make(&place(&root, "link/inner/new")).expect_err("a link is on the way");
        make(&place(&root, "link")).expect_err("a link is there");
        remove(&place(&root, "link/inner")).expect_err("a link is on the way");
        assert!(kept.join("inner").exists() && !kept.join("inner/new").exists());
        let volume = place(&root, "volume");
        make(&volume).expect("it is made");
        symlink(&kept, volume.path().join("out")).expect("a link");
        remove(&volume).expect("it is removed");
        remove(&place(&root, "link")).expect("the link is removed");
        assert!(kept.join("inner").exists() && !root.join("link").exists());
    }

    #[test]
    fn no_depth_is_too_great() {
        let temp = tempfile::tempdir().expect("a directory");
        let volume = place(temp.path(), "volume");
        make(&volume).expect("it is made");
        let mut directory = openat(CWD, volume.path(), flags(), Mode::empty()).expect("it is there");
        for depth in 0..3000 {
            mkdirat(&directory, c"deeper", Mode::from_raw_mode(0o755)).expect("a directory");
            if depth % 500 == 0 {
                mkdirat(&directory, c"beside", Mode::from_raw_mode(0o755)).expect("a directory");
            }
            directory = openat(&directory, c"deeper", flags(), Mode::empty()).expect("it was made");
        }
        drop(directory);
        remove(&volume).expect("it is removed");
        assert!(!volume.path().exists());
    }
}
