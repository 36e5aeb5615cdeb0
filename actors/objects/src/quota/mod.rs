//! What an object takes of a quota, and which quotas it counts against.

pub mod pod;

use crate::names;
use crate::quantity::{Format, Quantity};
use crate::selector::{LabelSelector, Operator, Requirement};
use serde_json::Value;

use self::pod::{Side, add, has_own, of_pod};
use crate::read::{Amounts, amount, annotation, at, entries, field, has, is_empty, items, text, texts};

/// What counts how often there is something of a resource.
const COUNT: &str = "count/";

/// The way to name a claim's class before there was a field.
pub const STORAGE_CLASS_ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";
const REQUESTS: &str = "requests.";
const HUGE_PAGES: &str = "hugepages-";
const STORAGE_CLASS: &str = ".storageclass.storage.k8s.io/";
const DEVICE_CLASS: &str = ".deviceclass.resource.k8s.io/devices";

/// Claims, and what they ask for, of one class or of all.
const CLAIM_AMOUNTS: &[&str] = &["persistentvolumeclaims", "requests.storage"];

/// Kinds that quotas count under their own name too.
const NAMED: &[&str] = &["configmaps", "resourcequotas", "replicationcontrollers", "secrets"];

/// What pods take.
const POD_AMOUNTS: &[&str] = &[
    "pods",
    "cpu",
    "memory",
    "ephemeral-storage",
    "requests.cpu",
    "requests.memory",
    "requests.ephemeral-storage",
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
];

/// Of these, what each container has to ask for once a quota limits it.
const DEMANDED: &[&str] = &["cpu", "memory", "requests.cpu", "requests.memory", "limits.cpu", "limits.memory"];

/// Most devices that a claim for all of them can get.
const DEVICES_MAX: i64 = 32;

/// How objects of a kind are measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Measure {
    Pods,
    Services,
    Claims,
    DeviceClaims,
    /// By their number alone.
    Count,
}

/// How the objects of one resource are measured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meter {
    measure: Measure,
    plural: String,
    /// `count/deployments.apps`.
    count: String,
}

impl Meter {
    /// The meter for objects of a resource in namespaces; `None` if these never count.
    pub fn of(group: &str, plural: &str) -> Option<Self> {
        let measure = match (group, plural) {
            ("" | "events.k8s.io", "events") => return None,
            ("", "pods") => Measure::Pods,
            ("", "services") => Measure::Services,
            ("", "persistentvolumeclaims") => Measure::Claims,
            ("resource.k8s.io", "resourceclaims") => Measure::DeviceClaims,
            _ => Measure::Count,
        };
        let dot = if group.is_empty() { "" } else { "." };
        Some(Self { measure, plural: plural.to_owned(), count: format!("{COUNT}{plural}{dot}{group}") })
    }

    /// Whether an object of it is measured by more than its number, so that it has to be read.
    pub fn reads_objects(&self) -> bool {
        self.measure != Measure::Count
    }

    /// Whether its objects are pods.
    pub fn is_of_pods(&self) -> bool {
        self.measure == Measure::Pods
    }

    /// Whether the meter tells anything about a resource of a quota.
    pub fn measures(&self, resource: &str) -> bool {
        if resource == self.count {
            return true;
        }
        match self.measure {
            Measure::Pods => {
                let pages = resource.strip_prefix(REQUESTS).unwrap_or(resource).starts_with(HUGE_PAGES);
                let device = || resource.strip_prefix(REQUESTS).is_some_and(is_device);
                POD_AMOUNTS.contains(&resource) || pages || device()
            }
            Measure::Services => ["services", "services.nodeports", "services.loadbalancers"].contains(&resource),
            Measure::Claims => {
                let (_, of_class) = resource.split_once(STORAGE_CLASS).unwrap_or_default();
                CLAIM_AMOUNTS.contains(&resource) || CLAIM_AMOUNTS.contains(&of_class)
            }
            Measure::DeviceClaims => resource.ends_with(DEVICE_CLASS),
            Measure::Count => NAMED.contains(&resource) && resource == self.plural && !self.count.contains('.'),
        }
    }

    /// Whether an object counts against a quota.
    pub fn matches(&self, quota: &Value, object: &Value) -> bool {
        let spec = field(quota, "spec");
        entries(field(quota, "status"), "hard").any(|(resource, _)| self.measures(resource))
            && texts(spec, "scopes").all(|scope| self.is_in(scope, "Exists", &[], object))
            && items(field(spec, "scopeSelector"), "matchExpressions").iter().all(|expression| {
                let values: Vec<&str> = texts(expression, "values").collect();
                self.is_in(text(expression, "scopeName"), text(expression, "operator"), &values, object)
            })
    }

