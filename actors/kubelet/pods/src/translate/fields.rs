//! What a pod may read about itself: `fieldRef` and `resourceFieldRef`.

use std::collections::BTreeMap;

use k3sd_objects::quantity::{Format, Quantity};
use k8s_openapi::api::core::v1::{Container, Pod, ResourceFieldSelector};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;

use crate::spec;

/// What isn't in the pod's object, or not yet.
#[derive(Clone, Debug, Default)]
pub struct Here {
    /// The node's addresses, the first one first.
    pub host_addresses: Vec<String>,
    /// The pod's addresses.
    pub pod_addresses: Vec<String>,
    /// What containers without a limit may use at most.
    pub allocatable: BTreeMap<String, Quantity>,
}

/// The value of a field of the pod, as an environment variable may name it.
///
/// # Errors
/// It may not name this one.
pub fn field(pod: &Pod, path: &str, here: &Here) -> Result<String, String> {
    let meta = &pod.metadata;
    if let Some((map, key)) = subscript(path) {
        let of = match map {
            "metadata.labels" => &meta.labels,
            "metadata.annotations" => &meta.annotations,
            _ => return Err(format!("unsupported fieldPath: {path}")),
        };
        return Ok(of.as_ref().and_then(|of| of.get(key)).cloned().unwrap_or_default());
    }
    let spec = spec::spec(pod);
    let first = |list: &[String]| list.first().cloned().unwrap_or_default();
    Ok(match path {
        "metadata.name" => spec::name(pod).to_owned(),
        "metadata.namespace" => spec::namespace(pod).to_owned(),
        "metadata.uid" => spec::uid(pod).to_owned(),
        "spec.nodeName" => spec.node_name.clone().unwrap_or_default(),
        "spec.serviceAccountName" => spec.service_account_name.clone().unwrap_or_default(),
        "status.hostIP" => first(&here.host_addresses),
        "status.hostIPs" => here.host_addresses.join(","),
        "status.podIP" => first(&here.pod_addresses),
        "status.podIPs" => here.pod_addresses.join(","),
        _ => return Err(format!("unsupported fieldPath: {path}")),
    })
}

/// `a.b['c']` in its parts.
fn subscript(path: &str) -> Option<(&str, &str)> {
    let (map, rest) = path.split_once("['")?;
    Some((map, rest.strip_suffix("']")?))
}

/// The value of one of the container's requests or limits, in units of the divisor, rounded up.
///
/// # Errors
/// There is no such resource, or the divisor is none.
pub fn resource(selector: &ResourceFieldSelector, container: &Container, here: &Here) -> Result<String, String> {
    let divisor = match selector.divisor.as_ref().map(|text: &Text| text.0.as_str()) {
        None | Some("" | "0") => Quantity::from_i64(1, Format::DecimalSi),
        Some(text) => text.parse::<Quantity>().map_err(|error| format!("divisor {text:?}: {error}"))?,
    };
    let unknown = || format!("unsupported container resource : {}", selector.resource);
    let (side, name) = selector.resource.split_once('.').ok_or_else(unknown)?;
    let known = matches!(name, "cpu" | "memory" | "ephemeral-storage") || name.starts_with("hugepages-");
    if !known {
        return Err(unknown());
    }
    let resources = container.resources.as_ref();
    let amount = match side {
        "limits" => spec::limit(resources, name).or_else(|| here.allocatable.get(name).copied()),
        "requests" => {
            let list = resources.and_then(|all| all.requests.as_ref());
            list.and_then(|all| all.get(name)).and_then(spec::quantity)
        }
        _ => return Err(unknown()),
    };
    let amount = amount.unwrap_or(Quantity::ZERO);
    let (amount, divisor) =
        if name == "cpu" { (amount.milli_value(), divisor.milli_value()) } else { (amount.value(), divisor.value()) };
    let divisor = divisor.max(1);
    Ok((amount / divisor + i64::from(amount % divisor > 0)).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::pod;

    fn here() -> Here {
        Here {
            host_addresses: vec!["192.0.2.1".into(), "2001:db8::1".into()],
            pod_addresses: vec!["10.42.0.5".into(), "fd00::5".into()],
            allocatable: [("cpu", "4"), ("memory", "1Gi")].map(|(k, v)| (k.to_owned(), v.parse().unwrap())).into(),
        }
    }

    #[test]
    fn fields_are_found() {
        let pod = pod("{metadata: {name: p, namespace: 'n', uid: u, labels: {a.b/c: x}, annotations: {k: 'y'}},
            spec: {nodeName: node, serviceAccountName: sa}}");
        for (path, expected) in [
            ("metadata.name", Ok("p")),
            ("metadata.namespace", Ok("n")),
            ("metadata.uid", Ok("u")),
            ("metadata.labels['a.b/c']", Ok("x")),
            ("metadata.labels['none']", Ok("")),
            ("metadata.annotations['k']", Ok("y")),
            ("spec.nodeName", Ok("node")),
            ("spec.serviceAccountName", Ok("sa")),
            ("status.hostIP", Ok("192.0.2.1")),
            ("status.hostIPs", Ok("192.0.2.1,2001:db8::1")),
            ("status.podIP", Ok("10.42.0.5")),
            ("status.podIPs", Ok("10.42.0.5,fd00::5")),
            ("metadata.labels", Err("unsupported fieldPath: metadata.labels")),
            ("spec.x['y']", Err("unsupported fieldPath: spec.x['y']")),
        ] {
            let expected = expected.map(str::to_owned).map_err(str::to_owned);
            assert_eq!(field(&pod, path, &here()), expected, "{path}");
        }
    }

    #[test]
    fn resources_are_divided_and_rounded_up() {
        let pod = pod(
            "{spec: {containers: [{name: c, resources: {requests: {cpu: 250m, memory: 64Mi}, limits: {cpu: 1500m}}}]}}",
        );
        let container = &pod.spec.as_ref().unwrap().containers[0];
        for (of, divisor, expected) in [
            ("requests.cpu", "", Some("1")),
            ("requests.cpu", "1m", Some("250")),
            ("limits.cpu", "1", Some("2")),
            ("limits.cpu", "0", Some("2")),
            ("requests.memory", "1Mi", Some("64")),
            ("requests.memory", "1Gi", Some("1")),
            ("limits.memory", "1Mi", Some("1024")),
            ("requests.ephemeral-storage", "", Some("0")),
            ("requests.hugepages-2Mi", "1Mi", Some("0")),
            ("requests.gpu", "", None),
            ("cpu", "", None),
            ("limits.cpu", "x", None),
        ] {
            let divisor = (!divisor.is_empty()).then(|| Text(divisor.to_owned()));
            let selector = ResourceFieldSelector { container_name: None, divisor, resource: of.to_owned() };
            assert_eq!(resource(&selector, container, &here()).ok().as_deref(), expected, "{of}");
        }
    }
}
