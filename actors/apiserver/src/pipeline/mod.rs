//! The way of a request, in Kubernetes' order.
//!
//! ```text
//! audit id ─▶ panic guard ─▶ request info ─▶ who ─▶ impersonation ─▶ seat ─▶ may it ─┬─▶ documents: health, discovery…
//!                                                                                     └─▶ negotiation ─▶ body ─▶ verbs ─▶ encoding
//! ```
//!
//! The same for everybody: a connection over TLS and a part of this process differ only in how it is known who they are.

mod answer;
mod documents;
mod elsewhere;
mod files;
mod local;
mod peer;
mod watch;

use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use http::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE, USER_AGENT};
use http::request::Parts;
use http::{HeaderMap, HeaderName, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use hyper::upgrade::OnUpgrade;
use jiff::Timestamp;
use k3sd_apiserver_access::authn::{Headers, Impersonation, web_socket_token};
use k3sd_apiserver_access::{Attributes, Authorizer, Query, RequestInfo, User};
use k3sd_apiserver_admission::AdmissionNumbers;
use k3sd_apiserver_registry::{Api, BODY_BYTES_MAX, Call, Reply};
use k3sd_apiserver_store::{Catalog, Resource};
use k3sd_apiserver_wire::negotiate::{Answer, Format, Media, Offer, Wish, negotiate};
use k3sd_client::arguments::go_duration;
use k3sd_objects::status::Status;
use k3sd_runtime::{Clock, Moment};
use tokio::sync::watch as place;

use crate::aggregation::Table;
use crate::authn::{Authenticator, CERTIFICATE, ServiceAccountKeys};
use crate::config::ApiServerConfig;
use crate::flow::{Class, FlowControl, Seat, TooMany};
use crate::front::{Body, Changes, ClientAuthorities, Held, Talk};
use crate::observe::{Health, Metrics, Series, StorageNumbers, Tally};
use crate::streams;

pub(crate) use self::answer::text;
pub use self::local::LocalService;
pub use self::peer::Peer;

const AUDIT_ID: HeaderName = HeaderName::from_static("audit-id");
/// The longest identifier that is taken over from a client.
const AUDIT_ID_BYTES_MAX: usize = 64;
/// Who waits for a seat gets one within this part of the time that a request has.
const WAIT_SHARE: u32 = 4;
/// Of what a client has to read again from the start.
const EXPIRED: i32 = 410;
/// What hangs off an object and has no end.
const LONG_RUNNING: &[&str] = &["attach", "exec", "portforward", "proxy"];

/// What the way of a request needs. Everything in it outlives the actors of the server.
pub(crate) struct Fittings {
    pub(crate) api: Arc<Api>,
    pub(crate) config: Arc<ApiServerConfig>,
    pub(crate) clock: Clock,
    pub(crate) authenticator: Arc<Authenticator>,
    pub(crate) authorities: ClientAuthorities,
    pub(crate) rights: place::Receiver<Arc<Authorizer>>,
    pub(crate) keys: place::Receiver<Option<Arc<ServiceAccountKeys>>>,
    pub(crate) health: Health,
    pub(crate) draining: place::Receiver<bool>,
    pub(crate) storage: StorageNumbers,
    pub(crate) admission: AdmissionNumbers,
    pub(crate) openapi: place::Receiver<Option<k3sd_runtime::Address<crate::openapi::OpenApiMsg>>>,
    /// What others answer for.
    pub(crate) table: place::Receiver<Arc<Table>>,
}

struct Inner {
    parts: Fittings,
    metrics: Metrics,
    flow: FlowControl,
    /// How many requests with an end are worked on: those that read, and those that write.
    working: [AtomicUsize; 2],
    documents: documents::Documents,
    begun: AtomicU64,
}

/// Answers requests. Cloning it shares it.
#[derive(Clone)]
pub struct Pipeline(Arc<Inner>);

impl fmt::Debug for Pipeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pipeline")
    }
}

/// A request after its first line and its headers were read.
struct Asked<'a> {
    parts: &'a Parts,
    query: Query,
    accept: String,
    user_agent: &'a str,
    began: Moment,
}

impl Asked<'_> {
    fn wish(&self) -> Wish<'_> {
        Wish {
            accept: &self.accept,
            user_agent: self.user_agent,
            pretty: self.query.first("pretty"),
            include_object: self.query.first("includeObject"),
        }
    }
}

/// The answer to whoever may not have what he asked for, with the status that says so.
type Outcome = Result<Response<Body>, Status>;

