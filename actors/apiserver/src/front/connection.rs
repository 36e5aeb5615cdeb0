//! One connection: HTTP/1.1 or HTTP/2, and all its requests, in one task. Also what comes after HTTP/1.1, if one of them
//! made a WebSocket of it.

use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt as _};
use hyper::rt::Executor;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::{TokioIo, TokioTimer};
use k3sd_runtime::Clock;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_rustls::server::TlsStream;

use super::gather::{Gather, Hold};
use crate::pipeline::{Peer, Pipeline};

/// Requests at once on one connection. A client of ours may have several hundred watches on its only one.
const STREAMS_MAX: u32 = 1000;
/// What a client may send ahead, per request and per connection: a large object, and a few of them.
const STREAM_WINDOW_BYTES: u32 = 256 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 4 << 20;
/// All headers of a request together. Tokens are the longest of them, at a few kilobytes.
const HEADERS_BYTES_MAX: u32 = 64 * 1024;
/// A peer that vanished without a word is noticed after the sum of these.
const PING_INTERVAL: Duration = Duration::from_secs(30);
const PING_LIMIT: Duration = Duration::from_secs(20);
/// How long the headers of a request may take.
const HEADERS_LIMIT: Duration = Duration::from_secs(32);
/// A connection without a request for so long, twice at most, is closed.
const IDLE_LIMIT: Duration = Duration::from_secs(90);

type Call = Pin<Box<dyn Future<Output = ()> + Send>>;

/// hyper wants to spawn its calls; here they become part of the connection's own task, and end with it.
#[derive(Clone)]
struct Inside(mpsc::Sender<Call>);

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Inside {
    fn execute(&self, call: F) {
        // There is a place for each stream that is allowed; beyond them the call is dropped, which resets it.
        self.0.try_send(Box::pin(call)).ok();
    }
}

/// How much is asked on a connection.
#[derive(Debug, Default)]
struct Activity {
    begun: AtomicU64,
    under_way: AtomicU64,
}

struct UnderWay(Arc<Activity>);

impl UnderWay {
    fn begin(activity: &Arc<Activity>) -> Self {
        activity.begun.fetch_add(1, Relaxed);
        activity.under_way.fetch_add(1, Relaxed);
        Self(activity.clone())
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Relaxed);
    }
}

/// Serves until either side has enough.
pub(crate) async fn serve(stream: TlsStream<TcpStream>, peer: Peer, pipeline: Pipeline, clock: Clock) {
    let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    let peer = Arc::new(peer);
    let activity = Arc::new(Activity::default());
    let (served, draining) = (activity.clone(), pipeline.draining());
    // A connection becomes something else only once.
    let (talks, mut talk) = mpsc::channel(1);
    let service = service_fn(move |request: http::Request<hyper::body::Incoming>| {
        let (upgrade, talks) = (request.extensions().get::<OnUpgrade>().cloned(), talks.clone());
        let (pipeline, peer, under_way) = (pipeline.clone(), peer.clone(), UnderWay::begin(&served));
        async move {
            let mut answer = pipeline.answer(&peer, request).await;
            if let Some(upgraded) = answer.body_mut().take_talk().zip(upgrade) {
                talks.try_send(upgraded).ok();
            }
            // Sending the answer is part of the work.
            Ok::<_, Infallible>(answer.map(|body| Attended { body, _under_way: under_way }))
        }
    });
    let served = if is_http2 {
        let hold = Hold::default();
        let io = TokioIo::new(Gather::new(stream, hold.clone()));
        let (inside, begun) = mpsc::channel(STREAMS_MAX as usize + 16);
        let connection = http2::Builder::new(Inside(inside))
            .timer(TokioTimer::new())
            .max_concurrent_streams(STREAMS_MAX)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_header_list_size(HEADERS_BYTES_MAX)
            .keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_LIMIT)
            .serve_connection(io, service);
        let mut connection = std::pin::pin!(connection);
        let mut calls = FuturesUnordered::new();
        let mut begun = begun;
        let mut told = false;
        attend(&activity, draining, &clock, |context, finish| {
            if finish && !told {
                told = true;
                connection.as_mut().graceful_shutdown();
            }
            poll_http2(connection.as_mut(), &mut calls, &mut begun, &hold, context)
        })
        .await
    } else {
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADERS_LIMIT)
            .max_buf_size(HEADERS_BYTES_MAX as usize * 2)
            .serve_connection(TokioIo::new(stream), service)
            .with_upgrades();
        let mut connection = std::pin::pin!(connection);
        attend(&activity, draining, &clock, |context, finish| {
            if finish {
                connection.as_mut().graceful_shutdown();
            }
            connection.as_mut().poll(context)
        })
        .await
    };
    if let Ok((talk, upgrade)) = talk.try_recv()
        && let Ok(upgraded) = upgrade.await
    {
        talk.run(TokioIo::new(upgraded)).await;
    }
    if let Err(error) = served {
        tracing::debug!(error = &error as &dyn std::error::Error, "a connection to the API broke off");
    }
}

/// Polls a connection and its calls. All that is ready leaves with one write.
fn poll_http2<C: Future<Output = hyper::Result<()>>>(
    mut connection: Pin<&mut C>,
    calls: &mut FuturesUnordered<Call>,
    begun: &mut mpsc::Receiver<Call>,
    hold: &Hold,
    context: &mut Context<'_>,
) -> Poll<hyper::Result<()>> {
    hold.begin();
    loop {
        while let Poll::Ready(Some(())) = calls.poll_next_unpin(context) {}
        if let Poll::Ready(outcome) = connection.as_mut().poll(context) {
            return Poll::Ready(outcome);
        }
        let before = calls.len();
        while let Poll::Ready(Some(call)) = begun.poll_recv(context) {
            calls.push(call);
        }
        // With new calls there may be answers that go along. Otherwise, what was held is flushed by one more poll; who
        // asks for something during that wakes this task.
        if calls.len() == before {
            return if hold.end() { connection.poll(context) } else { Poll::Pending };
        }
    }
}

/// Polls a connection until it ends. It is told to finish when the server drains, and when nothing was asked for long.
async fn attend(
    activity: &Activity,
    mut draining: tokio::sync::watch::Receiver<bool>,
    clock: &Clock,
    mut poll: impl FnMut(&mut Context<'_>, bool) -> Poll<hyper::Result<()>>,
) -> hyper::Result<()> {
    let mut finish = false;
    let mut drained = std::pin::pin!(async move {
        // A sender that is gone drains nobody.
        if draining.wait_for(|draining| *draining).await.is_err() {
            std::future::pending::<()>().await;
        }
    });
    loop {
        let begun = activity.begun.load(Relaxed);
        let mut idle = std::pin::pin!(clock.sleep_until(clock.now() + IDLE_LIMIT));
        let ended = poll_fn(|context| {
            if !finish && drained.as_mut().poll(context).is_ready() {
                finish = true;
            }
            if let Poll::Ready(outcome) = poll(context, finish) {
                return Poll::Ready(Some(outcome));
            }
            idle.as_mut().poll(context).map(|()| None)
        })
        .await;
        if let Some(outcome) = ended {
            return outcome;
        }
        if finish && activity.under_way.load(Relaxed) == 0 {
            // It was told, and the client doesn't go.
            return Ok(());
        }
        finish |= activity.under_way.load(Relaxed) == 0 && activity.begun.load(Relaxed) == begun;
    }
}

/// A body that counts as under way until it is sent.
struct Attended {
    body: super::body::Body,
    _under_way: UnderWay,
}

impl http_body::Body for Attended {
    type Data = bytes::Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Self::Data>, Self::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}
