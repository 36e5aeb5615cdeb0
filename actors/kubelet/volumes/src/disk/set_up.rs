//! Has volumes there, whatever of them is there already.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use super::job::{Group, Medium, Planned, What, make_directories, set_mode};
use crate::error::VolumeError;
use crate::mounts::{self, Mounts};
use crate::paths::{EMPTY_DIR, LOCAL, Paths};
use crate::payload::Payload;
use crate::types::HostVolume;
use crate::{atomic, host_path, trees};

/// Directories around volumes: for the node alone.
const AROUND: u32 = 0o750;
/// An emptyDir is anybody's in the pod.
const ANYBODY: u32 = 0o777;

/// One pod's volumes being made.
struct Pod<'a> {
    paths: &'a Paths,
    uid: &'a str,
    group: Group,
    stamp: &'a str,
    /// What was mounted before; read when the first volume asks.
    mounts: Option<Mounts>,
}

/// Has all of these there. One that fails doesn't hold up the others; the first failure is told.
pub(super) fn set_up(
    paths: &Paths,
    uid: &str,
    group: Group,
    volumes: &[Planned],
    stamp: &str,
) -> Result<BTreeMap<String, HostVolume>, VolumeError> {
    let mut pod = Pod { paths, uid, group, stamp, mounts: None };
    let mut made = BTreeMap::new();
    let mut failure = None;
    make_directories(&paths.pod(uid)?, AROUND)?;
    for volume in volumes {
        match pod.one(volume) {
            Ok(host) => {
                made.insert(volume.name.clone(), host);
            }
            Err(error) => {
                failure.get_or_insert(error.of(&volume.name));
            }
        }
    }
    failure.map_or(Ok(made), Err)
}

/// The volumes of files that have a directory.
pub(super) fn those_there(paths: &Paths, uid: &str, volumes: Vec<Planned>) -> Vec<Planned> {
    let is_there = |volume: &Planned| match &volume.what {
        What::Files { plugin, .. } => paths.volume(uid, plugin, &volume.name).is_ok_and(|path| path.is_dir()),
        _ => false,
    };
    volumes.into_iter().filter(is_there).collect()
}

