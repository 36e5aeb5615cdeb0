//! One HTTP GET to a container, for probes and hooks. Certificates aren't looked at: containers make their own.

use std::sync::Arc;

use http::{HeaderName, HeaderValue, Request, Uri, header};
use http_body_util::{BodyExt as _, Empty};
use hyper_util::rt::TokioIo;
use k3sd_client::tls::any_server;
use k8s_openapi::api::core::v1::{Container, HTTPGetAction};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::pki_types::ServerName;

use crate::spec;

/// Bytes of an answer that are read.
const BODY_BYTES_MAX: usize = 10 << 10;
/// Redirects that are followed, as Go's client does.
const REDIRECTS_MAX: usize = 10;

/// Where to ask, and with which headers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    https: bool,
    host: String,
    port: u16,
    path: String,
    headers: Vec<(String, String)>,
}

/// What came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    /// The status code of the last answer.
    pub(crate) code: u16,
    /// The beginning of its body.
    pub(crate) body: String,
    /// It led to another host, which wasn't followed.
    pub(crate) away: bool,
}

/// An address in a URL.
pub(crate) fn bracketed(host: &str) -> String {
    if host.contains(':') { format!("[{host}]") } else { host.to_owned() }
}

impl Target {
    /// From what a probe or hook says; the pod's address where it names no host.
    pub(crate) fn of(
        action: &HTTPGetAction,
        container: &Container,
        address: &str,
        agent: &str,
    ) -> Result<Self, String> {
        let port =
            spec::port(&action.port, container).ok_or_else(|| "couldn't find the port of the request".to_owned())?;
        let host = action.host.clone().filter(|host| !host.is_empty()).unwrap_or_else(|| address.to_owned());
        let path = action.path.clone().unwrap_or_default();
        let path = if path.starts_with('/') { path } else { format!("/{path}") };
        let own = action.http_headers.iter().flatten().map(|one| (one.name.clone(), one.value.clone()));
        let mut headers: Vec<(String, String)> = own.collect();
        for (name, value) in [("User-Agent", agent), ("Accept", "*/*")] {
            if !headers.iter().any(|(own, _)| own.eq_ignore_ascii_case(name)) {
                headers.push((name.to_owned(), value.to_owned()));
            }
        }
        // Set to nothing, it isn't sent.
        headers.retain(|(name, value)| !(name.eq_ignore_ascii_case("accept") && value.is_empty()));
        let https = action.scheme.as_deref().is_some_and(|scheme| scheme.eq_ignore_ascii_case("https"));
        Ok(Self { https, host, port, path, headers })
    }

    fn url(&self) -> String {
        let scheme = if self.https { "https" } else { "http" };
        format!("{scheme}://{}:{}{}", bracketed(&self.host), self.port, self.path)
    }

    /// Where a redirect leads; nothing if to another host.
    fn redirected(&self, location: &str) -> Option<Self> {
        let uri: Uri = location.parse().ok()?;
        let mut next = self.clone();
        if let Some(host) = uri.host() {
            if host.trim_matches(['[', ']']) != self.host {
                return None;
            }
            next.https = uri.scheme_str().map_or(self.https, |scheme| scheme == "https");
            next.port = uri.port_u16().unwrap_or(if next.https { 443 } else { 80 });
        }
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        next.path = if path.starts_with('/') {
            path.to_owned()
        } else {
            let base = self.path.rsplit_once('/').map_or("", |(base, _)| base);
            format!("{base}/{path}")
        };
        Some(next)
    }
}

/// Asks, and follows redirects on the same host. The caller limits the time.
pub(crate) async fn get(target: &Target) -> Result<Answer, String> {
    let mut at = target.clone();
    for _ in 0..=REDIRECTS_MAX {
        let shown = at.url();
        let (code, location, body) = once(&at).await.map_err(|error| format!("Get {shown:?}: {error}"))?;
        let location = location.filter(|_| matches!(code, 301 | 302 | 303 | 307 | 308));
        match location.map(|location| at.redirected(&location)) {
            None => return Ok(Answer { code, body, away: false }),
            Some(None) => return Ok(Answer { code, body, away: true }),
            Some(Some(next)) => at = next,
        }
    }
    Err(format!("Get {:?}: stopped after {REDIRECTS_MAX} redirects", at.url()))
}

async fn once(target: &Target) -> Result<(u16, Option<String>, String), String> {
    let place = format!("{}:{}", bracketed(&target.host), target.port);
    let stream = TcpStream::connect((target.host.as_str(), target.port)).await;
    let stream = stream.map_err(|error| format!("dial tcp {place}: connect: {}", plain(&error)))?;
    stream.set_nodelay(true).ok();
    if !target.https {
        return exchange(stream, target).await;
    }
    let name = ServerName::try_from(target.host.clone()).map_err(|error| error.to_string())?;
    let stream = TlsConnector::from(tls()?).connect(name, stream).await.map_err(|error| error.to_string())?;
    exchange(stream, target).await
}

