//! Shared informers: one actor per kind lists and watches, decodes each object once, and hands out `Arc<K>`.
//!
//! ```text
//! API ─ list, watch ─▶ reflector (an actor) ─▶ Snapshot, published     read without waiting
//!                                           └▶ Change, queued          to each subscriber
//! ```
//!
//! Snapshots share what they have in common, so keeping one costs what has changed since. A subscriber that is too slow
//! for its queue loses changes and gets the whole snapshot instead: whoever acts on state, as every controller should,
//! misses nothing.

mod compiled;
mod lines;
mod reflector;
mod shared;
mod store;
#[cfg(test)]
pub(crate) mod tests;

use std::fmt;
use std::sync::Arc;

use k3sd_runtime::lend::Lend;
use k3sd_runtime::{Address, AskError, ChildSpec, worker};
use kube::Api;
use serde::de::DeserializeOwned;
use tokio::sync::{mpsc, watch};

pub use self::compiled::compiled;
use self::reflector::{Reflector, ReflectorMsg};
pub use self::shared::Shared;
pub use self::store::{Index, ObjectKey, Snapshot};
use crate::api::Connect;

/// What an informer can be made for.
pub trait Kind:
    kube::Resource<DynamicType = ()> + DeserializeOwned + Clone + fmt::Debug + Send + Sync + 'static
{
}
impl<K> Kind for K where
    K: kube::Resource<DynamicType = ()> + DeserializeOwned + Clone + fmt::Debug + Send + Sync + 'static
{
}

/// Which part of the API an informer looks at, from a client that it is given.
type Place<K> = Arc<dyn Fn(kube::Client) -> Api<K> + Send + Sync>;

/// What an informer is made of.
pub struct InformerArgs<K: Kind> {
    connect: Connect,
    place: Place<K>,
    labels: Option<String>,
    fields: Option<String>,
    indexes: Arc<[Index<K>]>,
}

impl<K: Kind> Clone for InformerArgs<K> {
    fn clone(&self) -> Self {
        Self {
            connect: self.connect.clone(),
            place: self.place.clone(),
            labels: self.labels.clone(),
            fields: self.fields.clone(),
            indexes: self.indexes.clone(),
        }
    }
}

impl<K: Kind> fmt::Debug for InformerArgs<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InformerArgs").field("kind", &K::kind(&())).finish_non_exhaustive()
    }
}

impl<K: Kind> InformerArgs<K> {
    /// All objects of a kind, wherever they are.
    pub fn all(connect: Connect) -> Self {
        Self::at(connect, Api::all)
    }

    /// The objects of some part of the API, such as a namespace.
    pub fn at(connect: Connect, place: impl Fn(kube::Client) -> Api<K> + Send + Sync + 'static) -> Self {
        Self { connect, place: Arc::new(place), labels: None, fields: None, indexes: Arc::new([]) }
    }

    /// Only those with such labels.
    #[must_use]
    pub fn labels(self, selector: &str) -> Self {
        Self { labels: Some(selector.to_owned()), ..self }
    }

    /// Only those with such fields.
    #[must_use]
    pub fn fields(self, selector: &str) -> Self {
        Self { fields: Some(selector.to_owned()), ..self }
    }

    /// Found by these as well.
    #[must_use]
    pub fn indexes(self, indexes: Vec<Index<K>>) -> Self {
        Self { indexes: indexes.into(), ..self }
    }
}

/// What a subscriber is told.
#[derive(Clone, Debug)]
pub enum Change<K: Kind> {
    /// Everything there is: at first, after a list, and when changes were lost. What isn't in it is gone.
    Replaced(Arc<Snapshot<K>>),
    /// An object is there now, or is another.
    Applied {
        /// What it was until now.
        old: Option<Arc<K>>,
        /// What it is.
        new: Arc<K>,
    },
    /// An object is gone; this was its last state.
    Deleted(Arc<K>),
}

/// Changes as they happen. Dropping it ends the subscription.
#[derive(Debug)]
pub struct Subscription<K: Kind>(mpsc::Receiver<Change<K>>);

impl<K: Kind> Subscription<K> {
    /// Waits for the next change. `None` when the informer is gone for good.
    pub async fn next(&mut self) -> Option<Change<K>> {
        self.0.recv().await
    }
}

/// The way to an informer. Cheap to clone.
#[derive(Clone)]
pub struct Informer<K: Kind> {
    snapshot: watch::Receiver<Option<Arc<Snapshot<K>>>>,
    address: watch::Receiver<Option<Address<ReflectorMsg<K>>>>,
}

impl<K: Kind> fmt::Debug for Informer<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Informer").field("kind", &K::kind(&())).finish_non_exhaustive()
    }
}

/// How long subscribing may take; the actor answers from memory.
const SUBSCRIBE_DEADLINE: std::time::Duration = std::time::Duration::from_secs(10);

impl<K: Kind> Informer<K> {
    /// What there is, as far as it is known; `None` before the first list is done.
    pub fn snapshot(&self) -> Option<Arc<Snapshot<K>>> {
        self.snapshot.borrow().clone()
    }

    /// Waits for the first list. `None` when there will be none, because the informer is gone.
    pub async fn synced(&mut self) -> Option<Arc<Snapshot<K>>> {
        self.snapshot.wait_for(Option::is_some).await.ok().and_then(|found| found.clone())
    }

    /// Subscribes: the first change is all that there is, once that is known. `waiting_max` changes may wait; beyond them
    /// they are replaced by a snapshot. The subscription outlives deaths of the informer's actor.
    ///
    /// # Errors
    /// The actor is away, or was never started.
    pub async fn subscribe(&mut self, waiting_max: usize) -> Result<Subscription<K>, AskError> {
        let found = self.address.wait_for(Option::is_some).await.map_err(|_| AskError::Gone)?.clone();
        let address = found.ok_or(AskError::Gone)?;
        let (queue, changes) = mpsc::channel(waiting_max.max(1));
        address.call(SUBSCRIBE_DEADLINE, |reply| ReflectorMsg::Subscribe { queue, reply }).await?;
        Ok(Subscription(changes))
    }
}

/// The version of the store at which an object was written, or that a list shows, to compare within one cluster. Since
/// Kubernetes 1.34 versions are numbers that grow (KEP-5504). `None` for what is no number.
pub fn version_number(version: &str) -> Option<u64> {
    version.parse().ok()
}

/// An informer: the actor, to be a child of whoever shares it, and the way to it.
pub fn informer<K: Kind>(name: &str, args: InformerArgs<K>) -> (ChildSpec, Informer<K>) {
    let (args, informer) = prepare(args);
    (start(name, args), informer)
}

/// What an informer's actor will be started with, and the way to it.
fn prepare<K: Kind>(args: InformerArgs<K>) -> (reflector::ReflectorArgs<K>, Informer<K>) {
    let (snapshot_place, snapshot) = watch::channel(None);
    let (address_place, address) = watch::channel(None);
    let args = reflector::ReflectorArgs {
        informer: args,
        snapshot: Arc::new(snapshot_place),
        address: Arc::new(address_place),
        subscribers: Lend::new(Vec::new()),
    };
    (args, Informer { snapshot, address })
}

fn start<K: Kind>(name: &str, args: reflector::ReflectorArgs<K>) -> ChildSpec {
    worker::<Reflector<K>>(name, args)
}