impl Pod<'_> {
    fn one(&mut self, volume: &Planned) -> Result<HostVolume, VolumeError> {
        let host = |path: PathBuf, read_only| HostVolume { path, read_only, is_block: false, selinux_relabel: true };
        match &volume.what {
            What::EmptyDir { medium } => self.empty_dir(&volume.name, *medium).map(|path| host(path, false)),
            What::HostPath { path, kind, read_only } => {
                let path = host_path::check(path, kind)?;
                Ok(HostVolume { selinux_relabel: false, ..host(path, *read_only) })
            }
            What::Files { plugin, memory_max, payload } => {
                self.files(&volume.name, plugin, *memory_max, payload).map(|path| host(path, true))
            }
            What::Local { place, from, read_only } => {
                self.local(place, from, *read_only).map(|path| host(path, *read_only))
            }
            What::Device { plugin, place, device, read_only } => {
                let path = self.device(plugin, place, device)?;
                Ok(HostVolume { is_block: true, selinux_relabel: false, ..host(path, *read_only) })
            }
            What::There { path, read_only, is_block, owned, selinux_relabel } => {
                if *owned && !read_only {
                    self.give(path, false)?;
                }
                let host = host(path.clone(), *read_only);
                Ok(HostVolume { is_block: *is_block, selinux_relabel: *selinux_relabel, ..host })
            }
        }
    }

    fn is_mounted(&mut self, path: &Path) -> Result<bool, VolumeError> {
        if self.mounts.is_none() {
            self.mounts = Some(Mounts::read()?);
        }
        Ok(self.mounts.as_ref().is_some_and(|mounts| mounts.has(path)))
    }

    fn give(&self, path: &Path, always: bool) -> Result<(), VolumeError> {
        let Some(group) = self.group.id else { return Ok(()) };
        if !always && self.group.on_root_mismatch && trees::root_belongs(path, group, false)? {
            return Ok(());
        }
        trees::give_to_group(path, group, false)
    }

    fn empty_dir(&mut self, name: &str, medium: Medium) -> Result<PathBuf, VolumeError> {
        let (path, ready) = (self.paths.volume(self.uid, EMPTY_DIR, name)?, self.paths.ready(self.uid, name)?);
        let is_there = match medium {
            Medium::Disk => path.is_dir(),
            Medium::Memory { .. } | Medium::HugePages { .. } => self.is_mounted(&path)?,
        };
        // Without the mark it was cut short, and whose it is may not be set yet.
        if is_there && ready.is_dir() {
            return Ok(path);
        }
        make_directories(&path, AROUND)?;
        match medium {
            Medium::Disk => {}
            _ if is_there => {}
            Medium::Memory { bytes_max } => mounts::tmpfs(&path, bytes_max)?,
            Medium::HugePages { page_bytes } => mounts::hugetlbfs(&path, page_bytes)?,
        }
        set_mode(&path, ANYBODY)?;
        self.give(&path, true)?;
        make_directories(&ready, AROUND)?;
        Ok(path)
    }

    fn files(
        &mut self,
        name: &str,
        plugin: &str,
        memory_max: Option<u64>,
        payload: &Payload,
    ) -> Result<PathBuf, VolumeError> {
        let path = self.paths.volume(self.uid, plugin, name)?;
        make_directories(&path, AROUND)?;
        if let Some(bytes) = memory_max
            && !self.is_mounted(&path)?
        {
            mounts::tmpfs(&path, (bytes > 0).then_some(bytes))?;
        }
        let found = fs::metadata(&path).map_err(VolumeError::io("look at", &path))?;
        if found.permissions().mode() & ANYBODY != ANYBODY {
            set_mode(&path, ANYBODY)?;
        }
        let group = self.group.id;
        atomic::write(&path, payload, self.stamp, |fresh| {
            group.map_or(Ok(()), |group| trees::give_to_group(fresh, group, true))
        })?;
        if let Some(group) = group
            && !trees::root_belongs(&path, group, true)?
        {
            let owner = rustix::fs::Gid::from_raw(group);
            rustix::fs::chown(&path, None, Some(owner)).map_err(VolumeError::errno("set group of", &path))?;
            set_mode(&path, ANYBODY | 0o2000)?;
        }
        Ok(path)
    }

    fn local(&mut self, place: &str, from: &Path, read_only: bool) -> Result<PathBuf, VolumeError> {
        let path = self.paths.volume(self.uid, LOCAL, place)?;
        let kind = fs::metadata(from).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => VolumeError::Refused(format!("path {:?} does not exist", from.display())),
            _ => VolumeError::io("look at", from)(error),
        })?;
        if !kind.is_dir() {
            let shown = from.display();
            return Err(VolumeError::Refused(format!(
                "path {shown} of a local volume is not a directory, and only directories can be mounted"
            )));
        }
        if !self.is_mounted(&path)? {
            make_directories(&path, AROUND)?;
            mounts::bind(from, &path, read_only)?;
        }
        if !read_only {
            self.give(&path, false)?;
        }
        Ok(path)
    }

    fn device(&self, plugin: &str, place: &str, device: &Path) -> Result<PathBuf, VolumeError> {
        let kind = fs::metadata(device).map_err(VolumeError::io("look at", device))?;
        if !kind.file_type().is_block_device() {
            return Err(VolumeError::Refused(format!("{} is not a block device", device.display())));
        }
        let link = self.paths.device(self.uid, plugin, place)?;
        if fs::read_link(&link).is_ok_and(|to| to == device) {
            return Ok(link);
        }
        make_directories(link.parent().unwrap_or(&link), AROUND)?;
        match fs::remove_file(&link) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(VolumeError::io("delete", &link)(error)),
        }
        symlink(device, &link).map_err(VolumeError::io("link", &link))?;
        Ok(link)
    }
}
