//! One document for all groups.

use k3sd_apiserver_store::{Catalog, Group, Resource, Subresource, Version};
use serde_json::{Value, json};

use crate::discovery::plain::put_names;

/// `/api` (only core) or `/apis` (all others), as `APIGroupDiscoveryList`.
pub(super) fn groups(catalog: &Catalog, core: bool) -> Value {
    let groups = catalog.groups().iter().filter(|group| group.name.is_empty() == core);
    json!({
        "kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {},
        "items": groups.map(group).collect::<Vec<_>>(),
    })
}

fn group(group: &Group) -> Value {
    // The nameless group has no name here either.
    let metadata = if group.name.is_empty() {
        json!({ "creationTimestamp": null })
    } else {
        json!({ "name": *group.name, "creationTimestamp": null })
    };
    json!({ "metadata": metadata, "versions": group.versions.iter().map(version).collect::<Vec<_>>() })
}

fn version(version: &Version) -> Value {
    let resources: Vec<Value> = version.resources.iter().map(|resource| row(resource)).collect();
    json!({ "version": *version.name, "resources": resources, "freshness": "Current" })
}

fn row(resource: &Resource) -> Value {
    // Group and version are empty where they are those of the document's place; custom resources say them always.
    let kind = if resource.custom.is_some() {
        kind(&resource.group, &resource.version, &resource.kind)
    } else {
        kind("", "", &resource.kind)
    };
    let mut row = json!({
        "resource": *resource.plural, "responseKind": kind,
        "scope": if resource.namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": *resource.singular, "verbs": resource.verbs,
    });
    put_names(&mut row, resource);
    if !resource.subresources.is_empty() {
        row["subresources"] = resource.subresources.iter().map(|sub| subresource_row(resource, sub)).collect();
    }
    row
}

fn subresource_row(resource: &Resource, subresource: &Subresource) -> Value {
    let same = (&subresource.group, &subresource.version) == (&resource.group, &resource.version);
    let kind = if same && resource.custom.is_none() {
        kind("", "", &subresource.kind)
    } else {
        kind(&subresource.group, &subresource.version, &subresource.kind)
    };
    json!({ "subresource": *subresource.name, "responseKind": kind, "verbs": subresource.verbs })
}

fn kind(group: &str, version: &str, kind: &str) -> Value {
    json!({ "group": group, "version": version, "kind": kind })
}