/// An error of the system, in the words that people know from Go.
pub(crate) fn plain(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        std::io::ErrorKind::TimedOut => "i/o timeout".to_owned(),
        std::io::ErrorKind::HostUnreachable => "no route to host".to_owned(),
        std::io::ErrorKind::NetworkUnreachable => "network is unreachable".to_owned(),
        _ => error.to_string(),
    }
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    target: &Target,
) -> Result<(u16, Option<String>, String), String> {
    let request = request(target)?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
    let talk = async {
        let mut answer = sender.send_request(request).await.map_err(|error| error.to_string())?;
        let location = answer.headers().get(header::LOCATION).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let mut body = Vec::new();
        while body.len() < BODY_BYTES_MAX
            && let Some(frame) = answer.body_mut().frame().await
        {
            let Ok(frame) = frame else { break };
            body.extend_from_slice(frame.data_ref().map_or(&[], |data| data));
        }
        body.truncate(BODY_BYTES_MAX);
        Ok((answer.status().as_u16(), location, String::from_utf8_lossy(&body).into_owned()))
    };
    let mut talk = std::pin::pin!(talk);
    tokio::select! {
        biased;
        answer = &mut talk => answer,
        ended = connection => match ended {
            Ok(()) => talk.await,
            Err(error) => Err(error.to_string()),
        },
    }
}

fn request(target: &Target) -> Result<Request<Empty<&'static [u8]>>, String> {
    let mut request = Request::new(Empty::new());
    *request.uri_mut() = target.path.parse().map_err(|error| format!("{error}"))?;
    let host = HeaderValue::try_from(format!("{}:{}", bracketed(&target.host), target.port));
    request.headers_mut().insert(header::HOST, host.map_err(|error| error.to_string())?);
    request.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    for (name, value) in &target.headers {
        let name = HeaderName::try_from(name.as_str()).map_err(|error| error.to_string())?;
        let value = HeaderValue::try_from(value.as_str()).map_err(|error| error.to_string())?;
        if name == header::HOST {
            request.headers_mut().insert(name, value);
        } else {
            request.headers_mut().append(name, value);
        }
    }
    Ok(request)
}

fn tls() -> Result<Arc<ClientConfig>, String> {
    let builder = any_server().map_err(|error| error.to_string())?;
    Ok(Arc::new(builder.with_no_client_auth()))
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    fn target(port: u16, path: &str) -> Target {
        let action =
            HTTPGetAction { port: IntOrString::Int(port.into()), path: Some(path.into()), ..HTTPGetAction::default() };
        Target::of(&action, &Container::default(), "127.0.0.1", "kube-probe/1.34").unwrap()
    }

    /// Answers each request with the next of these.
    async fn serve(listener: TcpListener, answers: &[&str]) -> Vec<String> {
        let mut seen = Vec::new();
        for answer in answers {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut bytes = vec![0; 4096];
            let count = stream.read(&mut bytes).await.unwrap();
            seen.push(String::from_utf8_lossy(&bytes[..count]).into_owned());
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
        seen
    }

    #[tokio::test]
    async fn answers_and_redirects_are_understood() {
        let ok = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi";
        let here = "HTTP/1.1 302 Found\r\nlocation: /x\r\ncontent-length: 0\r\n\r\n";
        let away = "HTTP/1.1 301 Moved\r\nlocation: http://example.com/\r\ncontent-length: 0\r\n\r\n";
        for (answers, expected) in [
            (vec![ok], (200, "hi", false)),
            (vec![here, ok], (200, "hi", false)),
            (vec![away], (301, "", true)),
            (vec!["HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n"], (503, "", false)),
        ] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let target = target(listener.local_addr().unwrap().port(), "a?b=c");
            let (answer, seen) = tokio::join!(get(&target), serve(listener, &answers));
            let answer = answer.unwrap();
            assert_eq!((answer.code, answer.body.as_str(), answer.away), expected);
            assert!(seen[0].starts_with("GET /a?b=c HTTP/1.1\r\n"), "{}", seen[0]);
            assert!(seen[0].contains("user-agent: kube-probe/1.34\r\n"));
        }
    }

    #[tokio::test]
    async fn nobody_there_is_said() {
        let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
        let error = get(&target(port, "/")).await.unwrap_err();
        assert_eq!(
            error,
            format!("Get \"http://127.0.0.1:{port}/\": dial tcp 127.0.0.1:{port}: connect: connection refused")
        );
    }
}
