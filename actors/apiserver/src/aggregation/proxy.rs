//! Sends a request to the service that answers for its version, and the answer back.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{AUTHORIZATION, HOST, HeaderMap, HeaderName, HeaderValue, SEC_WEBSOCKET_PROTOCOL};
use http::request::Parts;
use http::{Request, Response, Uri};
use k3sd_apiserver_access::User;
use k3sd_apiserver_store::{ReadAt, Stores};
use k3sd_client::streams::{Answered, exchange, passed_on};
use k3sd_objects::object::Object;
use k3sd_objects::status::Status;
use k3sd_runtime::Clock;
use serde_json::Value;

use super::Aggregation;
use super::table::{Backend, Elsewhere};
use crate::front::Body;
use crate::pipeline::text;
use crate::streams::{Dial, Named, Target, joined, service_target, shake};

/// Slices say whose they are.
const SERVICE_LABEL: &str = "kubernetes.io/service-name";
const REMOTE_USER: HeaderName = HeaderName::from_static("x-remote-user");
const REMOTE_UID: HeaderName = HeaderName::from_static("x-remote-uid");
const REMOTE_GROUP: HeaderName = HeaderName::from_static("x-remote-group");
/// Subprotocols of WebSockets that are no such, but tokens.
const BEARER_PROTOCOL: &str = "base64url.bearer.authorization.k8s.io.";
/// What the keys of further attributes stand behind.
const REMOTE_EXTRA: &str = "x-remote-extra-";

/// A request on its way to somebody else.
pub(crate) struct Passed<'a> {
    pub(crate) config: &'a Aggregation,
    pub(crate) stores: &'a Stores,
    pub(crate) clock: &'a Clock,
    pub(crate) user: &'a User,
    pub(crate) parts: &'a Parts,
}

/// Sends it there.
pub(crate) async fn pass<B>(passed: Passed<'_>, to: &Elsewhere, body: B) -> Response<Body>
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    if !to.is_available {
        return text(503, "service unavailable\n");
    }
    match passed.sent(to, body).await {
        Ok(response) => response,
        Err(error) => {
            let Backend { namespace, name, .. } = &to.backend;
            tracing::debug!(%error, namespace, name, "a service doesn't answer for its version of the API");
            text(503, &format!("error trying to reach service: {error}\n"))
        }
    }
}

impl Passed<'_> {
    async fn sent<B>(&self, to: &Elsewhere, body: B) -> io::Result<Response<Body>>
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let target = target(self.stores, self.clock, &to.backend).await.map_err(told)?;
        let path = self.parts.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
        let mut request = Request::new(body);
        *request.method_mut() = self.parts.method.clone();
        *request.uri_mut() = path.parse::<Uri>().map_err(io::Error::other)?;
        *request.headers_mut() = headers(&self.parts.headers, self.user, &target)?;
        let answered = send(self.config, to, &target, request).await?;
        joined(self.clock, answered).await.map_err(told)
    }
}

fn told(status: Status) -> io::Error {
    io::Error::other(status.message)
}

/// Connects to the service, and waits for the head of its answer.
pub(super) async fn send<B>(
    config: &Aggregation,
    to: &Elsewhere,
    target: &Target,
    request: Request<B>,
) -> io::Result<Response<Answered>>
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let tls = to.tls.as_ref().map_err(|why| io::Error::other(Arc::clone(why).to_string()))?;
    let dial = config.dial.clone().unwrap_or_else(Dial::direct);
    let stream = dial.open(target).await?;
    // Certificates of services are for their names in the cluster, whatever address answers.
    let name = format!("{}.{}.svc", to.backend.name, to.backend.namespace);
    let stream = shake(tls, &name, stream).await?;
    exchange(stream, request).await.map_err(|error| {
        let source = std::error::Error::source(&error);
        io::Error::other(source.map_or_else(|| error.to_string(), ToString::to_string))
    })
}

