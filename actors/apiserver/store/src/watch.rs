//! A watch, as its reader sees it.

use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use k3sd_client::storage::Revision;
use k3sd_objects::object::Object;
use k3sd_objects::status::Status;
use k3sd_runtime::Moment;
use serde_json::json;

use crate::cache::{Board, End, Registered};
use crate::event::{CacheEvent, EventShared, WatchItem, WatchKind};
use crate::map::relative_key;
use crate::query::{Selection, WatchQuery};
use crate::snapshot::Snapshot;

/// How often a client is told how far it is.
const BOOKMARK_INTERVAL: Duration = Duration::from_secs(60);

/// Bookmarks fall on multiples of this, so that many watches share a wake-up.
const BOOKMARK_STEP: Duration = Duration::from_secs(5);

/// Objects of the initial state that are taken from the snapshot at once.
const CHUNK_OBJECTS: usize = 64;

/// The initial state, piece by piece: nothing of it is copied before it is wanted.
struct Initial {
    snapshot: Arc<Snapshot>,
    /// Where the next piece begins; `None` when there is none.
    next: Option<Vec<u8>>,
    chunk: VecDeque<Object>,
}

type Timer = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A stream of events. It ends after an error, after its timeout, and when the resource is not served any more.
pub struct Watch {
    board: Arc<Board>,
    selection: Selection,
    initial: Option<Initial>,
    /// The bookmark that ends the initial state is owed, at this revision.
    initial_end: Option<Revision>,
    backlog: VecDeque<Arc<CacheEvent>>,
    registered: Registered,
    bookmarks: bool,
    bookmark_at: Moment,
    deadline: Option<Moment>,
    timer: Option<(Moment, Timer)>,
    finished: bool,
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").field("prefix", &self.board.stored.prefix).finish_non_exhaustive()
    }
}

impl Watch {
    /// `good_for` is the revision that the state, if there is one, shows at least.
    pub(crate) fn new(board: Arc<Board>, query: &WatchQuery, mut registered: Registered, good_for: Revision) -> Self {
        let selection = query.selection();
        let state = registered.state.take();
        let wants_end = query.initial_events == Some(true);
        let initial_end = state.as_ref().filter(|_| wants_end).map(|state| state.revision.max(good_for));
        let wants_state = query.initial_events != Some(false);
        let initial = state.filter(|_| wants_state).map(|state| Initial::new(state, &board, &selection));
        let backlog = std::mem::take(&mut registered.backlog).into();
        let now = board.clock.now();
        Self {
            selection,
            initial,
            initial_end,
            backlog,
            registered,
            bookmarks: query.bookmarks,
            bookmark_at: first_bookmark(now, board.clock.rng("watch").below(12)),
            deadline: query.timeout.map(|timeout| now + timeout),
            timer: None,
            finished: false,
            board,
        }
    }

