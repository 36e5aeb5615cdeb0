//! Copies between two connections, both ways, with memory for one piece in each direction.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use k3sd_runtime::{Clock, Moment};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::Notify;

/// A connection on which nothing is said for so long is closed, as upstream's are.
pub const IDLE_LIMIT: Duration = Duration::from_secs(4 * 3600);
/// What is read at once.
const PIECE_BYTES: usize = 16 * 1024;
/// When one side has said its last word, the other may go on; silent for so long it is closed too. A client that
/// vanished looks the same as one that only listens, and what it left behind must end.
const AFTERWORD_LIMIT: Duration = Duration::from_secs(30);

/// Copies until both sides have said their last word, or one of them breaks off, or nothing is said for `idle`.
///
/// An end of one side is passed on, and the other side may finish what it says.
///
/// # Errors
/// A side broke off, or was silent for too long ([`io::ErrorKind::TimedOut`]).
pub async fn relay<A, B>(clock: &Clock, idle: Duration, left: A, right: B) -> io::Result<()>
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    let (mut from_left, mut to_left) = tokio::io::split(left);
    let (mut from_right, mut to_right) = tokio::io::split(right);
    let talk = Talk { clock, said: AtomicU64::new(clock.now().as_nanos()), last_word: Notify::new() };
    let both = async {
        let forth = talk.carry_all(&mut from_left, &mut to_right);
        let back = talk.carry_all(&mut from_right, &mut to_left);
        tokio::try_join!(forth, back).map(|_| ())
    };
    tokio::select! {
        ended = both => ended,
        error = talk.silence(idle) => Err(error),
    }
}

/// What both directions know of each other.
struct Talk<'a> {
    clock: &'a Clock,
    /// When something was said last, by whomever: nanoseconds on the clock.
    said: AtomicU64,
    /// One side has said its last word.
    last_word: Notify,
}

impl Talk<'_> {
    /// Carries one direction to its end.
    async fn carry_all(
        &self,
        from: &mut (impl AsyncRead + Unpin),
        to: &mut (impl AsyncWrite + Unpin),
    ) -> io::Result<()> {
        let mut piece = vec![0; PIECE_BYTES].into_boxed_slice();
        loop {
            let read = from.read(&mut piece).await?;
            self.said.store(self.clock.now().as_nanos(), Relaxed);
            if read == 0 {
                to.shutdown().await?;
                self.last_word.notify_one();
                return Ok(());
            }
            to.write_all(&piece[..read]).await?;
            to.flush().await?;
        }
    }

    /// Ends when nothing was said for too long.
    async fn silence(&self, idle: Duration) -> io::Error {
        let mut limit = idle;
        loop {
            let due = Moment::from_nanos(self.said.load(Relaxed)) + limit;
            if self.clock.now() >= due {
                return io::Error::new(io::ErrorKind::TimedOut, "nothing was said for too long");
            }
            tokio::select! {
                () = self.clock.sleep_until(due) => {}
                () = self.last_word.notified() => limit = limit.min(AFTERWORD_LIMIT),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::duplex;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn both_ways_are_copied_and_ends_are_passed_on() {
        let clock = Clock::simulated(1);
        let (mut client, left) = duplex(64);
        let (mut server, right) = duplex(64);
        let copied = relay(&clock, IDLE_LIMIT, left, right);
        let talk = async {
            let long: Vec<u8> = (0..100_000_u32).map(|number| number as u8).collect();
            let send = async {
                client.write_all(&long).await.unwrap();
                client.shutdown().await.unwrap();
                let mut heard = Vec::new();
                client.read_to_end(&mut heard).await.unwrap();
                heard
            };
            let answer = async {
                let mut heard = Vec::new();
                server.read_to_end(&mut heard).await.unwrap();
                // The other side is done, and is still answered.
                server.write_all(b"afterword").await.unwrap();
                server.shutdown().await.unwrap();
                heard
            };
            let (back, forth) = tokio::join!(send, answer);
            assert!(forth == long && back == b"afterword");
        };
        let (copied, ()) = tokio::join!(copied, talk);
        copied.expect("both ended");
    }

    #[tokio::test(start_paused = true)]
    async fn silence_ends_it() {
        let clock = Clock::simulated(1);
        let ((_client, left), (_server, right)) = (duplex(64), duplex(64));
        let began = clock.now();
        let error = relay(&clock, IDLE_LIMIT, left, right).await.expect_err("nobody says anything");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        let took = clock.now().since(began);
        assert!(took >= IDLE_LIMIT && took < IDLE_LIMIT + AFTERWORD_LIMIT, "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_last_word_silence_is_shorter() {
        let clock = Clock::simulated(1);
        let ((mut client, left), (_server, right)) = (duplex(64), duplex(64));
        client.shutdown().await.unwrap();
        let began = clock.now();
        let error = relay(&clock, IDLE_LIMIT, left, right).await.expect_err("the other says nothing");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(clock.now().since(began) < AFTERWORD_LIMIT * 3);
    }

    #[tokio::test(start_paused = true)]
    async fn who_does_not_read_holds_back_who_writes() {
        let clock = Clock::simulated(1);
        let ((mut client, left), (_server, right)) = (duplex(64), duplex(64));
        let flood = async {
            let mut taken = 0_usize;
            loop {
                let piece = [0; 1024];
                match tokio::time::timeout(Duration::from_secs(1), client.write(&piece)).await {
                    Ok(written) => taken += written.unwrap(),
                    Err(_) => return taken,
                }
            }
        };
        tokio::select! {
            taken = flood => assert!(taken <= 2 * PIECE_BYTES, "{taken} bytes were taken for nobody"),
            _ = relay(&clock, IDLE_LIMIT, left, right) => panic!("it does not end"),
        }
    }
}
