//! The part of `cargo metadata` that the rules look at.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use crate::repository::repository_root;

/// What cargo prints.
#[derive(Debug, Deserialize)]
pub(crate) struct Metadata {
    packages: Vec<Package>,
    workspace_members: BTreeSet<String>,
    resolve: Resolve,
}

/// A package, of ours or not.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Package {
    pub id: String,
    pub name: String,
    pub version: String,
    pub license: Option<String>,
    /// Absent from cargo's answer for the direct users; filled in by [`Metadata::packages_in_use`].
    #[serde(skip)]
    pub used_by: Vec<String>,
    manifest_path: String,
    dependencies: Vec<Declared>,
}

/// A dependency as a manifest declares it, of any kind (normal, build, dev).
#[derive(Clone, Debug, Deserialize)]
struct Declared {
    name: String,
}

#[derive(Debug, Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
}

#[derive(Debug, Deserialize)]
struct Node {
    id: String,
    dependencies: Vec<String>,
}

/// `from` names `to` in its manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Edge {
    pub from: String,
    pub to: String,
}

/// A crate of the workspace and the folder it lives in, relative to the root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Member {
    pub name: String,
    pub folder: String,
}

impl Metadata {
    fn member_packages(&self) -> impl Iterator<Item = &Package> {
        self.packages.iter().filter(|package| self.workspace_members.contains(&package.id))
    }

    /// The crates of the workspace.
    pub(crate) fn members(&self) -> Vec<Member> {
        let root = repository_root();
        let member = |package: &Package| {
            let manifest = std::path::Path::new(&package.manifest_path);
            let folder = manifest.parent().and_then(|folder| folder.strip_prefix(&root).ok());
            let folder = folder.expect("members live below the root").to_string_lossy().into_owned();
            Member { name: package.name.clone(), folder }
        };
        self.member_packages().map(member).collect()
    }

    /// What our crates declare, dependencies for tests and build scripts included.
    pub(crate) fn workspace_edges(&self) -> Vec<Edge> {
        let edges = |package: &Package| {
            let from = package.name.clone();
            package
                .dependencies
                .iter()
                .map(move |to| Edge { from: from.clone(), to: to.name.clone() })
                .collect::<Vec<_>>()
        };
        self.member_packages().flat_map(edges).collect()
    }

    /// The packages of others that this platform builds, with the names of those that use them directly.
    pub(crate) fn packages_in_use(&self) -> Vec<Package> {
        let by_id: BTreeMap<&str, &Package> =
            self.packages.iter().map(|package| (package.id.as_str(), package)).collect();
        let mut used_by: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for node in &self.resolve.nodes {
            for dependency in &node.dependencies {
                used_by.entry(dependency).or_default().push(by_id[node.id.as_str()].name.clone());
            }
        }
        let others = self.resolve.nodes.iter().filter(|node| !self.workspace_members.contains(&node.id));
        others
            .map(|node| {
                let used_by = used_by.remove(node.id.as_str()).unwrap_or_default();
                Package { used_by, ..by_id[node.id.as_str()].clone() }
            })
            .collect()
    }
}

#[cfg(test)]
impl Package {
    /// A made-up package, for the cases that prove a rule.
    pub(crate) fn fake(name: &str, version: &str, license: Option<&str>, used_by: &[&str]) -> Self {
        Self {
            id: format!("{name}@{version}"),
            name: name.to_owned(),
            version: version.to_owned(),
            license: license.map(str::to_owned),
            used_by: used_by.iter().map(|user| (*user).to_owned()).collect(),
            manifest_path: String::new(),
            dependencies: Vec::new(),
        }
    }
}
