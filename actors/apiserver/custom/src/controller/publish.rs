//! From an accepted definition to the resources that are served.

use std::cmp::Ordering;
use std::sync::Arc;

use k3sd_apiserver_store::{CustomVersion, Resource, ScalePaths, Schema, Stored, Subresource};
use k3sd_objects::object::{Object, Selectable};
use k3sd_objects::schema::{Arena, SchemaError, structural};
use k3sd_objects::table::custom_columns;
use serde_json::Value;

use super::conditions::{has_condition, texts};
use crate::rules::compile;

/// What can be done with instances.
const VERBS: &[&str] = &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];

/// What can be done with instances whose definition is being deleted.
const VERBS_WHILE_TERMINATING: &[&str] = &["delete", "deletecollection", "get", "list", "watch"];

/// What can be done with the subresources there are.
const SUBRESOURCE_VERBS: &[&str] = &["get", "patch", "update"];

/// The resources of a definition, one per served version, unordered. None if it isn't established.
///
/// # Errors
/// When a schema can't be used; definitions are checked before they are stored, so only one that came another way has
/// such.
pub(crate) fn resources(definition: &Value, source: &Object) -> Result<Vec<Arc<Resource>>, SchemaError> {
    if !has_condition(definition, "Established", "True") {
        return Ok(Vec::new());
    }
    let versions = definition["spec"]["versions"].as_array().map_or(&[][..], Vec::as_slice);
    let Some(storage) = versions.iter().find(|version| version["storage"] == true) else { return Ok(Vec::new()) };
    let mut schemas = Schemas::default();
    let stored = Arc::new(stored(definition, versions, storage, &mut schemas)?);
    let mut resources = Vec::new();
    for version in served(definition, versions) {
        resources.push(Arc::new(resource(definition, version, &stored, source, &mut schemas)?));
    }
    Ok(resources)
}

/// The versions that clients can use. Nobody converts for a webhook, so that with one only what is stored is served.
fn served<'d>(definition: &'d Value, versions: &'d [Value]) -> impl Iterator<Item = &'d Value> {
    let webhook = definition["spec"]["conversion"]["strategy"] == "Webhook";
    versions.iter().filter(move |version| version["served"] == true && (!webhook || version["storage"] == true))
}

/// Schemas that were read already; versions often have the same.
#[derive(Default)]
struct Schemas<'d>(Vec<(&'d Value, Arc<Arena>)>);

impl<'d> Schemas<'d> {
    fn read(&mut self, version: &'d Value) -> Result<Arc<Arena>, SchemaError> {
        let source = &version["schema"]["openAPIV3Schema"];
        if let Some((_, known)) = self.0.iter().find(|(other, _)| *other == source) {
            return Ok(known.clone());
        }
        let arena = Arc::new(structural(source)?);
        self.0.push((source, arena.clone()));
        Ok(arena)
    }
}

fn text(value: &Value) -> Arc<str> {
    value.as_str().unwrap_or_default().into()
}

fn stored<'d>(
    definition: &'d Value,
    versions: &'d [Value],
    storage: &'d Value,
    schemas: &mut Schemas<'d>,
) -> Result<Stored, SchemaError> {
    let (group, names) = (text(&definition["spec"]["group"]), &definition["status"]["acceptedNames"]);
    let plural = text(&names["plural"]);
    // Versions may differ in what they select by; an index over all of them serves each.
    let mut paths: Vec<&str> = Vec::new();
    for field in versions.iter().flat_map(|version| items(&version["selectableFields"])) {
        let path = field["jsonPath"].as_str().unwrap_or_default().trim_start_matches('.');
        if !path.is_empty() && !paths.contains(&path) {
            paths.push(path);
        }
    }
    Ok(Stored {
        prefix: format!("/registry/{group}/{plural}/"),
        api_version: format!("{group}/{}", text(&storage["name"])).into(),
        kind: text(&names["kind"]),
        namespaced: definition["spec"]["scope"] == "Namespaced",
        schema: Schema::Custom(schemas.read(storage)?),
        selectable: Selectable::custom(paths),
        definition_uid: Some(text(&definition["metadata"]["uid"])),
        group,
        plural,
    })
}

