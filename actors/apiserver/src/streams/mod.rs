//! What goes on to a node: logs, exec, attach, port-forward, and proxies of pods, services and nodes.
//!
//! ```text
//! pipeline ─▶ locate ─▶ link ─▶ exchange ─┬─▶ an answer, passed on as it comes
//!                                         └─▶ another protocol: connections are led together, or translated (exec)
//! ```
//!
//! Old clients speak SPDY from end to end: their bytes are copied. New ones send exec and attach as messages of a
//! WebSocket, which kubelets don't know: that is translated here. A port-forward of theirs carries SPDY in a WebSocket,
//! which is unwrapped. None of it is held in memory beyond a piece in each direction.

mod exec;
mod html;
mod link;
mod locate;
mod proxy;
mod spdy;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::StreamExt as _;
use http::header::{
    AUTHORIZATION, CONNECTION, HOST, HeaderMap, HeaderName, HeaderValue, SEC_WEBSOCKET_PROTOCOL, UPGRADE,
};
use http::request::Parts;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::upgrade::OnUpgrade;
use k3sd_apiserver_access::authn::{Headers, web_socket_token};
use k3sd_apiserver_access::{Query, RequestInfo};
use k3sd_apiserver_store::{ReadAt, Stores};
use k3sd_client::streams::{Answered, ExchangeError, IDLE_LIMIT, Upgraded, exchange, passed_on, relay, wants_upgrade};
use k3sd_objects::status::{Qualified, Reason, Status};
use k3sd_runtime::Clock;
use serde_json::Value;

use self::exec::{VERSION_4, VERSION_5, Wanted};
use self::link::{Link, Security};
use self::locate::Location;
use crate::front::{Body, Talk, accept, is_wanted};

pub use self::link::{Connection, Dial, Nodes, Stream, Target};
pub(crate) use self::link::{shake, unverified};
pub(crate) use self::locate::{Named, service as service_target};

/// What the streams of an exec are negotiated by.
const STREAM_PROTOCOL: HeaderName = HeaderName::from_static("x-stream-protocol-version");
/// A port-forward that carries SPDY in a WebSocket.
const TUNNEL: &str = "SPDY/3.1+portforward.k8s.io";
/// The protocol within.
const PORT_FORWARD: HeaderValue = HeaderValue::from_static("portforward.k8s.io");
const SPDY: HeaderValue = HeaderValue::from_static("SPDY/3.1");
/// Protocols of logs in a WebSocket: bytes as they are, and as base64.
const BASE64_BINARY: &str = "base64.binary.k8s.io";
/// How long a kubelet may take to answer. A log of gigabytes is read backwards for its last lines.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);
/// As much of an error's text is read.
const ERROR_BYTES_MAX: usize = 50_000;

/// Whether a request goes on to a node.
pub(crate) fn goes_on(info: &RequestInfo) -> bool {
    if !info.is_resource || !info.group.is_empty() || info.version != "v1" || info.name.is_empty() {
        return false;
    }
    match (info.resource.as_str(), info.subresource.as_str()) {
        ("pods", "log" | "exec" | "attach" | "portforward") => info.parts.len() == 3 && !info.namespace.is_empty(),
        ("pods" | "services", "proxy") => !info.namespace.is_empty(),
        ("nodes", "proxy") => info.namespace.is_empty(),
        _ => false,
    }
}

/// A request that goes on.
pub(crate) struct Asked<'a> {
    pub(crate) link: &'a Arc<Link>,
    pub(crate) stores: &'a Stores,
    pub(crate) clock: &'a Clock,
    pub(crate) info: &'a RequestInfo,
    pub(crate) query: &'a Query,
    pub(crate) parts: &'a Parts,
    pub(crate) headers: Headers<'a>,
}

type Outcome = Result<Response<Body>, Status>;

/// Answers it.
///
/// # Errors
/// There is no such pod, container, node or service; it isn't on a node; nobody is there; or the request makes no sense.
pub(crate) async fn answer<B>(asked: Asked<'_>, body: B) -> Outcome
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let info = asked.info;
    let allowed: &[&str] = match info.subresource.as_str() {
        "proxy" => return proxy::answer(asked, body).await,
        "log" => &["get"],
        _ => &["get", "create"],
    };
    if !allowed.contains(&info.verb.as_str()) {
        return Err(Status::method_not_allowed(Qualified::new("", "pods"), &info.verb));
    }
    let pod = asked.object("pods", &info.namespace, &info.name).await?;
    match info.subresource.as_str() {
        "log" => asked.log(&pod).await,
        "portforward" => asked.port_forward(&pod).await,
        _ => asked.exec(&pod).await,
    }
}

