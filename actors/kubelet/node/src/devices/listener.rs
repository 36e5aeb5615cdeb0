//! The socket at which plugins register: `device-plugins/kubelet.sock`.

use std::convert::Infallible;
use std::io;
use std::path::Path;
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt as _};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use k3sd_runtime::gather::inside;
use k3sd_runtime::lend::Lend;
use k3sd_runtime::{ActorError, TaskHandle};
use tokio::net::{UnixListener, UnixStream};
use tonic::codegen::Service;
use tonic::{Request, Response, Status};

use super::actor::Devices;
use super::wire::registration_server::{Registration, RegistrationServer};
use super::wire::{Empty, RegisterRequest};

/// Plugins that may be connected; a plugin registers and goes.
const CONNECTIONS_MAX: usize = 64;
/// Calls of one connection.
const CALLS_MAX: usize = 16;
/// How long somebody may be connected: a registration is one call.
const CONNECTION_LIMIT: Duration = Duration::from_secs(60);

/// The listening socket.
pub type Socket = UnixListener;

/// Opens the socket anew, at which running plugins notice that they have to register again.
///
/// # Errors
/// The kernel's.
pub fn bind(directory: &Path) -> io::Result<UnixListener> {
    std::fs::create_dir_all(directory)?;
    let path = directory.join("kubelet.sock");
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => UnixListener::bind(path),
    }
}

#[derive(Debug)]
struct Desk(Devices);

#[tonic::async_trait]
impl Registration for Desk {
    async fn register(&self, request: Request<RegisterRequest>) -> Result<Response<Empty>, Status> {
        let answer = self.0.register(request.into_inner()).await;
        answer.map(|()| Response::new(Empty {})).map_err(Status::unknown)
    }
}

/// The body of the listener's task.
pub(crate) async fn listen(_: TaskHandle, socket: Lend<Socket>, devices: Devices) -> Result<(), ActorError> {
    let socket = socket.borrow()?;
    let mut connections = FuturesUnordered::new();
    loop {
        tokio::select! {
            accepted = socket.accept(), if connections.len() < CONNECTIONS_MAX => {
                let (stream, _) = accepted?;
                let server = RegistrationServer::new(Desk(devices.clone()));
                let served = tokio::time::timeout(CONNECTION_LIMIT, serve(stream, server));
                connections.push(async move { _ = served.await });
            }
            Some(()) = connections.next() => {}
        }
    }
}

/// Serves one connection until either side has enough.
pub(super) async fn serve<S>(stream: UnixStream, server: S)
where
    S: Service<hyper::Request<Incoming>, Response = hyper::Response<tonic::body::Body>, Error = Infallible> + Clone,
    S::Future: Send + 'static,
{
    let (inside, begun) = inside(CALLS_MAX + 1);
    let service = service_fn(move |request| server.clone().call(request));
    let most = u32::try_from(CALLS_MAX).unwrap_or(1);
    let builder = http2::Builder::new(inside).max_concurrent_streams(most).clone();
    if let Err(error) = begun.with(builder.serve_connection(TokioIo::new(stream), service)).await {
        tracing::debug!(%error, "a device plugin's registration broke off");
    }
}
