//! Watches: many on one stream, each with a place in the log of its own.
//!
//! A stream's watches run inside the stream, which runs inside its connection. A watch knows the first revision that it
//! has not delivered, and goes on from there when its watcher was too slow, or the store was opened anew; only when that
//! revision is compacted is the client told to start again.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{AbortHandle, Abortable, abortable};
use futures_util::stream::{self, FuturesUnordered, StreamExt as _};
use k3sd_datastore::{
    Backend as _, EventKind, GetRequest, Key, KeyRange, Revision, StoreError, WatchEnd, WatchMessage,
    WatchRequest as Follow, Watcher,
};
use k3sd_runtime::Clock;
use tonic::{Request, Response, Status, Streaming};

use super::desk::Desk;
use crate::translate::{Target, event, header};
use crate::wire::etcdserverpb::watch_create_request::FilterType;
use crate::wire::etcdserverpb::watch_request::RequestUnion;
use crate::wire::etcdserverpb::watch_server::Watch;
use crate::wire::etcdserverpb::{WatchCreateRequest, WatchRequest, WatchResponse};

/// The pause before a store that failed is asked again.
const RETRY_DELAY: Duration = Duration::from_millis(250);
/// The pause before watches that have not caught up are asked again for their progress.
const PROGRESS_DELAY: Duration = Duration::from_millis(100);
/// What etcd puts in place of a watch in an answer that is for the whole stream.
const ALL_WATCHES: i64 = -1;
/// etcd's words.
const COMPACTED: &str = "etcdserver: mvcc: required revision has been compacted";

/// See the module's page.
pub(crate) struct WatchService {
    pub(crate) desk: Desk,
    pub(crate) clock: Clock,
}

#[tonic::async_trait]
impl Watch for WatchService {
    type WatchStream = Pin<Box<dyn stream::Stream<Item = Result<WatchResponse, Status>> + Send>>;

    async fn watch(&self, request: Request<Streaming<WatchRequest>>) -> Result<Response<Self::WatchStream>, Status> {
        let session = Session {
            desk: self.desk.clone(),
            clock: self.clock.clone(),
            requests: request.into_inner(),
            watches: HashMap::new(),
            running: FuturesUnordered::new(),
            ready: VecDeque::new(),
            next_id: 0,
            told: Revision::ZERO,
            behind: BTreeSet::new(),
            asked: None,
        };
        Ok(Response::new(Box::pin(stream::unfold(session, Session::answer))))
    }
}

/// One watch, on its way through the log.
struct Place {
    id: i64,
    desk: Desk,
    clock: Clock,
    range: KeyRange,
    /// The first revision that was not delivered; nothing until the watch has begun.
    next: Option<Revision>,
    watcher: Option<Watcher>,
}

/// What became of a watch, or of a question about progress.
enum Step {
    /// It begins behind this revision.
    Begun(Box<Place>, Revision),
    /// It was told something.
    Told(Box<Place>, WatchMessage),
    /// It can't go on.
    Compacted(i64, Revision),
    /// All watches were asked how far they are.
    ProgressAsked(Option<Revision>),
}

/// What the stream knows about a watch.
struct Entry {
    prev_kv: bool,
    progress_notify: bool,
    no_put: bool,
    no_delete: bool,
    stop: AbortHandle,
}

type Running = Abortable<Pin<Box<dyn Future<Output = Step> + Send>>>;

struct Session {
    desk: Desk,
    clock: Clock,
    requests: Streaming<WatchRequest>,
    watches: HashMap<i64, Entry>,
    running: FuturesUnordered<Running>,
    ready: VecDeque<WatchResponse>,
    next_id: i64,
    /// The newest revision of any answer, for those that concern no revision.
    told: Revision,
    /// Watches that have not said how far they are since the client asked.
    behind: BTreeSet<i64>,
    /// The oldest revision that was said since the client asked; nothing when it did not ask.
    asked: Option<Revision>,
}

impl Session {
    /// The next answer. The stream ends with the client's.
    async fn answer(mut self) -> Option<(Result<WatchResponse, Status>, Self)> {
        loop {
            if let Some(response) = self.ready.pop_front() {
                return Some((Ok(response), self));
            }
            tokio::select! {
                request = self.requests.next() => match request {
                    Some(Ok(request)) => self.requested(request),
                    Some(Err(_)) | None => return None,
                },
                Some(step) = self.running.next(), if !self.running.is_empty() => {
                    if let Ok(step) = step {
                        self.stepped(step);
                    }
                }
            }
        }
    }

