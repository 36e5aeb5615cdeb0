//! Merging the config file with its drop-ins, by K3s's rules.
//!
//! A later file replaces a key of an earlier one; a key written with `+` at its end adds to what is there, turning a
//! single value into a list. A key keeps the place where it first appeared, which decides between two spellings of one
//! flag (`d` and `data-dir`).

use std::path::Path;
use std::sync::Arc;

use crate::config::yaml::{Entry, Node};

/// A config file that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ConfigFile {
    /// Where it is, as it is shown.
    pub(crate) path: Arc<Path>,
    pub(crate) entries: Vec<Entry>,
}

/// A key after all files had their say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MergedKey {
    /// Without the `+`.
    pub(crate) key: String,
    /// The file that holds the key's first appearance.
    pub(crate) path: Arc<Path>,
    /// The line of that appearance.
    pub(crate) line: u64,
    /// The values in order; a list counts as several. Empty when the key was set to an empty list.
    pub(crate) values: Vec<FileValue>,
}

/// One value and the place it was read from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FileValue {
    pub(crate) path: Arc<Path>,
    pub(crate) line: u64,
    /// The key as written, a `+` included.
    pub(crate) key: Arc<str>,
    /// Never a list, unless one was written inside a list.
    pub(crate) node: Node,
}

/// Merges the files, earlier ones first.
pub(crate) fn merge(files: &[ConfigFile]) -> Vec<MergedKey> {
    let mut merged: Vec<MergedKey> = Vec::new();
    for file in files {
        for entry in &file.entries {
            let (key, append) = match entry.key.strip_suffix('+') {
                Some(key) => (key, true),
                None => (entry.key.as_str(), false),
            };
            let values = values(&file.path, entry);
            match merged.iter_mut().find(|merged| merged.key == key) {
                Some(existing) if append => existing.values.extend(values),
                Some(existing) => existing.values = values,
                None => {
                    let (path, line) = (file.path.clone(), entry.line);
                    merged.push(MergedKey { key: key.to_owned(), path, line, values });
                }
            }
        }
    }
    merged
}

