//! What answers need of Services, EndpointSlices and Namespaces, read from their JSON. All else is dropped while it is read.

use std::borrow::Cow;
use std::net::IpAddr;

use serde::Deserialize;

use crate::wire::name::{LABEL_BYTES_MAX, NAME_BYTES_MAX, Name};

/// The protocol of a port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Protocol {
    #[default]
    Tcp,
    Udp,
    Sctp,
}

impl Protocol {
    /// In the order of their numbers.
    pub(crate) const ALL: [Self; 3] = [Self::Tcp, Self::Udp, Self::Sctp];

    /// As names have it.
    pub(crate) fn name(self) -> &'static [u8] {
        match self {
            Self::Tcp => b"tcp",
            Self::Udp => b"udp",
            Self::Sctp => b"sctp",
        }
    }
}

/// A port that has a name, or none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Port {
    /// In small letters; may be empty.
    pub(crate) name: Box<str>,
    pub(crate) protocol: Protocol,
    pub(crate) number: u16,
}

/// Where a Service is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// At addresses of its own.
    Addresses(Box<[IpAddr]>),
    /// Where its endpoints are.
    Headless,
    /// At another name.
    External(Name),
    /// Nowhere: an external name that is none.
    Nowhere,
}

/// A Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Service {
    pub(crate) place: Place,
    pub(crate) ports: Box<[Port]>,
}

/// An address that is ready to be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Endpoint {
    pub(crate) address: IpAddr,
    /// In small letters.
    pub(crate) hostname: Option<Box<str>>,
}

/// An EndpointSlice, without those that aren't ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Slice {
    pub(crate) name: Box<str>,
    pub(crate) endpoints: Box<[Endpoint]>,
    pub(crate) ports: Box<[Port]>,
}

/// The namespace of an EndpointSlice, as a label with its length, and its name.
pub(crate) type SliceKey = (Box<[u8]>, Box<str>);

/// One difference between what was and what is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// A Service is there, or gone. The key is its name and its namespace as labels.
    Service { key: Box<[u8]>, service: Option<Service> },
    /// An EndpointSlice is there, or gone. The key is its namespace and its name, the owner is the key of the Service.
    Slice { key: SliceKey, owner: Option<Box<[u8]>>, slice: Option<Slice> },
    /// A Namespace is there, or gone.
    Namespace { name: Box<[u8]>, exists: bool },
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Meta<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(borrow)]
    namespace: Cow<'a, str>,
    labels: Option<Labels>,
}

