//! A client of the API server that says what became of a request: an answer, a refused connection, a cut, silence.
//!
//! HTTP/2 over TLS, one connection, JSON; or, within a simulation, a [`Wire`](crate::fakes::wire::Wire). It sends a request again only when the server is known not to have begun with
//! it, as every HTTP/2 client does; all else is left to who asks.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use h2::client::{Builder, SendRequest};
use h2::{Reason, RecvStream};
use http::{Method, Request, Uri};
use http_body_util::{BodyExt as _, Full};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};
use tower_service::Service as _;

use crate::fakes::wire::{self, Reach};

/// How long a request may take. Nobody has to wait longer for an answer, whatever dies meanwhile.
pub const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// What a server may send ahead on one stream: more than a test's answers have.
const WINDOW_BYTES: u32 = 1 << 20;
/// How often a request is sent that the server does not begin with.
const ATTEMPTS: usize = 4;
/// The longest line of a watch, and the longest answer.
const BYTES_MAX: usize = 16 << 20;

/// Why a request has no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoAnswer {
    /// Nobody listens.
    Refused,
    /// The connection ended.
    Cut(String),
    /// Nothing came within [`ANSWER_WITHIN`].
    Silence,
}

impl fmt::Display for NoAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused => f.write_str("the connection was refused"),
            Self::Cut(why) => write!(f, "cut off: {why}"),
            Self::Silence => write!(f, "no answer within {ANSWER_WITHIN:?}"),
        }
    }
}

/// A failed attempt, and whether the server may have begun with it.
struct Attempt {
    why: NoAnswer,
    is_untouched: bool,
}

impl From<h2::Error> for Attempt {
    fn from(error: h2::Error) -> Self {
        let is_untouched = error.is_remote()
            && (error.reason() == Some(Reason::REFUSED_STREAM)
                || (error.is_go_away() && error.reason() == Some(Reason::NO_ERROR)));
        Self { why: NoAnswer::Cut(error.to_string()), is_untouched }
    }
}

impl From<io::Error> for Attempt {
    fn from(error: io::Error) -> Self {
        let why = match error.kind() {
            io::ErrorKind::ConnectionRefused => NoAnswer::Refused,
            _ => NoAnswer::Cut(error.to_string()),
        };
        Self { why, is_untouched: false }
    }
}

/// A server, and what its administrator shows and trusts.
#[derive(Clone, Debug)]
pub struct Server(Way);

#[derive(Clone, Debug)]
enum Way {
    Socket(SocketAddr, Arc<ClientConfig>),
    Wire(Reach),
}

impl Server {
    /// The one at an address, whose certificates are in this directory.
    ///
    /// # Panics
    /// When they can't be read.
    #[must_use]
    pub fn new(address: SocketAddr, tls: &Path) -> Self {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_file_iter(tls.join("server-ca.crt")).expect("an authority") {
            roots.add(certificate.expect("a certificate")).expect("an authority");
        }
        let chain = CertificateDer::pem_file_iter(tls.join("client-admin.crt")).expect("a certificate");
        let chain = chain.collect::<Result<Vec<_>, _>>().expect("a certificate");
        let key = PrivateKeyDer::from_pem_file(tls.join("client-admin.key")).expect("a key");
        let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("the provider's own versions")
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)
            .expect("the key is the certificate's");
        config.alpn_protocols = vec![b"h2".to_vec()];
        Self(Way::Socket(address, Arc::new(config)))
    }

    /// The one at the other end of a wire.
    #[must_use]
    pub fn over(reach: Reach) -> Self {
        Self(Way::Wire(reach))
    }

    /// A client without a connection yet.
    #[must_use]
    pub fn client(&self) -> Client {
        Client { server: self.clone(), connection: None }
    }
}

async fn connect(address: SocketAddr, credentials: Arc<ClientConfig>) -> Result<SendRequest<Bytes>, Attempt> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let name = ServerName::try_from("localhost").expect("a name");
    let stream = TlsConnector::from(credentials).connect(name, stream).await?;
    let mut builder = Builder::new();
    builder.initial_window_size(WINDOW_BYTES).initial_connection_window_size(WINDOW_BYTES);
    let (sender, connection) = builder.handshake(stream).await?;
    tokio::spawn(async move {
        // Who waits for an answer is told.
        connection.await.ok();
    });
    Ok(sender)
}

/// An answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// What came with it; null when that is no JSON.
    pub body: Value,
}

/// One client, with at most one connection.
#[derive(Debug)]
pub struct Client {
    server: Server,
    connection: Option<SendRequest<Bytes>>,
}

impl Client {
    /// Asks, and reads the whole answer.
    ///
    /// # Errors
    /// There is none; a write may have happened or not, unless nobody listens.
    pub async fn call(&mut self, method: Method, path: &str, body: Option<&Value>) -> Result<Answer, NoAnswer> {
        let call = async {
            let (status, mut stream) = self.begin(&method, path, body).await?;
            let body = stream.rest().await?;
            Ok(Answer { status, body: serde_json::from_slice(&body).unwrap_or_default() })
        };
        let result = timeout(ANSWER_WITHIN, call).await.unwrap_or(Err(NoAnswer::Silence));
        if result.is_err() {
            self.connection = None;
        }
        result
    }

    /// Reads.
    ///
    /// # Errors
    /// See [`Client::call`].
    pub async fn get(&mut self, path: &str) -> Result<Answer, NoAnswer> {
        self.call(Method::GET, path, None).await
    }

