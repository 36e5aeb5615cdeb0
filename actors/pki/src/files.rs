//! Files that are there whole or not at all: written beside their place, made durable, and moved into it. The moves are
//! durable when the hands are told to settle, once for all of them: before anybody hears of what was written.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use crate::error::PkiError;

/// The mode of certificates.
pub(crate) const PUBLIC: u32 = 0o644;
/// The mode of keys and all else that is secret.
pub(crate) const SECRET: u32 = 0o600;
/// The mode of directories.
const DIRECTORY: u32 = 0o700;

/// No file of ours is nearly as long; a longer one is not read into memory.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// The hands that change files. Counts what it changed; tests let it die after some changes.
#[derive(Debug, Default)]
pub(crate) struct Files {
    changes: u32,
    dies_at: Option<u32>,
    /// Directories in which names changed since the hands last settled.
    unsettled: BTreeSet<PathBuf>,
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> PkiError {
    let path = path.to_owned();
    move |source| PkiError::File { action, path, source }
}

/// What is in a file; `None` when there is none.
///
/// # Errors
/// It can't be read.
pub(crate) fn read(path: &Path) -> Result<Option<Vec<u8>>, PkiError> {
    let length = match fs::metadata(path) {
        Ok(found) => found.len(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed("look at", path)(error)),
    };
    if length > FILE_BYTES_MAX {
        return Err(failed("read", path)(io::ErrorKind::FileTooLarge.into()));
    }
    fs::read(path).map(Some).map_err(failed("read", path))
}

/// Whether there is a file, whatever is in it.
pub(crate) fn exists(path: &Path) -> bool {
    path.exists()
}

impl Files {
    /// Hands that fail at their change number `dies_at`, counted from 0, as if the machine had lost power there.
    #[cfg(test)]
    pub(crate) fn dying_at(dies_at: u32) -> Self {
        Self { dies_at: Some(dies_at), ..Self::default() }
    }

    /// How many files were changed so far.
    pub(crate) fn changes(&self) -> u32 {
        self.changes
    }

    fn count(&mut self, path: &Path) -> Result<(), PkiError> {
        if self.dies_at.is_some_and(|end| self.changes >= end) {
            return Err(failed("change", path)(io::ErrorKind::Interrupted.into()));
        }
        self.changes += 1;
        Ok(())
    }

    /// Makes a directory for its owner only, unless it is there.
    ///
    /// # Errors
    /// It can't be made.
    pub(crate) fn directory(&mut self, path: &Path) -> Result<(), PkiError> {
        if path.is_dir() {
            return Ok(());
        }
        self.count(path)?;
        self.renamed(path);
        let made = fs::DirBuilder::new().recursive(true).mode(DIRECTORY).create(path);
        made.map_err(failed("make directory", path))
    }

    /// Makes a file say this, with this mode. One that does so already is not touched.
    ///
    /// # Errors
    /// It can't be written; then it is as it was.
    pub(crate) fn write(&mut self, path: &Path, content: &[u8], mode: u32) -> Result<(), PkiError> {
        self.write_with(path, content, mode, true)
    }

    /// The same for what each start makes again when it is damaged. It does not wait for the disk, so a machine that
    /// loses power may leave the file empty.
    ///
    /// # Errors
    /// As for [`Files::write`].
    pub(crate) fn write_replaceable(&mut self, path: &Path, content: &[u8], mode: u32) -> Result<(), PkiError> {
        self.write_with(path, content, mode, false)
    }

    fn write_with(&mut self, path: &Path, content: &[u8], mode: u32, durable: bool) -> Result<(), PkiError> {
        if let Ok(found) = fs::symlink_metadata(path)
            && found.is_file()
            && found.len() == content.len() as u64
            && fs::read(path).is_ok_and(|old| old == content)
        {
            if found.mode() & 0o7777 == mode {
                return Ok(());
            }
            self.count(path)?;
            return fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(failed("change mode of", path));
        }
        self.count(path)?;
        let beside = beside(path);
        let written = write_new(&beside, content, mode, durable).and_then(|()| fs::rename(&beside, path));
        if written.is_err() {
            fs::remove_file(&beside).ok();
        }
        self.renamed(path);
        written.map_err(failed("write", path))
    }

