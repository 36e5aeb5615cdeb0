//! Fields of instances that lists and watches can select by.

use k3sd_objects::status::field::{Error, Path};
use serde_json::Value;

use crate::rules::fields;

/// Selectable fields of one version.
const FIELDS_MAX: usize = 8;

/// What is wrong with the selectable fields of a version.
pub(super) fn validate(version: &Value, path: &Path) -> Vec<Error> {
    let selectable = version["selectableFields"].as_array().map_or(&[][..], Vec::as_slice);
    let schema = &version["schema"]["openAPIV3Schema"];
    if selectable.is_empty() {
        return Vec::new();
    }
    if !schema.is_object() {
        let detail = "selectableFields may only be set when version.schema.openAPIV3Schema is not included";
        return vec![Error::invalid(path, "", detail)];
    }
    let mut errors = Vec::new();
    let mut unique: Vec<String> = Vec::new();
    for (index, field) in selectable.iter().enumerate() {
        let at = path.index(index).child("jsonPath");
        let json_path = field["jsonPath"].as_str().unwrap_or_default();
        if json_path.is_empty() {
            errors.push(Error::required(&at, ""));
            continue;
        }
        let (steps, found) = match fields::follow(json_path, schema, false) {
            Ok(found) => found,
            Err(why) => {
                errors.push(Error::invalid(&at, json_path, format!("is an invalid path: {why}")));
                continue;
            }
        };
        if json_path.starts_with(".metadata.") || json_path == ".metadata" {
            errors.push(Error::invalid(&at, json_path, "must not point to fields in metadata"));
        }
        if !matches!(found["type"].as_str(), Some("string" | "boolean" | "integer")) {
            let detail = "must point to a field of type string, boolean or integer. Enum string fields and strings with \
                          formats are allowed.";
            errors.push(Error::invalid(&at, json_path, detail));
        }
        if unique.contains(&steps) {
            errors.push(Error::duplicate(&at, json_path));
        } else {
            unique.push(steps);
        }
    }
    if unique.len() > FIELDS_MAX {
        errors.push(Error::too_many(path, unique.len(), FIELDS_MAX));
    }
    errors
}
