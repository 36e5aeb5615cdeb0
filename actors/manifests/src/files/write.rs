//! Writes the packaged files.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

use super::names::is_listed;
use crate::config::ManifestsConfig;

/// Manifests may hold passwords.
const DIRECTORY_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;

/// Makes the directory, and writes into it each packaged file that isn't disabled or skipped and says something else than
/// it should. Returns the paths of what was written.
///
/// # Errors
/// A file can't be written; those before it are.
pub(crate) fn write_packaged(config: &ManifestsConfig) -> io::Result<Vec<String>> {
    make(&config.dir)?;
    let left: BTreeSet<String> = config.disabled.union(&config.skips).cloned().collect();
    let mut written = Vec::new();
    for file in config.packaged.iter().filter(|file| !is_listed(&file.path, &left)) {
        let (path, text) = (config.dir.join(&file.path), config.variables.replace(&file.text));
        if fs::read(&path).is_ok_and(|known| known == text.as_bytes()) {
            continue;
        }
        path.parent().map_or(Ok(()), make)?;
        replace(&path, text.as_bytes())?;
        written.push(file.path.clone());
    }
    Ok(written)
}

fn make(dir: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(dir)
}

/// Nobody ever sees half of a file.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let new = path.with_file_name(format!(".{name}.new"));
    match fs::remove_file(&new) {
        // Left by a life that was cut short.
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(FILE_MODE).open(&new)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&new, path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::config::{Packaged, Variables};

    #[test]
    fn packaged_files_are_written_when_they_differ() {
        let place = tempfile::tempdir().unwrap();
        let dir = place.path().join("server/manifests");
        let file = |path: &str| Packaged { path: path.to_owned(), text: format!("# {path}\n") };
        let mut config = ManifestsConfig {
            dir: dir.clone(),
            packaged: vec![file("a.yaml"), file("m/b.yaml"), file("off.yaml"), file("not.yaml"), file("dir/c.yaml")],
            variables: Variables::default(),
            disabled: BTreeSet::from(["off".to_owned(), "dir".to_owned()]),
            skips: BTreeSet::from(["not".to_owned()]),
            node_name: String::new(),
            helm: None,
        };
        assert_eq!(write_packaged(&config).unwrap(), ["a.yaml", "m/b.yaml"]);
        assert_eq!(fs::metadata(dir.join("m/b.yaml")).unwrap().permissions().mode() & 0o777, FILE_MODE);
        assert_eq!(fs::metadata(dir.join("m")).unwrap().permissions().mode() & 0o777, DIRECTORY_MODE);
        assert!(write_packaged(&config).unwrap().is_empty());
        fs::write(dir.join("a.yaml"), "edited").unwrap();
        fs::write(dir.join(".a.yaml.new"), "left over").unwrap();
        assert_eq!(write_packaged(&config).unwrap(), ["a.yaml"]);
        assert_eq!(fs::read_to_string(dir.join("a.yaml")).unwrap(), "# a.yaml\n");
        config.disabled.clear();
        assert_eq!(write_packaged(&config).unwrap(), ["off.yaml", "dir/c.yaml"]);
    }
}
