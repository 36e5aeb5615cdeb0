//! Serves the numbers to whoever scrapes them: `GET /metrics`, over HTTP/1.1, with TLS if the socket has it.
//!
//! ```text
//! metrics             rest_for_one
//! ├─ connections      dynamic: one task per connection
//! └─ listener         accepts, and asks `connections` for a task each time
//! ```

use std::convert::Infallible;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use k3sd_runtime::exposition;
use k3sd_runtime::lend::{Lend, Loan};
use k3sd_runtime::{ActorError, Restart, Spec, Strategy, TaskHandle, subtree, task};
use tokio::sync::Semaphore;

use super::Metrics;
use crate::endpoint::listener::{Guest, Socket};

/// How many may scrape at once; more than there ever are, and few enough to cost nothing.
const CONNECTIONS_MAX: usize = 64;
/// How long a guest may take to say what it wants.
const REQUEST_LIMIT: Duration = Duration::from_secs(10);
/// How long starting a connection's task may take.
const SEAT_LIMIT: Duration = Duration::from_secs(5);
/// The pause after a failed accept: too many open files, which passes.
const RETRY_DELAY: Duration = Duration::from_millis(100);
/// What the text is, for those who ask.
const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The server of metrics, as a subtree. It needs nothing of the datastore's but its numbers, so it lives beside it.
pub fn metrics_tree(metrics: Metrics, socket: Lend<Socket>) -> Spec {
    let listener = task("listener", move |handle| listen(handle, socket.clone(), metrics.clone()));
    Spec::new(Strategy::RestForOne).child(subtree("connections", Spec::new(Strategy::Dynamic))).child(listener)
}

async fn listen(handle: TaskHandle, socket: Lend<Socket>, metrics: Metrics) -> Result<(), ActorError> {
    let socket = socket.borrow()?;
    let parent = handle.path().rsplit_once('/').map_or("", |(parent, _)| parent);
    let connections = handle.system().supervisor(&format!("{parent}/connections"))?;
    let clock = handle.system().clock().clone();
    let seats = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let guest = match socket.accept().await {
            Ok(guest) => guest,
            Err(error) => {
                tracing::warn!(%error, "the socket for metrics accepted nobody");
                clock.sleep_until(clock.now() + RETRY_DELAY).await;
                continue;
            }
        };
        // Without a free seat the guest is dropped, and sees a closed connection.
        let Ok(seat) = seats.clone().try_acquire_owned() else { continue };
        let (guest, metrics) = (Lend::new((guest, seat)), metrics.clone());
        // Unique for as long as the clock goes forward.
        let name = format!("c-{}", clock.now().as_nanos());
        let child = task(&name, move |_| {
            // Taken at the start, so there is no second life for it.
            let guest = guest.borrow().ok().map(Loan::keep);
            let metrics = metrics.clone();
            async move {
                if let Some((guest, _seat)) = guest {
                    serve(guest, metrics).await;
                }
                Ok(())
            }
        });
        if let Err(error) = connections.add(SEAT_LIMIT, child.restart(Restart::Temporary)).await {
            tracing::debug!(%error, "no task for a connection");
        }
    }
}

async fn serve(guest: Guest, metrics: Metrics) {
    let stream = match guest.greet().await {
        Ok(stream) => stream,
        Err(error) => return tracing::debug!(%error, "somebody who scrapes did not shake hands"),
    };
    let service = service_fn(move |request| {
        let response = respond(&request, &metrics);
        async move { Ok::<_, Infallible>(response) }
    });
    let mut server = http1::Builder::new();
    let connection = server.timer(TokioTimer::new()).header_read_timeout(REQUEST_LIMIT);
    if let Err(error) = connection.serve_connection(TokioIo::new(stream), service).await {
        tracing::debug!(%error, "a scrape broke off");
    }
}

fn respond(request: &Request<Incoming>, metrics: &Metrics) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    let is_get = request.method() == Method::GET || request.method() == Method::HEAD;
    if request.uri().path() != "/metrics" {
        *response.status_mut() = StatusCode::NOT_FOUND;
    } else if !is_get {
        *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
        response.headers_mut().insert(ALLOW, http::HeaderValue::from_static("GET, HEAD"));
    } else {
        let mut text = metrics.text();
        exposition::write_process(&mut text, Path::new("/proc"));
        *response.body_mut() = Full::new(Bytes::from(text));
        response.headers_mut().insert(CONTENT_TYPE, http::HeaderValue::from_static(TEXT));
    }
    response
}
