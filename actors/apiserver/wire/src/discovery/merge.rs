//! Our own groups and those of others, in one order.

use std::cmp::Reverse;
use std::sync::Arc;

use k3sd_apiserver_store::{Catalog, Version};
use serde_json::Value;

use super::priorities::{order, own};

/// A version of a group that somebody else answers for. Where we have that version too, it takes the place of ours.
#[derive(Clone, Debug, PartialEq)]
pub struct Foreign {
    /// The group; never empty.
    pub group: Arc<str>,
    /// The version.
    pub version: Arc<str>,
    /// `groupPriorityMinimum`: of a group's versions the highest counts, and groups with more come first.
    pub group_priority: i64,
    /// `versionPriority`: versions with more come first in their group.
    pub version_priority: i64,
    /// The rows of its `APIResourceList`, as they were last told.
    pub resources: Arc<[Value]>,
    /// Where whoever answers has its document of OpenAPI v3, below our own root; `None` if it has none.
    pub openapi: Option<Arc<str>>,
    /// Whether the rows may be old, because whoever answers couldn't be asked.
    pub is_stale: bool,
}

/// A version, whoever answers for it.
#[derive(Clone, Copy)]
pub(super) enum Served<'a> {
    /// We do.
    Own(&'a Version),
    /// Somebody else does.
    Foreign(&'a Foreign),
}

impl<'a> Served<'a> {
    pub(super) fn name(self) -> &'a str {
        match self {
            Self::Own(version) => &version.name,
            Self::Foreign(foreign) => &foreign.version,
        }
    }

    fn priority(self, group: &str) -> (i64, i64) {
        match self {
            Self::Own(version) => own(group, &version.name),
            Self::Foreign(foreign) => (foreign.group_priority, foreign.version_priority),
        }
    }
}

/// A group with its versions, the preferred one first.
pub(super) struct Listed<'a> {
    pub(super) name: &'a str,
    pub(super) versions: Vec<Served<'a>>,
}

impl Listed<'_> {
    fn priority(&self) -> i64 {
        self.versions.iter().map(|version| version.priority(self.name).0).max().unwrap_or_default()
    }
}

/// All groups in the order of discovery. Our own keep theirs.
pub(super) fn listed<'a>(catalog: &'a Catalog, foreign: &'a [Foreign]) -> Vec<Listed<'a>> {
    let is_elsewhere = |group: &str, version: &str| {
        foreign.iter().any(|foreign| &*foreign.group == group && &*foreign.version == version)
    };
    let own = catalog.groups().iter().map(|group| {
        let versions = group.versions.iter().filter(|version| !is_elsewhere(&group.name, &version.name));
        Listed { name: &group.name, versions: versions.map(Served::Own).collect() }
    });
    let mut all: Vec<Listed<'_>> = own.filter(|group| !group.versions.is_empty()).collect();
    let mut others: Vec<Listed<'_>> = Vec::new();
    for foreign in foreign {
        let mut known = all.iter_mut().chain(&mut others);
        match known.find(|group| group.name == &*foreign.group) {
            Some(group) => group.versions.push(Served::Foreign(foreign)),
            None => others.push(Listed { name: &foreign.group, versions: vec![Served::Foreign(foreign)] }),
        }
    }
    for group in all.iter_mut().chain(&mut others) {
        if group.versions.iter().any(|version| matches!(version, Served::Foreign(_))) {
            let name = group.name;
            group.versions.sort_by_key(|version| (Reverse(version.priority(name).1), order(version.name())));
        }
    }
    for group in others {
        let place = (Reverse(group.priority()), group.name);
        let before = all.iter().rposition(|known| (Reverse(known.priority()), known.name) < place);
        all.insert(before.map_or(0, |last| last + 1), group);
    }
    all
}
