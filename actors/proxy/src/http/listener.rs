//! Accepts connections and serves them, all in one task: each asks for a page or two.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use k3sd_netlink::Namespace;
use k3sd_runtime::lend::Lend;
use k3sd_runtime::{ActorError, TaskHandle};
use tokio::net::{TcpListener, TcpStream};

use super::answer::Pages;
use crate::error::ProxyError;

/// Connections at once on one socket. Whoever comes when there are so many waits in the socket's queue.
const CONNECTIONS_MAX: usize = 64;
/// How long a connection lives, whatever it does: probes come and go, and nobody can keep the places.
const CONNECTION_LIMIT: Duration = Duration::from_secs(60);
/// All headers of a request together.
const HEADERS_BYTES_MAX: usize = 16 * 1024;
/// The pause after a failed accept: too many open files, which passes.
const RETRY_DELAY: Duration = Duration::from_millis(100);

/// Opens a socket in the node's namespace.
///
/// # Errors
/// The port is taken, or the namespace is gone.
pub(crate) fn bind(namespace: Option<&Namespace>, address: SocketAddr) -> Result<TcpListener, ProxyError> {
    let failed = |source| ProxyError::Listen { address, source };
    let open = || -> Result<_, ProxyError> {
        let socket = std::net::TcpListener::bind(address).map_err(failed)?;
        socket.set_nonblocking(true).map_err(failed)?;
        Ok(socket)
    };
    let socket = match namespace {
        None => open(),
        Some(namespace) => namespace.enter(open),
    };
    TcpListener::from_std(socket?).map_err(failed)
}

/// Serves a connection until either side has enough.
pub(super) async fn serve(stream: TcpStream, pages: Pages) {
    let service = service_fn(move |request: http::Request<Incoming>| {
        let answer = pages(request.uri().path());
        async move { Ok::<_, Infallible>(answer) }
    });
    let connection =
        http1::Builder::new().max_buf_size(HEADERS_BYTES_MAX).serve_connection(TokioIo::new(stream), service);
    // Whoever breaks off, or takes too long, has what he wanted.
    tokio::time::timeout(CONNECTION_LIMIT, connection).await.ok();
}

/// Connections that are being served.
#[derive(Default)]
pub(super) struct Crowd(FuturesUnordered<Pin<Box<dyn Future<Output = ()> + Send>>>);

impl Crowd {
    pub(super) fn is_full(&self) -> bool {
        self.0.len() >= CONNECTIONS_MAX
    }

    pub(super) fn let_in(&mut self, stream: TcpStream, pages: Pages) {
        self.0.push(Box::pin(serve(stream, pages)));
    }

    /// Serves until one of them has ended; for ever while there is none.
    pub(super) async fn one_leaves(&mut self) {
        if self.0.next().await.is_none() {
            std::future::pending::<()>().await;
        }
    }
}

/// The body of a socket's task.
pub(crate) async fn listen(handle: TaskHandle, socket: Lend<TcpListener>, pages: Pages) -> Result<(), ActorError> {
    let socket = socket.borrow()?;
    let clock = handle.system().clock().clone();
    let mut crowd = Crowd::default();
    loop {
        let accepted = tokio::select! {
            accepted = socket.accept(), if !crowd.is_full() => accepted,
            () = crowd.one_leaves() => continue,
        };
        match accepted {
            Ok((stream, _)) => crowd.let_in(stream, pages.clone()),
            Err(error) => {
                tracing::warn!(%error, "the proxy's socket accepted nobody");
                clock.sleep_until(clock.now() + RETRY_DELAY).await;
            }
        }
    }
}
