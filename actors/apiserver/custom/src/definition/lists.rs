//! How lists and maps of a schema merge.

use k3sd_objects::status::field::{Error, Path};
use serde_json::Value;

const LIST_TYPE: &str = "x-kubernetes-list-type";
const LIST_MAP_KEYS: &str = "x-kubernetes-list-map-keys";
const MAP_TYPE: &str = "x-kubernetes-map-type";

/// Adds what is wrong with the list type, the map type and the keys of one schema.
pub(super) fn validate(schema: &Value, path: &Path, errors: &mut Vec<Error>) {
    let of = schema["type"].as_str().unwrap_or_default();
    let wrong_type = |wanted: &str, because: &str| {
        let detail = format!("must be {wanted} if {because} is specified");
        let at = path.child("type");
        if of.is_empty() { Error::required(&at, detail) } else { Error::invalid(&at, of, detail) }
    };
    if let Some(map_type) = schema[MAP_TYPE].as_str() {
        if of != "object" {
            errors.push(wrong_type("object", MAP_TYPE));
        }
        if !["atomic", "granular"].contains(&map_type) {
            errors.push(Error::not_supported(&path.child(MAP_TYPE), map_type, &["atomic", "granular"]));
        }
    }
    let list_type = schema[LIST_TYPE].as_str();
    if let Some(list_type) = list_type {
        if of != "array" {
            errors.push(wrong_type("array", LIST_TYPE));
        } else if list_type == "set" {
            errors.extend(validate_set(&schema["items"], &path.child("items")));
        }
        if !["atomic", "set", "map"].contains(&list_type) {
            errors.push(Error::not_supported(&path.child(LIST_TYPE), list_type, &["atomic", "set", "map"]));
        }
    }
    let keys: Vec<&str> = schema[LIST_MAP_KEYS].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    if !keys.is_empty() && list_type != Some("map") {
        let (at, detail) = (path.child(LIST_TYPE), format!("must be map if {LIST_MAP_KEYS} is non-empty"));
        errors.push(match list_type {
            None => Error::required(&at, detail),
            Some(other) => Error::invalid(&at, other, detail),
        });
    }
    if list_type == Some("map") {
        validate_map(schema, &keys, path, errors);
    }
    if let Some(list_type) = list_type.filter(|list_type| ["set", "map"].contains(list_type)) {
        validate_items(schema, list_type, &keys, &path.child("items"), errors);
    }
}

fn validate_set(items: &Value, path: &Path) -> Option<Error> {
    let detail = "must be atomic as item of a list with x-kubernetes-list-type=set";
    let (name, wrong) = match items["type"].as_str()? {
        "array" => (LIST_TYPE, items[LIST_TYPE].as_str().is_some_and(|of| of != "atomic")),
        "object" => (MAP_TYPE, items[MAP_TYPE] != "atomic"),
        _ => return None,
    };
    wrong.then(|| Error::invalid(&path.child(name), items[name].clone(), detail))
}

fn validate_map(schema: &Value, keys: &[&str], path: &Path, errors: &mut Vec<Error>) {
    let (items, at) = (&schema["items"], path.child("items"));
    if keys.is_empty() {
        let detail = format!("must not be empty if {LIST_TYPE} is map");
        errors.push(Error::required(&path.child(LIST_MAP_KEYS), detail));
    }
    match items {
        Value::Null => errors.push(Error::required(&at, format!("must have a schema if {LIST_TYPE} is map"))),
        Value::Object(_) => {}
        other => {
            let detail = format!("must only have a single schema if {LIST_TYPE} is map");
            errors.push(Error::invalid(&at, other.clone(), detail));
        }
    }
    if !items.is_object() {
        return;
    }
    let of = items["type"].as_str().unwrap_or_default();
    if of != "object" {
        let detail = format!("must be object if parent array's {LIST_TYPE} is map");
        return errors.push(Error::invalid(&at.child("type"), of, detail));
    }
    for (index, key) in keys.iter().enumerate() {
        let field = &items["properties"][*key];
        if field.is_null() {
            let detail = "entries must all be names of item properties";
            errors.push(Error::invalid(&path.child(LIST_MAP_KEYS), schema[LIST_MAP_KEYS].clone(), detail));
        } else if matches!(field["type"].as_str(), Some("array" | "object")) {
            let detail = format!("must be a scalar type if parent array's {LIST_TYPE} is map");
            errors.push(Error::invalid(&at.child("properties").key(key).child("type"), of, detail));
        }
        if keys[..index].contains(key) {
            let detail = "must not contain duplicate entries";
            errors.push(Error::invalid(&path.child(LIST_MAP_KEYS), schema[LIST_MAP_KEYS].clone(), detail));
        }
    }
}

/// Items that are told apart can't be null, and each has its keys.
fn validate_items(schema: &Value, list_type: &str, keys: &[&str], path: &Path, errors: &mut Vec<Error>) {
    let items = &schema["items"];
    if items["nullable"] == true {
        let detail = format!("cannot be nullable when {LIST_TYPE} is {list_type}");
        errors.push(Error::forbidden(&path.child("nullable"), detail));
    }
    if list_type != "map" {
        return;
    }
    let because = format!("this property is in {LIST_MAP_KEYS}, so it");
    for key in keys {
        let (field, at) = (&items["properties"][*key], path.child("properties").key(key));
        if field.is_null() {
            continue;
        }
        let required = items["required"].as_array().is_some_and(|required| required.iter().any(|name| name == key));
        if !required && field.get("default").is_none() {
            let detail = format!("{because} must have a default or be a required property");
            errors.push(Error::required(&at.child("default"), detail));
        }
        if field["nullable"] == true {
            errors.push(Error::forbidden(&at.child("nullable"), format!("{because} cannot be nullable")));
        }
    }
}
