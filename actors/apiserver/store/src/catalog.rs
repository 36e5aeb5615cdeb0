//! What is served: every resource in each of its versions, built-in and custom alike, as one immutable snapshot.
//!
//! ```text
//! Catalog ─▶ Group ─▶ Version ─▶ Resource (one per group, version and plural) ─▶ Stored (one per group and plural)
//! ```

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use k3sd_objects::object::{Object, Selectable};
use k3sd_objects::schema::{self, Arena, SchemaRef};
use k3sd_objects::status::field;
use k3sd_objects::table::CustomColumn;
use serde_json::Value;
use tokio::sync::watch;

/// The schema of a kind: compiled in, or of a CustomResourceDefinition.
#[derive(Clone)]
pub enum Schema {
    /// Compiled in.
    Builtin(SchemaRef<'static>),
    /// Its root is the kind, with `apiVersion`, `kind` and `metadata` like any other.
    Custom(Arc<Arena>),
}

impl Schema {
    /// The schema.
    pub fn get(&self) -> SchemaRef<'_> {
        match self {
            Self::Builtin(schema) => *schema,
            Self::Custom(arena) => arena.root(),
        }
    }
}

impl fmt::Debug for Schema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Builtin(_) => "Builtin",
            Self::Custom(_) => "Custom",
        })
    }
}

/// What stands below an object under a name of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subresource {
    /// Name in paths.
    pub name: Arc<str>,
    /// What can be done, sorted by name.
    pub verbs: Vec<&'static str>,
    /// Group of what it speaks.
    pub group: Arc<str>,
    /// Version of what it speaks.
    pub version: Arc<str>,
    /// Kind of what it speaks; often that of the resource.
    pub kind: Arc<str>,
}

/// What a version of a custom resource has beyond what every resource has.
#[derive(Debug, Default)]
pub struct CustomVersion {
    /// Columns beside the name, instead of the age alone.
    pub columns: Vec<CustomColumn>,
    /// `spec.versions[].deprecated`, with the warning that a client is given.
    pub deprecation_warning: Option<String>,
    /// Where the scale subresource finds its numbers, if there is one.
    pub scale: Option<ScalePaths>,
    /// Whether the status subresource splits `status` from the rest.
    pub status: bool,
    /// Whether the definition is being deleted: what is there can be read and deleted, and nothing comes.
    pub terminating: bool,
    /// The rules in CEL of this version, if it has any.
    pub rules: Option<Arc<dyn CustomRules>>,
    /// The definition itself, for what is said of it rarely, such as [`openapi`](Self::openapi). It shares its bytes with
    /// the cache.
    pub definition: Option<Object>,
}

impl CustomVersion {
    /// The schema of a version as its author wrote it, descriptions included. Parses the definition: for documents that
    /// are made rarely.
    pub fn openapi(&self, version: &str) -> Option<Value> {
        let mut definition = self.definition.as_ref()?.value();
        let versions = definition["spec"]["versions"].as_array_mut()?;
        let found = versions.iter_mut().find(|found| found["name"] == version)?;
        Some(found["schema"]["openAPIV3Schema"].take()).filter(Value::is_object)
    }
}

/// Rules that a schema can't express, compiled by whoever made the resource.
pub trait CustomRules: fmt::Debug + Send + Sync {
    /// What is wrong with an object that fits its schema. `old` is what an update replaces; rules about the change apply
    /// only then.
    fn check(&self, value: &Value, old: Option<&Value>) -> Vec<field::Error>;
}

/// JSON paths below an object, with the dot at the front.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScalePaths {
    /// `specReplicasPath`.
    pub spec_replicas: String,
    /// `statusReplicasPath`.
    pub status_replicas: String,
    /// `labelSelectorPath`.
    pub label_selector: Option<String>,
}

/// Where the objects of a resource lie, whatever version they are read in. There is one for each group and plural; events
/// of core and of `events.k8s.io` share one.
#[derive(Debug)]
pub struct Stored {
    /// Group of the API that owns it; empty for core.
    pub group: Arc<str>,
    /// Plural name.
    pub plural: Arc<str>,
    /// What its keys begin with, such as `/registry/pods/`; ends with a slash.
    pub prefix: String,
    /// `apiVersion` of what is stored.
    pub api_version: Arc<str>,
    /// Kind.
    pub kind: Arc<str>,
    /// Whether each object is in a namespace.
    pub namespaced: bool,
    /// The schema in the stored version.
    pub schema: Schema,
    /// Field selectors beside name and namespace.
    pub selectable: Selectable,
    /// Whether it comes from a CustomResourceDefinition, by that one's uid: a definition that is deleted and created anew
    /// has other objects.
    pub definition_uid: Option<Arc<str>>,
}

