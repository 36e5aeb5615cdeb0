//! What is mounted, as the kernel says, and mounting itself.

use std::ffi::CString;
use std::path::{Path, PathBuf};
use std::{fs, io};

use rustix::mount::{MountFlags, UnmountFlags, mount, mount_bind, mount_remount, unmount};

use crate::error::VolumeError;

/// The mounts of this process's namespace.
const MOUNTINFO: &str = "/proc/self/mountinfo";
/// How often one place is unmounted: as many mounts may lie on each other there.
const LAYERS_MAX: usize = 32;

/// Where something is mounted, in the order in which it was.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Mounts(Vec<PathBuf>);

impl Mounts {
    pub(crate) fn read() -> Result<Self, VolumeError> {
        let path = Path::new(MOUNTINFO);
        fs::read(path).map(|text| Self::parse(&text)).map_err(VolumeError::io("read", path))
    }

    fn parse(text: &[u8]) -> Self {
        let lines = text.split(|byte| *byte == b'\n');
        let places = lines.filter_map(|line| line.split(|byte| *byte == b' ').nth(4));
        Self(places.map(unescape).collect())
    }

    /// Whether something is mounted right here.
    pub(crate) fn has(&self, path: &Path) -> bool {
        self.0.iter().any(|place| place == path)
    }

    /// Whether something is mounted here or below.
    pub(crate) fn has_below(&self, path: &Path) -> bool {
        self.0.iter().any(|place| place.starts_with(path))
    }

    /// What is mounted here and below, the last one first.
    fn below(&self, path: &Path) -> Vec<&Path> {
        self.0.iter().rev().map(PathBuf::as_path).filter(|place| place.starts_with(path)).collect()
    }
}

/// Blanks and the like are `\040` there.
fn unescape(text: &[u8]) -> PathBuf {
    let mut plain = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, tail)) = rest.split_first() {
        let octal =
            tail.get(..3).filter(|digits| byte == b'\\' && digits.iter().all(|digit| (b'0'..=b'7').contains(digit)));
        if let Some(digits) = octal {
            plain.push(digits.iter().fold(0_u8, |sum, digit| sum.wrapping_mul(8).wrapping_add(digit - b'0')));
            rest = &tail[3..];
        } else {
            plain.push(byte);
            rest = tail;
        }
    }
    PathBuf::from(<std::ffi::OsString as std::os::unix::ffi::OsStringExt>::from_vec(plain))
}

/// A file system in memory, of at most so many bytes; no limit but the machine's without. It is kept out of swap where the
/// kernel can do that (6.4 can).
pub(crate) fn tmpfs(at: &Path, bytes: Option<u64>) -> Result<(), VolumeError> {
    let size = bytes.map(|bytes| format!("size={bytes}"));
    let without_swap = size.as_ref().map_or_else(|| "noswap".to_owned(), |size| format!("noswap,{size}"));
    match special(at, "tmpfs", Some(&without_swap)) {
        Err(VolumeError::Io { source, .. }) if source.kind() == io::ErrorKind::InvalidInput => {
            special(at, "tmpfs", size.as_deref())
        }
        outcome => outcome,
    }
}

/// A file system of huge pages of one size, in bytes.
pub(crate) fn hugetlbfs(at: &Path, page_bytes: u64) -> Result<(), VolumeError> {
    special(at, "hugetlbfs", Some(&format!("pagesize={page_bytes}")))
}

fn special(at: &Path, kind: &str, options: Option<&str>) -> Result<(), VolumeError> {
    let options =
        options.map(CString::new).transpose().map_err(|_| VolumeError::refused("a mount option has a zero byte"))?;
    mount(kind, at, kind, MountFlags::empty(), options.as_deref()).map_err(VolumeError::errno("mount", at))
}

/// The same files at a second place. A read-only one is so from its first visible moment on the pod's side: the remount
/// comes before anybody is told of the place.
pub(crate) fn bind(from: &Path, at: &Path, read_only: bool) -> Result<(), VolumeError> {
    mount_bind(from, at).map_err(VolumeError::errno("bind-mount at", at))?;
    if read_only {
        mount_remount(at, MountFlags::BIND | MountFlags::RDONLY, "")
            .map_err(VolumeError::errno("remount read-only", at))?;
    }
    Ok(())
}

/// Unmounts one place, as often as something is mounted there. Somebody who still uses it keeps it until they let go.
pub(crate) fn unmount_at(at: &Path) -> Result<(), VolumeError> {
    for _ in 0..LAYERS_MAX {
        match unmount(at, UnmountFlags::NOFOLLOW) {
            Ok(()) => {}
            Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOENT) => return Ok(()),
            Err(rustix::io::Errno::BUSY) => {
                let flags = UnmountFlags::NOFOLLOW | UnmountFlags::DETACH;
                unmount(at, flags).map_err(VolumeError::errno("unmount", at))?;
            }
            Err(errno) => return Err(VolumeError::errno("unmount", at)(errno)),
        }
    }
    Err(VolumeError::StillMounted { path: at.to_owned() })
}

/// Unmounts everything here and below, the last first.
pub(crate) fn unmount_below(path: &Path) -> Result<(), VolumeError> {
    let mounts = Mounts::read()?;
    for place in mounts.below(path) {
        unmount_at(place)?;
    }
    if Mounts::read()?.has_below(path) { Err(VolumeError::StillMounted { path: path.to_owned() }) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_are_read_with_their_odd_names() {
        let text = b"22 27 0:21 / /proc rw - proc proc rw\n23 27 0:1 / /a\\040b rw shared:1 - tmpfs t rw\n24 23 0:1 / /a\\040b/c rw - tmpfs t rw\nbroken\n";
        let mounts = Mounts::parse(text);
        assert!(mounts.has(Path::new("/proc")) && mounts.has(Path::new("/a b")));
        assert!(!mounts.has(Path::new("/a")) && !mounts.has_below(Path::new("/a")));
        assert_eq!(mounts.below(Path::new("/a b")), [Path::new("/a b/c"), Path::new("/a b")]);
        assert_eq!(unescape(b"\\134x\\9"), Path::new("\\x\\9"));
    }
}
