//! The names of a definition, as wanted or as granted.

use k3sd_objects::names::dns_1035_label;
use k3sd_objects::status::field::{Error, Path};
use serde_json::Value;

/// Names that must be there, when they are those of the spec.
const REQUIRED: &[&str] = &["plural", "singular", "kind", "listKind"];

/// Names that are missing from a spec.
pub(super) fn missing(names: &Value, path: &Path) -> Vec<Error> {
    let absent = REQUIRED.iter().filter(|name| text(names, name).is_empty());
    absent.map(|name| Error::required(&path.child(name), "")).collect()
}

/// What is wrong with names that are there.
pub(super) fn validate(names: &Value, path: &Path) -> Vec<Error> {
    let mut errors = Vec::new();
    for name in ["plural", "singular"] {
        errors.extend(label(text(names, name), &path.child(name)));
    }
    for name in ["kind", "listKind"] {
        let value = text(names, name);
        let faults = dns_1035_label(&value.to_lowercase());
        if !value.is_empty() && !faults.is_empty() {
            let detail = format!("may have mixed case, but should otherwise match: {}", faults.join(","));
            errors.push(Error::invalid(&path.child(name), value, detail));
        }
    }
    errors.extend(labels(&names["shortNames"], &path.child("shortNames")));
    if !text(names, "kind").is_empty() && text(names, "kind") == text(names, "listKind") {
        let detail = "kind and listKind may not be the same";
        errors.push(Error::invalid(&path.child("listKind"), text(names, "listKind"), detail));
    }
    errors.extend(labels(&names["categories"], &path.child("categories")));
    errors
}

fn text<'v>(names: &'v Value, name: &str) -> &'v str {
    names[name].as_str().unwrap_or_default()
}

fn label(value: &str, path: &Path) -> Option<Error> {
    let faults = dns_1035_label(value);
    (!value.is_empty() && !faults.is_empty()).then(|| Error::invalid(path, value, faults.join(",")))
}

fn labels(list: &Value, path: &Path) -> Vec<Error> {
    let items = list.as_array().into_iter().flatten().filter_map(Value::as_str).enumerate();
    let faults = items.map(|(index, value)| (index, value, dns_1035_label(value)));
    faults
        .filter(|(.., faults)| !faults.is_empty())
        .map(|(index, value, faults)| Error::invalid(&path.index(index), value, faults.join(",")))
        .collect()
}