    /// Makes a path a symbolic link to `target`, in the place of whatever is there.
    ///
    /// # Errors
    /// It can't be made.
    pub(crate) fn link_to(&mut self, path: &Path, target: &Path) -> Result<(), PkiError> {
        if fs::read_link(path).is_ok_and(|old| old == target) {
            return Ok(());
        }
        self.count(path)?;
        let beside = beside(path);
        fs::remove_file(&beside).ok();
        self.renamed(path);
        let made = symlink(target, &beside).and_then(|()| fs::rename(&beside, path));
        made.map_err(failed("link", path))
    }

    /// Gives a file a second name.
    ///
    /// # Errors
    /// The second name is taken, or lies elsewhere.
    pub(crate) fn second_name(&mut self, path: &Path, file: &Path) -> Result<(), PkiError> {
        self.count(path)?;
        self.renamed(path);
        fs::hard_link(file, path).map_err(failed("link", path))
    }

    /// Takes a file away, if it is there.
    ///
    /// # Errors
    /// It can't be taken away.
    pub(crate) fn remove(&mut self, path: &Path) -> Result<(), PkiError> {
        if fs::symlink_metadata(path).is_err() {
            return Ok(());
        }
        self.count(path)?;
        self.renamed(path);
        fs::remove_file(path).map_err(failed("remove", path))
    }

    fn renamed(&mut self, path: &Path) {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        self.unsettled.extend(folder.map(Path::to_owned));
    }

    /// Makes all that was done durable.
    ///
    /// # Errors
    /// It may not be. What was not settled is settled the next time.
    pub(crate) fn settle(&mut self) -> Result<(), PkiError> {
        while let Some(folder) = self.unsettled.first() {
            let settled = File::open(folder).and_then(|folder| folder.sync_all());
            settled.map_err(failed("settle", folder))?;
            self.unsettled.pop_first();
        }
        Ok(())
    }
}

/// Where a file is written before it is moved. A rest of an interrupted write is written over the next time.
fn beside(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.new"))
}

fn write_new(path: &Path, content: &[u8], mode: u32, durable: bool) -> io::Result<()> {
    // A link that somebody put there is not followed.
    fs::remove_file(path).or_else(|error| if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) })?;
    let mut file = OpenOptions::new().write(true).create_new(true).mode(SECRET).open(path)?;
    file.set_permissions(fs::Permissions::from_mode(mode))?; // Past the process' mask.
    file.write_all(content)?;
    if durable { file.sync_all() } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_written_once_and_its_mode_is_kept() {
        let folder = tempfile::tempdir().expect("a directory");
        let path = folder.path().join("a");
        let mut files = Files::default();
        for (mode, changes) in [(SECRET, 1), (SECRET, 1), (PUBLIC, 2), (PUBLIC, 2)] {
            files.write(&path, b"x", mode).expect("it is written");
            assert_eq!(files.changes(), changes);
            assert_eq!(fs::metadata(&path).expect("it is there").mode() & 0o7777, mode);
        }
        assert_eq!(fs::read_dir(folder.path()).expect("it is there").count(), 1, "nothing is left beside it");
    }

    #[test]
    fn a_link_replaces_a_file_and_a_file_a_link() {
        let folder = tempfile::tempdir().expect("a directory");
        let (path, other) = (folder.path().join("a"), folder.path().join("b"));
        let mut files = Files::default();
        files.write(&path, b"x", SECRET).expect("it is written");
        files.link_to(&path, Path::new("b")).expect("it is linked");
        assert_eq!(fs::read_link(&path).expect("a link"), Path::new("b"));
        files.write(&other, b"y", SECRET).expect("it is written");
        files.write(&path, b"z", SECRET).expect("it is written");
        assert_eq!(fs::read(&other).expect("it is there"), b"y", "what the link led to is not touched");
        assert_eq!(fs::read(&path).expect("it is there"), b"z");
    }

    #[test]
    fn hands_that_die_change_nothing_more() {
        let folder = tempfile::tempdir().expect("a directory");
        let mut files = Files::dying_at(1);
        files.write(&folder.path().join("a"), b"x", SECRET).expect("the first change");
        assert!(files.write(&folder.path().join("b"), b"x", SECRET).is_err());
        assert!(!exists(&folder.path().join("b")));
    }
}