fn values(path: &Arc<Path>, entry: &Entry) -> Vec<FileValue> {
    let key: Arc<str> = entry.key.as_str().into();
    let value = |line, node| FileValue { path: path.clone(), line, key: key.clone(), node };
    match &entry.value {
        Node::List(items) => items.iter().map(|(line, node)| value(*line, node.clone())).collect(),
        node => vec![value(entry.line, node.clone())],
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::yaml;

    fn files(texts: &[&str]) -> Vec<ConfigFile> {
        let file = |(index, text): (usize, &&str)| ConfigFile {
            path: Path::new(&format!("/{index}.yaml")).into(),
            entries: yaml::parse(text).unwrap(),
        };
        texts.iter().enumerate().map(file).collect()
    }

    /// `key=value,value` for each key; a value is `text@file:line`.
    fn show(merged: &[MergedKey]) -> Vec<String> {
        let value = |value: &FileValue| {
            let text = match &value.node {
                Node::Scalar(scalar) => scalar.text.clone(),
                other => format!("{other:?}"),
            };
            format!("{text}@{}:{}", value.path.display(), value.line)
        };
        let key = |merged: &MergedKey| {
            format!("{}={}", merged.key, merged.values.iter().map(value).collect::<Vec<_>>().join(","))
        };
        merged.iter().map(key).collect()
    }

    #[test]
    fn rules() {
        let rows: [(&[&str], &[&str]); 10] = [
            (&[], &[]),
            (&["a: 1\nb: 2"], &["a=1@/0.yaml:1", "b=2@/0.yaml:2"]),
            // The last file wins, the place is where the key was first seen.
            (&["a: 1\nb: 2", "c: 3\na: 9"], &["a=9@/1.yaml:2", "b=2@/0.yaml:2", "c=3@/1.yaml:1"]),
            // Lists are replaced whole, too.
            (&["a: [1, 2]", "a: [3]"], &["a=3@/1.yaml:1"]),
            (&["a: [1, 2]", "a: 3"], &["a=3@/1.yaml:1"]),
            // `+` adds, from scalars and lists alike.
            (&["a: [1]", "a+: [2]", "a+: 3"], &["a=1@/0.yaml:1,2@/1.yaml:1,3@/2.yaml:1"]),
            (&["a: 1", "a+:\n- 2"], &["a=1@/0.yaml:1,2@/1.yaml:2"]),
            // Adding to nothing sets.
            (&["a+: 1"], &["a=1@/0.yaml:1"]),
            // Replacing after adding drops all that was added.
            (&["a: 1", "a+: 2", "a: 3", "a+: 4"], &["a=3@/2.yaml:1,4@/3.yaml:1"]),
            // Two spellings of one flag are two keys.
            (&["d: /x\ndata-dir: /y", "d: /z"], &["d=/z@/1.yaml:1", "data-dir=/y@/0.yaml:2"]),
        ];
        for (texts, expected) in rows {
            assert_eq!(show(&merge(&files(texts))), expected, "{texts:?}");
        }
    }

    /// Files of few keys, so that they often meet.
    fn any_files() -> impl Strategy<Value = Vec<ConfigFile>> {
        let values = prop::collection::vec(0..100_u32, 0..4);
        let entry = ("[a-c]", any::<bool>(), values);
        prop::collection::vec(prop::collection::vec(entry, 0..5), 0..6).prop_map(|files| {
            let entry = |(line, (key, append, values)): (usize, (String, bool, Vec<u32>))| {
                let scalar = |value: u32| yaml::Scalar { text: value.to_string(), boolean: None };
                let item = |value| (line as u64, Node::Scalar(scalar(value)));
                Entry {
                    key: if append { format!("{key}+") } else { key },
                    line: line as u64,
                    value: Node::List(values.into_iter().map(item).collect()),
                }
            };
            let file = |(index, entries): (usize, Vec<_>)| ConfigFile {
                path: Path::new(&format!("/{index}.yaml")).into(),
                entries: entries.into_iter().enumerate().map(entry).collect(),
            };
            files.into_iter().enumerate().map(file).collect()
        })
    }

    /// What a key holds, worked out backwards: everything from its last plain occurrence on.
    fn expected(files: &[ConfigFile], key: &str) -> Option<Vec<String>> {
        let all: Vec<&Entry> = files
            .iter()
            .flat_map(|file| &file.entries)
            .filter(|entry| entry.key.trim_end_matches('+') == key)
            .collect();
        let start = all.iter().rposition(|entry| !entry.key.ends_with('+')).unwrap_or(0);
        let texts = |entry: &&Entry| match &entry.value {
            Node::List(items) => items.iter().map(|(_, node)| format!("{node:?}")).collect::<Vec<_>>(),
            other => vec![format!("{other:?}")],
        };
        (!all.is_empty()).then(|| all[start..].iter().flat_map(texts).collect())
    }

    proptest! {
        #[test]
        fn values_are_those_since_the_last_replacement(files in any_files()) {
            let merged = merge(&files);
            for key in ["a", "b", "c"] {
                let found = merged.iter().find(|merged| merged.key == key).map(|merged| {
                    merged.values.iter().map(|value| format!("{:?}", value.node)).collect::<Vec<_>>()
                });
                prop_assert_eq!(found, expected(&files, key));
            }
        }

        #[test]
        fn keys_are_unique_and_stay_where_first_seen(files in any_files(), split in 0..6_usize) {
            let keys = |files: &[ConfigFile]| merge(files).into_iter().map(|merged| merged.key).collect::<Vec<_>>();
            let all = keys(&files);
            let some = keys(&files[..split.min(files.len())]);
            prop_assert_eq!(&all[..some.len()], &some[..]);
            let unique: std::collections::BTreeSet<_> = all.iter().collect();
            prop_assert_eq!(unique.len(), all.len());
        }
    }
}
