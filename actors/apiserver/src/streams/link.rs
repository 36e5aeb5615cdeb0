//! How the server reaches nodes, pods and services.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use k3sd_client::storage::BoxFuture;
use k3sd_client::tls::any_server;
use rustix::net::sockopt;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::client::ResolvesClientCert;
use tokio_rustls::rustls::pki_types::ServerName;

/// How long connecting may take, and shaking hands.
const CONNECT_LIMIT: Duration = Duration::from_secs(30);
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);
/// A connection on which nothing comes is probed after this long, and then so often; hosts that vanished are noticed
/// after three probes.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);

/// Bytes both ways.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// A connection of whatever kind.
pub type Connection = Box<dyn Stream>;

/// Where a connection leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// An address, or a host's name.
    pub host: String,
    /// The port.
    pub port: u16,
    /// The node whose kubelet it is, if it is one.
    pub kubelet_of: Option<String>,
}

impl Target {
    /// As it stands in a URL.
    pub(crate) fn authority(&self) -> String {
        let Self { host, port, .. } = self;
        if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
    }
}

/// Opens connections: directly, or through a tunnel.
#[derive(Clone)]
pub struct Dial(Arc<dyn Fn(Target) -> BoxFuture<'static, io::Result<Connection>> + Send + Sync>);

impl fmt::Debug for Dial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Dial")
    }
}

impl Dial {
    /// By a function; it is given up after half a minute.
    pub fn new(dial: impl Fn(Target) -> BoxFuture<'static, io::Result<Connection>> + Send + Sync + 'static) -> Self {
        Self(Arc::new(dial))
    }

    /// Over the network that this process has.
    #[must_use]
    pub fn direct() -> Self {
        Self::new(|target| Box::pin(async move { Ok(Box::new(direct(&target).await?) as Connection) }))
    }

    /// Connects.
    ///
    /// # Errors
    /// Nobody is there, or nobody answers in time. The text is for clients.
    pub(crate) async fn open(&self, target: &Target) -> io::Result<Connection> {
        let late = || io::Error::from(io::ErrorKind::TimedOut);
        let dialled = tokio::time::timeout(CONNECT_LIMIT, (self.0)(target.clone())).await;
        dialled.unwrap_or_else(|_| Err(late())).map_err(|error| told(target, &error))
    }
}

async fn direct(target: &Target) -> io::Result<TcpStream> {
    let stream = TcpStream::connect((target.host.as_str(), target.port)).await?;
    stream.set_nodelay(true)?;
    sockopt::set_socket_keepalive(&stream, true)?;
    sockopt::set_tcp_keepidle(&stream, KEEPALIVE_IDLE)?;
    sockopt::set_tcp_keepintvl(&stream, KEEPALIVE_INTERVAL)?;
    sockopt::set_tcp_keepcnt(&stream, 3)?;
    Ok(stream)
}

/// How nodes are reached. Without it nobody is: logs, exec and the like say so.
#[derive(Clone, Default)]
pub struct Nodes(Option<Arc<Link>>);

impl fmt::Debug for Nodes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Nodes").field(&self.0.is_some()).finish()
    }
}

impl Nodes {
    /// By this way of connecting. `tls` has the server's client certificate and knows who vouches for kubelets;
    /// resolvers and verifiers in it that follow renewals are followed.
    #[must_use]
    pub fn new(tls: &ClientConfig, dial: Dial) -> Self {
        let plain = |mut config: ClientConfig| {
            config.alpn_protocols = vec![b"http/1.1".to_vec()];
            TlsConnector::from(Arc::new(config))
        };
        let unverified = unverified(Some(tls.client_auth_cert_resolver.clone()));
        let link = Link {
            kubelets: plain(tls.clone()),
            unverified_kubelets: plain(unverified),
            anybody: plain(self::unverified(None)),
            dial,
        };
        Self(Some(Arc::new(link)))
    }

    pub(crate) fn link(&self) -> Option<&Arc<Link>> {
        self.0.as_ref()
    }
}

/// What is asked of the other side's certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Security {
    /// No TLS at all.
    None,
    /// That of a kubelet.
    Kubelet,
    /// Nothing, and our own is shown: `insecureSkipTLSVerifyBackend`.
    UnverifiedKubelet,
    /// Nothing, and none is shown: pods and services, whose certificates nobody here knows.
    Anybody,
}

/// See [`Nodes`].
pub(crate) struct Link {
    kubelets: TlsConnector,
    unverified_kubelets: TlsConnector,
    anybody: TlsConnector,
    dial: Dial,
}

/// A failure as Go's programs tell it.
fn told(target: &Target, error: &io::Error) -> io::Error {
    let why = match error.kind() {
        io::ErrorKind::ConnectionRefused => "connect: connection refused".to_owned(),
        io::ErrorKind::HostUnreachable => "connect: no route to host".to_owned(),
        io::ErrorKind::NetworkUnreachable => "connect: network is unreachable".to_owned(),
        io::ErrorKind::TimedOut => "i/o timeout".to_owned(),
        _ => error.to_string(),
    };
    io::Error::new(error.kind(), format!("dial tcp {}: {why}", target.authority()))
}

impl Link {
    /// Connects, and shakes hands if that is wanted.
    ///
    /// # Errors
    /// Nobody is there, or it is somebody else. The text is for clients.
    pub(crate) async fn connect(&self, target: Target, security: Security) -> io::Result<Connection> {
        let stream = self.dial.open(&target).await?;
        let connector = match security {
            Security::None => return Ok(stream),
            Security::Kubelet => &self.kubelets,
            Security::UnverifiedKubelet => &self.unverified_kubelets,
            Security::Anybody => &self.anybody,
        };
        shake(connector, &target.host, stream).await
    }
}

/// Shakes hands with whoever has to be `name`.
///
/// # Errors
/// It is somebody else, or no TLS is spoken. The text is for clients.
pub(crate) async fn shake(connector: &TlsConnector, name: &str, stream: Connection) -> io::Result<Connection> {
    let name = ServerName::try_from(name.to_owned()).map_err(io::Error::other)?;
    let shaken = tokio::time::timeout(HANDSHAKE_LIMIT, connector.connect(name, stream)).await;
    match shaken {
        Ok(Ok(stream)) => Ok(Box::new(stream)),
        Ok(Err(error)) => Err(io::Error::new(error.kind(), format!("tls: {error}"))),
        Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "net/http: TLS handshake timeout")),
    }
}

/// Asks nothing of the other side's certificate, and shows ours if there is one.
pub(crate) fn unverified(own: Option<Arc<dyn ResolvesClientCert>>) -> ClientConfig {
    let builder = any_server().expect("the provider has suites for the usual versions");
    match own {
        Some(own) => builder.with_client_cert_resolver(own),
        None => builder.with_no_client_auth(),
    }
}
