//! One connection to one member: HTTP/2 on TCP, TLS or a socket. It tells whether a call that failed was ever sent,
//! because only then may it have been carried out.

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt as _};
use http::header::HeaderValue;
use http::uri::{Authority, PathAndQuery, Scheme, Uri};
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper::rt::Executor;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::{Semaphore, mpsc};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::Error as TlsError;
use tokio_rustls::rustls::pki_types::ServerName;
use tonic::body::Body;
use tower_service::Service;

use super::address::Address;
use crate::background::{NotRunning, Spawner};
use crate::dsn::ServerAddress;

/// Calls at once on one connection; the others wait. etcd sets no limit of its own.
const CALLS_MAX: usize = 1000;
/// What a member may send ahead, per call and per connection: a few of the largest values.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 4 << 20;
/// A member that vanished without a word is noticed after the sum of these. etcd hangs up on those who ask more often
/// than every 5 s, or while no call is under way.
const PING_INTERVAL: Duration = Duration::from_secs(6);
const PING_LIMIT: Duration = Duration::from_secs(3);

/// The token that etcd gave for a password, for every request of every line.
#[derive(Clone, Default)]
pub(super) struct Token(Arc<RwLock<Option<HeaderValue>>>);

impl Token {
    pub(super) fn get(&self) -> Option<HeaderValue> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn set(&self, token: HeaderValue) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Some(token);
    }

    /// Forgets a token, unless there is another one already.
    pub(super) fn forget(&self, token: Option<&HeaderValue>) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).take_if(|kept| Some(&*kept) == token);
    }
}

/// A connection that takes calls. Cloning it shares it.
#[derive(Clone)]
pub(super) struct Line {
    sender: http2::SendRequest<Body>,
    scheme: Scheme,
    authority: Authority,
    token: Token,
    calls: Arc<Semaphore>,
    refusal: Refusal,
}

/// Why there is no connection.
#[derive(Debug)]
pub(super) enum ConnectError {
    /// Nobody is there, for now.
    Away(io::Error),
    /// Somebody is there whom we don't talk to, or who doesn't talk to us; trying again changes nothing.
    Refused(io::Error),
    /// The store has ended.
    Closed,
}

/// A call that got no answer.
#[derive(Debug)]
pub(super) struct LineError {
    /// Whether the member may have seen it.
    pub sent: bool,
    source: hyper::Error,
}

impl fmt::Display for LineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.sent { "the connection broke" } else { "the connection is gone" })
    }
}

impl std::error::Error for LineError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

impl From<NotRunning> for ConnectError {
    fn from(_: NotRunning) -> Self {
        Self::Closed
    }
}

/// Whether TLS itself is the reason, somewhere below.
fn is_tls_refusal(error: &(dyn std::error::Error + 'static)) -> bool {
    if let Some(error) = error.downcast_ref::<io::Error>()
        && error.get_ref().is_some_and(|inner| inner.is::<TlsError>() || is_tls_refusal(inner))
    {
        return true;
    }
    error.is::<TlsError>() || error.source().is_some_and(is_tls_refusal)
}

/// A connection that remembers it when TLS is the reason of its end, which the layers above reduce to a text: a member
/// that does not take our certificate says so only after the handshake.
struct Watched<S> {
    inner: S,
    refusal: Refusal,
}

type Refusal = Arc<OnceLock<String>>;

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.inner).poll_read(cx, buffer);
        if let Poll::Ready(Err(error)) = &read
            && is_tls_refusal(error)
        {
            self.refusal.get_or_init(|| error.to_string());
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buffer)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

/// What a connection runs on.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

async fn dial(address: &Address, tls: &TlsConnector, refusal: Refusal) -> io::Result<Box<dyn Stream>> {
    let (stream, name): (Box<dyn Stream>, _) = match &address.server {
        ServerAddress::Tcp { host, port } => {
            let stream = TcpStream::connect((host.as_str(), *port)).await?;
            stream.set_nodelay(true)?;
            (Box::new(stream), host.as_str())
        }
        ServerAddress::Unix(path) => (Box::new(UnixStream::connect(path).await?), "localhost"),
    };
    if !address.tls {
        return Ok(stream);
    }
    let name = ServerName::try_from(name.to_owned()).map_err(io::Error::other)?;
    let inner = tls.connect(name, stream).await?;
    Ok(Box::new(Watched { inner, refusal }))
}

