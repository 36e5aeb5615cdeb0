//! The spec of a definition: group, scope, names and versions.
//!
//! What all versions say alike counts as said once, for all of them, and errors name it so: `spec.validation` is the
//! schema that every version has, and a definition with one version has such.

use k3sd_objects::names::{dns_1035_label, dns_subdomain};
use k3sd_objects::schema::structural;
use k3sd_objects::status::field::{Error, Path};
use k3sd_objects::status::go::is_printable;
use serde_json::Value;

use super::{columns, conversion, defaults, names, schema, selectable, structure};

/// Rules that a definition escapes because the one it replaces broke them already.
#[derive(Clone, Copy, Debug)]
pub(super) struct Leniency<'o> {
    /// The spec before the change.
    old: Option<&'o Value>,
    /// Whether a review that the API server can send must be listed.
    known_review: bool,
}

impl Default for Leniency<'_> {
    fn default() -> Self {
        Self { old: None, known_review: true }
    }
}

impl<'o> Leniency<'o> {
    pub(super) fn for_update(old: &'o Value) -> Self {
        let reviews = &old["conversion"]["webhook"]["conversionReviewVersions"];
        let some = reviews.as_array().is_some_and(|reviews| !reviews.is_empty());
        Self { old: Some(old), known_review: !some || conversion::has_known_review(reviews) }
    }

    /// Whether a schema is as some version had it before: then it has no errors that its author could know of.
    fn unchanged(self, schema: &Value) -> bool {
        self.old.is_some_and(|old| of(old).iter().any(|version| version["schema"]["openAPIV3Schema"] == *schema))
    }
}

/// The versions of a spec.
pub(super) fn of(spec: &Value) -> &[Value] {
    spec["versions"].as_array().map_or(&[], Vec::as_slice)
}

/// What is wrong with a spec.
pub(super) fn validate_spec(spec: &Value, leniency: Leniency<'_>) -> Vec<Error> {
    let path = Path::new("spec");
    let mut errors = Vec::new();
    errors.extend(validate_group(spec["group"].as_str().unwrap_or_default(), &path.child("group")));
    match spec["scope"].as_str().unwrap_or_default() {
        "Cluster" | "Namespaced" => {}
        "" => errors.push(Error::required(&path.child("scope"), "")),
        other => errors.push(Error::not_supported(&path.child("scope"), other, &["Cluster", "Namespaced"])),
    }
    errors.extend(validate_versions(spec, &path, leniency));
    let names = &spec["names"];
    errors.extend(names::missing(names, &path.child("names")));
    errors.extend(names::validate(names, &path.child("names")));
    errors.extend(conversion::validate(&spec["conversion"], leniency.known_review, &path.child("conversion")));
    errors
}

fn validate_group(group: &str, path: &Path) -> Option<Error> {
    if group.is_empty() {
        return Some(Error::required(path, ""));
    }
    let faults = dns_subdomain(group);
    if !faults.is_empty() {
        return Some(Error::invalid(path, group, faults.join(",")));
    }
    (!group.contains('.')).then(|| Error::invalid(path, group, "should be a domain with at least one dot"))
}

/// What versions may say alike, and where it counts as said then.
struct Shared {
    schema: bool,
    subresources: bool,
    columns: bool,
    selectable: bool,
}

impl Shared {
    fn of(versions: &[Value]) -> Self {
        let alike = |name: &str| versions.windows(2).all(|pair| pair[0].get(name) == pair[1].get(name));
        Self {
            schema: alike("schema"),
            subresources: alike("subresources"),
            columns: alike("additionalPrinterColumns"),
            selectable: alike("selectableFields"),
        }
    }
}

