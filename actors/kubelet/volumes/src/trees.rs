//! Walks through directories that pods wrote: never through a symbolic link, never into another mount, at any depth.
//!
//! Directories are opened one at a time, by their path below the one they started from; the kernel itself refuses links
//! and other mounts on the way. So depth costs neither stack nor open files.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, Dir, FileType, Gid, Mode, OFlags, ResolveFlags, Stat, chownat, fchmod, fchown, fstat, open, openat2,
    renameat, statat, unlinkat,
};
use rustix::io::Errno;

use crate::error::VolumeError;

/// Paths below a root that are longer are shortened before they are opened: the kernel takes 4096 bytes.
const PATH_BYTES_MAX: usize = 2048;

fn beneath() -> ResolveFlags {
    ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV
}

fn directory_flags() -> OFlags {
    OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC
}

/// Opens a directory below an open one; `.` is that one itself.
fn enter(root: BorrowedFd<'_>, below: &Path) -> Result<OwnedFd, Errno> {
    let below = if below.as_os_str().is_empty() { Path::new(".") } else { below };
    openat2(root, below, directory_flags(), Mode::empty(), beneath())
}

/// Names in a directory.
fn names(directory: &OwnedFd) -> Result<Vec<std::ffi::OsString>, Errno> {
    let mut found = Vec::new();
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            found.push(OsStr::from_bytes(name).to_owned());
        }
    }
    Ok(found)
}

fn is_directory(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Directory
}

/// Deletes a directory with everything in it. Whoever calls has made sure that nothing is mounted there; should something
/// be, it and what is in it stays.
pub(crate) fn delete(path: &Path) -> Result<(), VolumeError> {
    let fail = |errno| VolumeError::errno("delete", path)(errno);
    let root = match open(path, directory_flags(), Mode::empty()) {
        Ok(root) => root,
        Err(Errno::NOENT) => return Ok(()),
        Err(Errno::NOTDIR | Errno::LOOP) => return std::fs::remove_file(path).map_err(VolumeError::io("delete", path)),
        Err(errno) => return Err(fail(errno)),
    };
    let mut waiting = vec![PathBuf::new()];
    let mut moved = 0_u64;
    while let Some(place) = waiting.pop() {
        let directory = match enter(root.as_fd(), &place) {
            Ok(directory) => directory,
            Err(Errno::NOENT) => continue,
            Err(errno) => return Err(fail(errno)),
        };
        let mut below = Vec::new();
        for name in names(&directory).map_err(fail)? {
            match unlinkat(&directory, name.as_os_str(), AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(Errno::ISDIR | Errno::PERM) => below.push(name),
                Err(errno) => return Err(fail(errno)),
            }
        }
        // Empty ones go at once; the others are emptied first, and this one is looked at again afterwards.
        let mut full = Vec::new();
        for name in below {
            match unlinkat(&directory, name.as_os_str(), AtFlags::REMOVEDIR) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(Errno::NOTEMPTY | Errno::EXIST) => full.push(name),
                Err(errno) => return Err(fail(errno)),
            }
        }
        if full.is_empty() {
            continue;
        }
        let is_deep = place.as_os_str().len() > PATH_BYTES_MAX;
        if !is_deep {
            waiting.push(place.clone());
        }
        for name in full {
            if is_deep {
                let short = PathBuf::from(format!(".deleted-{moved}"));
                moved += 1;
                renameat(&directory, name.as_os_str(), &root, &short).map_err(fail)?;
                waiting.insert(0, short);
            } else {
                waiting.push(place.join(name));
            }
        }
    }
    match std::fs::remove_dir(path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        // What was moved up lies in the root now.
        Err(error) if error.kind() == std::io::ErrorKind::DirectoryNotEmpty && moved > 0 => delete(path),
        Err(error) => Err(VolumeError::io("delete", path)(error)),
    }
}

/// What a directory takes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Taken {
    pub(crate) bytes: u64,
    pub(crate) inodes: u64,
}

/// Adds up what is in a directory; a file with several names counts once. What disappears meanwhile doesn't count.
pub(crate) fn taken(path: &Path) -> Result<Taken, VolumeError> {
    let fail = |errno| VolumeError::errno("add up", path)(errno);
    let root = open(path, directory_flags(), Mode::empty()).map_err(fail)?;
    let own = fstat(&root).map_err(fail)?;
    let mut sum = Taken { bytes: blocks(&own), inodes: 1 };
    let mut seen = BTreeSet::new();
    let mut waiting = vec![PathBuf::new()];
    while let Some(place) = waiting.pop() {
        // What is too deep, gone or somebody else's by now is left out.
        let Ok(directory) = enter(root.as_fd(), &place) else { continue };
        for name in names(&directory).unwrap_or_default() {
            let Ok(stat) = statat(&directory, name.as_os_str(), AtFlags::SYMLINK_NOFOLLOW) else { continue };
            if stat.st_dev != own.st_dev {
                continue;
            }
            if is_directory(&stat) {
                waiting.push(place.join(&name));
            } else if stat.st_nlink > 1 && !seen.insert(stat.st_ino) {
                continue;
            }
            sum.bytes = sum.bytes.saturating_add(blocks(&stat));
            sum.inodes += 1;
        }
    }
    Ok(sum)
}

fn blocks(stat: &Stat) -> u64 {
    u64::try_from(stat.st_blocks).unwrap_or(0).saturating_mul(512)
}

const SETGID: u32 = 0o2000;
/// What a group gets on what it owns, by whether the volume can be written to.
const READ_WRITE: u32 = 0o660;
const READ_ONLY: u32 = 0o440;
const ENTER: u32 = 0o110;