/// A resource in one version.
#[derive(Debug)]
pub struct Resource {
    /// Group, empty for core.
    pub group: Arc<str>,
    /// Version.
    pub version: Arc<str>,
    /// `version`, or `group/version`.
    pub api_version: Arc<str>,
    /// Name in paths.
    pub plural: Arc<str>,
    /// Name of one of them.
    pub singular: Arc<str>,
    /// Kind of its objects.
    pub kind: Arc<str>,
    /// Kind of its lists.
    pub list_kind: Arc<str>,
    /// Whether each object is in a namespace.
    pub namespaced: bool,
    /// What can be done, sorted by name.
    pub verbs: Vec<&'static str>,
    /// Abbreviations for people.
    pub short_names: Vec<Arc<str>>,
    /// Groups of resources for people.
    pub categories: Vec<Arc<str>>,
    /// What stands below each of its objects.
    pub subresources: Vec<Subresource>,
    /// Its schema in this version.
    pub schema: Schema,
    /// Whether `metadata.generation` counts the changes of `spec`.
    pub generation: bool,
    /// Where it lies; `None` for what is only answered, such as reviews.
    pub stored: Option<Arc<Stored>>,
    /// What only custom resources have.
    pub custom: Option<Arc<CustomVersion>>,
}

impl Resource {
    /// One of its subresources.
    pub fn subresource(&self, name: &str) -> Option<&Subresource> {
        self.subresources.iter().find(|subresource| &*subresource.name == name)
    }

    /// Group and plural, as errors name it.
    pub fn qualified(&self) -> k3sd_objects::status::Qualified<'_> {
        k3sd_objects::status::Qualified::new(&self.group, &self.plural)
    }

    /// Group and kind, as errors of validation name it.
    pub fn qualified_kind(&self) -> k3sd_objects::status::Qualified<'_> {
        k3sd_objects::status::Qualified::new(&self.group, &self.kind)
    }

    /// Whether objects are stored in this very version.
    pub fn is_storage_version(&self) -> bool {
        self.stored.as_ref().is_some_and(|stored| stored.api_version == self.api_version)
    }

    fn builtin(resource: &schema::Resource, stored: Option<Arc<Stored>>) -> Self {
        let schema = schema::builtin().type_named(resource.type_name).expect("each resource names a built-in type");
        let list = |names: &[&str]| names.iter().map(|name| Arc::from(*name)).collect();
        let subresources = resource.subresources.iter().map(|subresource| Subresource {
            name: subresource.name.into(),
            verbs: subresource.verbs.to_vec(),
            group: subresource.kind.group.into(),
            version: subresource.kind.version.into(),
            kind: subresource.kind.kind.into(),
        });
        Self {
            group: resource.group.into(),
            version: resource.version.into(),
            api_version: resource.api_version().into(),
            plural: resource.plural.into(),
            singular: resource.singular.into(),
            kind: resource.kind.into(),
            list_kind: format!("{}List", resource.kind).into(),
            namespaced: resource.namespaced,
            verbs: resource.verbs.to_vec(),
            short_names: list(resource.short_names),
            categories: list(resource.categories),
            subresources: subresources.collect(),
            schema: Schema::Builtin(schema),
            generation: resource.generation,
            stored,
            custom: None,
        }
    }
}

/// A version of a group, with its resources sorted by plural.
#[derive(Clone, Debug)]
pub struct Version {
    /// Such as `v1`.
    pub name: Arc<str>,
    /// Its resources.
    pub resources: Vec<Arc<Resource>>,
}

/// A group, with the version that clients should prefer first.
#[derive(Clone, Debug)]
pub struct Group {
    /// Empty for core.
    pub name: Arc<str>,
    /// Its versions, most preferred first.
    pub versions: Vec<Version>,
}

/// All that is served, at one time. Never changes.
#[derive(Debug, Default)]
pub struct Catalog {
    groups: Vec<Group>,
    /// By plural: hardly any two groups have the same, so that one step finds what a path names.
    by_plural: HashMap<Arc<str>, Vec<Arc<Resource>>>,
}

