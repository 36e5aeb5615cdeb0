//! How many requests are worked on at once.
//!
//! Requests that read and requests that write have places of their own, so that neither starves the other. Whoever finds
//! none waits in a queue that is first come, first served; when that is full too, the answer is 429.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use k3sd_objects::status::Status;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// So many may wait for each place.
const WAITING_PER_SEAT: usize = 16;
/// When it is worth trying again.
const RETRY_AFTER_SECONDS: i32 = 1;

/// The places for one kind of requests.
#[derive(Debug)]
pub(crate) struct Seats {
    free: Arc<Semaphore>,
    taken_max: usize,
    waiting: AtomicUsize,
}

/// A place, taken for as long as this lives.
#[derive(Debug)]
pub(crate) struct Seat {
    _permit: OwnedSemaphorePermit,
}

struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

impl Seats {
    /// So many places; at least one.
    pub(crate) fn new(count: usize) -> Self {
        let taken_max = count.max(1);
        Self { free: Arc::new(Semaphore::new(taken_max)), taken_max, waiting: AtomicUsize::new(0) }
    }

    /// How many are taken.
    pub(crate) fn taken(&self) -> usize {
        self.taken_max - self.free.available_permits()
    }

    /// Takes a place, once there is one.
    ///
    /// # Errors
    /// 429 when too many wait already.
    pub(crate) async fn take(&self) -> Result<Seat, Status> {
        if let Ok(permit) = self.free.clone().try_acquire_owned() {
            return Ok(Seat { _permit: permit });
        }
        let full = || Status::too_many_requests("Too many requests, please try again later.", RETRY_AFTER_SECONDS);
        let waiting = Waiting(&self.waiting);
        if self.waiting.fetch_add(1, Relaxed) >= self.taken_max * WAITING_PER_SEAT {
            return Err(full());
        }
        let permit = self.free.clone().acquire_owned().await.map_err(|_| full())?;
        drop(waiting);
        Ok(Seat { _permit: permit })
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn who_finds_no_place_waits_and_the_queue_has_an_end() {
        let seats = Arc::new(Seats::new(1));
        let seat = seats.take().await.expect("it is free");
        let mut queue: Vec<_> = (0..WAITING_PER_SEAT)
            .map(|_| {
                let seats = seats.clone();
                Box::pin(async move { seats.take().await })
            })
            .collect();
        assert!(queue.iter_mut().all(|waiting| waiting.now_or_never().is_none()));
        let refused = seats.take().await.expect_err("the queue is full");
        assert_eq!((refused.http_code(), refused.retry_after_seconds()), (429, Some(1)));
        drop(seat);
        let first = queue[0].as_mut().now_or_never().expect("its turn").expect("a place");
        assert!(queue[1].as_mut().now_or_never().is_none());
        drop(queue);
        drop(first);
        assert_eq!(seats.taken(), 0);
        assert!(seats.take().await.is_ok(), "those who went away wait no more");
    }
}