/// What upstream has no reason for.
fn unnamed(why: impl Into<String>) -> Status {
    Status::failure(500, Reason::Unknown, why)
}

/// Nobody answers at the other end.
fn unanswered(error: &ExchangeError) -> io::Error {
    let source = std::error::Error::source(error);
    io::Error::other(source.map_or_else(|| error.to_string(), ToString::to_string))
}

impl Asked<'_> {
    /// An object as it is stored.
    async fn object(&self, plural: &str, namespace: &str, name: &str) -> Result<Value, Status> {
        let store = self.stores.get("", plural);
        let store = store.ok_or_else(|| Status::service_unavailable(format!("{plural} are not served yet")))?;
        let found = store.get(namespace, name, ReadAt::Latest).await?;
        found.map(|object| object.value()).ok_or_else(|| Status::not_found(Qualified::new("", plural), name))
    }

    /// The kubelet of the pod's node; nothing while it has none.
    async fn kubelet(&self, pod: &Value, path: String, security: Security) -> Result<Option<Location>, Status> {
        let node = pod.pointer("/spec/nodeName").and_then(Value::as_str).unwrap_or_default();
        if node.is_empty() {
            return Ok(None);
        }
        let target = locate::kubelet(&self.object("nodes", "", node).await?)?;
        Ok(Some(Location { target, security, path }))
    }

    /// The subprotocols that the client offers, without what it is known by.
    fn protocols(&self) -> Vec<String> {
        match web_socket_token(self.headers) {
            Ok(Some(bearer)) => bearer.protocols,
            Ok(None) => {
                let all = self.headers.all("Sec-WebSocket-Protocol").flat_map(|all| all.split(',')).map(str::trim);
                all.filter(|protocol| !protocol.is_empty()).map(str::to_owned).collect()
            }
            // A token that nobody asked for: it is not shown again.
            Err(_) => Vec::new(),
        }
    }

    /// Whether the client's connection can become a WebSocket, as it wants.
    fn wants_web_socket(&self) -> bool {
        is_wanted(&self.parts.headers) && self.parts.extensions.get::<OnUpgrade>().is_some()
    }

    /// Accepts a WebSocket that speaks this protocol.
    fn accepted(&self, protocol: Option<&str>, talk: Talk) -> Outcome {
        let protocols: Vec<String> = protocol.map(str::to_owned).into_iter().collect();
        let headers =
            accept(&self.parts.headers, &protocols).map_err(|error| Status::bad_request(error.to_string()))?;
        let mut response = Response::new(Body::talk(talk));
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        response.headers_mut().extend(headers);
        Ok(response)
    }

    /// The headers that go on with a request: nothing of who the client is.
    fn headers_on(&self, location: &Location) -> Result<HeaderMap, Status> {
        let mut headers = passed_on(&self.parts.headers);
        headers.remove(AUTHORIZATION);
        let secret =
            |name: &HeaderName| name.as_str().starts_with("impersonate-") || name.as_str().starts_with("x-remote-");
        let secrets: Vec<HeaderName> = headers.keys().filter(|name| secret(name)).cloned().collect();
        for name in secrets {
            headers.remove(name);
        }
        if headers.contains_key(SEC_WEBSOCKET_PROTOCOL) {
            headers.remove(SEC_WEBSOCKET_PROTOCOL);
            let protocols = self.protocols().join(", ");
            if let Ok(value) = HeaderValue::from_str(&protocols)
                && !protocols.is_empty()
            {
                headers.insert(SEC_WEBSOCKET_PROTOCOL, value);
            }
        }
        let host = HeaderValue::from_str(&location.target.authority()).map_err(Status::internal_error)?;
        headers.insert(HOST, host);
        Ok(headers)
    }

    /// The log of a container.
    async fn log(&self, pod: &Value) -> Outcome {
        let info = self.info;
        let query = locate::log_query(self.query, &info.name)?;
        let container = locate::container(pod, self.query.first("container").unwrap_or_default())?;
        let unverified = self.query.is_on("insecureSkipTLSVerifyBackend");
        let security = if unverified { Security::UnverifiedKubelet } else { Security::Kubelet };
        let path = format!("/containerLogs/{}/{}/{container}?{query}", info.namespace, info.name);
        let Some(location) = self.kubelet(pod, path, security).await? else {
            // It has written nothing yet.
            return Ok(Response::new(Body::whole(Bytes::new())));
        };
        let request = get(&location)?;
        let answered = send(self.link, &location, request).await.map_err(|error| {
            let (host, path) = (location.target.authority(), &location.path);
            unnamed(format!("Get \"https://{host}{path}\": {error}"))
        })?;
        let code = answered.status().as_u16();
        if !(200..=206).contains(&code) {
            return Err(log_error(code, &info.name, text_of(answered).await));
        }
        if !self.wants_web_socket() {
            let mut response = Response::new(Body::passed(answered.into_body().map_err(io::Error::other)));
            response.headers_mut().insert(http::header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
            return Ok(response);
        }
        let protocols = self.protocols();
        let as_text = protocols.first().is_some_and(|protocol| protocol == BASE64_BINARY);
        let pieces = answered.into_body().into_data_stream().take_while(|piece| std::future::ready(piece.is_ok()));
        let messages = pieces.map(move |piece| {
            let piece = piece.unwrap_or_default();
            if as_text { STANDARD.encode(&piece).into() } else { piece }
        });
        let talk = Talk::Told { messages: Box::pin(messages), text: as_text };
        self.accepted(protocols.first().map(String::as_str), talk)
    }

    /// Where streams of a pod are.
    async fn streams_of(&self, pod: &Value, path: String) -> Result<Location, Status> {
        let missing = || Status::bad_request(format!("pod {} does not have a host assigned", self.info.name));
        self.kubelet(pod, path, Security::Kubelet).await?.ok_or_else(missing)
    }

    /// The streams of a command, or of a container's own process.
    async fn exec(&self, pod: &Value) -> Outcome {
        let info = self.info;
        let container = locate::container(pod, self.query.first("container").unwrap_or_default())?;
        let (kind, query) = (&info.subresource, locate::exec_query(self.query));
        let path = format!("/{kind}/{}/{}/{container}?{query}", info.namespace, info.name);
        let location = self.streams_of(pod, path).await?;
        if !self.wants_web_socket() || !self.protocols().iter().any(|protocol| protocol == VERSION_5) {
            return self.led(&location).await;
        }
        let (link, wanted) = (self.link.clone(), Wanted::of(self.query));
        let talk = Talk::Carried(Box::new(move |client| {
            Box::pin(async move {
                // What the other streams are called is the same in each version.
                match spdy(&link, &location, HeaderValue::from_static(VERSION_4)).await {
                    Ok(kubelet) => exec::translate(client, kubelet, wanted).await,
                    Err(status) => exec::fail(client, &status).await,
                }
            })
        }));
        self.accepted(Some(VERSION_5), talk)
    }

    /// Connections into a pod.
    async fn port_forward(&self, pod: &Value) -> Outcome {
        let info = self.info;
        let query = locate::ports_query(self.query);
        let mark = if query.is_empty() { "" } else { "?" };
        let path = format!("/portForward/{}/{}{mark}{query}", info.namespace, info.name);
        let location = self.streams_of(pod, path).await?;
        if !self.wants_web_socket() || !self.protocols().iter().any(|protocol| protocol == TUNNEL) {
            return self.led(&location).await;
        }
        let kubelet = spdy(self.link, &location, PORT_FORWARD).await?;
        let talk = Talk::Carried(Box::new(|client| Box::pin(exec::tunnel(client, kubelet))));
        self.accepted(Some(TUNNEL), talk)
    }

    /// Leads the client's connection to the place, whatever they speak there.
    async fn led(&self, location: &Location) -> Outcome {
        if !wants_upgrade(&self.parts.headers) || self.parts.extensions.get::<OnUpgrade>().is_none() {
            return Err(Status::bad_request("Upgrade request required"));
        }
        let mut request = Request::new(Empty::<Bytes>::new());
        *request.method_mut() = self.parts.method.clone();
        *request.uri_mut() = location.path.parse().map_err(Status::internal_error)?;
        *request.headers_mut() = self.headers_on(location)?;
        let answered = send(self.link, location, request);
        let answered = answered.await.map_err(|error| unnamed(format!("error dialing backend: {error}")))?;
        joined(self.clock, answered).await
    }
}

