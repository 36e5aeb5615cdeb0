//! Accepts connections, and has a task started for each.

use std::io;
use std::time::Duration;

use k3sd_datastore::Backend as _;
use k3sd_runtime::lend::{Lend, Loan};
use k3sd_runtime::{ActorError, Restart, TaskHandle, inspect, task};
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncWrite, BufReader};
use tokio::net::{TcpListener, UnixListener};

use super::connection::serve;
use super::desk::Desk;
use super::lenient::Lenient;
use crate::config::ListenAddress;
use crate::expiry::ExpiryMsg;
use crate::store::StoreHandle;
use crate::tls::Certificates;

/// How long starting a connection's task may take.
const SEAT_LIMIT: Duration = Duration::from_secs(5);
/// The pause after a failed accept: too many open files, which passes.
const RETRY_DELAY: Duration = Duration::from_millis(100);
/// How long shaking hands may take, or saying the first word without TLS: a few round trips, also for a client on the
/// other side of the earth. From then on pings tell whether somebody is there.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);
/// What every HTTP/2 connection begins with has so many bytes, so the buffer is empty behind it.
const FIRST_WORD_BYTES: usize = 24;

/// A listening socket.
#[derive(Debug)]
pub enum Socket {
    /// Of this machine only.
    Unix(UnixListener),
    /// Of the network.
    Tcp(TcpListener),
    /// Either of them, with TLS.
    Tls(Box<Socket>, Certificates),
}

/// Opens a socket. Needs a tokio runtime around it.
///
/// # Errors
/// What the system says, or that somebody listens there already.
pub async fn bind(address: &ListenAddress) -> io::Result<Socket> {
    match address {
        ListenAddress::Unix(path) => inspect::bind(path).map(Socket::Unix),
        ListenAddress::Tcp(address) => TcpListener::bind(address).await.map(Socket::Tcp),
    }
}

/// Any kind of connection.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// Somebody who was let in, and with whom nobody has spoken yet.
pub(crate) struct Guest {
    stream: Box<dyn Stream>,
    tls: Option<Certificates>,
    /// It came over a unix socket, as an old client may have done.
    is_local: bool,
}

impl Guest {
    /// Does what the socket demands before the first word. That is for the guest's own task: it may take its time.
    pub(crate) async fn greet(self) -> io::Result<Box<dyn Stream>> {
        let Self { stream, tls, is_local } = self;
        let late = |_| io::Error::new(io::ErrorKind::TimedOut, "nothing was said in time");
        let stream: Box<dyn Stream> = match tls {
            Some(certificates) => {
                let shaken = tokio::time::timeout(HANDSHAKE_LIMIT, certificates.accept(stream)).await;
                Box::new(shaken.map_err(late)??)
            }
            // Reads that are longer than the buffer pass it by.
            None => {
                let mut stream = BufReader::with_capacity(FIRST_WORD_BYTES, stream);
                tokio::time::timeout(HANDSHAKE_LIMIT, stream.fill_buf()).await.map_err(late)??;
                Box::new(stream)
            }
        };
        Ok(if is_local { Box::new(Lenient::new(stream)) } else { stream })
    }
}

impl Socket {
    /// The same socket, with TLS.
    #[must_use]
    pub fn with_tls(self, certificates: Certificates) -> Self {
        Self::Tls(Box::new(self), certificates)
    }

    /// Waits for the next guest.
    pub(crate) async fn accept(&self) -> io::Result<Guest> {
        let (socket, tls) = match self {
            Self::Tls(socket, certificates) => (&**socket, Some(certificates.clone())),
            plain => (plain, None),
        };
        let (stream, is_local): (Box<dyn Stream>, _) = match socket {
            Self::Unix(listener) => (Box::new(listener.accept().await?.0), true),
            Self::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                stream.set_nodelay(true)?;
                (Box::new(stream), false)
            }
            Self::Tls(..) => return Err(io::Error::other("TLS within TLS")),
        };
        Ok(Guest { stream, tls, is_local })
    }
}

/// The body of the listener's task.
pub(crate) async fn listen(handle: TaskHandle, socket: Lend<Socket>, desk: Desk) -> Result<(), ActorError> {
    let socket = socket.borrow()?;
    let siblings = handle.path().rsplit_once('/').map_or(String::new(), |(parent, _)| format!("{parent}/"));
    let connections = handle.system().supervisor(&format!("{siblings}connections"))?;
    let desk = desk.with_leases(handle.system().address::<ExpiryMsg>(&format!("{siblings}expiry"))?);
    let clock = handle.system().clock().clone();
    let mut number = 0_u64;
    loop {
        let guest = match socket.accept().await {
            Ok(guest) => guest,
            Err(error) => {
                tracing::warn!(%error, "the datastore's socket accepted nobody");
                clock.sleep_until(clock.now() + RETRY_DELAY).await;
                continue;
            }
        };
        let (guest, desk) = (Lend::new(guest), desk.clone());
        let listener = handle.path().rsplit('/').next().unwrap_or_default().replace("listener", "c");
        // The incarnation's time makes the name unique across restarts of this task.
        let name = format!("{listener}-{number}-{}", clock.now().as_nanos());
        number += 1;
        let child = task(&name, move |handle| {
            // Taken at the start, so there is no second life for it.
            let guest = guest.borrow().ok().map(Loan::keep);
            let (desk, clock) = (desk.clone(), handle.system().clock().clone());
            async move {
                if let Some(guest) = guest {
                    match guest.greet().await {
                        Ok(stream) => serve(stream, desk, clock).await,
                        Err(error) => tracing::debug!(%error, "a client did not shake hands"),
                    }
                }
                Ok(())
            }
        });
        if let Err(error) = connections.add(SEAT_LIMIT, child.restart(Restart::Temporary)).await {
            // The client sees a closed connection, and comes again.
            tracing::debug!(%error, "no task for a connection");
        }
    }
}

/// The body of the task that tells watchers how far they are.
pub(crate) async fn progress(handle: TaskHandle, store: StoreHandle, interval: Duration) -> Result<(), ActorError> {
    let clock = handle.system().clock().clone();
    loop {
        clock.sleep_until(clock.now() + interval.max(RETRY_DELAY)).await;
        if let Ok(backend) = store.get().await {
            backend.progress().await.ok(); // A store that is gone is announced elsewhere.
        }
    }
}
