//! What a request gets: who asks is known, what he may is asked, and then the path decides.

use std::fmt;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::request::Parts;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::Incoming;
use jiff::Timestamp;
use k3sd_cri::Cri;
use k3sd_kubelet_base::stats::Figures;
use k3sd_kubelet_base::{PodView, Pods};
use k3sd_objects::query::{Query, percent_decode};
use k3sd_objects::status::go::quote;
use k3sd_runtime::Clock;

use crate::access::{AccessHandle, User, needs};
use crate::config::{Checks, Configz, ServerConfig};
use crate::connection::{Peer, Streams};
use crate::logs::{LogOptions, LogReader, Refused, Writer, find};
use crate::pages;
use crate::streams::{self, Kind};

/// The body of an answer.
pub(crate) type Body = UnsyncBoxBody<Bytes, io::Error>;

/// What answers are made from. Outlives the actors of the server.
pub(crate) struct Fittings {
    pub(crate) config: ServerConfig,
    pub(crate) pods: Pods,
    pub(crate) cri: Cri,
    pub(crate) figures: Arc<dyn Figures>,
    pub(crate) checks: Checks,
    pub(crate) configz: Configz,
    pub(crate) clock: Clock,
}

/// Answers the requests of one door.
pub(crate) struct Desk {
    pub(crate) fittings: Arc<Fittings>,
    access: AccessHandle,
    /// Whether it is known who asks. If not, only health is shown.
    secure: bool,
}

impl fmt::Debug for Desk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Desk")
    }
}

/// An answer, and what the connection becomes with it.
pub(crate) type Answer = (Response<Body>, Option<Streams>);

