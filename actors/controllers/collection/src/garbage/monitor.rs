//! Watches the metadata of one resource, and tells the collector.
//!
//! Owns:    a list and a watch.
//! Needs:   the API, and the collector, which it waits for: a slow collector slows the watch down.
//! Restart: permanent. It lists everything again, and what isn't in the list is gone.
//! Fails:   when the collector is away; its supervisor starts both anew.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use k3sd_client::api::Connect;
use k3sd_runtime::{ActorError, Backoff, ChildSpec, TaskHandle, task};
use kube::Api;
use kube::api::{DynamicObject, ListParams, ObjectMeta, PartialObjectMeta, WatchEvent, WatchParams};
use tokio::sync::{mpsc, watch};

use super::graph::{Owner, Place, Seen, Uid};
use super::judge::{FOREGROUND, ORPHAN, has_finalizer};
use crate::resources::Resource;

/// Objects in a page of a list.
const PAGE_OBJECTS: u32 = 500;
/// Seconds after which a watch ends by itself; the longest that kube permits.
const WATCH_SECONDS: u32 = 290;
/// Events that are told at once, if so many are there.
const BATCH: usize = 256;
/// Silence after which a watch counts as dead.
const SILENCE_LIMIT: Duration = Duration::from_secs(300);
/// A watch that ends sooner counts as failed.
const SHORT: Duration = Duration::from_secs(1);
/// Waits between attempts to read.
const RETRY: Backoff = Backoff { free_attempts: 0, delay_min: Duration::from_millis(100), ..Backoff::RESTART };

/// What a monitor tells.
#[derive(Debug)]
pub(super) enum Told {
    /// These objects are there.
    Seen(Vec<Seen>),
    /// These are gone.
    Gone(Vec<Uid>),
    /// These are all there are of a resource.
    Listed(Arc<Resource>, HashSet<Uid>),
    /// Nobody serves the resource any more.
    Dropped(Arc<Resource>),
}

/// Where the collector of now is told.
pub(super) type Mouth = watch::Receiver<Option<mpsc::Sender<Told>>>;

/// Waits for a collector that listens.
pub(super) async fn ear(mouth: &mut Mouth) -> Result<mpsc::Sender<Told>, ActorError> {
    let listens = |ear: &Option<mpsc::Sender<Told>>| ear.as_ref().is_some_and(|ear| !ear.is_closed());
    let ear = mouth.wait_for(listens).await?.clone();
    ear.ok_or_else(|| ActorError::new("the collector is away"))
}

/// The monitor of a resource, as a child of that name.
pub(super) fn monitor(name: &str, resource: Arc<Resource>, connect: Connect, mouth: Mouth) -> ChildSpec {
    task(name, move |handle| {
        let (resource, connect, mut mouth) = (resource.clone(), connect.clone(), mouth.clone());
        async move {
            let told = ear(&mut mouth).await?;
            let api = resource.at(&connect.client(), "");
            Monitor { reader: Reader::new(&resource), resource, api, told, handle }.run().await
        }
    })
}

struct Monitor {
    reader: Reader,
    resource: Arc<Resource>,
    api: Api<DynamicObject>,
    told: mpsc::Sender<Told>,
    handle: TaskHandle,
}

/// Makes of metadata what the graph keeps; the same texts are kept once.
struct Reader {
    api_version: Arc<str>,
    kind: Arc<str>,
    namespace: Arc<str>,
    /// Group version and kind of the last owner; most objects of a resource have owners of one kind.
    owner: (Arc<str>, Arc<str>),
}

impl Reader {
    fn new(resource: &Resource) -> Self {
        let nothing: Arc<str> = "".into();
        let (api_version, kind) = (resource.api.api_version.as_str().into(), resource.api.kind.as_str().into());
        Self { api_version, kind, namespace: nothing.clone(), owner: (nothing.clone(), nothing) }
    }

    /// `None` for what has no uid, which no stored object lacks.
    fn read(&mut self, meta: &ObjectMeta) -> Option<Seen> {
        let uid = meta.uid.as_deref()?.into();
        let keep = |kept: &mut Arc<str>, text: &str| {
            if **kept != *text {
                *kept = text.into();
            }
            kept.clone()
        };
        let namespace = keep(&mut self.namespace, meta.namespace.as_deref().unwrap_or_default());
        let owners = meta.owner_references.iter().flatten().map(|owner| Owner {
            uid: owner.uid.as_str().into(),
            api_version: keep(&mut self.owner.0, &owner.api_version),
            kind: keep(&mut self.owner.1, &owner.kind),
            name: owner.name.as_str().into(),
            blocks: owner.block_owner_deletion == Some(true),
        });
        let owners = owners.collect();
        let deleting = meta.deletion_timestamp.is_some();
        let (api_version, kind) = (self.api_version.clone(), self.kind.clone());
        Some(Seen {
            uid,
            place: Place { api_version, kind, namespace, name: meta.name.as_deref().unwrap_or_default().into() },
            owners,
            deleting,
            foreground: deleting && has_finalizer(meta, FOREGROUND),
            orphaning: deleting && has_finalizer(meta, ORPHAN),
        })
    }
}

