//! Files that change all at once: whoever reads through the volume's names sees the old ones or the new ones, never some
//! of each.
//!
//! ```text
//! <volume>/..2026_11_21_14_30_00.123456789/dir/file     what is
//! <volume>/..data  ─▶ ..2026_11_21_14_30_00.123456789    one rename swaps everything
//! <volume>/dir     ─▶ ..data/dir                         what the pod sees
//! ```
//!
//! Killed anywhere, the next write finds either the old link or the new one, and clears up the rest.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _, symlink};
use std::path::{Component, Path, PathBuf};

use crate::error::VolumeError;
use crate::payload::Payload;
use crate::trees;

const DATA: &str = "..data";
const DATA_NEXT: &str = "..data_tmp";
/// The longest path of a file in a volume, in bytes.
const PATH_BYTES_MAX: usize = 4096;
const NAME_BYTES_MAX: usize = 255;

/// Makes the volume's files these and no others. `stamp` names the new directory, and has to be another each time.
/// `finish` is given the new directory before anybody sees it. `false`: everything was like this already.
///
/// # Errors
/// Paths that lead out of the volume, and what the file system says. The old files stay then.
pub(crate) fn write(
    volume: &Path,
    payload: &Payload,
    stamp: &str,
    finish: impl FnOnce(&Path) -> Result<(), VolumeError>,
) -> Result<bool, VolumeError> {
    for path in payload.keys() {
        check(path)?;
    }
    let data = volume.join(DATA);
    let current = match fs::read_link(&data) {
        Ok(name) if is_stamped(&name) => Some(name),
        Ok(name) => return Err(VolumeError::Refused(format!("{} leads to {}", data.display(), name.display()))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(VolumeError::io("read link", &data)(error)),
    };
    let is_same = current.as_ref().is_some_and(|name| holds(&volume.join(name), payload));
    if is_same && links_are(volume, payload)? {
        clear(volume, current.as_deref())?;
        return Ok(false);
    }
    let name = PathBuf::from(format!("..{stamp}"));
    let fresh = volume.join(&name);
    make_directory(&fresh, 0o755)?;
    let outcome = fill(&fresh, payload).and_then(|()| finish(&fresh)).and_then(|()| swap(volume, &name));
    if let Err(error) = outcome {
        trees::delete(&fresh).ok();
        return Err(error);
    }
    link(volume, payload)?;
    clear(volume, Some(&name))?;
    Ok(true)
}

/// One plain relative path below the volume, whose first part can't be one of ours.
fn check(path: &str) -> Result<(), VolumeError> {
    let refuse = |why: &str| Err(VolumeError::Refused(format!("invalid path {path:?}: {why}")));
    if path.is_empty() || path.len() > PATH_BYTES_MAX {
        return refuse("must be 1 to 4096 bytes");
    }
    if path.starts_with("..") && !path.starts_with("../") && path != ".." {
        return refuse("must not start with '..'");
    }
    let is_plain = |part: Component<'_>| matches!(part, Component::Normal(name) if name.len() <= NAME_BYTES_MAX);
    if path.contains('\0') || !Path::new(path).components().all(is_plain) {
        return refuse("must be relative and must not contain '..'");
    }
    Ok(())
}

fn is_stamped(name: &Path) -> bool {
    let mut parts = name.components();
    let only = matches!((parts.next(), parts.next()), (Some(Component::Normal(_)), None));
    only && name.as_os_str().to_string_lossy().starts_with("..")
}

/// Whether a directory holds these files, with these bytes and modes, and no others. Whatever can't be read isn't the same.
fn holds(directory: &Path, payload: &Payload) -> bool {
    let mut found = BTreeSet::new();
    let mut waiting = vec![PathBuf::new()];
    while let Some(place) = waiting.pop() {
        let Ok(entries) = fs::read_dir(directory.join(&place)) else { return false };
        for entry in entries {
            let Ok(entry) = entry else { return false };
            let path = place.join(entry.file_name());
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => waiting.push(path),
                Ok(kind) if kind.is_file() => {
                    found.insert(path);
                }
                _ => return false,
            }
        }
    }
    let is_same = |(path, file): (&String, &crate::payload::FileContent)| {
        let whole = directory.join(path);
        // A group may have been given more since; what the object says is in it all the same.
        let has_mode =
            fs::symlink_metadata(&whole).is_ok_and(|found| found.permissions().mode() & file.mode == file.mode);
        has_mode && fs::read(&whole).is_ok_and(|bytes| bytes == file.data)
    };
    let wanted: BTreeSet<PathBuf> = payload.keys().map(PathBuf::from).collect();
    found == wanted && payload.iter().all(is_same)
}