    fn run(&mut self, step: impl Future<Output = Step> + Send + 'static) -> AbortHandle {
        let step: Pin<Box<dyn Future<Output = Step> + Send>> = Box::pin(step);
        let (running, handle) = abortable(step);
        self.running.push(running);
        handle
    }

    /// What concerns one watch carries the revision of that watch, though another has been told of newer ones: the
    /// client goes on from there.
    fn push(&mut self, revision: Revision, response: WatchResponse) {
        self.told = self.told.max(revision);
        let revision = if revision == Revision::ZERO { self.told } else { revision };
        self.ready.push_back(WatchResponse { header: header(revision), ..response });
    }

    fn requested(&mut self, request: WatchRequest) {
        match request.request_union {
            Some(RequestUnion::CreateRequest(request)) => self.create(&request),
            Some(RequestUnion::CancelRequest(request)) => {
                if let Some(entry) = self.watches.remove(&request.watch_id) {
                    entry.stop.abort();
                    self.behind.remove(&request.watch_id);
                    let response =
                        WatchResponse { watch_id: request.watch_id, canceled: true, ..WatchResponse::default() };
                    self.push(Revision::ZERO, response);
                }
            }
            Some(RequestUnion::ProgressRequest(_)) => {
                self.behind = self.watches.keys().copied().collect();
                self.asked = Some(Revision::new(i64::MAX));
                self.ask_progress(Duration::ZERO);
            }
            None => {}
        }
    }

    fn refuse(&mut self, id: i64, created: bool, compact_revision: i64, reason: &str) {
        let response = WatchResponse {
            watch_id: id,
            created,
            canceled: true,
            compact_revision,
            cancel_reason: reason.to_owned(),
            ..WatchResponse::default()
        };
        self.push(Revision::ZERO, response);
    }

    fn create(&mut self, request: &WatchCreateRequest) {
        // Without a key etcd watches from the first one on.
        let key = if request.key.is_empty() { Bytes::from_static(&[0]) } else { request.key.clone() };
        let range = match Target::new(&key, &request.range_end) {
            Ok(target) => target.range(),
            Err(status) => return self.refuse(-1, true, 0, status.message()),
        };
        if request.watch_id != 0 && self.watches.contains_key(&request.watch_id) {
            return self.refuse(-1, true, 0, "etcdserver: duplicate watch ID");
        }
        let id = if request.watch_id != 0 { request.watch_id } else { self.free_id() };
        if request.start_revision < 0 {
            return self.refuse(id, true, 0, COMPACTED);
        }
        let next = (request.start_revision > 0).then(|| Revision::new(request.start_revision));
        let (desk, clock) = (self.desk.clone(), self.clock.clone());
        let place = Box::new(Place { id, desk, clock, range, next, watcher: None });
        let stop = self.run(place.begin());
        let entry = Entry {
            prev_kv: request.prev_kv,
            progress_notify: request.progress_notify,
            no_put: request.filters().any(|filter| filter == FilterType::Noput),
            no_delete: request.filters().any(|filter| filter == FilterType::Nodelete),
            stop,
        };
        self.watches.insert(id, entry);
    }

    fn free_id(&mut self) -> i64 {
        while self.watches.contains_key(&self.next_id) {
            self.next_id += 1;
        }
        self.next_id += 1;
        self.next_id - 1
    }

