//! Network namespaces.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::error::NetlinkError;

/// An open network namespace. Two are equal when they are the same namespace, by whatever path.
#[derive(Debug, Clone)]
pub struct Namespace {
    file: Arc<File>,
    path: PathBuf,
    identity: (u64, u64),
}

impl PartialEq for Namespace {
    fn eq(&self, other: &Self) -> bool {
        self.identity == other.identity
    }
}

impl Eq for Namespace {}

impl Namespace {
    /// Opens the namespace that a file stands for: `/proc/PID/ns/net`, or a bind mount of one.
    ///
    /// # Errors
    /// There is no such file.
    pub fn open(path: &Path) -> Result<Self, NetlinkError> {
        let failed = |source| NetlinkError::Namespace { path: path.to_owned(), source };
        let file = File::open(path).map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        let identity = (metadata.dev(), metadata.ino());
        Ok(Self { file: Arc::new(file), path: path.to_owned(), identity })
    }

    /// The one that the calling thread is in.
    ///
    /// # Errors
    /// /proc is not mounted.
    pub fn current() -> Result<Self, NetlinkError> {
        Self::open(Path::new("/proc/thread-self/ns/net"))
    }

    /// The path that it was opened by.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Runs `work` inside, on a thread of its own that ends with it. A netlink socket opened inside stays inside, and
    /// may be brought out.
    ///
    /// # Errors
    /// The file is no network namespace, or the privilege is missing; or what `work` returns.
    ///
    /// # Panics
    /// When `work` does.
    pub fn enter<T: Send, E: From<NetlinkError> + Send>(
        &self,
        work: impl FnOnce() -> Result<T, E> + Send,
    ) -> Result<T, E> {
        let failed = |source: io::Error| NetlinkError::Namespace { path: self.path.clone(), source };
        let inside = || {
            let kind = Some(LinkNameSpaceType::Network);
            move_into_link_name_space(self.file.as_fd(), kind).map_err(|errno| failed(errno.into()))?;
            work()
        };
        let joined = std::thread::scope(|scope| {
            let started = std::thread::Builder::new().name("netns".to_owned()).spawn_scoped(scope, inside);
            started.map(std::thread::ScopedJoinHandle::join)
        });
        match joined.map_err(failed)? {
            Ok(done) => done,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }

    pub(crate) fn raw(&self) -> RawFd {
        self.file.as_raw_fd()
    }
}

impl AsFd for Namespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}