/// The names that the pod sees at the top.
fn tops(payload: &Payload) -> BTreeSet<PathBuf> {
    payload
        .keys()
        .filter_map(|path| Path::new(path).components().next())
        .map(|part| PathBuf::from(part.as_os_str()))
        .collect()
}

fn links_are(volume: &Path, payload: &Payload) -> Result<bool, VolumeError> {
    let tops = tops(payload);
    let is_right = |top: &PathBuf| fs::read_link(volume.join(top)).is_ok_and(|to| to == Path::new(DATA).join(top));
    Ok(tops.iter().all(is_right) && visible(volume)?.into_iter().all(|name| tops.contains(&name)))
}

/// What lies in the volume and isn't ours.
fn visible(volume: &Path) -> Result<Vec<PathBuf>, VolumeError> {
    let names = names(volume)?;
    Ok(names.into_iter().filter(|name| !name.as_os_str().to_string_lossy().starts_with("..")).collect())
}

fn names(directory: &Path) -> Result<Vec<PathBuf>, VolumeError> {
    let entries = fs::read_dir(directory).map_err(VolumeError::io("list", directory))?;
    let names = entries.map(|entry| entry.map(|entry| PathBuf::from(entry.file_name())));
    names.collect::<Result<_, _>>().map_err(VolumeError::io("list", directory))
}

/// The mode is set after the fact: what a new directory gets depends on this process's umask.
fn make_directory(path: &Path, mode: u32) -> Result<(), VolumeError> {
    fs::create_dir(path).map_err(VolumeError::io("make directory", path))?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(VolumeError::io("set mode of", path))
}

fn fill(directory: &Path, payload: &Payload) -> Result<(), VolumeError> {
    for (path, file) in payload {
        let whole = directory.join(path);
        let mut parent = directory.to_owned();
        for part in Path::new(path).parent().into_iter().flat_map(Path::components) {
            parent.push(part);
            if !parent.is_dir() {
                make_directory(&parent, 0o755)?;
            }
        }
        // Private until its owner is set.
        let made = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&whole);
        let mut open = made.map_err(VolumeError::io("make file", &whole))?;
        open.write_all(&file.data).map_err(VolumeError::io("write", &whole))?;
        if let Some(owner) = file.owner {
            let owner = rustix::fs::Uid::from_raw(owner);
            rustix::fs::fchown(&open, Some(owner), None).map_err(VolumeError::errno("set owner of", &whole))?;
        }
        open.set_permissions(fs::Permissions::from_mode(file.mode)).map_err(VolumeError::io("set mode of", &whole))?;
    }
    Ok(())
}

/// The moment of the change: one rename.
fn swap(volume: &Path, name: &Path) -> Result<(), VolumeError> {
    let next = volume.join(DATA_NEXT);
    match fs::remove_file(&next) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(VolumeError::io("delete", &next)(error)),
    }
    symlink(name, &next).map_err(VolumeError::io("link", &next))?;
    fs::rename(&next, volume.join(DATA)).map_err(VolumeError::io("rename", &next))
}

fn link(volume: &Path, payload: &Payload) -> Result<(), VolumeError> {
    for top in tops(payload) {
        let (place, to) = (volume.join(&top), Path::new(DATA).join(&top));
        if fs::read_link(&place).is_ok_and(|found| found == to) {
            continue;
        }
        remove(&place)?;
        symlink(&to, &place).map_err(VolumeError::io("link", &place))?;
    }
    let tops = tops(payload);
    for stale in visible(volume)?.into_iter().filter(|name| !tops.contains(name)) {
        remove(&volume.join(stale))?;
    }
    Ok(())
}

fn remove(path: &Path) -> Result<(), VolumeError> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => trees::delete(path),
        Ok(_) => fs::remove_file(path).map_err(VolumeError::io("delete", path)),
        Err(_) => Ok(()),
    }
}