    fn stepped(&mut self, step: Step) {
        match step {
            Step::Begun(place, revision) => {
                let response = WatchResponse { watch_id: place.id, created: true, ..WatchResponse::default() };
                self.push(revision, response);
                self.go_on(place);
            }
            Step::Told(place, WatchMessage::Events(events)) => {
                let Some(entry) = self.watches.get(&place.id) else { return };
                let wanted = |kind| if kind == EventKind::Delete { !entry.no_delete } else { !entry.no_put };
                let chosen = events.iter().filter(|event| wanted(event.kind));
                let chosen: Vec<_> = chosen.map(|found| event(found, entry.prev_kv)).collect();
                let last = events.last().map_or(Revision::ZERO, |event| event.revision());
                if !chosen.is_empty() {
                    self.push(last, WatchResponse { watch_id: place.id, events: chosen, ..WatchResponse::default() });
                }
                self.go_on(place);
            }
            Step::Told(place, WatchMessage::Progress(revision)) => {
                let notify = self.watches.get(&place.id).is_some_and(|entry| entry.progress_notify);
                if notify && self.asked.is_none() {
                    self.push(revision, WatchResponse { watch_id: place.id, ..WatchResponse::default() });
                }
                if let Some(asked) = self.asked
                    && self.behind.remove(&place.id)
                {
                    self.asked = Some(asked.min(revision));
                    self.tell_progress();
                }
                self.go_on(place);
            }
            Step::Compacted(id, compacted) => {
                self.watches.remove(&id);
                self.behind.remove(&id);
                self.refuse(id, false, compacted.get(), COMPACTED);
            }
            Step::ProgressAsked(revision) => {
                let (Some(asked), Some(revision)) = (self.asked, revision) else {
                    return if self.asked.is_some() {
                        self.ask_progress(PROGRESS_DELAY)
                    };
                };
                if self.behind.is_empty() {
                    self.asked = Some(asked.min(revision));
                    self.tell_progress();
                } else {
                    self.ask_progress(PROGRESS_DELAY);
                }
            }
        }
    }

    /// Answers the client's question about progress once all watches have said how far they are.
    fn tell_progress(&mut self) {
        if self.behind.is_empty()
            && let Some(revision) = self.asked.take()
        {
            self.push(revision, WatchResponse { watch_id: ALL_WATCHES, ..WatchResponse::default() });
        }
    }

    fn go_on(&mut self, place: Box<Place>) {
        let id = place.id;
        if self.watches.contains_key(&id) {
            let stop = self.run(place.follow());
            if let Some(entry) = self.watches.get_mut(&id) {
                entry.stop = stop;
            }
        }
    }

    fn ask_progress(&mut self, delay: Duration) {
        let (desk, clock) = (self.desk.clone(), self.clock.clone());
        self.run(async move {
            if !delay.is_zero() {
                clock.sleep_until(clock.now() + delay).await;
            }
            let revision = match desk.backend().await {
                Ok(backend) => backend.progress().await.ok(),
                Err(_) => None,
            };
            Step::ProgressAsked(revision)
        });
    }
}

impl Place {
    async fn pause(&self) {
        self.clock.sleep_until(self.clock.now() + RETRY_DELAY).await;
    }

    /// Finds the revision behind which the watch begins, and takes its place there.
    async fn begin(mut self: Box<Self>) -> Step {
        loop {
            // A client that reconnects before its first event goes on behind this revision, so it must not be newer
            // than the first one that is watched.
            if let Ok(backend) = self.desk.backend().await {
                let request = GetRequest { key: Key::from("/"), at: None };
                if let Ok(got) = backend.get(request).await {
                    self.next.get_or_insert(got.revision.next());
                    return Step::Begun(self, got.revision);
                }
            }
            self.pause().await;
        }
    }

    /// The next thing to tell, from whichever store is open.
    async fn follow(mut self: Box<Self>) -> Step {
        loop {
            let next = self.next.unwrap_or_default();
            let Some(watcher) = &mut self.watcher else {
                let Ok(backend) = self.desk.backend().await else {
                    self.pause().await;
                    continue;
                };
                match backend.watch(Follow::new(self.range.clone(), Some(next))).await {
                    Ok(watcher) => self.watcher = Some(watcher),
                    Err(StoreError::Compacted { compacted, .. }) => return Step::Compacted(self.id, compacted),
                    Err(error) => {
                        tracing::debug!(%error, "a watch could not begin yet");
                        drop(backend);
                        self.pause().await;
                    }
                }
                continue;
            };
            match watcher.next().await {
                Ok(message) => {
                    let seen = match &message {
                        WatchMessage::Events(events) => events.last().map_or(next, |event| event.revision().next()),
                        WatchMessage::Progress(revision) => revision.next(),
                    };
                    self.next = Some(next.max(seen));
                    return Step::Told(self, message);
                }
                Err(WatchEnd::Compacted { compacted }) => return Step::Compacted(self.id, compacted),
                Err(end) => {
                    tracing::debug!(?end, %next, "a watch goes on from the log");
                    self.watcher = None;
                    if !matches!(end, WatchEnd::Lagged { .. }) {
                        self.pause().await; // The store is on its way out.
                    }
                }
            }
        }
    }
}
