//! `Priority`: numbers for the names of priorities, and at most one class for pods that name none.

use k3sd_objects::object::Object;
use k3sd_objects::status::Status;
use serde::Deserialize;
use serde_json::Value;

use crate::attributes::{Attributes, Operation};
use crate::lookup::{Lookup, PRIORITY_CLASSES, find};
use crate::plugins::not_ready;
use crate::read::{field, has, parsed, set, text};

/// What a pod without class does to others of lower priority.
const PREEMPT: &str = "PreemptLowerPriority";

/// What of a class matters to pods.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Class {
    value: i64,
    global_default: bool,
    preemption_policy: Option<String>,
}

/// Gives a new pod its numbers; a pod that is changed keeps them.
pub(crate) async fn mutate(a: &Attributes<'_>, pod: &mut Value, lookup: &dyn Lookup) -> Result<(), Status> {
    if !a.is_pod() {
        return Ok(());
    }
    match a.operation {
        Operation::Update => {
            let old = field(a.before(), "spec");
            if let Some(spec) = pod.get_mut("spec") {
                for name in ["priority", "preemptionPolicy"].into_iter().filter(|name| has(old, name)) {
                    if !has(spec, name) {
                        set(spec, name, field(old, name).clone());
                    }
                }
            }
            Ok(())
        }
        Operation::Create if field(pod, "spec").is_object() => resolve(a, pod, lookup).await,
        _ => Ok(()),
    }
}

async fn resolve(a: &Attributes<'_>, pod: &mut Value, lookup: &dyn Lookup) -> Result<(), Status> {
    let name = text(field(pod, "spec"), "priorityClassName").to_owned();
    let class = if name.is_empty() {
        let default = default_class(a, pod, lookup)?;
        if let (Some((name, _)), Some(spec)) = (&default, pod.get_mut("spec")) {
            set(spec, "priorityClassName", name.as_str());
        }
        default.map_or(Class { preemption_policy: Some(PREEMPT.to_owned()), ..Class::default() }, |(_, class)| class)
    } else {
        match find(lookup, PRIORITY_CLASSES, "", &name).await? {
            Some(class) => parsed(&class),
            None => return Err(a.forbidden(pod, format!("no PriorityClass with name {name} was found"))),
        }
    };
    let spec = field(pod, "spec");
    if let Some(own) = field(spec, "priority").as_i64().filter(|own| *own != class.value) {
        let why = format!(
            "the integer value of priority ({own}) must not be provided in pod spec; priority admission controller \
             computed {} from the given PriorityClass name",
            class.value
        );
        return Err(a.forbidden(pod, why));
    }
    let policy = class.preemption_policy.as_deref();
    if let Some(policy) = policy {
        let own = text(spec, "preemptionPolicy");
        if has(spec, "preemptionPolicy") && own != policy {
            let why = format!(
                "the string value of PreemptionPolicy ({own}) must not be provided in pod spec; priority admission \
                 controller computed {policy} from the given PriorityClass name"
            );
            return Err(a.forbidden(pod, why));
        }
    }
    if let Some(spec) = pod.get_mut("spec") {
        set(spec, "priority", class.value);
        if let Some(policy) = policy {
            set(spec, "preemptionPolicy", policy);
        }
    }
    Ok(())
}

/// The class for pods that name none. There is one at most; should two have been marked at the same time, it is the
/// lower one.
fn default_class(a: &Attributes<'_>, object: &Value, lookup: &dyn Lookup) -> Result<Option<(String, Class)>, Status> {
    let all = lookup.cached_all(PRIORITY_CLASSES, "").ok_or_else(|| not_ready(a, object))?;
    let classes = all.iter().map(|object: &Object| (object.name().to_owned(), parsed::<Class>(object)));
    Ok(classes.filter(|(_, class)| class.global_default).min_by_key(|(_, class)| class.value))
}

/// Checks that no second class becomes the default.
pub(crate) fn validate(a: &Attributes<'_>, class: &Value, lookup: &dyn Lookup) -> Result<(), Status> {
    let concerns = a.subresource.is_empty() && a.is("scheduling.k8s.io", "priorityclasses");
    if !concerns || field(class, "globalDefault").as_bool() != Some(true) {
        return Ok(());
    }
    let Some((known, _)) = default_class(a, class, lookup)? else { return Ok(()) };
    let other = known != text(field(class, "metadata"), "name");
    if a.operation == Operation::Create || (a.operation == Operation::Update && other) {
        let why = format!("PriorityClass {known} is already marked as default. Only one default can exist");
        return Err(a.forbidden(class, why));
    }
    Ok(())
}
