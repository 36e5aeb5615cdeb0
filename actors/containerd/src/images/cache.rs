//! `.cache.json`: which files were imported as they are, if the user wants that remembered by making the file.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::core::Stamp;

/// Its name in the images directory.
const NAME: &str = ".cache.json";

/// What is remembered of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Entry {
    pub size: u64,
    pub mod_time: String,
    #[serde(default)]
    pub images: Vec<String>,
}

impl Entry {
    pub(crate) fn new(stamp: Stamp, images: Vec<String>) -> Self {
        Self { size: stamp.size, mod_time: time(stamp), images }
    }

    /// Whether the file is still the same.
    pub(crate) fn is(&self, stamp: Stamp) -> bool {
        self.size == stamp.size && self.mod_time == time(stamp)
    }
}

fn time(stamp: Stamp) -> String {
    let nanos = i128::try_from(stamp.modified.as_nanos()).unwrap_or(i128::MAX);
    Timestamp::from_nanosecond(nanos).unwrap_or_default().to_string()
}

/// What is remembered; `None` when the user doesn't want that. A damaged file remembers nothing.
pub(crate) fn read(dir: &Path) -> Option<BTreeMap<PathBuf, Entry>> {
    let text = fs::read_to_string(dir.join(NAME)).ok()?;
    Some(serde_json::from_str(&text).unwrap_or_default())
}

/// Remembers a file, if the user wants that.
pub(crate) fn remember(dir: &Path, path: &Path, entry: Entry) {
    let Some(mut all) = read(dir) else { return };
    all.retain(|path, _| path.exists());
    all.insert(path.to_owned(), entry);
    let half = dir.join(format!("{NAME}.partial"));
    let text = serde_json::to_string(&all).unwrap_or_default();
    if let Err(error) = fs::write(&half, text).and_then(|()| fs::rename(&half, dir.join(NAME))) {
        tracing::warn!(%error, "what was imported can't be remembered");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn files_are_only_remembered_for_those_who_ask() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a.tar");
        fs::write(&file, "").unwrap();
        let stamp = Stamp { size: 3, modified: Duration::new(1_700_000_000, 5) };
        remember(dir.path(), &file, Entry::new(stamp, vec!["a".to_owned()]));
        assert_eq!(read(dir.path()), None);
        fs::write(dir.path().join(NAME), "").unwrap();
        remember(dir.path(), &file, Entry::new(stamp, vec!["a".to_owned()]));
        let entry = &read(dir.path()).unwrap()[&file];
        assert!(entry.is(stamp) && !entry.is(Stamp { size: 4, ..stamp }));
        assert!(!entry.is(Stamp { modified: Duration::from_secs(1), ..stamp }));
    }
}
