//! The table of resources: what is served under which name, and what can be done with it.

use crate::schema::builtin::builtin;
use crate::schema::node::package;
use crate::schema::reference::SchemaRef;

/// Group, version and kind; the group of core is empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupVersionKind<'a> {
    /// Group, empty for core.
    pub group: &'a str,
    /// Version.
    pub version: &'a str,
    /// Kind.
    pub kind: &'a str,
}

/// A built-in resource in one version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resource {
    /// Group, empty for core.
    pub group: &'static str,
    /// Version.
    pub version: &'static str,
    /// Name in paths.
    pub plural: &'static str,
    /// Name of one of them.
    pub singular: &'static str,
    /// Kind of its objects; of its lists with `List` behind it.
    pub kind: &'static str,
    /// Whether each object is in a namespace.
    pub namespaced: bool,
    /// What can be done, sorted by name.
    pub verbs: &'static [&'static str],
    /// Abbreviations for people.
    pub short_names: &'static [&'static str],
    /// Groups of resources for people, such as `all`.
    pub categories: &'static [&'static str],
    /// The version that is stored; none for what is only answered, never stored.
    pub storage_version: Option<&'static str>,
    /// Whether `metadata.generation` counts the changes of `spec`.
    pub generation: bool,
    /// Field selectors beside `metadata.name` and `metadata.namespace`.
    pub selectors: &'static [&'static str],
    /// Whether it is served unless somebody switches it off.
    pub served: bool,
    /// The name of its type in the [built-in schemas](crate::schema::builtin).
    pub type_name: &'static str,
    /// What stands below each of its objects.
    pub subresources: &'static [Subresource],
}

/// What stands below an object under a name of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subresource {
    /// Name in paths.
    pub name: &'static str,
    /// What can be done, sorted by name.
    pub verbs: &'static [&'static str],
    /// What it speaks; often the kind of the resource.
    pub kind: GroupVersionKind<'static>,
}

mod generated {
    use super::{GroupVersionKind, Resource, Subresource};

    include!(concat!(env!("OUT_DIR"), "/resources.rs"));
}

impl Resource {
    /// Group and version as objects write them in `apiVersion`.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.to_owned() } else { format!("{}/{}", self.group, self.version) }
    }

    /// Group, version and kind.
    pub fn group_version_kind(&self) -> GroupVersionKind<'static> {
        GroupVersionKind { group: self.group, version: self.version, kind: self.kind }
    }

    /// One of its subresources.
    pub fn subresource(&self, name: &str) -> Option<&'static Subresource> {
        self.subresources.iter().find(|subresource| subresource.name == name)
    }
}

/// The schema of a built-in kind by what objects write in `apiVersion` and `kind`; lists and the kinds of the generic
/// machinery (`Status`, `DeleteOptions`), which every group version knows, are among them.
pub fn kind_schema(api_version: &str, kind: &str) -> Option<SchemaRef<'static>> {
    /// Kinds that every group version knows.
    const EVERYWHERE: &[&str] = &["DeleteOptions", "Status", "WatchEvent"];
    let (group, version) = api_version.rsplit_once('/').unwrap_or(("", api_version));
    let everywhere = EVERYWHERE.contains(&kind);
    let own = (!everywhere).then(|| format!("{}.{version}.{kind}", package(group)));
    // The whole group has to be the one of the table: `core` and `rbac.example.org` are nobody's.
    let known = matches!(group, "" | "meta.k8s.io") || resources().iter().any(|resource| resource.group == group);
    let name = own.filter(|_| known).or_else(|| everywhere.then(|| format!("meta.v1.{kind}")))?;
    let whole = |schema: &SchemaRef<'_>| ["kind", "metadata"].iter().all(|field| schema.property(field).is_some());
    builtin().type_named(&name).filter(|schema| everywhere || whole(schema))
}

/// All built-in resources, group by group in the order of discovery.
pub fn resources() -> &'static [Resource] {
    &generated::RESOURCES
}
