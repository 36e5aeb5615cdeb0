//! `config.json` of the ConfigMap: which directories of which nodes volumes are made in. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

use serde::Deserialize;
use thiserror::Error;

/// Stands for nodes that aren't listed.
pub(crate) const OTHERS: &str = "DEFAULT_PATH_FOR_NON_LISTED_NODES";

/// Why a configuration can't be used, or has no place for a volume. The texts are shown in Events.
#[derive(Debug, Error, PartialEq, Eq)]
pub(crate) enum ConfigError {
    #[error("no valid config available: {0}")]
    Syntax(String),
    #[error("duplicate node {0}")]
    DuplicateNode(String),
    #[error("path must start with / for path {path} on node {node}")]
    Relative { path: String, node: String },
    #[error("path {path} on node {node} must not contain '..'")]
    Upwards { path: String, node: String },
    #[error("cannot use root ('/') as path on node {0}")]
    Root(String),
    #[error("duplicate path {path} on node {node}")]
    DuplicatePath { path: String, node: String },
    #[error("both nodePathMap and sharedFileSystemPath are defined. Please make sure only one is in use")]
    Both,
    #[error("neither nodePathMap nor sharedFileSystemPath is defined")]
    Neither,
    #[error(
        "config has storageClassConfigs beside nodePathMap or sharedFileSystemPath. Please make sure only one is in use"
    )]
    Mixed,
    #[error("BUG: Got request for unexpected storage class {0}")]
    UnknownClass(String),
    #[error("config doesn't contain node {node}, and no DEFAULT_PATH_FOR_NON_LISTED_NODES available")]
    UnknownNode { node: String },
    #[error("no local path available on node {0}")]
    NoPath(String),
    #[error("config doesn't contain path {path} on node {node}")]
    UnknownPath { path: String, node: String },
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Raw {
    node_path_map: Vec<RawNode>,
    shared_file_system_path: String,
    storage_class_configs: BTreeMap<String, RawClass>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawClass {
    node_path_map: Vec<RawNode>,
    shared_file_system_path: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct RawNode {
    node: String,
    paths: Vec<String>,
}

/// Where the volumes of a class are made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Places {
    /// On each node in one of these directories.
    Nodes(BTreeMap<String, BTreeSet<PathBuf>>),
    /// In a directory that is the same on all nodes.
    Shared(PathBuf),
}

/// The whole configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Config {
    /// For all classes.
    One(Places),
    /// By class.
    Classes(BTreeMap<String, Places>),
}

/// A path without `.`, doubled and trailing slashes.
fn clean(path: &str, node: &str) -> Result<PathBuf, ConfigError> {
    let of = || (path.to_owned(), node.to_owned());
    if !path.starts_with('/') {
        let (path, node) = of();
        return Err(ConfigError::Relative { path, node });
    }
    if Path::new(path).components().any(|part| part == Component::ParentDir) {
        let (path, node) = of();
        return Err(ConfigError::Upwards { path, node });
    }
    let clean: PathBuf = Path::new(path).components().collect();
    if clean == Path::new("/") { Err(ConfigError::Root(node.to_owned())) } else { Ok(clean) }
}

fn places(nodes: Vec<RawNode>, shared: &str) -> Result<Places, ConfigError> {
    match (nodes.is_empty(), shared.is_empty()) {
        (false, false) => return Err(ConfigError::Both),
        (true, true) => return Err(ConfigError::Neither),
        (true, false) => return clean(shared, "").map(Places::Shared),
        (false, true) => {}
    }
    let mut all = BTreeMap::new();
    for RawNode { node, paths } in nodes {
        let mut found = BTreeSet::new();
        for path in paths {
            if !found.insert(clean(&path, &node)?) {
                return Err(ConfigError::DuplicatePath { path, node });
            }
        }
        if all.insert(node.clone(), found).is_some() {
            return Err(ConfigError::DuplicateNode(node));
        }
    }
    Ok(Places::Nodes(all))
}

impl Config {
    /// Reads `config.json`.
    ///
    /// # Errors
    /// It makes no sense.
    pub(crate) fn parse(text: &str) -> Result<Self, ConfigError> {
        let raw: Raw = serde_json::from_str(text).map_err(|error| ConfigError::Syntax(error.to_string()))?;
        if raw.storage_class_configs.is_empty() {
            return places(raw.node_path_map, &raw.shared_file_system_path).map(Self::One);
        }
        if !raw.node_path_map.is_empty() || !raw.shared_file_system_path.is_empty() {
            return Err(ConfigError::Mixed);
        }
        let classes = raw.storage_class_configs.into_iter();
        let classes =
            classes.map(|(name, class)| Ok((name, places(class.node_path_map, &class.shared_file_system_path)?)));
        classes.collect::<Result<_, _>>().map(Self::Classes)
    }

    /// Where the volumes of a class are made.
    ///
    /// # Errors
    /// The class isn't configured.
    pub(crate) fn of_class(&self, class: &str) -> Result<&Places, ConfigError> {
        match self {
            Self::One(places) => Ok(places),
            Self::Classes(classes) => classes.get(class).ok_or_else(|| ConfigError::UnknownClass(class.to_owned())),
        }
    }

    /// All directories that volumes of a node may be in.
    pub(crate) fn roots(&self, node: &str) -> BTreeSet<&Path> {
        let all: Vec<&Places> = match self {
            Self::One(places) => vec![places],
            Self::Classes(classes) => classes.values().collect(),
        };
        let mut roots = BTreeSet::new();
        for places in all {
            match places {
                Places::Shared(path) => _ = roots.insert(path.as_path()),
                Places::Nodes(nodes) => {
                    let of_node = nodes.get(node).or_else(|| nodes.get(OTHERS));
                    roots.extend(of_node.into_iter().flatten().map(PathBuf::as_path));
                }
            }
        }
        roots
    }
}

