//! What a pod's containers were granted and what they have, kept in a file: neither the object nor the runtime tells it
//! when this process starts again.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::files::directory;
use crate::resize::ByContainer;

/// Bytes of a record; one of a pod with a hundred containers has a tenth of that.
const RECORD_BYTES_MAX: u64 = 1 << 20;

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// What the node has granted.
    pub(crate) granted: ByContainer,
    /// What containers were made with, or got since.
    pub(crate) actual: ByContainer,
}

pub(super) fn path(root: &Path, uid: &str) -> PathBuf {
    directory(root, uid).join("resources")
}

/// Reads what an earlier life of this process has kept; nothing if it kept nothing, or nothing that can be read.
pub(crate) fn load(root: &Path, uid: &str) -> Option<Record> {
    let path = path(root, uid);
    if fs::metadata(&path).ok()?.len() > RECORD_BYTES_MAX {
        return None;
    }
    let read = serde_json::from_slice(&fs::read(&path).ok()?);
    read.inspect_err(|error| tracing::warn!(path = %path.display(), %error, "a pod's record can't be read")).ok()
}

/// Keeps it, as a whole or not at all. The pod's directory has to be there.
pub(super) fn store(root: &Path, uid: &str, record: &Record) -> io::Result<()> {
    let path = path(root, uid);
    let beside = path.with_extension("new");
    fs::write(&beside, serde_json::to_vec(record)?)?;
    fs::rename(beside, path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resize::asked;
    use crate::testing::pod;

    #[test]
    fn records_survive() {
        let place = tempfile::tempdir().unwrap();
        assert_eq!(load(place.path(), "u"), None);
        fs::create_dir_all(directory(place.path(), "u")).unwrap();
        let pod = pod("{spec: {containers: [{name: c, resources: {limits: {cpu: 100m}}}]}}");
        let record = Record { granted: asked(&pod), actual: asked(&pod) };
        store(place.path(), "u", &record).unwrap();
        assert_eq!(load(place.path(), "u"), Some(record));
        fs::write(path(place.path(), "u"), "{").unwrap();
        assert_eq!(load(place.path(), "u"), None);
    }
}
