//! Which resources the API serves, custom and aggregated ones too.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::APIService;
use kube::api::{Api, ApiResource, DynamicObject};
use kube::core::discovery::v2::{APIGroupDiscovery, APIResourceDiscovery};

/// A resource in the version that the API prefers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resource {
    /// Group, version, plural and kind.
    pub api: ApiResource,
    /// Whether its objects are in namespaces.
    pub namespaced: bool,
    /// What can be done with it.
    pub verbs: BTreeSet<String>,
}

impl Resource {
    /// Whether all of these can be done with it.
    pub fn can(&self, verbs: &[&str]) -> bool {
        verbs.iter().all(|verb| self.verbs.contains(*verb))
    }

    /// The name that is the resource's own, such as `deployments.apps`.
    pub fn name(&self) -> String {
        let ApiResource { group, plural, .. } = &self.api;
        if group.is_empty() { plural.clone() } else { format!("{plural}.{group}") }
    }

    /// Its objects in a namespace, which is empty for objects of the cluster.
    pub fn at(&self, client: &kube::Client, namespace: &str) -> Api<DynamicObject> {
        if self.namespaced && !namespace.is_empty() {
            Api::namespaced_with(client.clone(), namespace, &self.api)
        } else {
            Api::all_with(client.clone(), &self.api)
        }
    }
}

/// All resources, and what couldn't be found out.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Resources {
    /// Each resource once, in the version that its group prefers, in the order of groups.
    pub all: Vec<Arc<Resource>>,
    /// Group versions whose servers don't answer, in order.
    pub missing: Vec<String>,
    /// All versions in which kinds are served: by `apiVersion` and kind.
    kinds: BTreeMap<(String, String), Arc<Resource>>,
}

impl Resources {
    /// Asks the API.
    ///
    /// # Errors
    /// It doesn't answer. That an aggregated server doesn't is no error, but stands in [`Resources::missing`].
    pub async fn discover(client: &kube::Client) -> kube::Result<Self> {
        let (core, groups) = futures_util::future::try_join(
            client.list_core_api_versions_aggregated(),
            client.list_api_groups_aggregated(),
        )
        .await?;
        Ok(Self::of(core.items.into_iter().chain(groups.items)))
    }

    fn of(groups: impl Iterator<Item = APIGroupDiscovery>) -> Self {
        let mut found = Self::default();
        for group in groups {
            let name = group.metadata.and_then(|meta| meta.name).unwrap_or_default();
            let mut seen = BTreeSet::new();
            for version in group.versions {
                let text = version.version.unwrap_or_default();
                let api_version = if name.is_empty() { text.clone() } else { format!("{name}/{text}") };
                if version.freshness.as_deref() == Some("Stale") {
                    found.missing.push(api_version);
                    continue;
                }
                for resource in version.resources {
                    let Some(resource) = read(&name, &text, &api_version, resource).map(Arc::new) else { continue };
                    found.kinds.insert((api_version.clone(), resource.api.kind.clone()), resource.clone());
                    if seen.insert(resource.api.plural.clone()) {
                        found.all.push(resource);
                    }
                }
            }
        }
        found.missing.sort();
        found
    }

    /// The resource of a kind as references name it.
    pub fn of_kind(&self, api_version: &str, kind: &str) -> Option<&Arc<Resource>> {
        self.kinds.get(&(api_version.to_owned(), kind.to_owned()))
    }

    /// Whether everything that these definitions and services promise is there.
    pub fn agrees<'a>(
        &self,
        definitions: impl Iterator<Item = &'a CustomResourceDefinition>,
        services: impl Iterator<Item = &'a APIService>,
    ) -> bool {
        let found = |group: &str, version: &str, plural: &str| {
            self.kinds.values().any(|resource| {
                let ApiResource { group: g, version: v, plural: p, .. } = &resource.api;
                g == group && v == version && p == plural
            })
        };
        let has_version = |api_version: &str| self.kinds.keys().any(|(known, _)| known == api_version);
        let mut definitions = definitions.filter(|definition| is_established(definition));
        let mut services = services.filter(|service| service.spec.as_ref().is_some_and(|spec| spec.service.is_some()));
        definitions.all(|definition| {
            let spec = &definition.spec;
            let mut served = spec.versions.iter().filter(|version| version.served);
            served.all(|version| found(&spec.group, &version.name, &spec.names.plural))
        }) && services.all(|service| {
            let Some(spec) = &service.spec else { return true };
            let (group, version) = (spec.group.as_deref().unwrap_or_default(), spec.version.as_deref());
            has_version(&format!("{group}/{}", version.unwrap_or_default()))
        })
    }
}

