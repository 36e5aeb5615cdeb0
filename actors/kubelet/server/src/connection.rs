//! One connection: HTTP/1.1 and all its requests, in one task; and what comes after, if one of them made streams of it.

use std::convert::Infallible;
use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::{TokioIo, TokioTimer};
use k3sd_client::streams::{Upgraded, relay};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;

use crate::access::User;
use crate::desk::Desk;

/// All headers of a request together.
const HEADERS_BYTES_MAX: usize = 128 * 1024;
/// How long the headers of a request may take, and how long a connection may wait for its next request.
const HEADERS_LIMIT: Duration = Duration::from_secs(90);

/// Who is at the other end.
#[derive(Debug)]
pub(crate) struct Peer {
    /// Whom his certificate names.
    pub(crate) user: Option<Arc<User>>,
}

/// What a connection becomes: the streams of a container, at the other end of this one.
#[derive(Debug)]
pub(crate) struct Streams(pub(crate) Upgraded);

/// Serves until either side has enough.
pub(crate) async fn serve<S>(stream: S, peer: Peer, desk: Arc<Desk>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (clock, idle) = (desk.fittings.clock.clone(), desk.fittings.config.stream_idle);
    let peer = Arc::new(peer);
    // A connection becomes something else only once.
    let (becomes, mut became) = mpsc::channel::<(Streams, OnUpgrade)>(1);
    let service = service_fn(move |mut request: http::Request<Incoming>| {
        let (desk, peer, becomes) = (desk.clone(), peer.clone(), becomes.clone());
        async move {
            let upgrade = request.extensions_mut().remove::<OnUpgrade>();
            let (answer, streams) = desk.answer(&peer, request).await;
            if let Some(both) = streams.zip(upgrade) {
                becomes.try_send(both).ok();
            }
            Ok::<_, Infallible>(answer)
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS_LIMIT)
        .max_buf_size(HEADERS_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let mut connection = std::pin::pin!(connection);
    let served = poll_fn(|context| connection.as_mut().poll(context)).await;
    if let Ok((Streams(container), upgrade)) = became.try_recv()
        && let Ok(client) = upgrade.await
    {
        let ended = relay(&clock, idle, TokioIo::new(client), container).await;
        if let Err(error) = ended {
            tracing::debug!(%error, "streams of a container broke off");
        }
    }
    if let Err(error) = served {
        tracing::debug!(error = &error as &dyn std::error::Error, "a connection to the kubelet broke off");
    }
}
