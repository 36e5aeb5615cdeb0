//! What a pod is told about itself. Pure.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use k3sd_objects::quantity::{Format, Quantity};
use k8s_openapi::api::core::v1::{Container, Pod, ResourceFieldSelector};

use crate::config::Allocatable;
use crate::error::VolumeError;

/// A field of the pod, by its path, as far as volumes can have it.
pub(crate) fn field(pod: &Pod, path: &str) -> Result<String, VolumeError> {
    let metadata = &pod.metadata;
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    if let Some((map, key)) = subscript(path) {
        let found = match map {
            "metadata.labels" => metadata.labels.as_ref(),
            "metadata.annotations" => metadata.annotations.as_ref(),
            _ => return Err(VolumeError::Refused(format!("fieldPath {path:?} does not support subscript"))),
        };
        return Ok(found.and_then(|map| map.get(key)).cloned().unwrap_or_default());
    }
    match path {
        "metadata.labels" => Ok(lines(metadata.labels.as_ref())),
        "metadata.annotations" => Ok(lines(metadata.annotations.as_ref())),
        "metadata.name" => Ok(text(&metadata.name)),
        "metadata.namespace" => Ok(text(&metadata.namespace)),
        "metadata.uid" => Ok(text(&metadata.uid)),
        _ => Err(VolumeError::Refused(format!("unsupported fieldPath: {path}"))),
    }
}

/// `map['key']`.
fn subscript(path: &str) -> Option<(&str, &str)> {
    let (map, rest) = path.split_once("['")?;
    Some((map, rest.strip_suffix("']")?))
}

/// `key="value"` in the order of keys, values escaped as Go has them.
fn lines(map: Option<&BTreeMap<String, String>>) -> String {
    let lines: Vec<_> = map.into_iter().flatten().map(|(key, value)| format!("{key}={}", quoted(value))).collect();
    lines.join("\n")
}

fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for letter in text.chars() {
        match letter {
            '"' | '\\' => quoted.extend(['\\', letter]),
            '\u{7}' => quoted.push_str("\\a"),
            '\u{8}' => quoted.push_str("\\b"),
            '\u{c}' => quoted.push_str("\\f"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            '\u{b}' => quoted.push_str("\\v"),
            _ if letter < ' ' || letter == '\u{7f}' => hex(&mut quoted, "\\x", u32::from(letter), 2),
            _ if !is_printable(letter) && u32::from(letter) < 0x1_0000 => hex(&mut quoted, "\\u", u32::from(letter), 4),
            _ if !is_printable(letter) => hex(&mut quoted, "\\U", u32::from(letter), 8),
            _ => quoted.push(letter),
        }
    }
    quoted.push('"');
    quoted
}

fn hex(text: &mut String, prefix: &str, number: u32, digits: usize) {
    text.push_str(prefix);
    write!(text, "{number:0digits$x}").unwrap_or_default();
}

/// Blanks other than the plain one and control letters count as not printable in Go.
fn is_printable(letter: char) -> bool {
    letter == ' ' || !(letter.is_control() || letter.is_whitespace() || ('\u{e000}'..='\u{f8ff}').contains(&letter))
}