impl Catalog {
    /// What is compiled in and served. `served` says of each version of a group, such as `("apps", "v1")`, whether it is:
    /// pass what [`schema::Resource::served`] and `--runtime-config` say.
    pub fn builtin(served: impl Fn(&schema::Resource) -> bool) -> Self {
        let mut stored: HashMap<(&str, &str), Arc<Stored>> = HashMap::new();
        for resource in schema::resources() {
            let home = home(resource);
            if home == (resource.group, resource.plural)
                && resource.storage_version == Some(resource.version)
                && let Some(found) = Stored::builtin(resource)
            {
                stored.insert(home, Arc::new(found));
            }
        }
        let mut groups: Vec<Group> = Vec::new();
        for resource in schema::resources().iter().filter(|resource| served(resource)) {
            let built = Arc::new(Resource::builtin(resource, stored.get(&home(resource)).cloned()));
            push(&mut groups, built);
        }
        Self::new(groups)
    }

    fn new(groups: Vec<Group>) -> Self {
        let resources = groups.iter().flat_map(|group| &group.versions).flat_map(|version| &version.resources);
        let mut by_plural: HashMap<Arc<str>, Vec<Arc<Resource>>> = HashMap::new();
        for resource in resources {
            by_plural.entry(resource.plural.clone()).or_default().push(resource.clone());
        }
        Self { by_plural, groups }
    }

    /// The same with other custom resources behind the built-in ones. Their groups and versions keep the order in which
    /// they come: the preferred version of a group first.
    #[must_use]
    pub fn with_custom(&self, custom: impl IntoIterator<Item = Arc<Resource>>) -> Self {
        let mut groups = self.groups.clone();
        for group in &mut groups {
            for version in &mut group.versions {
                version.resources.retain(|resource| resource.custom.is_none());
            }
            group.versions.retain(|version| !version.resources.is_empty());
        }
        groups.retain(|group| !group.versions.is_empty());
        for resource in custom {
            push(&mut groups, resource);
        }
        Self::new(groups)
    }

    /// Groups in the order of discovery.
    pub fn groups(&self) -> &[Group] {
        &self.groups
    }

    /// A group.
    pub fn group(&self, name: &str) -> Option<&Group> {
        self.groups.iter().find(|group| &*group.name == name)
    }

    /// A resource by what stands in its path.
    pub fn resource(&self, group: &str, version: &str, plural: &str) -> Option<&Arc<Resource>> {
        let named = self.by_plural.get(plural)?;
        // Of two under one path the built-in one counts; `push` leaves it behind the other.
        named.iter().rfind(|resource| &*resource.group == group && &*resource.version == version)
    }

    /// A resource by group and plural, in the group's most preferred version.
    pub fn preferred(&self, group: &str, plural: &str) -> Option<&Arc<Resource>> {
        let versions = &self.group(group)?.versions;
        versions.iter().find_map(|version| version.resources.iter().find(|resource| &*resource.plural == plural))
    }

    /// A resource by group, version and kind.
    pub fn kind(&self, group: &str, version: &str, kind: &str) -> Option<&Arc<Resource>> {
        let version = self.group(group)?.versions.iter().find(|found| &*found.name == version)?;
        version.resources.iter().find(|resource| &*resource.kind == kind && !resource.verbs.is_empty())
    }

    /// All resources.
    pub fn resources(&self) -> impl Iterator<Item = &Arc<Resource>> {
        self.groups.iter().flat_map(|group| &group.versions).flat_map(|version| &version.resources)
    }
}

/// Group and plural of the resource under whose name this one is stored.
fn home(resource: &schema::Resource) -> (&'static str, &'static str) {
    match (resource.group, resource.plural) {
        ("events.k8s.io", "events") => ("", "events"),
        other => other,
    }
}

/// What lies elsewhere than under its plural: group, plural, place below the root.
const PLACES: &[(&str, &str, &str)] = &[
    ("", "services", "services/specs"),
    ("", "endpoints", "services/endpoints"),
    ("", "nodes", "minions"),
    ("", "replicationcontrollers", "controllers"),
    ("networking.k8s.io", "ingresses", "ingress"),
    ("apiextensions.k8s.io", "customresourcedefinitions", "apiextensions.k8s.io/customresourcedefinitions"),
    ("apiregistration.k8s.io", "apiservices", "apiregistration.k8s.io/apiservices"),
];

