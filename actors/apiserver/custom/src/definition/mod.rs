//! Whether a CustomResourceDefinition may be stored, and what the server fills in.
//!
//! ```text
//! prepare ─▶ names, versions ─▶ schema ─▶ structure ─▶ defaults ─▶ rules
//! ```
//!
//! Each step looks only at schemas that passed the ones before. Metadata is checked by whoever checks everybody's; here
//! is what is special to the kind. Values are in upstream's form: decoded by the built-in schema of the kind, with its
//! defaults.

pub(crate) mod approval;
mod columns;
mod conversion;
mod defaults;
mod lists;
mod names;
mod prepare;
mod schema;
mod selectable;
mod structure;
#[cfg(test)]
mod tests;
mod versions;

pub(crate) use self::prepare::set_condition;
pub use self::prepare::{CLEANUP_FINALIZER, prepare_create, prepare_delete, prepare_update, update_status};

use k3sd_objects::status::field::{Error, Path};
use serde_json::Value;

use crate::controller::has_condition;

/// Schemas nested deeper are refused before anybody walks them.
pub(crate) const DEPTH_MAX: usize = 90;

/// Errors that are reported of one definition.
const ERRORS_MAX: usize = 100;

/// What is wrong with a new definition, after [`prepare_create`].
pub fn validate_create(definition: &Value) -> Vec<Error> {
    let mut errors = Vec::new();
    errors.extend(wrong_name(definition));
    errors.extend(versions::validate_spec(&definition["spec"], versions::Leniency::default()));
    errors.extend(validate_stored_versions(definition));
    errors.extend(approval::validate(definition, None));
    errors.extend(preserves_unknown(definition, None));
    errors.truncate(ERRORS_MAX);
    errors
}

/// What is wrong with a changed definition, after [`prepare_update`]. Faults that `old` has already, and that were
/// allowed once, don't stand in the way of other changes.
pub fn validate_update(definition: &Value, old: &Value) -> Vec<Error> {
    let (spec, old_spec) = (&definition["spec"], &old["spec"]);
    let mut errors = versions::validate_spec(spec, versions::Leniency::for_update(old_spec));
    let path = Path::new("spec");
    let names = path.child("names");
    let mut same = |pointer: &str, at: Path| {
        let (new, was) = (spec.pointer(pointer), old_spec.pointer(pointer));
        if new != was {
            errors.push(Error::invalid(&at, new.cloned().unwrap_or_default(), "field is immutable"));
        }
    };
    if has_condition(old, "Established", "True") {
        same("/scope", path.child("scope"));
        same("/names/kind", names.child("kind"));
    }
    same("/group", path.child("group"));
    same("/names/plural", names.child("plural"));
    errors.extend(validate_stored_versions(definition));
    errors.extend(approval::validate(definition, Some(old)));
    errors.extend(preserves_unknown(definition, Some(old)));
    errors.truncate(ERRORS_MAX);
    errors
}

/// What is wrong with a changed status, after [`update_status`].
pub fn validate_status(definition: &Value, _old: &Value) -> Vec<Error> {
    let path = Path::new("status").child("acceptedNames");
    let mut errors = names::validate(&definition["status"]["acceptedNames"], &path);
    errors.extend(validate_stored_versions(definition));
    errors
}

/// What makes the schemas of a definition not structural. Nothing of what is created through the API.
pub(crate) fn structure_faults(definition: &Value) -> Vec<Error> {
    let mut errors = Vec::new();
    let spec = &definition["spec"];
    if spec["preserveUnknownFields"] == true {
        errors.push(Error::invalid(&Path::new("spec").child("preserveUnknownFields"), true, "must be false"));
    }
    for (index, version) in versions::of(spec).iter().enumerate() {
        let schema = &version["schema"]["openAPIV3Schema"];
        let path = Path::new("spec").child("versions").index(index).child("schema").child("openAPIV3Schema");
        if schema.is_object() && schema::too_deep(schema).is_none() {
            errors.extend(structure::validate(schema, &path));
        }
    }
    errors
}

fn wrong_name(definition: &Value) -> Option<Error> {
    let part = |pointer: &str| definition.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let name = part("/metadata/name");
    let wanted = format!("{}.{}", part("/spec/names/plural"), part("/spec/group"));
    let path = Path::new("metadata").child("name");
    (name != wanted).then(|| Error::invalid(&path, name, "must be spec.names.plural+\".\"+spec.group"))
}

fn preserves_unknown(definition: &Value, old: Option<&Value>) -> Option<Error> {
    let preserves = |definition: &Value| definition["spec"]["preserveUnknownFields"] == true;
    if !preserves(definition) || old.is_some_and(preserves) {
        return None;
    }
    let detail =
        "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead";
    Some(Error::invalid(&Path::new("spec").child("preserveUnknownFields"), true, detail))
}

fn validate_stored_versions(definition: &Value) -> Vec<Error> {
    let path = Path::new("status").child("storedVersions");
    let stored = &definition["status"]["storedVersions"];
    let names: Vec<&str> = stored.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    if names.is_empty() {
        return vec![Error::invalid(&path, stored.clone(), "must have at least one stored version")];
    }
    let mut errors = Vec::new();
    let versions = versions::of(&definition["spec"]);
    for version in versions {
        let name = version["name"].as_str().unwrap_or_default();
        if version["storage"] == true && !names.contains(&name) {
            errors.push(Error::invalid(&path, stored.clone(), format!("must have the storage version {name}")));
        }
    }
    for (index, name) in names.iter().enumerate() {
        if !versions.iter().any(|version| version["name"] == **name) {
            errors.push(Error::invalid(&path.index(index), *name, "must appear in spec.versions"));
        }
    }
    errors
}
