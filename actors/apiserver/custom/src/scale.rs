//! The scale subresource of instances: `autoscaling/v1` Scale, read from and written to the places that the definition
//! names.

use k3sd_apiserver_store::{Resource, ScalePaths};
use k3sd_objects::status::Status;
use k3sd_objects::status::field::{Error, Path};
use serde_json::{Map, Value, json};

/// The Scale of an instance.
///
/// # Errors
/// 500 as upstream has it: when there is no number under `specReplicasPath`, or something that isn't one.
pub fn to_scale(object: &Value, resource: &Resource) -> Result<Value, Status> {
    let paths = paths(resource)?;
    match read(object, paths)? {
        (scale, true) => Ok(scale),
        (_, false) => Err(Status::internal_error(format_args!(
            "the spec replicas field {} does not exist",
            k3sd_objects::status::go::quote(&paths.spec_replicas)
        ))),
    }
}

/// The Scale of an instance for a client that is going to change it: an absent number of replicas is none of them.
///
/// # Errors
/// 500 when there is something else than a number.
pub fn for_update(object: &Value, resource: &Resource) -> Result<Value, Status> {
    read(object, paths(resource)?).map(|(scale, _)| scale)
}

/// Puts the replicas of a Scale into the instance, and its `resourceVersion` if it has one, so that the write that
/// follows is refused if the instance changed. Nothing is changed on errors.
///
/// # Errors
/// 422 for a negative number; 409 when the Scale's uid is another instance's; 500 when the path leads through something
/// that is no object.
pub fn from_scale(object: &mut Value, scale: &Value, resource: &Resource) -> Result<(), Status> {
    let paths = paths(resource)?;
    let name = scale["metadata"]["name"].as_str().unwrap_or_default();
    let replicas = scale["spec"]["replicas"].as_i64().unwrap_or_default();
    if replicas < 0 {
        let error =
            Error::invalid(&Path::new("spec").child("replicas"), replicas, "must be greater than or equal to 0");
        let kind = k3sd_objects::status::Qualified::new("autoscaling", "Scale");
        return Err(Status::invalid(kind, name, &[error]));
    }
    let wanted = scale["metadata"]["uid"].as_str().unwrap_or_default();
    let uid = object["metadata"]["uid"].as_str().unwrap_or_default();
    if !wanted.is_empty() && wanted != uid {
        let why = format!("Precondition failed: UID in precondition: {wanted}, UID in object meta: {uid}");
        return Err(Status::conflict(resource.qualified(), name, why));
    }
    set(object, &steps(&paths.spec_replicas), Value::from(replicas)).map_err(|step| {
        Status::internal_error(format_args!("value cannot be set because {step} is not a map[string]interface{{}}"))
    })?;
    if let Some(version) = scale["metadata"]["resourceVersion"].as_str().filter(|version| !version.is_empty()) {
        object["metadata"]["resourceVersion"] = Value::from(version);
    }
    Ok(())
}

fn paths(resource: &Resource) -> Result<&ScalePaths, Status> {
    let paths = resource.custom.as_ref().and_then(|custom| custom.scale.as_ref());
    paths.ok_or_else(|| Status::not_found(resource.qualified(), "scale"))
}

/// The Scale, and whether the instance says how many replicas it wants.
fn read(object: &Value, paths: &ScalePaths) -> Result<(Value, bool), Status> {
    let wanted = integer(object, &paths.spec_replicas)?;
    let there = integer(object, &paths.status_replicas)?.unwrap_or_default();
    let mut status = json!({ "replicas": there });
    if let Some(path) = &paths.label_selector
        && let Some(selector) = find(object, path)
    {
        let text = selector.as_str().ok_or_else(|| wrong_type(path, selector, "string"))?;
        if !text.is_empty() {
            status["selector"] = Value::from(text);
        }
    }
    let mut metadata = Map::new();
    for name in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        if let Some(value) = object["metadata"].get(name) {
            metadata.insert(name.to_owned(), value.clone());
        }
    }
    let mut spec = Map::new();
    if let Some(replicas) = wanted.filter(|replicas| *replicas != 0) {
        spec.insert("replicas".to_owned(), Value::from(replicas));
    }
    let scale = json!({
        "apiVersion": "autoscaling/v1",
        "kind": "Scale",
        "metadata": metadata,
        "spec": spec,
        "status": status,
    });
    Ok((scale, wanted.is_some()))
}

fn integer(object: &Value, path: &str) -> Result<Option<i64>, Status> {
    let Some(found) = find(object, path) else { return Ok(None) };
    found.as_i64().map(Some).ok_or_else(|| wrong_type(path, found, "int64"))
}

fn wrong_type(path: &str, found: &Value, wanted: &str) -> Status {
    let of = match found {
        Value::Null => "<nil>",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_f64() => "float64",
        Value::Number(_) => "int64",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    };
    let shown = k3sd_objects::status::go::plain(found);
    Status::internal_error(format_args!("{path} accessor error: {shown} is of the type {of}, expected {wanted}"))
}

fn steps(path: &str) -> Vec<&str> {
    path.trim_start_matches('.').split('.').filter(|step| !step.is_empty()).collect()
}

fn find<'v>(object: &'v Value, path: &str) -> Option<&'v Value> {
    steps(path).into_iter().try_fold(object, |value, step| value.get(step))
}

/// Makes the objects on the way. `Err` has the steps up to what is no object.
fn set(object: &mut Value, steps: &[&str], value: Value) -> Result<(), String> {
    let mut at = object;
    for (index, step) in steps.iter().enumerate() {
        let Value::Object(map) = at else { return Err(format!(".{}", steps[..index].join("."))) };
        if index + 1 == steps.len() {
            map.insert((*step).to_owned(), value);
            return Ok(());
        }
        at = map.entry(*step).or_insert_with(|| Value::Object(Map::new()));
    }
    Ok(())
}