impl Places {
    /// Whether all nodes have the same.
    pub(crate) fn is_shared(&self) -> bool {
        matches!(self, Self::Shared(_))
    }

    /// The directory that a new volume of a node is made in. `wanted` names one, or is empty; `random` chooses.
    ///
    /// # Errors
    /// There is none, or not that one.
    pub(crate) fn choose(&self, node: &str, wanted: &str, random: u64) -> Result<&Path, ConfigError> {
        let paths = match self {
            Self::Shared(path) => return Ok(path),
            Self::Nodes(nodes) => {
                let missing = || ConfigError::UnknownNode { node: node.to_owned() };
                nodes.get(node).or_else(|| nodes.get(OTHERS)).ok_or_else(missing)?
            }
        };
        if !wanted.is_empty() {
            let missing = || ConfigError::UnknownPath { path: wanted.to_owned(), node: node.to_owned() };
            let wanted: PathBuf = Path::new(wanted).components().collect();
            return paths.get(&wanted).map(PathBuf::as_path).ok_or_else(missing);
        }
        let index = random.checked_rem(paths.len() as u64).and_then(|index| usize::try_from(index).ok());
        let chosen = index.and_then(|index| paths.iter().nth(index)).map(PathBuf::as_path);
        chosen.ok_or_else(|| ConfigError::NoPath(node.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const USUAL: &str = r#"{"nodePathMap":[
        {"node":"DEFAULT_PATH_FOR_NON_LISTED_NODES","paths":["/opt/a/"]},
        {"node":"b","paths":["/mnt/x","/mnt/y"]}, {"node":"c","paths":[]}], "cmdTimeoutSeconds": 30}"#;

    #[test]
    fn a_node_has_its_own_directories_or_those_of_the_others() {
        let config = Config::parse(USUAL).expect("it makes sense");
        let places = config.of_class("any").expect("there is one for all");
        let choose = |node, wanted, random| places.choose(node, wanted, random).map(|path| path.display().to_string());
        assert_eq!(choose("a", "", 7), Ok("/opt/a".to_owned()));
        assert_eq!((choose("b", "", 0), choose("b", "", 3)), (Ok("/mnt/x".to_owned()), Ok("/mnt/y".to_owned())));
        assert_eq!(choose("b", "/mnt/y/", 0), Ok("/mnt/y".to_owned()));
        let told = |found: Result<String, ConfigError>| found.expect_err("there is none").to_string();
        assert_eq!(told(choose("b", "/mnt/z", 0)), "config doesn't contain path /mnt/z on node b");
        assert_eq!(told(choose("c", "", 0)), "no local path available on node c");
        let roots: Vec<_> = config.roots("b").into_iter().collect();
        assert_eq!(roots, [Path::new("/mnt/x"), Path::new("/mnt/y")]);
        let alone = Config::parse(r#"{"nodePathMap":[{"node":"b","paths":["/b"]}]}"#).expect("it makes sense");
        let missing = alone.of_class("x").expect("one").choose("a", "", 0).expect_err("not for others").to_string();
        assert_eq!(missing, "config doesn't contain node a, and no DEFAULT_PATH_FOR_NON_LISTED_NODES available");
        assert!(alone.roots("a").is_empty());
    }

    #[test]
    fn classes_and_shared_file_systems_exclude_others() {
        let classes = r#"{"storageClassConfigs":{"fast":{"nodePathMap":[{"node":"a","paths":["/fast"]}]},
            "nfs":{"sharedFileSystemPath":"/nfs"}}}"#;
        let config = Config::parse(classes).expect("it makes sense");
        assert!(config.of_class("nfs").expect("known").is_shared());
        assert_eq!(config.of_class("nfs").expect("known").choose("z", "", 1), Ok(Path::new("/nfs")));
        assert!(config.of_class("other").is_err());
        assert_eq!(config.roots("a").len(), 2);
        for (text, error) in [
            ("", "no valid config available: EOF while parsing a value at line 1 column 0"),
            ("{}", "neither nodePathMap nor sharedFileSystemPath is defined"),
            (r#"{"nodePathMap":[{"node":"a","paths":["x"]}]}"#, "path must start with / for path x on node a"),
            (r#"{"nodePathMap":[{"node":"a","paths":["//"]}]}"#, "cannot use root ('/') as path on node a"),
            (r#"{"nodePathMap":[{"node":"a","paths":["/a/../.."]}]}"#, "path /a/../.. on node a must not contain '..'"),
            (r#"{"nodePathMap":[{"node":"a","paths":["/a","/a/"]}]}"#, "duplicate path /a/ on node a"),
            (r#"{"nodePathMap":[{"node":"a"},{"node":"a"}]}"#, "duplicate node a"),
            (
                r#"{"nodePathMap":[{"node":"a"}],"sharedFileSystemPath":"/s"}"#,
                "both nodePathMap and sharedFileSystemPath are defined. Please make sure only one is in use",
            ),
        ] {
            assert_eq!(Config::parse(text).expect_err(text).to_string(), error);
        }
        let mixed = r#"{"storageClassConfigs":{"x":{"sharedFileSystemPath":"/s"}},"sharedFileSystemPath":"/s"}"#;
        assert_eq!(Config::parse(mixed), Err(ConfigError::Mixed));
    }
}
