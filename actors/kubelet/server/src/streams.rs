//! Exec, attach and port-forward: the runtime prepares them, and the client's connection is led to where they are.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, HOST};
use http::request::Parts;
use http::{HeaderValue, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt as _, Empty};
use k3sd_client::streams::{Answered, exchange, passed_on, wants_upgrade};
use k3sd_cri::{Code, Cri, CriError, v1};
use k3sd_kubelet_base::{ContainerState, ContainerView, PodView};
use k3sd_objects::query::Query;
use k3sd_objects::status::go::quote;
use tokio::net::TcpStream;

use crate::connection::Streams;
use crate::desk::{Answer, Body, answer, text, whole};

/// How long the runtime's stream server may take to take a connection, and to answer. It takes its time until the
/// process is there.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
const ANSWER_LIMIT: Duration = Duration::from_secs(60);
/// How long the runtime may take for a command that runs to its end; it has no limit of its own.
const NO_LIMIT: i64 = 0;

/// What a client wants to speak to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A command that is run in a container.
    Exec,
    /// The container's own process.
    Attach,
    /// Ports of a pod.
    PortForward,
}

/// What a client wants to speak to, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// Runs a command.
    Exec {
        /// The command.
        command: Vec<String>,
        /// Its streams.
        streams: Standard,
    },
    /// Attaches to what runs.
    Attach(Standard),
    /// Leads to these ports; those of WebSockets. SPDY names them later.
    PortForward(Vec<i32>),
}

/// Which streams of a process are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Standard {
    input: bool,
    output: bool,
    error: bool,
    tty: bool,
}

impl Standard {
    fn parse(query: &Query) -> Result<Self, String> {
        let is_on = |key: &str| query.first(key) == Some("1");
        let tty = is_on("tty");
        // A terminal has one stream for both.
        let streams = Self { input: is_on("input"), output: is_on("output"), error: is_on("error") && !tty, tty };
        if !streams.input && !streams.output && !streams.error {
            return Err("you must specify at least 1 of stdin, stdout, stderr".to_owned());
        }
        Ok(streams)
    }
}

impl Wanted {
    /// Reads a query.
    ///
    /// # Errors
    /// The text of the answer, which is 400.
    pub(crate) fn parse(kind: Kind, query: &Query) -> Result<Self, String> {
        match kind {
            Kind::Exec => {
                let command = query.all("command").map(str::to_owned).collect();
                Ok(Self::Exec { command, streams: Standard::parse(query)? })
            }
            Kind::Attach => Ok(Self::Attach(Standard::parse(query)?)),
            Kind::PortForward => {
                let all = query.all("port").flat_map(|ports| ports.split(',')).filter(|port| !port.is_empty());
                let port = |port: &str| match port.parse::<u16>() {
                    Ok(port) if port > 0 => Ok(i32::from(port)),
                    _ => Err(format!("invalid port value {}", quote(port))),
                };
                Ok(Self::PortForward(all.map(port).collect::<Result<_, _>>()?))
            }
        }
    }
}

/// The container of this name that runs.
fn running<'a>(view: &'a PodView, name: &str) -> Result<&'a ContainerView, Response<Body>> {
    let is_it = |container: &&ContainerView| container.name == name && container.state == ContainerState::Running;
    let found = view.containers.iter().find(is_it);
    found.ok_or_else(|| text(500, format!("container not found ({})", quote(name))))
}

/// The runtime's refusal, as upstream passes it on.
fn refused(error: &CriError) -> Response<Body> {
    match error.code() {
        Code::NotFound => text(404, error.message()),
        Code::ResourceExhausted => text(429, error.message()),
        _ => text(500, error.message()),
    }
}

/// Has the runtime prepare streams, and says where they are.
///
/// # Errors
/// The answer: there is no such container, or the runtime refuses.
pub(crate) async fn prepare(
    cri: &Cri,
    wanted: Wanted,
    view: &PodView,
    container: &str,
) -> Result<String, Response<Body>> {
    let prepared = match wanted {
        Wanted::Exec { command, streams } => {
            let Standard { input: stdin, output: stdout, error: stderr, tty } = streams;
            let container_id = running(view, container)?.id.clone();
            let request = v1::ExecRequest { container_id, cmd: command, tty, stdin, stdout, stderr };
            cri.exec(request).await.map(|response| response.url)
        }
        Wanted::Attach(streams) => {
            let Standard { input: stdin, output: stdout, error: stderr, tty } = streams;
            let container_id = running(view, container)?.id.clone();
            let request = v1::AttachRequest { container_id, stdin, tty, stdout, stderr };
            cri.attach(request).await.map(|response| response.url)
        }
        Wanted::PortForward(port) => {
            let name = view.pod.metadata.name.as_deref().unwrap_or_default();
            let missing = || text(500, format!("failed to find sandboxID for pod {name}"));
            let pod_sandbox_id = view.sandbox.clone().ok_or_else(missing)?;
            let request = v1::PortForwardRequest { pod_sandbox_id, port };
            cri.port_forward(request).await.map(|response| response.url)
        }
    };
    prepared.map_err(|error| refused(&error))
}