    /// Begins to watch: a stream, or the answer that is none.
    ///
    /// # Errors
    /// See [`Client::call`].
    pub async fn watch(&mut self, path: &str) -> Result<Result<Lines, Answer>, NoAnswer> {
        let call = async {
            let (status, mut lines) = self.begin(&Method::GET, path, None).await?;
            if status == 200 {
                return Ok(Ok(lines));
            }
            let body = lines.rest().await?;
            Ok(Err(Answer { status, body: serde_json::from_slice(&body).unwrap_or_default() }))
        };
        let result = timeout(ANSWER_WITHIN, call).await.unwrap_or(Err(NoAnswer::Silence));
        if result.is_err() {
            self.connection = None;
        }
        result
    }

    async fn begin(&mut self, method: &Method, path: &str, body: Option<&Value>) -> Result<(u16, Lines), NoAnswer> {
        let mut attempts = 1;
        loop {
            match self.attempt(method, path, body).await {
                Ok(begun) => return Ok(begun),
                Err(attempt) => {
                    self.connection = None;
                    if !attempt.is_untouched || attempts == ATTEMPTS {
                        return Err(attempt.why);
                    }
                }
            }
            attempts += 1;
        }
    }

    async fn attempt(&mut self, method: &Method, path: &str, body: Option<&Value>) -> Result<(u16, Lines), Attempt> {
        let mut request = Request::new(());
        *request.method_mut() = method.clone();
        *request.uri_mut() = Uri::try_from(format!("https://localhost{path}")).expect("a test's path is one");
        let json = http::HeaderValue::from_static("application/json");
        request.headers_mut().insert("accept", json.clone());
        if body.is_some() {
            request.headers_mut().insert("content-type", json);
        }
        let body = body.map(|body| Bytes::from(body.to_string()));
        match &self.server.0 {
            Way::Socket(address, credentials) => {
                let (address, credentials) = (*address, credentials.clone());
                self.send(request, body, address, credentials).await
            }
            Way::Wire(reach) => {
                let answer = reach.clone().call(request.map(|()| Full::new(body.unwrap_or_default()))).await;
                let answer =
                    answer.map_err(|error| Attempt { why: NoAnswer::Cut(error.to_string()), is_untouched: false });
                let (parts, body) = answer?.into_parts();
                Ok((parts.status.as_u16(), Lines { body: Pieces::Wire(Box::new(body)), rest: Vec::new() }))
            }
        }
    }

    async fn send(
        &mut self,
        request: Request<()>,
        body: Option<Bytes>,
        address: SocketAddr,
        credentials: Arc<ClientConfig>,
    ) -> Result<(u16, Lines), Attempt> {
        // A connection that ended while nobody used it is as good as none.
        let kept = match self.connection.take() {
            Some(kept) => kept.ready().await.ok(),
            None => None,
        };
        let mut sender = match kept {
            Some(sender) => sender,
            None => connect(address, credentials).await?.ready().await?,
        };
        let (response, mut stream) = sender.send_request(request, body.is_none())?;
        self.connection = Some(sender);
        if let Some(body) = body {
            stream.send_data(body, true)?;
        }
        let (parts, body) = response.await?.into_parts();
        Ok((parts.status.as_u16(), Lines { body: Pieces::Socket(body), rest: Vec::new() }))
    }
}

/// A body that is read line by line.
#[derive(Debug)]
pub struct Lines {
    body: Pieces,
    rest: Vec<u8>,
}

#[derive(Debug)]
enum Pieces {
    Socket(RecvStream),
    Wire(Box<wire::Answer>),
}

impl Pieces {
    async fn next(&mut self) -> Result<Option<Bytes>, NoAnswer> {
        match self {
            Self::Socket(body) => {
                let cut = |error: h2::Error| NoAnswer::Cut(error.to_string());
                let Some(piece) = body.data().await.transpose().map_err(cut)? else { return Ok(None) };
                body.flow_control().release_capacity(piece.len()).map_err(cut)?;
                Ok(Some(piece))
            }
            Self::Wire(body) => loop {
                let Some(frame) = body.frame().await else { return Ok(None) };
                let frame = frame.map_err(|error| NoAnswer::Cut(error.to_string()))?;
                if let Ok(piece) = frame.into_data() {
                    return Ok(Some(piece));
                }
            },
        }
    }
}

impl Lines {
    /// The next line; `None` at the end. Safe to give up while it waits. Half a line before the end is dropped.
    ///
    /// # Errors
    /// When the stream is cut.
    pub async fn next(&mut self) -> Result<Option<Value>, NoAnswer> {
        loop {
            if let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.rest.drain(..=end).collect();
                return Ok(Some(serde_json::from_slice(&line).unwrap_or_default()));
            }
            if !self.piece().await? {
                return Ok(None);
            }
        }
    }

    async fn rest(&mut self) -> Result<Vec<u8>, NoAnswer> {
        while self.piece().await? {}
        Ok(std::mem::take(&mut self.rest))
    }

    /// Takes more in; false at the end.
    async fn piece(&mut self) -> Result<bool, NoAnswer> {
        let Some(piece) = self.body.next().await? else { return Ok(false) };
        assert!(self.rest.len() + piece.len() <= BYTES_MAX, "an answer has no end");
        self.rest.extend_from_slice(&piece);
        Ok(true)
    }
}
