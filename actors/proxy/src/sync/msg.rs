//! What the actor understands; all of it comes from itself.

use k3sd_client::informer::{Change, Kind, Subscription};
use k3sd_runtime::message_kinds;
use k8s_openapi::api::core::v1::{Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;

/// Changes of one kind, and where the next come from; `None` when nobody will ever tell more.
pub(crate) struct Fed<K: Kind> {
    pub(crate) changes: Vec<Change<K>>,
    pub(crate) from: Option<Subscription<K>>,
}

/// A reason to look.
pub(crate) enum SyncMsg {
    /// Services came, went or changed.
    Services(Fed<Service>),
    /// Endpoints did.
    Slices(Fed<EndpointSlice>),
    /// The node did.
    Nodes(Fed<Node>),
    /// Bring the kernel in order.
    SyncTick,
    /// Somebody else changed our tables.
    TableTouched,
}

message_kinds!(SyncMsg { Services, Slices, Nodes, SyncTick, TableTouched });
