//! Fetching the config file from a URL.
//!
//! ```text
//!   url ── proxy? ── connect ── TLS? ── GET ──┬─ 200 ── the file
//!    ▲                                        └─ moved ─┐
//!    └──────────────────────────────────────────────────┘  at most ten times, and never from https to http
//! ```
//!
//! The server is somebody else's: what it sends is limited in size, and all of it together in time.

mod connect;
mod proxy;
#[cfg(test)]
mod tests;
mod url;

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use http_body_util::{BodyExt as _, Empty};
use hyper::body::{Body as _, Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::header::{ACCEPT, AUTHORIZATION, HOST, HeaderValue, LOCATION, PROXY_AUTHORIZATION, USER_AGENT};
use hyper::{Request, Response, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use thiserror::Error;
use tokio::time::timeout;

use self::connect::{Stream, Trust, connect};
use self::proxy::proxy_for;
pub(crate) use self::url::{Url, is_url};

/// How long everything may take, from the first name that is looked up to the last byte. It is the start of a daemon
/// that waits for it.
const TIME_MAX: Duration = Duration::from_secs(10);
/// Longest file that is taken. A real one has a few lines.
const BYTES_MAX: usize = 1024 * 1024;
/// How often the file may have moved, as for Go's client.
const REDIRECTS_MAX: usize = 10;
/// Longest header that is taken.
const HEADER_BYTES_MAX: usize = 64 * 1024;

/// Why a config file could not be fetched. No message holds a secret.
#[derive(Debug, Error)]
pub enum FetchError {
    /// What was given can't be fetched.
    #[error("the URL is wrong: {0}")]
    Url(&'static str),
    /// A variable names a proxy that we do not know how to use.
    #[error(
        "the environment variable {0} names no http:// or https:// proxy; correct it, or except the host by NO_PROXY"
    )]
    Proxy(&'static str),
    /// No thread, or no event loop.
    #[error("no connection can be made")]
    Machine(#[source] io::Error),
    /// Nobody there.
    #[error("{address} can't be reached; check the host, the port and the network")]
    Connect {
        /// Host and port.
        address: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Somebody is there, and it may be anybody.
    #[error(
        "no safe connection to {host}; if its authority is your own, add it to the machine's or name it by SSL_CERT_FILE"
    )]
    Tls {
        /// Who it should be.
        host: String,
        /// What is wrong.
        #[source]
        source: io::Error,
    },
    /// This machine trusts nobody.
    #[error("this machine has no certificate authorities; install ca-certificates, or name a file by SSL_CERT_FILE")]
    NoAuthorities,
    /// The proxy does not put us through.
    #[error("the proxy {proxy} refuses the connection with status {code}; check its address, user and password")]
    ProxyRefused {
        /// Its host and port.
        proxy: String,
        /// The HTTP status.
        code: u16,
    },
    /// The conversation broke off.
    #[error("the server's answer is broken; check that it speaks HTTP on this port")]
    Broken(#[source] hyper::Error),
    /// The server has no such file for us.
    #[error("the server answers {status}; check the path, user and password")]
    Status {
        /// The HTTP status with its meaning.
        status: StatusCode,
    },
    /// Sent round in circles.
    #[error("the server redirects more than {REDIRECTS_MAX} times; name the last address")]
    Redirects,
    /// Moved to somewhere that can't be fetched.
    #[error("the server redirects to {to}, where nothing can be fetched; name the right address")]
    Redirect {
        /// Where, without credentials.
        to: String,
    },
    /// Moved to where everybody can read and change it.
    #[error("the server redirects from https to {to}, which is not safe; name that address if you mean it")]
    Downgrade {
        /// Where, without credentials.
        to: String,
    },
    /// Not a config file.
    #[error("the file is longer than {BYTES_MAX} bytes; check that the address is that of a config file")]
    TooLong,
    /// Everything takes too long.
    #[error("no whole answer within {} s; check the host and the network", TIME_MAX.as_secs())]
    TooSlow,
}

/// Fetches a file. Takes [`TIME_MAX`] at most. `variables` name proxies and authorities.
///
/// # Errors
/// See [`FetchError`].
pub(crate) fn fetch(url: &Url, variables: &BTreeMap<String, String>) -> Result<Vec<u8>, FetchError> {
    let threads = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(FetchError::Machine)?;
    let fetched = threads.block_on(within_time(url, variables));
    // A look-up of names can't be called off; it may not hold us up either.
    threads.shutdown_background();
    fetched
}

async fn within_time(url: &Url, variables: &BTreeMap<String, String>) -> Result<Vec<u8>, FetchError> {
    timeout(TIME_MAX, follow(url.clone(), variables)).await.unwrap_or(Err(FetchError::TooSlow))
}

/// Asks, and asks again wherever the file has moved to.
async fn follow(mut url: Url, variables: &BTreeMap<String, String>) -> Result<Vec<u8>, FetchError> {
    let mut trust = Trust::new(variables);
    for _ in 0..=REDIRECTS_MAX {
        let proxy = proxy_for(&url, variables)?;
        let stream = connect(&url, proxy.as_ref(), &mut trust).await?;
        match ask(request(&url, proxy.as_ref())?, stream).await? {
            Answer::File(bytes) => return Ok(bytes),
            Answer::Moved(location) => url = moved(&url, &location)?,
        }
    }
    Err(FetchError::Redirects)
}

fn moved(from: &Url, location: &str) -> Result<Url, FetchError> {
    let to = from.join(location).map_err(|_| {
        let to = crate::config::redact::without_credentials(location);
        FetchError::Redirect { to }
    })?;
    if from.tls && !to.tls {
        return Err(FetchError::Downgrade { to: to.to_string() });
    }
    Ok(to)
}

/// What a server says to a request.
enum Answer {
    File(Vec<u8>),
    Moved(String),
}

fn request(url: &Url, proxy: Option<&Url>) -> Result<Request<Empty<Bytes>>, FetchError> {
    const WRONG: FetchError = FetchError::Url("its path is too long");
    let mut request = Request::new(Empty::new());
    // A proxy that is not asked for a tunnel is asked for the page.
    let page_of_proxy = proxy.filter(|_| !url.tls);
    let target = if page_of_proxy.is_some() { url.absolute() } else { url.target.clone() };
    *request.uri_mut() = target.parse::<Uri>().map_err(|_| WRONG)?;
    let headers = request.headers_mut();
    headers.insert(HOST, HeaderValue::try_from(url.host_header()).map_err(|_| WRONG)?);
    headers.insert(USER_AGENT, HeaderValue::from_static(concat!("k3sd/", env!("CARGO_PKG_VERSION"))));
    headers.insert(ACCEPT, HeaderValue::from_static("*/*"));
    headers.extend(url.authorization().map(|value| (AUTHORIZATION, value)));
    headers.extend(page_of_proxy.and_then(Url::authorization).map(|value| (PROXY_AUTHORIZATION, value)));
    Ok(request)
}

/// One request and its answer. The connection is driven from here, so that nothing runs beside it.
async fn ask(request: Request<Empty<Bytes>>, stream: Box<dyn Stream>) -> Result<Answer, FetchError> {
    let mut http = http1::Builder::new();
    http.max_buf_size(HEADER_BYTES_MAX);
    let (mut sender, connection) = http.handshake(TokioIo::new(stream)).await.map_err(FetchError::Broken)?;
    let exchange = async { read(sender.send_request(request).await.map_err(FetchError::Broken)?).await };
    tokio::pin!(connection, exchange);
    tokio::select! {
        biased;
        answer = &mut exchange => return answer,
        // Its error, if any, shows in the exchange as well, which may have something left to read.
        _ = &mut connection => {}
    }
    exchange.await
}

async fn read(response: Response<Incoming>) -> Result<Answer, FetchError> {
    let status = response.status();
    let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
    match (status, location) {
        (StatusCode::OK, _) => body(response.into_body()).await.map(Answer::File),
        (
            StatusCode::MOVED_PERMANENTLY
            | StatusCode::FOUND
            | StatusCode::SEE_OTHER
            | StatusCode::TEMPORARY_REDIRECT
            | StatusCode::PERMANENT_REDIRECT,
            Some(location),
        ) => Ok(Answer::Moved(location.to_owned())),
        _ => Err(FetchError::Status { status }),
    }
}

async fn body(mut body: Incoming) -> Result<Vec<u8>, FetchError> {
    if body.size_hint().lower() > BYTES_MAX as u64 {
        return Err(FetchError::TooLong);
    }
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(FetchError::Broken)?.into_data() else { continue };
        if bytes.len() + data.len() > BYTES_MAX {
            return Err(FetchError::TooLong);
        }
        bytes.extend_from_slice(&data);
    }
    Ok(bytes)
}