impl Pipeline {
    pub(crate) fn new(parts: Fittings) -> Self {
        let (reading, writing) = parts.config.in_flight;
        let wait_max = parts.config.request_timeout / WAIT_SHARE;
        let flow = FlowControl::new(parts.api.stores(), parts.clock.clone(), reading + writing, wait_max);
        Self(Arc::new(Inner {
            metrics: Metrics::default(),
            flow,
            working: Default::default(),
            documents: documents::Documents::new(&parts.config),
            begun: AtomicU64::new(0),
            parts,
        }))
    }

    pub(crate) fn authorities(&self) -> &ClientAuthorities {
        &self.0.parts.authorities
    }

    pub(crate) fn clock(&self) -> &Clock {
        &self.0.parts.clock
    }

    /// Says when the server takes no more requests.
    pub(crate) fn draining(&self) -> place::Receiver<bool> {
        self.0.parts.draining.clone()
    }

    /// How many requests with an end are worked on.
    pub(crate) fn under_way(&self) -> usize {
        self.0.working.iter().map(|count| count.load(Relaxed)).sum()
    }

    /// A client inside this process, known as this user, without a socket.
    #[must_use]
    pub fn local(&self, user: User) -> LocalService {
        LocalService::new(self.clone(), user)
    }

    /// Answers a request. A panic ends the request and nothing else.
    pub(crate) async fn answer<B>(&self, peer: &Peer, request: Request<B>) -> Response<Body>
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let (parts, body) = request.into_parts();
        let audit_id = self.audit_id(&parts.headers);
        let guarded = AssertUnwindSafe(self.unguarded(peer, &parts, body)).catch_unwind();
        let mut response = match guarded.await {
            Ok(response) => response,
            Err(panic) => {
                let text = panic.downcast_ref::<&str>().copied().map(str::to_owned);
                let text = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
                tracing::error!(panic = text, method = %parts.method, path = parts.uri.path(), "a request panicked");
                answer::text(500, "This request caused apiserver to panic. Look in the logs for details.\n")
            }
        };
        answer::finish(&mut response, &audit_id, self.0.parts.config.strict_transport_security.as_deref());
        response
    }

    /// What the request is known by in logs, here and with the client.
    fn audit_id(&self, headers: &HeaderMap) -> String {
        let given = headers.get(AUDIT_ID).and_then(|value| value.to_str().ok());
        if let Some(given) = given.filter(|given| !given.is_empty() && given.len() <= AUDIT_ID_BYTES_MAX) {
            return given.to_owned();
        }
        let number = self.0.begun.fetch_add(1, Relaxed);
        let mut rng = self.clock().rng(&format!("audit/{number}"));
        let (high, low) = (rng.next_u64(), rng.next_u64());
        k3sd_objects::names::uuid(high, low)
    }

    async fn unguarded<B>(&self, peer: &Peer, parts: &Parts, body: B) -> Response<Body>
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        if let Some((content_type, page)) = self.0.parts.config.pages.of(parts.uri.path()) {
            return answer::bytes(200, content_type, page);
        }
        if let Some(response) = files::answer(&self.0.parts.config.files, parts) {
            return response;
        }
        let text = |name: HeaderName| parts.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let accepts = parts.headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
        let asked = Asked {
            parts,
            query: Query::parse(parts.uri.query().unwrap_or_default()),
            accept: accepts.collect::<Vec<_>>().join(","),
            user_agent: text(USER_AGENT),
            began: self.clock().now(),
        };
        let info = RequestInfo::parse(parts.method.as_str(), parts.uri.path(), parts.uri.query().unwrap_or_default());
        let info = match info {
            Ok(info) => info,
            Err(error) => return answer::text(400, &format!("{error}\n")),
        };
        let catalog = self.0.parts.api.stores().catalog().current();
        let resource = info.is_resource.then(|| catalog.resource(&info.group, &info.version, &info.resource)).flatten();
        let series = self.0.metrics.series(labels(parts, &info, resource, &asked.query));
        let long = is_long_running(&info, &asked.query);
        let work = self.admitted(peer, &asked, info, &catalog, resource, body, &series);
        let outcome = if long {
            work.await
        } else {
            let limit = timeout(&asked.query, self.0.parts.config.request_timeout);
            tokio::time::timeout(limit, work).await.unwrap_or_else(|_| {
                self.0.metrics.count(Tally::Terminated("504"));
                let what = "request did not complete within requested timeout - context deadline exceeded";
                Err(Status::timeout(what, 0))
            })
        };
        let response = outcome.unwrap_or_else(|status| answer::status(&asked.wish(), &status));
        let code = response.status().as_u16();
        if long {
            series.answered(code, None, 0);
            return response;
        }
        let (clock, began) = (self.clock().clone(), asked.began);
        response.map(|body| body.holding(Box::new(Told { series, clock, began, code, bytes: 0 })))
    }

    /// From who it is to the answer.
    #[expect(clippy::too_many_arguments, reason = "all that was read of one request, taken apart for the borrows")]
    async fn admitted<B>(
        &self,
        peer: &Peer,
        asked: &Asked<'_>,
        info: RequestInfo,
        catalog: &Arc<Catalog>,
        resource: Option<&Arc<Resource>>,
        body: B,
        series: &Arc<Series>,
    ) -> Outcome
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let headers: Vec<(&str, &str)> = asked.parts.headers.iter().filter_map(text_header).collect();
        let (user, warning) = self.known(peer, Headers(&headers)).await?;
        let user = self.impersonated(user, Headers(&headers))?;
        let class = self.class(&user, &info, &asked.query);
        let outcome = match self.seat(class.as_ref(), &user, &info, &asked.query).await {
            Ok(_seat) => self.served(user, asked, info, catalog, resource, body, series, Headers(&headers)).await,
            Err(TooMany) => Ok(answer::too_many()),
        };
        let mut response = outcome.unwrap_or_else(|status| answer::status(&asked.wish(), &status));
        if let Some(class) = &class {
            answer::classify(response.headers_mut(), class.identifiers());
        }
        if let Some(warning) = warning {
            answer::warn(response.headers_mut(), &[warning.to_owned()]);
        }
        Ok(response)
    }

    /// From whether he may to the answer.
    #[expect(clippy::too_many_arguments, reason = "all that was read of one request, taken apart for the borrows")]
    async fn served<B>(
        &self,
        user: Arc<User>,
        asked: &Asked<'_>,
        info: RequestInfo,
        catalog: &Arc<Catalog>,
        resource: Option<&Arc<Resource>>,
        body: B,
        series: &Arc<Series>,
        headers: Headers<'_>,
    ) -> Outcome
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        self.authorize(&user, &info)?;
        let route = self.0.parts.table.borrow().route(&info.path);
        if let Some(route) = route {
            return self.elsewhere(&user, asked, &info, route, body).await;
        }
        if !info.is_resource {
            return self.document(asked, &info, catalog).await;
        }
        let Some(resource) = resource else { return Ok(answer::no_such_path()) };
        if let Some(link) = self.0.parts.config.nodes.link().filter(|_| streams::goes_on(&info)) {
            let (stores, clock) = (self.0.parts.api.stores(), self.clock());
            let Asked { parts, query, .. } = asked;
            return streams::answer(streams::Asked { link, stores, clock, info: &info, query, parts, headers }, body)
                .await;
        }
        let list = format!("{}.{}", if info.group.is_empty() { "core" } else { &info.group }, resource.list_kind);
        let wanted = match info.verb.as_str() {
            "list" | "deletecollection" => Answer::List(&list),
            "watch" => Answer::Watch,
            _ => Answer::Object,
        };
        let wish = asked.wish();
        let format = negotiate(&wish, wanted, Offer::of(resource, &info.subresource))?;
        let body = self.read(&asked.parts.headers, body).await?;
        let wall = self.clock().wall();
        let text = |name| asked.parts.headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let call = Call {
            user,
            info,
            query: asked.query.clone(),
            body,
            content_type: text(CONTENT_TYPE),
            user_agent: asked.user_agent.to_owned(),
            now: Timestamp::UNIX_EPOCH
                .saturating_add(jiff::SignedDuration::try_from(wall).unwrap_or_default())
                .unwrap_or_default(),
        };
        let (now, is_watch) = (call.now.as_second(), call.info.verb == "watch");
        let told = self.0.parts.api.handle(call).await;
        let written = match told.result {
            Ok(Reply::Watch { resource, watch }) => {
                let (clock, draining, series) = (self.clock().clone(), self.draining(), series.clone());
                let watched = watch::Watched { watch, format, resource, clock, draining, series };
                Ok(stream(format, asked.parts, headers, |alone| watch::changes(watched, alone)))
            }
            // As upstream: whoever may watch learns in the stream that he has to list again. kube-rs hears it nowhere else.
            Err(status) if is_watch && status.code == EXPIRED => {
                Ok(stream(format, asked.parts, headers, |alone| watch::refused(format, &status, alone)))
            }
            Ok(reply) => answer::reply(reply, format, &wish, answer::takes_gzip(&asked.parts.headers), now).await,
            Err(status) => Err(status),
        };
        let mut response = written.unwrap_or_else(|status| answer::status(&wish, &status));
        answer::warn(response.headers_mut(), &told.warnings);
        Ok(response)
    }

    /// Finds out who it is, and what to tell him about how he shows it.
    async fn known(&self, peer: &Peer, headers: Headers<'_>) -> Result<(Arc<User>, Option<&'static str>), Status> {
        if let Some(user) = &peer.identity {
            return Ok((user.clone(), None));
        }
        let (metrics, wall) = (&self.0.metrics, self.clock().wall());
        let authenticator = &self.0.parts.authenticator;
        match authenticator.authenticate(&peer.certificate, headers, &peer.memory, wall).await {
            Ok(known) => {
                metrics.count(Tally::Authentication("success"));
                metrics.count(Tally::AuthenticatedBy(known.by));
                if known.by == CERTIFICATE {
                    metrics.certificate(peer.certificate.not_after.saturating_sub(wall));
                }
                Ok((known.user, known.warning))
            }
            Err(refusal) => {
                metrics.count(Tally::Authentication("failure"));
                let from = peer.from.map(|from| from.to_string()).unwrap_or_default();
                tracing::debug!(%refusal, from, "somebody isn't known");
                Err(Status::unauthorized("Unauthorized"))
            }
        }
    }

    /// Whom the request counts as, if its user may act as somebody else.
    fn impersonated(&self, user: Arc<User>, headers: Headers<'_>) -> Result<Arc<User>, Status> {
        let found = Impersonation::from_headers(headers).map_err(Status::internal_error)?;
        let Some(impersonation) = found else { return Ok(user) };
        for request in &impersonation.requests {
            self.authorize(&user, request)?;
        }
        Ok(Arc::new(impersonation.user))
    }

    fn authorize(&self, user: &User, request: &RequestInfo) -> Result<(), Status> {
        let rights = self.0.parts.rights.borrow().clone();
        let attributes = Attributes { user, request };
        let decision = rights.check(attributes);
        self.0.metrics.count(Tally::Authorization(if decision.is_ok() { "allowed" } else { "denied" }));
        decision.map_err(|reason| attributes.forbidden(&reason))
    }

    /// What the request counts as among others. Nothing for what has no end; a watch has a beginning.
    fn class(&self, user: &User, info: &RequestInfo, query: &Query) -> Option<Class> {
        (info.verb == "watch" || !is_long_running(info, query)).then(|| self.0.flow.class(user, info))
    }

    /// A seat to work at, for what needs one.
    async fn seat(
        &self,
        class: Option<&Class>,
        user: &User,
        info: &RequestInfo,
        query: &Query,
    ) -> Result<Option<Working>, TooMany> {
        let Some(class) = class else { return Ok(None) };
        let reads = matches!(info.verb.as_str(), "get" | "list" | "watch");
        let dropped = Tally::Dropped(if reads { "readOnly" } else { "mutating" });
        let seat = self.0.flow.seat(class, user, info, query).await.inspect_err(|_| self.0.metrics.count(dropped))?;
        Ok(Some(Working::begin(self, usize::from(!reads), seat)))
    }

    /// Reads the body, up to the limit.
    async fn read<B>(&self, headers: &HeaderMap, body: B) -> Result<Bytes, Status>
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let too_large = || Status::request_entity_too_large(format!("limit is {BODY_BYTES_MAX}"));
        let length = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
        if length.is_some_and(|length| length > BODY_BYTES_MAX) {
            return Err(too_large());
        }
        if body.is_end_stream() {
            return Ok(Bytes::new());
        }
        match std::pin::pin!(Limited::new(body, BODY_BYTES_MAX)).as_mut().collect().await {
            Ok(collected) => Ok(collected.to_bytes()),
            Err(error) if error.is::<http_body_util::LengthLimitError>() => Err(too_large()),
            Err(error) => Err(Status::bad_request(format!("unable to read request body: {error}"))),
        }
    }
}

