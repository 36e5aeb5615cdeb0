//! Classes for those who name none: `DefaultStorageClass`, `DefaultIngressClass`.

use k3sd_objects::object::Object;
use k3sd_objects::quota::STORAGE_CLASS_ANNOTATION;
use k3sd_objects::status::Status;
use serde::Deserialize;
use serde_json::Value;

use crate::attributes::{Attributes, Operation};
use crate::lookup::{INGRESS_CLASSES, Lookup, Place, STORAGE_CLASSES};
use crate::plugins::not_ready;
use crate::read::{annotation, field, has, parsed, set};

/// The way to name an ingress's class before there was a field.
const INGRESS_CLASS_ANNOTATION: &str = "kubernetes.io/ingress.class";

/// Mark the default among classes of storage.
const DEFAULT_STORAGE: &[&str] =
    &["storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"];

/// Marks the default among classes of ingresses.
const DEFAULT_INGRESS: &[&str] = &["ingressclass.kubernetes.io/is-default-class"];

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Class {
    metadata: ClassMeta,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ClassMeta {
    creation_timestamp: String,
    annotations: Option<std::collections::BTreeMap<String, String>>,
}

/// Gives a new claim the default class of storage, if there is one.
pub(crate) fn storage(a: &Attributes<'_>, claim: &mut Value, lookup: &dyn Lookup) -> Result<(), Status> {
    let concerns = a.operation == Operation::Create && a.subresource.is_empty() && a.is("", "persistentvolumeclaims");
    if !concerns
        || has(field(claim, "spec"), "storageClassName")
        || annotation(claim, STORAGE_CLASS_ANNOTATION).is_some()
    {
        return Ok(());
    }
    fill(a, claim, "storageClassName", default(STORAGE_CLASSES, DEFAULT_STORAGE, lookup))
}

/// Gives a new ingress the default class, if there is one.
pub(crate) fn ingress(a: &Attributes<'_>, ingress: &mut Value, lookup: &dyn Lookup) -> Result<(), Status> {
    let concerns =
        a.operation == Operation::Create && a.subresource.is_empty() && a.is("networking.k8s.io", "ingresses");
    if !concerns
        || has(field(ingress, "spec"), "ingressClassName")
        || annotation(ingress, INGRESS_CLASS_ANNOTATION).is_some()
    {
        return Ok(());
    }
    fill(a, ingress, "ingressClassName", default(INGRESS_CLASSES, DEFAULT_INGRESS, lookup))
}

/// `found` is nothing while nobody can tell.
fn fill(a: &Attributes<'_>, object: &mut Value, name: &str, found: Option<Option<String>>) -> Result<(), Status> {
    let found = found.ok_or_else(|| not_ready(a, object))?;
    if let (Some(class), Some(spec)) = (found, object.get_mut("spec")) {
        set(spec, name, class);
    }
    Ok(())
}

/// The newest class that is marked; of equally old ones the first by name.
fn default(place: Place, marks: &[&str], lookup: &dyn Lookup) -> Option<Option<String>> {
    let marked = |object: &Object| {
        let class = parsed::<Class>(object).metadata;
        let annotations = class.annotations.unwrap_or_default();
        let is_marked = marks.iter().any(|mark| annotations.get(*mark).is_some_and(|value| value == "true"));
        is_marked.then(|| (class.creation_timestamp, object.name().to_owned()))
    };
    let all = lookup.cached_all(place, "")?;
    // Times are of one form, so that the order of texts is that of time.
    let newest = |a: &(String, String), b: &(String, String)| a.0.cmp(&b.0).then_with(|| b.1.cmp(&a.1));
    Some(all.iter().filter_map(marked).max_by(newest).map(|(_, name)| name))
}
