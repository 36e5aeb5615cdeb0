//! The owner of the database, and the way to it.

mod actor;
mod config;
mod msg;
mod open;

use std::sync::Arc;
use std::time::Duration;

use k3sd_datastore::AnyBackend;
use tokio::sync::watch;

pub(crate) use self::actor::{Store, StoreArgs};
pub use self::config::{PoolConfig, StoreConfig, StoreSettings, StoreTls};
use crate::error::StoreAbsent;

/// How long a request waits for a store that is being opened again.
const ABSENCE_LIMIT: Duration = Duration::from_secs(5);

/// The way to the store that is open right now.
#[derive(Clone, Debug)]
pub struct StoreHandle(watch::Receiver<Option<AnyBackend>>);

impl StoreHandle {
    /// The place where the owner publishes, and the way to it.
    pub(crate) fn place() -> (Arc<watch::Sender<Option<AnyBackend>>>, Self) {
        let (sender, receiver) = watch::channel(None);
        (Arc::new(sender), Self(receiver))
    }

    /// The store that is open right now, if there is one. Keep it no longer than for a question.
    pub(crate) fn now(&self) -> Option<AnyBackend> {
        self.0.borrow().clone()
    }

    /// Whether a store is open right now.
    pub fn is_open(&self) -> bool {
        self.0.borrow().is_some()
    }

    /// Waits until that is something else than what was told, and tells it; nothing when no store comes any more.
    pub(crate) async fn open_differs_from(&mut self, told: Option<bool>) -> Option<bool> {
        let differs = self.0.wait_for(|backend| Some(backend.is_some()) != told).await;
        differs.ok().map(|backend| backend.is_some())
    }

    /// The store. Keep it for one request, no longer: its owner can't open it again before everybody has let go.
    ///
    /// # Errors
    /// When none is open within five seconds.
    pub async fn get(&self) -> Result<AnyBackend, StoreAbsent> {
        if let Some(backend) = self.0.borrow().clone() {
            return Ok(backend); // The usual case costs no timer.
        }
        let mut receiver = self.0.clone();
        let open = tokio::time::timeout(ABSENCE_LIMIT, receiver.wait_for(Option::is_some)).await;
        open.ok().and_then(Result::ok).and_then(|backend| backend.clone()).ok_or(StoreAbsent)
    }
}
