//! What all connections share.

use std::sync::Arc;

use k3sd_datastore::AnyBackend;
use tonic::Status;

use crate::config::Advertised;
use crate::store::StoreHandle;
use crate::translate::absent;

/// Cloning it shares it.
#[derive(Clone, Debug)]
pub(crate) struct Desk {
    store: StoreHandle,
    /// What clients are told about us.
    pub(crate) advertised: Arc<Advertised>,
}

impl Desk {
    /// For a store.
    pub(crate) fn new(store: StoreHandle, advertised: Advertised) -> Self {
        Self { store, advertised: Arc::new(advertised) }
    }

    /// The store, for one request.
    pub(crate) async fn backend(&self) -> Result<AnyBackend, Status> {
        self.store.get().await.map_err(absent)
    }
}
