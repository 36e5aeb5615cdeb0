//! Where a request has to go: pure, over objects as JSON.

use k3sd_apiserver_access::Query;
use k3sd_objects::status::go::quote;
use k3sd_objects::status::{Qualified, Status, field};
use serde_json::Value;

use super::link::{Security, Target};

/// The port of kubelets that don't say theirs.
const KUBELET_PORT: u16 = 10250;
/// Kinds of a node's addresses, the best first: K3s's `--kubelet-preferred-address-types`.
const ADDRESS_KINDS: [&str; 3] = ["InternalIP", "ExternalIP", "Hostname"];

/// A place, and what to ask for there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Location {
    pub(crate) target: Target,
    pub(crate) security: Security,
    /// Path and query.
    pub(crate) path: String,
}

fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

fn items<'a>(value: &'a Value, pointer: &str) -> &'a [Value] {
    value.pointer(pointer).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

fn names(containers: &[Value]) -> String {
    containers.iter().map(|container| text(container, "/name")).collect::<Vec<_>>().join(" ")
}

/// The container that is meant.
///
/// # Errors
/// 400: there is none of that name, or several and none was named.
pub(crate) fn container(pod: &Value, wanted: &str) -> Result<String, Status> {
    let name = text(pod, "/metadata/name");
    let (usual, init) = (items(pod, "/spec/containers"), items(pod, "/spec/initContainers"));
    if !wanted.is_empty() {
        let mut all = usual.iter().chain(init).chain(items(pod, "/spec/ephemeralContainers"));
        let refused = || Status::bad_request(format!("container {wanted} is not valid for pod {name}"));
        return all.any(|container| text(container, "/name") == wanted).then(|| wanted.to_owned()).ok_or_else(refused);
    }
    let unnamed = format!("a container name must be specified for pod {name}");
    match usual {
        [] => Err(Status::bad_request(unnamed)),
        [only] => Ok(text(only, "/name").to_owned()),
        several => {
            let mut why = format!("{unnamed}, choose one of: [{}]", names(several));
            if !init.is_empty() {
                why.push_str(&format!(" or one of the init containers: [{}]", names(init)));
            }
            Err(Status::bad_request(why))
        }
    }
}

/// The kubelet of a node.
///
/// # Errors
/// 500: the node has no address yet.
pub(crate) fn kubelet(node: &Value) -> Result<Target, Status> {
    let addresses = items(node, "/status/addresses");
    let of_kind = |kind: &&str| {
        let found = addresses.iter().find(|address| text(address, "/type") == *kind);
        found.map(|address| text(address, "/address").to_owned())
    };
    let host = ADDRESS_KINDS.iter().find_map(of_kind).filter(|host| !host.is_empty()).ok_or_else(|| {
        let known: Vec<&str> = addresses.iter().map(|address| text(address, "/address")).collect();
        Status::internal_error(format!("no preferred addresses found; known addresses: {known:?}"))
    })?;
    let port = node.pointer("/status/daemonEndpoints/kubeletEndpoint/Port").and_then(Value::as_u64);
    let port = port.and_then(|port| u16::try_from(port).ok()).filter(|port| *port > 0).unwrap_or(KUBELET_PORT);
    Ok(Target { host, port, kubelet_of: Some(text(node, "/metadata/name").to_owned()) })
}

fn encoded(text: &str) -> String {
    text.bytes().fold(String::new(), |mut all, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            all.push(char::from(byte));
        } else {
            all.push_str(&format!("%{byte:02X}"));
        }
        all
    })
}

/// The query of an exec or attach as kubelets read it.
pub(crate) fn exec_query(query: &Query) -> String {
    let mut pairs = Vec::new();
    for (theirs, ours) in [("stdin", "input"), ("stdout", "output"), ("stderr", "error"), ("tty", "tty")] {
        if query.is_on(theirs) {
            pairs.push(format!("{ours}=1"));
        }
    }
    pairs.extend(query.all("command").map(|word| format!("command={}", encoded(word))));
    pairs.join("&")
}

