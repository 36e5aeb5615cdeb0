//! What the status of a definition says: names that are its own, and conditions with upstream's reasons and messages.

use std::collections::HashSet;

use k3sd_objects::status::go;
use serde_json::{Map, Value, json};

use crate::definition::approval::{self, Approval};
use crate::definition::{set_condition, structure_faults};

/// The names that definitions of one group hold.
#[derive(Debug, Default)]
pub(crate) struct Claims {
    /// Plurals, singulars and short names.
    resources: HashSet<String>,
    /// Kinds and kinds of lists.
    kinds: HashSet<String>,
}

impl Claims {
    /// Adds the names that a definition has been granted.
    pub(crate) fn add(&mut self, definition: &Value) {
        let names = &definition["status"]["acceptedNames"];
        let one = |name: &str| names[name].as_str().filter(|name| !name.is_empty()).map(str::to_owned);
        self.resources.extend(one("plural"));
        self.resources.extend(one("singular"));
        self.resources.extend(texts(&names["shortNames"]).map(str::to_owned));
        self.kinds.extend(one("kind"));
        self.kinds.extend(one("listKind"));
    }
}

/// Brings the status of a definition up to date. `claims` are the names that definitions of its group hold, its own
/// included; `now` is in RFC 3339. Doing it twice changes nothing.
pub(crate) fn update(definition: &mut Value, claims: &Claims, now: &str) {
    if !definition["metadata"]["deletionTimestamp"].is_null() {
        return;
    }
    let conflict = update_names(definition, claims);
    match &conflict {
        None => set_condition(definition, "NamesAccepted", "True", "NoConflicts", "no conflicts found", now),
        Some((reason, message)) => set_condition(definition, "NamesAccepted", "False", reason, message, now),
    }
    // Once established, a definition stays so: its instances are there, and a new name that is taken only isn't granted.
    if !has_condition(definition, "Established", "True") {
        match conflict {
            None => {
                let message = "the initial names have been accepted";
                set_condition(definition, "Established", "True", "InitialNamesAccepted", message, now);
            }
            Some(_) => {
                set_condition(definition, "Established", "False", "NotAccepted", "not all names are accepted", now)
            }
        }
    }
    update_structure(definition, now);
    update_approval(definition, now);
    update_conversion(definition, now);
}

/// Grants the names that are free. Answers with the last conflict's reason and message.
fn update_names(definition: &mut Value, claims: &Claims) -> Option<(&'static str, String)> {
    let wanted = definition["spec"]["names"].clone();
    let mut granted = match definition["status"]["acceptedNames"].take() {
        Value::Object(map) => map,
        _ => Map::new(),
    };
    let mut conflict = None;
    for (name, used, reason) in [
        ("plural", &claims.resources, "PluralConflict"),
        ("singular", &claims.resources, "SingularConflict"),
        ("shortNames", &claims.resources, "ShortNamesConflict"),
        ("kind", &claims.kinds, "KindConflict"),
        ("listKind", &claims.kinds, "ListKindConflict"),
    ] {
        let had: Vec<&str> = each(granted.get(name));
        let taken = each(wanted.get(name)).into_iter().filter(|want| !had.contains(want) && used.contains(*want));
        let faults: Vec<String> = taken.map(|want| format!("{} is already in use", go::quote(want))).collect();
        match faults.as_slice() {
            [] => grant(&mut granted, name, wanted.get(name)),
            [only] => conflict = Some((reason, only.clone())),
            several => conflict = Some((reason, format!("[{}]", several.join(", ")))),
        }
    }
    grant(&mut granted, "categories", wanted.get("categories"));
    // Two fields of the structure are always written.
    for name in ["kind", "plural"] {
        granted.entry(name).or_insert_with(|| Value::from(""));
    }
    if let Some(map) = definition.as_object_mut() {
        let status = map.entry("status").or_insert_with(|| json!({}));
        status["acceptedNames"] = Value::Object(granted);
    }
    conflict
}

fn grant(granted: &mut Map<String, Value>, name: &str, wanted: Option<&Value>) {
    match wanted {
        Some(wanted) => granted.insert(name.to_owned(), wanted.clone()),
        None => granted.remove(name),
    };
}

/// One name or several.
fn each(names: Option<&Value>) -> Vec<&str> {
    match names {
        Some(Value::String(name)) => vec![name],
        Some(list) => texts(list).collect(),
        None => Vec::new(),
    }
}

/// Only definitions that came another way than through the API have schemas that aren't structural.
fn update_structure(definition: &mut Value, now: &str) {
    let faults = structure_faults(definition);
    match k3sd_objects::status::field::aggregate(&faults) {
        Some(message) => set_condition(definition, "NonStructuralSchema", "True", "Violations", &message, now),
        None => remove_condition(definition, "NonStructuralSchema"),
    }
}

fn update_approval(definition: &mut Value, now: &str) {
    const CONDITION: &str = "KubernetesAPIApprovalPolicyConformant";
    let group = definition["spec"]["group"].as_str().unwrap_or_default();
    if !approval::is_protected(group) {
        return remove_condition(definition, CONDITION);
    }
    let annotation = definition["metadata"]["annotations"][approval::ANNOTATION].as_str().unwrap_or_default();
    let (state, message) = approval::of(annotation);
    let (status, reason) = match state {
        Approval::Missing => ("False", "MissingAnnotation"),
        Approval::Invalid => ("False", "InvalidAnnotation"),
        Approval::Bypassed => ("False", "UnapprovedAnnotation"),
        Approval::Approved => ("True", "ApprovedAnnotation"),
    };
    set_condition(definition, CONDITION, status, reason, &message, now);
}

/// Says what a definition with a webhook doesn't get.
fn update_conversion(definition: &mut Value, now: &str) {
    const CONDITION: &str = "ConversionAvailable";
    if definition["spec"]["conversion"]["strategy"] != "Webhook" {
        return remove_condition(definition, CONDITION);
    }
    let message = "conversion by webhook is not available: only the storage version is served";
    set_condition(definition, CONDITION, "False", "WebhookNotSupported", message, now);
}

/// Whether a condition has a status.
pub(crate) fn has_condition(definition: &Value, of: &str, status: &str) -> bool {
    let conditions = definition["status"]["conditions"].as_array();
    conditions.into_iter().flatten().any(|condition| condition["type"] == of && condition["status"] == status)
}

fn remove_condition(definition: &mut Value, of: &str) {
    if let Some(conditions) = definition.pointer_mut("/status/conditions").and_then(Value::as_array_mut) {
        conditions.retain(|condition| condition["type"] != of);
    }
}

/// The texts of a list.
pub(crate) fn texts(list: &Value) -> impl Iterator<Item = &str> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str)
}