    /// Waits for the next event; `None` is the end. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Option<WatchItem> {
        if self.finished {
            return None;
        }
        if let Some(item) = self.initial_item() {
            return Some(item);
        }
        if let Some(revision) = self.initial_end.take() {
            return Some(bookmark(&self.board, revision, true));
        }
        while let Some(event) = self.backlog.pop_front() {
            let selectable = &self.board.stored.selectable;
            if let Some(seen) = event.seen_by(|object| self.selection.matches(object, selectable)) {
                return Some(event.item(seen, selectable));
            }
        }
        self.live().await
    }

    async fn live(&mut self) -> Option<WatchItem> {
        loop {
            let due = self.due();
            let queued = match due {
                None => Some(self.registered.queue.recv().await),
                Some(due) => {
                    let clock = &self.board.clock;
                    if self.timer.as_ref().is_none_or(|(at, _)| *at != due) {
                        let clock = clock.clone();
                        self.timer = Some((due, Box::pin(async move { clock.sleep_until(due).await })));
                    }
                    let Some((_, timer)) = &mut self.timer else { continue };
                    tokio::select! {
                        biased;
                        queued = self.registered.queue.recv() => Some(queued),
                        () = timer => None,
                    }
                }
            };
            match queued {
                Some(Some((event, seen))) => return Some(event.item(seen, &self.board.stored.selectable)),
                Some(None) => return self.end(),
                None => {
                    self.timer = None;
                    if let Some(item) = self.tick() {
                        return Some(item);
                    }
                    if self.finished {
                        return None;
                    }
                }
            }
        }
    }

    /// When there is something to do though nothing happens.
    fn due(&self) -> Option<Moment> {
        let bookmark = self.bookmarks.then_some(self.bookmark_at);
        match (bookmark, self.deadline) {
            (Some(bookmark), Some(deadline)) => Some(bookmark.min(deadline)),
            (bookmark, deadline) => bookmark.or(deadline),
        }
    }

    /// A bookmark, or an event that came meanwhile.
    fn tick(&mut self) -> Option<WatchItem> {
        let now = self.board.clock.now();
        let is_over = self.deadline.is_some_and(|deadline| deadline <= now);
        // In this order: what was delivered by then is in the queue, so an empty queue means that it was read.
        let delivered = self.board.delivered();
        if let Ok((event, seen)) = self.registered.queue.try_recv() {
            return Some(event.item(seen, &self.board.stored.selectable));
        }
        self.bookmark_at = now + BOOKMARK_INTERVAL;
        self.finished = is_over;
        self.bookmarks.then(|| bookmark(&self.board, delivered, false))
    }

    fn initial_item(&mut self) -> Option<WatchItem> {
        let initial = self.initial.as_mut()?;
        while initial.chunk.is_empty() {
            let Some(from) = initial.next.take() else {
                self.initial = None;
                return None;
            };
            initial.fetch(&from, &self.board, &self.selection);
        }
        let object = initial.chunk.pop_front()?;
        Some(WatchItem { kind: WatchKind::Added, object, shared: EventShared::none() })
    }

    /// The queue is over.
    fn end(&mut self) -> Option<WatchItem> {
        self.finished = true;
        let why = match self.registered.ended.get()? {
            End::Slow => "the watch was too slow and is cut off; list again",
            End::Lost => "the server lost its history; list again",
        };
        Some(error(&self.board, Status::expired(why)))
    }
}

impl Initial {
    fn new(snapshot: Arc<Snapshot>, board: &Board, selection: &Selection) -> Self {
        if let Some(key) = selection.only_key(&board.stored) {
            let found = snapshot.objects.get(&key).filter(|found| selection.matches(found, &board.stored.selectable));
            let chunk = found.cloned().into_iter().collect();
            return Self { snapshot, next: None, chunk };
        }
        let namespace = selection.namespace.as_deref().filter(|_| board.stored.namespaced);
        let next = Some(namespace.map_or(Vec::new(), |namespace| relative_key(namespace, "")));
        Self { snapshot, next, chunk: VecDeque::new() }
    }

    /// Takes the next piece, and notes where the one behind it begins.
    fn fetch(&mut self, from: &[u8], board: &Board, selection: &Selection) {
        for (read, object) in self.snapshot.objects.range(from).enumerate() {
            let namespace = selection.namespace.as_deref().filter(|_| board.stored.namespaced);
            if namespace.is_some_and(|namespace| namespace != object.namespace()) {
                return; // The namespace is over.
            }
            if read == CHUNK_OBJECTS {
                self.next = Some(relative_key(object.namespace(), object.name()));
                return;
            }
            if selection.matches(object, &board.stored.selectable) {
                self.chunk.push_back(object.clone());
            }
        }
    }
}

/// About a minute after the beginning, spread over the watches by `share` of twelve.
fn first_bookmark(now: Moment, share: u64) -> Moment {
    let step = BOOKMARK_STEP.as_nanos() as u64;
    let late = now + BOOKMARK_INTERVAL / 2 + BOOKMARK_STEP * u32::try_from(share).unwrap_or_default();
    Moment::from_nanos(late.as_nanos().next_multiple_of(step))
}

fn bookmark(board: &Board, revision: Revision, initial_events_end: bool) -> WatchItem {
    let mut metadata = json!({ "resourceVersion": revision.to_string(), "creationTimestamp": null });
    if initial_events_end {
        metadata["annotations"] = json!({ "k8s.io/initial-events-end": "true" });
    }
    let object = json!({ "apiVersion": &*board.stored.api_version, "kind": &*board.stored.kind, "metadata": metadata });
    WatchItem {
        kind: WatchKind::Bookmark { initial_events_end },
        object: parse(board, object.to_string().into_bytes()),
        shared: EventShared::none(),
    }
}

fn error(board: &Board, status: Status) -> WatchItem {
    let object = parse(board, status.to_bytes());
    WatchItem { kind: WatchKind::Error(Box::new(status)), object, shared: EventShared::none() }
}

fn parse(board: &Board, json: Vec<u8>) -> Object {
    Object::parse(Bytes::from(json), &board.stored.selectable).expect("it was written as JSON a line above")
}