    fn is_in(&self, scope: &str, operator: &str, values: &[&str], object: &Value) -> bool {
        let spec = field(object, "spec");
        match (self.measure, scope) {
            (Measure::Pods, "Terminating") => is_terminating(spec),
            (Measure::Pods, "NotTerminating") => !is_terminating(spec),
            (Measure::Pods, "BestEffort") => is_best_effort(spec),
            (Measure::Pods, "NotBestEffort") => !is_best_effort(spec),
            (Measure::Pods, "PriorityClass") => selects(operator, values, &[text(spec, "priorityClassName")]),
            (Measure::Pods, "CrossNamespacePodAffinity") => crosses_namespaces(spec),
            (Measure::Claims, "VolumeAttributesClass") => {
                let status = field(object, "status");
                let names = [
                    text(spec, "volumeAttributesClassName"),
                    text(status, "currentVolumeAttributesClassName"),
                    text(field(status, "modifyVolumeStatus"), "targetVolumeAttributesClassName"),
                ];
                selects(operator, values, &names)
            }
            _ => false,
        }
    }

    /// What an object takes.
    pub fn usage(&self, object: &Value) -> Amounts {
        let mut usage = Amounts::from([(self.count.clone(), one())]);
        match self.measure {
            Measure::Pods => add_pod(object, &mut usage),
            Measure::Services => add_service(field(object, "spec"), &mut usage),
            Measure::Claims => add_claim(object, &mut usage),
            Measure::DeviceClaims => add_devices(field(object, "spec"), &mut usage),
            // A kind of another group may have the same plural as one that is counted under its own name.
            Measure::Count if self.measures(&self.plural) => drop(usage.insert(self.plural.clone(), one())),
            Measure::Count => {}
        }
        usage
    }

    /// What containers have to ask for, since some quota limits it, and don't.
    pub fn fault<'q>(&self, limited: impl Iterator<Item = &'q str>, object: &Value) -> Option<String> {
        let spec = field(object, "spec");
        // Amounts for the pod as a whole relieve its containers.
        if self.measure != Measure::Pods || has_own(spec) {
            return None;
        }
        let mut demanded: Vec<&str> = limited.filter(|resource| DEMANDED.contains(resource)).collect();
        demanded.sort_unstable();
        let missing = demanded.into_iter().filter_map(|resource| {
            let containers = ["containers", "initContainers"].iter().flat_map(|list| items(spec, list));
            let mut lacking: Vec<&str> = containers
                .filter(|container| !asks_for(container, resource))
                .map(|container| text(container, "name"))
                .collect();
            lacking.sort_unstable();
            lacking.dedup();
            (!lacking.is_empty()).then(|| format!("{resource} for: {}", lacking.join(",")))
        });
        let missing: Vec<String> = missing.collect();
        (!missing.is_empty()).then(|| format!("must specify {}", missing.join("; ")))
    }
}

/// Whether a resource is a device plugin's.
pub fn is_device(resource: &str) -> bool {
    resource.contains('/')
        && !resource.contains("kubernetes.io/")
        && !resource.starts_with(REQUESTS)
        && names::qualified_name(&format!("{REQUESTS}{resource}")).is_empty()
}

/// The class of a claim, empty if it has none.
pub fn class_of(claim: &Value) -> &str {
    annotation(claim, STORAGE_CLASS_ANNOTATION).unwrap_or_else(|| text(field(claim, "spec"), "storageClassName"))
}

fn one() -> Quantity {
    whole(1)
}

fn whole(count: usize) -> Quantity {
    Quantity::from_i64(i64::try_from(count).unwrap_or(i64::MAX), Format::DecimalSi)
}

/// Whether a container asks for what a quota calls `resource`.
fn asks_for(container: &Value, resource: &str) -> bool {
    let (side, name) = match resource.split_once('.') {
        Some(("limits", name)) => ("limits", name),
        Some((_, name)) => ("requests", name),
        None => ("requests", resource),
    };
    has(at(container, &["resources", side]), name)
}

/// A selector of scopes over the names that an object has; empty names are none.
fn selects(operator: &str, values: &[&str], names: &[&str]) -> bool {
    let mut names = names.iter().filter(|name| !name.is_empty());
    let operator = match operator {
        "Exists" => return names.next().is_some(),
        "DoesNotExist" => return names.next().is_none(),
        "In" => Operator::In,
        "NotIn" => Operator::NotIn,
        _ => return false,
    };
    let values = values.iter().map(|value| (*value).to_owned()).collect();
    let Ok(requirement) = Requirement::new("scope", operator, values) else { return false };
    let selector = LabelSelector::new(vec![requirement]);
    let mut names = names.peekable();
    if names.peek().is_none() {
        return selector.matches(|_| None);
    }
    names.any(|name| selector.matches(|_| Some(name)))
}

fn is_terminating(spec: &Value) -> bool {
    field(spec, "activeDeadlineSeconds").as_i64().is_some_and(|seconds| seconds >= 0)
}