/// A body in one piece.
pub(crate) fn whole(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// An answer in one piece.
pub(crate) fn answer(code: u16, content_type: &'static str, bytes: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(whole(bytes));
    *response.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// Plain text.
pub(crate) fn text(code: u16, text: impl Into<String>) -> Response<Body> {
    answer(code, "text/plain; charset=utf-8", text.into())
}

/// Nothing is served there.
pub(crate) fn no_such_path() -> Response<Body> {
    text(404, "404 page not found\n")
}

/// Why a request isn't served.
type Refusal = Response<Body>;

impl Desk {
    pub(crate) fn new(fittings: Arc<Fittings>, access: AccessHandle, secure: bool) -> Self {
        Self { fittings, access, secure }
    }

    /// Answers a request.
    pub(crate) async fn answer(&self, peer: &Peer, request: Request<Incoming>) -> Answer {
        let (parts, body) = request.into_parts();
        // No request here has a body that means anything.
        drop(body);
        let path = match percent_decode(parts.uri.path()) {
            Some(path) => path,
            None => return (text(400, "invalid URL escape in path\n"), None),
        };
        if !self.secure {
            let shown = path == "/healthz" || path.starts_with("/healthz/");
            return (if shown { self.healthz(&parts, &path) } else { no_such_path() }, None);
        }
        let user = match self.known(peer, &parts).await {
            Ok(user) => user,
            Err(refusal) => return (refusal, None),
        };
        if let Err(refusal) = self.allowed(user, &parts.method, &path).await {
            return (refusal, None);
        }
        self.served(parts, &path).await.unwrap_or_else(|refusal| (refusal, None))
    }

    /// Finds out who asks.
    async fn known(&self, peer: &Peer, parts: &Parts) -> Result<Arc<User>, Refusal> {
        if let Some(user) = &peer.user {
            return Ok(user.clone());
        }
        let header = parts.headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let token = header.split_once(' ').filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
        let token = token.map(|(_, token)| token.trim()).filter(|token| !token.is_empty());
        let unknown = || text(401, "Unauthorized");
        let Some(token) = token else { return Err(unknown()) };
        match self.access.authenticate(token.to_owned()).await {
            Ok(Some(user)) => Ok(user),
            Ok(None) => Err(unknown()),
            Err(error) => {
                tracing::warn!(error, "the API server could not be asked whose token it is");
                Err(unknown())
            }
        }
    }

    /// Finds out whether he may.
    async fn allowed(&self, user: Arc<User>, method: &Method, path: &str) -> Result<(), Refusal> {
        let needs = needs(method.as_str(), path);
        let what = || {
            let list = needs.subresources.join(" ");
            format!("(user={}, verb={}, resource=nodes, subresource(s)=[{list}])", user.name, needs.verb)
        };
        let mut failure = None;
        for subresource in needs.subresources {
            match self.access.may(user.clone(), needs.verb, subresource).await {
                Ok(true) => return Ok(()),
                Ok(false) => {}
                Err(error) => failure = Some(error),
            }
        }
        if let Some(error) = failure {
            tracing::warn!(error, "the API server could not be asked who may what");
            return Err(text(500, format!("Authorization error {}", what())));
        }
        Err(text(403, format!("Forbidden {}", what())))
    }

    /// Answers what may be answered.
    async fn served(&self, parts: Parts, path: &str) -> Result<Answer, Refusal> {
        let segments: Vec<&str> = path.trim_matches('/').split('/').collect();
        let query = Query::parse(parts.uri.query().unwrap_or_default());
        let reads = matches!(parts.method, Method::GET | Method::HEAD);
        let streams = matches!(parts.method, Method::GET | Method::POST);
        let kind = match segments[0] {
            "exec" => Some(Kind::Exec),
            "attach" => Some(Kind::Attach),
            "portForward" => Some(Kind::PortForward),
            _ => None,
        };
        let debugging = kind.is_some() || matches!(segments[0], "run" | "containerLogs" | "runningpods");
        if debugging && !self.fittings.config.debugging {
            return Err(text(405, "Debug endpoints are disabled.\n"));
        }
        if let Some(kind) = kind {
            return if streams { self.streams(kind, parts, &segments, &query).await } else { Err(not_allowed()) };
        }
        match (segments[0], parts.method == Method::POST) {
            ("run", true) => return Ok((self.run(&segments, &query).await?, None)),
            ("checkpoint", true) => {
                return Err(text(404, "checkpoints of containers are not supported by this kubelet"));
            }
            ("run" | "checkpoint", false) => return Err(not_allowed()),
            _ => {}
        }
        if !reads {
            return Err(not_allowed());
        }
        let fittings = &*self.fittings;
        let shown = match (segments[0], &segments[1..]) {
            ("containerLogs", [namespace, pod, container]) => self.log(namespace, pod, container, &query).await?,
            ("healthz", _) => self.healthz(&parts, path),
            ("pods", []) => pages::pods(&fittings.pods.borrow().clone()),
            ("runningpods", []) => pages::running_pods(&fittings.pods.borrow().clone()),
            ("configz", []) => pages::configz(&fittings.configz),
            ("stats", ["summary"]) => {
                pages::summary(fittings.figures.summary(query.is_true("only_cpu_and_memory")).await)
            }
            ("metrics", []) => pages::own_metrics(fittings).await,
            ("metrics", ["resource"]) => pages::metrics(fittings.figures.resource_metrics().await),
            ("metrics", ["cadvisor"]) => pages::metrics(fittings.figures.container_metrics().await),
            ("metrics", ["probes"]) => pages::metrics(fittings.figures.probe_metrics().await),
            ("logs", _) => pages::system_log(fittings.config.system_logs.as_deref(), path).await,
            _ => no_such_path(),
        };
        Ok((shown, None))
    }

    fn healthz(&self, parts: &Parts, path: &str) -> Response<Body> {
        let query = Query::parse(parts.uri.query().unwrap_or_default());
        pages::healthz(self.fittings.checks.ask(), path, query.first("verbose").is_some())
    }

    fn pod(&self, namespace: &str, name: &str) -> Option<Arc<PodView>> {
        self.fittings.pods.borrow().named(namespace, name).cloned()
    }

    /// The log of a container.
    async fn log(&self, namespace: &str, pod: &str, container: &str, query: &Query) -> Result<Response<Body>, Refusal> {
        let options = LogOptions::parse(query).map_err(|refusal| answer(422, "application/json", refusal))?;
        let view = self.pod(namespace, pod);
        let view = view.ok_or_else(|| text(404, format!("pod {} does not exist", quote(pod))))?;
        let found = find(&view, container, options.previous).map_err(|Refused(code, why)| text(code, why))?;
        let writer = Writer { pods: self.fittings.pods.clone(), uid: view.uid.clone(), container: found.id.clone() };
        let now = jiff::SignedDuration::try_from(self.fittings.clock.wall()).unwrap_or_default();
        let now = Timestamp::UNIX_EPOCH.saturating_add(now).unwrap_or_default();
        let is_simulated = self.fittings.clock.is_simulated();
        let opened = LogReader::open_on(is_simulated, found.log.clone(), options, writer, now).await;
        let reader = opened.map_err(|error| {
            let path = quote(&found.log.display().to_string());
            text(400, format!("failed to open log file {path}: {error}"))
        })?;
        let pieces = stream::unfold(Some(reader), |reader| async move {
            let mut reader = reader?;
            match reader.next().await {
                Ok(Some(piece)) => Some((Ok(Frame::data(piece)), Some(reader))),
                Ok(None) => None,
                Err(error) => Some((Err(error), None)),
            }
        });
        let mut response = text(200, "");
        *response.body_mut() = StreamBody::new(pieces).boxed_unsync();
        Ok(response)
    }

    /// The streams of a container, or into a pod.
    async fn streams(&self, kind: Kind, parts: Parts, path: &[&str], query: &Query) -> Result<Answer, Refusal> {
        let (namespace, name, container) = match (kind, &path[1..]) {
            (Kind::PortForward, [namespace, pod] | [namespace, pod, _]) => (namespace, pod, ""),
            (Kind::Exec | Kind::Attach, [namespace, pod, container] | [namespace, pod, _, container]) => {
                (namespace, pod, *container)
            }
            _ => return Err(no_such_path()),
        };
        let wanted = streams::Wanted::parse(kind, query).map_err(|why| text(400, why))?;
        let view = self.pod(namespace, name).ok_or_else(|| text(404, "pod does not exist"))?;
        let url = streams::prepare(&self.fittings.cri, wanted, &view, container).await?;
        streams::connect(&url, parts).await
    }

    /// Runs a command to its end.
    async fn run(&self, path: &[&str], query: &Query) -> Result<Response<Body>, Refusal> {
        let [namespace, name, container] = path[1..] else { return Err(no_such_path()) };
        let view = self.pod(namespace, name).ok_or_else(|| text(404, "pod does not exist"))?;
        let command = query.first("cmd").unwrap_or_default().split(' ').map(str::to_owned).collect();
        streams::run(&self.fittings.cri, &view, container, command).await
    }
}

fn not_allowed() -> Response<Body> {
    text(405, "405: Method Not Allowed")
}
