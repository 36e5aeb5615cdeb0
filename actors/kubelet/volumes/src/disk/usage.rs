//! Adds up what volumes take.

use std::fs;
use std::path::Path;

use rustix::fs::statvfs;

use crate::error::VolumeError;
use crate::paths::{CONFIG_MAP, DOWNWARD_API, EMPTY_DIR, LOCAL, PROJECTED, SECRET};
use crate::trees;
use crate::types::{Measured, VolumeUsage};

/// Of each volume of a pod that can be looked at: files are added up where they are the pod's alone, file systems are asked
/// where the volume is one. NFS isn't asked: its server may be away, and the answer with it; nor are storage drivers'
/// volumes, of which the drivers tell.
pub(super) fn usage(pod: &Path) -> Result<Vec<Measured>, VolumeError> {
    let mut found = Vec::new();
    for plugin in [EMPTY_DIR, CONFIG_MAP, SECRET, PROJECTED, DOWNWARD_API, LOCAL] {
        let Ok(volumes) = fs::read_dir(pod.join("volumes").join(plugin)) else { continue };
        for volume in volumes.flatten() {
            let Ok(place) = volume.file_name().into_string() else { continue };
            let is_persistent = plugin == LOCAL;
            // One that is going away meanwhile is left out.
            if let Ok(usage) = one(&volume.path(), !is_persistent) {
                found.push(Measured { is_persistent, place, usage });
            }
        }
    }
    Ok(found)
}

fn one(path: &Path, adds_up: bool) -> Result<VolumeUsage, VolumeError> {
    let system = statvfs(path).map_err(VolumeError::errno("look at", path))?;
    let bytes = |blocks: u64| blocks.saturating_mul(system.f_frsize);
    let taken = if adds_up { Some(trees::taken(path)?) } else { None };
    let used = bytes(system.f_blocks.saturating_sub(system.f_bfree));
    Ok(VolumeUsage {
        claim: None,
        used_bytes: Some(taken.map_or(used, |taken| taken.bytes)),
        capacity_bytes: Some(bytes(system.f_blocks)),
        available_bytes: Some(bytes(system.f_bavail)),
        inodes_used: Some(taken.map_or(system.f_files.saturating_sub(system.f_ffree), |taken| taken.inodes)),
        inodes: Some(system.f_files),
        inodes_free: Some(system.f_ffree),
    })
}