/// Of all labels the one that counts: it says to which Service an EndpointSlice belongs.
#[derive(Default, Deserialize)]
struct Labels {
    #[serde(rename = "kubernetes.io/service-name")]
    service: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ServiceObject<'a> {
    #[serde(borrow)]
    metadata: Meta<'a>,
    #[serde(borrow)]
    spec: ServiceSpec<'a>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct ServiceSpec<'a> {
    #[serde(rename = "type", borrow)]
    kind: Option<Cow<'a, str>>,
    #[serde(rename = "clusterIP", borrow)]
    cluster_ip: Option<Cow<'a, str>>,
    #[serde(rename = "clusterIPs")]
    cluster_ips: Option<Vec<String>>,
    #[serde(borrow)]
    external_name: Option<Cow<'a, str>>,
    ports: Option<Vec<PortObject>>,
}

#[derive(Deserialize)]
struct PortObject {
    name: Option<String>,
    protocol: Option<String>,
    port: Option<u16>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct SliceObject<'a> {
    #[serde(borrow)]
    metadata: Meta<'a>,
    endpoints: Option<Vec<EndpointObject>>,
    ports: Option<Vec<PortObject>>,
}

#[derive(Deserialize)]
struct EndpointObject {
    #[serde(default)]
    addresses: Vec<String>,
    hostname: Option<String>,
    conditions: Option<Conditions>,
}

#[derive(Deserialize)]
struct Conditions {
    ready: Option<bool>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Named<'a> {
    #[serde(borrow)]
    metadata: Meta<'a>,
}

/// Name and namespace as labels, the way a question has them one behind the other. `None` for what is no label.
pub(crate) fn key(name: &str, namespace: &str) -> Option<Box<[u8]>> {
    let mut key = Vec::with_capacity(name.len() + namespace.len() + 2);
    for label in [name, namespace] {
        key.extend(label_of(label)?);
    }
    Some(key.into())
}

fn label_of(text: &str) -> Option<Box<[u8]>> {
    let length =
        u8::try_from(text.len()).ok().filter(|length| (1..=LABEL_BYTES_MAX).contains(&usize::from(*length)))?;
    let mut label = vec![length];
    label.extend(text.bytes().map(|byte| byte.to_ascii_lowercase()));
    Some(label.into())
}

/// Reads a Service; nothing for one that no name leads to.
pub(crate) fn service(json: &str, is_gone: bool) -> serde_json::Result<Option<Change>> {
    let ServiceObject { metadata, spec } = serde_json::from_str(json)?;
    let Some(key) = key(&metadata.name, &metadata.namespace) else { return Ok(None) };
    if is_gone {
        return Ok(Some(Change::Service { key, service: None }));
    }
    let ports = ports(spec.ports.unwrap_or_default());
    let place = if spec.kind.as_deref() == Some("ExternalName") {
        external(spec.external_name.as_deref().unwrap_or_default())
    } else if spec.cluster_ip.as_deref() == Some("None") {
        Place::Headless
    } else {
        let all = spec.cluster_ips.unwrap_or_default();
        let one = spec.cluster_ip.as_deref().filter(|_| all.is_empty());
        Place::Addresses(all.iter().map(String::as_str).chain(one).filter_map(|text| text.parse().ok()).collect())
    };
    Ok(Some(Change::Service { key, service: Some(Service { place, ports }) }))
}

fn external(text: &str) -> Place {
    if text.parse::<IpAddr>().is_ok() {
        return Place::Nowhere;
    }
    Name::parse(text).map_or(Place::Nowhere, Place::External)
}

fn ports(objects: Vec<PortObject>) -> Box<[Port]> {
    let read = |object: PortObject| Port {
        name: object.name.unwrap_or_default().to_ascii_lowercase().into(),
        protocol: match object.protocol.as_deref() {
            Some("UDP") => Protocol::Udp,
            Some("SCTP") => Protocol::Sctp,
            _ => Protocol::Tcp,
        },
        number: object.port.unwrap_or_default(),
    };
    objects.into_iter().map(read).collect()
}

/// Reads an EndpointSlice; nothing for one that no name can lead to.
pub(crate) fn slice(json: &str, is_gone: bool) -> serde_json::Result<Option<Change>> {
    let SliceObject { metadata, endpoints, ports: port_objects } = serde_json::from_str(json)?;
    let namespace = label_of(&metadata.namespace).filter(|_| metadata.name.len() <= NAME_BYTES_MAX);
    let Some(namespace) = namespace else { return Ok(None) };
    let slice_key = (namespace, metadata.name.as_ref().into());
    let service = metadata.labels.and_then(|labels| labels.service);
    let owner = service.and_then(|service| key(&service, &metadata.namespace));
    if is_gone || owner.is_none() {
        return Ok(Some(Change::Slice { key: slice_key, owner: None, slice: None }));
    }
    let is_ready = |endpoint: &EndpointObject| {
        endpoint.conditions.as_ref().and_then(|conditions| conditions.ready).unwrap_or(true)
    };
    let mut read = Vec::new();
    for endpoint in endpoints.unwrap_or_default().into_iter().filter(is_ready) {
        let hostname = endpoint.hostname.filter(|name| (1..=LABEL_BYTES_MAX).contains(&name.len()));
        let hostname: Option<Box<str>> = hostname.map(|name| name.to_ascii_lowercase().into());
        for address in endpoint.addresses.iter().filter_map(|text| text.parse().ok()) {
            read.push(Endpoint { address, hostname: hostname.clone() });
        }
    }
    let ports = ports(port_objects.unwrap_or_default());
    let slice = Slice { name: metadata.name.as_ref().into(), endpoints: read.into(), ports };
    Ok(Some(Change::Slice { key: slice_key, owner, slice: Some(slice) }))
}

/// Reads a Namespace.
pub(crate) fn namespace(json: &str, is_gone: bool) -> serde_json::Result<Option<Change>> {
    let Named { metadata } = serde_json::from_str(json)?;
    Ok(label_of(&metadata.name).map(|name| Change::Namespace { name, exists: !is_gone }))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read_service(spec: Value) -> Service {
        let object = json!({"metadata": {"name": "web", "namespace": "shop", "labels": {"a": "b"}}, "spec": spec});
        match service(&object.to_string(), false) {
            Ok(Some(Change::Service { key, service: Some(service) })) => {
                assert_eq!(&*key, b"\x03web\x04shop");
                service
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn services_are_read_whatever_they_are() {
        let both = json!({"clusterIP": "10.43.0.1", "clusterIPs": ["10.43.0.1", "fd00::1"],
            "ports": [{"name": "HTTP", "port": 80, "targetPort": "http"}, {"port": 53, "protocol": "UDP"}]});
        let read = read_service(both);
        assert!(matches!(&read.place, Place::Addresses(all) if all.len() == 2));
        let ports: Vec<_> = read.ports.iter().map(|port| (&*port.name, port.protocol, port.number)).collect();
        assert_eq!(ports, [("http", Protocol::Tcp, 80), ("", Protocol::Udp, 53)]);
        assert!(
            matches!(read_service(json!({"clusterIP": "10.43.0.1"})).place, Place::Addresses(all) if all.len() == 1)
        );
        assert_eq!(read_service(json!({"clusterIP": "None"})).place, Place::Headless);
        let name = read_service(json!({"type": "ExternalName", "externalName": "db.example.org"})).place;
        assert!(matches!(name, Place::External(name) if name.to_string() == "db.example.org."));
        let address = read_service(json!({"type": "ExternalName", "externalName": "192.0.2.1"})).place;
        assert_eq!(address, Place::Nowhere);
    }

    #[test]
    fn slices_keep_what_is_ready_and_belong_to_a_service() {
        let object = json!({"metadata": {"name": "web-1", "namespace": "shop", "labels": {"kubernetes.io/service-name": "web"}},
            "endpoints": [
                {"addresses": ["10.42.0.5"], "hostname": "Web-0", "conditions": {"ready": true}},
                {"addresses": ["10.42.0.6"], "conditions": {"ready": false}},
                {"addresses": ["10.42.0.7"], "conditions": {}}],
            "ports": [{"name": "http", "protocol": "TCP", "port": 8080}]});
        let Ok(Some(Change::Slice { key, owner, slice: Some(read) })) = slice(&object.to_string(), false) else {
            panic!("a slice");
        };
        assert_eq!((&*key.0, &*key.1, owner.as_deref()), (&b"\x04shop"[..], "web-1", Some(&b"\x03web\x04shop"[..])));
        let names: Vec<_> = read.endpoints.iter().map(|endpoint| endpoint.hostname.as_deref()).collect();
        assert_eq!(names, [Some("web-0"), None]);
        let lonely = json!({"metadata": {"name": "x", "namespace": "shop"}, "endpoints": null, "ports": null});
        assert!(matches!(slice(&lonely.to_string(), false), Ok(Some(Change::Slice { owner: None, slice: None, .. }))));
        assert!(service("{", false).is_err());
    }
}