fn validate_versions(spec: &Value, path: &Path, leniency: Leniency<'_>) -> Vec<Error> {
    let (versions, at) = (of(spec), path.child("versions"));
    let shared = Shared::of(versions);
    let mut errors = Vec::new();
    for (index, version) in versions.iter().enumerate() {
        if !version["schema"]["openAPIV3Schema"].is_object() {
            let path = at.index(index).child("schema").child("openAPIV3Schema");
            errors.push(Error::required(&path, "schemas are required"));
        }
    }
    for (index, version) in versions.iter().enumerate() {
        let here = at.index(index);
        let name = version["name"].as_str().unwrap_or_default();
        let faults = dns_1035_label(name);
        if !faults.is_empty() {
            errors.push(Error::invalid(&here.child("name"), name, faults.join(",")));
        }
        errors.extend(validate_deprecation(version, &here.child("deprecationWarning")));
        let place = |shared: bool, apart: &str, whole: &str| match (shared, index) {
            (false, _) => Some(here.child(apart)),
            (true, 0) => Some(path.child(whole)),
            (true, _) => None,
        };
        if let Some(at) = place(shared.schema, "schema", "validation") {
            errors.extend(validate_schema(version, &at, leniency));
        }
        if let Some(at) = place(shared.subresources, "subresources", "subresources") {
            errors.extend(columns::validate_subresources(&version["subresources"], &at));
        }
        if let Some(at) = place(shared.columns, "additionalPrinterColumns", "additionalPrinterColumns") {
            let columns = version["additionalPrinterColumns"].as_array().into_iter().flatten().enumerate();
            errors.extend(columns.flat_map(|(index, column)| columns::validate(column, &at.index(index))));
        }
        if let Some(at) = place(shared.selectable, "selectableFields", "selectableFields") {
            errors.extend(selectable::validate(version, &at));
        }
    }
    let unique = versions
        .iter()
        .enumerate()
        .all(|(index, version)| versions[..index].iter().all(|other| other["name"] != version["name"]));
    if !unique {
        errors.push(Error::invalid(&at, spec["versions"].clone(), "must contain unique version names"));
    }
    if versions.iter().filter(|version| version["storage"] == true).count() != 1 {
        let detail = "must have exactly one version marked as storage version";
        errors.push(Error::invalid(&at, spec["versions"].clone(), detail));
    }
    errors
}

fn validate_deprecation(version: &Value, path: &Path) -> Vec<Error> {
    /// Longest warning, in bytes.
    const WARNING_MAX: usize = 256;
    let Some(warning) = version["deprecationWarning"].as_str() else { return Vec::new() };
    let mut errors = Vec::new();
    if version["deprecated"] != true {
        errors.push(Error::invalid(path, warning, "can only be set for deprecated versions"));
    }
    if warning.len() > WARNING_MAX {
        errors.push(Error::invalid(path, warning, "must be <= 256 characters long"));
    }
    if warning.is_empty() {
        errors.push(Error::invalid(path, warning, "must not be an empty string"));
    }
    if let Some((at, _)) = warning.char_indices().find(|(_, c)| !is_printable(*c)) {
        let detail =
            format!("must only contain printable UTF-8 characters; non-printable character found at index {at}");
        errors.push(Error::invalid(path, warning, detail));
    }
    errors
}

/// `path` is that of the structure around `openAPIV3Schema`.
fn validate_schema(version: &Value, path: &Path, leniency: Leniency<'_>) -> Vec<Error> {
    let source = &version["schema"]["openAPIV3Schema"];
    let at = path.child("openAPIV3Schema");
    if !source.is_object() {
        return Vec::new();
    }
    if let Some(error) = schema::too_deep(source) {
        return vec![Error::invalid_unshown(&at, error)];
    }
    let status = version["subresources"]["status"].is_object();
    let mut errors = schema::validate_root(source, status, &at);
    let structure = structure::validate(source, &at);
    let structural_schema = structure.is_empty();
    errors.extend(structure);
    errors.extend(schema::validate(source, &at));
    if !structural_schema || !errors.is_empty() {
        return errors;
    }
    let arena = match structural(source) {
        Ok(arena) => arena,
        Err(error) => return vec![Error::invalid(path, "", format!("error building validator: {error}"))],
    };
    errors.extend(defaults::validate(&arena, &at));
    if errors.is_empty() && !leniency.unchanged(source) {
        errors.extend(crate::rules::validate(&arena, source, &at));
    }
    errors
}