/// Whether no container asks for a share of a processor or of memory.
fn is_best_effort(spec: &Value) -> bool {
    let asks = |resources: &Value| {
        [Side::Requests, Side::Limits].into_iter().any(|side| {
            ["cpu", "memory"]
                .into_iter()
                .any(|name| amount(resources, side.field(), name).is_some_and(|amount| !amount.is_zero()))
        })
    };
    let mut containers = ["containers", "initContainers"].iter().flat_map(|list| items(spec, list));
    !asks(field(spec, "resources")) && !containers.any(|container| asks(field(container, "resources")))
}

/// Whether where a pod goes depends on pods of other namespaces.
fn crosses_namespaces(spec: &Value) -> bool {
    let crosses = |term: &Value| !is_empty(field(term, "namespaces")) || has(term, "namespaceSelector");
    ["podAffinity", "podAntiAffinity"].into_iter().any(|kind| {
        let affinity = at(spec, &["affinity", kind]);
        let mut required = items(affinity, "requiredDuringSchedulingIgnoredDuringExecution").iter();
        let mut preferred = items(affinity, "preferredDuringSchedulingIgnoredDuringExecution").iter();
        required.any(crosses) || preferred.any(|term| crosses(field(term, "podAffinityTerm")))
    })
}

/// A pod that has ended is still there, but takes nothing.
fn add_pod(pod: &Value, usage: &mut Amounts) {
    if ["Succeeded", "Failed"].contains(&text(field(pod, "status"), "phase")) {
        return;
    }
    let spec = field(pod, "spec");
    usage.insert("pods".to_owned(), one());
    add(usage, &of_resources(&of_pod(spec, Side::Requests), &of_pod(spec, Side::Limits)));
}

/// Requests and limits under the names that quotas have for them.
fn of_resources(requests: &Amounts, limits: &Amounts) -> Amounts {
    let mut usage = Amounts::new();
    for (name, amount) in requests {
        let is_plain = ["cpu", "memory", "ephemeral-storage"].contains(&name.as_str()) || name.starts_with(HUGE_PAGES);
        if is_plain {
            usage.insert(name.clone(), *amount);
        }
        if is_plain || is_device(name) {
            usage.insert(format!("{REQUESTS}{name}"), *amount);
        }
    }
    for (name, amount) in limits {
        if ["cpu", "memory", "ephemeral-storage"].contains(&name.as_str()) {
            usage.insert(format!("limits.{name}"), *amount);
        }
    }
    usage
}

fn add_service(spec: &Value, usage: &mut Amounts) {
    let ports = items(spec, "ports");
    let asked = || ports.iter().filter(|port| field(port, "nodePort").as_i64().is_some_and(|port| port != 0)).count();
    let balanced = text(spec, "type") == "LoadBalancer";
    let node_ports = match text(spec, "type") {
        "NodePort" => ports.len(),
        "LoadBalancer" if field(spec, "allocateLoadBalancerNodePorts").as_bool() == Some(false) => asked(),
        "LoadBalancer" => ports.len(),
        _ => 0,
    };
    usage.insert("services".to_owned(), one());
    usage.insert("services.nodeports".to_owned(), whole(node_ports));
    usage.insert("services.loadbalancers".to_owned(), whole(usize::from(balanced)));
}

fn add_claim(claim: &Value, usage: &mut Amounts) {
    let class = class_of(claim);
    let mut insert = |resource: &str, amount: Quantity| {
        usage.insert(resource.to_owned(), amount);
        if !class.is_empty() {
            usage.insert(format!("{class}{STORAGE_CLASS}{resource}"), amount);
        }
    };
    insert("persistentvolumeclaims", one());
    let asked = amount(at(claim, &["spec", "resources"]), "requests", "storage");
    // A claim that was made smaller again, after growing failed, still holds what was set aside for it.
    let held = amount(field(claim, "status"), "allocatedResources", "storage");
    if let Some(asked) = asked {
        insert("requests.storage", held.map_or(asked, |held| asked.max(held)));
    }
}

/// Devices by their class; of alternatives, the one that takes most counts.
fn add_devices(spec: &Value, usage: &mut Amounts) {
    let count = |request: &Value| -> Option<(String, Quantity)> {
        let class = text(request, "deviceClassName");
        let count = match text(request, "allocationMode") {
            "All" => DEVICES_MAX,
            _ => field(request, "count").as_i64().unwrap_or(1),
        };
        let amount = Quantity::from_i64(count, Format::DecimalSi);
        (!class.is_empty()).then(|| (format!("{class}{DEVICE_CLASS}"), amount))
    };
    for request in items(field(spec, "devices"), "requests") {
        // Older versions of the API have the fields right in the request.
        let exact = if has(request, "exactly") { field(request, "exactly") } else { request };
        let mut most = Amounts::new();
        for (class, amount) in items(request, "firstAvailable").iter().chain([exact]).filter_map(count) {
            let slot = most.entry(class).or_insert(amount);
            *slot = (*slot).max(amount);
        }
        add(usage, &most);
    }
}
