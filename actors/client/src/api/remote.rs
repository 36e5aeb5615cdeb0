//! The API over TLS: one HTTP/2 connection, kept up by a task, shared by all requests.
//!
//! Owns:    the connection; it is opened again when it ends, with the certificates that are current then.
//! Needs:   nobody. While there is no connection requests wait for the next one, as long as their callers do.
//! Restart: permanent. Requests under way end with an error, as when the server goes away.
//! Fails:   never; a server that can't be reached is tried again, less and less often.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt as _};
use http::uri::{Authority, Scheme};
use http::{Request, Response, Uri};
use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper::rt::Executor;
use hyper_util::rt::{TokioIo, TokioTimer};
use k3sd_runtime::{ActorError, Backoff, ChildSpec, TaskHandle, task};
use kube::client::Body;
use thiserror::Error;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::pki_types::{InvalidDnsNameError, ServerName};

/// How long connecting and shaking hands may take.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// The waits between attempts.
const RETRY: Backoff = Backoff::RESTART;
/// A server that vanished without a word is noticed after the sum of these.
const PING_INTERVAL: Duration = Duration::from_secs(15);
const PING_LIMIT: Duration = Duration::from_secs(15);
/// What the connection needs a place for: the bodies of requests that are being sent.
const SENDING_MAX: usize = 1024;
/// What the server may send ahead, per answer and together.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 8 << 20;

/// Why a request wasn't answered.
#[derive(Debug, Error)]
pub enum RemoteError {
    /// The address is no address.
    #[error("the server's name can't be used")]
    Name(#[source] InvalidDnsNameError),
    /// The task that keeps the connection is gone for good.
    #[error("there is nobody any more who connects to the server")]
    Gone,
    /// The connection ended, or the server refused the request.
    #[error("send a request to the server")]
    Connection(#[source] hyper::Error),
    /// The request has no place on this connection.
    #[error("the request has no usable path")]
    Path(#[source] http::Error),
}

/// Where the server is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerAddress {
    /// A host name or an address, which the server's certificate has to name.
    pub host: String,
    /// The port.
    pub port: u16,
}

impl ServerAddress {
    fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

type Link = SendRequest<Body>;

/// A service that sends requests over the connection. Cloning it shares the connection.
#[derive(Clone)]
pub struct Remote {
    link: watch::Receiver<Option<Link>>,
    authority: Authority,
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Remote").field("authority", &self.authority).finish_non_exhaustive()
    }
}

/// The task that keeps the connection, to be a child of whoever needs it, and the service over it. `tls` decides about
/// certificates at each handshake, so resolvers in it that follow renewals are followed; its ALPN is set to HTTP/2.
///
/// # Errors
/// [`RemoteError::Name`] for a host that no certificate can name, [`RemoteError::Path`] for one that no URI can hold.
pub fn link(name: &str, address: ServerAddress, mut tls: ClientConfig) -> Result<(ChildSpec, Remote), RemoteError> {
    let server_name = ServerName::try_from(address.host.clone()).map_err(RemoteError::Name)?;
    let authority: Authority =
        address.authority().try_into().map_err(|error: http::uri::InvalidUri| RemoteError::Path(error.into()))?;
    tls.alpn_protocols = vec![b"h2".to_vec()];
    let connector = TlsConnector::from(Arc::new(tls));
    let (place, receiver) = watch::channel(None);
    let keeper = Arc::new(Keeper { place, connector, server_name, address });
    let child = task(name, move |handle| {
        let keeper = keeper.clone();
        async move { keeper.keep(handle).await }
    });
    Ok((child, Remote { link: receiver, authority }))
}

struct Keeper {
    place: watch::Sender<Option<Link>>,
    connector: TlsConnector,
    server_name: ServerName<'static>,
    address: ServerAddress,
}

type Sending = Pin<Box<dyn Future<Output = ()> + Send>>;

/// hyper wants to spawn what sends bodies; here it becomes part of the connection's own task.
#[derive(Clone)]
struct Inside(mpsc::Sender<Sending>);

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Inside {
    fn execute(&self, sending: F) {
        // Without a place the body isn't sent, and its request fails.
        self.0.try_send(Box::pin(sending)).ok();
    }
}

impl Keeper {
    async fn keep(&self, handle: TaskHandle) -> Result<(), ActorError> {
        let (clock, mut rng) = (handle.system().clock().clone(), handle.rng());
        let mut failures = 0;
        loop {
            let begun = clock.now();
            if let Err(error) = self.connection().await {
                tracing::debug!(%error, server = %self.address.authority(), "the connection to the API ended");
            }
            self.place.send_replace(None);
            let lasted = clock.now().since(begun) > CONNECT_LIMIT;
            failures = if lasted { 0 } else { failures + 1 };
            clock.sleep_until(clock.now() + RETRY.delay(failures, &mut rng)).await;
        }
    }

    /// Opens a connection, publishes it and serves it to its end.
    async fn connection(&self) -> io::Result<()> {
        let late = |_| io::Error::new(io::ErrorKind::TimedOut, "the server did not shake hands in time");
        let stream = tokio::time::timeout(CONNECT_LIMIT, async {
            let stream = TcpStream::connect((self.address.host.as_str(), self.address.port)).await?;
            stream.set_nodelay(true)?;
            self.connector.connect(self.server_name.clone(), stream).await
        });
        let stream = stream.await.map_err(late)??;
        let (inside, mut begun) = mpsc::channel(SENDING_MAX);
        let handshake = http2::Builder::new(Inside(inside))
            .timer(TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_LIMIT)
            .handshake(TokioIo::new(stream));
        let (link, connection) = handshake.await.map_err(io::Error::other)?;
        self.place.send_replace(Some(link));
        let mut connection = std::pin::pin!(connection);
        let mut sending = FuturesUnordered::new();
        loop {
            tokio::select! {
                ended = connection.as_mut() => return ended.map_err(io::Error::other),
                Some(body) = begun.recv() => sending.push(body),
                Some(()) = sending.next() => {}
            }
        }
    }
}

impl Remote {
    /// A client over the connection.
    pub fn client(&self) -> kube::Client {
        super::over(self.clone())
    }

    async fn send(mut self, mut request: Request<Body>) -> Result<Response<Incoming>, RemoteError> {
        let mut parts = std::mem::take(request.uri_mut()).into_parts();
        parts.scheme = Some(Scheme::HTTPS);
        parts.authority = Some(self.authority.clone());
        *request.uri_mut() = Uri::from_parts(parts).map_err(|error| RemoteError::Path(error.into()))?;
        // A connection that has just ended may still be published; then it says so at once, and another is waited for.
        loop {
            let found = self.link.wait_for(|link| link.as_ref().is_some_and(|link| !link.is_closed())).await;
            let Some(mut link) = found.map_err(|_| RemoteError::Gone)?.clone() else { continue };
            let sent = match link.ready().await {
                Ok(()) => link.try_send_request(request).await,
                Err(_) => {
                    self.link.changed().await.map_err(|_| RemoteError::Gone)?;
                    continue;
                }
            };
            let mut failed = match sent {
                Ok(answer) => return Ok(answer),
                Err(failed) => failed,
            };
            // What never left goes with the next connection; of the rest nobody knows what came of it.
            match failed.take_message() {
                Some(unsent) => request = unsent,
                None => return Err(RemoteError::Connection(failed.into_error())),
            }
            self.link.changed().await.map_err(|_| RemoteError::Gone)?;
        }
    }
}

impl tower_service::Service<Request<Body>> for Remote {
    type Response = Response<Incoming>;
    type Error = RemoteError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Box::pin(self.clone().send(request))
    }
}
