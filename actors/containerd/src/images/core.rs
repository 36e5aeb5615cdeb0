//! Which files are imported, and when: pure.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A file that was written to so recently may still be.
pub(crate) const SETTLE: Duration = Duration::from_secs(2);
/// Files that are imported at once: reading and unpacking take a core each.
const PARALLEL_MAX: usize = 3;

/// What tells that a file is another one now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub size: u64,
    /// When it was changed, since 1970.
    pub modified: Duration,
}

/// How a file is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Archive,
    /// Names of images, one in each line.
    List,
}

/// How a file is read, by its name; none of ours is `None`.
pub(crate) fn kind(path: &Path) -> Option<Kind> {
    const ARCHIVES: [&str; 8] = [".tar", ".tar.gz", ".tgz", ".tar.zst", ".tzst", ".tar.lz4", ".tar.bz2", ".tbz"];
    let name = path.file_name()?.to_str()?;
    if name.starts_with('.') {
        None
    } else if name.ends_with(".txt") {
        Some(Kind::List)
    } else {
        ARCHIVES.iter().any(|ending| name.ends_with(ending)).then_some(Kind::Archive)
    }
}

/// The names in a list, which may hold empty lines and remarks.
pub(crate) fn names(text: &str) -> Vec<String> {
    let lines = text.lines().map(|line| line.split('#').next().unwrap_or(line).trim());
    lines.filter(|line| !line.is_empty()).map(crate::image::reference::normalize).collect()
}

/// What is known of the files.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    /// Files that were imported, or can't be, as they were then.
    done: BTreeMap<PathBuf, Stamp>,
    waiting: BTreeMap<PathBuf, Stamp>,
    running: BTreeSet<PathBuf>,
}

impl Queue {
    /// Takes what was found in the directory. `true` when a file may still be written to, so that another look is due.
    pub(crate) fn found(&mut self, files: &BTreeMap<PathBuf, Stamp>, now: Duration, is_first: bool) -> bool {
        self.done.retain(|path, _| files.contains_key(path));
        self.waiting.retain(|path, _| files.contains_key(path));
        let mut unsettled = false;
        for (path, stamp) in files {
            if self.done.get(path) == Some(stamp) {
                continue;
            }
            // A clock that was set back makes files of the future, which would never settle.
            let age = now.checked_sub(stamp.modified);
            if !is_first && age.is_some_and(|age| age < SETTLE) {
                unsettled = true;
            } else {
                self.waiting.insert(path.clone(), *stamp);
            }
        }
        unsettled
    }

    /// The next file to import, if one may be begun.
    pub(crate) fn begin(&mut self) -> Option<(PathBuf, Stamp)> {
        if self.running.len() >= PARALLEL_MAX {
            return None;
        }
        let path = self.waiting.keys().find(|path| !self.running.contains(*path))?.clone();
        let stamp = self.waiting.remove(&path)?;
        self.running.insert(path.clone());
        Some((path, stamp))
    }

    /// An import is over; one that is to be repeated waits again.
    pub(crate) fn end(&mut self, path: &Path, stamp: Stamp, again: bool) {
        self.running.remove(path);
        if again {
            self.waiting.entry(path.to_owned()).or_insert(stamp);
        } else {
            self.done.insert(path.to_owned(), stamp);
            if self.waiting.get(path) == Some(&stamp) {
                self.waiting.remove(path);
            }
        }
    }

    /// How many are not done.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.len() + self.running.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(seconds: u64) -> Stamp {
        Stamp { size: 1, modified: Duration::from_secs(seconds) }
    }

    #[test]
    fn a_file_is_imported_once_for_each_change() {
        let mut queue = Queue::default();
        let now = Duration::from_secs(100);
        let a = PathBuf::from("a.tar");
        assert!(!queue.found(&BTreeMap::from([(a.clone(), stamp(99))]), now, true), "at the start nobody waits");
        assert_eq!(queue.begin(), Some((a.clone(), stamp(99))));
        assert_eq!(queue.begin(), None);
        queue.end(&a, stamp(99), false);
        assert!(!queue.found(&BTreeMap::from([(a.clone(), stamp(99))]), now, false));
        assert_eq!(queue.waiting(), 0);
        let changed = BTreeMap::from([(a.clone(), stamp(101))]);
        assert!(queue.found(&changed, Duration::from_secs(102), false), "it may still be written to");
        assert_eq!(queue.begin(), None);
        assert!(!queue.found(&changed, Duration::from_secs(103), false));
        assert_eq!(queue.begin(), Some((a.clone(), stamp(101))));
        queue.end(&a, stamp(101), true);
        assert_eq!(queue.begin(), Some((a.clone(), stamp(101))), "the engine was away");
        assert!(!queue.found(&changed, Duration::from_secs(50), false), "a clock that was set back");
    }

    #[test]
    fn not_everything_is_imported_at_once() {
        let mut queue = Queue::default();
        let files = (0..5).map(|n| (PathBuf::from(format!("{n}.tar")), stamp(0))).collect();
        queue.found(&files, Duration::from_secs(9), false);
        let begun: Vec<_> = std::iter::from_fn(|| queue.begin()).collect();
        assert_eq!((begun.len(), queue.waiting()), (PARALLEL_MAX, 5));
    }

    #[test]
    fn names_say_how_a_file_is_read() {
        let of = |name: &str| kind(Path::new(name));
        assert_eq!(of("x/a.tar.zst"), Some(Kind::Archive));
        assert_eq!(of("a.txt"), Some(Kind::List));
        assert_eq!((of("a.zip"), of(".cache.json"), of(".a.tar")), (None, None, None));
        assert_eq!(
            names("busybox # small\n\n# none\na/b:1\n"),
            ["docker.io/library/busybox:latest", "docker.io/a/b:1"]
        );
    }
}