/// Passes an answer on; if it agrees to another protocol, with the connection.
///
/// # Errors
/// The connection broke off at once.
pub(crate) async fn joined(clock: &Clock, answered: Response<Answered>) -> Outcome {
    let (code, headers) = (answered.status(), passed_on(answered.headers()));
    let body = if code == StatusCode::SWITCHING_PROTOCOLS {
        let other = Answered::upgraded(answered).await.map_err(|error| unnamed(unanswered(&error).to_string()))?;
        let clock = clock.clone();
        Body::talk(Talk::Carried(Box::new(move |client: Upgraded| {
            Box::pin(async move {
                if let Err(error) = relay(&clock, IDLE_LIMIT, client, other).await {
                    tracing::debug!(%error, "a connection that was led on broke off");
                }
            })
        })))
    } else {
        Body::passed(answered.into_body().map_err(io::Error::other))
    };
    let mut response = Response::new(body);
    (*response.status_mut(), *response.headers_mut()) = (code, headers);
    Ok(response)
}

/// Connects, sends a request, and waits for the head of the answer.
async fn send<B>(link: &Link, location: &Location, request: Request<B>) -> io::Result<Response<Answered>>
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let stream = link.connect(location.target.clone(), location.security).await?;
    exchange(stream, request).await.map_err(|error| unanswered(&error))
}

