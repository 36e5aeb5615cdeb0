//! The Node object, its lease and status; eviction; collection of images and containers; the node's figures.
//!
//! ```text
//! files, flags ──▶ config            what the node is told
//! machine, CRI ──▶ status ─────────▶ the Node, and Events about it
//!                  lease ──────────▶ the Lease in kube-node-lease
//! kernel, CRI ───▶ figures ─┬──────▶ stats/summary, metrics/resource, metrics/cadvisor (the server asks)
//!                           └ eviction ─▶ pods that have to go, pressures in the status
//! CRI, files ────▶ images, containers   garbage and logs
//! logind ────────▶ shutdown ───────▶ pods that end before the machine does
//! plugins ───────▶ devices ────────▶ what containers get of them
//! ```
//!
//! Every actor starts from what it finds: the Node in the API, containers in the runtime, files. None keeps state of its own
//! on disk, but for who has which device. What depends on pods reads the snapshot of `k3sd-kubelet-base`; pods are only ended through [`eviction::Evict`].
//!
//! What is deliberately absent: registering a Node again that somebody deleted while the process runs. As with upstream,
//! that takes a restart.

pub mod collect;
pub mod config;
pub mod devices;
mod error;
pub mod eviction;
pub mod figures;
pub mod identity;
mod lease;
pub mod prepare;
pub mod shutdown;
pub mod status;
mod tree;

pub use crate::error::NodeError;
pub use crate::tree::{NodeConfig, NodeDeps, NodeTree, tree};
