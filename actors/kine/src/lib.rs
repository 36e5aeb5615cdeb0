//! The datastore's actors, and the etcd v3 endpoint in front of them.
//!
//! ```text
//! kine                rest_for_one
//! ├─ store            opens the database and publishes it; its threads and tasks end before its successor starts
//! ├─ compactor        drops old history, in the interval of kine
//! ├─ expiry           keeps leases, and deletes keys whose time to live is over
//! ├─ connections      dynamic: one task per connection, which also runs all its calls and watches
//! ├─ progress         tells watchers now and then how far they are
//! └─ listener         accepts, and asks `connections` for a task each time
//! ```
//!
//! Standing alone it has a subtree for metrics beside it; see [`metrics_tree`]. Any store will do: [`StoreConfig`] is a
//! datastore endpoint, understood. The stores count what they do, see [`Metrics`].
//!
//! The store is published through a [`StoreHandle`]. Nobody keeps it longer than one request, so a store that dies is
//! closed when the requests in hand are answered. Watches remember how far they are, and go on from there on the next
//! store or the next connection: the log has every event until it is compacted, and then the watcher is told.
//!
//! What is deliberately absent: any knowledge of Kubernetes (but for the one key with which API servers agree on a
//! compaction, see [`translate`]), and tasks that nobody supervises.

mod compactor;
mod config;
mod endpoint;
mod error;
mod expiry;
mod metrics;
mod storage;
mod store;
mod tls;
mod translate;
mod tree;

pub use crate::config::{Advertised, CompactConfig, KineConfig, ListenAddress, SlowConfig};
pub use crate::endpoint::listener::{Socket, bind};
pub use crate::error::{ListenAddressError, StoreAbsent};
pub use crate::metrics::{Metrics, metrics_tree};
pub use crate::store::{PoolConfig, StoreConfig, StoreHandle, StoreSettings, StoreTls};
pub use crate::tls::{Certificates, ServerTls, TlsError};
pub use crate::tree::{KineTree, tree};
pub use k3sd_datastore::{DsnError, SqliteOptions};

/// The messages and services of etcd's interface, made from `proto/` when the crate is built.
mod wire {
    #![expect(unreachable_pub, clippy::allow_attributes, reason = "generated; documented in the .proto files")]
    pub mod mvccpb {
        tonic::include_proto!("mvccpb");
    }
    pub mod etcdserverpb {
        tonic::include_proto!("etcdserverpb");
    }
    pub mod health {
        tonic::include_proto!("grpc.health.v1");
    }
    pub mod reflection {
        pub mod v1 {
            tonic::include_proto!("grpc.reflection.v1");
        }
        pub mod v1alpha {
            tonic::include_proto!("grpc.reflection.v1alpha");
        }
    }
}