fn is_established(definition: &CustomResourceDefinition) -> bool {
    let conditions = definition.status.iter().flat_map(|status| status.conditions.iter().flatten());
    definition.metadata.deletion_timestamp.is_none()
        && conditions.into_iter().any(|condition| condition.type_ == "Established" && condition.status == "True")
}

fn read(group: &str, version: &str, api_version: &str, found: APIResourceDiscovery) -> Option<Resource> {
    let kind = found.response_kind.and_then(|kind| kind.kind)?;
    let api = ApiResource {
        group: group.to_owned(),
        version: version.to_owned(),
        api_version: api_version.to_owned(),
        kind,
        plural: found.resource?,
    };
    let namespaced = found.scope.as_deref() == Some("Namespaced");
    Some(Resource { api, namespaced, verbs: found.verbs.into_iter().collect() })
}

impl fmt::Display for Resources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} resources, {} versions away", self.all.len(), self.missing.len())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn of(groups: Value) -> Resources {
        let groups: Vec<APIGroupDiscovery> = serde_json::from_value(groups).expect("discovery");
        Resources::of(groups.into_iter())
    }

    fn served(plural: &str, kind: &str) -> Value {
        json!({"resource": plural, "scope": "Namespaced", "responseKind": {"kind": kind}, "verbs": ["delete", "list"]})
    }

    #[test]
    fn a_resource_is_there_once_in_the_version_that_is_preferred() {
        let found = of(json!([
            {"metadata": {"name": ""}, "versions": [{"version": "v1", "resources": [served("pods", "Pod")]}]},
            {"metadata": {"name": "x.io"}, "versions": [
                {"version": "v2", "resources": [served("news", "New")]},
                {"version": "v1", "resources": [served("news", "New"), served("olds", "Old")]},
            ]},
            {"metadata": {"name": "away.io"}, "versions": [{"version": "v1", "freshness": "Stale"}]},
        ]));
        let names: Vec<String> =
            found.all.iter().map(|resource| format!("{} {}", resource.name(), resource.api.version)).collect();
        assert_eq!(names, ["pods v1", "news.x.io v2", "olds.x.io v1"]);
        assert_eq!(found.missing, ["away.io/v1"]);
        assert_eq!(found.of_kind("x.io/v1", "New").map(|resource| resource.api.version.as_str()), Some("v1"));
        assert!(found.of_kind("x.io/v3", "New").is_none());
        assert!(found.all[0].can(&["delete", "list"]) && !found.all[0].can(&["delete", "watch"]));
    }

    #[test]
    fn what_a_definition_promises_is_missed_until_it_is_served() {
        let mut definition: CustomResourceDefinition = serde_json::from_value(json!({
            "metadata": {"name": "news.x.io"},
            "spec": {"group": "x.io", "scope": "Namespaced", "names": {"plural": "news", "kind": "New"},
                "versions": [{"name": "v1", "served": true, "storage": true}]},
        }))
        .expect("a definition");
        let (none, some) = (
            of(json!([])),
            of(json!([{"metadata": {"name": "x.io"},
                "versions": [{"version": "v1", "resources": [served("news", "New")]}]}])),
        );
        assert!(none.agrees([&definition].into_iter(), [].into_iter()), "it isn't established");
        definition.status = serde_json::from_value(json!({"conditions": [{"type": "Established", "status": "True"}]}))
            .expect("a status");
        assert!(!none.agrees([&definition].into_iter(), [].into_iter()));
        assert!(some.agrees([&definition].into_iter(), [].into_iter()));
    }
}