/// Deletes directories of earlier writes, and of those that were cut short.
fn clear(volume: &Path, current: Option<&Path>) -> Result<(), VolumeError> {
    for name in names(volume)? {
        let is_ours = name.as_os_str().to_string_lossy().starts_with("..");
        if is_ours && name != Path::new(DATA) && Some(name.as_path()) != current {
            remove(&volume.join(&name))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::payload::FileContent;
    use proptest::prelude::*;

    fn payload(files: &[(&str, &str, u32)]) -> Payload {
        let file = |data: &str, mode: u32| FileContent { data: data.as_bytes().to_vec(), mode, owner: None };
        files.iter().map(|(path, data, mode)| ((*path).to_owned(), file(data, *mode))).collect()
    }

    fn put(volume: &Path, files: &Payload, stamp: &str) -> bool {
        write(volume, files, stamp, |_| Ok(())).unwrap()
    }

    #[test]
    fn files_are_there_with_their_modes_and_change_only_when_they_must() {
        let home = tempfile::tempdir().unwrap();
        let volume = home.path();
        let first = payload(&[("a", "1", 0o644), ("d/e/f", "2", 0o400), ("d/g", "3", 0o640)]);
        assert!(put(volume, &first, "2026_1"));
        assert_eq!(fs::read_to_string(volume.join("d/e/f")).unwrap(), "2");
        assert_eq!(fs::metadata(volume.join("d/e/f")).unwrap().permissions().mode() & 0o777, 0o400);
        assert_eq!(fs::read_link(volume.join("d")).unwrap(), Path::new("..data/d"));
        assert_eq!(fs::read_link(volume.join("..data")).unwrap(), Path::new("..2026_1"));
        assert!(!put(volume, &first, "2026_2"));
        assert_eq!(fs::read_link(volume.join("..data")).unwrap(), Path::new("..2026_1"));
        assert!(put(volume, &payload(&[("a", "1", 0o644)]), "2026_3"));
        let mut left = names(volume).unwrap();
        left.sort();
        assert_eq!(left, [PathBuf::from("..2026_3"), PathBuf::from("..data"), PathBuf::from("a")]);
        assert!(put(volume, &Payload::new(), "2026_4"));
        assert!(visible(volume).unwrap().is_empty());
    }

    #[test]
    fn paths_that_lead_elsewhere_are_refused() {
        let home = tempfile::tempdir().unwrap();
        for path in ["", "/etc/x", "../x", "a/../../x", "..data", "..x", "a\0b", &"n".repeat(300)] {
            assert!(write(home.path(), &payload(&[(path, "", 0o644)]), "1", |_| Ok(())).is_err(), "{path:?}");
        }
        assert!(names(home.path()).unwrap().is_empty());
    }

    #[test]
    fn a_write_that_was_cut_short_is_cleared_and_a_failed_one_leaves_the_old_files() {
        let home = tempfile::tempdir().unwrap();
        let volume = home.path();
        put(volume, &payload(&[("a", "1", 0o644)]), "1");
        fs::create_dir(volume.join("..2")).unwrap();
        fs::write(volume.join("..2/half"), "x").unwrap();
        symlink("..2", volume.join("..data_tmp")).unwrap();
        let refused = |_: &Path| Err(VolumeError::refused("no"));
        assert!(write(volume, &payload(&[("a", "2", 0o644)]), "3", refused).is_err());
        assert_eq!(fs::read_to_string(volume.join("a")).unwrap(), "1");
        assert!(put(volume, &payload(&[("a", "2", 0o644)]), "4"));
        assert_eq!(fs::read_to_string(volume.join("a")).unwrap(), "2");
        assert_eq!(names(volume).unwrap().len(), 3);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        /// A reader who opens the directory behind `..data` sees files of one write only, while somebody writes.
        #[test]
        fn a_reader_never_sees_a_mix(sets in prop::collection::vec(prop::collection::btree_set("[a-d](/[a-d])?", 1..4), 2..6)) {
            let home = tempfile::tempdir().unwrap();
            let volume = home.path();
            let contents: Vec<Payload> = sets.iter().enumerate().map(|(turn, set)| {
                let apart = set.iter().filter(|path| !set.iter().any(|other| other.starts_with(&format!("{path}/"))));
                let text = turn.to_string();
                payload(&apart.map(|path| (path.as_str(), text.as_str(), 0o644)).collect::<Vec<_>>())
            }).collect();
            for (turn, content) in contents.iter().enumerate() {
                let before = fs::read_link(volume.join(DATA)).ok();
                write(volume, content, &turn.to_string(), |fresh| {
                    // The new directory is whole, and nobody is led to it yet.
                    assert!(holds(fresh, content));
                    assert_eq!(fs::read_link(volume.join(DATA)).ok(), before);
                    Ok(())
                }).unwrap();
                prop_assert!(holds(&volume.join(DATA), content));
                prop_assert!(links_are(volume, content).unwrap());
            }
        }
    }
}
