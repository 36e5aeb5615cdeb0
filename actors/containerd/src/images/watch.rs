//! Looks into the images directory, and notices when something changes there.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;
use std::{fs, io};

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};

use super::core::{Stamp, kind};

/// Deeper directories, and more files, are a mistake.
const DEPTH_MAX: usize = 8;
const FILES_MAX: usize = 10_000;

/// What is there.
#[derive(Debug)]
pub(crate) struct Look {
    /// Becomes readable at the next change; none where the system gives no more of them.
    pub watch: Option<OwnedFd>,
    pub files: BTreeMap<PathBuf, Stamp>,
}

/// Looks. The directory is watched before it is read, so that no change is missed; while there is none, its parent is.
pub(crate) fn look(dir: &Path) -> io::Result<Look> {
    let watch = match inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC) {
        Ok(watch) => Some(watch),
        Err(error) => {
            tracing::warn!(%error, "changes of the images directory can't be noticed");
            None
        }
    };
    let mut look = Look { watch, files: BTreeMap::new() };
    if dir.is_dir() {
        look.visit(dir, 0)?;
    } else if let Some(parent) = dir.parent() {
        look.add(parent);
    }
    Ok(look)
}

impl Look {
    fn add(&self, dir: &Path) {
        let flags = WatchFlags::CREATE
            | WatchFlags::CLOSE_WRITE
            | WatchFlags::MOVED_TO
            | WatchFlags::MOVED_FROM
            | WatchFlags::DELETE
            | WatchFlags::DELETE_SELF
            | WatchFlags::MOVE_SELF
            | WatchFlags::ONLYDIR;
        if let Some(watch) = &self.watch
            && let Err(error) = inotify::add_watch(watch, dir, flags)
        {
            tracing::warn!(%error, dir = %dir.display(), "changes of a directory can't be noticed");
        }
    }

    fn visit(&mut self, dir: &Path, depth: usize) -> io::Result<()> {
        self.add(dir);
        for entry in fs::read_dir(dir)? {
            let path = entry?.path();
            // Links are followed, as users link archives from elsewhere; what is gone meanwhile is left out.
            let Ok(meta) = fs::metadata(&path) else { continue };
            if meta.is_dir() && depth < DEPTH_MAX {
                self.visit(&path, depth + 1)?;
            } else if meta.is_file() && kind(&path).is_some() && self.files.len() < FILES_MAX {
                let modified = meta.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
                self.files.insert(path, Stamp { size: meta.len(), modified: modified.unwrap_or_default() });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    fn is_readable(look: &Look) -> bool {
        let mut polled = [PollFd::new(look.watch.as_ref().unwrap(), PollFlags::IN)];
        poll(&mut polled, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).unwrap() > 0
    }

    #[test]
    fn every_change_is_noticed_from_before_there_is_a_directory() {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("images");
        let before = look(&dir).unwrap();
        assert!(before.files.is_empty() && !is_readable(&before));
        fs::create_dir_all(dir.join("more")).unwrap();
        assert!(is_readable(&before));
        let empty = look(&dir).unwrap();
        assert!(!is_readable(&empty));
        fs::write(dir.join("more/a.tar"), "1").unwrap();
        assert!(is_readable(&empty));
        fs::write(dir.join("readme.md"), "1").unwrap();
        std::os::unix::fs::symlink("/nowhere", dir.join("b.tar")).unwrap();
        let found: Vec<_> = look(&dir).unwrap().files.into_iter().collect();
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!((found[0].0.as_path(), found[0].1.size), (dir.join("more/a.tar").as_path(), 1));
    }
}
