//! Where connections come in: a socket, or what stands for one where a whole cluster is played in one process.

use std::future::Future;
use std::io;
use std::time::Duration;

use rustix::net::sockopt;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};

/// A connection on which nothing comes is probed after this long, and then so often; who vanished without a word is
/// noticed after three probes.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);

/// Hands over whoever comes. It is lent to the actor that accepts, and has to keep those who come while nobody has it.
pub trait Entrance: Send + Sync + 'static {
    /// A connection.
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// The next one. Dropping the future loses nobody.
    ///
    /// # Errors
    /// Nobody can be accepted now; later perhaps.
    fn accept(&self) -> impl Future<Output = io::Result<Self::Stream>> + Send;

    /// Gets a connection ready.
    ///
    /// # Errors
    /// It can't be used.
    fn set_up(stream: &Self::Stream) -> io::Result<()>;
}

impl Entrance for TcpListener {
    type Stream = TcpStream;

    async fn accept(&self) -> io::Result<TcpStream> {
        Ok(Self::accept(self).await?.0)
    }

    fn set_up(stream: &TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        sockopt::set_socket_keepalive(stream, true)?;
        sockopt::set_tcp_keepidle(stream, KEEPALIVE_IDLE)?;
        sockopt::set_tcp_keepintvl(stream, KEEPALIVE_INTERVAL)?;
        Ok(sockopt::set_tcp_keepcnt(stream, 3)?)
    }
}
