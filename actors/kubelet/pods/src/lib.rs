//! Pods: an actor each, from the object to sandboxes and containers, and their status back.
//!
//! ```text
//! API, files ─▶ manager ─▶ entry of a pod ─▶ its actor ─▶ CRI, cgroups, volumes
//!                            ▲                 │
//!     runtime ─▶ relist ─ nudge                ├─▶ status in the API
//!                                              └─▶ snapshot of the node's pods
//! ```
//!
//! * [`translate`], [`plan`] and [`status`] decide; they are pure.
//! * `pod` is the actor of one pod: it looks at the runtime, decides, acts, and looks again.
//! * `manager` says which pods there are; [`source`] and [`admit`] help it.
//! * `oom` hears from the kernel whom it killed for want of memory.
//! * [`resize`] gives pods other resources while they run; `users` gives them users of their own.
//! * [`probes`], [`lifecycle`], [`images`] and [`credentials`] are what their names say.
//!
//! What is deliberately absent: a cache of what runs. The runtime is asked, and an actor that restarts goes on from there.

pub mod admit;
pub mod config;
pub mod credentials;
mod http;
pub mod images;
pub mod lifecycle;
mod manager;
mod numbers;
mod oom;
pub mod plan;
mod pod;
pub mod probes;
pub mod resize;
pub mod runtime;
pub mod source;
pub mod spec;
pub mod status;
#[cfg(test)]
mod testing;
pub mod translate;
mod tree;
mod users;
mod volumes;

pub use crate::config::{DeviceGrant, DevicesSeat, PodDevices, PodVolumes, PodsConfig, PodsDeps};
pub use crate::tree::{PodsHandle, PodsTree, tree};
