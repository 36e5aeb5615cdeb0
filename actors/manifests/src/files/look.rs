//! What is in the directory.

use std::collections::BTreeMap;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use super::names::{file_name, is_manifest, skipped};
use super::watch::Watch;

/// Deeper directories, and more files, are a mistake.
const DEPTH_MAX: usize = 16;
const FILES_MAX: usize = 10_000;

/// By which it is seen that a file is another than before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Stamp {
    modified: (i64, i64),
    size: u64,
    inode: u64,
}

impl Stamp {
    /// Of a file of some time, for tests.
    #[cfg(test)]
    pub(crate) fn of(seconds: i64) -> Self {
        Self { modified: (seconds, 0), ..Self::default() }
    }
}

/// A file that is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub stamp: Stamp,
    /// Whether it may be deleted: what is reached through a link to a directory belongs to somebody else.
    pub removable: bool,
}

impl Found {
    /// Whether its time says nothing: file systems that never change have the same for all.
    pub(crate) fn is_timeless(&self) -> bool {
        self.stamp.modified == (0, 0)
    }
}

/// What is there.
#[derive(Debug, Default)]
pub(crate) struct Look {
    /// Manifests by their paths, in the order in which they are deployed.
    pub files: BTreeMap<String, Found>,
    /// Whether each change will be noticed.
    pub watched: bool,
    /// What can't be used, for the log.
    pub problems: Vec<String>,
}

/// Looks into a directory and those below it. Links to directories are followed, but no links inside of those. Each
/// directory is watched before it is read, so that no change is missed.
///
/// # Errors
/// The directory itself can't be read.
pub(crate) fn look(dir: &Path, watch: Option<&Watch>) -> io::Result<Look> {
    let mut walk = Walk { watch, look: Look { watched: watch.is_some(), ..Look::default() }, names: Vec::new() };
    walk.directory(dir, 0, false)?;
    let Walk { mut look, names, .. } = walk;
    let skipped = skipped(names.iter().map(String::as_str));
    look.files.retain(|path, _| !skipped.contains(file_name(path)));
    Ok(look)
}

struct Walk<'a> {
    watch: Option<&'a Watch>,
    look: Look,
    /// The names of all files, manifests or not.
    names: Vec<String>,
}

impl Walk<'_> {
    fn watch(&mut self, path: &Path, is_directory: bool) {
        if let Some(watch) = self.watch
            && let Err(error) = watch.add(path, is_directory)
        {
            self.look.watched = false;
            self.look.problems.push(format!("changes of {} can't be noticed: {error}", path.display()));
        }
    }

    fn directory(&mut self, dir: &Path, depth: usize, is_linked: bool) -> io::Result<()> {
        self.watch(dir, true);
        for entry in fs::read_dir(dir)? {
            let path = entry?.path();
            if let Err(error) = self.entry(&path, depth, is_linked) {
                self.look.problems.push(format!("{}: {error}", path.display()));
            }
        }
        Ok(())
    }

    fn entry(&mut self, path: &Path, depth: usize, is_linked: bool) -> io::Result<()> {
        let meta = fs::symlink_metadata(path)?;
        let is_link = meta.is_symlink();
        let target = if is_link { fs::metadata(path)? } else { meta };
        if target.is_dir() {
            if is_link && is_linked {
                return Ok(());
            }
            if depth >= DEPTH_MAX {
                return Err(io::Error::other(format!("directories deeper than {DEPTH_MAX} are not read")));
            }
            return self.directory(path, depth + 1, is_linked || is_link);
        }
        self.file(path, &target, is_link, is_linked)
    }

    fn file(&mut self, path: &Path, meta: &Metadata, is_link: bool, is_linked: bool) -> io::Result<()> {
        let Some(text) = path.to_str() else {
            return Err(io::Error::other("its name is no UTF-8"));
        };
        let name = file_name(text);
        self.names.push(name.to_owned());
        if !is_manifest(name) || !meta.is_file() {
            return Ok(());
        }
        if self.look.files.len() >= FILES_MAX {
            return Err(io::Error::other(format!("more than {FILES_MAX} files are not read")));
        }
        if is_link {
            // Its directory doesn't tell when the file behind the link changes.
            self.watch(path, false);
        }
        let stamp = Stamp { modified: (meta.mtime(), meta.mtime_nsec()), size: meta.size(), inode: meta.ino() };
        self.look.files.insert(text.to_owned(), Found { stamp, removable: !is_linked });
        Ok(())
    }
}

/// The path below a directory.
pub(crate) fn relative<'a>(dir: &Path, path: &'a str) -> &'a str {
    let below = Path::new(path).strip_prefix(dir).ok().and_then(Path::to_str);
    below.unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn files_links_and_directories_are_found() {
        let place = tempfile::tempdir().unwrap();
        let (dir, away) = (place.path().join("manifests"), place.path().join("away"));
        for made in [&dir.join("sub/deep"), &away.join("below")] {
            fs::create_dir_all(made).unwrap();
        }
        for file in
            ["b.yaml", "a-b.yml", "a/x", "sub/c.json", "sub/deep/d.yaml", "e.yaml", "e.yaml.skip", "f.txt", ".g.yaml"]
        {
            let path = dir.join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "1").unwrap();
        }
        fs::write(away.join("h.yaml"), "1").unwrap();
        fs::write(away.join("below/i.yaml"), "1").unwrap();
        symlink(&away, away.join("below/again")).unwrap();
        symlink(&away, dir.join("linked")).unwrap();
        symlink(away.join("h.yaml"), dir.join("file.yaml")).unwrap();
        symlink("/nowhere", dir.join("broken.yaml")).unwrap();
        symlink(&dir, dir.join("sub/loop")).unwrap();
        let look = look(&dir, None).unwrap();
        let root = format!("{}/", dir.display());
        let found: Vec<(&str, bool)> =
            look.files.iter().map(|(path, found)| (path.strip_prefix(&root).unwrap(), found.removable)).collect();
        let expected = [
            ("a-b.yml", true),
            ("b.yaml", true),
            ("file.yaml", true),
            ("linked/below/i.yaml", false),
            ("linked/h.yaml", false),
            ("sub/c.json", true),
            ("sub/deep/d.yaml", true),
            ("sub/loop/a-b.yml", false),
        ];
        assert_eq!(found[..expected.len()], expected);
        assert!(look.problems.iter().any(|problem| problem.contains("broken.yaml")), "{:?}", look.problems);
        assert!(super::look(&dir.join("none"), None).is_err());
    }
}
