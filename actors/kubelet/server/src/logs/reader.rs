//! Reads the log of a container, to its end or for as long as the container runs.
//!
//! Where a log is rotated while it is followed, what was written to the old file up to the last moment comes first.
//! Between two pieces nothing is held but an unfinished line, and nothing is read before somebody wants it.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use jiff::Timestamp;
use k3sd_kubelet_base::{ContainerState, Pods, PodsSnapshot};
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::io::Errno;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _, SeekFrom};

use super::file::{LogFile, PIECE_BYTES};
use super::options::LogOptions;
use super::select::Selection;
use super::tail::tail;

/// A longer line is none that a runtime wrote, whose longest are 16 KiB; it is left out.
const LINE_BYTES_MAX: usize = 1 << 20;

/// Cuts what is read into lines.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    /// The beginning of a line whose end isn't read yet.
    rest: Vec<u8>,
    /// The line is too long, and is left out up to its end.
    skips: bool,
}

impl Lines {
    /// Hands each line that is whole now to `each`.
    pub(crate) fn push(&mut self, piece: &[u8], mut each: impl FnMut(&[u8])) {
        for part in piece.split_inclusive(|byte| *byte == b'\n') {
            let is_end = part.ends_with(b"\n");
            if self.skips {
                self.skips = !is_end;
            } else if is_end && self.rest.is_empty() {
                each(part);
            } else if self.rest.len() + part.len() > LINE_BYTES_MAX {
                self.rest = Vec::new();
                self.skips = !is_end;
            } else {
                self.rest.extend_from_slice(part);
                if is_end {
                    each(&self.rest);
                    self.rest.clear();
                }
            }
        }
    }

    /// The line without an end, when there will be none.
    pub(crate) fn finish(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.rest)
    }
}

/// Says when something happens in the directory of a log.
#[derive(Debug)]
struct Watch(AsyncFd<OwnedFd>);

impl Watch {
    #[expect(deprecated, reason = "its successor is unsafe; an owned descriptor is what it asks for")]
    fn new(directory: &Path) -> io::Result<Self> {
        let watch = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
        let flags = WatchFlags::MODIFY | WatchFlags::CREATE | WatchFlags::MOVED_TO | WatchFlags::ONLYDIR;
        inotify::add_watch(&watch, directory, flags)?;
        Ok(Self(AsyncFd::new(watch)?))
    }

    /// Ends when something happened, whatever it was.
    async fn happened(&self) -> io::Result<()> {
        let mut events = [0; 4096];
        loop {
            let mut ready = self.0.readable().await?;
            match rustix::io::read(self.0.get_ref(), &mut events) {
                Ok(_) => return Ok(()),
                Err(Errno::AGAIN) => ready.clear_ready(),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// Whether a container may write on.
#[derive(Clone, Debug)]
pub(crate) struct Writer {
    /// What runs on the node.
    pub(crate) pods: Pods,
    /// The pod.
    pub(crate) uid: String,
    /// The runtime's id of the container.
    pub(crate) container: String,
}

impl Writer {
    fn is_in(&self, snapshot: &Arc<PodsSnapshot>) -> bool {
        let pod = snapshot.pods.get(&self.uid);
        let container = pod.and_then(|pod| pod.containers.iter().find(|container| container.id == self.container));
        container.is_some_and(|container| container.state != ContainerState::Exited)
    }

    fn runs(&mut self) -> bool {
        let snapshot = self.pods.borrow_and_update().clone();
        self.is_in(&snapshot)
    }

    /// Ends when it doesn't.
    async fn ended(&mut self) {
        while self.pods.changed().await.is_ok() {
            if !self.runs() {
                return;
            }
        }
    }
}

/// A log that is read.
#[derive(Debug)]
pub(crate) struct LogReader {
    path: PathBuf,
    file: LogFile,
    inode: u64,
    /// The file after this one, when the log was rotated.
    next: Option<(LogFile, u64)>,
    lines: Lines,
    selection: Selection,
    follow: bool,
    watch: Option<Watch>,
    writer: Writer,
    is_simulated: bool,
    done: bool,
}

impl LogReader {
    /// As [`LogReader::open_on`], on a real clock.
    #[cfg(test)]
    pub(crate) async fn open(path: PathBuf, options: LogOptions, writer: Writer, now: Timestamp) -> io::Result<Self> {
        Self::open_on(false, path, options, writer, now).await
    }

    /// Opens a log and finds the place to begin at; on a simulated clock, or a real one.
    ///
    /// # Errors
    /// The file isn't there, or can't be read.
    pub(crate) async fn open_on(
        is_simulated: bool,
        path: PathBuf,
        options: LogOptions,
        writer: Writer,
        now: Timestamp,
    ) -> io::Result<Self> {
        let (mut file, inode) = LogFile::open(&path, is_simulated).await?;
        if let Some(lines) = options.tail {
            let begin = tail(&mut file, lines).await?;
            file.seek(SeekFrom::Start(begin)).await?;
        }
        let follow = options.follow;
        let selection = Selection::new(options, now);
        let (lines, done) = (Lines::default(), false);
        Ok(Self { path, file, inode, next: None, lines, selection, follow, watch: None, writer, is_simulated, done })
    }

    /// The next piece; `None` at the end.
    ///
    /// # Errors
    /// The file can't be read on.
    pub(crate) async fn next(&mut self) -> io::Result<Option<Bytes>> {
        let mut out = BytesMut::new();
        let mut piece = vec![0; PIECE_BYTES];
        while !self.done && !self.selection.is_done() {
            // Asked before reading: what it wrote before its end is in the file by then.
            let goes_on = self.follow && self.writer.runs();
            let read = self.file.read(&mut piece).await?;
            if read > 0 {
                let selection = &mut self.selection;
                self.lines.push(&piece[..read], |line| selection.take(line, &mut out));
            } else {
                self.at_end(goes_on, &mut out).await?;
            }
            if !out.is_empty() {
                return Ok(Some(out.freeze()));
            }
        }
        Ok(None)
    }

    /// What to do at the end of the file.
    async fn at_end(&mut self, goes_on: bool, out: &mut BytesMut) -> io::Result<()> {
        if let Some((file, inode)) = self.next.take() {
            self.selection.take(&self.lines.finish(), out);
            (self.file, self.inode) = (file, inode);
            return Ok(());
        }
        if !goes_on {
            self.selection.take(&self.lines.finish(), out);
            self.done = true;
            return Ok(());
        }
        let Some(watch) = &self.watch else {
            // What happens from now on is noticed; what happened until now is read first.
            let directory = self.path.parent().unwrap_or(Path::new("/"));
            self.watch = Some(Watch::new(directory)?);
            return Ok(());
        };
        match LogFile::open(&self.path, self.is_simulated).await {
            // The old file is read once more, because it may have been written to before the new one was made.
            Ok((file, inode)) if inode != self.inode => {
                self.next = Some((file, inode));
                return Ok(());
            }
            Ok(_) => {}
            // Moved away, and the runtime hasn't made the new one yet.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        tokio::select! {
            happened = watch.happened() => happened,
            () = self.writer.ended() => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
