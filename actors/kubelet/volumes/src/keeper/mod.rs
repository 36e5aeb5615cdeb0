//! Keeps the files of volumes as their objects are, as long as the pod is there.

mod actor;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k3sd_runtime::lend::Lend;
use k3sd_runtime::{Address, Moment, ReplyPort, message_kinds};
use k8s_openapi::api::core::v1::Pod;
use tokio::sync::watch;

pub(crate) use self::actor::{KeeperActor, KeeperArgs};
use crate::error::VolumeError;
use crate::plan::Upkeep;
use crate::types::{PodIdentity, VolumeCounts};

/// The keeper answers from memory.
const TELL_LIMIT: Duration = Duration::from_secs(10);

/// A pod whose volumes are there, or are being made.
#[derive(Debug)]
pub(crate) struct Followed {
    pub(crate) pod: Arc<Pod>,
    pub(crate) who: PodIdentity,
    /// Since when somebody makes its volumes.
    pub(crate) busy_since: Option<Moment>,
    /// Something changed that isn't written yet.
    pub(crate) is_dirty: bool,
    /// Names of its volumes, with those of the persistent volumes behind them.
    pub(crate) persistent: BTreeMap<String, String>,
    /// Names of those that claims stand for, with what serves them.
    pub(crate) plugins: BTreeMap<String, String>,
    /// All of them were there when they were last made.
    pub(crate) is_whole: bool,
}

/// A pod, with the names of its volumes and of the persistent volumes behind them.
pub(crate) type About = (Arc<Pod>, BTreeMap<String, String>);

/// The pods that are followed. It outlives the keeper, so that its death stops no update.
pub(crate) type Registry = Lend<BTreeMap<String, Followed>>;

/// What the keeper understands.
#[derive(Debug)]
pub(crate) enum KeeperMsg {
    /// Somebody begins to make a pod's volumes. Changes from now on count.
    Began {
        /// Of this pod.
        pod: Arc<Pod>,
        /// And who it is.
        who: PodIdentity,
        /// It is noted.
        reply: ReplyPort<()>,
    },
    /// That is over.
    Ended {
        /// Whose.
        uid: String,
        /// What has to be known of them from now on.
        upkeep: Upkeep,
        /// Whether all of them are there.
        is_whole: bool,
        /// It is noted.
        reply: ReplyPort<()>,
    },
    /// The object of a pod is another; its labels may be.
    Seen {
        /// Whose.
        uid: String,
        /// What it is now.
        pod: Arc<Pod>,
        /// It is noted.
        reply: ReplyPort<()>,
    },
    /// What is known of a pod's volumes?
    Ask {
        /// Whose.
        uid: String,
        /// Nothing of a pod that isn't followed.
        reply: ReplyPort<Option<About>>,
    },
    /// How many volumes are wanted, and there?
    Count {
        /// By what serves them.
        reply: ReplyPort<VolumeCounts>,
    },
    /// Objects that these pods name have changed.
    Touched {
        /// Whose.
        uids: Vec<String>,
    },
    /// A pod is gone.
    Forget {
        /// Whose.
        uid: String,
        /// It is noted.
        reply: ReplyPort<()>,
    },
    /// To itself: look at a pod's files.
    RefreshTick {
        /// Whose.
        uid: String,
    },
    /// To itself: they were looked at.
    Refreshed {
        /// Whose.
        uid: String,
        /// What has to be known of its volumes from now on, or why nothing was written.
        outcome: Result<Upkeep, String>,
    },
}
message_kinds!(KeeperMsg { Began, Ended, Seen, Ask, Count, Touched, Forget, RefreshTick, Refreshed });

/// The way to the keeper. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Keeper(pub(crate) watch::Receiver<Option<Address<KeeperMsg>>>);

impl Keeper {
    /// Tells the keeper something, and waits until it is noted: what is only on its way dies with the keeper.
    pub(crate) async fn tell(&self, message: impl FnOnce(ReplyPort<()>) -> KeeperMsg) -> Result<(), VolumeError> {
        let address = crate::address(&self.0).await?;
        address.call(TELL_LIMIT, message).await.map_err(|_| VolumeError::Away)
    }

    /// How many volumes are wanted, and there.
    pub(crate) async fn counts(&self) -> Result<VolumeCounts, VolumeError> {
        let address = crate::address(&self.0).await?;
        let asked = address.call(TELL_LIMIT, |reply| KeeperMsg::Count { reply });
        asked.await.map_err(|_| VolumeError::Away)
    }

    /// What is known of a pod's volumes; nothing of a pod that isn't followed.
    pub(crate) async fn about(&self, uid: &str) -> Result<Option<About>, VolumeError> {
        let address = crate::address(&self.0).await?;
        let asked = address.call(TELL_LIMIT, |reply| KeeperMsg::Ask { uid: uid.to_owned(), reply });
        asked.await.map_err(|_| VolumeError::Away)
    }
}
