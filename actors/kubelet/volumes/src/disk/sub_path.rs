//! A part of a volume for one container.
//!
//! The pod can change what is in the volume while this runs, so every step is taken by the kernel below an open
//! directory, which nobody leaves by a link; what is mounted in the end is what was opened, whatever its name leads to by
//! then.

use std::fs;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, fchmod, fstat, mkdirat, open, openat2};
use rustix::io::Errno;

use super::job::make_directories;
use crate::error::VolumeError;
use crate::mounts::{self, Mounts};
use crate::paths::Paths;
use crate::types::SubPath;

/// Mounts the part, makes it if it isn't there, and says where.
pub(super) fn sub_path(paths: &Paths, wanted: &SubPath) -> Result<PathBuf, VolumeError> {
    let part = Path::new(&wanted.sub_path);
    if !part.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir)) {
        return Err(VolumeError::Refused(format!(
            "subPath {:?} must be relative and must not contain '..'",
            wanted.sub_path
        )));
    }
    let found = find(&wanted.host_path, part, wanted.read_only)?;
    let at = paths.sub_paths(&wanted.uid, &wanted.volume, &wanted.container)?.join(wanted.index.to_string());
    let own = fstat(&found).map_err(VolumeError::errno("look at", &wanted.host_path))?;
    if Mounts::read()?.has(&at) {
        let there = rustix::fs::lstat(&at).map_err(VolumeError::errno("look at", &at))?;
        if (there.st_dev, there.st_ino) == (own.st_dev, own.st_ino) {
            return Ok(at);
        }
        mounts::unmount_at(&at)?;
    }
    make_directories(at.parent().unwrap_or(&at), 0o750)?;
    if FileType::from_raw_mode(own.st_mode) == FileType::Directory {
        if at.is_file() {
            fs::remove_file(&at).map_err(VolumeError::io("delete", &at))?;
        }
        make_directories(&at, 0o750)?;
    } else {
        if at.is_dir() {
            fs::remove_dir(&at).map_err(VolumeError::io("delete", &at))?;
        }
        fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(&at)
            .map_err(VolumeError::io("make file", &at))?;
    }
    let source = PathBuf::from(format!("/proc/self/fd/{}", found.as_fd().as_raw_fd()));
    mounts::bind(&source, &at, false)?;
    Ok(at)
}

/// Opens the part, and makes directories on the way as open as the volume's own.
fn find(volume: &Path, part: &Path, read_only: bool) -> Result<OwnedFd, VolumeError> {
    let whole = volume.join(part);
    let fail = |errno: Errno| match errno {
        Errno::XDEV | Errno::LOOP => {
            VolumeError::Refused(format!("subPath {:?} leads out of its volume", part.display()))
        }
        other => VolumeError::errno("open", &whole)(other),
    };
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let root = open(volume, flags, Mode::empty()).map_err(VolumeError::errno("open", volume))?;
    let inside = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    let below = |path: &Path| {
        openat2(&root, if path.as_os_str().is_empty() { Path::new(".") } else { path }, flags, Mode::empty(), inside)
    };
    match below(part) {
        Err(Errno::NOENT) if !read_only => {}
        outcome => return outcome.map_err(fail),
    }
    let mode = Mode::from_raw_mode(fstat(&root).map_err(fail)?.st_mode & 0o7777);
    let mut path = PathBuf::new();
    let mut parent = below(&path).map_err(fail)?;
    for name in part.components() {
        path.push(name);
        let next = match below(&path) {
            Err(Errno::NOENT) => {
                match mkdirat(&parent, Path::new(&name), mode) {
                    Ok(()) | Err(Errno::EXIST) => {}
                    Err(errno) => return Err(fail(errno)),
                }
                let readable = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let made = openat2(&parent, Path::new(&name), readable, Mode::empty(), inside).map_err(fail)?;
                // The umask takes from what mkdir gives.
                fchmod(&made, mode).map_err(fail)?;
                below(&path).map_err(fail)?
            }
            outcome => outcome.map_err(fail)?,
        };
        parent = next;
    }
    Ok(parent)
}
