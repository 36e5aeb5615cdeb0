//! Places of the host: looked at, and made where the pod asks for it.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use crate::error::VolumeError;

/// Checks that a path of the host is what the pod says it is, and makes it where the pod says so. Links are followed: the
/// path is the host's, and who may name one is the API server's business.
pub(crate) fn check(path: &Path, kind: &str) -> Result<PathBuf, VolumeError> {
    let shown = path.display();
    if !path.is_absolute() || path.components().any(|part| part == std::path::Component::ParentDir) {
        return Err(VolumeError::Refused(format!("hostPath {shown} must be absolute and must not contain '..'")));
    }
    let found = match fs::metadata(path) {
        Ok(found) => Some(found.file_type()),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => None,
        Err(error) => return Err(VolumeError::io("look at", path)(error)),
    };
    let is = |test: fn(&fs::FileType) -> bool| found.as_ref().is_some_and(test);
    let (fits, wanted) = match kind {
        "" => (true, ""),
        "DirectoryOrCreate" if found.is_none() => return make_directory(path),
        "FileOrCreate" if found.is_none() => return make_file(path),
        "DirectoryOrCreate" | "Directory" => (is(fs::FileType::is_dir), "a directory"),
        "FileOrCreate" | "File" => (is(fs::FileType::is_file), "a file"),
        "Socket" => (is(fs::FileType::is_socket), "a socket file"),
        "CharDevice" => (is(fs::FileType::is_char_device), "a character device"),
        "BlockDevice" => (is(fs::FileType::is_block_device), "a block device"),
        other => {
            return Err(VolumeError::Refused(format!(
                "hostPath type check failed: {other:?} is an invalid volume type"
            )));
        }
    };
    if fits {
        return Ok(path.to_owned());
    }
    Err(VolumeError::Refused(format!("hostPath type check failed: {shown} is not {wanted}")))
}

fn make_directory(path: &Path) -> Result<PathBuf, VolumeError> {
    let made = fs::DirBuilder::new().recursive(true).mode(0o755).create(path);
    made.map(|()| path.to_owned()).map_err(VolumeError::io("make directory", path))
}

/// Its directory has to be there already.
fn make_file(path: &Path) -> Result<PathBuf, VolumeError> {
    let made = fs::OpenOptions::new().write(true).create(true).truncate(false).mode(0o644).open(path);
    made.map(|_| path.to_owned()).map_err(VolumeError::io("make file", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_is_checked_and_two_are_made() {
        let home = tempfile::tempdir().unwrap();
        let at = |name: &str| home.path().join(name);
        fs::create_dir(at("dir")).unwrap();
        fs::write(at("file"), "").unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
        for (path, kind, complaint) in [
            (at("nothing"), "", None),
            (at("dir"), "Directory", None),
            (at("file"), "Directory", Some("is not a directory")),
            (at("nothing"), "Directory", Some("is not a directory")),
            (at("new/deep"), "DirectoryOrCreate", None),
            (at("new/deep"), "Directory", None),
            (at("file"), "DirectoryOrCreate", Some("is not a directory")),
            (at("file"), "File", None),
            (at("dir"), "File", Some("is not a file")),
            (at("made"), "FileOrCreate", None),
            (at("made"), "File", None),
            (at("dir"), "FileOrCreate", Some("is not a file")),
            (at("socket"), "Socket", None),
            (at("file"), "Socket", Some("is not a socket file")),
            (PathBuf::from("/dev/null"), "CharDevice", None),
            (at("file"), "CharDevice", Some("is not a character device")),
            (PathBuf::from("/dev/null"), "BlockDevice", Some("is not a block device")),
            (at("file"), "Folder", Some("invalid volume type")),
            (PathBuf::from("relative"), "", Some("must be absolute")),
            (at("../x"), "", Some("must be absolute")),
        ] {
            match (check(&path, kind), complaint) {
                (Ok(found), None) => assert_eq!(found, path),
                (Err(error), Some(complaint)) => assert!(error.to_string().contains(complaint), "{error}"),
                (outcome, _) => panic!("{} as {kind:?}: {outcome:?}", path.display()),
            }
        }
    }
}