fn resource<'d>(
    definition: &'d Value,
    version: &'d Value,
    stored: &Arc<Stored>,
    source: &Object,
    schemas: &mut Schemas<'d>,
) -> Result<Resource, SchemaError> {
    let names = &definition["status"]["acceptedNames"];
    let terminating = !definition["metadata"]["deletionTimestamp"].is_null();
    let (group, name, kind) = (stored.group.clone(), text(&version["name"]), stored.kind.clone());
    let api_version: Arc<str> = format!("{group}/{name}").into();
    let arena = schemas.read(version)?;
    let below = &version["subresources"];
    let scale = below.get("scale").filter(|scale| scale.is_object()).map(|scale| ScalePaths {
        spec_replicas: text(&scale["specReplicasPath"]).to_string(),
        status_replicas: text(&scale["statusReplicasPath"]).to_string(),
        label_selector: scale["labelSelectorPath"].as_str().filter(|path| !path.is_empty()).map(str::to_owned),
    });
    let status = below.get("status").is_some_and(Value::is_object);
    let mut subresources = Vec::new();
    let subresource = |name: &str, group: &str, version: &str, kind: &str| Subresource {
        name: name.into(),
        verbs: SUBRESOURCE_VERBS.to_vec(),
        group: group.into(),
        version: version.into(),
        kind: kind.into(),
    };
    if status {
        subresources.push(subresource("status", &group, &name, &kind));
    }
    if scale.is_some() {
        subresources.push(subresource("scale", "autoscaling", "v1", "Scale"));
    }
    let custom = CustomVersion {
        columns: custom_columns(&version["additionalPrinterColumns"])
            .or_else(|_| custom_columns(&Value::Null))
            .unwrap_or_default(),
        deprecation_warning: deprecation(version, &api_version, &kind),
        scale,
        status,
        terminating,
        rules: compile(&arena),
        definition: Some(source.clone()),
    };
    Ok(Resource {
        singular: text(&names["singular"]),
        list_kind: text(&names["listKind"]),
        namespaced: stored.namespaced,
        verbs: if terminating { VERBS_WHILE_TERMINATING } else { VERBS }.to_vec(),
        short_names: texts(&names["shortNames"]).map(Arc::from).collect(),
        categories: texts(&names["categories"]).map(Arc::from).collect(),
        subresources,
        schema: Schema::Custom(arena),
        generation: true,
        stored: Some(stored.clone()),
        custom: Some(Arc::new(custom)),
        plural: stored.plural.clone(),
        group,
        version: name,
        api_version,
        kind,
    })
}

/// The warning that clients of a deprecated version get.
fn deprecation(version: &Value, api_version: &str, kind: &str) -> Option<String> {
    if version["deprecated"] != true {
        return None;
    }
    let own = version["deprecationWarning"].as_str().map(str::to_owned);
    Some(own.unwrap_or_else(|| format!("{api_version} {kind} is deprecated")))
}

fn items(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// Brings resources into the order of discovery: groups by name, and within them the version that clients should prefer
/// first.
pub(crate) fn sort(resources: &mut [Arc<Resource>]) {
    resources.sort_by(|a, b| {
        let versions = || compare_versions(&a.version, &b.version);
        a.group.cmp(&b.group).then_with(versions).then_with(|| a.plural.cmp(&b.plural))
    });
}

/// The order of versions, preferred ones first: `v10`, `v2`, `v1`, `v11beta2`, `v10beta3`, `v3alpha1`, and then names of
/// another form by the alphabet.
pub(crate) fn compare_versions(a: &str, b: &str) -> Ordering {
    match (rank(a), rank(b)) {
        (Some(a), Some(b)) => b.cmp(&a),
        (Some(_), None) => Ordering::Less,
        (None, Some(_)) => Ordering::Greater,
        (None, None) => a.cmp(b),
    }
}

/// Stability, major and minor of a version that is named as Kubernetes names its own.
fn rank(version: &str) -> Option<(u8, u64, u64)> {
    let rest = version.strip_prefix('v')?;
    let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let (major, rest) = rest.split_at(digits);
    let number = |digits: &str| digits.parse().ok().filter(|_| !digits.starts_with(['0', '+']));
    let major = number(major)?;
    for (stage, stability) in [("alpha", 0), ("beta", 1)] {
        if let Some(minor) = rest.strip_prefix(stage) {
            return Some((stability, major, if minor.is_empty() { 0 } else { number(minor)? }));
        }
    }
    rest.is_empty().then_some((2, major, 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stable_versions_come_before_others() {
        let mut versions =
            ["foo10", "v1", "v3beta1", "v10", "v11alpha2", "v3beta10", "v2", "foo1", "v12alpha1", "v11beta2"];
        versions.sort_by(|a, b| compare_versions(a, b));
        let wanted = ["v10", "v2", "v1", "v11beta2", "v3beta10", "v3beta1", "v12alpha1", "v11alpha2", "foo1", "foo10"];
        assert_eq!(versions, wanted);
    }
}
