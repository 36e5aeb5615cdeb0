//! The Kubernetes API: the front of it, and the tree of everything behind.
//!
//! ```text
//! k3sd-apiserver              listeners, connections, the pipeline of a request, versions of others, the tree
//! ├─ -wire                    what clients read: encodings, tables, discovery, OpenAPI
//! ├─ -registry                the verbs, and what a kind needs beyond its schema
//! │  ├─ -admission            what changes or refuses a write by looking at other objects
//! │  ├─ -custom               CustomResourceDefinitions
//! │  └─ -validation           what makes an object invalid
//! ├─ -access                  who may do what, and who it is
//! └─ -store                   what is served, watch caches, objects over bytes
//! ```
//!
//! [`tree`] puts a server together, of which the caller starts the spec and keeps the [`Pipeline`] for itself: in this
//! process the API is reached through [`Pipeline::local`], over the same way that requests from outside take.
//!
//! What is deliberately absent: handlers written once per kind, any way to the store past `-store`, and files:
//! certificates and keys come in through [`Endpoint`], [`ClientAuthorities`] and [`TokenKeys`].

mod aggregation;
mod arguments;
mod authn;
mod compactor;
mod config;
mod error;
mod flow;
mod front;
mod gate;
mod observe;
mod openapi;
mod opening;
mod pipeline;
mod rights;
mod streams;
mod tree;

pub use crate::aggregation::{Aggregation, LocalApi};
pub use crate::arguments::{TOKEN_AUTH_FILE, apply as apply_arguments};
pub use crate::authn::{ServiceAccountKeys, TokenKeys};
pub use crate::config::{ApiServerConfig, Files, Numbers, Page, Pages};
pub use crate::error::{KeysError, SetupError, TlsError};
pub use crate::front::{Body, ClientAuthorities, Endpoint, Learn, Reached, TlsLimits};
pub use crate::observe::{Check, Health, Probe};
pub use crate::pipeline::{LocalService, Peer, Pipeline};
pub use crate::streams::{Connection, Dial, Nodes, Stream, Target};
pub use crate::tree::{ApiServerArgs, ApiServerTree, Bundles, Components, tree};
pub use k3sd_apiserver_access::User;
pub use k3sd_apiserver_access::authn::{FrontProxy, StaticTokenError, StaticTokens};
pub use k3sd_apiserver_registry::special::Component;