impl Stored {
    fn builtin(resource: &schema::Resource) -> Option<Self> {
        resource.storage_version?;
        let place = PLACES.iter().find(|(group, plural, _)| (*group, *plural) == (resource.group, resource.plural));
        let place = place.map_or(resource.plural, |(.., place)| place);
        Some(Self {
            group: resource.group.into(),
            plural: resource.plural.into(),
            prefix: format!("/registry/{place}/"),
            api_version: resource.api_version().into(),
            kind: resource.kind.into(),
            namespaced: resource.namespaced,
            schema: Schema::Builtin(schema::builtin().type_named(resource.type_name)?),
            selectable: Selectable::of(resource),
            definition_uid: None,
        })
    }

    /// The key of an object. `namespace` is empty for objects of the cluster.
    pub fn key(&self, namespace: &str, name: &str) -> String {
        if self.namespaced { [&*self.prefix, namespace, "/", name].concat() } else { [&*self.prefix, name].concat() }
    }
}

fn push(groups: &mut Vec<Group>, resource: Arc<Resource>) {
    let at = groups.iter().position(|group| group.name == resource.group).unwrap_or_else(|| {
        groups.push(Group { name: resource.group.clone(), versions: Vec::new() });
        groups.len() - 1
    });
    let versions = &mut groups[at].versions;
    let at = versions.iter().position(|version| version.name == resource.version).unwrap_or_else(|| {
        versions.push(Version { name: resource.version.clone(), resources: Vec::new() });
        versions.len() - 1
    });
    let resources = &mut versions[at].resources;
    let at = resources.partition_point(|other| other.plural < resource.plural);
    resources.insert(at, resource);
}

/// Where the catalog is published. Cheap to clone; readers never wait.
#[derive(Clone, Debug)]
pub struct CatalogHandle(Arc<watch::Sender<Arc<Catalog>>>);

impl CatalogHandle {
    /// Begins with what is compiled in.
    pub fn new(catalog: Catalog) -> Self {
        Self(Arc::new(watch::Sender::new(Arc::new(catalog))))
    }

    /// What is served now.
    pub fn current(&self) -> Arc<Catalog> {
        self.0.borrow().clone()
    }

    /// Serves other custom resources from now on.
    pub fn set_custom(&self, custom: impl IntoIterator<Item = Arc<Resource>>) {
        self.0.send_modify(|catalog| *catalog = Arc::new(catalog.with_custom(custom)));
    }

    /// To wait for changes with.
    pub fn subscribe(&self) -> watch::Receiver<Arc<Catalog>> {
        self.0.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_those_of_upstream() {
        let catalog = Catalog::builtin(|resource| resource.served);
        for (group, plural, namespace, key) in [
            ("", "pods", "a", "/registry/pods/a/x"),
            ("", "services", "a", "/registry/services/specs/a/x"),
            ("", "endpoints", "a", "/registry/services/endpoints/a/x"),
            ("", "nodes", "", "/registry/minions/x"),
            ("apps", "deployments", "a", "/registry/deployments/a/x"),
            ("networking.k8s.io", "ingresses", "a", "/registry/ingress/a/x"),
            ("events.k8s.io", "events", "a", "/registry/events/a/x"),
            ("rbac.authorization.k8s.io", "clusterroles", "", "/registry/clusterroles/x"),
            (
                "apiextensions.k8s.io",
                "customresourcedefinitions",
                "",
                "/registry/apiextensions.k8s.io/customresourcedefinitions/x",
            ),
        ] {
            let resource = catalog.preferred(group, plural).expect(plural);
            assert_eq!(resource.stored.as_ref().expect(plural).key(namespace, "x"), key);
        }
    }

    #[test]
    fn versions_share_what_they_store() {
        let catalog = Catalog::builtin(|resource| resource.served);
        let core = catalog.resource("", "v1", "events").and_then(|events| events.stored.clone()).expect("core");
        let own = catalog.resource("events.k8s.io", "v1", "events").and_then(|events| events.stored.clone());
        assert!(Arc::ptr_eq(&core, &own.expect("events.k8s.io")));
        let scaler = |version| catalog.resource("autoscaling", version, "horizontalpodautoscalers").expect("served");
        assert!(scaler("v2").is_storage_version() && !scaler("v1").is_storage_version());
        assert_eq!(catalog.group("autoscaling").map(|group| &*group.versions[0].name), Some("v2"));
        assert!(
            catalog.resource("authorization.k8s.io", "v1", "subjectaccessreviews").is_some_and(|r| r.stored.is_none())
        );
    }
}
