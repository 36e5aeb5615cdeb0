//! One document for all groups.

use k3sd_apiserver_store::{Resource, Subresource, Version};
use serde_json::{Value, json};

use crate::discovery::merge::{Foreign, Listed, Served};
use crate::discovery::plain::put_names;

/// `/api` (only core) or `/apis` (all others), as `APIGroupDiscoveryList`.
pub(super) fn groups(all: &[Listed<'_>], core: bool) -> Value {
    let groups = all.iter().filter(|group| group.name.is_empty() == core);
    json!({
        "kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {},
        "items": groups.map(group).collect::<Vec<_>>(),
    })
}

fn group(group: &Listed<'_>) -> Value {
    // The nameless group has no name here either.
    let metadata = if group.name.is_empty() {
        json!({ "creationTimestamp": null })
    } else {
        json!({ "name": group.name, "creationTimestamp": null })
    };
    let versions = group.versions.iter().map(|served| match served {
        Served::Own(own) => version(own),
        Served::Foreign(foreign) => foreign_version(foreign),
    });
    json!({ "metadata": metadata, "versions": versions.collect::<Vec<_>>() })
}

/// A version as the rows of its plain document tell it.
fn foreign_version(foreign: &Foreign) -> Value {
    let is_sub = |row: &&Value| row["name"].as_str().is_some_and(|name| name.contains('/'));
    let resources = foreign.resources.iter().filter(|row| !is_sub(row)).map(|row| {
        let name = row["name"].as_str().unwrap_or_default();
        let below = |other: &Value| other["name"].as_str()?.strip_prefix(name)?.strip_prefix('/').map(str::to_owned);
        let mut shown = json!({
            "resource": name, "responseKind": foreign_kind(row),
            "scope": if row["namespaced"] == true { "Namespaced" } else { "Cluster" },
            "singularResource": row["singularName"].as_str().unwrap_or_default(), "verbs": row["verbs"],
        });
        for field in ["shortNames", "categories"] {
            if row[field].is_array() {
                shown[field] = row[field].clone();
            }
        }
        let subresources = foreign.resources.iter().filter_map(|row| {
            let kind = foreign_kind(row);
            Some(json!({ "subresource": below(row)?, "responseKind": kind, "verbs": row["verbs"] }))
        });
        let subresources: Vec<Value> = subresources.collect();
        if !subresources.is_empty() {
            shown["subresources"] = subresources.into();
        }
        shown
    });
    let freshness = if foreign.is_stale { "Stale" } else { "Current" };
    json!({ "version": *foreign.version, "resources": resources.collect::<Vec<_>>(), "freshness": freshness })
}

fn foreign_kind(row: &Value) -> Value {
    let text = |field: &str| row[field].as_str().unwrap_or_default();
    kind(text("group"), text("version"), text("kind"))
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
