//! Small writes of HTTP/2 go out together: one record of TLS and one system call for all that is ready, not one for each
//! answer or event.
//!
//! The codec below hyper flushes after every frame with data. While the connection [holds](Hold), a flush is put off;
//! whoever holds lets go when there is nothing more to write for now, and flushes once.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Held at most; what comes beyond drives it out. A few records of TLS.
const HELD_BYTES_MAX: usize = 64 * 1024;
/// What is as long as this is not worth copying.
const LARGE_BYTES: usize = 8 * 1024;
/// Memory that a connection keeps while it has nothing to write.
const KEPT_BYTES: usize = 4 * 1024;

/// Shared with whoever drives the connection, in the same task.
#[derive(Clone, Debug, Default)]
pub(super) struct Hold(Arc<State>);

#[derive(Debug, Default)]
struct State {
    holds: AtomicBool,
    /// Whether a flush was put off.
    owed: AtomicBool,
}

impl Hold {
    /// From now on flushes are put off.
    pub(super) fn begin(&self) {
        self.0.holds.store(true, Relaxed);
    }

    /// Flushes flush again. Says whether one is owed: the connection has to be polled once more, which flushes.
    pub(super) fn end(&self) -> bool {
        self.0.holds.store(false, Relaxed);
        self.0.owed.swap(false, Relaxed)
    }
}

/// See the module's page.
#[derive(Debug)]
pub(super) struct Gather<S> {
    inner: S,
    held: Vec<u8>,
    /// How much of what is held is out.
    out: usize,
    hold: Hold,
}

impl<S> Gather<S> {
    pub(super) fn new(inner: S, hold: Hold) -> Self {
        Self { inner, held: Vec::new(), out: 0, hold }
    }
}

impl<S: AsyncWrite + Unpin> Gather<S> {
    fn drive_out(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.out < self.held.len() {
            match ready!(Pin::new(&mut self.inner).poll_write(context, &self.held[self.out..]))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => self.out += written,
            }
        }
        self.out = 0;
        self.held.clear();
        self.held.shrink_to(KEPT_BYTES);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Gather<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(context, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let length = pieces.iter().map(|piece| piece.len()).sum();
        if length >= LARGE_BYTES || this.held.len() + length > HELD_BYTES_MAX {
            ready!(this.drive_out(context))?;
        }
        if length >= LARGE_BYTES {
            return Pin::new(&mut this.inner).poll_write_vectored(context, pieces);
        }
        pieces.iter().for_each(|piece| this.held.extend_from_slice(piece));
        Poll::Ready(Ok(length))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.hold.0.holds.load(Relaxed) {
            this.hold.0.owed.store(true, Relaxed);
            return Poll::Ready(Ok(()));
        }
        ready!(this.drive_out(context))?;
        Pin::new(&mut this.inner).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.drive_out(context))?;
        Pin::new(&mut this.inner).poll_shutdown(context)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Gather<S> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_read(context, into)
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    /// Takes so many bytes at once, and nothing while it is blocked.
    #[derive(Debug, Default)]
    struct Sink {
        at_once: usize,
        blocked: bool,
        writes: Vec<Vec<u8>>,
        flushes: usize,
    }

    impl AsyncWrite for Sink {
        fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            if self.blocked {
                return Poll::Pending;
            }
            let taken = bytes.len().min(self.at_once);
            self.writes.push(bytes[..taken].to_vec());
            Poll::Ready(Ok(taken))
        }

        fn poll_flush(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            self.flushes += 1;
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    fn gather(at_once: usize) -> (Gather<Sink>, Hold) {
        let hold = Hold::default();
        (Gather::new(Sink { at_once, ..Sink::default() }, hold.clone()), hold)
    }

    fn write(gather: &mut Gather<Sink>, bytes: &[u8]) -> bool {
        let written = Pin::new(gather).poll_write(&mut Context::from_waker(Waker::noop()), bytes);
        matches!(written, Poll::Ready(Ok(length)) if length == bytes.len())
    }

    fn flush(gather: &mut Gather<Sink>) -> bool {
        Pin::new(gather).poll_flush(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    #[test]
    fn what_is_written_while_held_goes_out_at_once() {
        let (mut gather, hold) = gather(usize::MAX);
        hold.begin();
        for piece in [b"a", b"b", b"c"] {
            assert!(write(&mut gather, piece) && flush(&mut gather));
        }
        assert_eq!((gather.inner.writes.len(), gather.inner.flushes), (0, 0));
        assert!(hold.end() && !hold.end(), "one flush is owed");
        assert!(flush(&mut gather));
        assert_eq!((&*gather.inner.writes, gather.inner.flushes), (&[b"abc".to_vec()][..], 1));
        hold.begin();
        assert!(!hold.end(), "nothing was flushed meanwhile");
    }

    #[test]
    fn what_is_long_goes_by_itself_behind_what_is_held() {
        let (mut gather, hold) = gather(usize::MAX);
        hold.begin();
        let long = vec![b'x'; LARGE_BYTES];
        assert!(write(&mut gather, b"a") && write(&mut gather, &long) && write(&mut gather, b"b"));
        assert_eq!(gather.inner.writes, [b"a".to_vec(), long]);
        hold.end();
        assert!(flush(&mut gather));
        assert_eq!(gather.inner.writes.last(), Some(&b"b".to_vec()));
        assert!(gather.held.capacity() <= KEPT_BYTES);
    }

    #[test]
    fn no_more_is_held_than_the_bound_and_nothing_is_lost_or_said_twice() {
        let (mut gather, hold) = gather(1000);
        hold.begin();
        let mut wanted = Vec::new();
        for number in 0..200_u8 {
            let piece = vec![number; 700];
            gather.inner.blocked = number % 3 == 0;
            let mut taken = write(&mut gather, &piece);
            assert!(taken || gather.inner.blocked, "only who is blocked refuses");
            gather.inner.blocked = false;
            while !taken {
                taken = write(&mut gather, &piece);
            }
            wanted.extend(piece);
            assert!(gather.held.len() <= HELD_BYTES_MAX);
        }
        hold.end();
        gather.inner.blocked = true;
        assert!(!flush(&mut gather), "it waits for the socket");
        gather.inner.blocked = false;
        assert!(flush(&mut gather));
        assert_eq!(gather.inner.writes.concat(), wanted);
    }

    #[test]
    fn the_end_takes_along_what_is_held() {
        let (mut gather, hold) = gather(2);
        hold.begin();
        assert!(write(&mut gather, b"abcde"));
        let ended = Pin::new(&mut gather).poll_shutdown(&mut Context::from_waker(Waker::noop()));
        assert!(matches!(ended, Poll::Ready(Ok(()))));
        assert_eq!(gather.inner.writes.concat(), b"abcde");
    }
}