/// The query of a port-forward as kubelets read it.
pub(crate) fn ports_query(query: &Query) -> String {
    let ports: Vec<String> = query.all("ports").flat_map(|ports| ports.split(',')).map(encoded).collect();
    if ports.is_empty() { String::new() } else { format!("port={}", ports.join("%2C")) }
}

/// The query of a log as kubelets read it.
///
/// # Errors
/// 400 for what is no number, 422 for what makes no sense.
pub(crate) fn log_query(query: &Query, pod: &str) -> Result<String, Status> {
    let mut errors = Vec::new();
    let mut pairs = Vec::new();
    for flag in ["follow", "previous", "timestamps"] {
        if query.is_on(flag) {
            pairs.push(format!("{flag}=true"));
        }
    }
    let at_least = [("sinceSeconds", 1), ("tailLines", 0), ("limitBytes", 1)];
    for (key, least) in at_least {
        let Some(value) = query.first(key).filter(|value| !value.is_empty()) else { continue };
        let number: i64 = value
            .parse()
            .map_err(|_| Status::bad_request(format!("strconv.ParseInt: parsing {}: invalid syntax", quote(value))))?;
        if number < least {
            let rule = if least == 0 { "must be greater than or equal to 0" } else { "must be greater than 0" };
            errors.push(field::Error::invalid(&field::Path::new(key), number, rule));
        }
        pairs.push(format!("{key}={number}"));
    }
    if let Some(time) = query.first("sinceTime").filter(|time| !time.is_empty()) {
        let parsed: jiff::Timestamp = time.parse().map_err(|_| {
            let layout = "\"2006-01-02T15:04:05Z07:00\"";
            Status::bad_request(format!("parsing time {0} as {layout}: cannot parse {0} as \"2006\"", quote(time)))
        })?;
        pairs.push(format!("sinceTime={}", encoded(&parsed.to_string())));
        if query.first("sinceSeconds").is_some_and(|seconds| !seconds.is_empty()) {
            let why = "at most one of `sinceTime` or `sinceSeconds` may be specified";
            errors.push(field::Error::forbidden(&field::Path::new(""), why));
        }
    }
    if let Some(stream) = query.first("stream").filter(|stream| !stream.is_empty()) {
        if !["All", "Stdout", "Stderr"].contains(&stream) {
            let known = ["All", "Stderr", "Stdout"];
            errors.push(field::Error::not_supported(&field::Path::new("stream"), stream, &known));
        } else if stream != "All" && query.first("tailLines").is_some_and(|lines| !lines.is_empty()) {
            let why = "`tailLines` and specific `stream` are mutually exclusive for now";
            errors.push(field::Error::forbidden(&field::Path::new(""), why));
        }
        pairs.push(format!("stream={}", encoded(stream)));
    }
    if errors.is_empty() {
        return Ok(pairs.join("&"));
    }
    Err(Status::invalid(Qualified::new("", "PodLogOptions"), pod, &errors))
}

/// A name with what may stand around it: `[scheme:]name[:port]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Named<'a> {
    pub(crate) https: bool,
    pub(crate) name: &'a str,
    pub(crate) port: &'a str,
}

/// Reads such a name.
///
/// # Errors
/// 400: it isn't one.
pub(crate) fn named<'a>(text: &'a str, what: &str) -> Result<Named<'a>, Status> {
    let parts: Vec<&str> = text.split(':').collect();
    let found = match parts[..] {
        [name] => Some(("", name, "")),
        [name, port] => Some(("", name, port)),
        [scheme, name, port] => Some((scheme, name, port)),
        _ => None,
    };
    let fits = |(scheme, name, _): &(&str, &str, &str)| matches!(*scheme, "" | "http" | "https") && !name.is_empty();
    let (scheme, name, port) =
        found.filter(fits).ok_or_else(|| Status::bad_request(format!("invalid {what} request {}", quote(text))))?;
    Ok(Named { https: scheme == "https", name, port })
}

/// Whether requests may be led to an address: not to this machine's own, nor to whoever is next to it.
fn can_be_reached(address: &str) -> bool {
    address.parse().is_ok_and(|address: std::net::IpAddr| match address.to_canonical() {
        std::net::IpAddr::V4(address) => {
            !(address.is_loopback() || address.is_link_local() || address.is_multicast() || address.is_unspecified())
        }
        std::net::IpAddr::V6(address) => {
            !(address.is_loopback()
                || address.is_unicast_link_local()
                || address.is_multicast()
                || address.is_unspecified())
        }
    })
}