/// Shows a watch, as messages of a WebSocket if the client wants that and its connection can become one.
fn stream(
    format: Format,
    parts: &Parts,
    headers: Headers<'_>,
    changes: impl FnOnce(bool) -> Changes,
) -> Response<Body> {
    if parts.extensions.get::<OnUpgrade>().is_none() || !crate::front::is_wanted(&parts.headers) {
        let body = Body::changes(changes(false));
        return answer::bytes(200, format.watch_content_type(), Bytes::new()).map(|_| body);
    }
    let protocols = match web_socket_token(headers) {
        Ok(Some(bearer)) => bearer.protocols,
        Ok(None) => {
            let all = headers.all("Sec-WebSocket-Protocol").flat_map(|all| all.split(',')).map(str::trim);
            all.filter(|protocol| !protocol.is_empty()).map(str::to_owned).collect()
        }
        // A token that nobody asked for: it is not shown again.
        Err(_) => Vec::new(),
    };
    match crate::front::accept(&parts.headers, &protocols) {
        Ok(accepted) => {
            let text = format.media != Media::Protobuf;
            let mut response = Response::new(Body::talk(Talk::Told { messages: changes(true), text }));
            *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
            response.headers_mut().extend(accepted);
            response
        }
        Err(error) => answer::text(400, &format!("{error}\n")),
    }
}

