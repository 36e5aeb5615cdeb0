//! The last changes of a resource, for those who come back and go on.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use k3sd_client::storage::Revision;
use k3sd_runtime::Moment;

use crate::event::CacheEvent;

/// Events that are kept at most.
const EVENTS_MAX: usize = 4096;

/// Bytes that are kept at most, beyond [`EVENTS_MIN`].
const BYTES_MAX: usize = 4 << 20;

/// Events that are kept whatever their age and size.
const EVENTS_MIN: usize = 100;

/// Whoever was away for longer lists again. Upstream keeps at least 75 s; a store's history is usually five minutes.
const AGE_MAX: Duration = Duration::from_secs(300);

/// See the module's page.
#[derive(Debug, Default)]
pub(crate) struct Window {
    events: VecDeque<(Moment, Arc<CacheEvent>)>,
    bytes: usize,
    /// Every event after this revision is here.
    floor: Revision,
}

impl Window {
    /// An empty window behind a revision.
    pub(super) fn starting_at(floor: Revision) -> Self {
        Self { floor, ..Self::default() }
    }

    pub(super) fn push(&mut self, event: Arc<CacheEvent>, now: Moment) {
        self.bytes += event.memory_bytes();
        self.events.push_back((now, event));
        while self.events.len() > EVENTS_MAX || (self.bytes > BYTES_MAX && self.events.len() > EVENTS_MIN) {
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) {
        if let Some((_, event)) = self.events.pop_front() {
            self.bytes -= event.memory_bytes();
            self.floor = event.revision;
        }
    }

    /// When there is something to forget; `None` if nothing ever has to be.
    pub(super) fn next_shrink(&self) -> Option<Moment> {
        let (at, _) = self.events.front().filter(|_| self.events.len() > EVENTS_MIN)?;
        Some(*at + AGE_MAX)
    }

    /// Forgets what is too old.
    pub(super) fn shrink(&mut self, now: Moment) {
        while self.next_shrink().is_some_and(|due| due <= now) {
            self.drop_oldest();
        }
        if self.events.capacity() > 4 * self.events.len().max(EVENTS_MIN) {
            self.events.shrink_to(2 * self.events.len());
        }
    }

    /// What happened after a revision; the oldest revision to ask for, if that is too far back.
    pub(super) fn after(&self, revision: Revision) -> Result<Vec<Arc<CacheEvent>>, Revision> {
        if revision < self.floor {
            return Err(self.floor);
        }
        let from = self.events.partition_point(|(_, event)| event.revision <= revision);
        Ok(self.events.range(from..).map(|(_, event)| event.clone()).collect())
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use k3sd_objects::object::{Object, Selectable};

    use super::*;

    fn event(revision: u64, size: usize) -> Arc<CacheEvent> {
        let json = format!(r#"{{"metadata":{{"name":"a"}},"data":"{}"}}"#, "x".repeat(size));
        let object = Object::parse(Bytes::from(json), &Selectable::default()).unwrap();
        Arc::new(CacheEvent::new(Revision::new(revision), object, None, false))
    }

    fn revisions(window: &Window, after: u64) -> Result<Vec<u64>, u64> {
        let found = window.after(Revision::new(after));
        found.map(|events| events.iter().map(|event| event.revision.get()).collect()).map_err(Revision::get)
    }

    #[test]
    fn it_has_everything_behind_its_floor_or_says_so() {
        let mut window = Window::starting_at(Revision::new(10));
        for revision in [12, 15, 20] {
            window.push(event(revision, 1), Moment::START);
        }
        assert_eq!(revisions(&window, 9), Err(10));
        assert_eq!(revisions(&window, 10), Ok(vec![12, 15, 20]));
        assert_eq!(revisions(&window, 14), Ok(vec![15, 20]));
        assert_eq!(revisions(&window, 15), Ok(vec![20]));
        assert_eq!(revisions(&window, 99), Ok(vec![]));
    }

    #[test]
    fn it_is_bounded_in_number_and_bytes() {
        let mut window = Window::starting_at(Revision::ZERO);
        for revision in 1..=EVENTS_MAX as u64 + 10 {
            window.push(event(revision, 1), Moment::START);
        }
        assert_eq!(revisions(&window, 9), Err(10));
        assert_eq!(revisions(&window, 10).map(|found| found.len()), Ok(EVENTS_MAX));
        for revision in 5000..5200 {
            window.push(event(revision, 1 << 20), Moment::START);
        }
        assert_eq!(window.events.len(), EVENTS_MIN);
    }

    #[test]
    fn it_forgets_what_is_old_but_never_all() {
        let mut window = Window::starting_at(Revision::ZERO);
        for revision in 1..=500 {
            window.push(event(revision, 1), Moment::START + Duration::from_secs(revision));
        }
        let due = window.next_shrink().unwrap();
        assert_eq!(due, Moment::START + Duration::from_secs(1) + AGE_MAX);
        window.shrink(due);
        assert_eq!(revisions(&window, 0), Err(1));
        window.shrink(due + Duration::from_secs(10_000));
        assert_eq!((window.events.len(), window.next_shrink()), (EVENTS_MIN, None));
    }
}