fn get(location: &Location) -> Result<Request<Empty<Bytes>>, Status> {
    let mut request = Request::new(Empty::<Bytes>::new());
    *request.uri_mut() = location.path.parse().map_err(Status::internal_error)?;
    let host = HeaderValue::from_str(&location.target.authority()).map_err(Status::internal_error)?;
    request.headers_mut().insert(HOST, host);
    Ok(request)
}

/// A connection to a kubelet that speaks SPDY, for streams of this protocol.
async fn spdy(link: &Link, location: &Location, protocol: HeaderValue) -> Result<Upgraded, Status> {
    let mut request = get(location)?;
    *request.method_mut() = Method::POST;
    let headers = request.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, SPDY);
    headers.insert(STREAM_PROTOCOL, protocol);
    let failed = |error: io::Error| Status::internal_error(format!("error dialing backend: {error}"));
    let late = || failed(io::Error::new(io::ErrorKind::TimedOut, "the kubelet gives no answer"));
    let answered = tokio::time::timeout(ANSWER_LIMIT, send(link, location, request)).await.map_err(|_| late())?;
    let answered = answered.map_err(failed)?;
    if answered.status() != StatusCode::SWITCHING_PROTOCOLS {
        let said = text_of(answered).await;
        return Err(Status::internal_error(format!("unable to upgrade connection: {said}")));
    }
    Answered::upgraded(answered).await.map_err(|error| failed(unanswered(&error)))
}

/// The text of an answer that is an error.
async fn text_of(answered: Response<Answered>) -> String {
    let body = Limited::new(answered.into_body(), ERROR_BYTES_MAX).collect();
    let read = tokio::time::timeout(ANSWER_LIMIT, body).await;
    let bytes = read.ok().and_then(Result::ok).map(http_body_util::Collected::to_bytes).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// What a kubelet's refusal of a log becomes.
fn log_error(code: u16, pod: &str, said: String) -> Status {
    match code {
        500 => Status::internal_error(said),
        400 => Status::bad_request(said),
        404 => {
            let why = format!("the server could not find the requested resource ( pods/log {pod})");
            let mut status = Status::failure(404, Reason::NotFound, why);
            if !said.is_empty() {
                status.message = said;
            }
            status
        }
        _ => {
            let reason = match code {
                401 => Reason::Unauthorized,
                403 => Reason::Forbidden,
                429 => Reason::TooManyRequests,
                503 => Reason::ServiceUnavailable,
                _ => Reason::Unknown,
            };
            let message = if said.is_empty() { format!("unknown ( pods/log {pod})") } else { said };
            Status::failure(i32::from(code), reason, message)
        }
    }
}
