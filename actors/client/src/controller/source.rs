//! Where keys come from: the changes that informers tell, each mapped to the keys it concerns.

use std::sync::Arc;

use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream};
use k3sd_runtime::AskError;

use crate::informer::{Change, Informer, Kind};

/// Changes that may wait for a loop. Beyond them it is told everything at once, which costs a look at each key.
const WAITING_MAX: usize = 1024;

/// Keys to look at.
pub(super) struct Told<Key> {
    pub(super) keys: Vec<Key>,
    /// Changes may have been missed: what is gone by now wasn't told of.
    pub(super) is_all: bool,
}

/// An informer and a mapping, with the kind forgotten.
pub(super) trait Source<Key>: Send + Sync {
    /// Subscribes. The first that it tells is all there is.
    fn open(&self) -> BoxFuture<'static, Result<BoxStream<'static, Told<Key>>, AskError>>;
    /// The keys that all objects of now are mapped to.
    fn all(&self) -> Vec<Key>;
    /// Waits until there is a first list.
    fn synced(&self) -> BoxFuture<'static, ()>;
}

/// Maps what an object was and what it is to keys.
pub(super) type Map<K, Key> = Arc<dyn Fn(Option<&K>, Option<&K>, &mut Vec<Key>) + Send + Sync>;

pub(super) struct Mapped<K: Kind, Key> {
    pub(super) informer: Informer<K>,
    pub(super) map: Map<K, Key>,
}

impl<K: Kind, Key: super::Key> Source<Key> for Mapped<K, Key> {
    fn open(&self) -> BoxFuture<'static, Result<BoxStream<'static, Told<Key>>, AskError>> {
        let (mut informer, map) = (self.informer.clone(), self.map.clone());
        Box::pin(async move {
            let subscription = informer.subscribe(WAITING_MAX).await?;
            let told = stream::unfold(subscription, |mut subscription| async move {
                let change = subscription.next().await?;
                Some((change, subscription))
            });
            Ok(told.map(move |change| tell(&map, change)).boxed())
        })
    }

    fn all(&self) -> Vec<Key> {
        let mut keys = Vec::new();
        for object in self.informer.snapshot().iter().flat_map(|shown| shown.iter()) {
            (self.map)(None, Some(object), &mut keys);
        }
        keys
    }

    fn synced(&self) -> BoxFuture<'static, ()> {
        let mut informer = self.informer.clone();
        Box::pin(async move { _ = informer.synced().await })
    }
}

fn tell<K: Kind, Key>(map: &Map<K, Key>, change: Change<K>) -> Told<Key> {
    let mut keys = Vec::new();
    let is_all = matches!(change, Change::Replaced(_));
    match change {
        Change::Replaced(all) => all.iter().for_each(|object| map(None, Some(object), &mut keys)),
        Change::Applied { old, new } => map(old.as_deref(), Some(&new), &mut keys),
        Change::Deleted(last) => map(Some(&last), None, &mut keys),
    }
    Told { keys, is_all }
}

/// A stream of keys that isn't about objects of a kind.
pub(super) struct Stream<F>(pub(super) F);

impl<Key: super::Key, F> Source<Key> for Stream<F>
where
    F: Fn() -> BoxStream<'static, Vec<Key>> + Send + Sync,
{
    fn open(&self) -> BoxFuture<'static, Result<BoxStream<'static, Told<Key>>, AskError>> {
        let keys = (self.0)();
        Box::pin(async move { Ok(keys.map(|keys| Told { keys, is_all: false }).boxed()) })
    }

    fn all(&self) -> Vec<Key> {
        Vec::new()
    }

    fn synced(&self) -> BoxFuture<'static, ()> {
        Box::pin(async {})
    }
}
