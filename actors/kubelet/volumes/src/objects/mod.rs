//! `ConfigMap`s and Secrets that pods of this node name, each watched by itself: a node may read no others.
//!
//! ```text
//! watches    dynamic     an informer per object, as long as some pod names it
//! objects                who names which; tells the keeper when one changes
//! ```

mod actor;
mod references;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use k3sd_client::informer::{Change, Informer, Kind, Subscription};
use k3sd_runtime::{Address, ReplyPort, message_kinds};
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret};
use tokio::sync::watch;

pub(crate) use self::actor::{ObjectsActor, ObjectsArgs, WATCHES};
pub(crate) use self::references::references;
use crate::error::VolumeError;

/// How long the first list of an object may take before its pod is told to come again.
const SYNC_LIMIT: Duration = Duration::from_secs(10);
const ASK_LIMIT: Duration = Duration::from_secs(10);

/// What is watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Sort {
    ConfigMap,
    Secret,
}

impl Sort {
    /// In the texts of errors, and in names of actors.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::ConfigMap => "configmap",
            Self::Secret => "secret",
        }
    }
}

/// One object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ObjectRef {
    pub(crate) sort: Sort,
    pub(crate) namespace: String,
    pub(crate) name: String,
}

/// Where an object is read.
#[derive(Debug, Clone)]
pub(crate) enum Source {
    ConfigMap(Informer<ConfigMap>),
    Secret(Informer<Secret>),
}

/// Changes of one object.
#[derive(Debug)]
pub(crate) enum Follow {
    ConfigMap(Subscription<ConfigMap>),
    Secret(Subscription<Secret>),
}

impl Follow {
    /// Waits for the next change; `false` when there will be none.
    async fn next(&mut self) -> bool {
        fn is_change<K: Kind>(change: Option<Change<K>>) -> bool {
            change.is_some()
        }
        match self {
            Self::ConfigMap(changes) => is_change(changes.next().await),
            Self::Secret(changes) => is_change(changes.next().await),
        }
    }
}

/// What the actor understands.
#[derive(Debug)]
pub(crate) enum ObjectsMsg {
    /// A pod names these, and no others any more.
    Keep {
        /// The pod.
        uid: String,
        /// What it names; nothing when it is gone.
        objects: BTreeSet<ObjectRef>,
    },
    /// Where is this read? A pod asks that named it before.
    Want {
        /// Which.
        object: ObjectRef,
        /// The place; `None` for one that nobody named.
        reply: ReplyPort<Option<Source>>,
    },
    /// To itself: an object changed, or its changes can't be had.
    Changed {
        /// Which.
        object: ObjectRef,
        /// Whose watch it was; an older one's doesn't count.
        number: u64,
        /// Where further changes come from; `None` when they don't.
        follow: Option<Box<Follow>>,
    },
    /// To itself: an informer was taken away.
    Removed,
}
message_kinds!(ObjectsMsg { Keep, Want, Changed, Removed });

/// The way to the objects. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Objects(pub(crate) watch::Receiver<Option<Address<ObjectsMsg>>>);

impl Objects {
    /// A pod is here: what it names is watched from now on.
    pub(crate) async fn keep(&self, uid: &str, pod: Option<&Pod>) -> Result<(), VolumeError> {
        let objects = pod.map(references).unwrap_or_default();
        let address = crate::address(&self.0).await?;
        address.cast(ObjectsMsg::Keep { uid: uid.to_owned(), objects }).map_err(|_| VolumeError::Away)
    }

    async fn want(&self, sort: Sort, namespace: &str, name: &str) -> Result<Source, VolumeError> {
        let object = ObjectRef { sort, namespace: namespace.to_owned(), name: name.to_owned() };
        let address = crate::address(&self.0).await?;
        let found = address.call(ASK_LIMIT, |reply| ObjectsMsg::Want { object, reply }).await;
        found.map_err(|_| VolumeError::Away)?.ok_or(VolumeError::NotSynced { kind: sort.word() })
    }

    /// An object that a pod names; `None` if there is none.
    pub(crate) async fn config_map(&self, namespace: &str, name: &str) -> Result<Option<Arc<ConfigMap>>, VolumeError> {
        match self.want(Sort::ConfigMap, namespace, name).await? {
            Source::ConfigMap(informer) => read(informer, namespace, name, Sort::ConfigMap).await,
            Source::Secret(_) => Err(VolumeError::Away),
        }
    }

    /// The same of a Secret.
    pub(crate) async fn secret(&self, namespace: &str, name: &str) -> Result<Option<Arc<Secret>>, VolumeError> {
        match self.want(Sort::Secret, namespace, name).await? {
            Source::Secret(informer) => read(informer, namespace, name, Sort::Secret).await,
            Source::ConfigMap(_) => Err(VolumeError::Away),
        }
    }
}

async fn read<K: Kind>(
    mut informer: Informer<K>,
    namespace: &str,
    name: &str,
    sort: Sort,
) -> Result<Option<Arc<K>>, VolumeError> {
    let synced = tokio::time::timeout(SYNC_LIMIT, informer.synced()).await;
    let snapshot = synced.ok().flatten().ok_or(VolumeError::NotSynced { kind: sort.word() })?;
    Ok(snapshot.get(namespace, name).cloned())
}
