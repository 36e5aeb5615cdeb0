//! User namespaces: which ids of the host a pod's users are, so that root inside is nobody outside.
//!
//! Each pod has a range of 65,536 ids for itself. Ranges are written to the pods' directories, and known from there again.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use k3sd_cri::v1;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::translate::security::IdRange;

/// Ids of one pod.
const LENGTH: u32 = 65_536;
/// Bytes of a pod's file.
const FILE_BYTES_MAX: u64 = 4096;

/// The mappings of a pod, as its file has them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Mappings {
    uid_mappings: Vec<Mapping>,
    gid_mappings: Vec<Mapping>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Mapping {
    host_id: u32,
    container_id: u32,
    length: u32,
}

/// Who has which range, by the pod's uid: the number of the range, counted from 1, as ids below the first range are the
/// host's own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Ranges(BTreeMap<String, u32>);

impl Ranges {
    /// The pod's range, or the first free one.
    fn take(&mut self, uid: &str, ranges_max: u32) -> Result<u32, String> {
        if let Some(known) = self.0.get(uid) {
            return Ok(*known);
        }
        let taken: BTreeSet<u32> = self.0.values().copied().collect();
        let free = (1..=ranges_max).find(|number| !taken.contains(number));
        let free = free.ok_or("could not find an empty slot to allocate a user namespace")?;
        self.0.insert(uid.to_owned(), free);
        Ok(free)
    }
}

/// The ranges of a node.
#[derive(Debug)]
pub(crate) struct Users {
    root: PathBuf,
    ranges_max: u32,
    ranges: watch::Sender<Ranges>,
}

fn file(root: &Path, uid: &str) -> PathBuf {
    root.join("pods").join(uid).join("userns")
}

/// The number of the range in a pod's file.
fn read(root: &Path, uid: &str) -> Option<u32> {
    let path = file(root, uid);
    if fs::metadata(&path).ok()?.len() > FILE_BYTES_MAX {
        return None;
    }
    let read = serde_json::from_slice::<Mappings>(&fs::read(&path).ok()?);
    let found = read.inspect_err(|error| tracing::warn!(path = %path.display(), %error, "a pod's ids can't be read"));
    let found = found.ok()?;
    let [mapping] = found.uid_mappings.as_slice() else { return None };
    let is_ours = found.gid_mappings == found.uid_mappings
        && (mapping.container_id, mapping.length) == (0, LENGTH)
        && mapping.host_id >= LENGTH
        && mapping.host_id.is_multiple_of(LENGTH);
    is_ours.then_some(mapping.host_id / LENGTH)
}

impl Users {
    /// Knows the ranges of all pods that have a directory below the kubelet's.
    pub(crate) fn new(root: &Path, pods_max: usize) -> Self {
        let mut ranges = Ranges::default();
        for entry in fs::read_dir(root.join("pods")).into_iter().flatten().flatten() {
            let Some(uid) = entry.file_name().to_str().map(str::to_owned) else { continue };
            ranges.0.extend(read(root, &uid).map(|number| (uid, number)));
        }
        // There are as many ranges as pods, as far as there are ids.
        let ranges_max = u32::try_from(pods_max).unwrap_or(u32::MAX).clamp(1, u32::MAX / LENGTH - 1);
        Self { root: root.to_owned(), ranges_max, ranges: watch::channel(ranges).0 }
    }

    /// The pod's range, which it keeps until it is given back. Its directory has to be there.
    pub(crate) fn take(&self, uid: &str) -> Result<IdRange, String> {
        let mut taken = Err(String::new());
        self.ranges.send_if_modified(|ranges| {
            taken = ranges.take(uid, self.ranges_max);
            false
        });
        let host = taken? * LENGTH;
        let one = vec![Mapping { host_id: host, container_id: 0, length: LENGTH }];
        let mappings = Mappings { uid_mappings: one.clone(), gid_mappings: one };
        let path = file(&self.root, uid);
        if read(&self.root, uid).is_none() {
            let beside = path.with_extension("new");
            let text = serde_json::to_vec(&mappings).map_err(|error| error.to_string())?;
            let written = fs::write(&beside, text).and_then(|()| fs::rename(beside, path));
            written.map_err(|error| format!("create user namespace: {error}"))?;
        }
        Ok(IdRange { host, length: LENGTH })
    }

    /// The range of a pod that has one.
    pub(crate) fn of(&self, uid: &str) -> Option<IdRange> {
        self.ranges.borrow().0.get(uid).map(|number| IdRange { host: number * LENGTH, length: LENGTH })
    }

    /// Gives the pod's range back; harmless to repeat.
    pub(crate) fn give_back(&self, uid: &str) {
        match fs::remove_file(file(&self.root, uid)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                tracing::warn!(uid, %error, "a pod's ids can't be given back");
            }
            _ => {
                self.ranges.send_if_modified(|ranges| ranges.0.remove(uid).is_some());
            }
        }
    }
}

/// Whether a handler of the runtime can do it; one of an older runtime doesn't say so, and can't as Kubernetes needs it.
pub(crate) fn is_supported(status: &v1::StatusResponse, handler: &str) -> bool {
    let found = status.runtime_handlers.iter().find(|one| one.name == handler);
    found.and_then(|one| one.features.as_ref()).is_some_and(|features| features.user_namespaces)
}

/// What is said when it can't.
pub(crate) fn unsupported(handler: &str) -> String {
    match handler {
        "" => "can't set `spec.hostUsers: false`, runtime does not support user namespaces".to_owned(),
        name => {
            format!("can't set `spec.hostUsers: false`, RuntimeClass handler {name:?} does not support user namespaces")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_kept_and_given_back() {
        let place = tempfile::tempdir().unwrap();
        for uid in ["a", "b", "c"] {
            fs::create_dir_all(place.path().join("pods").join(uid)).unwrap();
        }
        let users = Users::new(place.path(), 2);
        assert_eq!(users.take("a"), Ok(IdRange { host: 65_536, length: 65_536 }));
        assert_eq!(users.take("b").unwrap().host, 131_072);
        assert_eq!(users.take("a").unwrap().host, 65_536, "it stays");
        assert!(users.take("c").unwrap_err().contains("empty slot"));

        let again = Users::new(place.path(), 2);
        assert_eq!(again.of("b").unwrap().host, 131_072, "the next life knows");
        again.give_back("a");
        again.give_back("a");
        assert_eq!(again.of("a"), None);
        assert_eq!(again.take("c").unwrap().host, 65_536);

        fs::write(file(place.path(), "b"), r#"{"uidMappings": [], "gidMappings": []}"#).unwrap();
        assert_eq!(Users::new(place.path(), 2).of("b"), None);
    }

    #[test]
    fn runtimes_say_whether_they_can() {
        let handler = |name: &str, user_namespaces| v1::RuntimeHandler {
            name: name.to_owned(),
            features: Some(v1::RuntimeHandlerFeatures { user_namespaces, ..Default::default() }),
        };
        let status = v1::StatusResponse {
            runtime_handlers: vec![handler("", true), handler("old", false)],
            ..Default::default()
        };
        for (name, expected) in [("", true), ("old", false), ("none", false)] {
            assert_eq!(is_supported(&status, name), expected, "{name}");
        }
        assert!(!is_supported(&v1::StatusResponse::default(), ""));
    }
}