fn group_mode(is_directory: bool, read_only: bool) -> u32 {
    let mode = if read_only { READ_ONLY } else { READ_WRITE };
    if is_directory { mode | SETGID | ENTER } else { mode }
}

/// Whether the root of a volume is a group's already, as `OnRootMismatch` asks.
pub(crate) fn root_belongs(path: &Path, group: u32, read_only: bool) -> Result<bool, VolumeError> {
    let stat = rustix::fs::lstat(path).map_err(VolumeError::errno("look at", path))?;
    let wanted = group_mode(true, read_only);
    Ok(stat.st_gid == group && stat.st_mode & wanted == wanted)
}

/// Gives a volume to a group, with everything in it: files and directories can be read by it (and written to unless
/// `read_only`), and what is made in a directory later belongs to it as well. Links are given, not followed.
pub(crate) fn give_to_group(path: &Path, group: u32, read_only: bool) -> Result<(), VolumeError> {
    let fail = |errno| VolumeError::errno("give to a group", path)(errno);
    let gid = Gid::from_raw(group);
    let root = open(path, directory_flags(), Mode::empty()).map_err(fail)?;
    let mut waiting = vec![PathBuf::new()];
    let mut order = Vec::new();
    while let Some(place) = waiting.pop() {
        let directory = match enter(root.as_fd(), &place) {
            Ok(directory) => directory,
            Err(Errno::NOENT | Errno::XDEV) => continue,
            Err(errno) => return Err(fail(errno)),
        };
        for name in names(&directory).map_err(fail)? {
            let stat = match statat(&directory, name.as_os_str(), AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => stat,
                Err(Errno::NOENT) => continue,
                Err(errno) => return Err(fail(errno)),
            };
            if is_directory(&stat) {
                waiting.push(place.join(&name));
                continue;
            }
            match chownat(&directory, name.as_os_str(), None, Some(gid), AtFlags::SYMLINK_NOFOLLOW) {
                Ok(()) => {}
                Err(Errno::NOENT) => continue,
                Err(errno) => return Err(fail(errno)),
            }
            if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile {
                add_mode(&directory, &name, group_mode(false, read_only)).map_err(fail)?;
            }
        }
        order.push(place);
    }
    // The root comes last, so that a change that is cut short is found by `OnRootMismatch`.
    for place in order.iter().rev() {
        let directory = match enter(root.as_fd(), place) {
            Ok(directory) => directory,
            Err(Errno::NOENT) => continue,
            Err(errno) => return Err(fail(errno)),
        };
        fchown(&directory, None, Some(gid)).map_err(fail)?;
        let stat = fstat(&directory).map_err(fail)?;
        fchmod(&directory, Mode::from_raw_mode(stat.st_mode & 0o7777 | group_mode(true, read_only))).map_err(fail)?;
    }
    Ok(())
}

/// Adds to a file's mode, through an open file: a name could be another's by then.
fn add_mode(directory: &OwnedFd, name: &OsStr, mode: u32) -> Result<(), Errno> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let file = match openat2(directory, name, flags, Mode::empty(), beneath()) {
        Ok(file) => file,
        Err(Errno::NOENT | Errno::LOOP | Errno::XDEV) => return Ok(()),
        Err(errno) => return Err(errno),
    };
    let stat = fstat(&file)?;
    fchmod(&file, Mode::from_raw_mode(stat.st_mode & 0o7777 | mode))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{CWD, mkdirat, openat};
    use std::fs;
    use std::os::unix::fs::{MetadataExt as _, symlink};

    #[test]
    fn any_depth_is_deleted_and_counted_up_to_the_kernels_longest_path() {
        let home = tempfile::tempdir().unwrap();
        let root = home.path().join("deep");
        fs::create_dir(&root).unwrap();
        let mut directory = openat(CWD, &root, directory_flags(), Mode::empty()).unwrap();
        let name = "n".repeat(200);
        for _ in 0..60 {
            mkdirat(&directory, name.as_str(), Mode::RWXU).unwrap();
            directory = openat(&directory, name.as_str(), directory_flags(), Mode::empty()).unwrap();
        }
        assert!(taken(&root).unwrap().inodes > 10);
        delete(&root).unwrap();
        assert!(!root.exists());
        delete(&root).unwrap();
    }

    #[test]
    fn links_are_neither_followed_nor_opened() {
        let home = tempfile::tempdir().unwrap();
        let (outside, root) = (home.path().join("outside"), home.path().join("root"));
        fs::create_dir_all(outside.join("d")).unwrap();
        fs::write(outside.join("f"), "x").unwrap();
        fs::create_dir(&root).unwrap();
        symlink(&outside, root.join("link")).unwrap();
        symlink(outside.join("f"), root.join("file")).unwrap();
        let before = fs::metadata(outside.join("f")).unwrap();
        if rustix::process::geteuid().is_root() {
            give_to_group(&root, 777, false).unwrap();
            assert_eq!(fs::symlink_metadata(root.join("link")).unwrap().gid(), 777);
            assert!(root_belongs(&root, 777, false).unwrap() && !root_belongs(&root, 778, false).unwrap());
        } else {
            println!("ignored: only root gives files away");
        }
        let after = fs::metadata(outside.join("f")).unwrap();
        assert_eq!((after.gid(), after.mode()), (before.gid(), before.mode()));
        delete(&root).unwrap();
        assert!(outside.join("f").exists() && outside.join("d").exists());
    }
}