/// The service, and its slices.
pub(super) async fn objects(stores: &Stores, backend: &Backend) -> Result<(Option<Value>, Vec<Value>), Status> {
    let missing = || Status::service_unavailable("services are not served yet");
    let services = stores.get("", "services").ok_or_else(missing)?;
    let service = services.get(&backend.namespace, &backend.name, ReadAt::Any).await?;
    let slices = stores.get("discovery.k8s.io", "endpointslices").ok_or_else(missing)?;
    let snapshot = slices.snapshot();
    let its = snapshot.in_namespace(&backend.namespace).filter(|slice| is_slice_of(slice, &backend.name));
    Ok((service.map(|service| service.value()), its.map(Object::value).collect()))
}

/// Whether a slice is of this service.
pub(super) fn is_slice_of(slice: &Object, service: &str) -> bool {
    slice.label(SERVICE_LABEL) == Some(service)
}

/// Where a service listens: at one of its ready endpoints, or under the name that it stands for.
pub(super) async fn target(stores: &Stores, clock: &Clock, backend: &Backend) -> Result<Target, Status> {
    let (service, slices) = objects(stores, backend).await?;
    let Backend { name, port, .. } = backend;
    let service = service.ok_or_else(|| Status::service_unavailable(format!("service \"{name}\" not found")))?;
    if service.pointer("/spec/type").and_then(Value::as_str) == Some("ExternalName") {
        let host = service.pointer("/spec/externalName").and_then(Value::as_str).unwrap_or_default();
        return Ok(Target { host: host.to_owned(), port: *port, kubelet_of: None });
    }
    let port = port.to_string();
    let random = clock.rng("aggregation/endpoint").next_u64();
    let named = Named { https: true, name, port: &port };
    service_target(&service, &slices, named, random).map(|(target, _)| target)
}

/// The headers that go on: who asks, as we know it, and nothing of how he showed it.
fn headers(asked: &HeaderMap, user: &User, target: &Target) -> io::Result<HeaderMap> {
    let mut headers = passed_on(asked);
    let is_secret = |name: &HeaderName| {
        let name = name.as_str();
        name.starts_with("impersonate-") || name.starts_with("x-remote-")
    };
    let secrets: Vec<HeaderName> = headers.keys().filter(|name| is_secret(name)).cloned().collect();
    for name in secrets {
        headers.remove(name);
    }
    headers.remove(AUTHORIZATION);
    if let Some(protocols) = headers.remove(SEC_WEBSOCKET_PROTOCOL) {
        // A token may be among them.
        let words = protocols.to_str().unwrap_or_default().split(',').map(str::trim);
        let kept: Vec<&str> = words.filter(|word| !word.starts_with(BEARER_PROTOCOL)).collect();
        if !kept.is_empty() {
            headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_str(&kept.join(", ")).map_err(io::Error::other)?);
        }
    }
    headers.insert(HOST, HeaderValue::from_str(&target.authority()).map_err(io::Error::other)?);
    identify(&mut headers, user)?;
    Ok(headers)
}

/// Says who asks.
pub(super) fn identify(headers: &mut HeaderMap, user: &User) -> io::Result<()> {
    let value = |text: &str| HeaderValue::from_bytes(text.as_bytes()).map_err(io::Error::other);
    headers.insert(REMOTE_USER, value(&user.name)?);
    if !user.uid.is_empty() {
        headers.insert(REMOTE_UID, value(&user.uid)?);
    }
    for group in &user.groups {
        headers.append(REMOTE_GROUP, value(group)?);
    }
    for (key, values) in &user.extra {
        let name = format!("{REMOTE_EXTRA}{}", escaped(key));
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(io::Error::other)?;
        for text in values {
            headers.append(name.clone(), value(text)?);
        }
    }
    Ok(())
}

/// A key as it can stand in the name of a header: what can't is written with percent signs, and so are those.
pub(super) fn escaped(key: &str) -> String {
    key.bytes().fold(String::new(), |mut all, byte| {
        if byte.is_ascii_alphanumeric() || b"!#$&'*+-.^_`|~".contains(&byte) {
            all.push(char::from(byte));
        } else {
            all.push_str(&format!("%{byte:02X}"));
        }
        all
    })
}
