//! Volumes of pods: what is mounted where, kept up to date, and taken away.
//!
//! ```text
//! Volumes::set_up ─▶ plan      what each volume is made of: objects, tokens, claims, storage drivers
//!                  ─▶ disk     threads make it: directories, mounts, files that change all at once
//! objects, tokens ─▶ keeper    writes files again when what they are made of changes
//! ```
//!
//! Where things lie below the kubelet's directory (`paths`) is upstream's layout, because storage drivers, tools and people
//! know it; so are the texts of errors. What a file holds (`payload`, `downward`), what a claim stands for (`claims`), when
//! a token is renewed (`tokens`) are plain functions. `trees` walks through what pods wrote, and is never led elsewhere.
//!
//! The owner of the truth is the host: what is mounted and what lies in directories is found again after any restart,
//! and a call that was cut short is repeated by whoever made it.
//!
//! What is deliberately absent: formatting disks, and every kind of volume that needs it without a storage driver; quotas
//! of projects; image volumes, which the runtime mounts.

mod atomic;
mod claims;
mod config;
mod csi;
mod disk;
mod downward;
mod error;
mod host_path;
mod keeper;
mod mounts;
mod objects;
mod paths;
mod payload;
mod plan;
mod tokens;
mod tree;
mod trees;
mod types;
mod volumes;

use k3sd_runtime::{Address, Message};
use tokio::sync::watch;

pub use crate::config::{Allocatable, VolumesConfig};
pub use crate::error::VolumeError;
pub use crate::tree::{VolumesTree, tree};
pub use crate::types::{HostVolume, Mounted, PodIdentity, SubPath, VolumeCounts, VolumeUsage};
pub use crate::volumes::Volumes;

/// Where an actor of this crate is, once it has started for the first time.
async fn address<M: Message>(place: &watch::Receiver<Option<Address<M>>>) -> Result<Address<M>, VolumeError> {
    let mut place = place.clone();
    let found = place.wait_for(Option::is_some).await.map_err(|_| VolumeError::Away)?.clone();
    found.ok_or(VolumeError::Away)
}
