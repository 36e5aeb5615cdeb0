//! Objects over a log of revisions: what is served, watch caches, lists, watches and writes.
//!
//! * [`Catalog`] is what is served: resources, built-in and custom, published as a snapshot.
//! * [`Stores`] has an [`ObjectStore`] for each resource of the catalog. Writes go to the storage; reads come from a watch
//!   cache, an actor of its own, once that is known to be as fresh as the question demands.
//!
//! ```text
//!             writes                                   get, list           watch
//!               │                                          ▲                 ▲
//!               ▼                                          │ snapshot        │ queue
//!            storage ── feed ──▶ log ── queue by key ──▶ cache ──────────────┘
//! ```
//!
//! The log and the caches are the subtree that [`tree`] describes. What they publish and lend lies outside of them, so that
//! any of them may die: the next one goes on where it stopped, and nobody who watches notices.
//!
//! What is deliberately absent: any rule about a kind. Here an object is bytes with a header. What is stored is never
//! logged, it holds secrets.

mod cache;
mod catalog;
mod codec;
mod error;
mod event;
mod keeper;
mod list;
mod log;
mod map;
mod objects;
mod options;
mod query;
mod snapshot;
mod stores;
mod token;
mod tree;
mod version;
mod watch;

pub use cache::{CacheCounts, Waits};
pub use catalog::{
    Catalog, CatalogHandle, CustomRules, CustomVersion, Group, Resource, ScalePaths, Schema, Stored, Subresource,
    Version,
};
pub use error::WriteError;
pub use event::{EventShared, WatchItem, WatchKind};
pub use objects::ObjectStore;
pub use options::{VersionOptions, parse_revision};
pub use query::{ListQuery, Page, ReadAt, WatchFrom, WatchQuery};
pub use snapshot::Snapshot;
pub use stores::Stores;
pub use tree::tree;
pub use version::{VersionError, to_version};
pub use watch::Watch;