type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

/// hyper wants to spawn what belongs to a connection; here that becomes part of the connection's own future.
#[derive(Clone)]
struct Inside(mpsc::UnboundedSender<Work>);

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Inside {
    fn execute(&self, work: F) {
        // At most two for each call under way, which the semaphore bounds. Without the receiver all of it has ended.
        self.0.send(Box::pin(work)).ok();
    }
}

impl Line {
    /// Connects, and hands the connection's traffic to whoever works for the store.
    pub(super) async fn connect(
        address: &Address,
        tls: &TlsConnector,
        token: Token,
        spawner: &Spawner,
    ) -> Result<Self, ConnectError> {
        let refused = |error: String| ConnectError::Refused(io::Error::other(error));
        let authority = Authority::try_from(address.authority()).map_err(|error| refused(error.to_string()))?;
        let refusal = Refusal::default();
        let stream = dial(address, tls, refusal.clone()).await.map_err(|error| {
            if is_tls_refusal(&error) { ConnectError::Refused(error) } else { ConnectError::Away(error) }
        })?;
        let (inside, mut begun) = mpsc::unbounded_channel();
        let shaken = http2::Builder::new(Inside(inside))
            .timer(TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_LIMIT)
            .handshake(TokioIo::new(stream))
            .await;
        let (sender, connection) = shaken.map_err(|error| ConnectError::Away(io::Error::other(error)))?;
        let traffic = async move {
            let mut connection = std::pin::pin!(connection);
            let mut running: FuturesUnordered<Work> = FuturesUnordered::new();
            let mut ended = false;
            // Streams go on when nobody can begin another one.
            while !(ended && running.is_empty() && begun.is_empty()) {
                tokio::select! {
                    outcome = connection.as_mut(), if !ended => {
                        ended = true;
                        if let Err(error) = outcome {
                            tracing::debug!(%error, "a connection to etcd broke off");
                        }
                    }
                    Some(work) = begun.recv() => running.push(work),
                    Some(()) = running.next(), if !running.is_empty() => {}
                }
            }
        };
        spawner.spawn(traffic).await?;
        let scheme = if address.tls { Scheme::HTTPS } else { Scheme::HTTP };
        Ok(Self { sender, scheme, authority, token, calls: Arc::new(Semaphore::new(CALLS_MAX)), refusal })
    }

    /// Whether no call would get through.
    pub(super) fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    /// Why the member does not want us, if it said so.
    pub(super) fn refusal(&self) -> Option<&str> {
        self.refusal.get().map(String::as_str)
    }

    /// Whether it is the same connection.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.calls, &other.calls)
    }

    /// Waits for a turn; it is over when the result is dropped.
    pub(super) async fn turn(&self) -> impl Send + use<> {
        self.calls.clone().acquire_owned().await
    }
}

impl Service<http::Request<Body>> for Line {
    type Response = http::Response<Incoming>;
    type Error = LineError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, LineError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), LineError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        let path = request.uri().path_and_query().cloned().unwrap_or(PathAndQuery::from_static("/"));
        let uri = Uri::builder().scheme(self.scheme.clone()).authority(self.authority.clone()).path_and_query(path);
        *request.uri_mut() = uri.build().expect("it has all three parts");
        let headers = request.headers_mut();
        // A member that is cut off from the others refuses at once then, before it has done anything.
        headers.insert("hasleader", HeaderValue::from_static("true"));
        if let Some(token) = self.token.get() {
            headers.insert("token", token);
        }
        let mut sender = self.sender.clone();
        Box::pin(async move {
            sender.try_send_request(request).await.map_err(|mut error| {
                let sent = error.take_message().is_none();
                LineError { sent, source: error.into_error() }
            })
        })
    }
}