impl Monitor {
    async fn run(mut self) -> Result<(), ActorError> {
        let (clock, mut rng) = (self.handle.system().clock().clone(), self.handle.rng());
        let mut failures = 0;
        let mut version = None;
        loop {
            let begun = clock.now();
            let lists = version.is_none();
            let outcome = match version.take() {
                None => self.list().await?.map(Some),
                Some(from) => self.watch(from).await?,
            };
            match outcome {
                Ok(next) => version = next,
                Err(error) => {
                    tracing::debug!(resource = self.resource.name(), %error, "can't be read; trying again");
                }
            }
            if lists && version.is_some() {
                continue;
            }
            // What ends as soon as it begins is begun again after a rest, whether it failed or not.
            if clock.now().since(begun) > SHORT {
                failures = 0;
            } else {
                failures += 1;
                clock.sleep_until(clock.now() + RETRY.delay(failures, &mut rng)).await;
            }
        }
    }

    async fn tell(&mut self, told: Told) -> Result<(), ActorError> {
        self.told.send(told).await.map_err(|_| ActorError::new("the collector is away"))
    }

    /// All objects; the version of the list.
    async fn list(&mut self) -> Result<kube::Result<String>, ActorError> {
        let mut params = ListParams { limit: Some(PAGE_OBJECTS), ..ListParams::default() };
        let mut all = HashSet::new();
        loop {
            let page = match self.api.list_metadata(&params).await {
                Ok(page) => page,
                Err(error) => return Ok(Err(error)),
            };
            let seen: Vec<Seen> = page.items.iter().filter_map(|object| self.reader.read(&object.metadata)).collect();
            all.extend(seen.iter().map(|seen| seen.uid.clone()));
            self.tell(Told::Seen(seen)).await?;
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => params.continue_token = Some(token),
                None => {
                    self.tell(Told::Listed(self.resource.clone(), all)).await?;
                    return Ok(Ok(page.metadata.resource_version.unwrap_or_default()));
                }
            }
        }
    }

    /// Follows a watch to its end; the version to go on from, `None` if everything has to be listed again.
    async fn watch(&mut self, mut version: String) -> Result<kube::Result<Option<String>>, ActorError> {
        let params = WatchParams { timeout: Some(WATCH_SECONDS), ..WatchParams::default() };
        let stream = match self.api.watch_metadata(&params, &version).await {
            Ok(stream) => stream,
            Err(kube::Error::Api(status)) if status.code == 410 => return Ok(Ok(None)),
            Err(error) => return Ok(Err(error)),
        };
        let mut events = Box::pin(stream.ready_chunks(BATCH));
        loop {
            let Ok(batch) = tokio::time::timeout(SILENCE_LIMIT, events.next()).await else {
                return Ok(Ok(Some(version)));
            };
            let Some(batch) = batch else { return Ok(Ok(Some(version))) };
            for (gone, group) in group(batch) {
                let mut seen = Vec::new();
                for event in group {
                    match event {
                        Ok(WatchEvent::Added(object) | WatchEvent::Modified(object) | WatchEvent::Deleted(object)) => {
                            version = object.metadata.resource_version.clone().unwrap_or_default();
                            seen.extend(self.reader.read(&object.metadata));
                        }
                        Ok(WatchEvent::Bookmark(mark)) => version = mark.metadata.resource_version,
                        Ok(WatchEvent::Error(_)) => return Ok(Ok(None)),
                        Err(error) => return Ok(Err(error)),
                    }
                }
                match gone {
                    _ if seen.is_empty() => {}
                    true => self.tell(Told::Gone(seen.into_iter().map(|seen| seen.uid).collect())).await?,
                    false => self.tell(Told::Seen(seen)).await?,
                }
            }
        }
    }
}

type Event = kube::Result<WatchEvent<PartialObjectMeta<DynamicObject>>>;

/// Cuts events into runs of deletions and runs of others, in order.
fn group(batch: Vec<Event>) -> Vec<(bool, Vec<Event>)> {
    let mut groups: Vec<(bool, Vec<Event>)> = Vec::new();
    for event in batch {
        let gone = matches!(event, Ok(WatchEvent::Deleted(_)));
        match groups.last_mut() {
            Some((same, group)) if *same == gone => group.push(event),
            _ => groups.push((gone, vec![event])),
        }
    }
    groups
}
