//! What all connections share.

use std::sync::Arc;
use std::time::Duration;

use k3sd_datastore::{AnyBackend, Key, Ttl};
use k3sd_runtime::{Address, ReplyPort};
use tonic::Status;

use crate::config::Advertised;
use crate::expiry::ExpiryMsg;
use crate::store::StoreHandle;
use crate::translate::absent;

/// How long a question about leases may take; the actor answers from memory.
const LEASE_LIMIT: Duration = Duration::from_secs(5);

/// Cloning it shares it, and costs one count: every call does it.
#[derive(Clone, Debug)]
pub(crate) struct Desk(Arc<Shared>);

#[derive(Clone, Debug)]
struct Shared {
    store: StoreHandle,
    advertised: Advertised,
    /// Who keeps the leases; known once a listener runs.
    leases: Option<Address<ExpiryMsg>>,
}

impl Desk {
    /// For a store.
    pub(crate) fn new(store: StoreHandle, advertised: Advertised) -> Self {
        Self(Arc::new(Shared { store, advertised, leases: None }))
    }

    /// The same, with the way to the leases.
    pub(crate) fn with_leases(self, leases: Address<ExpiryMsg>) -> Self {
        Self(Arc::new(Shared { leases: Some(leases), ..Shared::clone(&self.0) }))
    }

    /// What clients are told about us.
    pub(crate) fn advertised(&self) -> &Advertised {
        &self.0.advertised
    }

    /// Asks about leases.
    pub(crate) async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(ReplyPort<T>) -> ExpiryMsg,
    ) -> Result<T, Status> {
        let away = || Status::unavailable("etcdserver: no leader");
        self.0.leases.as_ref().ok_or_else(away)?.call(LEASE_LIMIT, question).await.map_err(|_| away())
    }

    /// Before a key is written with a lease: makes it one of the lease's, and tells how long it lives. A lease that is
    /// only a number of seconds has no keys.
    pub(crate) async fn attach(&self, lease: i64, key: &Key) -> Result<Ttl, Status> {
        if let Ok(seconds) = u32::try_from(lease) {
            return Ok(Ttl::seconds(seconds));
        }
        let found = if lease < 0 {
            None
        } else {
            self.ask(|reply| ExpiryMsg::Attach { lease, key: key.clone(), reply }).await?
        };
        found.ok_or_else(|| Status::not_found("etcdserver: requested lease not found"))
    }

    /// The way to the store.
    pub(crate) fn store(&self) -> &StoreHandle {
        &self.0.store
    }

    /// The store, for one request.
    pub(crate) async fn backend(&self) -> Result<AnyBackend, Status> {
        self.0.store.get().await.map_err(absent)
    }
}
