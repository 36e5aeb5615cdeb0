//! A document for each group, and one for each version.

use k3sd_apiserver_store::{Catalog, Resource, Subresource};
use serde_json::{Map, Value, json};

use crate::discovery::merge::Listed;
use crate::discovery::storage_version_hash;

/// `/api`.
pub(super) fn versions(address: &str) -> Value {
    json!({
        "kind": "APIVersions",
        "versions": ["v1"],
        "serverAddressByClientCIDRs": [{ "clientCIDR": "0.0.0.0/0", "serverAddress": address }],
    })
}

/// `/apis`.
pub(super) fn groups(all: &[Listed<'_>]) -> Value {
    let named = all.iter().filter(|group| !group.name.is_empty());
    json!({ "kind": "APIGroupList", "apiVersion": "v1", "groups": named.map(members).collect::<Vec<_>>() })
}

/// `/apis/<group>`.
pub(super) fn group(all: &[Listed<'_>], name: &str) -> Option<Value> {
    let mut value = members(all.iter().find(|group| group.name == name)?);
    value["kind"] = json!("APIGroup");
    value["apiVersion"] = json!("v1");
    Some(value)
}

fn members(group: &Listed<'_>) -> Value {
    let versions = group.versions.iter().map(|version| version.name());
    let versions =
        versions.map(|version| json!({ "groupVersion": format!("{}/{version}", group.name), "version": version }));
    let versions: Vec<Value> = versions.collect();
    json!({ "name": group.name, "preferredVersion": versions.first(), "versions": versions })
}

/// `/api/v1` and `/apis/<group>/<version>`.
pub(super) fn resources(catalog: &Catalog, group: &str, version: &str) -> Option<Value> {
    let version = catalog.group(group)?.versions.iter().find(|other| &*other.name == version)?;
    let mut rows = Vec::new();
    for resource in &version.resources {
        if !resource.verbs.is_empty() {
            rows.push(resource_row(resource));
        }
        rows.extend(resource.subresources.iter().map(|subresource| subresource_row(resource, subresource)));
    }
    let mut list = Map::new();
    list.insert("kind".to_owned(), json!("APIResourceList"));
    if group.is_empty() {
        list.insert("groupVersion".to_owned(), json!(*version.name));
    } else {
        list.insert("apiVersion".to_owned(), json!("v1"));
        list.insert("groupVersion".to_owned(), json!(format!("{group}/{}", version.name)));
    }
    list.insert("resources".to_owned(), rows.into());
    Some(Value::Object(list))
}

fn resource_row(resource: &Resource) -> Value {
    let mut row = json!({
        "name": *resource.plural, "singularName": *resource.singular, "namespaced": resource.namespaced,
        "kind": *resource.kind, "verbs": resource.verbs,
    });
    put_names(&mut row, resource);
    if let Some(hash) = storage_version_hash(resource) {
        row["storageVersionHash"] = hash.into();
    }
    row
}

/// Adds the words by which people know a resource, if there are any.
pub(super) fn put_names(row: &mut Value, resource: &Resource) {
    for (field, names) in [("shortNames", &resource.short_names), ("categories", &resource.categories)] {
        if !names.is_empty() {
            row[field] = names.iter().map(|name| Value::from(&**name)).collect();
        }
    }
}

fn subresource_row(resource: &Resource, subresource: &Subresource) -> Value {
    let mut row = json!({
        "name": format!("{}/{}", resource.plural, subresource.name), "singularName": "",
        "namespaced": resource.namespaced, "kind": *subresource.kind, "verbs": subresource.verbs,
    });
    // Only where it is another one than the document's.
    if (&subresource.group, &subresource.version) != (&resource.group, &resource.version) {
        if !subresource.group.is_empty() {
            row["group"] = json!(*subresource.group);
        }
        row["version"] = json!(*subresource.version);
    }
    row
}