fn text_header<'a>((name, value): (&'a HeaderName, &'a http::HeaderValue)) -> Option<(&'a str, &'a str)> {
    Some((name.as_str(), std::str::from_utf8(value.as_bytes()).ok()?))
}

/// Whether a request has no end of its own, so that no time limits it.
fn is_long_running(info: &RequestInfo, query: &Query) -> bool {
    let is_log = info.subresource == "log" && query.is_on("follow");
    matches!(info.verb.as_str(), "watch" | "proxy") || LONG_RUNNING.contains(&info.subresource.as_str()) || is_log
}

/// The limit of a request, which its client may lower with `timeout=34s`.
fn timeout(query: &Query, most: Duration) -> Duration {
    let asked = query.first("timeout").and_then(go_duration);
    asked.filter(|asked| !asked.is_zero()).map_or(most, |asked| asked.min(most))
}

/// What numbers call a method; what a client invented is no word of its own.
fn method_word(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::HEAD => "HEAD",
        _ => "other",
    }
}

/// What a kind of requests is called in numbers. Nothing of it is the client's own invention.
fn labels(parts: &Parts, info: &RequestInfo, resource: Option<&Arc<Resource>>, query: &Query) -> String {
    let is_apply =
        parts.headers.get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/apply-patch"));
    let verb = match info.verb.as_str() {
        "list" => "LIST",
        "watch" => "WATCH",
        "deletecollection" => "DELETECOLLECTION",
        "proxy" => "CONNECT",
        _ if LONG_RUNNING.contains(&info.subresource.as_str()) => "CONNECT",
        "patch" if is_apply => "APPLY",
        _ => method_word(&parts.method),
    };
    let dry_run = if query.first("dryRun") == Some("All") { "All" } else { "" };
    let Some(resource) = resource else {
        let path = documents::known_path(&info.path);
        return format!(
            "verb=\"{verb}\",component=\"apiserver\",group=\"\",resource=\"\",scope=\"\",subresource=\"{path}\",version=\"\",dry_run=\"{dry_run}\""
        );
    };
    let subresource = resource.subresource(&info.subresource).map_or("", |found| &found.name);
    let scope = match (info.name.is_empty(), info.namespace.is_empty()) {
        (false, _) => "resource",
        (true, false) => "namespace",
        (true, true) => "cluster",
    };
    format!(
        "verb=\"{verb}\",component=\"apiserver\",group=\"{}\",resource=\"{}\",scope=\"{scope}\",subresource=\"{subresource}\",version=\"{}\",dry_run=\"{dry_run}\"",
        resource.group, resource.plural, resource.version
    )
}

/// A request that is worked on, for as long as this lives.
struct Working {
    pipeline: Pipeline,
    kind: usize,
    _seat: Seat,
}

impl Working {
    fn begin(pipeline: &Pipeline, kind: usize, seat: Seat) -> Self {
        pipeline.0.working[kind].fetch_add(1, Relaxed);
        Self { pipeline: pipeline.clone(), kind, _seat: seat }
    }
}

impl Drop for Working {
    fn drop(&mut self) {
        self.pipeline.0.working[self.kind].fetch_sub(1, Relaxed);
    }
}

/// Tells the numbers of an answer when its last byte is out.
struct Told {
    series: Arc<Series>,
    clock: Clock,
    began: Moment,
    code: u16,
    bytes: u64,
}

impl Held for Told {
    fn sent(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        self.series.answered(self.code, Some(self.clock.now().since(self.began)), self.bytes);
    }
}
