//! `RuntimeClass`: what a runtime takes beside the containers, and on which nodes it is.

use k3sd_objects::status::Status;
use k3sd_objects::status::go::quote;
use serde_json::Value;

use crate::attributes::{Attributes, Operation};
use crate::lookup::{Lookup, RUNTIME_CLASSES, find};
use crate::plugins::tolerations::merge;
use crate::read::{amounts_of, at, entries, field, has, is_empty, items, map_mut, set, text};

const MISMATCH: &str = "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead";

/// The class of a new pod; `None` if it is about something else, null if the pod names none.
async fn class_of(a: &Attributes<'_>, pod: &Value, lookup: &dyn Lookup) -> Result<Option<Value>, Status> {
    if a.operation != Operation::Create || !a.is_pod() {
        return Ok(None);
    }
    let name = text(field(pod, "spec"), "runtimeClassName");
    if name.is_empty() {
        return Ok(Some(Value::Null));
    }
    match find(lookup, RUNTIME_CLASSES, "", name).await? {
        Some(class) => Ok(Some(class.value())),
        None => Err(a.forbidden(pod, format!("pod rejected: RuntimeClass {} not found", quote(name)))),
    }
}

/// What the runtime takes; `None` if its class doesn't say.
fn overhead(class: &Value) -> Option<&Value> {
    has(class, "overhead").then(|| at(class, &["overhead", "podFixed"]))
}

fn same_amounts(one: &Value, other: &Value) -> bool {
    amounts_of(one) == amounts_of(other)
}

/// Writes what the class says into the pod.
pub(crate) async fn mutate(a: &Attributes<'_>, pod: &mut Value, lookup: &dyn Lookup) -> Result<(), Status> {
    let Some(class) = class_of(a, pod, lookup).await? else { return Ok(()) };
    if class.is_null() {
        return Ok(());
    }
    if let Some(fixed) = overhead(&class) {
        let own = at(pod, &["spec", "overhead"]);
        if !own.is_null() && !same_amounts(own, fixed) {
            return Err(a.forbidden(pod, MISMATCH));
        }
        if let Some(spec) = pod.get_mut("spec").filter(|_| !is_empty(fixed)) {
            set(spec, "overhead", fixed.clone());
        }
    }
    let scheduling = field(&class, "scheduling");
    for (key, wanted) in entries(scheduling, "nodeSelector") {
        let own = at(pod, &["spec", "nodeSelector", key]);
        if !own.is_null() && own != wanted {
            let (wanted, own) = (wanted.as_str().unwrap_or_default(), own.as_str().unwrap_or_default());
            let why = format!(
                "conflict: runtimeClass.scheduling.nodeSelector[{key}] = {wanted}; pod.spec.nodeSelector[{key}] = {own}"
            );
            return Err(a.forbidden(pod, why));
        }
    }
    let Some(spec) = pod.get_mut("spec") else { return Ok(()) };
    if !is_empty(field(scheduling, "nodeSelector"))
        && let Some(selector) = map_mut(spec, "nodeSelector")
    {
        let wanted = entries(scheduling, "nodeSelector").map(|(key, value)| (key.to_owned(), value.clone()));
        selector.extend(wanted);
    }
    if !is_empty(field(scheduling, "tolerations")) {
        set(spec, "tolerations", merge(items(spec, "tolerations"), items(scheduling, "tolerations")));
    }
    Ok(())
}

/// Checks that the pod claims to take beside its containers what its class says.
pub(crate) async fn validate(a: &Attributes<'_>, pod: &Value, lookup: &dyn Lookup) -> Result<(), Status> {
    let Some(class) = class_of(a, pod, lookup).await? else { return Ok(()) };
    let own = at(pod, &["spec", "overhead"]);
    match overhead(&class) {
        Some(fixed) if !same_amounts(own, fixed) => Err(a.forbidden(pod, MISMATCH)),
        None if !own.is_null() => {
            let why = "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead";
            Err(a.forbidden(pod, why))
        }
        _ => Ok(()),
    }
}
