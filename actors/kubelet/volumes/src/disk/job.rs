//! What can be done, as data.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use super::{set_up, sub_path, usage};
use crate::error::VolumeError;
use crate::mounts::{self, Mounts};
use crate::paths::{CSI, Paths, RECORD};
use crate::payload::Payload;
use crate::trees;
use crate::types::{HostVolume, Measured, SubPath};

/// Something to do on a thread.
#[derive(Debug)]
pub(crate) enum Job {
    /// Have these volumes of a pod there.
    SetUp { uid: String, group: Group, volumes: Vec<Planned> },
    /// Write the files of those of these that are there: a pod that was taken away meanwhile doesn't come back.
    Rewrite { uid: String, group: Group, volumes: Vec<Planned> },
    /// Have a directory there; says whether something is mounted at a place, which is it or lies in it.
    MountPoint { directory: PathBuf, at: PathBuf },
    /// Say whether something is mounted right here.
    IsMounted { at: PathBuf },
    /// Write a small file as a whole.
    Save { path: PathBuf, text: String },
    /// Read what was saved about storage drivers' volumes: of one pod, or of all.
    Records { uid: Option<String> },
    /// Unmount what is at and below a place, and delete it.
    Remove { path: PathBuf },
    /// Take everything of a pod away.
    TearDown { uid: String },
    /// Have a part of a volume mounted.
    SubPath(SubPath),
    /// Add up what a pod's volumes take.
    Usage { uid: String },
    /// Which pods have something here.
    Pods,
}

/// How it went.
#[derive(Debug)]
pub(crate) enum Done {
    Nothing,
    Is(bool),
    Mounted(BTreeMap<String, HostVolume>),
    Files(Vec<(PathBuf, String)>),
    Path(PathBuf),
    Usage(Vec<Measured>),
    Uids(Vec<String>),
}

/// To whom volumes are given.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Group {
    pub(crate) id: Option<u32>,
    /// Only if the root isn't theirs yet.
    pub(crate) on_root_mismatch: bool,
}

/// A volume, with everything that had to be found out.
#[derive(Debug)]
pub(crate) struct Planned {
    /// Its name in the pod.
    pub(crate) name: String,
    pub(crate) what: What,
}

/// What a volume is.
#[derive(Debug)]
pub(crate) enum What {
    EmptyDir {
        medium: Medium,
    },
    HostPath {
        path: PathBuf,
        kind: String,
        read_only: bool,
    },
    /// Files that change together. Those that may be secret never reach a disk.
    Files {
        plugin: &'static str,
        memory_max: Option<u64>,
        payload: Payload,
    },
    /// Some directory of the host, under the name of its persistent volume.
    Local {
        place: String,
        from: PathBuf,
        read_only: bool,
    },
    /// A device of the host, likewise.
    Device {
        plugin: &'static str,
        place: String,
        device: PathBuf,
        read_only: bool,
    },
    /// Mounted already, by some program. `owned`: it may be given to the pod's group.
    There {
        path: PathBuf,
        read_only: bool,
        is_block: bool,
        owned: bool,
        selinux_relabel: bool,
    },
}

/// Where an emptyDir is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Medium {
    Disk,
    Memory { bytes_max: Option<u64> },
    HugePages { page_bytes: u64 },
}

/// The largest file that is read back; ours have a few hundred bytes.
const SAVED_BYTES_MAX: u64 = 1 << 20;

pub(super) fn carry_out(job: Job, paths: &Paths, stamp: &str) -> Result<Done, VolumeError> {
    match job {
        Job::SetUp { uid, group, volumes } => set_up::set_up(paths, &uid, group, &volumes, stamp).map(Done::Mounted),
        Job::Rewrite { uid, group, volumes } => {
            let volumes = set_up::those_there(paths, &uid, volumes);
            if volumes.is_empty() {
                return Ok(Done::Nothing);
            }
            set_up::set_up(paths, &uid, group, &volumes, stamp).map(|_| Done::Nothing)
        }
        Job::MountPoint { directory, at } => {
            make_directories(&directory, 0o750)?;
            Mounts::read().map(|mounts| Done::Is(mounts.has(&at)))
        }
        Job::IsMounted { at } => Mounts::read().map(|mounts| Done::Is(mounts.has(&at))),
        Job::Save { path, text } => save(&path, &text, stamp).map(|()| Done::Nothing),
        Job::Records { uid } => records(paths, uid).map(Done::Files),
        Job::Remove { path } => remove(&path).map(|()| Done::Nothing),
        Job::TearDown { uid } => remove(&paths.pod(&uid)?).map(|()| Done::Nothing),
        Job::SubPath(wanted) => sub_path::sub_path(paths, &wanted).map(Done::Path),
        Job::Usage { uid } => usage::usage(&paths.pod(&uid)?).map(Done::Usage),
        Job::Pods => pods(&paths.pods()).map(Done::Uids),
    }
}

/// Makes a directory and those above it, each with this mode whatever the umask is; those that are there stay.
pub(super) fn make_directories(path: &Path, mode: u32) -> Result<(), VolumeError> {
    if path.is_dir() {
        return Ok(());
    }
    if let Some(parent) = path.parent() {
        make_directories(parent, mode)?;
    }
    match fs::DirBuilder::new().mode(mode).create(path) {
        Ok(()) => set_mode(path, mode),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        Err(error) => Err(VolumeError::io("make directory", path)(error)),
    }
}

pub(super) fn set_mode(path: &Path, mode: u32) -> Result<(), VolumeError> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(VolumeError::io("set mode of", path))
}

/// Mounts go first, then files: deleting through a mount would delete what others have.
fn remove(path: &Path) -> Result<(), VolumeError> {
    if fs::symlink_metadata(path).is_err() {
        return Ok(());
    }
    mounts::unmount_below(path)?;
    trees::delete(path)
}

fn pods(directory: &Path) -> Result<Vec<String>, VolumeError> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(VolumeError::io("list", directory)(error)),
    };
    Ok(entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect())
}

fn save(path: &Path, text: &str, stamp: &str) -> Result<(), VolumeError> {
    let parent = path.parent().unwrap_or(path);
    make_directories(parent, 0o750)?;
    let next = parent.join(format!(".{stamp}"));
    fs::write(&next, text).map_err(VolumeError::io("write", &next))?;
    fs::rename(&next, path).map_err(VolumeError::io("rename", &next))
}

/// What was saved, with the directory that it lies in.
fn records(paths: &Paths, uid: Option<String>) -> Result<Vec<(PathBuf, String)>, VolumeError> {
    let uids = uid.map_or_else(|| pods(&paths.pods()), |uid| Ok(vec![uid]))?;
    let mut found = Vec::new();
    for uid in uids {
        let pod = paths.pod(&uid)?;
        let volumes = ["volumes", "plugins"].map(|kind| fs::read_dir(pod.join(kind).join(CSI)));
        for volume in volumes.into_iter().flatten().flatten().flatten() {
            let file = volume.path().join(RECORD);
            let is_ours = |file: fs::Metadata| file.is_file() && file.len() <= SAVED_BYTES_MAX;
            if fs::symlink_metadata(&file).is_ok_and(is_ours) {
                let text = fs::read_to_string(&file).map_err(VolumeError::io("read", &file))?;
                found.push((volume.path(), text));
            }
        }
    }
    Ok(found)
}