/// Sends the client's request to where the streams are.
///
/// # Errors
/// The answer: he doesn't ask for another protocol, or nobody is there.
pub(crate) async fn connect(url: &str, parts: Parts) -> Result<Answer, Response<Body>> {
    if !wants_upgrade(&parts.headers) {
        return Err(text(400, "Upgrade request required"));
    }
    let unusable = || text(500, "the container runtime named no usable address for its streams");
    let url: Uri = url.parse().map_err(|_| unusable())?;
    let (Some("http"), Some(authority), Some(path)) = (url.scheme_str(), url.authority(), url.path_and_query()) else {
        return Err(unusable());
    };
    let mut request = Request::new(Empty::<Bytes>::new());
    *request.method_mut() = parts.method;
    *request.uri_mut() = Uri::from(path.clone());
    let mut headers = passed_on(&parts.headers);
    // Whoever he is was found out here; it is nobody else's business.
    headers.remove(AUTHORIZATION);
    headers.insert(HOST, HeaderValue::from_str(authority.as_str()).map_err(|_| unusable())?);
    *request.headers_mut() = headers;
    let away = |error: io::Error| text(502, format!("error dialing the container runtime's streams: {error}"));
    let late = || away(io::Error::new(io::ErrorKind::TimedOut, "it takes too long"));
    let port = authority.port_u16().unwrap_or(80);
    let host = authority.host().trim_matches(['[', ']']);
    let stream = tokio::time::timeout(CONNECT_LIMIT, TcpStream::connect((host, port)));
    let stream = stream.await.map_err(|_| late())?.map_err(away)?;
    stream.set_nodelay(true).map_err(away)?;
    let answered = tokio::time::timeout(ANSWER_LIMIT, exchange(stream, request)).await.map_err(|_| late())?;
    let answered = answered.map_err(|error| away(io::Error::other(error)))?;
    let mut response = Response::new(whole(Bytes::new()));
    *response.status_mut() = answered.status();
    *response.headers_mut() = passed_on(answered.headers());
    if answered.status() == StatusCode::SWITCHING_PROTOCOLS {
        let upgraded = Answered::upgraded(answered).await.map_err(|error| away(io::Error::other(error)))?;
        return Ok((response, Some(Streams(upgraded))));
    }
    *response.body_mut() = answered.into_body().map_err(io::Error::other).boxed_unsync();
    Ok((response, None))
}

/// Runs a command in a container to its end, and answers what it wrote.
///
/// # Errors
/// The answer: there is no such container, the runtime refuses, or the command failed.
pub(crate) async fn run(
    cri: &Cri,
    view: &PodView,
    container: &str,
    command: Vec<String>,
) -> Result<Response<Body>, Response<Body>> {
    let container_id = running(view, container)?.id.clone();
    let shown = command.join(" ");
    let request = v1::ExecSyncRequest { container_id, cmd: command, timeout: NO_LIMIT };
    let ended = cri.exec_sync(request).await.map_err(|error| refused(&error))?;
    if ended.exit_code != 0 {
        let said = String::from_utf8_lossy(&ended.stderr);
        return Err(text(500, format!("command '{shown}' exited with {}: {said}", ended.exit_code)));
    }
    Ok(answer(200, "application/json", [ended.stdout, ended.stderr].concat()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wanted_is_read() {
        let parse = |kind, query: &str| Wanted::parse(kind, &Query::parse(query));
        let streams = Standard { input: true, output: true, error: false, tty: true };
        assert_eq!(
            parse(Kind::Exec, "command=sh&command=-c&input=1&output=1&error=1&tty=1"),
            Ok(Wanted::Exec { command: vec!["sh".to_owned(), "-c".to_owned()], streams })
        );
        let streams = Standard { input: false, output: false, error: true, tty: false };
        assert_eq!(parse(Kind::Attach, "error=1&input=true"), Ok(Wanted::Attach(streams)));
        for kind in [Kind::Exec, Kind::Attach] {
            let refused = parse(kind, "command=a").expect_err("no streams");
            assert_eq!(refused, "you must specify at least 1 of stdin, stdout, stderr");
        }
        assert_eq!(parse(Kind::PortForward, ""), Ok(Wanted::PortForward(Vec::new())));
        assert_eq!(parse(Kind::PortForward, "port=80,443&port=1"), Ok(Wanted::PortForward(vec![80, 443, 1])));
        for bad in ["port=0", "port=65536", "port=a"] {
            assert!(parse(Kind::PortForward, bad).is_err(), "{bad}");
        }
    }
}
