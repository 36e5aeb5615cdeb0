//! The names under which the binary is found as a CNI plugin.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::Path;

use crate::error::NetworkError;
use crate::plugin::PLUGINS;

/// Makes `dir` hold a symbolic link to `binary` for each plugin, and for `cni`. Links that are right are left alone, others
/// are replaced at one moment: a runtime that looks meanwhile finds the old one or the new one.
///
/// # Errors
/// The directory can't be written.
pub fn install(dir: &Path, binary: &Path) -> Result<(), NetworkError> {
    let failed = |source| NetworkError::File { what: "install plugins in", path: dir.to_owned(), source };
    fs::create_dir_all(dir).map_err(failed)?;
    for name in PLUGINS.iter().chain(&["cni"]) {
        let path = dir.join(name);
        if fs::read_link(&path).is_ok_and(|target| target == binary) {
            continue;
        }
        let new = dir.join(format!(".{name}.new"));
        match fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        symlink(binary, &new).and_then(|()| fs::rename(&new, &path)).map_err(failed)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_made_kept_and_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("cni");
        let target = |name: &str| fs::read_link(place.join(name)).unwrap();
        install(&place, Path::new("/bin/one")).unwrap();
        assert_eq!(target("bridge"), Path::new("/bin/one"));
        fs::remove_file(place.join("portmap")).unwrap();
        fs::write(place.join("portmap"), "somebody's file").unwrap();
        install(&place, Path::new("/bin/one")).unwrap();
        assert_eq!(target("portmap"), Path::new("/bin/one"));
        install(&place, Path::new("/bin/two")).unwrap();
        install(&place, Path::new("/bin/two")).unwrap();
        for name in PLUGINS {
            assert_eq!(target(name), Path::new("/bin/two"));
        }
        assert_eq!(fs::read_dir(&place).unwrap().count(), PLUGINS.len() + 1, "nothing is left beside them");
    }
}