/// A request or limit of a container, in units of the divisor, rounded up. A limit that there isn't is what the node has.
pub(crate) fn resource(pod: &Pod, selector: &ResourceFieldSelector, node: &Allocatable) -> Result<String, VolumeError> {
    let name = selector.container_name.as_deref().unwrap_or_default();
    let container = container(pod, name).ok_or_else(|| VolumeError::Refused(format!("container {name} not found")))?;
    let unsupported = || VolumeError::Refused(format!("unsupported container resource : {}", selector.resource));
    let (list, what) = selector.resource.split_once('.').ok_or_else(unsupported)?;
    let is_cpu = what == "cpu";
    if !is_cpu && what != "memory" && what != "ephemeral-storage" && !what.starts_with("hugepages-") {
        return Err(unsupported());
    }
    let resources = container.resources.as_ref();
    let given = match list {
        "limits" => resources.and_then(|resources| resources.limits.as_ref()),
        "requests" => resources.and_then(|resources| resources.requests.as_ref()),
        _ => return Err(unsupported()),
    };
    let parse = |text: &str| text.parse::<Quantity>().map_err(|error| VolumeError::Refused(error.to_string()));
    let mut amount = given.and_then(|list| list.get(what)).map(|text| parse(&text.0)).transpose()?.unwrap_or_default();
    if amount.is_zero() && list == "limits" {
        amount = match what {
            "cpu" => Quantity::from_milli(node.cpu_milli, Format::DecimalSi),
            "memory" => Quantity::from_i64(node.memory, Format::BinarySi),
            "ephemeral-storage" => Quantity::from_i64(node.ephemeral_storage, Format::BinarySi),
            _ => amount,
        };
    }
    let one = Quantity::from_i64(1, Format::DecimalSi);
    let divisor =
        selector.divisor.as_ref().map(|text| parse(&text.0)).transpose()?.filter(|divisor| !divisor.is_zero());
    let divisor = divisor.unwrap_or(one);
    let in_units = |quantity: Quantity| if is_cpu { quantity.milli_value() } else { quantity.value() };
    let (amount, divisor) = (in_units(amount).max(0), in_units(divisor).max(1));
    Ok((amount / divisor + i64::from(amount % divisor != 0)).to_string())
}

fn container<'a>(pod: &'a Pod, name: &str) -> Option<&'a Container> {
    let spec = pod.spec.as_ref()?;
    spec.containers.iter().chain(spec.init_containers.iter().flatten()).find(|container| container.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod() -> Pod {
        serde_json::from_value(json!({
            "metadata": {
                "name": "n", "namespace": "s", "uid": "u",
                "labels": {"b": "2", "a": "x\"y\\"},
                "annotations": {"k/l": "line\nnext\t\u{1}ü\u{a0}"},
            },
            "spec": {"containers": [{"name": "c", "resources": {
                "limits": {"cpu": "1500m", "hugepages-2Mi": "4Mi"}, "requests": {"memory": "100"},
            }}]},
        }))
        .unwrap()
    }

    #[test]
    fn fields() {
        for (path, expected) in [
            ("metadata.name", "n"),
            ("metadata.namespace", "s"),
            ("metadata.uid", "u"),
            ("metadata.labels", "a=\"x\\\"y\\\\\"\nb=\"2\""),
            ("metadata.annotations", "k/l=\"line\\nnext\\t\\x01ü\\u00a0\""),
            ("metadata.labels['b']", "2"),
            ("metadata.annotations['none']", ""),
        ] {
            assert_eq!(field(&pod(), path).unwrap(), expected, "{path}");
        }
        assert!(field(&pod(), "status.podIP").is_err());
        assert!(field(&pod(), "metadata.name['x']").is_err());
    }

    #[test]
    fn resources_round_up_and_fall_back_to_the_node() {
        let node = Allocatable { cpu_milli: 4000, memory: 1 << 30, ephemeral_storage: 5 };
        for (resource_name, divisor, expected) in [
            ("limits.cpu", json!("1"), "2"),
            ("limits.cpu", json!("1m"), "1500"),
            ("limits.cpu", json!(null), "2"),
            ("limits.memory", json!("1Mi"), "1024"),
            ("limits.memory", json!("0"), "1073741824"),
            ("limits.ephemeral-storage", json!("2"), "3"),
            ("limits.hugepages-2Mi", json!("1Mi"), "4"),
            ("requests.memory", json!("30"), "4"),
            ("requests.cpu", json!("1"), "0"),
        ] {
            let selector = json!({"containerName": "c", "resource": resource_name, "divisor": divisor});
            let selector: ResourceFieldSelector = serde_json::from_value(selector).unwrap();
            assert_eq!(resource(&pod(), &selector, &node).unwrap(), expected, "{resource_name} {divisor}");
        }
        let selector = |container: &str, resource: &str| -> ResourceFieldSelector {
            serde_json::from_value(json!({"containerName": container, "resource": resource})).unwrap()
        };
        assert!(resource(&pod(), &selector("c", "limits.pods"), &node).is_err());
        assert!(resource(&pod(), &selector("d", "limits.cpu"), &node).is_err());
    }
}
