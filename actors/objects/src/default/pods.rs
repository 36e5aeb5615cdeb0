//! What only pods and their parts get.

use serde_json::{Map, Value, json};

use crate::default::{fill, part};
use crate::quantity::Quantity;

type Fields = Map<String, Value>;

/// A pod itself, not a template of one.
pub(super) fn pod(map: &mut Fields) {
    let Some(spec) = part(map, "spec") else { return };
    fill(spec, "enableServiceLinks", true);
    let on_host = spec.get("hostNetwork").is_some_and(|value| *value == Value::Bool(true));
    for list in ["containers", "initContainers"] {
        let containers = spec.get_mut(list).and_then(Value::as_array_mut);
        for container in containers.into_iter().flatten().filter_map(Value::as_object_mut) {
            if let Some(Value::Object(resources)) = container.get_mut("resources") {
                request_limits(resources);
            }
            if on_host {
                host_ports(container);
            }
        }
    }
}

/// What is limited is asked for as well.
fn request_limits(resources: &mut Fields) {
    let Some(Value::Object(limits)) = resources.get("limits").cloned() else { return };
    let Some(requests) = part(resources, "requests") else { return };
    for (resource, limit) in limits {
        requests.entry(resource).or_insert(limit);
    }
}

/// On the host's network, each port of a container is one of the host.
fn host_ports(container: &mut Fields) {
    let ports = container.get_mut("ports").and_then(Value::as_array_mut);
    for port in ports.into_iter().flatten().filter_map(Value::as_object_mut) {
        if let Some(number) = port.get("containerPort").cloned() {
            fill(port, "hostPort", number);
        }
    }
}

/// The account has an old name, which clients still read and write.
pub(super) fn spec(map: &mut Fields) {
    for (from, to) in [("serviceAccount", "serviceAccountName"), ("serviceAccountName", "serviceAccount")] {
        if let Some(account) = map.get(from).cloned() {
            // The new name wins.
            if to == "serviceAccount" || !map.contains_key(to) {
                map.insert(to.to_owned(), account);
            }
        }
    }
}

pub(super) fn container(map: &mut Fields) {
    let image = map.get("image").and_then(Value::as_str).unwrap_or_default();
    let policy = pull_policy(image);
    fill(map, "imagePullPolicy", policy);
}

pub(super) fn image_volume(map: &mut Fields) {
    let image = map.get("reference").and_then(Value::as_str).unwrap_or_default();
    let policy = pull_policy(image);
    fill(map, "pullPolicy", policy);
}

/// An image without a tag is the latest one, and that changes under its name.
fn pull_policy(image: &str) -> &'static str {
    let (name, digest) = image.split_once('@').map_or((image, None), |(name, digest)| (name, Some(digest)));
    // A colon before the last slash belongs to the port of a registry.
    let last = name.rsplit('/').next().unwrap_or_default();
    let tag = last.split_once(':').map(|(_, tag)| tag);
    match (tag, digest) {
        (Some("latest"), _) => "Always",
        (None, None) if !image.is_empty() => "Always",
        _ => "IfNotPresent",
    }
}

/// A volume of nothing is an empty directory.
pub(super) fn volume(map: &mut Fields) {
    if map.keys().all(|key| key == "name") {
        map.insert("emptyDir".to_owned(), json!({}));
    }
}

/// Resources that a pod may name as a whole.
fn is_of_pods(resource: &str) -> bool {
    matches!(resource, "cpu" | "memory") || resource.starts_with("hugepages-")
}

/// A pod that limits itself as a whole asks for what its containers ask for together, or else for its limits.
pub(super) fn pod_resources(map: &mut Fields) {
    let Some(Value::Object(spec)) = map.get_mut("spec") else { return };
    let stated = |list: &str| spec.get("resources").is_some_and(|resources| resources.get(list).is_some());
    if !stated("limits") && !stated("requests") {
        return;
    }
    let requests = together(spec, "requests");
    let limits = together(spec, "limits");
    let Some(Value::Object(resources)) = spec.get_mut("resources") else { return };
    // Huge pages can't be overcommitted, so the limit of the whole is the sum of the limits.
    let huge: Vec<(String, Quantity)> = limits.into_iter().filter(|(name, _)| name.starts_with("hugepages-")).collect();
    if !huge.is_empty() {
        add_missing(resources, "limits", huge);
    }
    if resources.get("limits").and_then(Value::as_object).is_none_or(Map::is_empty) {
        return;
    }
    let mut missing: Vec<(String, Quantity)> = requests.into_iter().filter(|(name, _)| is_of_pods(name)).collect();
    let own = resources.get("limits").and_then(Value::as_object).into_iter().flatten();
    let own = own.filter(|(name, _)| is_of_pods(name));
    missing.extend(own.filter_map(|(name, limit)| Some((name.clone(), Quantity::from_json(limit).ok()?))));
    if !missing.is_empty() {
        add_missing(resources, "requests", missing);
    }
}

fn add_missing(resources: &mut Fields, list: &str, amounts: Vec<(String, Quantity)>) {
    let Some(target) = part(resources, list) else { return };
    for (name, amount) in amounts {
        target.entry(name).or_insert_with(|| Value::String(amount.to_string()));
    }
}

/// What the containers of a pod need together: all of the regular ones and sidecars at once, or the greediest of the
/// others, each with the sidecars before it.
fn together(spec: &Fields, list: &str) -> Vec<(String, Quantity)> {
    let mut regular = Amounts::default();
    let mut sidecars = Amounts::default();
    let mut initial = Amounts::default();
    for container in containers(spec, "containers") {
        regular.add(container, list);
    }
    for container in containers(spec, "initContainers") {
        if container["restartPolicy"] == "Always" {
            sidecars.add(container, list);
            regular.add(container, list);
            initial.raise(&sidecars);
        } else {
            let mut alone = sidecars.clone();
            alone.add(container, list);
            initial.raise(&alone);
        }
    }
    regular.raise(&initial);
    regular.0
}

fn containers<'a>(spec: &'a Fields, list: &str) -> impl Iterator<Item = &'a Value> + use<'a> {
    spec.get(list).and_then(Value::as_array).into_iter().flatten()
}

#[derive(Debug, Clone, Default)]
struct Amounts(Vec<(String, Quantity)>);

impl Amounts {
    fn add(&mut self, container: &Value, list: &str) {
        for (name, amount) in container["resources"][list].as_object().into_iter().flatten() {
            let Ok(amount) = Quantity::from_json(amount) else { continue };
            match self.0.iter_mut().find(|(other, _)| other == name) {
                Some((_, sum)) => *sum += amount,
                None => self.0.push((name.clone(), amount)),
            }
        }
    }

    fn raise(&mut self, other: &Self) {
        for (name, amount) in &other.0 {
            match self.0.iter_mut().find(|(own, _)| own == name) {
                Some((_, own)) => *own = (*own).max(*amount),
                None => self.0.push((name.clone(), *amount)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tag_of_an_image_decides_when_it_is_pulled() {
        let digest = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
        for (image, policy) in [
            ("nginx", "Always"),
            ("nginx:latest", "Always"),
            ("nginx:1.25", "IfNotPresent"),
            ("registry:5000/nginx", "Always"),
            ("registry:5000/a/nginx:1", "IfNotPresent"),
            (&format!("nginx@{digest}"), "IfNotPresent"),
            (&format!("nginx:latest@{digest}"), "Always"),
            ("", "IfNotPresent"),
        ] {
            assert_eq!(pull_policy(image), policy, "{image}");
        }
    }
}
