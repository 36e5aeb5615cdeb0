//! Printer columns and the paths of the scale subresource.

use k3sd_objects::status::field::{Error, Path};
use serde_json::Value;

/// Types of columns, sorted.
const TYPES: &[&str] = &["boolean", "date", "integer", "number", "string"];

/// Formats of columns, sorted.
const FORMATS: &[&str] = &["byte", "date", "date-time", "double", "float", "int32", "int64", "password"];

/// What is wrong with a column.
pub(super) fn validate(column: &Value, path: &Path) -> Vec<Error> {
    let text = |name: &str| column[name].as_str().unwrap_or_default();
    let mut errors = Vec::new();
    if text("name").is_empty() {
        errors.push(Error::required(&path.child("name"), ""));
    }
    let types = format!("must be one of {}", TYPES.join(","));
    match text("type") {
        "" => errors.push(Error::required(&path.child("type"), types)),
        of if !TYPES.contains(&of) => errors.push(Error::invalid(&path.child("type"), of, types)),
        _ => {}
    }
    let format = text("format");
    if !format.is_empty() && !FORMATS.contains(&format) {
        let detail = format!("must be one of {}", FORMATS.join(","));
        errors.push(Error::invalid(&path.child("format"), format, detail));
    }
    let at = path.child("JSONPath");
    match text("jsonPath") {
        "" => errors.push(Error::required(&at, "")),
        json_path => errors.extend(simple_path(json_path, &at)),
    }
    errors
}

/// What is wrong with the subresources of a version.
pub(super) fn validate_subresources(subresources: &Value, path: &Path) -> Vec<Error> {
    let scale = &subresources["scale"];
    let mut errors = Vec::new();
    if !scale.is_object() {
        return errors;
    }
    for (name, below) in [("specReplicasPath", ".spec"), ("statusReplicasPath", ".status")] {
        let at = path.child("scale").child(name);
        let json_path = scale[name].as_str().unwrap_or_default();
        if json_path.is_empty() {
            errors.push(Error::required(&at, ""));
        } else if let Some(error) = simple_path(json_path, &at) {
            errors.push(error);
        } else if !json_path.starts_with(&format!("{below}.")) {
            errors.push(Error::invalid(&at, json_path, format!("should be a json path under {below}")));
        }
    }
    let at = path.child("scale").child("labelSelectorPath");
    let json_path = scale["labelSelectorPath"].as_str().unwrap_or_default();
    if !json_path.is_empty() {
        if let Some(error) = simple_path(json_path, &at) {
            errors.push(error);
        } else if ![".spec.", ".status."].iter().any(|below| json_path.starts_with(below)) {
            errors.push(Error::invalid(&at, json_path, "should be a json path under either .spec or .status"));
        }
    }
    errors
}

fn simple_path(json_path: &str, path: &Path) -> Option<Error> {
    (!json_path.starts_with('.')).then(|| Error::invalid(path, json_path, "must be a simple json path starting with ."))
}