fn security(named: Named<'_>) -> Security {
    if named.https { Security::Anybody } else { Security::None }
}

fn port_number(port: &str, https: bool) -> Result<u16, Status> {
    match port {
        "" => Ok(if https { 443 } else { 80 }),
        port => port.parse().map_err(|_| Status::bad_request(format!("invalid port {}", quote(port)))),
    }
}

/// Where a pod listens.
///
/// # Errors
/// 400: it has no address, or one that is nobody's business.
pub(crate) fn pod(pod: &Value, named: Named<'_>) -> Result<(Target, Security), Status> {
    let first = items(pod, "/spec/containers").iter().find_map(|container| {
        items(container, "/ports").first()?.get("containerPort")?.as_u64().and_then(|port| u16::try_from(port).ok())
    });
    let port = match (named.port, first) {
        ("", Some(first)) => first,
        (port, _) => port_number(port, named.https)?,
    };
    let address = text(pod, "/status/podIP");
    if !can_be_reached(address) {
        return Err(Status::bad_request("address not allowed"));
    }
    Ok((Target { host: address.to_owned(), port, kubelet_of: None }, security(named)))
}

/// Where a service's endpoints listen; `random` chooses one of those that are ready.
///
/// # Errors
/// 503: there is no such port, or nobody is ready.
pub(crate) fn service(
    service: &Value,
    slices: &[Value],
    named: Named<'_>,
    random: u64,
) -> Result<(Target, Security), Status> {
    let mut port_name = named.port.to_owned();
    if let Ok(number) = named.port.parse::<u64>() {
        let mut ports = items(service, "/spec/ports").iter();
        let found = ports.find(|port| port.get("port").and_then(Value::as_u64) == Some(number));
        let missing = || {
            let name = quote(named.name);
            Status::service_unavailable(format!("no service port {number} found for service {name}"))
        };
        text(found.ok_or_else(missing)?, "/name").clone_into(&mut port_name);
    }
    let mut ready = Vec::new();
    for slice in slices {
        let ports = items(slice, "/ports").iter().filter(|port| text(port, "/name") == port_name);
        let Some(port) = ports.filter_map(|port| port.get("port")?.as_u64()).find_map(|port| u16::try_from(port).ok())
        else {
            continue;
        };
        for endpoint in items(slice, "/endpoints") {
            let is_ready = endpoint.pointer("/conditions/ready").and_then(Value::as_bool).unwrap_or(true);
            let addresses = items(endpoint, "/addresses").iter().filter_map(Value::as_str);
            ready.extend(
                addresses.take(1).filter(|address| is_ready && can_be_reached(address)).map(|host| (host, port)),
            );
        }
    }
    let nobody = || Status::service_unavailable(format!("no endpoints available for service {}", quote(named.name)));
    let chosen = random.checked_rem(ready.len() as u64).and_then(|index| usize::try_from(index).ok());
    let (host, port) = chosen.and_then(|index| ready.get(index)).copied().ok_or_else(nobody)?;
    Ok((Target { host: host.to_owned(), port, kubelet_of: None }, security(named)))
}

/// Where a node listens: its kubelet, unless another port is named.
///
/// # Errors
/// See [`kubelet`]; 400 for a port that is none.
pub(crate) fn node(node: &Value, named: Named<'_>) -> Result<(Target, Security), Status> {
    let kubelet = kubelet(node)?;
    if named.port.is_empty() || named.port == kubelet.port.to_string() {
        return Ok((kubelet, Security::Kubelet));
    }
    if kubelet.host.parse::<std::net::IpAddr>().is_ok() && !can_be_reached(&kubelet.host) {
        return Err(Status::bad_request("address not allowed"));
    }
    let port = port_number(named.port, named.https)?;
    Ok((Target { port, kubelet_of: None, ..kubelet }, security(named)))
}

#[cfg(test)]
mod tests;
