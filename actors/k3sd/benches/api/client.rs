//! A client that costs little: HTTP/2 over TLS as it is, answers that are counted and not taken apart.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use h2::RecvStream;
use h2::client::{Builder, SendRequest};
use http::{Method, Request, StatusCode, Uri};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::Failure;

/// No call of a measurement takes longer, unless something is broken.
const CALL_LIMIT: Duration = Duration::from_secs(120);
/// What a server may send ahead.
const WINDOW_BYTES: u32 = 16 << 20;

/// What a client shows and trusts, from a server's `tls` directory.
pub(crate) fn credentials(tls: &Path) -> Result<Arc<ClientConfig>, Failure> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(tls.join("server-ca.crt"))? {
        roots.add(certificate?)?;
    }
    let chain = CertificateDer::pem_file_iter(tls.join("client-admin.crt"))?.collect::<Result<Vec<_>, _>>()?;
    let key = PrivateKeyDer::from_pem_file(tls.join("client-admin.key"))?;
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let mut config = builder
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Arc::new(config))
}

/// A few connections to one server.
#[derive(Clone)]
pub(crate) struct Client {
    connections: Vec<SendRequest<Bytes>>,
    base: String,
}

impl Client {
    /// Opens so many connections.
    pub(crate) async fn connect(
        address: SocketAddr,
        config: &Arc<ClientConfig>,
        connections: usize,
    ) -> Result<Self, Failure> {
        let mut opened = Vec::new();
        for _ in 0..connections {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            let name = ServerName::try_from("localhost")?;
            let stream = TlsConnector::from(config.clone()).connect(name, stream).await?;
            let mut builder = Builder::new();
            builder.initial_window_size(WINDOW_BYTES).initial_connection_window_size(WINDOW_BYTES);
            let (sender, connection) = builder.handshake(stream).await?;
            tokio::spawn(async move {
                // Who waits for an answer is told; a server that is stopped at the end is no news.
                connection.await.ok();
            });
            opened.push(sender);
        }
        Ok(Self { connections: opened, base: format!("https://localhost:{}", address.port()) })
    }

    /// The same server, by one of the connections only.
    pub(crate) fn nth(&self, number: usize) -> Self {
        Self { connections: vec![self.connections[number % self.connections.len()].clone()], base: self.base.clone() }
    }

    async fn begin(
        &self,
        method: Method,
        path: &str,
        body: Option<Bytes>,
    ) -> Result<(StatusCode, RecvStream), Failure> {
        let mut request = Request::new(());
        *request.method_mut() = method;
        *request.uri_mut() = Uri::try_from(format!("{}{path}", self.base))?;
        let headers = request.headers_mut();
        headers.insert("accept", http::HeaderValue::from_static("application/json"));
        if body.is_some() {
            headers.insert("content-type", http::HeaderValue::from_static("application/json"));
        }
        let mut connection = self.connections[0].clone().ready().await?;
        let (response, mut stream) = connection.send_request(request, body.is_none())?;
        if let Some(body) = body {
            stream.send_data(body, true)?;
        }
        let (parts, body) = response.await?.into_parts();
        Ok((parts.status, body))
    }

    /// Asks once, and counts the bytes of the answer, which has to be a good one.
    pub(crate) async fn call(&self, method: Method, path: &str, body: Option<Bytes>) -> Result<usize, Failure> {
        let mut length = 0;
        self.read(method, path, body, |piece| length += piece.len()).await?;
        Ok(length)
    }

    /// The answer itself.
    pub(crate) async fn fetch(&self, path: &str) -> Result<Bytes, Failure> {
        let mut whole = BytesMut::new();
        self.read(Method::GET, path, None, |piece| whole.extend_from_slice(piece)).await?;
        Ok(whole.freeze())
    }

    async fn read(
        &self,
        method: Method,
        path: &str,
        body: Option<Bytes>,
        mut show: impl FnMut(&[u8]),
    ) -> Result<(), Failure> {
        let call = async {
            let (status, mut body) = self.begin(method, path, body).await?;
            let mut refusal = Vec::new();
            while let Some(piece) = body.data().await {
                let piece = piece?;
                if status.is_success() {
                    show(&piece);
                } else {
                    refusal.extend_from_slice(&piece);
                }
                body.flow_control().release_capacity(piece.len())?;
            }
            match status.is_success() {
                true => Ok(()),
                false => Err(Failure::from(format!("{path}: {status}: {}", String::from_utf8_lossy(&refusal)))),
            }
        };
        tokio::time::timeout(CALL_LIMIT, call).await.map_err(|_| format!("{path}: no answer within {CALL_LIMIT:?}"))?
    }

    /// Begins to watch.
    pub(crate) async fn watch(&self, path: &str) -> Result<Watch, Failure> {
        let (status, body) = self.begin(Method::GET, path, None).await?;
        if !status.is_success() {
            return Err(format!("{path}: {status}").into());
        }
        Ok(Watch { body })
    }
}

/// A watch under way.
pub(crate) struct Watch {
    body: RecvStream,
}

impl Watch {
    /// Waits for the end of the next event; true once it came.
    pub(crate) async fn event(&mut self) -> Result<(), Failure> {
        loop {
            let piece = self.body.data().await.ok_or("the watch ended")??;
            self.body.flow_control().release_capacity(piece.len())?;
            if piece.last() == Some(&b'\n') {
                return Ok(());
            }
        }
    }
}
