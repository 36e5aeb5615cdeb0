//! The file of a log.
//!
//! A paused clock of tokio's doesn't wait for the threads that read files for it, and whichever of the two is quicker
//! would decide what comes first. On a simulated clock a file is therefore read at once, where it is asked for.

use std::fs::File as StdFile;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::fs::File;
use tokio::io::{AsyncRead, AsyncSeek, ReadBuf};

/// What is read of a file at once.
pub(super) const PIECE_BYTES: usize = 32 * 1024;

/// A log's file, open for reading.
#[derive(Debug)]
pub(super) enum LogFile {
    /// Read by tokio's threads.
    Pooled(File),
    /// Read at once.
    Inline(StdFile),
}

impl LogFile {
    /// Opens one, and says which inode it is.
    ///
    /// # Errors
    /// It isn't there, or is no file.
    pub(super) async fn open(path: &Path, is_simulated: bool) -> io::Result<(Self, u64)> {
        let (file, metadata) = if is_simulated {
            let file = StdFile::open(path)?;
            let metadata = file.metadata()?;
            (Self::Inline(file), metadata)
        } else {
            let mut file = File::open(path).await?;
            file.set_max_buf_size(PIECE_BYTES);
            let metadata = file.metadata().await?;
            (Self::Pooled(file), metadata)
        };
        if !metadata.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the log is no file"));
        }
        Ok((file, metadata.ino()))
    }
}

impl AsyncRead for LogFile {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Pooled(file) => Pin::new(file).poll_read(cx, buf),
            Self::Inline(file) => {
                let read = file.read(buf.initialize_unfilled())?;
                buf.advance(read);
                Poll::Ready(Ok(()))
            }
        }
    }
}

impl AsyncSeek for LogFile {
    fn start_seek(self: Pin<&mut Self>, position: SeekFrom) -> io::Result<()> {
        match self.get_mut() {
            Self::Pooled(file) => Pin::new(file).start_seek(position),
            Self::Inline(file) => file.seek(position).map(drop),
        }
    }

    fn poll_complete(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<u64>> {
        match self.get_mut() {
            Self::Pooled(file) => Pin::new(file).poll_complete(cx),
            Self::Inline(file) => Poll::Ready(file.stream_position()),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};

    use super::*;

    #[tokio::test]
    async fn both_ways_read_the_same() {
        let directory = tempfile::TempDir::new().unwrap();
        let path = directory.path().join("0.log");
        std::fs::write(&path, "one\ntwo\n").unwrap();
        for is_simulated in [false, true] {
            let (mut file, inode) = LogFile::open(&path, is_simulated).await.unwrap();
            assert_eq!(inode, std::fs::metadata(&path).unwrap().ino());
            assert_eq!(file.seek(SeekFrom::End(-4)).await.unwrap(), 4);
            let mut text = String::new();
            file.read_to_string(&mut text).await.unwrap();
            assert_eq!(text, "two\n");
            assert!(LogFile::open(directory.path(), is_simulated).await.is_err(), "a directory is no log");
            assert!(LogFile::open(&path.join("x"), is_simulated).await.is_err());
        }
    }
}
