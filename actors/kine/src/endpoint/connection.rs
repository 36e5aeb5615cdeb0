//! One connection: HTTP/2, and all its calls, in one task.

use std::convert::Infallible;
use std::time::Duration;

use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use k3sd_runtime::Clock;
use k3sd_runtime::gather::inside;

use super::desk::Desk;
use super::listener::Stream;
use super::router::Router;

/// Calls at once on one connection. An API server has a few hundred watches on each of its connections.
const STREAMS_MAX: u32 = 4096;
/// What a client may send ahead, per call and per connection: a few of the largest values.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 4 << 20;
/// How much of an answer is written before it is sent. More is not quicker: it no longer fits into a core's cache.
const ANSWER_AHEAD_BYTES: usize = 128 << 10;
/// A peer that vanished without a word is noticed after the sum of these.
const PING_INTERVAL: Duration = Duration::from_secs(30);
const PING_LIMIT: Duration = Duration::from_secs(20);

/// Serves until either side has enough.
pub(crate) async fn serve(stream: Box<dyn Stream>, desk: Desk, clock: Clock) {
    let (inside, begun) = inside(STREAMS_MAX as usize + 16);
    let router = Router::new(desk, clock);
    let service = service_fn(move |request| {
        let answer = router.answer(request);
        async move { Ok::<_, Infallible>(answer.await) }
    });
    let connection = http2::Builder::new(inside)
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_send_buf_size(ANSWER_AHEAD_BYTES)
        .auto_date_header(false)
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_LIMIT)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = begun.with(connection).await {
        tracing::debug!(%error, "a connection to the datastore broke off");
    }
}
