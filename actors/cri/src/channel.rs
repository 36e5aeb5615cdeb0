//! HTTP/2 over a unix socket.

use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint};
use tower_service::Service;

/// A local socket answers at once or not at all, unless its server's queue is full.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// What a server may send ahead, per call and per connection: a list of all containers fits.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 4 << 20;

/// Dials one socket, whatever it is asked for.
#[derive(Clone)]
struct Dial(Arc<Path>);

impl Service<Uri> for Dial {
    type Response = TokioIo<UnixStream>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let path = self.0.clone();
        Box::pin(async move { Ok(TokioIo::new(UnixStream::connect(path).await?)) })
    }
}

/// The way to a gRPC server at `socket`. It connects at the first call, and again after a connection has ended. Call it
/// within a tokio runtime, on which the connection lives.
pub fn channel(socket: impl Into<PathBuf>) -> Channel {
    let endpoint = Endpoint::from_static("http://localhost")
        .connect_timeout(CONNECT_LIMIT)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES);
    endpoint.connect_with_connector_lazy(Dial(socket.into().into()))
}
