//! Hands new events to those who wait for them. Belongs to whoever commits, which calls it in the order of commits.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::sync::mpsc::{self, error::TrySendError};

use super::WatchMessage;
use crate::types::{Event, KeyRange, Revision};

/// What both ends of a queue know.
#[derive(Debug)]
struct Queue {
    /// Events that wait in it.
    waiting: AtomicUsize,
    /// The writer found it full and gave up on the watcher.
    cut: AtomicBool,
}

/// The watcher's end of its queue.
#[derive(Debug)]
pub(crate) struct LiveReceiver {
    messages: mpsc::Receiver<WatchMessage>,
    queue: Arc<Queue>,
}

impl LiveReceiver {
    /// The next message, or none when the hub has let go of the watcher.
    pub(crate) async fn receive(&mut self) -> Option<WatchMessage> {
        let message = self.messages.recv().await;
        if let Some(WatchMessage::Events(events)) = &message {
            self.queue.waiting.fetch_sub(events.len(), Ordering::Relaxed);
        }
        message
    }

    /// Whether the end came because the watcher was too slow.
    pub(crate) fn was_cut(&self) -> bool {
        self.queue.cut.load(Ordering::Acquire)
    }
}

struct Member {
    range: KeyRange,
    messages: mpsc::Sender<WatchMessage>,
    queue: Arc<Queue>,
    waiting_max: usize,
}

impl Member {
    /// Whether the watcher stays.
    fn offer(&self, events: &[Arc<Event>]) -> bool {
        let mine: Vec<_> = events.iter().filter(|event| self.range.contains(&event.kv.key)).cloned().collect();
        if mine.is_empty() {
            return !self.messages.is_closed();
        }
        let count = mine.len();
        // One commit always fits into an empty queue, or a single great commit would cut everybody off.
        let waiting = self.queue.waiting.load(Ordering::Relaxed);
        let fits = waiting == 0 || waiting.saturating_add(count) <= self.waiting_max;
        if !fits {
            self.queue.cut.store(true, Ordering::Release);
            return false;
        }
        self.queue.waiting.fetch_add(count, Ordering::Relaxed);
        match self.messages.try_send(WatchMessage::Events(mine)) {
            Ok(()) => true,
            Err(TrySendError::Closed(_)) => false,
            // Progress messages took the places of events.
            Err(TrySendError::Full(_)) => {
                self.queue.cut.store(true, Ordering::Release);
                false
            }
        }
    }
}

/// Everybody who follows new events.
#[derive(Default)]
pub(crate) struct Hub {
    members: Vec<Member>,
}

impl Hub {
    /// Adds a watcher, which gets what is published from now on.
    pub(crate) fn join(&mut self, range: KeyRange, waiting_max: usize) -> LiveReceiver {
        let waiting_max = waiting_max.max(1);
        // A place per event, because each may be a commit of its own, and one for progress.
        let (sender, messages) = mpsc::channel(waiting_max.saturating_add(1).min(mpsc_max()));
        let queue = Arc::new(Queue { waiting: AtomicUsize::new(0), cut: AtomicBool::new(false) });
        self.members.retain(|member| !member.messages.is_closed());
        self.members.push(Member { range, messages: sender, queue: queue.clone(), waiting_max });
        LiveReceiver { messages, queue }
    }

    /// Whether anybody is there.
    pub(crate) fn is_watched(&mut self) -> bool {
        self.members.retain(|member| !member.messages.is_closed());
        !self.members.is_empty()
    }

    /// Hands out what was committed together.
    pub(crate) fn publish(&mut self, events: &[Arc<Event>]) {
        if !events.is_empty() {
            self.members.retain(|member| member.offer(events));
        }
    }

    /// Tells every watcher with room in its queue that it has everything up to `revision`.
    pub(crate) fn progress(&self, revision: Revision) {
        for member in &self.members {
            // The last place is for events: a marker may be left out, an event may not.
            if member.messages.capacity() > 1 {
                // It may have been dropped this moment, which the next publishing notices.
                member.messages.try_send(WatchMessage::Progress(revision)).unwrap_or_default();
            }
        }
    }
}

/// The most places a queue can have.
const fn mpsc_max() -> usize {
    tokio::sync::Semaphore::MAX_PERMITS
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::types::Ttl;

    fn events(revisions: std::ops::Range<i64>) -> Vec<Arc<Event>> {
        let put = |revision| Event::put("k".into(), Bytes::new(), Ttl::NONE, Revision::new(revision), None);
        revisions.map(|revision| Arc::new(put(revision))).collect()
    }

    #[tokio::test]
    async fn a_slow_watcher_is_cut_after_what_fits_and_the_others_are_not() {
        let mut hub = Hub::default();
        let (mut slow, mut quick) = (hub.join(KeyRange::all(), 4), hub.join(KeyRange::all(), 100));
        for revision in 1..10 {
            hub.publish(&events(revision..revision + 1));
        }
        let mut got = 0;
        while let Some(message) = slow.receive().await {
            assert!(matches!(message, WatchMessage::Events(events) if events[0].revision().get() == got + 1));
            got += 1;
        }
        assert_eq!((got, slow.was_cut()), (4, true));
        for _ in 1..10 {
            assert!(quick.receive().await.is_some());
        }
        drop(hub);
        assert!(quick.receive().await.is_none() && !quick.was_cut());
    }

    #[tokio::test]
    async fn one_great_commit_cuts_nobody() {
        let mut hub = Hub::default();
        let mut watcher = hub.join(KeyRange::all(), 4);
        hub.publish(&events(1..100));
        assert!(matches!(watcher.receive().await, Some(WatchMessage::Events(events)) if events.len() == 99));
        hub.publish(&events(100..101));
        assert!(watcher.receive().await.is_some());
    }

    #[tokio::test]
    async fn progress_never_takes_the_place_of_an_event() {
        let mut hub = Hub::default();
        let mut watcher = hub.join(KeyRange::all(), 2);
        for revision in 1..20 {
            hub.progress(Revision::new(revision));
        }
        hub.publish(&events(20..21));
        let mut last = None;
        drop(hub);
        while let Some(message) = watcher.receive().await {
            last = Some(message);
        }
        assert!(matches!(last, Some(WatchMessage::Events(_))) && !watcher.was_cut(), "{last:?}");
    }
}
